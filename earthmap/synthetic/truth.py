"""A drawn world: what lies where on which date, as a function of ground position.

A world is a few numbers. Its land cover can be asked for at any points, on any lattice and in any CRS, and every
picture that `earthmap.synthetic.sensors` draws of it is made from the same function, so the truth of a picture is
known at every resolution. The land is a valley: a river through the middle of the world with a side stream, fields
and forest, settlements, hills with rock and snow, burnt forest. Between the two dates the river floods its low ground.
"""

from __future__ import annotations

import datetime
import functools
import itertools
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.content import canonical_json, content_key
from earthmap.errors import CatalogError
from earthmap.synthetic.fields import fractal, hash64, look_up, noise, noise_along, ramp, uniform
from earthmap.synthetic.ships import clear_of_others, place_corners, place_ships, sail, under
from earthmap.tasks.damage import GRADES

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox

    from earthmap.grid import AreaOfInterest

CLASSES = ("water", "vegetation", "bare", "built-up", "snow", "burnt")
"""Land cover by code, from 1 on; the names of `earthmap.tasks.registry.TARGETS`."""

OUTSIDE = 255
"""Code of points outside the world."""

WATER, VEGETATION, BARE, BUILT_UP, SNOW, BURNT = range(1, 7)

_BLOCK = 1 << 16
"""Points evaluated at once: what fits in a core's cache."""

_RIVER_STEP_M = 20.0

PLOT_M = 48.0
"""Side of the plots that houses stand on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What a sensor needs to know of each point; arrays of one shape."""

    cover: NDArray[np.uint8]
    """Class codes before the flood, 255 outside the world."""
    flooded: NDArray[np.bool_]
    """Dry before, under water after."""
    tone: NDArray[np.float32]
    """Place within the class, 0 to 1: forest to crop, dark to bright soil, clear to turbid water."""
    height_m: NDArray[np.float32]
    """Metres above the river."""
    rubble: NDArray[np.float32]
    """Tone of what a building has become after; 0 where none has fallen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A drawn piece of the Earth on two dates, before and after a flood."""

    seed: int
    """Draws everything; another seed is another world."""
    epsg: int
    """Projected CRS, in metres, in which `bounds` and every length are meant."""
    bounds: tuple[float, float, float, float]
    """West, south, east, north in metres of the CRS."""
    before: datetime.datetime
    """First date (UTC)."""
    after: datetime.datetime
    """Second date (UTC), with the river in flood."""
    resolution_m: float = 10.0
    """Pixel of the finest bands that are drawn of it, in metres."""
    scale: float = 1.0
    """Width of landforms: 1 suits a world of 20 km, 0.2 puts hills and snow into one of 4 km."""
    relief_m: float = 900.0
    """Height of the highest hills above the river, in metres."""
    flood_m: float = 4.5
    """Rise of the river on the second date, in metres."""
    cloud_share: float = 0.12
    """Share of the world under cloud on `cloudy`, 0 to 1."""
    cloudy: str = "after"
    """The date that has clouds: `before`, `after`, or `middle` for the one in the middle of `dates`."""
    ships: float = 0.0
    """Share of the places on open water where one fits that have a ship, 0 to 1; ships are built-up cover."""
    quake: float = 0.0
    """Share of the buildings that are damaged on the second date, 0 to 1, a third of them in each grade."""
    between: tuple[datetime.datetime, ...] = ()
    """Further dates that are drawn, later than the first and earlier than the second (UTC), in order of time."""
    sailing: float = 0.0
    """Speed of the fastest ship in m/s; over 0 the world is open sea, and its ships sail."""
    name: str = "a drawn valley"
    """What to call it in titles: every picture of it must be known as drawn."""

    def __post_init__(self) -> None:
        # The numbers are written to and read from JSON, where 10.0 may come back as 10.
        object.__setattr__(self, "bounds", tuple(float(value) for value in self.bounds))
        for date in ("before", "after"):
            if getattr(self, date).tzinfo is None:
                raise CatalogError(f"a world's date {date!r} without a time zone", expected="an aware datetime")
        west, south, east, north = self.bounds
        if not (west < east and south < north):
            raise CatalogError(f"a world of bounds {self.bounds}", expected="west < east and south < north")
        object.__setattr__(self, "between", tuple(self.between))
        if any(earlier >= later for earlier, later in itertools.pairwise(self.dates)):
            raise CatalogError("a world whose dates do not follow each other", expected="before < between < after")
        if self.cloudy not in ("before", "middle", "after"):
            raise CatalogError(f"a world with clouds on {self.cloudy!r}", expected="'before', 'middle' or 'after'")
        sizes = self.resolution_m > 0 and self.scale > 0 and self.sailing >= 0
        if not (sizes and 0 <= self.cloud_share < 1 and 0 <= self.ships <= 1):
            raise CatalogError(
                "a world of impossible size",
                expected="resolution_m, scale > 0; sailing >= 0; 0 <= cloud_share < 1; 0 <= ships <= 1",
            )

    def to_dict(self) -> dict[str, Any]:
        """The world as a JSON object; `from_dict` makes an equal world of it."""
        record = {field.name: getattr(self, field.name) for field in fields(self)}
        plain: dict[str, Any] = json.loads(canonical_json(record))
        return plain

    def to_json(self) -> str:
        """The world as canonical JSON: equal worlds give equal text."""
        return canonical_json(self.to_dict())

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> World:
        """The world of a JSON object. Raises CatalogError where it is not one."""
        try:
            values = dict(record)
            values["bounds"] = tuple(values["bounds"])
            for date in ("before", "after"):
                values[date] = datetime.datetime.fromisoformat(values[date])
            values["between"] = tuple(datetime.datetime.fromisoformat(date) for date in values.get("between", ()))
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise CatalogError(
                f"a drawn world that cannot be read: {error}", expected="the object that World.to_dict gives"
            ) from error

    @classmethod
    def from_json(cls, text: str) -> World:
        """The inverse of `to_json`. Raises CatalogError."""
        try:
            record = json.loads(text)
        except ValueError as error:
            raise CatalogError(f"a drawn world that is not JSON: {error}") from error
        return cls.from_dict(record)

    def content_key(self) -> str:
        """The key of everything that is drawn from it."""
        return content_key("world", self.to_dict())

    @property
    def area(self) -> AreaOfInterest:
        """The whole world as an area."""
        import shapely

        from earthmap.grid import AreaOfInterest

        return AreaOfInterest.from_geometry(shapely.box(*self.bounds), f"EPSG:{self.epsg}")

    @property
    def dates(self) -> tuple[datetime.datetime, ...]:
        """All dates that are drawn of it, in order of time."""
        return (self.before, *self.between, self.after)

    def is_after(self, date: datetime.datetime) -> bool:
        """True where the second date is the nearer one (or as near): the world in flood."""
        return date - self.before >= self.after - date

    def ground(self, x: NDArray[Any], y: NDArray[Any], date: datetime.datetime | None = None) -> Ground:
        """Everything that is known of the points `x`, `y` (CRS metres); arrays of their broadcast shape.

        A row of x (1, n) with a column of y (m, 1) is the fast way to ask for a lattice. The same point has the
        same ground in every call. Ships that sail are where they are on `date`; without one there are none.
        """
        x, y = _metres(x), _metres(y)
        shape = np.broadcast_shapes(x.shape, y.shape)
        if len(shape) != 2:
            flat = [np.broadcast_to(values, shape).reshape(-1, 1) for values in (x, y)]
            return _reshaped(self.ground(flat[0], flat[1], date), shape)
        draw = functools.partial(_open_sea, date=date) if self.sailing else _ground
        step = max(1, _BLOCK // max(1, shape[1]))
        blocks = []
        for start in range(0, shape[0], step):
            rows = slice(start, start + step)
            blocks.append(draw(self, x if x.shape[0] == 1 else x[rows], y if y.shape[0] == 1 else y[rows]))
        if not blocks:
            blocks = [draw(self, np.zeros((0, 1)), np.zeros((0, 1)))]
        joined = {
            field.name: np.concatenate([getattr(block, field.name) for block in blocks]) for field in fields(Ground)
        }
        return _reshaped(Ground(**joined), shape)

    def classes(self, x: NDArray[Any], y: NDArray[Any], date: datetime.datetime) -> NDArray[np.uint8]:
        """Class codes at points `x`, `y` (CRS metres) on `date`: uint8 of their broadcast shape, 255 outside."""
        return covered(self, self.ground(x, y, date), date)

    def _is_cloudy(self, date: datetime.datetime) -> bool:
        if self.cloudy == "middle":
            return min(self.dates, key=lambda one: abs(date - one)) == self.dates[len(self.dates) // 2]
        return self.is_after(date) == (self.cloudy == "after")

    def clouds(self, x: NDArray[Any], y: NDArray[Any], date: datetime.datetime) -> NDArray[np.float32]:
        """Opacity of the clouds above points `x`, `y` (CRS metres) on `date`: float32, 0 (clear) to 1."""
        x, y = _metres(x), _metres(y)
        if self.cloud_share == 0 or not self._is_cloudy(date):
            return np.zeros(np.broadcast_shapes(x.shape, y.shape), np.float32)
        edge = _cloud_edge(self)
        return ramp(_cloud_field(self, x, y), edge, edge + 0.12)


def _metres(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(values, np.float64)


def covered(world: World, ground: Ground, date: datetime.datetime) -> NDArray[np.uint8]:
    """Class codes of `ground` on `date`: uint8 of its shape, 255 outside the world."""
    if not world.is_after(date):
        return ground.cover
    cover = np.where(ground.rubble > 0, np.uint8(BARE), ground.cover)
    return np.where(ground.flooded, np.uint8(WATER), cover)


def truth_on(world: World, geobox: GeoBox, date: datetime.datetime) -> NDArray[np.uint8]:
    """Class codes at the pixel centres of `geobox` (any CRS) on `date`: uint8 (y, x), row 0 first, 255 outside."""
    x, y = pixel_centres(world, geobox)
    return world.classes(x, y, date)


def true_km2(world: World, date: datetime.datetime) -> dict[str, float]:
    """km² of each class on `date`, by the pixel centres of a lattice of the world's resolution over all of it."""
    from affine import Affine
    from odc.geo.geobox import GeoBox

    from earthmap.grid import pixel_area_m2

    west, south, east, north = world.bounds
    size = world.resolution_m
    shape = (round((north - south) / size), round((east - west) / size))
    geobox = GeoBox(shape, Affine(size, 0.0, west, 0.0, -size, north), f"EPSG:{world.epsg}")
    codes, areas = truth_on(world, geobox, date), pixel_area_m2(geobox)
    return {name: float(areas[codes == code].sum()) / 1e6 for code, name in enumerate(CLASSES, 1)}


def pixel_centres(world: World, geobox: GeoBox) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """World coordinates of the centres of `geobox`'s pixels.

    A row (1, x) and a column (y, 1) where the lattice lies straight in the world's own CRS, else two (y, x) arrays.
    """
    height, width = geobox.shape
    affine = geobox.affine
    column, row = np.arange(width)[None, :] + 0.5, np.arange(height)[:, None] + 0.5
    straight = affine.b == 0 and affine.d == 0
    x = _metres(affine.a * column + affine.c if straight else affine.a * column + affine.b * row + affine.c)
    y = _metres(affine.e * row + affine.f if straight else affine.d * column + affine.e * row + affine.f)
    epsg = geobox.crs.epsg if geobox.crs is not None else None
    if epsg == world.epsg:
        return x, y
    if geobox.crs is None:
        raise CatalogError("a lattice without a CRS has no place in a drawn world", expected="a GeoBox with a CRS")
    there = _transformer(str(geobox.crs), world.epsg)
    shape = (height, width)
    east, north = there.transform(np.broadcast_to(x, shape), np.broadcast_to(y, shape))
    return np.asarray(east, np.float64), np.asarray(north, np.float64)


@functools.lru_cache(maxsize=32)
def _transformer(source: str, epsg: int) -> Any:
    from pyproj import Transformer

    return Transformer.from_crs(source, f"EPSG:{epsg}", always_xy=True)


def _reshaped(ground: Ground, shape: tuple[int, ...]) -> Ground:
    return Ground(**{field.name: getattr(ground, field.name).reshape(shape) for field in fields(Ground)})


# The land, from the river outwards. Positions are metres from the world's middle, so that the river runs through it.


def _ground(world: World, x: NDArray[np.float64], y: NDArray[np.float64]) -> Ground:
    west, south, east, north = world.bounds
    inside = (x >= west) & (x < east) & (y >= south) & (y < north)
    x, y = x - (west + east) / 2.0, y - (south + north) / 2.0
    river_m, stream_m = _river_distance(world, x, y)
    height = _height(world, x, y, river_m=np.abs(river_m), stream_m=stream_m)
    cover, tone = _vegetated(world, x, y, height=height)
    _add_high_ground(world, x, y, height=height, cover=cover, tone=tone)
    rubble = np.zeros(cover.shape, np.float32)
    buildings = _add_settlements(world, x, y, height=height, cover=cover, tone=tone, rubble=rubble)
    road = (np.abs(river_m - 1000.0 * world.scale) < 9.0) & (height < 120.0)
    cover[road], tone[road], rubble[road] = BUILT_UP, 0.1, 0.0
    water = _water(world, x, y, river_m=np.abs(river_m), stream_m=stream_m, height=height)
    cover[water], tone[water], rubble[water] = WATER, 0.35, 0.0
    if world.ships:
        afloat = under(ships_of(world), x + (west + east) / 2.0, y + (south + north) / 2.0)
        cover[afloat], tone[afloat] = BUILT_UP, 0.9
        buildings |= afloat
    low = (height < world.flood_m) & (np.abs(river_m) < 2500.0 * world.scale)
    outside = ~np.broadcast_to(inside, cover.shape)
    cover[outside], rubble[outside] = OUTSIDE, 0.0
    flooded = low & (cover != WATER) & ~buildings & inside
    return Ground(cover=cover, flooded=flooded, tone=tone, height_m=height, rubble=rubble)


def _open_sea(
    world: World, x: NDArray[np.float64], y: NDArray[np.float64], *, date: datetime.datetime | None
) -> Ground:  # fmt: skip
    """Water, with the ships that are on it on `date`."""
    west, south, east, north = world.bounds
    inside = (x >= west) & (x < east) & (y >= south) & (y < north)
    tone = np.float32(0.35) + np.float32(0.1) * noise(world.seed, "swell", x, y, wavelength_m=300.0)
    cover = np.where(inside, np.uint8(WATER), np.uint8(OUTSIDE))
    if date is not None:
        afloat = under(ships_on(world, date)[1], x, y) & inside
        cover[afloat], tone[afloat] = BUILT_UP, 0.9
    nowhere = np.zeros(cover.shape, np.bool_)
    level = np.zeros(cover.shape, np.float32)
    return Ground(cover=cover, flooded=nowhere, tone=tone, height_m=level, rubble=level)


def town_size_m(world: World) -> float:
    """Side of the squares that have a town at most."""
    return 3000.0 * world.scale


@functools.lru_cache(maxsize=8)
def ships_of(world: World) -> NDArray[np.float64]:
    """The ships of a world, rows as `earthmap.synthetic.ships.place_ships` gives them; those that sail as they are on
    the first date, those on their way into the world among them."""
    if world.sailing:
        return _fleet(world)
    bare = replace(world, ships=0.0)

    def is_water(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = bare.ground(x, y).cover == WATER
        return found

    return place_ships(world.seed, world.bounds, share=world.ships, is_water=is_water)


def _fleet(world: World) -> NDArray[np.float64]:
    """Ships that sail, none of which comes near another on any date."""
    way = world.sailing * (world.after - world.before).total_seconds()
    west, south, east, north = world.bounds
    ships = place_ships(
        world.seed,
        (west - way, south - way, east + way, north + way),
        share=world.ships,
        is_water=lambda x, y: np.ones(np.broadcast_shapes(x.shape, y.shape), bool),
    )
    voyages = [
        sail(ships, (date - world.before).total_seconds(), seed=world.seed, fastest=world.sailing)
        for date in world.dates
    ]
    # Ships keep the number that decides about their way, so those that meet others only leave the world.
    ships[~clear_of_others(voyages), 0] = np.inf
    return ships


@functools.lru_cache(maxsize=64)
def ships_on(world: World, date: datetime.datetime) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The ships that are whole inside the world on a date: their numbers, which they keep, and their rows."""
    ships = ships_of(world)
    if world.sailing:
        ships = sail(ships, (date - world.before).total_seconds(), seed=world.seed, fastest=world.sailing)
    west, south, east, north = world.bounds
    corners = place_corners(ships)
    inside = np.asarray(((corners >= (west, south)) & (corners < (east, north))).all(axis=(1, 2)) | (not world.sailing))
    return np.flatnonzero(inside), ships[inside]


@functools.lru_cache(maxsize=32)
def _courses(seed: int, scale: float, reach: int) -> NDArray[np.float64]:
    """Rows: offset of the river, 1 / its slant, offset of the stream, 1 / its slant; one column each 20 m."""
    along = np.arange(-reach, reach + 1, dtype=np.float64) * _RIVER_STEP_M
    rows = []
    for name, swing in (("river", 1.0), ("stream", 0.5)):
        offset = np.zeros(along.shape)
        for octave, (width, size) in enumerate(((5200.0, 2600.0), (1700.0, 850.0), (640.0, 220.0))):
            draws = noise_along(seed, f"{name}{octave}", along, wavelength_m=width * scale)
            offset += (draws - 0.5) * size * scale * swing
        # The river meets the middle of the world, the stream meets the river's mean line wherever it likes.
        offset -= offset[reach] if name == "river" else 0.0
        slope = np.gradient(offset, _RIVER_STEP_M)
        rows += [offset, 1.0 / np.sqrt(1.0 + slope * slope)]
    return np.stack(rows)


def _river_distance(
    world: World, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Metres to the middle of the river (positive on the stream's side) and of the stream (large on the other)."""
    west, south, east, north = world.bounds
    reach = int((east - west + north - south) / _RIVER_STEP_M) + 2
    courses = _courses(world.seed, world.scale, reach)
    # A turn by a Pythagorean triple needs no sine: 20° to 70° against the world's axes.
    cosine, sine = ((0.8, 0.6), (0.6, 0.8), (12 / 13, 5 / 13), (0.8, -0.6), (12 / 13, -5 / 13))[world.seed % 5]
    along, across = cosine * x + sine * y, cosine * y - sine * x

    def distance(position: NDArray[np.float64], aside: NDArray[np.float64], row: int) -> NDArray[np.float64]:
        steps = np.clip(position / _RIVER_STEP_M + reach, 0.0, 2.0 * reach - 1e-6)
        below = steps.astype(np.int64)
        way = steps - below
        offset = courses[row].take(below) * (1.0 - way) + courses[row].take(below + 1) * way
        slant = courses[row + 1].take(below) * (1.0 - way) + courses[row + 1].take(below + 1) * way
        result: NDArray[np.float64] = (aside - offset) * slant
        return result

    river = distance(along, across, 0)
    stream = np.abs(distance(across, along - 1500.0 * world.scale, 2)) + np.maximum(-river, 0.0)
    return river.astype(np.float32), stream.astype(np.float32)


def _height(
    world: World,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    *,
    river_m: NDArray[np.float32],
    stream_m: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Metres above the river: a plain that rises slowly, then hills, cut by the stream's valley."""
    scale = world.scale
    plain = np.float32(9.0) * np.minimum(river_m / np.float32(1500.0 * scale), np.float32(1.0))
    small = (fractal(world.seed, "small", x, y, wavelength_m=650.0, octaves=3) - np.float32(0.5)) * np.float32(7.0)
    hills = fractal(world.seed, "hills", x, y, wavelength_m=4200.0 * scale, octaves=5)
    rise = ramp(river_m, 1200.0 * scale, 5500.0 * scale) * (np.float32(0.3) + np.float32(0.7) * ramp(hills, 0.2, 0.8))
    cut = np.float32(0.12) + np.float32(0.88) * ramp(stream_m, 0.0, 2200.0 * scale)
    # The small relief fades towards the channel, so that the river's own bank stays low.
    bank = np.minimum(river_m / np.float32(300.0), np.float32(1.0))
    height: NDArray[np.float32] = plain + small * bank + np.float32(world.relief_m) * rise * cut
    return height


def _vegetated(
    world: World, x: NDArray[np.float64], y: NDArray[np.float64], *, height: NDArray[np.float32]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Fields and forest, some of it burnt: class codes and tones."""
    seed, scale = world.seed, world.scale
    warp = (noise(seed, "warp", x, y, wavelength_m=800.0) - np.float32(0.5)) * np.float32(160.0)
    row = np.floor((0.8 * y - 0.6 * x + warp) / 170.0)
    shift = look_up(seed, "parcel shift", row, row)
    column = np.floor((0.8 * x + 0.6 * y + warp) / 240.0 + shift)
    crop = look_up(seed, "crop", column, row)
    grain = noise(seed, "grain", x, y, wavelength_m=70.0)
    cover = np.where(crop < np.float32(0.3), np.uint8(BARE), np.uint8(VEGETATION))
    tone = np.float32(0.4) + np.float32(0.45) * look_up(seed, "growth", column, row) + np.float32(0.15) * grain
    wood = fractal(seed, "wood", x, y, wavelength_m=1800.0 * scale, octaves=4)
    forest = wood + np.float32(0.28) * ramp(height, 30.0, 0.4 * world.relief_m) > np.float32(0.62)
    cover[forest] = VEGETATION
    tone = np.where(forest, np.float32(0.3) * grain, tone)
    fire = fractal(seed, "fire", x, y, wavelength_m=3600.0 * scale, octaves=4)
    burnt = forest & (fire > np.float32(0.66))
    cover[burnt] = BURNT
    return cover, np.where(burnt, ramp(fire, 0.66, 0.8), tone)


def _add_high_ground(
    world: World,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    *,
    height: NDArray[np.float32],
    cover: NDArray[np.uint8],
    tone: NDArray[np.float32],
) -> None:
    """Rock above the trees and snow above the rock, with ragged edges."""
    ragged = fractal(world.seed, "ragged", x, y, wavelength_m=900.0 * world.scale, octaves=4)
    level = height / np.float32(world.relief_m) + (ragged - np.float32(0.5)) * np.float32(0.35)
    rock, snow = level > np.float32(0.62), level > np.float32(0.78)
    cover[rock] = BARE
    cover[snow] = SNOW
    np.copyto(tone, ragged, where=rock)


def _cell_centres(
    world: World, name: str, x: NDArray[np.float64], y: NDArray[np.float64], *, size_m: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """The lattice cell of each point and its offset from a point drawn in the middle half of that cell, in metres."""
    shape = np.broadcast_shapes(x.shape, y.shape)
    column = np.broadcast_to(np.floor(x / size_m).astype(np.int64), shape)
    row = np.broadcast_to(np.floor(y / size_m).astype(np.int64), shape)
    east = (column + 0.3 + 0.4 * look_up(world.seed, f"{name} east", column, row)) * size_m
    north = (row + 0.3 + 0.4 * look_up(world.seed, f"{name} north", column, row)) * size_m
    return column, row, x - east, y - north


def _water(
    world: World,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    *,
    river_m: NDArray[np.float32],
    stream_m: NDArray[np.float32],
    height: NDArray[np.float32],
) -> NDArray[np.bool_]:
    """River, stream and lakes before the flood."""
    column, row, east, north = _cell_centres(world, "lake", x, y, size_m=3600.0 * world.scale)
    draw = look_up(world.seed, "lake", column, row)
    radius = (130.0 + 700.0 * np.maximum(draw - 0.5, 0.0)) * (draw > 0.5) * min(1.0, 1.6 * world.scale)
    shore = 0.6 + 0.8 * fractal(world.seed, "shore", x, y, wavelength_m=420.0, octaves=2)
    lake = (east * east + north * north < (radius * shore) ** 2) & (height < 0.5 * world.relief_m)
    width = 45.0 + 45.0 * noise(world.seed, "width", x, y, wavelength_m=1500.0)
    channel: NDArray[np.bool_] = (river_m < width) | (stream_m < 16.0) | lake
    return channel


def _add_settlements(
    world: World,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    *,
    height: NDArray[np.float32],
    cover: NDArray[np.uint8],
    tone: NDArray[np.float32],
    rubble: NDArray[np.float32],
) -> NDArray[np.bool_]:
    """Streets and oriented rectangles of buildings; True where a building stands (which a flood leaves standing)."""
    size = town_size_m(world)
    column, row, east, north = _cell_centres(world, "town", x, y, size_m=size)
    draw = look_up(world.seed, "town", column, row)
    radius = (0.09 + 0.18 * draw) * size * (draw > 0.35)
    away = east * east + north * north
    near = (away < radius * radius) & (height < 0.3 * world.relief_m)
    buildings = np.zeros(near.shape, np.bool_)
    if not near.any():
        return buildings
    turn = look_up(world.seed, "town turn", column[near], row[near])
    # Rational points of the circle: an angle without a sine.
    cosine, sine = (1 - turn * turn) / (1 + turn * turn), 2 * turn / (1 + turn * turn)
    u = cosine * east[near] + sine * north[near]
    v = cosine * north[near] - sine * east[near]
    edge = away[near] / (radius[near] ** 2)
    town = column[near] * 4096 + row[near]
    house, street, roof = _houses(world, u, v, town=town, edge=edge)
    buildings[near] = house
    if world.quake:
        rubble[near] = np.where(house, _rubble(world, u, v, town=town), np.float32(0.0))
    paved = np.zeros(near.shape, np.bool_)
    paved[near] = street | house
    cover[paved] = BUILT_UP
    inner = tone[near]
    inner[street], inner[house] = 0.1, roof[house]
    tone[near] = inner
    return buildings


def _houses(
    world: World,
    u: NDArray[np.float64],
    v: NDArray[np.float64],
    *,
    town: NDArray[np.int64],
    edge: NDArray[np.float64],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float32]]:
    """Houses, streets and roof tones at town coordinates `u`, `v` in metres; `edge` is 0 in the middle, 1 outside."""
    plot = PLOT_M
    column, row = np.floor(u / plot).astype(np.int64), np.floor(v / plot).astype(np.int64)
    hashed = hash64(world.seed, town, column, row)
    built, wide, deep, roof = (uniform(hashed << np.uint64(16 * turn)) for turn in range(4))
    across, along = np.abs(u - (column + 0.5) * plot), np.abs(v - (row + 0.5) * plot)
    house = (built > 0.15 + 0.6 * edge) & (across < 10.0 + 9.0 * wide) & (along < 8.0 + 11.0 * deep)
    street = (u - np.floor(u / (3 * plot)) * 3 * plot < 10.0) | (v - np.floor(v / (4 * plot)) * 4 * plot < 10.0)
    return house, street & ~house & (edge < 0.8), np.float32(0.3) + np.float32(0.7) * roof


def grades_in(
    world: World, town: NDArray[np.int64], column: NDArray[np.int64], row: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Grades of damage on the second date, numbers of `earthmap.tasks.damage.GRADES`, of the houses on plots of towns.

    Args:
        world: The world.
        town: Column of the town times 4,096, and its row.
        column: Of the plot in its town.
        row: The same.
    """
    draw = uniform(hash64(world.seed, zlib.crc32(b"quake"), town, column, row))
    if not world.quake:
        return np.zeros(draw.shape, np.uint8)
    worst = len(GRADES) - 1
    return np.where(draw < world.quake, 1 + np.minimum(draw / world.quake * worst, worst - 1), 0).astype(np.uint8)


_FALLEN = np.array([0.0, 0.22, 0.55, 1.0], np.float32)
"""Share of a house that has fallen, by grade; of one that is destroyed some walls stand."""

_BLOCK_M = 1.5
"""Side of the pieces that a house breaks into."""


def _rubble(
    world: World, u: NDArray[np.float64], v: NDArray[np.float64], *, town: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Tone of fallen pieces at town coordinates, as if there were houses all over; 0 where nothing has fallen."""
    column, row = np.floor(u / PLOT_M).astype(np.int64), np.floor(v / PLOT_M).astype(np.int64)
    fallen = _FALLEN[grades_in(world, town, column, row)]
    pieces = (np.floor(axis / _BLOCK_M).astype(np.int64) for axis in (u, v))
    piece = uniform(hash64(world.seed, zlib.crc32(b"rubble"), town, *pieces))
    across = (u / PLOT_M - column).astype(np.float32)  # 0 to 1 over the plot, of which the house takes the middle
    whole = np.where(fallen == 1.0, piece < np.float32(0.92), across - np.float32(0.06) * piece < _edge_of(fallen))
    return np.where((fallen > 0) & whole, np.float32(0.35) + np.float32(0.65) * piece, np.float32(0.0))


def _edge_of(fallen: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far over its plot a house of common width has fallen."""
    return np.float32(0.5 - 14.5 / PLOT_M) + np.float32(29.0 / PLOT_M) * fallen


def _cloud_field(world: World, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float32]:
    west, south, east, north = world.bounds
    x, y = x - (west + east) / 2.0, y - (south + north) / 2.0
    return fractal(world.seed, "cloud", x, y, wavelength_m=3400.0 * world.scale, octaves=6)


@functools.lru_cache(maxsize=32)
def _cloud_edge(world: World) -> float:
    """The height of the cloud field above which `cloud_share` of the world lies."""
    west, south, east, north = world.bounds
    x, y = np.linspace(west, east, 128)[None, :], np.linspace(south, north, 128)[:, None]
    ordered = np.sort(_cloud_field(world, x, y), axis=None)
    return float(ordered[min(ordered.size - 1, int(ordered.size * (1.0 - world.cloud_share)))])
