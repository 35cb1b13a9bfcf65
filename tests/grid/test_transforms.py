"""Pixels and ground: inverses, areas, and which pixels lie in what."""

from __future__ import annotations

import numpy as np
import pyproj
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
    inside,
    lonlat_to_pixel,
    lonlat_to_tile,
    owned_ground,
    owned_pixels,
    owner,
    pixel_area_m2,
    pixel_to_lonlat,
    tile_to_lonlat,
    to_lonlat,
)

points = st.tuples(st.floats(-180, 180), st.floats(-90, 90))
shares = st.floats(0, 1)


def tile_at(grid: Grid, longitude: float, latitude: float) -> Tile:
    found = owner(grid, longitude, latitude)
    return Tile(grid, Zone(int(found.zone), bool(found.north)), int(found.row), int(found.column))


@given(points, shares, shares, st.sampled_from([0.5, 10, 30]))
def test_pixels_to_ground_and_back(point: tuple[float, float], x: float, y: float, resolution: float) -> None:
    tile = tile_at(Grid(resolution_m=resolution), *point)
    longitude, latitude = tile_to_lonlat(tile, x, y)
    assert -180 <= longitude < 180
    again = lonlat_to_tile(tile, longitude, latitude)
    assert np.abs(np.array(again) - (x, y)).max() * 448 < 1e-6
    row, column = lonlat_to_pixel(tile.geobox, *pixel_to_lonlat(tile.geobox, y * 448, x * 448))
    assert abs(row - y * 448) < 1e-6
    assert abs(column - x * 448) < 1e-6


def test_against_pyproj() -> None:
    for epsg in (32601, 32631, 32760):
        cell = Cell(Grid(resolution_m=10), Zone(epsg % 100, epsg < 32700), 300, 30)
        x, y = cell.core_geobox.boundingbox.left, cell.core_geobox.boundingbox.top
        expected = pyproj.Transformer.from_crs(epsg, 4326, always_xy=True).transform(x, y)
        assert pixel_to_lonlat(cell.core_geobox, 0, 0) == pytest.approx(expected, abs=1e-12)


def test_other_crs() -> None:
    from affine import Affine
    from odc.geo.geobox import GeoBox

    box = GeoBox((10, 10), Affine(10, 0, 500_000, 0, -10, 5_600_000), "EPSG:3857")
    row, column = lonlat_to_pixel(box, *pixel_to_lonlat(box, 3.5, 4.5))
    assert (row, column) == pytest.approx((3.5, 4.5), abs=1e-6)
    with pytest.raises(GridError, match="zone"):
        pixel_area_m2(box)
    with pytest.raises(GridError, match="not a CRS"):
        to_lonlat(shapely.Point(0, 0), "EPSG:999999")


@pytest.mark.parametrize("kind", ["polygon", "hole", "multi", "line", "multiline", "point", "multipoint", "collection"])
def test_geometries_there_and_back(kind: str) -> None:
    square = shapely.box(300_000, 5_000_000, 320_000, 5_020_000)
    holed = square - shapely.box(305_000, 5_005_000, 306_000, 5_006_000)
    shapes = {
        "polygon": square,
        "hole": holed,
        "multi": shapely.MultiPolygon([holed, shapely.box(400_000, 5_000_000, 400_010, 5_000_010)]),
        "line": shapely.LineString([(300_000, 5_000_000), (700_000, 5_300_000)]),
        "multiline": shapely.MultiLineString([[(3e5, 5e6), (4e5, 5e6)], [(3e5, 6e6), (3e5, 7e6)]]),
        "point": shapely.Point(300_000, 5_000_000),
        "multipoint": shapely.MultiPoint([(300_000, 5_000_000), (310_000, 5_000_000)]),
        "collection": shapely.GeometryCollection([shapely.Point(300_000, 5_000_000), square]),
    }
    shape = shapes[kind]
    image = to_lonlat(shape, "EPSG:32631", tolerance_m=0.01)
    assert image.geom_type == shape.geom_type
    back = from_lonlat(image, 32631, tolerance_m=0.01)
    assert shapely.hausdorff_distance(back, shapely.segmentize(shape, 100)) < 60
    for a, b in zip(shapely.get_parts(back), shapely.get_parts(shape), strict=True):
        assert a.distance(shapely.Point(shapely.get_coordinates(b)[0])) < 1e-6
        assert shapely.difference(a.boundary, shapely.buffer(b, 0.03)).is_empty


def test_to_lonlat_splits_at_the_antimeridian() -> None:
    square = shapely.box(150_000, 1_000_000, 180_000, 1_010_000)
    image = to_lonlat(square, "EPSG:32601")
    assert image.geom_type == "MultiPolygon"
    assert image.bounds[0] == -180.0
    assert image.bounds[2] == 180.0
    assert AreaOfInterest.from_geometry(image) == AreaOfInterest.from_geometry(to_lonlat(square, "EPSG:32601"))


@pytest.mark.parametrize(
    "place", [(3, 0.01), (0.001, 0.01), (5.99, 45), (3.2, -60), (1, 89.5), (4, -89.99), (5.9, 0.1)]
)
@pytest.mark.parametrize("resolution", [10, 60])
def test_pixel_area(place: tuple[float, float], resolution: float) -> None:
    cell = tile_at(Grid(resolution_m=resolution), *place).cell
    areas = pixel_area_m2(cell.core_geobox)
    assert areas.shape == (1536, 1536)
    geod = pyproj.Geod(ellps="WGS84")
    owned = owned_pixels(cell)
    for row, column in [
        (0, 0),
        (0, 1535),
        (767, 768),
        (1535, 0),
        (1535, 1535),
        *np.argwhere(owned)[:: owned.sum() // 4],
    ]:
        # Blocks of 8 × 8 pixels: geodesic areas of single pixels lose digits.
        top, left = min(row, 1528), min(column, 1528)
        if owned[top : top + 8, left : left + 8].all():
            rows, columns = np.array([top, top, top + 8, top + 8]), np.array([left, left + 8, left + 8, left])
            lon, lat = pixel_to_lonlat(cell.core_geobox, rows, columns)
            expected = abs(geod.polygon_area_perimeter(lon, lat)[0])
            assert areas[top : top + 8, left : left + 8].sum() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("resolution", [1000, 10_000])
def test_pixel_area_of_coarse_grids(resolution: float) -> None:
    cell = tile_at(Grid(resolution_m=resolution), 4, 45).cell
    areas = pixel_area_m2(cell.core_geobox)[owned_pixels(cell)]
    assert np.isfinite(areas).all()
    assert (areas / resolution**2).min() > 0.997
    assert (areas / resolution**2).max() < 1.0009


BOXES = [(5.6, 45.0, 6.2, 45.3), (-0.2, -0.2, 0.2, 0.2), (179.8, 60, -179.7, 60.2), (20, 82, 25, 82.3)]


@pytest.mark.parametrize("bbox", BOXES)
def test_owned_pixels_sum_to_the_area(bbox: tuple[float, float, float, float]) -> None:
    area = AreaOfInterest.from_bbox(*bbox)
    total = 0.0
    for cell in cells_touching(area, Grid(resolution_m=60)):
        seen = owned_pixels(cell) & inside(area.geometry, cell.core_geobox)
        total += float(pixel_area_m2(cell.core_geobox)[seen].sum())
    assert total / 1e6 == pytest.approx(area.area_km2, rel=1e-3)  # whole pixels along straight borders


PLACES = [(6.0, 45), (6.0, 0), (3, 0), (0, -30), (-180, 60), (179.999, -60), (3, 90), (14, -89.999), (6, 89.9), (3, 45)]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("grid", [Grid(resolution_m=10, picture_px=128), Grid(resolution_m=2000, picture_px=128)])
def test_owned_pixels_are_the_owners(place: tuple[float, float], grid: Grid) -> None:
    cell = tile_at(grid, *place).cell
    rows, columns = np.mgrid[0 : grid.cell_core_px, 0 : grid.cell_core_px] + 0.5
    longitude, latitude = pixel_to_lonlat(cell.core_geobox, rows, columns)
    found = owner(grid, longitude, latitude.clip(-90, 90))
    same = (found.zone == cell.zone.number) & (found.north == cell.zone.north)
    same &= (found.row // 4 == cell.row) & (found.column // 4 == cell.column)
    assert (owned_pixels(cell) == same).mean() > 0.99999 or np.argwhere(owned_pixels(cell) != same).shape[0] <= 1
    assert owned_pixels(cell).any()


def test_interior_cells_own_all() -> None:
    assert owned_pixels(tile_at(Grid(resolution_m=10), 3.5, 45).cell).all()


@pytest.mark.parametrize("bbox", [*BOXES, (-180, 88, 180, 90), (5, 44, 7, 47), (100, 0, 101, 1)])
def test_inside_is_contains(bbox: tuple[float, float, float, float]) -> None:
    area = AreaOfInterest.from_bbox(*bbox).geometry
    area = area - shapely.Point(area.centroid).buffer(0.05)
    west, south, east, north = bbox
    for place in [(west + 1e-6, south + 1e-6), (east - 1e-6, north - 1e-6), ((west + east) / 2, (south + north) / 2)]:
        cell = tile_at(Grid(resolution_m=30, picture_px=128), *place).cell
        rows, columns = np.mgrid[0:448, 0:448] + 0.5
        longitude, latitude = pixel_to_lonlat(cell.core_geobox, rows, columns)
        expected = shapely.contains_xy(area, longitude, latitude)
        assert (inside(area, cell.core_geobox) != expected).sum() <= 3


def test_inside_shortcuts() -> None:
    box = Cell.parse("utm0_10m_384_31N_c324_32").geobox
    assert inside(AreaOfInterest.from_bbox(0, 40, 6, 50).geometry, box).all()
    assert not inside(AreaOfInterest.from_bbox(100, 40, 101, 50).geometry, box).any()
    assert inside(AreaOfInterest.from_bbox(0, 40, 6, 50).geometry, box).shape == (1600, 1600)


def test_neighbours_share_no_pixel() -> None:
    cell = Cell.parse("utm0_10m_384_31N_c324_32")
    left, right = AreaOfInterest.from_bbox(2, 44, 3.05, 46), AreaOfInterest.from_bbox(3.05, 44, 4, 46)
    masks = [inside(area.geometry, cell.core_geobox) for area in (left, right)]
    assert (masks[0] ^ masks[1]).all()


@pytest.mark.parametrize("place", [(3, 45), (8.5, -20), (26.9, 70), (-179.5, 3)])
def test_pixels_of_a_tile_sum_to_its_ground(place: tuple[float, float]) -> None:
    tile = tile_at(Grid(resolution_m=10), *place)
    ground = AreaOfInterest.from_geometry(owned_ground(tile))
    assert owned_pixels(tile.cell)[tile.core_slices].all()
    assert pixel_area_m2(tile.core_geobox).sum() / 1e6 == pytest.approx(ground.area_km2, rel=2e-6)


def test_owned_ground_and_inside_agree() -> None:
    tile = tile_at(Grid(resolution_m=10), 3.1, 45.1)
    mask = inside(owned_ground(tile), tile.cell.core_geobox)
    expected = np.zeros_like(mask)
    expected[tile.core_slices] = True
    assert (mask == expected).all()
