"""What the oracle finds of what stands on a drawn world."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from earthmap.grid import AreaOfInterest, Grid, Tile, tile_to_lonlat, touched
from earthmap.predict import OraclePredictor, Picture, TileInput
from earthmap.predict.standing import instances_on
from earthmap.synthetic import World, small_world, standing_on
from earthmap.tasks import Query, make_query

GRID = Grid(resolution_m=2.5, picture_px=224)


@pytest.fixture(scope="module")
def world() -> World:
    return small_world(5, size_m=2400.0, resolution_m=2.5, ships=0.9)


@pytest.fixture(scope="module")
def tiles(world: World) -> list[Tile]:
    area = AreaOfInterest.from_geometry(shapely.box(*world.bounds), f"EPSG:{world.epsg}")
    cells, bits = touched(area, GRID)
    return [
        tile
        for cell, mine in zip(cells, bits.tolist(), strict=True)
        for bit, tile in enumerate(cell.tiles())
        if mine >> bit & 1
    ]


def asked(world: World, tile: Tile, query: Query, mask: np.ndarray | None = None) -> object:
    side = GRID.picture_px
    picture = Picture(
        sensor="sentinel-2-l2a", observation="one", datetime=world.before, bands=("red",),
        data=np.ones((1, side, side), np.float32), mask=np.zeros((side, side), np.uint8) if mask is None else mask,
    )  # fmt: skip
    ((answer,),) = OraclePredictor(world).predict([TileInput(tile=tile, pictures=(picture,))], [query])
    return answer


def find(text: str, **changes: object) -> Query:
    return make_query(text, open_vocabulary=True, **changes)  # type: ignore[arg-type]


def test_ships_lie_on_water_and_houses_on_built_up_ground(world: World) -> None:
    for label in ("ship", "building"):
        outlines = standing_on(world, label).outlines
        places = shapely.get_coordinates(shapely.centroid(outlines))
        assert (world.ground(places[:, 0], places[:, 1]).cover == 4).all()
        assert len(outlines) >= 6
    bare = World.from_dict({**world.to_dict(), "ships": 0.0})
    corners = shapely.get_coordinates(standing_on(world, "ship").outlines)
    assert (bare.ground(corners[:, 0], corners[:, 1]).cover == 1).all()
    assert len(standing_on(bare, "ship").outlines) == 0


def test_a_world_without_ships_is_the_world_it_was(world: World) -> None:
    bare = World.from_dict({name: value for name, value in world.to_dict().items() if name != "ships"})
    assert bare.ships == 0.0
    x, y = np.linspace(*world.bounds[::2], 300)[None, :], np.linspace(*world.bounds[1::2], 300)[:, None]
    differs = bare.classes(x, y, world.before) != world.classes(x, y, world.before)
    assert 0 < differs.sum() < 0.02 * differs.size
    assert (bare.classes(x, y, world.before)[differs] == 1).all()


@pytest.mark.parametrize("kind", ["box", "oriented_box", "polygon", "point"])
def test_every_thing_is_found_where_it_is(world: World, tiles: list[Tile], kind: str) -> None:
    """What a picture shows whole is the thing itself; what it cuts reaches its edge and never beyond."""
    frame = shapely.box(0, 0, 1, 1)
    seen = 0
    for tile in tiles[::5]:
        for instance in instances_on(world, tile, "building", kind):
            assert instance.geometry is not None
            assert frame.buffer(1e-9).covers(instance.geometry)
            x, y = instance.geometry.centroid.coords[0]
            lon, lat = tile_to_lonlat(tile, np.array([x]), np.array([y]))
            assert world.area.geometry.buffer(1e-6).contains(shapely.Point(lon[0], lat[0]))
            seen += 1
    assert seen > 10


def test_the_answer_counts_what_it_says(world: World, tiles: list[Tile]) -> None:
    for text, task in (("Find the ships", "detect"), ("How many ships are there?", "count")):
        answers = [asked(world, tile, find(text)) for tile in tiles]
        counts = [len(answer.instances) for answer in answers]  # type: ignore[attr-defined]
        assert [answer.value for answer in answers] == [str(count) for count in counts]  # type: ignore[attr-defined]
        assert sum(counts) >= len(standing_on(world, "ship").outlines)
        assert find(text).task == task


def test_what_is_hidden_is_not_found(world: World, tiles: list[Tile]) -> None:
    query = find("Find the buildings")
    tile = max(tiles, key=lambda one: len(instances_on(world, one, "building", "box")))
    side = GRID.picture_px
    mask = np.zeros((side, side), np.uint8)
    mask[:, : side // 2] = 2
    hidden = asked(world, tile, find("Find the buildings", unseen=("cloud",)), mask)
    full = asked(world, tile, query)
    left = [one for one in full.instances if one.geometry.centroid.x >= 0.5]  # type: ignore[attr-defined]
    assert len(hidden.instances) == len(left) < len(full.instances)  # type: ignore[attr-defined]


def test_what_no_drawn_world_has_is_not_supported(world: World, tiles: list[Tile]) -> None:
    answer = asked(world, tiles[0], find("Find the aircraft"))
    assert (answer.status, answer.reason) == ("skipped", "not_supported")  # type: ignore[attr-defined]
    assert "buildings and ships" in answer.message  # type: ignore[attr-defined]
