"""The main job from end to end on drawn scenes, with the oracle: what comes out is the truth, whatever stops it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from odc.geo.geobox import GeoBox

from earthmap.catalog.scene import BandSource
from earthmap.cube import RasterioReader
from earthmap.errors import RunFolderError
from earthmap.grid import AreaOfInterest, inside, pixel_area_m2
from earthmap.pipeline import Limits, Run, parse_job, run_job
from earthmap.pipeline.batches import _block_sizes, _predicting
from earthmap.pipeline.cluster import by_role
from earthmap.pipeline.folder import FEATURES_PATH, LEDGER_PATH
from earthmap.pipeline.lease import Lease
from earthmap.storage import Storage
from earthmap.synthetic import World, truth_on

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.ray, pytest.mark.timeout(280)]


def _area(world: World, share: float = 1.0) -> AreaOfInterest:
    """The middle of a world: `share` of its sides."""
    west, south, east, north = world.bounds
    dx, dy = (east - west) * (1 - share) / 2, (north - south) * (1 - share) / 2
    return AreaOfInterest.from_geometry(shapely.box(west + dx, south + dy, east - dx, north - dy), f"EPSG:{world.epsg}")


def _job(world: World, catalog: Path, out: Path | str, **changes: Any) -> Any:
    values = {
        "area": _area(world, 0.9),
        "catalog": str(catalog),
        "collections": ["drawn-sentinel-2-l2a"],
        "queries": ["Where is water?"],
        "predictor": "oracle",
        "tile_size": 128,
        "scenes": "all",
        "out": str(out),
    }
    return parse_job({**values, **changes})


def _record(run: Run) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(run.storage.read("run.json"))
    return content


@pytest.fixture(scope="module")
def mapped(drawn_world: World, drawn_catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run, to look at and never to change."""
    return run_job(_job(drawn_world, drawn_catalog, tmp_path_factory.mktemp("mapped") / "run"))


def test_every_file_is_there(mapped: Run) -> None:
    there = {path.name for path in Path(mapped.address).iterdir()}
    assert {
        "job.json", "plan.parquet", "scenes.parquet", "features.parquet", "coverage.parquet", "ledger.parquet",
        "summary.json", "item.json", "report.html", "preview.png", "run.json", "classes", "store", "lease",
    } <= there  # fmt: skip


def test_each_line_says_how_far_it_can_be_trusted(mapped: Run) -> None:
    for line in mapped.summary["queries"][0]["observations"]:
        enough = line["seen_km2"] >= 0.5 * line["area_km2"]
        assert line["evidence"].startswith("enough" if enough else "not enough evidence: only")
        assert "kept of oracle" in line["model_based"]["water"]["reason"]
    assert "There is no model_based interval of water" in mapped.storage.read("report.html").decode()


def test_the_counts_balance(mapped: Run) -> None:
    summary = mapped.summary
    rows = summary["answered"] + sum(summary["skipped"].values()) + sum(summary["failed"].values())
    assert summary["planned"] == rows == len(mapped.coverage) > 0
    assert summary["failed"] == {}


def test_the_columns_that_users_rely_on(mapped: Run) -> None:
    assert {
        "geometry", "query", "task", "answer", "probability", "tile_ids", "scenes", "datetime_min", "datetime_max",
        "predictor",
    } <= set(mapped.features.columns)  # fmt: skip
    assert mapped.features.crs == "EPSG:4326"
    assert mapped.features.geometry.is_valid.all()


def _raster(path: Path) -> tuple[np.ndarray, GeoBox]:
    import rasterio

    with rasterio.open(path) as source:
        return source.read(1), GeoBox((source.height, source.width), source.transform, source.crs)


def _seen(cube: Any, time: np.datetime64, geobox: GeoBox) -> np.ndarray:
    """Pixels of the cube that are neither nodata nor cloud, on the raster's lattice."""
    mask = cube["mask"].sel(time=time).values
    down = round((cube.odc.geobox.affine.f - geobox.affine.f) / -geobox.affine.e)
    right = round((geobox.affine.c - cube.odc.geobox.affine.c) / geobox.affine.a)
    return ~np.isin(mask[down : down + geobox.shape[0], right : right + geobox.shape[1]], [1, 2])


def test_the_map_is_the_truth_pixel_by_pixel(mapped: Run, drawn_world: World) -> None:
    ((zone, cube),) = mapped.cube.items()
    layers = mapped.summary["queries"][0]["observations"]
    assert len(layers) == len(cube.time) == 2
    for layer, time, date in zip(layers, cube.time.values, (drawn_world.before, drawn_world.after), strict=True):
        (path,) = Path(mapped.address, "classes").glob(f"*{layer['observation']}_{zone}.tif")
        codes, geobox = _raster(path)
        counted = inside(mapped.job.area.geometry, geobox) & _seen(cube, time, geobox)
        water = truth_on(drawn_world, geobox, date) == 1
        np.testing.assert_array_equal(codes, np.where(counted, water, 255))
        km2 = float((pixel_area_m2(geobox) * (water & counted)).sum()) / 1e6
        assert layer["km2"]["water"] == pytest.approx(km2, abs=1e-4)
        features = mapped.features[mapped.features.datetime_min == layer["datetime_min"]]
        assert features.area_m2.sum() / 1e6 == pytest.approx(km2, rel=0.01)


def test_again_does_nothing_and_gives_the_same_bytes(
    drawn_world: World, drawn_catalog: Path, mapped: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(mapped.address, folder)
    first = (folder / FEATURES_PATH).read_bytes()
    again = run_job(_job(drawn_world, drawn_catalog, folder))
    record = _record(again)
    assert record["groups"]["read"] == record["parts"]["computed"] == 0
    assert record["parts"]["reused"] > 0
    assert (folder / FEATURES_PATH).read_bytes() == first


def test_another_question_on_the_same_ground_reads_nothing(
    drawn_world: World, drawn_catalog: Path, mapped: Run, tmp_path: Path
) -> None:
    job = _job(
        drawn_world, drawn_catalog, tmp_path / "two", store=mapped.job.store,
        queries=["Where is water?", "Where is vegetation?"],
    )  # fmt: skip
    run = run_job(job)
    record = _record(run)
    assert record["groups"]["read"] == 0
    assert record["parts"]["computed"] == record["parts"]["reused"] > 0
    executions = _ledger(run).groupby("query").execution.unique()
    assert sorted(tuple(value) for value in executions) == [(0,), (1,)]


def _ledger(run: Run) -> Any:
    import io

    import pandas as pd

    return pd.read_parquet(io.BytesIO(run.storage.read(LEDGER_PATH)))


def test_a_larger_area_adds_cells_and_changes_none(
    drawn_world: World, drawn_catalog: Path, mapped: Run, tmp_path: Path
) -> None:
    small = run_job(_job(drawn_world, drawn_catalog, tmp_path / "small", area=_area(drawn_world, 0.2)))
    parts = set(_ledger(small).part)
    assert parts < set(_ledger(mapped).part)
    for part in parts:
        ours = Storage(small.job.store).read(f"{part}/answers.parquet")
        assert ours == Storage(mapped.job.store).read(f"{part}/answers.parquet")


# ── what goes wrong ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def own_catalog(drawn_catalog: Path, tmp_path: Path) -> Path:
    """A copy of the drawn scenes that a test may damage."""
    shutil.copytree(drawn_catalog.parent, tmp_path / "scenes")
    return tmp_path / "scenes" / drawn_catalog.name


def _some_band(catalog: Path) -> Path:
    files = sorted(path for path in catalog.parent.rglob("*.tif") if "B03" in path.name)
    return files[0]


def test_a_file_cut_in_the_middle_costs_its_tiles_and_a_repaired_one_gives_them_back(
    drawn_world: World, drawn_catalog: Path, own_catalog: Path, mapped: Run, tmp_path: Path
) -> None:
    victim = _some_band(own_catalog)
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2])
    job = _job(drawn_world, own_catalog, tmp_path / "run")
    run = run_job(job)
    failed = run.coverage[run.coverage.status == "failed"]
    assert 0 < len(failed) < len(run.coverage)
    assert set(failed.stage) == {"read"}
    assert set(failed.reason) == {"damaged"}
    assert set(failed.address) == {str(victim)}
    assert run.summary["answered"] + sum(run.summary["skipped"].values()) + len(failed) == run.summary["planned"]
    victim.write_bytes(whole)
    repaired = run_job(job)
    record = _record(repaired)
    assert repaired.summary["failed"] == {}
    assert record["parts"]["reused"] > 0
    columns = ["query", "answer", "area_m2", "tile_ids", "geometry"]
    assert repaired.features[columns].equals(mapped.features[columns])


def test_a_text_file_named_tif_is_a_ledger_row(drawn_world: World, own_catalog: Path, tmp_path: Path) -> None:
    victim = _some_band(own_catalog)
    victim.write_text("<html>not found</html>")
    run = run_job(_job(drawn_world, own_catalog, tmp_path / "run"))
    failed = run.coverage[run.coverage.status == "failed"]
    assert set(failed.reason) == {"damaged"}
    assert set(failed.address) == {str(victim)}


class AbortingReader:
    """Reads as GDAL does, and ends its process on one tile's ground: what a poisonous file does to a reader."""

    def __init__(self, longitude: float, latitude: float, log: str) -> None:
        self.point, self.log, self.inner = (longitude, latitude), log, RasterioReader()

    def read(self, source: BandSource, geobox: GeoBox, *, frame: GeoBox | None = None) -> Any:
        import shapely as sh

        ground = geobox.geographic_extent.geom
        if ground.contains(sh.Point(*self.point)):
            with open(self.log, "a") as file:  # noqa: PTH123
                file.write(f"{os.getpid()}\n")
            os.abort()
        return self.inner.read(source, geobox, frame=frame)


@pytest.mark.slow  # a process of its own for each tile
def test_a_reader_that_aborts_costs_its_tile_only(
    drawn_world: World, drawn_catalog: Path, mapped: Run, tmp_path: Path
) -> None:
    import cloudpickle

    module = __import__(AbortingReader.__module__, fromlist=["AbortingReader"])
    cloudpickle.register_pickle_by_value(module)
    whole = mapped.coverage.area_km2.idxmax()  # a tile that the area does not cut, so that no neighbour sees its middle
    tile = mapped.coverage.geometry.loc[whole]
    middle, (west, south, east, north) = tile.centroid, tile.bounds
    wide, high = 0.7 * (east - west), 0.3 * (north - south)  # it and its neighbours to the west and east
    around = shapely.box(middle.x - wide, middle.y - high, middle.x + wide, middle.y + high)
    reader = AbortingReader(middle.x, middle.y, str(tmp_path / "aborts"))
    try:
        job = _job(drawn_world, drawn_catalog, tmp_path / "run", area=around, scenes="latest")
        run = run_job(job, reader=reader, limits=Limits(seconds=60))
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    failed = run.coverage[run.coverage.status == "failed"]
    hit = mapped.coverage[mapped.coverage.geometry.contains(middle)]
    assert set(failed.tile_id) >= set(hit.tile_id)
    assert set(failed.reason) == {"crashed"}
    assert set(failed.tile_id) == set(hit.tile_id)
    assert len(run.coverage) - len(failed) >= 2 * len(failed), "there are neighbours, and nothing happened to them"
    assert len((tmp_path / "aborts").read_text().splitlines()) >= 3


def test_a_folder_belongs_to_one_job(drawn_world: World, drawn_catalog: Path, mapped: Run) -> None:
    other = _job(drawn_world, drawn_catalog, mapped.address, queries=["Where is snow?"])
    with pytest.raises(RunFolderError, match=r"another job.*to fix: give another --out"):
        run_job(other)


def test_a_folder_is_held_by_one_run(drawn_world: World, drawn_catalog: Path, tmp_path: Path) -> None:
    job = _job(drawn_world, drawn_catalog, tmp_path / "run")
    with Lease(Storage(job.spec.out)), pytest.raises(RunFolderError, match="being written by another run"):
        run_job(job)


def test_ground_without_scenes_is_skipped_and_said(drawn_world: World, drawn_catalog: Path, tmp_path: Path) -> None:
    west, south, _, north = drawn_world.bounds
    beyond = shapely.box(west - 12_000, south, west + 1_000, north)
    area = AreaOfInterest.from_geometry(beyond, f"EPSG:{drawn_world.epsg}")
    run = run_job(
        _job(drawn_world, drawn_catalog, tmp_path / "run", area=area, queries=["Where is water?", "What changed?"])
    )
    reasons = run.summary["skipped"]
    assert reasons["no_scene"] > 0
    assert reasons["one_date"] == reasons["no_scene"]
    assert run.summary["planned"] == run.summary["answered"] + sum(reasons.values())
    assert run.summary["seen_km2"] < 0.2 * run.summary["area_km2"]
    unseen = run.coverage[run.coverage.reason == "no_scene"]
    assert (unseen.seen_km2 == 0).all()
    assert unseen.area_km2.sum() > 0.5 * run.summary["area_km2"]


def test_scenes_served_over_http_give_the_same_map(
    drawn_world: World, drawn_catalog: Path, mapped: Run, tmp_path: Path
) -> None:
    from tests.servers import file_server

    with file_server(drawn_catalog.parent) as server:
        run = run_job(_job(drawn_world, f"{server.address}/{drawn_catalog.name}", tmp_path / "run"))
    columns = ["query", "answer", "area_m2", "tile_ids", "geometry"]
    assert run.features[columns].equals(mapped.features[columns])


def test_the_command_says_what_became_of_it(
    drawn_world: World, own_catalog: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from earthmap.cli import DONE, WITH_ERRORS, main

    area = tmp_path / "area.geojson"
    area.write_text(json.dumps(_area(drawn_world, 0.3).to_geojson()))
    _some_band(own_catalog).write_text("not an image")
    words = ["map", "--area", str(area), "--catalog", str(own_catalog), "--collection", "drawn-sentinel-2-l2a"]
    words += ["--query", "Where is water?", "--tile-size", "128", "--scenes", "all", "--out", str(tmp_path / "run")]
    assert main([*words, "--strict", "--json", "--quiet"]) == WITH_ERRORS
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["summary"]["failed"]["damaged"] > 0
    assert main([*words, "--quiet"]) == DONE
    (tmp_path / "run" / "report.html").unlink()
    assert main(["report", str(tmp_path / "run")]) == DONE
    said = capsys.readouterr()
    assert "Where is water?" in said.out
    assert "report.html" in said.out
    assert (tmp_path / "run" / "report.html").read_text().startswith("<!")


def test_a_map_in_one_call(drawn_world: World, drawn_catalog: Path, tmp_path: Path) -> None:
    import earthmap

    run = earthmap.map(
        _area(drawn_world, 0.3).geometry,
        "How much of this valley is under water?",
        catalog=drawn_catalog,
        datetime=f"{drawn_world.after:%Y-%m-%d}",
        out=tmp_path / "run",
        options={"tile_size": 128, "predictor": "oracle", "collections": "drawn-sentinel-2-l2a"},
    )
    assert set(run.features.task) == {"fraction"}
    truth = truth_on(drawn_world, run.cube["31N"].odc.geobox, drawn_world.after) == 1
    assert 0 < float(run.features.fraction.max()) <= 1
    assert truth.any()
    assert "earthmap run" in run._repr_html_()


def test_a_mosaic_of_observations_has_one_name(
    mapped: Run, drawn_world: World, drawn_catalog: Path, tmp_path: Path
) -> None:
    """Each cell shows its own least cloudy date; the summary and the page speak of one layer a sensor."""
    job = _job(
        drawn_world, drawn_catalog, tmp_path / "run", store=mapped.job.store, scenes="least_cloud",
        queries=["Where is water?", "What changed?"],
    )  # fmt: skip
    run = run_job(job)
    segment, change = (query["observations"] for query in run.summary["queries"])
    assert len(segment) == len(change) == 1
    assert ".." in change[0]["observation"]
    assert segment[0]["observation"] in {*run.coverage.observation, "sentinel-2-l2a_mosaic"}
    page = run.storage.read("report.html").decode()
    assert "no observation" not in page


# ── providers that refuse ────────────────────────────────────────────────────────────────────────────────────


def _images(folder: Path) -> list[str]:
    return [f"/{path.relative_to(folder)}" for path in folder.rglob("*.tif")]


def test_want_of_permission_ends_the_run_with_one_clear_error(
    drawn_world: World, drawn_catalog: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from earthmap.cli import FAILED, main
    from tests.servers import file_server

    area = tmp_path / "area.geojson"
    area.write_text(json.dumps(_area(drawn_world, 0.3).to_geojson()))
    with file_server(drawn_catalog.parent) as server:
        server.faults |= dict.fromkeys(_images(drawn_catalog.parent), "html")  # a sign-in page, with 200
        words = ["map", "--area", str(area), "--catalog", f"{server.address}/{drawn_catalog.name}", "--quiet"]
        words += ["--collection", "drawn-sentinel-2-l2a", "--query", "Where is water?", "--tile-size", "128"]
        words += ["--out", str(tmp_path / "run")]
        assert main(words) == FAILED
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert f"{server.address} lets nothing be read" in said
        assert "set EARTHMAP_TOKEN" in said
        server.faults.clear()
        assert main(words) == 0


def test_a_provider_that_is_busy_for_a_while_is_waited_for(
    drawn_world: World, drawn_catalog: Path, tmp_path: Path
) -> None:
    import threading

    from tests.servers import file_server

    said: list[str] = []
    with file_server(drawn_catalog.parent) as server:
        victims = {path for path in _images(drawn_catalog.parent) if "B03" in path}
        server.faults |= dict.fromkeys(victims, "busy")
        job = _job(
            drawn_world, f"{server.address}/{drawn_catalog.name}", tmp_path / "run", area=_area(drawn_world, 0.3)
        )

        def recover() -> None:
            while victims.isdisjoint(request.split()[1] for request in list(server.requests)) and not stop.wait(0.1):
                pass
            stop.wait(3.0)  # longer than GDAL itself asks again
            server.faults.clear()

        stop = threading.Event()
        watcher = threading.Thread(target=recover)
        watcher.start()
        try:
            run = run_job(job, say=said.append)
        finally:
            stop.set()
            watcher.join()
    assert run.summary["failed"] == {}
    assert any("waited" in line and server.address in line for line in said)


def test_images_without_a_catalogue_become_a_map(tmp_path: Path) -> None:
    """A picture whose western half is green: that half is the vegetation, and what was no image is named."""
    import rasterio

    pixels = np.empty((3, 256, 256), np.uint8)
    pixels[:] = np.array([150, 140, 130], np.uint8)[:, None, None]
    pixels[:, :, :128] = np.array([60, 130, 50], np.uint8)[:, None, None]
    folder = tmp_path / "images"
    folder.mkdir()
    with rasterio.open(
        folder / "field_2024-05-04.tif", "w", driver="GTiff", width=256, height=256, count=3, dtype="uint8",
        crs="EPSG:32631", transform=rasterio.Affine(1.0, 0.0, 540_000.0, 0.0, -1.0, 5_060_000.0), photometric="RGB",
    ) as file:  # fmt: skip
        file.write(pixels)
    (folder / "notes.img").write_text("no image")
    job = parse_job(
        {"images": [str(folder)], "queries": ["Where is vegetation?"], "tile_size": 128, "out": str(tmp_path / "run")}
    )
    run = run_job(job)
    found = run.features.to_crs(32631)
    assert set(found.answer) == {"vegetation"}
    assert found.union_all().area == pytest.approx(128 * 256, rel=0.02)
    assert found.total_bounds == pytest.approx([540_000, 5_059_744, 540_128, 5_060_000], abs=2.0)
    left_out = _record(run)["left_out"]
    assert [one["id"].rpartition("/")[2] for one in left_out] == ["notes.img"]


@pytest.mark.parametrize("cells", [0, 1, 10, 33, 256, 257, 1_000, 63_742])
def test_blocks_hold_every_cell_once_and_about_as_many_each_but_the_first(cells: int) -> None:
    sizes = _block_sizes(cells, cpus=2)
    assert sum(sizes) == cells
    assert sizes[:2] == [1] * min(cells, 2)
    assert max(sizes[2:], default=0) - min(sizes[2:], default=0) <= 1
    assert len(sizes) <= 2_000
    assert len(sizes) >= min(cells, 32)
    assert cells > 32_000 or max(sizes, default=0) <= 16


def test_the_model_asks_for_a_gpu_where_there_is_one() -> None:
    assert _predicting("vlm", gpus=2.0) == {"num_cpus": 1.0, "num_gpus": 1.0}
    assert _predicting("vlm", gpus=0.0) == _predicting("spectral", gpus=2.0) == {"num_cpus": 1.0}


def test_work_asks_for_the_roles_that_the_cluster_offers_and_for_no_other() -> None:
    core, gpu = {"num_cpus": 1.0}, {"num_cpus": 1.0, "num_gpus": 1.0}
    both = frozenset({"reader", "predictor"})
    assert by_role(core, frozenset()) == by_role(core, frozenset({"predictor"})) == core
    assert by_role(gpu, frozenset()) == by_role(gpu, frozenset({"reader"})) == gpu
    assert by_role(core, both) == {**core, "resources": {"reader": 0.001}}
    assert by_role(gpu, both) == {**gpu, "resources": {"predictor": 0.001}}
