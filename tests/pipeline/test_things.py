"""Ships found over an area from end to end with the oracle: as many as there are, where they are."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely

from earthmap.grid import from_lonlat
from earthmap.pipeline import Run, parse_job, run_job
from earthmap.pipeline.folder import COVERAGE_PATH, FEATURES_PATH
from earthmap.synthetic import World, small_world, standing_on, write_world
from tests.merge.things import pairs_of

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.ray, pytest.mark.timeout(280)]

ASKED = ["Find the ships", "How many ships are there?", "Detect all vehicles", "Where is water?", "Track the ships"]


@pytest.fixture(scope="module")
def world() -> World:
    """A valley whose river has ships, under a clear sky, over the border of two zones."""
    return small_world(5, place=(6.0, 45.7), size_m=4500.0, cloud_share=0.0, ships=0.9)


@pytest.fixture(scope="module")
def catalog(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(world, tmp_path_factory.mktemp("ships"), sensors=("sentinel-2",))


def job_of(world: World, catalog: Path, out: Path, **changes: Any) -> Any:
    values = {
        "area": world.area, "catalog": str(catalog), "queries": ASKED, "predictor": "oracle", "tile_size": 128,
        "scenes": "latest", "out": str(out),
    }  # fmt: skip
    return parse_job({**values, **changes})


@pytest.fixture(scope="module")
def run(world: World, catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_job(job_of(world, catalog, tmp_path_factory.mktemp("run") / "run"))


def features_of(run: Run, task: str) -> geopandas.GeoDataFrame:
    frame = geopandas.read_parquet(io.BytesIO(run.storage.read(FEATURES_PATH)))
    return frame[frame["task"] == task]


def test_each_ship_is_one_feature(run: Run, world: World) -> None:
    """Its box has one step of SLIS of room; each names its tile and scenes."""
    true = shapely.envelope(standing_on(world, "ship").outlines)
    for task in ("detect", "count"):
        found = features_of(run, task)
        shapes = np.array([from_lonlat(shape, world.epsg) for shape in found.geometry])
        assert len(found) == len(true) > 5
        assert len(pairs_of(shapes, true, share=0.5)) == len(true)
        assert set(found["answer"]) == {"ship"}
        assert (found["probability"] == 1.0).all()
        assert all(len(names) >= 1 for names in (*found["tile_ids"], *found["scenes"]))


def test_counts_are_of_merged_ships(run: Run, world: World) -> None:
    asked = {query["text"]: query for query in run.summary["queries"]}
    ships = len(standing_on(world, "ship").outlines)
    for text in ASKED[:2]:
        (layer,) = asked[text]["observations"]
        assert (layer["count"], layer["total"]) == ({"ship": ships}, ships)
        assert layer["answered_tiles"] == layer["planned"]


def test_what_pixels_of_ten_metres_cannot_show_is_refused_before_anything_is_read(run: Run) -> None:
    coverage = geopandas.read_parquet(io.BytesIO(run.storage.read(COVERAGE_PATH)))
    (query,) = [one for one in run.summary["queries"] if one["targets"] == ["vehicle"]]
    mine = coverage[coverage["query_key"] == query["query_key"]]
    assert set(mine["reason"]) == {"too_coarse"}
    assert set(mine["message"]) == {"pixels of 10 m do not show vehicle; expected 0.5 m at most"}


def test_ships_that_lie_still_on_both_dates_are_points_of_two_times(run: Run, world: World) -> None:
    found = features_of(run, "track")
    assert len(found) == len(standing_on(world, "ship").outlines)
    assert set(found.geometry.geom_type) == {"Point"}
    assert set(found["times"].map(len)) == {2}
    assert (found["length_m"] == 0.0).all()
    (query,) = [one for one in run.summary["queries"] if one["task"] == "track"]
    assert query["observations"][0]["tracks"]["ship"] == {"moved": 0, "stood": len(found), "seen_once": 0}


def test_page_and_picture_show_them(run: Run) -> None:
    page = run.storage.read("report.html").decode()
    assert "Find the ships" in page
    assert run.storage.read("preview.png").startswith(b"\x89PNG")
    assert json.loads(run.storage.read("item.json"))["assets"]["features"]
