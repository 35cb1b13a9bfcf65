"""Everywhere on Earth: maps without gaps, doubles or shifts, against the truth of scenes that are drawn there."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.crs import CRS
from PIL import Image
from shapely.geometry.base import BaseGeometry

from earthmap.cli import BAD_REQUEST, main
from earthmap.cube import CellGroup, RasterioReader, open_cell
from earthmap.cube.warp import SourceGrid, aligned_block, toward
from earthmap.grid import (
    AreaOfInterest,
    Cell,
    Grid,
    Zone,
    inside,
    owned_ground,
    owned_pixels,
    owner,
    pixel_area_m2,
    pixel_to_lonlat,
    touched,
)
from earthmap.merge import areas_m2, cell_codes, merge_cell, summarize
from earthmap.pipeline import Job, Plan, make_plan, parse_job, run_job
from earthmap.pipeline.context import Context
from earthmap.pipeline.reading import read_work
from earthmap.pipeline.run import predictor_spec
from earthmap.pipeline.stages import gather, predict_stage, read_part
from earthmap.sensors import SENSORS, Reason
from earthmap.storage import Storage
from earthmap.synthetic import World, small_world, write_world
from tests.merge.maps import Merged, joined

# ── drawn places ─────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a small world is drawn, and how its scenes are delivered."""

    at: tuple[float, float]
    """Longitude and latitude of its middle."""
    zones: frozenset[str]
    """Zones of the lattice that own some of its ground."""
    epsg: int | None = None
    """CRS of the scenes; None for the zone of each one's middle, as UTM granules are delivered."""
    split: bool = True
    """False where footprints are written across the antimeridian, as many catalogues write them."""
    seed: int = 1


PLACES = {
    "Fiji": Place(at=(180.0, -17.5), zones=frozenset({"60S", "01S"})),
    "Fiji, footprints not split": Place(at=(180.0, -17.5), zones=frozenset({"60S", "01S"}), split=False),
    "Chukotka in degrees": Place(at=(180.0, 67.3), zones=frozenset({"60N", "01N"}), epsg=4326),
    "Svalbard, 33X": Place(at=(18.0, 78.6), zones=frozenset({"33N", "34N"}), epsg=32633),
    "Svalbard, 31X": Place(at=(6.0, 79.2), zones=frozenset({"31N", "32N"}), epsg=32631),
    "Bergen, 32V": Place(at=(6.0, 60.4), zones=frozenset({"31N", "32N"}), epsg=32632),
    "two zones and the equator": Place(at=(12.0, 0.0), zones=frozenset({"32N", "33N", "32S", "33S"}), seed=2),
    "north pole": Place(at=(0.0, 90.0), zones=frozenset({"00N"}), epsg=3413),
    "south pole": Place(at=(0.0, -90.0), zones=frozenset({"00S"}), epsg=3031),
    "north pole in UPS": Place(at=(100.0, 89.95), zones=frozenset({"00N"}), seed=2),
    "84° N": Place(at=(-30.0, 84.0), zones=frozenset({"25N", "26N", "00N"}), epsg=32625),
    "80° S, antimeridian": Place(at=(180.0, -80.0), zones=frozenset({"60S", "01S", "00S"}), epsg=3031),
}
RESOLUTION_M = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """What the stages made of a place, without a cluster."""

    world: World
    job: Job
    plan: Plan
    merged: Merged = field(repr=False)
    codes: Mapping[Cell, np.ndarray] = field(repr=False)
    """(cell_core_px)² codes of the one question, before the area and the strip are cut out."""
    groups: Mapping[Cell, CellGroup] = field(repr=False)
    wet: Mapping[Cell, np.ndarray] = field(repr=False)
    """(cell_core_px)² truth: where water is drawn at the pixels' centres."""
    counted: Mapping[Cell, np.ndarray] = field(repr=False)
    """(cell_core_px)² pixels of the cell's own ground in the area."""


def _job(world: World, catalog: Path, out: Path, **changes: Any) -> Job:
    west, south, east, north = world.bounds
    middle = shapely.box(west, south, east, north).buffer(-20 * RESOLUTION_M, join_style="mitre")
    values = {
        "area": AreaOfInterest.from_geometry(middle, f"EPSG:{world.epsg}"),
        "catalog": str(catalog),
        "datetime": world.before.isoformat()[:10],
        "queries": ["Where is water?"],
        "predictor": "oracle",
        "tile_size": 128,
        "scenes": "all",
        "out": str(out),
    }
    return parse_job({**values, **changes})


def _run(world: World, job: Job) -> Mapped:
    """The stages of a run, cell by cell in this process."""
    plan = make_plan(job)
    context = Context(
        store=Storage(job.store),
        execution=1,
        job=job.content_key(),
        area=job.area,
        queries={query.content_key(): query for query in job.queries},
        observations=plan.observations,
        predictor=predictor_spec(job, plan),
        reader=RasterioReader(),
    )
    merges, codes, groups = [], {}, {}
    for work in plan.work():
        paths = {name: committed.path for name, committed in read_work(work, context).items()}
        parts = predict_stage(work, paths, context)
        answers = gather(work, parts, context)
        merges.append(
            merge_cell(
                work.cell, answers, area=job.area, queries=context.queries, tiles=work.tiles, by_observation=False
            )
        )
        for committed in parts.values():
            table = read_part(context.store, committed.path)
            masks = dict(zip(table["tile_id"].to_pylist(), table["mask"].to_pylist(), strict=True))
            codes[work.cell] = cell_codes(work.cell, masks)
        for path in paths.values():
            groups[work.cell] = open_cell(context.store, path)
    merged = joined(merges, area=job.area, queries=context.queries)
    wet = {cell: _truth(world, cell) == 1 for cell in codes}
    counted = {cell: owned_pixels(cell) & inside(job.area.geometry, cell.core_geobox) for cell in codes}
    return Mapped(world=world, job=job, plan=plan, merged=merged, codes=codes, groups=groups, wet=wet, counted=counted)


def _unsplit(catalog: Path) -> None:
    """Write every footprint as one ring whose longitudes jump from 180 to -180, and no bbox that would help."""
    for path in catalog.parent.rglob("*.json"):
        item = json.loads(path.read_text())
        if item.get("type") != "Feature" or item["geometry"]["type"] != "MultiPolygon":
            continue
        ground = shapely.from_geojson(json.dumps(item["geometry"]))
        moved = shapely.transform(ground, lambda xy: np.column_stack([np.mod(xy[:, 0], 360.0), xy[:, 1]]))
        (ring,) = shapely.get_rings(shapely.union_all(shapely.get_parts(moved), grid_size=1e-7)).tolist()
        corners = [[lon - 360.0 if lon > 180.0 else lon, lat] for lon, lat in ring.coords]
        item["geometry"] = {"type": "Polygon", "coordinates": [corners]}
        item["bbox"] = [-180.0, item["bbox"][1], 180.0, item["bbox"][3]]
        path.write_text(json.dumps(item))


IN_A_HURRY = ("Fiji, footprints not split", "Bergen, 32V", "north pole", "84° N")
"""Places of the default tests; all are those of the slow ones."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=() if name in IN_A_HURRY else pytest.mark.slow) for name in PLACES],
)
def place(request: pytest.FixtureRequest) -> Place:
    return PLACES[request.param]


@pytest.fixture(scope="module")
def mapped(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Mapped:
    folder = tmp_path_factory.mktemp("place")
    world = small_world(place.seed, place=place.at, size_m=12_000, resolution_m=RESOLUTION_M, cloud_share=0.0)
    catalog = write_world(world, folder / "drawn", sensors=("rgb",), overlap=0.3, epsg=place.epsg)
    if not place.split:
        _unsplit(catalog)
    return _run(world, _job(world, catalog, folder / "run"))


def _truth(world: World, cell: Cell) -> np.ndarray:
    """Class codes at the centres of the cell's core, by way of longitude and latitude."""
    side = cell.grid.cell_core_px
    rows, columns = np.mgrid[:side, :side] + 0.5
    longitude, latitude = pixel_to_lonlat(cell.core_geobox, rows, columns)
    there = pyproj.Transformer.from_crs("OGC:CRS84", f"EPSG:{world.epsg}", always_xy=True)
    x, y = there.transform(longitude, latitude)
    return world.classes(x, y, world.before)


def test_the_ground_is_owned_once(place: Place, mapped: Mapped) -> None:
    tiles = mapped.merged.coverage.geometry.to_numpy()
    assert {cell.zone.id for cell in mapped.codes} == place.zones
    total = mapped.job.area.area_km2 * 1e6
    assert areas_m2(tiles).sum() == pytest.approx(total, rel=1e-9)
    whole = shapely.union_all(tiles)
    assert shapely.difference(mapped.job.area.geometry, whole).area < 1e-9 * whole.area
    assert mapped.merged.coverage.tile_id.is_unique
    assert (mapped.merged.coverage.status == "answered").all()
    assert (mapped.merged.coverage.seen_share == 1.0).all()


def test_every_pixel_is_the_truth(mapped: Mapped) -> None:
    for cell, codes in mapped.codes.items():
        counted = mapped.counted[cell]
        np.testing.assert_array_equal(codes[counted], mapped.wet[cell][counted])
        assert counted.any()


def test_the_picture_is_not_shifted(mapped: Mapped) -> None:
    """What the sensor shows fits the truth best where it is: a shift by one pixel to any side fits worse."""
    fits = np.zeros((3, 3))
    for cell, group in mapped.groups.items():
        halo, side = cell.grid.halo_px, cell.grid.cell_core_px
        data, mask = group.read()
        bands = dict(zip(group.manifest.bands, data, strict=True))
        wet = bands["nir"] < bands["green"]
        known = mapped.counted[cell] & (mask != int(Reason.NODATA))[halo:-halo, halo:-halo]
        assert known.sum() == mapped.counted[cell].sum()
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                moved = wet[halo + down : halo + down + side, halo + right : halo + right + side]
                fits[down + 1, right + 1] += (mapped.wet[cell] == moved)[known].sum()
    assert fits.argmax() == 4, fits
    # Half a pixel aside the fit would be that of the mean of two neighbours.
    assert fits[1, 1] - fits.mean() > 0.3 * (fits.max() - fits.min())


def test_the_map_has_no_seam(mapped: Mapped) -> None:
    """Polygons cover the true pixels of each zone exactly, and what crosses a border is one feature."""
    features = mapped.merged.features
    shapes = features.geometry.to_numpy()
    assert features.geometry.is_valid.all()
    assert (shapely.bounds(shapes)[:, 0] >= -180).all()
    assert (shapely.bounds(shapes)[:, 2] <= 180).all()
    whole = shapely.union_all(shapes)
    assert areas_m2(np.array([whole], object))[0] == pytest.approx(features.area_m2.sum(), rel=1e-7)
    for cell, codes in mapped.codes.items():
        drawn = inside(whole, cell.core_geobox)
        assert ((codes == 1) != drawn)[mapped.counted[cell]].sum() == 0
    assert not _touching(shapes)


def _touching(shapes: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of different features that share more than a point, also over the antimeridian."""
    turned = [
        shapely.transform(shape, lambda xy: np.column_stack([np.mod(xy[:, 0], 360.0), xy[:, 1]])) for shape in shapes
    ]
    found = []
    for side in (shapes, np.array(turned, object)):
        one, other = shapely.STRtree(side).query(side, predicate="touches")
        shared = shapely.intersection(side[one], side[other])
        found += [(int(a), int(b)) for a, b, line in zip(one, other, shared, strict=True) if line.length > 1e-6]
    return found


def test_the_numbers_are_those_of_the_ground(mapped: Mapped) -> None:
    queries = {query.content_key(): query for query in mapped.job.queries}
    summary = summarize(mapped.merged.sums, area=mapped.job.area, queries=queries)
    (layer,) = summary["queries"][0]["observations"]
    geod = pyproj.Geod(ellps="WGS84")
    parts = shapely.get_parts(shapely.segmentize(mapped.job.area.geometry, 0.01))
    geodesic = sum(abs(geod.geometry_area_perimeter(part)[0]) for part in parts) / 1e6
    assert mapped.job.area.area_km2 == pytest.approx(geodesic, rel=1e-4)
    # Pixels count by their centres: along a zone's border (here 160 pixels of 25,000) that is half of one either way.
    borders = len(mapped.counted) > 1
    assert layer["area_km2"] == pytest.approx(geodesic, rel=3e-3 if borders else 1e-3)
    assert layer["km2"]["water"] == pytest.approx(_drawn_water_m2(mapped) / 1e6, rel=0.02)
    assert mapped.merged.features.area_m2.sum() / 1e6 == pytest.approx(layer["km2"]["water"], rel=0.02)


def _drawn_water_m2(mapped: Mapped) -> float:
    """Water in the area by points of the world's own plane, four to a pixel, each with its own ground."""
    wet, _, _, ground_m2 = _drawn_points(mapped, per_pixel=2)
    return float(ground_m2[wet].sum())


def _drawn_points(mapped: Mapped, *, per_pixel: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Points of the world's own plane over the area: whether they are wet, longitude, latitude, ground in m²."""
    west, south, east, north = mapped.world.bounds
    step, margin = RESOLUTION_M / per_pixel, 20 * RESOLUTION_M
    x = np.arange(west + margin, east - margin, step) + step / 2
    y = np.arange(south + margin, north - margin, step) + step / 2
    wet = mapped.world.classes(x[None, :], y[:, None], mapped.world.before) == 1
    plane = pyproj.Proj(f"EPSG:{mapped.world.epsg}")
    grid_x, grid_y = np.meshgrid(x, y)
    longitude, latitude = plane(grid_x, grid_y, inverse=True)
    scale = np.asarray(plane.get_factors(longitude, latitude).areal_scale)
    return wet, longitude, latitude, step**2 / scale


@pytest.mark.slow
def test_polygons_are_the_outlines_that_were_drawn(mapped: Mapped) -> None:
    """Between the map's polygons and the drawn outlines lies what pixels of 60 m must leave, and no more.

    Pixels that are wet or dry by their centres put an outline a quarter of a pixel aside in the mean. Along the lattice
    outlines are 4/π longer than they are, so that is 0.2 pixels of the length that is counted here.
    """
    wet, longitude, latitude, ground_m2 = _drawn_points(mapped, per_pixel=4)
    whole = shapely.union_all(mapped.merged.features.geometry.to_numpy())
    shapely.prepare(whole)
    found = shapely.contains_xy(whole, longitude, latitude)
    both, either = (ground_m2[part].sum() for part in (wet & found, wet | found))
    outline_m = _changes(wet) * RESOLUTION_M / 4
    assert either - both < 0.2 * RESOLUTION_M * outline_m
    assert both / either > 0.8  # a river of few pixels across


def _changes(wet: np.ndarray) -> int:
    """Neighbouring points of which one is wet: the length of the outline along the lattice, in steps."""
    return int((wet[1:] != wet[:-1]).sum() + (wet[:, 1:] != wet[:, :-1]).sum())


# ── the lattice alone ────────────────────────────────────────────────────────────────────────────────────────

anywhere = st.tuples(st.floats(-180, 180), st.floats(-1, 1).map(lambda sine: float(np.degrees(np.arcsin(sine)))))
borders = st.tuples(
    st.one_of(st.integers(-30, 30).map(lambda zone: 6.0 * zone), st.floats(-180, 180)),
    st.one_of(st.sampled_from([0.0, 84.0, -80.0, 90.0, -90.0]), st.floats(-90, 90)),
)
norway = st.tuples(st.floats(0, 42), st.floats(56, 84))
places = st.one_of(anywhere, borders, norway)


def _around(longitude: float, latitude: float, shape: BaseGeometry) -> AreaOfInterest:
    """A shape in metres around a point, by an azimuthal map that is good everywhere."""
    plane = pyproj.CRS.from_proj4(f"+proj=laea +lat_0={latitude!r} +lon_0={longitude!r} +datum=WGS84 +units=m")
    return AreaOfInterest.from_geometry(shape, plane)


def _check_owned_once(area: AreaOfInterest, grid: Grid) -> tuple[list[Cell], np.ndarray]:
    cells, bits = touched(area, grid)
    tiles = [
        tile for cell, mine in zip(cells, bits.tolist(), strict=True) for bit, tile in enumerate(cell.tiles())
        if mine >> bit & 1
    ]  # fmt: skip
    pieces = shapely.intersection([owned_ground(tile) for tile in tiles], area.geometry)
    total = areas_m2(np.asarray(pieces, object)).sum()
    # Areas are sums from the equator to each edge: around a pole float64 leaves a square metre of 1e14.
    assert total == pytest.approx(area.area_km2 * 1e6, rel=1e-9, abs=1.0)
    missing = shapely.difference(area.geometry, shapely.union_all(pieces))
    assert areas_m2(np.array([missing], object))[0] < 1e-9 * total + 1e-2
    return cells, bits


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(places, st.sampled_from([128, 224]), st.sampled_from([0, 15]), st.integers(0, 2**32))
def test_any_small_area_is_owned_once(point: tuple[float, float], picture_px: int, anchor_m: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    grid = Grid(resolution_m=30, picture_px=picture_px, anchor_m=anchor_m)
    corners = random.uniform(-4000, 4000, (8, 2))
    area = _around(*point, shapely.MultiPoint(corners).convex_hull)
    cells, bits = _check_owned_once(area, grid)
    known = dict(zip(cells, bits.tolist(), strict=True))
    inner = shapely.buffer(_around(*point, shapely.MultiPoint(corners * 0.9).convex_hull).geometry, -1e-9)
    for longitude, latitude in shapely.get_coordinates(inner)[:20]:
        found = owner(grid, longitude, latitude)
        zone = Zone(int(found.zone), bool(found.north))
        row, column = int(found.row), int(found.column)
        cell = Cell(grid, zone, row // 4, column // 4)
        assert known[cell] >> ((3 - row % 4) * 4 + column % 4) & 1


@settings(max_examples=20)
@given(places, st.integers(0, 2**32))
def test_pixels_of_any_small_area_are_counted_once(point: tuple[float, float], seed: int) -> None:
    """Numbers count pixels by their centres: as many as the area has, up to half a pixel along a zone's border."""
    grid = Grid(resolution_m=30, picture_px=128)
    radius = float(np.random.default_rng(seed).uniform(2000, 5000))
    area = _around(*point, shapely.Point(0, 0).buffer(radius))
    cells, _ = touched(area, grid)
    counted = sum(
        float((pixel_area_m2(cell.core_geobox) * (owned_pixels(cell) & inside(area.geometry, cell.core_geobox))).sum())
        for cell in cells
    )
    along_borders = 2 * 2 * radius if len({cell.zone for cell in cells}) > 1 else 0.0
    assert counted == pytest.approx(area.area_km2 * 1e6, abs=2e-3 * area.area_km2 * 1e6 + 30 * along_borders)


def _islands() -> AreaOfInterest:
    random = np.random.default_rng(5)
    spots = np.column_stack([random.uniform(176, 184, 100), random.uniform(-20, -12, 100)])
    return AreaOfInterest.from_geometry(shapely.union_all(shapely.buffer(shapely.points(spots), 0.01)))


def _strip() -> AreaOfInterest:
    """Both sides of the antimeridian from pole to pole."""
    return AreaOfInterest.from_bbox(179.5, -90, -179.5, 90)


def _slivers() -> AreaOfInterest:
    lines = [shapely.LineString([(5.9, 45 + 0.01 * n), (6.1, 45.002 + 0.01 * n)]) for n in range(20)]
    return AreaOfInterest.from_geometry(shapely.union_all(shapely.buffer(lines, 2e-5, cap_style="flat")))


def _holes() -> AreaOfInterest:
    holes = shapely.buffer(shapely.points(*np.meshgrid(np.arange(5.6, 6.5, 0.1), np.arange(-0.4, 0.5, 0.1))), 0.03)
    return AreaOfInterest.from_geometry(shapely.difference(shapely.box(5.5, -0.5, 6.5, 0.5), shapely.union_all(holes)))


def _one_tile() -> AreaOfInterest:
    """A tile's own ground, but for the hundredth of a pixel to which its border is drawn."""
    cell = touched(AreaOfInterest.from_bbox(3, 45, 3.01, 45.01), Grid(resolution_m=10))[0][0]
    return AreaOfInterest.from_geometry(shapely.buffer(owned_ground(cell.tiles()[5]), -2e-6))


SHAPES = {
    "a hundred islands": (_islands, Grid(resolution_m=10)),
    "the antimeridian from pole to pole": (_strip, Grid(resolution_m=400, picture_px=128)),
    "slivers": (_slivers, Grid(resolution_m=10)),
    "holes": (_holes, Grid(resolution_m=30)),
    "one tile": (_one_tile, Grid(resolution_m=10)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_odd_areas_are_owned_once(name: str) -> None:
    make, grid = SHAPES[name]
    cells, bits = _check_owned_once(make(), grid)
    tiles = int(np.bitwise_count(bits).sum())
    if name == "a hundred islands":
        assert 100 <= len(cells) <= 250
    if name == "one tile":
        assert tiles == 1
    if name == "the antimeridian from pole to pole":
        assert {cell.zone.id for cell in cells} == {"00S", "60S", "01S", "60N", "01N", "00N"}


def _river(length_m: float = 1_000_000.0, width_m: float = 7_680.0) -> AreaOfInterest:
    """A winding river across zones, its bank drawn every 50 m."""
    along = np.arange(0.0, length_m, 50.0)
    aside = 40_000 * np.sin(along / 60_000) + 3_000 * np.sin(along / 4_000)
    course = shapely.LineString(np.column_stack([along - length_m / 2, aside]))
    return _around(15.0, 47.0, course.buffer(width_m / 2))


def test_of_a_long_river_only_its_cells_are_planned() -> None:
    """A thousand kilometres, two tiles wide, at 10 m: seconds, and no cell that it does not touch."""
    river, grid = _river(), Grid(resolution_m=10)
    start = time.monotonic()
    cells, bits = touched(river, grid)
    grounds = np.array([owned_ground(cell) for cell in cells], object)
    seconds = time.monotonic() - start
    assert len({cell.zone for cell in cells}) >= 3
    shapely.prepare(river.geometry)
    assert shapely.intersects(river.geometry, grounds).all()
    covered = areas_m2(np.asarray(shapely.intersection(grounds, river.geometry), object)).sum()
    assert covered == pytest.approx(river.area_km2 * 1e6, rel=1e-9)
    # A river of 1,100 km by 7.7 km is about 600 tiles of ground; it touches at most some times that.
    tiles = int(np.bitwise_count(bits).sum())
    assert river.area_km2 / 14.75 < tiles < 4 * river.area_km2 / 14.75
    assert seconds < 20


# ── every sensor's own lattice ───────────────────────────────────────────────────────────────────────────────


@given(
    st.sampled_from(
        sorted({(row.anchor_m, resolution) for row in SENSORS.values() for resolution in (10, 20, 30, 60)})
    ),
    st.integers(1, 60),
    st.floats(-79.9, 83.9),
    st.integers(-200, 200),
)
def test_a_scene_on_its_own_lattice_is_copied(lattice: tuple[int, int], zone: int, latitude: float, shift: int) -> None:
    """In both hemispheres, Landsat's southern scenes in northern codes too: whole pixels, no warp."""
    anchor_m, resolution_m = lattice
    longitude = -183.0 + 6.0 * zone
    grid = Grid(resolution_m=resolution_m, picture_px=128, anchor_m=anchor_m)
    found = owner(grid, longitude, latitude)
    cell = Cell(grid, Zone(int(found.zone), bool(found.north)), int(found.row) // 4, int(found.column) // 4)
    assert cell.zone.number == zone
    landsat = anchor_m == 15
    north = cell.zone.north or landsat
    box = cell.geobox
    top = box.affine.f - (0.0 if cell.zone.north or not landsat else 10_000_000.0)
    corner = [anchor_m + round((edge - anchor_m) / resolution_m + shift) * resolution_m for edge in (box.affine.c, top)]
    source = SourceGrid(
        shape=(4000, 4000),
        transform=Affine(resolution_m, 0, corner[0], 0, -resolution_m, corner[1]),
        crs=CRS(f"EPSG:{(32600 if north else 32700) + zone}"),
    )
    block = aligned_block(toward(source, box), box)
    assert block is not None
    assert (block.left, block.top) == (-shift, shift)


# ── whole runs ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(280)
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("name", ["Fiji", "south pole"])
def test_a_whole_run(name: str, tmp_path: Path) -> None:
    """Map, rasters, item, page and picture of a place where longitudes jump or turn."""
    place = PLACES[name]
    world = small_world(place.seed, place=place.at, size_m=12_000, resolution_m=RESOLUTION_M, cloud_share=0.0)
    catalog = write_world(world, tmp_path / "drawn", sensors=("sentinel-2",), overlap=0.3, epsg=place.epsg)
    run = run_job(_job(world, catalog, tmp_path / "run"))
    assert run.summary["answered"] == run.summary["planned"] > 0
    folder = Path(run.address)
    assert {path.stem.rpartition("_")[2] for path in (folder / "classes").iterdir()} == place.zones
    item = json.loads((folder / "item.json").read_text())
    west, _, east, _ = item["bbox"]
    assert (west > east) if name == "Fiji" else (west, east) == (-180.0, 180.0)
    with Image.open(folder / "preview.png") as picture:
        colours = np.asarray(picture.convert("RGB"))[250:700, 100:1100].reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) > 1000, "the ground is behind the results"
    blue = (colours[:, 2].astype(int) - colours[:, 0] > 60).mean()
    assert 0.005 < blue < 0.5


def test_the_command_says_how_it_reads_a_ring(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ring = [[179, -17], [-179, -17], [-179, -16], [179, -16], [179, -17]]
    area = tmp_path / "fiji.geojson"
    area.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    words = ["map", "--area", str(area), "--query", "Where is water?", "--out", str(tmp_path / "run")]
    assert main([*words, "--catalog", str(tmp_path / "none.json")]) == BAD_REQUEST
    said = capsys.readouterr().err.splitlines()
    assert "short way" in said[0]
    assert said[0].startswith("earthmap: ")
