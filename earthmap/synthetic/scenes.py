"""Which worlds there are to draw, and how a world is cut into scenes."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from earthmap.errors import CatalogError
from earthmap.grid.ownership import owner
from earthmap.grid.projection import METRES_PER_DEGREE, as_crs, plane_of, polygons_of, to_lonlat
from earthmap.grid.tiling import Grid, Zone
from earthmap.synthetic.sensors import LATTICE_STEP, SENSORS, DrawnSensor
from earthmap.synthetic.truth import World

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox
    from shapely.geometry.base import BaseGeometry

_BEFORE = dt.datetime(2024, 5, 4, 10, 50, 31, tzinfo=dt.UTC)
_AFTER = dt.datetime(2024, 6, 8, 10, 50, 31, tzinfo=dt.UTC)

_SCENE_LAG = dt.timedelta(seconds=3)
"""A satellite needs a moment from one scene of a pass to the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnScene:
    """One scene to draw: a sensor over a piece of a world on one date."""

    id: str
    """Id of its item."""
    sensor: DrawnSensor
    datetime: dt.datetime
    """When it was measured (UTC)."""
    geobox: GeoBox
    """The lattice of its finest layers."""
    pass_start: dt.datetime
    """When the first scene of its pass was measured."""


def demo_world() -> World:
    """The demonstration's world: 20 × 15 km in a UTM zone of France, a valley that exists nowhere."""
    return World(
        seed=5,
        epsg=32631,
        bounds=(542_940.0, 5_053_620.0, 562_980.0, 5_068_620.0),
        before=_BEFORE,
        after=_AFTER,
        name="a drawn valley",
    )


def small_world(
    seed: int = 1,
    *,
    place: tuple[float, float] = (3.5, 45.7),
    size_m: float = 3000.0,
    resolution_m: float = 10.0,
    cloud_share: float = 0.12,
    ships: float = 0.0,
) -> World:
    """A square world of a few kilometres for tests, its middle near `place` (longitude, latitude in degrees).

    Its CRS is that of the zone of the place (UPS around the poles); its corners lie on multiples of six pixels.
    """
    from pyproj import Transformer

    epsg = _zone_of(*place).epsg
    east, north = Transformer.from_crs("EPSG:4326", f"EPSG:{epsg}", always_xy=True).transform(*place)
    step = LATTICE_STEP * resolution_m
    side = max(1, round(size_m / step)) * step
    west, south = math.floor((east - side / 2) / step) * step, math.floor((north - side / 2) / step) * step
    return World(
        seed=seed,
        epsg=epsg,
        bounds=(west, south, west + side, south + side),
        before=_BEFORE,
        after=_AFTER,
        resolution_m=resolution_m,
        scale=min(1.0, side / 16_000.0),
        cloud_share=cloud_share,
        ships=ships,
        name="a small drawn valley",
    )


def sea_world(
    seed: int = 1,
    *,
    place: tuple[float, float] = (3.5, 45.7),
    size_m: float = 6000.0,
    dates: int = 5,
    gap: dt.timedelta = dt.timedelta(seconds=100),
    sailing: float = 1.5,
    ships: float = 0.15,
) -> World:
    """A square of open sea, 10 m pixels, on which ships sail at `sailing` m/s at most: `dates`, `gap` apart, no clouds.

    Ships enter and leave it, pass each other, turn, and a quarter of them lie still.
    """
    small = small_world(seed, place=place, size_m=size_m, cloud_share=0.0)
    times = [small.before + number * gap for number in range(dates)]
    return replace(
        small, between=tuple(times[1:-1]), after=times[-1], ships=ships, sailing=sailing, name="a small drawn sea"
    )


def quake_world(
    seed: int = 1,
    *,
    place: tuple[float, float] = (3.5, 45.7),
    size_m: float = 960.0,
    resolution_m: float = 0.5,
    quake: float = 0.6,
    cloud_share: float = 0.0,
) -> World:
    """Hamlets on two dates, an earthquake between them that damages a share of the buildings; no flood.

    The middle is near `place` (longitude, latitude in degrees).
    """
    small = small_world(seed, place=place, size_m=size_m, resolution_m=resolution_m, cloud_share=cloud_share)
    return replace(small, scale=size_m / 3000.0, relief_m=60.0, flood_m=0.0, quake=quake, name="a drawn town")


def plan_scenes(
    world: World, *, sensors: tuple[str, ...], columns: int = 2, overlap: float = 0.1, epsg: int | None = None
) -> list[DrawnScene]:
    """The scenes of `world`: for each sensor and date `columns` of them from west to east.

    Args:
        world: The world to cut.
        sensors: Names of rows of `earthmap.synthetic.sensors.SENSORS`.
        columns: Scenes of one pass.
        overlap: Width of the ground that two neighbours share, as a share of the world's width.
        epsg: CRS of the scenes' lattices, projected in metres or geographic; None for the zone of each one's middle,
            as granules are delivered.

    Raises:
        CatalogError: for a sensor that cannot be drawn, or a plan without ground.
    """
    unknown = [name for name in sensors if name not in SENSORS]
    if unknown or not sensors:
        raise CatalogError(f"cannot draw {', '.join(unknown) or 'no sensor'}", expected=f"some of {', '.join(SENSORS)}")
    if columns < 1 or not 0 <= overlap < 1:
        raise CatalogError(f"{columns} columns with overlap {overlap}", expected="1 or more, and 0 <= overlap < 1")
    pieces = [_piece(world, column, columns=columns, overlap=overlap) for column in range(columns)]
    boxes = [_scene_lattice(world, piece, epsg=epsg) for piece in pieces]
    scenes = []
    for name in sensors:
        sensor = SENSORS[name]
        for date in world.dates:
            start = date + dt.timedelta(hours=sensor.hours)
            for column, geobox in enumerate(boxes):
                moment = start + column * _SCENE_LAG
                identity = f"{sensor.collection}_{start:%Y%m%dT%H%M%S}_{column}"
                scenes.append(DrawnScene(id=identity, sensor=sensor, datetime=moment, geobox=geobox, pass_start=start))
    return scenes


def footprint(world: World, geobox: GeoBox) -> BaseGeometry:
    """Where `geobox` and the world overlap, in EPSG:4326 (x = longitude), split at the antimeridian."""
    import shapely

    crs, world_crs = str(geobox.crs), f"EPSG:{world.epsg}"
    outline, box = shapely.box(*world.bounds), shapely.box(*geobox.boundingbox)
    if crs == world_crs:
        ground = to_lonlat(shapely.intersection(outline, box), crs)
    else:
        ground = polygons_of(shapely.intersection(to_lonlat(outline, world_crs), to_lonlat(box, crs)))
    return shapely.orient_polygons(shapely.set_precision(ground, 1e-7))


def _zone_of(longitude: float, latitude: float) -> Zone:
    found = owner(Grid(resolution_m=10.0), longitude, latitude)
    return Zone(int(found.zone), bool(found.north))


def _piece(world: World, column: int, *, columns: int, overlap: float) -> tuple[float, float, float, float]:
    """Bounds in the world's CRS of the ground of one scene of a pass."""
    west, south, east, north = world.bounds
    width, extra = (east - west) / columns, (east - west) * overlap / 2.0
    left, right = max(west, west + column * width - extra), min(east, west + (column + 1) * width + extra)
    return left, south, right, north


def _scene_lattice(world: World, piece: tuple[float, float, float, float], *, epsg: int | None) -> GeoBox:
    """The lattice of one scene: its piece of the world in `epsg` (None: the zone of its middle), on whole steps."""
    from affine import Affine
    from odc.geo.geobox import GeoBox

    west, south, east, north = piece
    middle = plane_of(world.epsg).unproject(np.array([(west + east) / 2]), np.array([(south + north) / 2]))
    target = epsg or _zone_of(float(middle[0][0]), float(middle[1][0])).epsg
    pixel = world.resolution_m / METRES_PER_DEGREE if as_crs(target).is_geographic else world.resolution_m
    step = LATTICE_STEP * pixel
    low_x, low_y, high_x, high_y = (value / step for value in _bounds_in(world, piece, target))
    corner = (math.floor(low_x) * step, math.ceil(high_y) * step)
    shape = (math.ceil(high_y) - math.floor(low_y), math.ceil(high_x) - math.floor(low_x))
    affine = Affine(pixel, 0.0, corner[0], 0.0, -pixel, corner[1])
    return GeoBox((shape[0] * LATTICE_STEP, shape[1] * LATTICE_STEP), affine, f"EPSG:{target}")


def _bounds_in(world: World, piece: tuple[float, float, float, float], epsg: int) -> tuple[float, float, float, float]:
    """Bounds of a piece of the world in another CRS; degrees may leave [-180, 180] at the antimeridian."""
    if epsg == world.epsg:
        return piece
    x, y = (
        axis.ravel() for axis in np.meshgrid(np.linspace(piece[0], piece[2], 65), np.linspace(piece[1], piece[3], 65))
    )
    longitude, latitude = plane_of(world.epsg).unproject(x, y)
    x, y = plane_of(epsg).project(longitude, latitude)
    if as_crs(epsg).is_geographic:
        middle = x[len(x) // 2]
        x = middle + np.mod(x - middle + 180.0, 360.0) - 180.0
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())
