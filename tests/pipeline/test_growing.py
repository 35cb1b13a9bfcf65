"""The map that grows while a run works: valid at every moment, never smaller, and in the end the same bytes."""

from __future__ import annotations

import io
import json
import random
import threading
import time
from pathlib import Path
from typing import Any

import geopandas
import pytest

from earthmap.pipeline import Job, growing, make_plan, parse_job, read_job, run_job
from earthmap.pipeline.folder import COVERAGE_PATH, FEATURES_PATH, LEDGER_PATH, RUN_PATH, SUMMARY_PATH
from earthmap.pipeline.growing import PROGRESS_PATH, Growing
from earthmap.pipeline.merged import MergedCells
from earthmap.pipeline.plan import Plan
from earthmap.pipeline.publish import publish
from earthmap.pipeline.schema import ledger_schema
from earthmap.storage import Storage
from earthmap.synthetic import World, small_world, write_world
from tests.pipeline.cells import context_of, worked_cells
from tests.pipeline.commands import command, wait_until, write_job


@pytest.fixture(scope="module")
def world() -> World:
    """A valley of four cells or more."""
    return small_world(4, size_m=4800.0, cloud_share=0.0)


@pytest.fixture(scope="module")
def catalog(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(world, tmp_path_factory.mktemp("growing"), sensors=("sentinel-1",), columns=1)


@pytest.fixture(scope="module")
def worked(world: World, catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Plan, Any]:
    """A job, its plan, and what each cell came to."""
    out = tmp_path_factory.mktemp("job") / "run"
    values = {"area": world.area, "catalog": str(catalog), "queries": ["Where is water?"], "predictor": "oracle"}
    job = parse_job({**values, "tile_size": 128, "scenes": "latest", "rush": True, "out": str(out)})
    plan = make_plan(job)
    return job, plan, [(work.cell, merge) for work, merge in worked_cells(plan, context_of(job, plan))]


def merged_of(worked: tuple[Job, Plan, Any], out: Storage) -> MergedCells:
    """What workers would have left."""
    job, _, cells = worked
    merged = MergedCells.of(Storage(job.store), out, execution=1)
    rows = {"cell_id": "", "status": "answered"}
    for _, merge in cells:
        keys = merge.coverage.select(["tile_id", "observation"]).to_pylist()
        table = [{**rows, "cell_id": merge.cell_id, "query": job.queries[0].content_key(), **key} for key in keys]
        merged.write(merge, _table(table))
    return merged


def _table(rows: list[dict[str, Any]]) -> Any:
    import pyarrow as pa

    return pa.Table.from_pylist(rows, schema=ledger_schema())


def seen_by(storage: Storage) -> tuple[int, int]:
    """Rows of both files, read as anyone would."""
    files = [geopandas.read_parquet(io.BytesIO(storage.read(path))) for path in (FEATURES_PATH, COVERAGE_PATH)]
    return len(files[0]), len(files[1])


def grown(worked: tuple[Job, Plan, Any], storage: Storage, *, seed: int) -> list[str]:
    """All cells done in some order, and the run published; what was said."""
    job, plan, cells = worked
    merged, said = merged_of(worked, storage), list[str]()
    growing = Growing(storage=storage, job=job, merged=merged, planned=plan.cells, say=said.append)
    order = [cell.id for cell, _ in cells]
    random.Random(seed).shuffle(order)
    for cell_id in order:
        growing.add(cell_id)
    publish(storage, job=job, plan=plan, merged=merged)
    return said


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The map is written after every cell, without pages and pictures, which take most of the time."""
    monkeypatch.setattr(growing, "REST", 0)
    monkeypatch.setattr(Growing, "_picture", lambda *_: b"")
    monkeypatch.setattr("earthmap.pipeline.publish._write_pages", lambda *_, **__: None)


def test_who_reads_at_any_moment_reads_a_valid_file_that_grows(
    worked: tuple[Job, Plan, Any], tmp_path: Path, at_once: None
) -> None:
    storage, seen, stop, odd = Storage(tmp_path / "run"), list[tuple[int, int]](), threading.Event(), list[Exception]()

    def poll() -> None:
        while not stop.is_set():
            try:
                seen.append(seen_by(storage))
            except FileNotFoundError:
                pass
            except Exception as error:  # noqa: BLE001 - what a reader must never see
                odd.append(error)
            time.sleep(0.001)

    reader = threading.Thread(target=poll)
    reader.start()
    said = grown(worked, storage, seed=1)
    stop.set()
    reader.join()
    assert not odd
    rows = [coverage for _, coverage in seen]
    assert rows == sorted(rows)
    assert len(set(rows)) > 2
    assert rows[0] > 0
    assert len(said) == worked[1].cells - 1
    assert said[0].startswith(f"1 of {worked[1].cells} cells: Where is water?")


def test_any_order_ends_in_the_same_bytes(worked: tuple[Job, Plan, Any], tmp_path: Path, at_once: None) -> None:
    found = []
    for seed in (1, 2):
        storage = Storage(tmp_path / str(seed))
        grown(worked, storage, seed=seed)
        found.append([storage.read(path) for path in (FEATURES_PATH, COVERAGE_PATH, LEDGER_PATH, SUMMARY_PATH)])
    plain = Storage(tmp_path / "plain")
    publish(plain, job=worked[0], plan=worked[1], merged=merged_of(worked, plain))
    found.append([plain.read(path) for path in (FEATURES_PATH, COVERAGE_PATH, LEDGER_PATH, SUMMARY_PATH)])
    assert found[0] == found[1] == found[2]


def test_a_map_that_is_there_never_becomes_smaller(
    worked: tuple[Job, Plan, Any], tmp_path: Path, at_once: None
) -> None:
    job, plan, cells = worked
    storage = Storage(tmp_path / "run")
    merged = merged_of(worked, storage)

    def start() -> Growing:
        return Growing(storage=storage, job=job, merged=merged, planned=plan.cells, say=lambda text: None)

    first, again = start(), None
    for cell, _ in cells[:3]:
        first.add(cell.id)
    left = storage.read(COVERAGE_PATH)
    assert json.loads(storage.read(PROGRESS_PATH))["cells"] == 3
    again = start()
    for number, (cell, _) in enumerate(cells[::-1], 1):
        again.add(cell.id)
        assert (storage.read(COVERAGE_PATH) == left) == (number < 3)
        left = left if number < 3 else storage.read(COVERAGE_PATH)
        if number == 3:
            break
    storage.write(RUN_PATH, b"{}")
    finished = start()
    for cell, _ in cells:
        finished.add(cell.id)
    assert storage.read(COVERAGE_PATH) == left


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("ray_cluster")
def test_killed_in_the_middle_it_leaves_a_valid_map_and_goes_on_to_the_same_bytes(
    world: World, catalog: Path, tmp_path: Path
) -> None:
    points = tmp_path / "points.csv"
    west, _, _, north = world.area.bounds
    points.write_text(f"lon,lat\n{west},{north}\n")
    radar = ["drawn-sentinel-1"]
    plain = write_job(tmp_path / "plain", world, catalog, out=str(tmp_path / "one"), collections=radar)
    rushed = {"rush": True, "points": str(points), "collections": radar}
    rush = write_job(tmp_path / "rush", world, catalog, out=str(tmp_path / "two"), **rushed)
    storages = [Storage(tmp_path / name) for name in ("one", "two")]
    with command(str(rush), "--quiet") as running:
        assert wait_until(lambda: (tmp_path / "two" / PROGRESS_PATH).exists(), running)
        assert running.kill() == {}
    _, coverage = seen_by(storages[1])
    assert coverage > 0
    assert not storages[1].exists(RUN_PATH)
    for job in (plain, rush):
        run_job(read_job(str(job)))
    for path in (FEATURES_PATH, COVERAGE_PATH, SUMMARY_PATH):
        assert storages[0].read(path) == storages[1].read(path)
    assert not storages[1].exists(PROGRESS_PATH)
