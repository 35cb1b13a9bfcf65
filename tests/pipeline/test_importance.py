"""Which cells come first: those with given places, or those that changed most; nothing else follows from it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely

from earthmap.cube import RasterioReader
from earthmap.errors import JobError
from earthmap.grid import Cell, owned_ground
from earthmap.pipeline import make_plan, parse_job
from earthmap.pipeline.importance import Order, in_order, order_cells, read_places
from earthmap.pipeline.plan import Plan
from earthmap.synthetic import World, small_world, truth_on, write_world

WATER = 1


@pytest.fixture(scope="module")
def world() -> World:
    """A valley of nine cells or so, through some of which a river runs, under a clear sky."""
    return small_world(4, size_m=9000.0, cloud_share=0.0)


@pytest.fixture(scope="module")
def catalog(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(world, tmp_path_factory.mktemp("order"), sensors=("sentinel-1",), columns=1)


def plan_of(world: World, catalog: Path, **changes: Any) -> Plan:
    question = {"text": "What is flooded?", "before": "2024-05", "after": "2024-06"}
    values = {
        "area": world.area, "catalog": str(catalog), "queries": [question], "tile_size": 128, "predictor": "spectral",
        "out": "nowhere",
    }  # fmt: skip
    job = parse_job({**values, **changes})
    return make_plan(job)


@pytest.fixture(scope="module")
def plan(world: World, catalog: Path) -> Plan:
    return plan_of(world, catalog)


def flooded(world: World, cell: Cell) -> int:
    """Pixels of the cell that the flood covers."""
    before, after = (truth_on(world, cell.core_geobox, date) == WATER for date in (world.before, world.after))
    return int((after & ~before).sum())


def test_what_changed_most_at_a_glance_comes_first(world: World, plan: Plan) -> None:
    order = order_cells(plan, RasterioReader(), points=None)
    found = [flooded(world, work.cell) for work in in_order(plan, order).work()]
    assert "changed" in order.why
    assert found[0] == max(found) > 1000
    rank = np.corrcoef(np.argsort(np.argsort(found)), np.arange(len(found)))[0, 1]
    assert rank < -0.6
    assert len(found) == plan.cells >= 9


def test_in_another_order_the_plan_is_the_same(plan: Plan) -> None:
    places = tuple(np.random.default_rng(3).permutation(plan.cells).tolist())
    turned = in_order(plan, Order(places=places, why="by chance"))
    works, others = list(plan.work()), list(turned.work())
    assert [works[place] for place in places] == others
    assert (turned.planned, turned.cells, turned.tiles) == (plan.planned, plan.cells, plan.tiles)
    empty = dataclasses.replace(plan, table=plan.table.slice(0, 0))
    assert not list(in_order(empty, Order(places=(), why="none")).work())


def test_cells_with_more_places_come_first_then_those_nearest(plan: Plan, tmp_path: Path) -> None:
    cells = [work.cell for work in plan.work()]
    grounds = [owned_ground(cell) for cell in cells]
    middles = [shapely.centroid(ground) for ground in grounds]
    points = [middles[5], shapely.transform(middles[5], lambda at: at + 0.001), middles[0]]
    files = {"points.csv": "name,Lon,LAT\n" + "".join(f"a,{one.x},{one.y}\n" for one in points)}
    files["points.geojson"] = json.dumps(json.loads(shapely.to_geojson(shapely.geometrycollections(points))))
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    frame = geopandas.GeoDataFrame(geometry=[one.buffer(0.0001) for one in points], crs="EPSG:4326")
    frame.to_crs("EPSG:32631").to_file(tmp_path / "points.gpkg")
    for name in (*files, "points.gpkg"):
        if name == "points.geojson":
            geopandas.GeoSeries(points, crs="EPSG:4326").to_file(tmp_path / name)
        order = order_cells(plan, RasterioReader(), points=str(tmp_path / name))
        assert order.places[:2] == (5, 0)
        apart = [min(shapely.distance(grounds[place], point) for point in points) for place in order.places[2:]]
        assert apart == pytest.approx(sorted(apart), abs=2e-4)
        assert "3 points" in order.why


def test_what_cannot_be_read_or_compared_leaves_the_plans_order(world: World, catalog: Path, plan: Plan) -> None:
    class Broken(RasterioReader):
        def read(self, source: Any, geobox: Any, *, frame: Any = None) -> Any:
            from earthmap.errors import ReadError

            raise ReadError("no answer", reason="server", address=source.href)

    order = order_cells(plan, Broken(), points=None)
    assert order.places == tuple(range(plan.cells))
    assert "planned" in order.why
    alone = {"text": "Where is water?", "after": "2024-06"}
    assert order_cells(plan_of(world, catalog, queries=[alone]), RasterioReader(), points=None).places[0] == 0


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("missing.gpkg", None),
        ("columns.csv", "east,north\n1,2\n"),
        ("text.csv", "lon,lat\nhere,there\n"),
        ("empty.csv", "lon,lat\n"),
        ("far.csv", "lon,lat\n500000,5000000\n"),
        ("text.geojson", "no points"),
    ],
)
def test_points_that_are_none_are_refused(tmp_path: Path, name: str, content: str | None) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(JobError, match=name):
        read_places(str(path))
