"""Things that stand or move on drawn ground: buildings, ships, storage tanks, aircraft, vehicles.

Every tile has the same slots, some of which are filled. A thing is an oriented shape in metres; what is drawn, its
boxes and its outline all come from the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.synthetic.draws import between, between_scales, directions, draw
from earthmap.synthetic.land import HAMLET, road_frame, town_frame, yard_frame
from earthmap.synthetic.recipes import Recipe
from earthmap.synthetic.spectra import code_of
from earthmap.synthetic.truth import WATER

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

OBJECT_CLASSES = ("building", "ship", "storage tank", "aircraft", "vehicle")
"""What things are called, by class number."""

_SLOTS = (HAMLET * HAMLET, 8, 8, 5, 6)

SLOTS = sum(_SLOTS)
"""Things of a tile at most; with four zones each they fit a byte."""

SLOT_CLASS = np.repeat(np.arange(len(_SLOTS)), _SLOTS)
"""(slot,) class numbers."""


def slots_of(*labels: str) -> NDArray[np.bool_]:
    """(slot,) True for things of these classes."""
    return np.isin(SLOT_CLASS, [OBJECT_CLASSES.index(label) for label in labels])


_SMALLEST_PX = np.array([2.5, 1.2, 2.5, 6.0, 2.8])
"""Pixels along the narrow side below which a thing of each class is not drawn: it could not be told."""

RECTANGLE, CORNER, SHIP, CIRCLE, CROSS = range(5)
"""Shapes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects:
    """The things of a batch; arrays (tile, slot) or (tile, slot, date). Places are metres from the tile's middle."""

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    """(tile, slot, date), x to the right and y down."""
    cosine: NDArray[np.float32]
    sine: NDArray[np.float32]
    """Direction of the length."""
    length_m: NDArray[np.float32]
    """Half the length."""
    width_m: NDArray[np.float32]
    """Half the width."""
    height_m: NDArray[np.float32]
    shape: NDArray[np.int64]
    material: NDArray[np.uint8]
    tone: NDArray[np.uint8]
    present: NDArray[np.bool_]
    """(tile, slot, date)."""
    grade: NDArray[np.uint8]
    """(tile, slot, date) grade of damage."""

    def outline(self, tile: int, slot: int, date: int = 0) -> NDArray[np.float64]:
        """(corner, 2) x and y in metres from the tile's middle."""
        corners = _OUTLINES[int(self.shape[tile, slot])]
        return self._placed(corners, tile, slot, date)

    def oriented_box(self, tile: int, slot: int, date: int = 0) -> NDArray[np.float64]:
        """(4, 2) corners of the rectangle along the thing's own direction."""
        return self._placed(_OUTLINES[RECTANGLE], tile, slot, date)

    def _placed(self, corners: NDArray[np.float64], tile: int, slot: int, date: int) -> NDArray[np.float64]:
        u, v = corners[:, 0] * self.length_m[tile, slot], corners[:, 1] * self.width_m[tile, slot]
        cosine, sine = float(self.cosine[tile, slot]), float(self.sine[tile, slot])
        x, y = float(self.x[tile, slot, date]), float(self.y[tile, slot, date])
        return np.stack([x + u * cosine - v * sine, y + u * sine + v * cosine], axis=1)


def _ring(*corners: tuple[float, float]) -> NDArray[np.float64]:
    return np.array(corners, np.float64)


_TURN = np.arange(16) * (np.pi / 8)
_OUTLINES = {
    RECTANGLE: _ring((-1, -1), (1, -1), (1, 1), (-1, 1)),
    CORNER: _ring((-1, -1), (1, -1), (1, 0.1), (0.1, 0.1), (0.1, 1), (-1, 1)),
    SHIP: _ring((-1, -1), (0.6, -1), (1, 0), (0.6, 1), (-1, 1)),
    CIRCLE: np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1) / np.cos(np.pi / 16),
    CROSS: _ring(
        (1, -0.1),
        (1, 0.1),
        (0.25, 0.1),
        (-0.2, 1),
        (-0.4, 1),
        (-0.15, 0.1),
        (-0.8, 0.1),
        (-0.9, 0.35),
        (-1, 0.35),
        (-1, -0.35),
        (-0.9, -0.35),
        (-0.8, -0.1),
        (-0.15, -0.1),
        (-0.4, -1),
        (-0.2, -1),
        (0.25, -0.1),
    ),
}
"""Corners of each shape, along and across, where half the length and half the width are 1."""

_Columns = dict[str, "NDArray[Any]"]


def place_objects(recipe: Recipe, sample: Callable[[NDArray[np.float32]], NDArray[np.uint8]]) -> Objects:
    """The things of a batch, where they can stand.

    Args:
        recipe: The batch.
        sample: Land cover at (tile, point, 2) metres from the middle of each tile, as (tile, point) codes.
    """
    parts = [_buildings(recipe), _ships(recipe), _tanks(recipe), _aircraft(recipe), _vehicles(recipe)]
    whole: _Columns = {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}
    present = whole.pop("there") & _fits(recipe, whole) & _on_its_ground(whole, sample)
    present &= ~_overlaps(whole, present)
    moving = whole.pop("speed_mps")
    steps = np.arange(recipe.dates, dtype=np.float32) * (1.0 if recipe.moving else 0.0)
    x = whole.pop("x")[:, :, None] + (moving * whole["cosine"])[:, :, None] * steps
    y = whole.pop("y")[:, :, None] + (moving * whole["sine"])[:, :, None] * steps
    days = np.repeat(present[:, :, None], recipe.dates, axis=2) & _is_inside(recipe, x, y) & _stays(recipe)
    return Objects(
        x=x, y=y, present=days, grade=np.zeros(days.shape, np.uint8), **{k: v for k, v in whole.items() if k != "room"}
    )


def _columns(recipe: Recipe, number: int, **given: Any) -> _Columns:
    """Columns of a class, each (tile, slot); what is not given is the same for all."""
    count = _SLOTS[number]
    base: dict[str, Any] = {"speed_mps": 0.0, "height_m": 0.0, "shape": RECTANGLE, "room": 1.0} | given
    types = {"shape": np.int64, "material": np.uint8, "tone": np.uint8, "there": np.bool_}
    return {
        name: np.broadcast_to(np.asarray(value), (recipe.count, count)).astype(types.get(name, np.float32))
        for name, value in base.items()
    }


def _materials(share: NDArray[np.float32], *names: str) -> NDArray[np.uint8]:
    codes = np.array([code_of(name) for name in names], np.uint8)
    return codes[np.minimum((share * len(names)).astype(np.int64), len(names) - 1)]


def _wide(values: NDArray[Any]) -> NDArray[Any]:
    return values[:, None]


def _buildings(recipe: Recipe) -> _Columns:
    """One building a plot, in rows along the town's streets."""
    count = HAMLET * HAMLET
    draws = {
        name: draw(recipe.seeds, f"building {name}", count)
        for name in ("length", "width", "there", "shape", "roof", "tone")
    }
    cosine, sine, middle = town_frame(recipe)
    row, place = np.divmod(np.arange(count), HAMLET)
    jitter = between(draw(recipe.seeds, "building jitter", count, 2), -0.05, 0.05)
    plot = _wide(recipe.plot_m)
    u = (place - HAMLET / 2 + 0.58 + jitter[..., 0]) * plot
    v = (row - HAMLET / 2 + 0.55 + jitter[..., 1]) * plot
    c, s = _wide(cosine), _wide(sine)
    high = between_scales(draw(recipe.seeds, "building height", count), 3.0, 11.0)
    density = between(draw(recipe.seeds, "building density"), 0.15, 0.95)
    return _columns(
        recipe,
        0,
        x=_wide(middle[:, 0]) + u * c - v * s,
        y=_wide(middle[:, 1]) + u * s + v * c,
        cosine=c,
        sine=s,
        length_m=plot * between(draws["length"], 0.22, 0.36),
        width_m=plot * between(draws["width"], 0.16, 0.3),
        height_m=high * np.where(plot > 60, 1.6, 1.0),
        shape=np.where(draws["shape"] < 0.25, CORNER, RECTANGLE),
        material=_materials(draws["roof"], "tiles", "tiles", "slate", "metal roof", "concrete", "slate"),
        tone=draws["tone"] * 255,
        there=_wide(recipe.hamlet) & (draws["there"] < _wide(density)),
        room=0.0,
    )


def _ships(recipe: Recipe) -> _Columns:
    """Ships and boats on the sea, on lakes and on wide rivers."""
    count = _SLOTS[1]
    size = draw(recipe.seeds, "ship size", count)
    smallest = np.maximum(9.0, 5.0 * recipe.gsd_m)
    largest = np.clip(0.35 * recipe.extent_m, smallest * 1.01, 380.0)
    half = between_scales(size, _wide(smallest), _wide(largest)) / 2
    slim = between(draw(recipe.seeds, "ship shape", count), 0.14, 0.27)
    spot = between(draw(recipe.seeds, "ship place", count, 2), -0.46, 0.46) * recipe.extent_m[:, None, None]
    cosine, sine = directions(draw(recipe.seeds, "ship turn", count))
    fleet = draw(recipe.seeds, "fleet") ** 2 * (count + 2.0) - 1.0  # a third of all waters is empty
    speed = np.where(draw(recipe.seeds, "ship moves", count) < 0.6, half * 0.12 + 0.5 * _wide(recipe.gsd_m), 0.0)
    return _columns(
        recipe,
        1,
        x=spot[..., 0],
        y=spot[..., 1],
        cosine=cosine,
        sine=sine,
        length_m=half,
        width_m=np.maximum(half * slim, 0.62 * _wide(recipe.gsd_m)),
        height_m=between(size, 1.5, 9.0),
        shape=SHIP,
        material=_materials(draw(recipe.seeds, "ship paint", count), "deck", "deck", "paint"),
        tone=draw(recipe.seeds, "ship tone", count) * 255,
        there=np.arange(count) < _wide(fleet),
        speed_mps=speed,
    )


def _tanks(recipe: Recipe) -> _Columns:
    """Round storage tanks in rows on a yard."""
    count = _SLOTS[2]
    cosine, sine, size = yard_frame(recipe)
    radius = np.clip(between_scales(draw(recipe.seeds, "tank size"), 5.0, 45.0), 2.2 * recipe.gsd_m, 60.0)
    step = radius * between(draw(recipe.seeds, "tank step"), 2.4, 3.6)
    row, place = np.divmod(np.arange(count), 4)
    u = (place - 1.5) * _wide(step)
    v = (row - 0.5) * _wide(step) + _wide(size[:, 0])
    is_there = recipe.yard & ~recipe.kind_is("airport") & (size[:, 2] > step)
    shrink = between(draw(recipe.seeds, "tank shrink", count), 0.75, 1.0)
    half = np.maximum(_wide(radius) * shrink, 1.4 * _wide(recipe.gsd_m))
    return _columns(
        recipe,
        2,
        x=u * _wide(cosine) - v * _wide(sine),
        y=u * _wide(sine) + v * _wide(cosine),
        cosine=1.0,
        sine=0.0,
        length_m=half,
        width_m=half,
        height_m=half * 0.6,
        shape=CIRCLE,
        material=code_of("metal roof"),
        tone=draw(recipe.seeds, "tank tone", count) * 200,
        there=_wide(is_there) & (draw(recipe.seeds, "tank", count) < 0.7),
    )


def _aircraft(recipe: Recipe) -> _Columns:
    """Aircraft parked on an apron, or flying over where nothing else is."""
    count = _SLOTS[3]
    cosine, sine, size = yard_frame(recipe)
    half = between_scales(draw(recipe.seeds, "aircraft size", count), 5.0, 38.0)
    step = _wide(2.0 * size[:, 1] / count)
    u = (np.arange(count) - (count - 1) / 2) * step + between(draw(recipe.seeds, "apron", count), -0.15, 0.15) * step
    v = _wide(size[:, 0]) + between(draw(recipe.seeds, "apron deep", count), -0.5, 0.5) * _wide(size[:, 2])
    c, s = directions(draw(recipe.seeds, "aircraft turn", count))
    return _columns(
        recipe,
        3,
        x=u * _wide(cosine) - v * _wide(sine),
        y=u * _wide(sine) + v * _wide(cosine),
        cosine=c,
        sine=s,
        length_m=half,
        width_m=half * between(draw(recipe.seeds, "wings", count), 0.85, 1.05),
        shape=CROSS,
        material=code_of("paint"),
        tone=150 + draw(recipe.seeds, "aircraft tone", count) * 100,
        there=_wide(recipe.yard & recipe.kind_is("airport")) & (draw(recipe.seeds, "aircraft", count) < 0.75),
    )


def _vehicles(recipe: Recipe) -> _Columns:
    """Cars and lorries on the first road, in two lanes."""
    count = _SLOTS[4]
    cosine, sine, offset = road_frame(recipe)
    half = recipe.road_m[:, 0]
    lane = np.where(draw(recipe.seeds, "lane", count) < 0.5, -0.45, 0.45)
    u = between(draw(recipe.seeds, "vehicle place", count), -0.55, 0.55) * _wide(recipe.extent_m)
    v = _wide(offset[:, 0]) + lane * _wide(half)
    way = np.where(lane > 0, 1.0, -1.0)
    long = np.where(draw(recipe.seeds, "lorry", count) < 0.25, 6.0, 2.3)
    c, s = _wide(cosine[:, 0]), _wide(sine[:, 0])
    crawl = between(draw(recipe.seeds, "vehicle speed", count), 1.0, 9.0)
    return _columns(
        recipe,
        4,
        x=u * c - v * s,
        y=u * s + v * c,
        cosine=c * way,
        sine=s * way,
        length_m=long,
        width_m=np.where(long > 3, 1.25, 0.95),
        height_m=np.where(long > 3, 3.0, 1.5),
        material=code_of("paint"),
        tone=draw(recipe.seeds, "vehicle tone", count) * 255,
        there=_wide(half > 2.6) & (draw(recipe.seeds, "vehicle", count) < _wide(draw(recipe.seeds, "traffic"))),
        speed_mps=crawl,
    )


def _fits(recipe: Recipe, columns: _Columns) -> NDArray[np.bool_]:
    """True for what is wide enough to be told, and not larger than the tile."""
    narrow = 2.0 * np.minimum(columns["length_m"], columns["width_m"]) / _wide(recipe.gsd_m)
    fits: NDArray[np.bool_] = narrow >= _SMALLEST_PX[SLOT_CLASS]
    return fits & (2.0 * columns["length_m"] < 0.8 * _wide(recipe.extent_m))


def _on_its_ground(columns: _Columns, sample: Callable[[NDArray[np.float32]], NDArray[np.uint8]]) -> NDArray[np.bool_]:
    """True for ships that are in water all along, and for other things that are not."""
    spots = np.array([(0, 0), (1.15, 0), (-1.15, 0), (0.6, 1.4), (0.6, -1.4), (-0.6, 1.4), (-0.6, -1.4)])
    u, v = columns["length_m"][..., None] * spots[:, 0], columns["width_m"][..., None] * spots[:, 1]
    c, s = columns["cosine"][..., None], columns["sine"][..., None]
    points = np.stack([columns["x"][..., None] + u * c - v * s, columns["y"][..., None] + u * s + v * c], axis=-1)
    count, slots, each, _ = points.shape
    wet = (sample(points.reshape(count, slots * each, 2).astype(np.float32)) == WATER).reshape(count, slots, each)
    return np.asarray(np.where(slots_of("ship"), wet.all(axis=2), ~wet.any(axis=2)))


def _overlaps(columns: _Columns, present: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """True for what comes too near to a thing of an earlier slot; buildings keep their plots."""
    reach = np.sqrt(columns["length_m"] ** 2 + columns["width_m"] ** 2) * 1.05
    east, south = (columns[name][:, :, None] - columns[name][:, None, :] for name in ("x", "y"))
    near = east * east + south * south < (reach[:, :, None] + reach[:, None, :]) ** 2
    earlier = np.tril(np.ones((SLOTS, SLOTS), bool), -1)
    taken: NDArray[np.bool_] = (near & earlier & present[:, None, :]).any(axis=2)
    return taken & (columns["room"] > 0)


def _is_inside(recipe: Recipe, x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.bool_]:
    """True where the middle lies in the tile and not at its very edge."""
    half = recipe.extent_m[:, None, None] / 2 - 1.5 * recipe.gsd_m[:, None, None]
    return (np.abs(x) < half) & (np.abs(y) < half)


def _stays(recipe: Recipe) -> NDArray[np.bool_]:
    """(tile, slot, date): ships and vehicles come and go between the dates of a series, not between frames."""
    if recipe.moving or recipe.dates == 1:
        return np.ones((recipe.count, SLOTS, recipe.dates), bool)
    mobile = slots_of("ship", "aircraft", "vehicle")
    return (draw(recipe.seeds, "stays", SLOTS, recipe.dates) < 0.6) | ~mobile[None, :, None]
