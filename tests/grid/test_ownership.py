"""Every point of the Earth has one owner, and an area touches the cells that own its ground and no others."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from earthmap.errors import GridError
from earthmap.grid import (
    AreaOfInterest,
    Cell,
    Grid,
    Tile,
    Zone,
    cells_touching,
    from_lonlat,
    owned_ground,
    owned_grounds,
    owner,
    owns_ground,
    tiles_touching,
    touched,
)
from earthmap.grid.ownership import zone_number

GRIDS = (
    Grid(resolution_m=10),
    Grid(resolution_m=15, anchor_m=15, picture_px=224),
    Grid(resolution_m=0.6, picture_px=128),
    Grid(resolution_m=1000),
    Grid(resolution_m=10_000),
)
grids = st.sampled_from(GRIDS)
nudges = st.sampled_from([0.0, 1e-13, -1e-13, 1e-9, -1e-9, 1e-6, -1e-6, 1e-3, -1e-3])
anywhere = st.tuples(st.floats(-180, 180), st.floats(-1, 1).map(lambda sine: float(np.degrees(np.arcsin(sine)))))
borders = st.tuples(
    st.builds(lambda zone, nudge: -180 + 6 * zone + nudge, st.integers(0, 60), nudges), st.floats(-90, 90)
)
equator = st.tuples(st.floats(-180, 180), nudges)
norway = st.tuples(st.floats(2, 13), st.floats(56, 64))
svalbard = st.tuples(st.floats(-1, 43), st.floats(72, 84))
poles = st.tuples(
    st.floats(-180, 180), st.builds(lambda sign, gap: sign * (90 - gap), st.sampled_from([1, -1]), st.floats(0, 0.01))
)
points = st.one_of(anywhere, borders, equator, norway, svalbard, poles)


def owner_tile(grid: Grid, longitude: float, latitude: float) -> Tile:
    found = owner(grid, longitude, latitude)
    return Tile(grid, Zone(int(found.zone), bool(found.north)), int(found.row), int(found.column))


def neighbours(tile: Tile) -> list[Tile]:
    steps = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if (down, right) != (0, 0)]
    return [Tile(tile.grid, tile.zone, tile.row + down, tile.column + right) for down, right in steps]


def across(tile: Tile, longitude: float, latitude: float) -> list[Tile]:
    """Owners of points one pixel away: they are in the next zones and hemispheres too."""
    step = tile.grid.resolution_m / 111_000
    aside = min(step / max(np.cos(np.radians(latitude)), 1e-9), 3.0)
    around = [(longitude + a * aside, np.clip(latitude + b * step, -90, 90)) for a in (-1, 0, 1) for b in (-1, 0, 1)]
    return [owner_tile(tile.grid, *point) for point in around]


@given(grids, points)
def test_every_point_has_one_owner(grid: Grid, point: tuple[float, float]) -> None:
    longitude, latitude = point
    tile = owner_tile(grid, longitude, latitude)
    wrapped = longitude - 360 if longitude >= 180 else longitude + 360 if longitude < -180 else longitude
    here = shapely.Point(wrapped, latitude)
    margin = 0.011 * grid.resolution_m / 111_000
    aside = margin / max(float(np.cos(np.radians(latitude))), 1e-6)
    west, _, east, _ = tile.zone.strip
    assert west <= wrapped < east or (wrapped == -180 and west == -180)
    assert (latitude >= 0) == tile.zone.north
    # Stretched so that the margin is the same in both directions; only the lattice lines have a margin.
    stretched = shapely.transform(owned_ground(tile), lambda xy: xy * [margin / aside, 1.0])
    spot = shapely.transform(here, lambda xy: xy * [margin / aside, 1.0])
    assert stretched.distance(spot) <= margin
    for other in {*neighbours(tile), *across(tile, longitude, latitude)} - {tile}:
        ground = shapely.transform(owned_ground(other), lambda xy: xy * [margin / aside, 1.0])
        assert not shapely.buffer(ground, -margin).contains(spot)


def test_owner_of_edges() -> None:
    found = owner(Grid(resolution_m=10), [-180, 180, 6, np.nextafter(6, 0), 540, 3, 3], [0, 0, 0, 0, 0, -1e-300, 90])
    assert found.zone.tolist() == [1, 1, 32, 31, 1, 31, 0]
    assert found.north.tolist() == [True, True, True, True, True, False, True]
    parallels = [84, np.nextafter(84, 0), -80, np.nextafter(-80, -90), -90]
    assert owner(Grid(resolution_m=10), 3, parallels).zone.tolist() == [0, 31, 31, 0, 0]
    assert zone_number(np.nextafter(np.arange(-180.0, 180.0, 6.0), -1e9)).tolist() == [60, *range(1, 60)]
    for latitude in (90.0, -90.0):
        assert np.isfinite(owner(Grid(resolution_m=10), np.arange(-180, 180), latitude).row).all()


@pytest.mark.parametrize("point", [(0, 90.1), (np.nan, 0), (0, np.nan), (np.inf, 0)])
def test_no_owner_off_the_earth(point: tuple[float, float]) -> None:
    with pytest.raises(GridError):
        owner(Grid(resolution_m=10), *point)


def test_owned_ground_covers_once() -> None:
    grid = Grid(resolution_m=100)
    boxes = [(5.5, 60, 6.5, 61), (-180, 89.2, 180, 90), (179, -1, -179, 1), (5, -90, 13, -89.5)]
    for bbox in [*boxes, (176, 83.5, -178, 84.6), (-100, -80.3, -88, -79.8)]:
        area = AreaOfInterest.from_bbox(*bbox)
        grounds = [owned_ground(tile) for cell in cells_touching(area, grid) for tile in cell.tiles()]
        whole = shapely.union_all(grounds)
        pieces = sum(shapely.area(shapely.intersection(grounds, area.geometry)))
        assert pieces == pytest.approx(area.geometry.area, rel=1e-6)
        assert shapely.difference(area.geometry, whole).area < 1e-6 * area.geometry.area


@pytest.mark.parametrize("grid", GRIDS)
def test_exact_borders(grid: Grid) -> None:
    tile = owner_tile(grid, 6.0, 0.0)
    west, south, _, _ = owned_ground(tile).bounds
    assert (west, south) == (6.0, 0.0)
    assert owned_ground(owner_tile(grid, 12.0 - 1e-9, 60.0)).bounds[2] == 12.0
    assert owned_ground(owner_tile(grid, 180.0 - 1e-9, -60.0)).bounds[2] == 180.0
    for latitude in (90.0, -90.0):
        tiles = {owner_tile(grid, longitude, latitude) for longitude in range(-180, 180)}
        around = shapely.union_all([owned_ground(tile) for tile in tiles])
        assert abs(around.bounds[1 if latitude < 0 else 3]) == 90.0
        assert (around.bounds[0], around.bounds[2]) == (-180.0, 180.0)
        assert around.is_valid
    for latitude in (84.0, -80.0):
        cap, strip = (owned_ground(owner_tile(grid, 14.0, latitude * (1 + nudge))) for nudge in (1e-13, -1e-13))
        edges = (cap.bounds[1], strip.bounds[3]) if latitude > 0 else (cap.bounds[3], strip.bounds[1])
        assert edges == (latitude, latitude)


def test_owned_ground_is_the_lattice() -> None:
    grid = Grid(resolution_m=10)
    tiles = (Tile(grid, Zone(32, True), 1700, 165), Tile(grid, Zone(32, True), 2400, 130))
    around_poles = [Tile(grid, Zone(0, north), 520, column) for north in (True, False) for column in (520, 600)]
    for tile in (*tiles, *around_poles):
        planar = from_lonlat(owned_ground(tile), tile.zone.epsg, tolerance_m=0.001)
        assert shapely.hausdorff_distance(planar, shapely.box(*tile.core_geobox.boundingbox)) <= 0.1


@given(grids, st.integers(1, 60), st.booleans(), points)
def test_owns_ground(grid: Grid, zone: int, north: bool, point: tuple[float, float]) -> None:
    start = owner_tile(grid, *point).cell
    cells = [
        Cell(grid, Zone(zone, north), start.row + down, start.column + right) for down in (-1, 0) for right in (0, 1)
    ]
    for cell, bits in zip(cells, owns_ground(cells), strict=True):
        for index, tile in enumerate(cell.tiles()):
            ground = owned_ground(tile)
            if not ground.is_empty:
                assert bits >> index & 1
            elif bits >> index & 1:  # a sliver that is too small to draw
                assert not owned_ground(cell).is_empty or grid.core_m < 100


def brute(area: AreaOfInterest, cells: list[Cell]) -> list[int]:
    return [
        sum(
            int(shapely.intersection(owned_ground(tile), area.geometry).area > 1e-13) << index
            for index, tile in enumerate(cell.tiles())
        )
        for cell in cells
    ]


river = shapely.LineString([(5.0, 45.0), (5.7, 45.1), (6.2, 45.6), (6.9, 45.5)]).buffer(1e-4)
AREAS = {
    "across zones": AreaOfInterest.from_bbox(5.71, 45.03, 6.33, 45.41),
    "on a border": AreaOfInterest.from_bbox(5.5, 45.03, 6.0, 45.41),
    "river": AreaOfInterest.from_geometry(river),
    "equator": AreaOfInterest.from_bbox(8.9, -0.31, 9.2, 0.27),
    "antimeridian": AreaOfInterest.from_bbox(179.77, 60.01, -179.71, 60.2),
    "pole": AreaOfInterest.from_bbox(-180, 89.93, 180, 90),
    "south pole": AreaOfInterest.from_bbox(-180, -90, 180, -89.93),
    "edge of the north cap": AreaOfInterest.from_bbox(178.1, 83.95, -178.9, 84.06),
    "edge of the south cap": AreaOfInterest.from_bbox(-3.2, -80.08, -2.7, -79.94),
    "hole": AreaOfInterest.from_geometry(shapely.box(7, 45, 8, 46) - shapely.box(7.1, 45.1, 7.9, 45.9)),
}


@pytest.mark.parametrize("name", AREAS)
def test_touching_is_what_ground_says(name: str) -> None:
    area, grid = AREAS[name], Grid(resolution_m=10)
    cells, bits = touched(area, grid)
    assert bits.tolist() == brute(area, cells)
    assert bits.all()
    assert cells == sorted(cells, key=lambda cell: (cell.zone, cell.row, cell.column))
    assert len(set(cells)) == len(cells)
    assert (bits & ~owns_ground(cells) == 0).all()
    ring = {
        Cell(grid, cell.zone, cell.row + down, cell.column + right)
        for cell in cells
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
    } - set(cells)
    for cell in sorted(ring, key=lambda cell: cell.id)[:60]:
        assert shapely.intersection(owned_ground(cell), area.geometry).area < 1e-13


def test_border_zones_are_left_out() -> None:
    cells = cells_touching(AREAS["on a border"], Grid(resolution_m=10))
    assert {cell.zone.id for cell in cells} == {"31N"}


def test_hundred_islands() -> None:
    generator = np.random.default_rng(7)
    spots = np.column_stack([generator.uniform(170, 190, 100), generator.uniform(-20, 20, 100)])
    islands = AreaOfInterest.from_geometry(shapely.union_all(shapely.buffer(shapely.points(spots), 0.01)))
    cells, bits = touched(islands, Grid(resolution_m=10))
    assert 100 <= len(cells) <= 300
    assert bits.tolist() == brute(islands, cells)


@given(st.floats(-179, 170), st.floats(-80, 75), st.floats(0.05, 0.6), st.floats(0.05, 0.6))
def test_a_larger_area_changes_nothing(west: float, south: float, width: float, height: float) -> None:
    grid = Grid(resolution_m=20)
    small = AreaOfInterest.from_bbox(west, south, west + width, south + height)
    large = AreaOfInterest.from_bbox(west - 0.3, south - 0.2, west + width + 0.1, south + height + 0.4)
    cells, bits = touched(small, grid)
    assert set(cells) <= set(cells_touching(large, grid))
    more = tiles_touching(large, cells)
    assert (bits & ~more == 0).all()
    assert (tiles_touching(small, cells_touching(large, grid)) != 0).sum() == len(cells)
    for tile in cells[0].tiles():
        assert Tile.parse(tile.id) == tile
    generator = np.random.default_rng(1)
    lon, lat = generator.uniform(west, west + width, 50), generator.uniform(south, south + height, 50)
    known = dict(zip(cells, bits.tolist(), strict=True))
    for x, y in zip(lon, lat, strict=True):
        tile = owner_tile(grid, x, y)
        assert known[tile.cell] >> tile.cell.tiles().index(tile) & 1


@given(grids, points)
def test_grounds_together_are_those_of_each(grid: Grid, point: tuple[float, float]) -> None:
    tiles = owner_tile(grid, *point).cell.tiles()
    together = owned_grounds([tiles[0].cell, *tiles])
    assert [ground.wkb for ground in together] == [owned_ground(one).wkb for one in (tiles[0].cell, *tiles)]
    assert owned_grounds([]) == []


def test_too_many_tiles() -> None:
    with pytest.raises(GridError, match="coarser"):
        cells_touching(AreaOfInterest.from_bbox(-180, -90, 180, 90), Grid(resolution_m=0.5))


def test_the_whole_earth_once() -> None:
    area = AreaOfInterest.from_bbox(-180, -90, 180, 90)
    cells, bits = touched(area, Grid(resolution_m=1000))
    assert (bits == owns_ground(cells)).all()
    assert {cell.zone for cell in cells} == {Zone(number, north) for number in range(61) for north in (True, False)}
