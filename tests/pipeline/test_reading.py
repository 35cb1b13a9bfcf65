"""What failures decide inside a run: who stands in, what is waited for, what stops, what is given up, and when."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from odc.geo.geobox import GeoBox

from earthmap.catalog.scene import BandSource
from earthmap.cube import Patience, RasterioReader, failures, patience
from earthmap.cube.failures import note_read, read_error
from earthmap.errors import CredentialsError
from earthmap.grid import AreaOfInterest, Tile
from earthmap.pipeline import make_plan, parse_job, reading
from earthmap.pipeline.context import Committed, Context
from earthmap.pipeline.plan import CellWork, Plan
from earthmap.pipeline.reading import SETTLED_AFTER, read_work
from earthmap.pipeline.run import predictor_spec
from earthmap.pipeline.stages import gather, predict_stage
from earthmap.storage import Storage
from earthmap.synthetic import World
from tests.catalog.image_files import write_raster


@dataclass
class FaultyReader:
    """Reads as GDAL does, but for what a test breaks."""

    broken: Callable[[BandSource, GeoBox], str | None]
    """The reason why a source cannot be read on some ground; None where it can."""
    asked: list[str] = field(default_factory=list)

    def read(self, source: BandSource, geobox: GeoBox, *, frame: GeoBox | None = None) -> Any:
        self.asked.append(source.href)
        reason = self.broken(source, geobox)
        if reason:
            raise read_error(source.href, failures.Cause(reason), f"cannot read {source.href}")
        return RasterioReader().read(source, geobox, frame=frame)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "_PLACES", set())
    monkeypatch.setattr(reading, "_TOLD", set())
    monkeypatch.setattr(reading, "_SPENT", {})
    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.01)


@dataclass
class Cell:
    """One cell of a drawn job, worked on without Ray."""

    plan: Plan
    work: CellWork
    context: Context

    def execution(self, number: int, reader: FaultyReader, **changes: Any) -> Cell:
        """The same cell in another execution, as another process would see it."""
        context = dataclasses.replace(self.context, execution=number, reader=reader, **changes)
        return dataclasses.replace(self, context=context)

    def rows(self) -> list[dict[str, Any]]:
        self.reads: dict[str, Committed] = read_work(self.work, self.context)
        groups = {name: committed.path for name, committed in self.reads.items()}
        self.parts = predict_stage(self.work, groups, self.context)
        rows: list[dict[str, Any]] = gather(self.work, self.parts, self.context).to_pylist()
        return rows


@pytest.fixture
def cell(drawn_world: World, drawn_catalog: Path, tmp_path: Path) -> Cell:
    """The first whole cell, asked for water in the best of two observations."""
    west, south, east, north = drawn_world.bounds
    area = AreaOfInterest.from_geometry(shapely.box(west, south, east, north), f"EPSG:{drawn_world.epsg}")
    job = parse_job(
        {
            "area": area, "catalog": str(drawn_catalog), "collections": ["drawn-sentinel-2-l2a"], "tile_size": 128,
            "queries": ["Where is water?"], "predictor": "oracle", "out": str(tmp_path / "run"),
        }
    )  # fmt: skip
    plan = make_plan(job)
    work = max(plan.work(), key=lambda work: work.tiles.bit_count())
    context = Context(
        store=Storage(str(tmp_path / "store")),
        execution=1,
        job=job.content_key(),
        area=job.area,
        queries={query.content_key(): query for query in job.queries},
        observations=plan.observations,
        predictor=predictor_spec(job, plan),
        reader=RasterioReader(),
    )
    return Cell(plan, work, context)


def _hrefs(cell: Cell, name: str) -> set[str]:
    scenes = cell.plan.observations[name].scenes
    return {source.href for scene in scenes for source in (*scene.mask_sources, *scene.sources)}


def _chosen(cell: Cell) -> str:
    return cell.work.questions[0].observations[0]


def _fails(cell: Cell, reason: str, *, observation: str | None = None, tile: Tile | None = None) -> FaultyReader:
    """A reader for which an observation cannot be read, on one tile's core or everywhere."""
    hrefs = _hrefs(cell, observation or _chosen(cell))
    ground = tile.core_geobox.extent.geom.buffer(-1) if tile else None

    def broken(source: BandSource, geobox: GeoBox) -> str | None:
        hit = source.href in hrefs and (ground is None or geobox.extent.geom.intersects(ground))
        return reason if hit else None

    return FaultyReader(broken)


def test_the_plan_knows_the_next_best(cell: Cell) -> None:
    (question,) = cell.work.questions
    assert len(question.fallbacks) == 1
    assert set(question.fallbacks).isdisjoint(question.observations)


@pytest.mark.parametrize("reason", ["damaged", "never_published", "too_large"])
def test_the_next_best_observation_stands_in_where_the_best_is_lost(reason: str, cell: Cell) -> None:
    tile = cell.work.cell.tiles()[5]
    whole = {row["tile_id"]: row for row in cell.rows()}
    cell.context = dataclasses.replace(cell.context, store=Storage(cell.context.store.address + "2"))
    broken = cell.execution(1, _fails(cell, reason, tile=tile))
    rows = {row["tile_id"]: row for row in broken.rows()}
    (question,) = cell.work.questions
    assert {row["status"] for row in rows.values()} == {"answered"}
    lost = {name for name, row in rows.items() if row["notes"] != whole[name]["notes"]}
    assert tile.id in lost
    assert len(lost) < 16 or reason != "damaged"
    other = cell.plan.observations[question.fallbacks[0]]
    for name in lost:
        assert rows[name]["scenes"] == sorted(scene.id for scene in other.scenes)
        assert rows[name]["observation"] == question.observation  # the plan's name, by which rows are counted
        assert rows[name]["datetime_min"] == other.datetime
        assert f"one that is {reason}" in rows[name]["notes"][-1]
        assert rows[name]["message"].startswith(f"answered from {other.id}")
    assert all(rows[name] == whole[name] for name in rows.keys() - lost)


def test_what_stood_in_is_the_same_again(cell: Cell) -> None:
    """Another execution, and another folder, give the same answers; what is clean is not read again."""
    tile = cell.work.cell.tiles()[5]
    first = cell.execution(1, _fails(cell, "damaged", tile=tile)).rows()
    reader = _fails(cell, "damaged", tile=tile)
    assert cell.execution(2, reader).rows() == first
    assert not set(reader.asked) & _hrefs(cell, cell.work.questions[0].fallbacks[0])
    reader = _fails(cell, "damaged", tile=tile)
    assert cell.execution(2, reader).rows() == first
    assert reader.asked == []


def test_nothing_stands_in_for_what_may_come(cell: Cell) -> None:
    """A refusal is a failed row, and the next execution answers as if nothing had been."""
    reader = _fails(cell, "unknown")
    rows = cell.execution(1, reader).rows()
    assert {row["status"] for row in rows} == {"failed"}
    assert {row["reason"] for row in rows} == {"unknown"}
    assert set(reader.asked) <= _hrefs(cell, _chosen(cell))
    again = cell.execution(2, FaultyReader(lambda source, geobox: None)).rows()
    assert {row["status"] for row in again} == {"answered"}
    assert not any("stands in" in note for row in again for note in row["notes"])


def _without_fallbacks(cell: Cell) -> Cell:
    questions = tuple(dataclasses.replace(question, fallbacks=()) for question in cell.work.questions)
    return dataclasses.replace(cell, work=dataclasses.replace(cell.work, questions=questions))


def test_what_stays_damaged_is_given_up_with_its_evidence(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "isolated", lambda work, limits: work())  # as a third attempt does, but at once
    cell = _without_fallbacks(cell)
    tile = cell.work.cell.tiles()[0]
    for number in range(1, SETTLED_AFTER):
        rows = cell.execution(number, _fails(cell, "damaged", tile=tile)).rows()
        assert Counter(row["status"] for row in rows)["failed"] >= 1
    rows = cell.execution(SETTLED_AFTER, _fails(cell, "damaged", tile=tile)).rows()
    skipped = [row for row in rows if row["status"] == "skipped"]
    assert tile.id in {row["tile_id"] for row in skipped}
    assert {(row["reason"], row["stage"]) for row in skipped} == {("damaged", "read")}
    assert all("found by 3 executions" in row["message"] and row["address"] for row in skipped)
    assert not [row for row in rows if row["status"] == "failed"]
    reader = _fails(cell, "damaged", tile=tile)
    assert cell.execution(SETTLED_AFTER + 1, reader).rows() == rows
    assert reader.asked == []


def test_what_is_only_refused_is_never_given_up(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "isolated", lambda work, limits: work())
    cell = _without_fallbacks(cell)
    none = Patience(cell_s=0.0, run_s=0.0)
    for number in range(1, SETTLED_AFTER + 3):
        rows = cell.execution(number, _fails(cell, "refused"), patience=none).rows()
        assert {row["status"] for row in rows} == {"failed"}


# ── credentials ──────────────────────────────────────────────────────────────────────────────────────────────


def test_want_of_permission_ends_the_run(cell: Cell) -> None:
    with pytest.raises(CredentialsError, match=r"lets nothing be read.*to fix: .*run the same command again"):
        cell.execution(1, _fails(cell, "credentials")).rows()


def test_after_the_first_success_it_is_the_providers(cell: Cell) -> None:
    href = next(iter(_hrefs(cell, _chosen(cell))))
    note_read(href)
    rows = cell.execution(1, _fails(cell, "credentials")).rows()
    assert {(row["status"], row["reason"]) for row in rows} == {("failed", "denied")}


def test_one_denied_file_among_others_that_were_read(cell: Cell) -> None:
    """The first file of all is denied; another of the same cell and place is read after it."""
    victim = cell.plan.observations[_chosen(cell)].scenes[0].sources[0].href
    rows = cell.execution(1, FaultyReader(lambda source, _: "credentials" if source.href == victim else None)).rows()
    failed = [row for row in rows if row["status"] == "failed"]
    assert {row["reason"] for row in failed} == {"denied"}


def test_another_process_of_the_run_has_read_from_there(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "place_of", lambda address: "https://host")
    monkeypatch.setattr(reading, "was_read", lambda address: True)
    cell.rows()
    monkeypatch.setattr(reading, "was_read", lambda address: False)
    other = next(name for name in cell.plan.observations if name != _chosen(cell))
    question = dataclasses.replace(cell.work.questions[0], observations=(other,), fallbacks=())
    cell.work = dataclasses.replace(cell.work, questions=(question,))
    rows = cell.execution(1, _fails(cell, "credentials", observation=other)).rows()
    assert {row["reason"] for row in rows} == {"denied"}
    with pytest.raises(CredentialsError):  # an earlier execution is no witness: keys may have been withdrawn
        cell.execution(2, _fails(cell, "credentials", observation=other)).rows()


def test_a_key_that_ran_out_ends_the_run_at_any_time(cell: Cell) -> None:
    note_read(next(iter(_hrefs(cell, _chosen(cell)))))
    with pytest.raises(CredentialsError):
        cell.execution(1, _fails(cell, "expired_credentials")).rows()


# ── patience ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_refusing_provider_is_waited_for(cell: Cell) -> None:
    tries: Counter[str] = Counter()

    def broken(source: BandSource, geobox: GeoBox) -> str | None:
        tries[source.href] += 1
        return "refused" if tries[source.href] <= 2 else None

    patient = cell.execution(1, FaultyReader(broken))
    assert {row["status"] for row in patient.rows()} == {"answered"}
    assert set(tries.values()) == {3}
    (read,) = patient.reads.values()
    assert 0.02 < read.waited_s < 1
    assert read.waited_for == "file"


def test_patience_ends(cell: Cell) -> None:
    reader = _fails(cell, "unavailable")
    short = cell.execution(1, reader, patience=Patience(cell_s=0.05, run_s=1.0))
    assert {row["reason"] for row in short.rows()} == {"unavailable"}
    assert sum(read.waited_s for read in short.reads.values()) <= 0.05


def test_a_runs_patience_is_shared_by_its_cells(cell: Cell) -> None:
    spent = reading.spent_in(cell.context)
    spent.seconds = 10.0
    broke = cell.execution(1, _fails(cell, "refused"), patience=Patience(cell_s=60.0, run_s=10.0))
    assert {row["reason"] for row in broke.rows()} == {"refused"}
    assert sum(read.waited_s for read in broke.reads.values()) == 0


@dataclass
class LyingReader:
    """Reads as GDAL does, and subtracts the offset of the given files twice."""

    twice: set[str]

    def read(self, source: BandSource, geobox: GeoBox, *, frame: GeoBox | None = None) -> Any:
        values = RasterioReader().read(source, geobox, frame=frame)
        wrong = source.href in self.twice and not source.calibration.categorical
        return values - values.dtype.type(0.1) if wrong else values


def test_the_next_best_stands_in_for_an_offset_subtracted_twice(cell: Cell) -> None:
    (question,) = cell.work.questions
    best, other = question.observations[0], question.fallbacks[0]
    one = dataclasses.replace(cell.context, reader=LyingReader(_hrefs(cell, best)))
    rows = dataclasses.replace(cell, context=one).rows()
    assert {row["status"] for row in rows} == {"answered"}
    for row in rows:
        assert row["notes"][-1] == "the next-best observation stands in for one that is offset_suspect"
        assert row["message"].startswith(f"answered from {other}: offset_suspect: ")
    store = Storage(cell.context.store.address + "2")
    both = dataclasses.replace(cell.context, reader=LyingReader(_hrefs(cell, best) | _hrefs(cell, other)), store=store)
    rows = dataclasses.replace(cell, context=both).rows()
    assert {row["status"] for row in rows} == {"answered"}
    assert all(row["notes"][-1].startswith("offset_suspect: ") for row in rows), "nothing better: answered, and said"
    honest = dataclasses.replace(cell.context, store=Storage(cell.context.store.address + "3"))
    rows = dataclasses.replace(cell, context=honest).rows()
    assert not any("offset_suspect" in note for row in rows for note in row["notes"])


# ── two dates ────────────────────────────────────────────────────────────────────────────────────────────────

MAY, JUNE = ("2024-05-01", "2024-05-05"), ("2024-06-01", "2024-06-05")


def changed(tmp_path: Path, dates: Sequence[str], **windows: str) -> Cell:
    """Pictures whose west is green in May and whose east is in June, and the cell that is asked what changed."""
    folder = tmp_path / "images"
    pixels = np.empty((3, 480, 480), np.uint8)
    for date in dates:
        pixels[:] = np.array([150, 140, 130], np.uint8)[:, None, None]
        green = slice(0, 240) if "-05-" in date else slice(240, 480)
        pixels[:, :, green] = np.array([60, 130, 50], np.uint8)[:, None, None]
        write_raster(folder / f"field_{date}.tif", pixels, step=1.0, corner=(540_000.0, 5_060_000.0), photometric="RGB")
    job = parse_job(
        {
            "images": [str(folder)], "tile_size": 128, "out": str(tmp_path / "run"),
            "queries": [{"text": "What changed?", "task": "change", "targets": ["vegetation"], **windows}],
        }
    )  # fmt: skip
    plan = make_plan(job)
    context = Context(
        store=Storage(str(tmp_path / "store")), execution=1, job=job.content_key(), area=job.area,
        queries={query.content_key(): query for query in job.queries}, observations=plan.observations,
        predictor=predictor_spec(job, plan), reader=RasterioReader(),
    )  # fmt: skip
    return Cell(plan, max(plan.work(), key=lambda work: work.tiles.bit_count()), context)


def losing(reason: str, *dates: str, tile: Tile | None = None) -> FaultyReader:
    ground = tile.core_geobox.extent.geom.buffer(-1) if tile else None

    def broken(source: BandSource, geobox: GeoBox) -> str | None:
        hit = any(date in source.href for date in dates) and (ground is None or geobox.extent.geom.intersects(ground))
        return reason if hit else None

    return FaultyReader(broken)


def by_tile(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["tile_id"]: row for row in rows}


def scenes_of(row: dict[str, Any]) -> list[str]:
    return [name.removeprefix("field_")[:10] for name in row["scenes"]]


def test_the_next_best_of_its_own_date_stands_in_for_one_of_a_pair(tmp_path: Path) -> None:
    cell = changed(tmp_path, (*MAY, *JUNE), before="2024-05", after="2024-06")
    (question,) = cell.work.questions
    assert (len(question.fallbacks), len(question.later_fallbacks)) == (1, 1)
    whole = by_tile(cell.rows())
    assert all(scenes_of(row) == [MAY[1], JUNE[0]] for row in whole.values() if row["status"] == "answered")
    for lost, want in (
        ((MAY[1],), [MAY[0], JUNE[0]]),
        ((JUNE[0],), [MAY[1], JUNE[1]]),
        ((MAY[1], JUNE[0]), [MAY[0], JUNE[1]]),
    ):
        store = Storage(f"{cell.context.store.address}-{'-'.join(lost)}")
        tile = cell.work.cell.tiles()[5]
        rows = by_tile(cell.execution(1, losing("damaged", *lost, tile=tile), store=store).rows())
        assert rows[tile.id]["status"] == "answered"
        assert scenes_of(rows[tile.id]) == want
        assert (
            rows[tile.id]["observation"] == whole[tile.id]["observation"]
        )  # the plan's name, by which rows are counted
        assert rows[tile.id]["mask"] == whole[tile.id]["mask"]
        said = [note for note in rows[tile.id]["notes"] if "stands in" in note]
        assert said == [
            f"the {which} date's next-best observation stands in for one that is damaged"
            for which, dates in (("first", MAY), ("second", JUNE))
            if set(dates) & set(lost)
        ]
        assert rows[tile.id]["message"].startswith("answered from ")
        untouched = [name for name, row in rows.items() if row["notes"] == whole[name]["notes"]]
        assert untouched
        # How the dates lie on each other is told from the whole cell, of which less was read.
        assert all(rows[name] | {"pair": ""} == whole[name] | {"pair": ""} for name in untouched)


def test_nothing_stands_in_for_a_date_that_may_come(tmp_path: Path) -> None:
    cell = changed(tmp_path, (*MAY, *JUNE), before="2024-05", after="2024-06")
    rows = cell.execution(1, losing("unknown", MAY[1])).rows()
    assert {(row["status"], row["reason"]) for row in rows} == {("failed", "unknown")}


def test_a_date_between_stands_in_for_one_of_the_two_only(tmp_path: Path) -> None:
    """Without dates the first and the last are compared; the one between cannot be both."""
    dates = (MAY[0], MAY[1], JUNE[1])
    cell = changed(tmp_path, dates)
    (question,) = cell.work.questions
    assert question.fallbacks == question.later_fallbacks
    one = cell.execution(1, losing("damaged", MAY[0]), store=Storage(str(tmp_path / "one"))).rows()
    assert {tuple(scenes_of(row)) for row in one if row["status"] == "answered"} == {(MAY[1], JUNE[1])}
    both = cell.execution(1, losing("damaged", MAY[0], JUNE[1]), store=Storage(str(tmp_path / "both"))).rows()
    assert {(row["status"], row["reason"]) for row in both} == {("failed", "damaged")}
