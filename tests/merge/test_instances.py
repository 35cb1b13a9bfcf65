"""What the merge of things must hold: those of a drawn world one to one, whatever the tiling, order and zone."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely
import shapely.affinity
from hypothesis import given, settings
from hypothesis import strategies as st

from earthmap.grid import AreaOfInterest, Cell, Grid, Tile, Zone, from_lonlat, lonlat_to_tile, to_lonlat, touched
from earthmap.merge import Joining, Sums, merge_cell, summarize
from earthmap.pipeline.merged import MergedCells
from earthmap.storage import Storage
from earthmap.synthetic import World, small_world
from earthmap.tasks import answer_schema
from earthmap.tasks.serialization import Instance
from tests.merge.maps import Merged, joined
from tests.merge.things import (
    Says,
    jittered,
    merge_of,
    merges_of,
    oracle,
    pairs_of,
    query_of,
    row_of,
    truth_of,
)

QUERY = query_of("ship", "polygon")
KEY = QUERY.content_key()
GRID = Grid(resolution_m=2.5, picture_px=224)


def world_at(place: tuple[float, float] = (3.5, 45.7), *, seed: int = 5, size_m: float = 2400.0) -> World:
    return small_world(seed, place=place, size_m=size_m, resolution_m=2.5, ships=0.9)


def area_of(world: World) -> AreaOfInterest:
    return AreaOfInterest.from_geometry(shapely.box(*world.bounds).buffer(-120), f"EPSG:{world.epsg}")


def merged(world: World, label: str, kind: str, grid: Grid, says: Says | None = None) -> Merged:
    area, query = area_of(world), query_of(label, kind)
    merges = merges_of(says or oracle(world, label, kind), query, area, grid)
    return joined(merges, area=area, queries={query.content_key(): query})


def check_truth(world: World, label: str, kind: str, grid: Grid, *, bins: float = 1.0) -> int:
    """One feature for each thing, each within `bins` steps of SLIS of its outline; returns how many there are."""
    true, step_m = truth_of(world, label, area_of(world)), grid.picture_px * grid.resolution_m / 1000
    found = np.array([from_lonlat(shape, world.epsg) for shape in merged(world, label, kind, grid).features.geometry])
    assert len(found) == len(true) > 0
    if kind == "point":
        nearest, far_m = shapely.STRtree(shapely.centroid(true)).query_nearest(found, return_distance=True)
        assert len(set(nearest[1].tolist())) == len(true)
        assert far_m.max() <= bins * step_m
        return len(true)
    expected = shapely.envelope(true) if kind == "box" else true
    pairs = pairs_of(shapely.buffer(found, 1e-3), expected)
    assert len(pairs) == len(true)
    assert max(shapely.hausdorff_distance(found[one], expected[other]) for one, other in pairs) <= bins * step_m
    return len(true)


@pytest.mark.parametrize(
    ("kind", "picture_px"), [("polygon", 128), ("polygon", 448), ("box", 224), ("oriented_box", 448), ("point", 128)]
)
def test_what_is_found_is_what_is_there(kind: str, picture_px: int) -> None:
    """Ships are up to 104 pixels long: no picture of 128, few of 224 show one whole, and many cut one."""
    grid = Grid(resolution_m=2.5, picture_px=picture_px)
    assert check_truth(world_at(), "building", kind, grid) > 60
    assert check_truth(world_at(), "ship", kind, grid) >= 6


def test_long_oriented_boxes_that_no_picture_shows_whole_stay_oriented() -> None:
    """Their pieces are told cut across, so that a corner may be two steps from its place."""
    grid = Grid(resolution_m=2.5, picture_px=224)
    check_truth(world_at(), "ship", "oriented_box", grid, bins=2.0)
    found = merged(world_at(), "ship", "oriented_box", grid).features.geometry
    assert (shapely.get_num_coordinates(found.to_numpy()) == 5).all()
    shapes = found.to_numpy()
    assert (shapely.area(shapes) < 0.9 * shapely.area(shapely.envelope(shapes))).any()


@settings(max_examples=3, deadline=None)
@given(
    seed=st.integers(1, 50), picture_px=st.sampled_from([448, 224, 128]), anchor_m=st.sampled_from([0, 15]),
    resolution_m=st.sampled_from([2.5, 2.7]), kind=st.sampled_from(["box", "polygon"]),
)  # fmt: skip
def test_any_tiling_finds_the_same_things(
    seed: int, picture_px: int, anchor_m: int, resolution_m: float, kind: str
) -> None:
    grid = Grid(resolution_m=resolution_m, picture_px=picture_px, anchor_m=anchor_m)
    world = world_at(seed=seed, size_m=1500.0)
    if len(truth_of(world, "building", area_of(world))):
        check_truth(world, "building", kind, grid)


@pytest.mark.parametrize(
    "place",
    [
        pytest.param((6.0, 45.7), id="zones"),
        pytest.param((180.0, -17.0), id="antimeridian"),
        pytest.param((3.0, 0.0), id="equator"),
        pytest.param((179.99, 84.0), id="cap at the antimeridian"),
        pytest.param((6.0, 0.0), id="four zones", marks=pytest.mark.slow),
        pytest.param((6.0, 84.0), id="cap", marks=pytest.mark.slow),
        pytest.param((10.0, -80.0), id="south cap", marks=pytest.mark.slow),
        pytest.param((0.0, 90.0), id="pole", marks=pytest.mark.slow),
    ],
)
def test_borders_of_zones_are_none_of_things(place: tuple[float, float]) -> None:
    """Also where the lattices on both sides are turned against each other."""
    world = world_at(place)
    check_truth(world, "ship", "polygon", GRID)
    zones = {cell.zone for cell in touched(area_of(world), GRID)[0]}
    assert len(zones) > 1 or place[1] == 90.0


def test_no_order_of_cells_and_tiles_changes_a_byte() -> None:
    world = world_at((6.0, 45.7), size_m=1800.0)
    area, query, dice = area_of(world), query_of("building", "oriented_box"), random.Random(0)
    says = jittered(oracle(world, "building", "oriented_box"), seed=1, bins=3, dropped=0.1)
    cells, bits = touched(area, GRID)
    rows = {cell: [row_of(tile, query, says(tile)) for tile in cell.tiles()] for cell in cells}
    written = set()
    for _ in range(3):
        merges = []
        for cell, tiles in zip(cells, bits.tolist(), strict=True):
            mine = [row for bit, row in enumerate(rows[cell]) if tiles >> bit & 1]
            dice.shuffle(mine)
            table = pa.Table.from_pylist(mine, schema=answer_schema())
            queries = {query.content_key(): query}
            merges.append(merge_cell(cell, table, area=area, queries=queries, tiles=tiles, by_observation=False))
        dice.shuffle(merges)
        written.add(joined(merges, area=area, queries={query.content_key(): query}).features_bytes)
    assert len(written) == 1


@settings(max_examples=2, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_nonsense_of_any_kind_is_the_same_in_any_order(seed: int) -> None:
    """Boxes, slanted ones, outlines and points that no ground is behind, many cut, over the border of two zones."""
    area, dice = AreaOfInterest.from_bbox(5.96, 45.6, 6.04, 45.66), random.Random(seed)
    grid = Grid(resolution_m=10.0, picture_px=128)

    def say(tile: Tile) -> list[Instance]:
        own, told = random.Random(f"{seed} {tile.id}"), []
        for _ in range(6):
            x, y, size = own.random(), own.random(), 0.05 + 0.4 * own.random()
            box = shapely.affinity.rotate(shapely.box(x, y, x + size, y + size / 3), own.choice([0, 30, 77]))
            kind = own.choice(["box", "oriented_box", "polygon", "point"])
            told.append(Instance(kind=kind, geometry=box.centroid if kind == "point" else box, label="ship"))
        return told

    merges = merges_of(say, QUERY, area, grid)
    written = set()
    for _ in range(3):
        dice.shuffle(merges)
        result = joined(merges, area=area, queries={KEY: QUERY})
        written.add(result.features_bytes)
        assert result.features.geometry.is_valid.all()
        assert sum(layer.found["ship"] for layer in result.sums.layers.values()) == len(result.features)
    assert len(written) == 1


@pytest.mark.parametrize(
    ("kind", "picture_px"),
    [
        ("box", 448),
        pytest.param("oriented_box", 224, marks=pytest.mark.slow),
        pytest.param("polygon", 224, marks=pytest.mark.slow),
    ],
)
def test_shaking_and_lost_pieces_change_little(kind: str, picture_px: int) -> None:
    """Corners moved by up to three steps of SLIS, each by itself, and a tenth of the pieces not told: F1 >= 0.99."""
    grid = Grid(resolution_m=2.5, picture_px=picture_px)
    world, right, found, true = world_at(size_m=3000.0), 0, 0, 0
    for label in ("building", "ship"):
        says = jittered(oracle(world, label, kind), seed=7, bins=3, dropped=0.1)
        shapes = [from_lonlat(shape, world.epsg) for shape in merged(world, label, kind, grid, says).features.geometry]
        outlines = truth_of(world, label, area_of(world))
        expected = shapely.envelope(outlines) if kind == "box" else outlines
        right += len(pairs_of(np.array(shapes), expected, share=0.5))
        found, true = found + len(shapes), true + len(expected)
    assert 2 * right / (found + true) >= 0.99


# ── by hand ──────────────────────────────────────────────────────────────────────────────────────────────────

LATTICE = Grid(resolution_m=10.0, picture_px=448)
CORNER = Tile(LATTICE, Zone(31, True), 1199, 139)
"""The tile whose north-east corner things are put around; its cell ends there."""


def place(shape: Any, tile: Tile) -> Any:
    """A shape in pixels from CORNER's north-east corner (x east, y north) in coordinates of a tile's picture."""
    grid = tile.grid
    west = (tile.column - CORNER.column - 1) * grid.core_px - grid.halo_px
    north = (tile.row - CORNER.row) * grid.core_px + grid.halo_px
    return shapely.transform(shape, lambda xy: np.column_stack([xy[:, 0] - west, north - xy[:, 1]]) / grid.picture_px)


def seen(shapes: Mapping[str, list[Any]], *, blind: tuple[Tile, ...] = ()) -> Says:
    """Tiles that say of shapes around CORNER, by label, what they see."""
    frame = shapely.box(0, 0, 1, 1)

    def say(tile: Tile) -> list[Instance]:
        parts = [
            (label, shapely.intersection(place(shape, tile), frame)) for label, own in shapes.items() for shape in own
        ]
        return [
            Instance(kind="polygon", geometry=part, label=label)
            for label, part in parts
            if part.area > 1e-7 and tile not in blind
        ]

    return say


def around(radius_px: int = 600) -> AreaOfInterest:
    """The ground around CORNER's north-east corner: four tiles of four cells and more."""
    east = LATTICE.resolution_m * (CORNER.column + 1) * LATTICE.core_px
    north = LATTICE.resolution_m * (CORNER.row + 1) * LATTICE.core_px
    side = LATTICE.resolution_m * radius_px
    return AreaOfInterest.from_geometry(shapely.box(east - side, north - side, east + side, north + side), "EPSG:32631")


def found_of(says: Says, area: AreaOfInterest | None = None) -> Merged:
    area = area or around()
    return joined(merges_of(says, QUERY, area, LATTICE), area=area, queries={KEY: QUERY})


def in_pixels(result: Merged) -> list[Any]:
    """What was found in pixels from CORNER's north-east corner."""
    corner = np.array([(CORNER.column + 1) * LATTICE.core_px, (CORNER.row + 1) * LATTICE.core_px])
    metres = [from_lonlat(shape, 32631, tolerance_m=0.01) for shape in result.features.geometry]
    return [shapely.transform(shape, lambda xy: xy / LATTICE.resolution_m - corner) for shape in metres]


def ship(x: float, y: float, *, length: float = 30.0, width: float = 6.0, turn: float = 0.0) -> Any:
    box = shapely.box(-length / 2, -width / 2, length / 2, width / 2)
    return shapely.affinity.translate(shapely.affinity.rotate(box, turn, origin=(0, 0)), x, y)


@pytest.mark.parametrize(("x", "y"), [(0.0, 0.0), (0.1, 0.1), (-0.2, 100.0), (100.0, 0.3), (31.0, 31.0), (-20.0, 3.0)])
def test_a_thing_that_four_tiles_see_is_one(x: float, y: float) -> None:
    result = found_of(seen({"ship": [ship(x, y, turn=30.0)]}))
    (shape,) = in_pixels(result)
    assert shapely.hausdorff_distance(shape, ship(x, y, turn=30.0)) <= 0.448
    assert len(result.features["tile_ids"][0]) == 1


def test_a_thing_that_no_tile_sees_whole_is_joined_of_its_pieces() -> None:
    long = ship(10.0, 0.0, length=900.0, width=8.0, turn=20.0)
    result = found_of(seen({"ship": [long]}))
    (shape,) = in_pixels(result)
    assert shapely.hausdorff_distance(shape, long) <= 0.448
    assert len(result.features["tile_ids"][0]) >= 3
    assert result.features["area_m2"][0] == pytest.approx(long.area * 100, rel=0.02)


def test_two_ships_side_by_side_are_two_though_their_boxes_overlap() -> None:
    """Along a diagonal over the corner of four cells; the boxes around them share most of their ground."""
    two = [ship(-4.0, 4.0, length=60.0, turn=45.0), ship(4.0, -4.0, length=60.0, turn=45.0)]
    shapes = in_pixels(found_of(seen({"ship": two})))
    assert len(shapes) == len(pairs_of(np.array(shapes), np.array(two), share=0.8)) == 2


def test_two_things_of_one_tile_stay_two_where_a_neighbour_takes_them_for_one() -> None:
    two = [ship(-12.0, 2.0, width=5.0), ship(-12.0, -3.5, width=5.0)]
    apart, both = seen({"ship": two}), seen({"ship": [shapely.union_all(two).envelope]})
    result = found_of(lambda tile: apart(tile) if tile == CORNER else both(tile))
    shapes = in_pixels(result)
    assert [tile for tiles in result.features["tile_ids"] for tile in tiles].count(CORNER.id) >= 1
    assert len(pairs_of(np.array(shapes), np.array(two), share=0.8)) >= 1


def test_what_a_tile_says_twice_is_one() -> None:
    once, near, aside = ship(-100.0, -100.0), ship(-99.0, -100.0), ship(-92.0, -100.0)
    assert len(found_of(seen({"ship": [once, near, once]})).features) == 1
    assert len(found_of(seen({"ship": [once, aside]})).features) == 2


def test_a_piece_that_nothing_joins_says_so() -> None:
    long = ship(0.0, -100.0, length=300.0)
    others = tuple(Tile(LATTICE, CORNER.zone, CORNER.row + down, CORNER.column + 1) for down in (-1, 0, 1))
    (notes,) = found_of(seen({"ship": [long]}, blind=others)).features["notes"]
    assert list(notes) == ["cut off at the edge of a picture"]
    (notes,) = found_of(seen({"ship": [long]})).features["notes"]
    assert list(notes) == []


@pytest.mark.parametrize("said", ["ship", "ships", None])
def test_plurals_and_things_without_a_name_are_the_target(said: str | None) -> None:
    def say(tile: Tile) -> list[Instance]:
        told = seen({"ship": [ship(0.0, 0.0)]})(tile)
        # Each tile in its own words.
        return [replace(one, label=said if tile.row % 2 else "ship") for one in told]

    assert list(found_of(say).features["answer"]) == ["ship"]


def test_a_class_meets_only_its_own() -> None:
    result = found_of(seen({"ship": [ship(0.0, 0.0)], "barge": [ship(0.0, 0.0)]}))
    assert sorted(result.features["answer"]) == ["barge", "ship"]


def test_what_its_own_tile_does_not_see_is_nothing() -> None:
    """A neighbour sees less of that ground; what no other tile knows of it does not put there."""
    east = Tile(LATTICE, CORNER.zone, CORNER.row, CORNER.column + 1)
    assert len(found_of(seen({"ship": [ship(8.0, -100.0, length=10.0)]})).features) == 1
    assert len(found_of(seen({"ship": [ship(8.0, -100.0, length=10.0)]}, blind=(east,))).features) == 0
    assert len(found_of(seen({"ship": [ship(-8.0, -100.0, length=10.0)]}, blind=(east,))).features) == 1


def test_where_each_of_two_tiles_puts_it_on_the_others_ground_it_is_there_once() -> None:
    def say(tile: Tile) -> list[Instance]:
        aside = 0.6 if tile.column == CORNER.column else -0.6 if tile.column == CORNER.column + 1 else 99_999.0
        return seen({"ship": [ship(aside, -100.0, length=12.0)]})(tile)

    assert len(found_of(say).features) == 1
    assert len(found_of(lambda tile: say(Tile(tile.grid, tile.zone, tile.row, 279 - tile.column))).features) <= 1


def test_a_piece_that_goes_round_joins_through_the_neighbour() -> None:
    """Two arms in one picture, their bow in the next: one thing."""
    bow = shapely.union_all(
        [shapely.box(-90, -120, 150, -112), shapely.box(-90, -70, 150, -62), shapely.box(142, -120, 150, -62)]
    )
    (shape,) = in_pixels(found_of(seen({"ship": [bow]})))
    assert shapely.hausdorff_distance(shape, bow) <= 0.5


def test_boxes_around_every_picture_are_joined_without_comparing_all_with_all() -> None:
    """What a model may say of each of many tiles: it fills the picture. Over the border of two zones."""
    grid = Grid(resolution_m=10.0, picture_px=128)
    area = AreaOfInterest.from_bbox(5.93, 45.6, 6.07, 45.7)
    whole = [Instance(kind="box", geometry=shapely.box(0, 0, 1, 1), label="ship")]
    result = joined(merges_of(lambda tile: whole, QUERY, area, grid), area=area, queries={KEY: QUERY})
    (shape,) = result.features.geometry
    assert shape.buffer(1e-3).contains(shapely.box(*area.bounds))
    assert len(result.features["tile_ids"][0]) > 100


def test_a_thing_counts_where_its_middle_lies_in_the_area_and_is_drawn_whole() -> None:
    area = around(200)
    result = found_of(seen({"ship": [ship(198.0, 50.0), ship(203.0, -50.0)]}), area)
    (shape,) = in_pixels(result)
    assert shape.bounds[2] == pytest.approx(213.0, abs=0.5)


def test_a_larger_area_changes_none_of_the_things() -> None:
    world = world_at()
    whole = area_of(world)
    part = AreaOfInterest.from_geometry(shapely.box(*world.bounds).buffer(-500), f"EPSG:{world.epsg}")
    query = query_of("building", "polygon")
    results = []
    for area in (part, whole):
        merges = merges_of(oracle(world, "building", "polygon"), query, area, GRID)
        results.append(joined(merges, area=area, queries={query.content_key(): query}).features)
    middles = results[1].geometry.to_crs(world.epsg).centroid.to_crs("EPSG:4326")
    inside = results[1][middles.within(part.geometry)]
    assert sorted(inside.geometry.to_wkb()) == sorted(results[0].geometry.to_wkb())


def test_a_box_over_the_antimeridian_is_one_in_two_polygons() -> None:
    grid = Grid(resolution_m=10.0, picture_px=224)
    area = AreaOfInterest.from_geometry(
        shapely.MultiPolygon([shapely.box(179.95, -16.1, 180, -16.0), shapely.box(-180, -16.1, -179.95, -16.0)])
    )
    outline = shapely.transform(
        ship(0, 0, length=300.0, width=80.0, turn=15.0), lambda xy: xy / 108_000 + (180, -16.05)
    )

    def say(tile: Tile) -> list[Instance]:
        xy = shapely.transform(
            outline, lambda places: np.column_stack(lonlat_to_tile(tile, places[:, 0], places[:, 1]))
        )
        part = shapely.intersection(xy, shapely.box(0, 0, 1, 1))
        return [Instance(kind="polygon", geometry=part, label="ship")] if part.area > 1e-7 else []

    result = joined(merges_of(say, QUERY, area, grid), area=area, queries={KEY: QUERY})
    (shape,) = result.features.geometry
    assert shape.geom_type == "MultiPolygon"
    assert len(shape.geoms) == 2
    assert shape.bounds[0] == -180.0
    assert shape.bounds[2] == 180.0
    assert result.sums.layers[next(iter(result.sums.layers))].found == {"ship": 1}


@pytest.mark.parametrize(
    "text",
    [
        "", "none", "box[500,500,500,500]", "box[0,0,1000,1000]", "ship:point[500,500]; ship:point[500,500]",
        "obox[1,1,500,500,1,500,500,1]", "mask[8|3:2+3|4:2+3]", "poly[100,100,900,900,100,900,900,100]",
        "poly[0,0,1000,0,1000,1000,0,1000][0,0,500,0,500,500]", "box[5,",
        pytest.param("box[400,400,600,600]" * 300, marks=pytest.mark.slow, id="the same 300 times"),
    ],
)  # fmt: skip
def test_whatever_a_model_writes_is_merged(text: str) -> None:
    area, merges = AreaOfInterest.from_bbox(5.96, 45.6, 6.04, 45.62), []
    cells, bits = touched(area, Grid(resolution_m=10.0, picture_px=128))
    for cell, tiles in zip(cells, bits.tolist(), strict=True):
        rows = [
            row_of(tile, QUERY, []) | {"instances": text, "instance_scores": []}
            for bit, tile in enumerate(cell.tiles())
            if tiles >> bit & 1
        ]
        table = pa.Table.from_pylist(rows, schema=answer_schema())
        merges.append(merge_cell(cell, table, area=area, queries={KEY: QUERY}, tiles=tiles, by_observation=False))
    features = joined(merges, area=area, queries={KEY: QUERY}).features
    assert features.geometry.is_valid.all()
    assert set(features["answer"]) <= {"ship"}
    assert (len(features) > 0) == (text not in ("", "none", "box[5,"))


# ── counts, files, memory ────────────────────────────────────────────────────────────────────────────────────


def test_counts_are_of_merged_things() -> None:
    things = {"ship": [ship(0, 0), ship(-90, 40), ship(300, 300)], "barge": [ship(50, 0)]}
    result = found_of(seen(things))
    summary = summarize(result.sums, area=around(), queries={KEY: QUERY})
    (layer,) = summary["queries"][0]["observations"]
    assert (layer["count"], layer["total"]) == ({"ship": 3, "barge": 1}, 4)
    nothing = summarize(found_of(seen({})).sums, area=around(), queries={KEY: QUERY})
    assert nothing["queries"][0]["observations"][0]["count"] == {"ship": 0}
    assert Sums.from_json(result.sums.to_json()) == result.sums


def test_a_cell_comes_back_from_its_file(tmp_path: Path) -> None:
    says, area = seen({"ship": [ship(0, -200), ship(-200, -200)]}), around()
    cells, bits = touched(area, LATTICE)
    cell = CORNER.cell
    merge = merge_of(says, QUERY, area, cell, int(bits[cells.index(cell)]))
    assert (len(merge.features), len(merge.views)) == (1, 1)
    files = MergedCells.of(Storage(tmp_path / "store"), Storage(tmp_path / "run"), execution=1)
    files.write(merge, pa.table({"cell_id": ["a"]}))
    ((back, _),) = files.read([cell])
    assert back == merge


def test_only_what_other_cells_may_know_of_is_held() -> None:
    """Row by row, a field of things never holds more than lie along the seams of a row."""
    grid = Grid(resolution_m=10.0, picture_px=128)
    area = AreaOfInterest.from_geometry(shapely.box(500_000, 5_000_000, 506_000, 5_030_000), "EPSG:32631")
    shapes = [
        shapely.box(x, y, x + 80, y + 60)
        for x in range(500_050, 506_000, 300)
        for y in range(5_000_050, 5_030_000, 300)
    ]
    tree = shapely.STRtree(shapes)

    def say(tile: Tile) -> list[Instance]:
        box, frame = tile.geobox, shapely.box(0, 0, 1, 1)
        west, south, east, north = box.boundingbox
        near = np.array(shapes, object)[tree.query(shapely.box(west, south, east, north))]
        placed = shapely.transform(
            near, lambda xy: np.column_stack([(xy[:, 0] - west), (north - xy[:, 1])]) / (east - west)
        )
        return [
            Instance(kind="polygon", geometry=part, label="ship")
            for part in shapely.intersection(placed, frame)
            if part.area > 1e-7
        ]

    merges = merges_of(say, QUERY, area, grid)
    cells = [Cell.parse(merge.cell_id) for merge in merges]
    joining, held = Joining(set(cells), area, {KEY: QUERY}), []
    count = 0
    for merge in merges:
        count += len(merge.features) + sum(len(table) for table in joining.add(merge))
        held.append(len(joining._things._views.groups))
    count += sum(len(table) for table in joining.finish())
    assert count == len(shapes)
    assert joining._things._views.groups == joining._things._open == {}
    across = len({cell.column for cell in cells})
    assert max(held) <= across * 60 < count / 5


def test_points_near_each_other_are_two_and_the_same_one_is_one() -> None:
    def say(tile: Tile) -> list[Instance]:
        spots = [place(shapely.Point(x, y), tile) for x, y in ((0.2, 0.2), (6.0, 0.2), (-300.0, 20.0))]
        inside = [spot for spot in spots if shapely.box(0, 0, 1, 1).covers(spot)]
        return [Instance(kind="point", geometry=spot, label="ship") for spot in inside]

    result = found_of(say)
    assert sorted(set(result.features.geometry.geom_type)) == ["Point"]
    assert len(result.features) == 3
    assert (result.features["area_m2"] == 0).all()


def test_overlapping_observations_are_layers_of_their_own_where_all_are_asked() -> None:
    area, says = around(), seen({"ship": [ship(0, 0)]})
    cells, bits = touched(area, LATTICE)
    for by_observation, count in ((True, 2), (False, 1)):
        merges = []
        for cell, tiles in zip(cells, bits.tolist(), strict=True):
            mine = [tile for bit, tile in enumerate(cell.tiles()) if tiles >> bit & 1]
            west = cell.column <= CORNER.cell.column
            names = ["one", "two"] if by_observation else ["one" if west else "two"]
            rows = [row_of(tile, QUERY, says(tile), observation=name, scenes=[name]) for tile in mine for name in names]
            table = pa.Table.from_pylist(rows, schema=answer_schema())
            merges.append(
                merge_cell(cell, table, area=area, queries={KEY: QUERY}, tiles=tiles, by_observation=by_observation)
            )
        assert len(joined(merges, area=area, queries={KEY: QUERY}).features) == count


def test_to_lonlat_of_a_long_box_bends_with_the_lattice() -> None:
    """At 60 m and 80° N the chord of a long edge leaves its arc: it gets vertices more, a short one none."""
    grid = Grid(resolution_m=60.0, picture_px=448)
    tile = Tile(grid, Zone(31, True), 387, 21)

    def says(one: Tile) -> list[Instance]:
        boxes = [shapely.box(0.2, 0.45, 0.8, 0.5), shapely.box(0.2, 0.7, 0.21, 0.71)] if one == tile else []
        return [Instance(kind="box", geometry=box, label="ship") for box in boxes]

    area = AreaOfInterest.from_geometry(to_lonlat(shapely.box(*tile.core_geobox.boundingbox), 32631))
    result = joined(merges_of(says, QUERY, area, grid), area=area, queries={KEY: QUERY})
    small, large = sorted(result.features.geometry, key=lambda shape: shape.area)
    assert (shapely.get_num_coordinates(small), shapely.get_num_coordinates(large) > 5) == (5, True)
