"""Recipes: the few numbers that say what a tile will show, drawn from its seed alone.

A kind of place (a row of `KINDS`) gives ranges; a tile's seed chooses within them. Everything is an array over the
tiles of a batch, in metres and shares, so that drawing a batch needs no loop over tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.errors import CatalogError
from earthmap.synthetic.draws import between, between_scales, draw, each
from earthmap.synthetic.spectra import code_of
from earthmap.tasks.vocabulary import CHANGES

if TYPE_CHECKING:
    from numpy.typing import NDArray

GSD_M = (0.3, 100.0)
"""Ground distances that can be drawn, in metres."""

MAX_DATES = 16
"""Most dates or frames of a tile."""

MAX_SIDE_PX = 512
"""Most pixels along one side of a tile."""

EVENTS = (*CHANGES, "landslide", "building damage")
"""What can happen between two dates, by code; 0 is no change."""

ROADS = 3
"""Roads that cross a tile at most, beside streets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One row of `KINDS`: ranges of shares of the tile, and probabilities."""

    name: str
    weight: float
    """How often it is drawn, against the other rows."""
    wood: tuple[float, float] = (0.0, 0.0)
    """Share under trees."""
    parcels: float = 0.0
    """Probability of fields."""
    dry: float = 0.1
    """Probability that open ground is bare and not grass."""
    river: float = 0.0
    """Probability of a river."""
    lakes: tuple[float, float] = (0.0, 0.0)
    """Probability of lakes, and the most that they cover."""
    sea: tuple[float, float] = (0.0, 0.0)
    """Share under the sea."""
    roads: float = 0.0
    """Probability of each of the roads."""
    town: tuple[float, float] = (0.0, 0.0)
    """Share of settlement."""
    rock: tuple[float, float] = (0.0, 0.0)
    """Share of rock."""
    snow: tuple[float, float] = (0.0, 0.0)
    """Share under snow."""
    burnt: tuple[float, float] = (0.0, 0.0)
    """Share of the land that burnt earlier."""
    yard: float = 0.0
    """Probability of a paved yard, with tanks or aircraft on it."""
    aircraft: bool = False
    """What stands on the yard: aircraft, else tanks."""


_ROWS = (
    Kind(
        name="countryside",
        weight=0.20,
        wood=(0.0, 0.5),
        parcels=0.9,
        river=0.35,
        lakes=(0.3, 0.12),
        roads=0.4,
        town=(0.0, 0.15),
        burnt=(-0.6, 0.15),
    ),
    Kind(name="forest", weight=0.09, wood=(0.55, 1.0), parcels=0.1, river=0.3, lakes=(0.3, 0.15), roads=0.15),
    Kind(
        name="town",
        weight=0.15,
        wood=(0.0, 0.25),
        parcels=0.4,
        river=0.25,
        lakes=(0.15, 0.06),
        roads=0.5,
        town=(0.3, 1.15),
        dry=0.2,
    ),
    Kind(
        name="industry",
        weight=0.06,
        wood=(0.0, 0.2),
        parcels=0.4,
        river=0.2,
        roads=0.5,
        town=(-0.1, 0.2),
        yard=1.0,
        dry=0.3,
    ),
    Kind(name="airport", weight=0.05, wood=(0.0, 0.15), parcels=0.3, roads=0.2, yard=1.0, aircraft=True, dry=0.3),
    Kind(
        name="coast",
        weight=0.13,
        wood=(0.0, 0.5),
        parcels=0.4,
        river=0.1,
        sea=(0.12, 0.88),
        roads=0.3,
        town=(-0.2, 0.35),
        dry=0.3,
    ),
    Kind(name="sea", weight=0.06, sea=(1.0, 1.0)),
    Kind(name="wetland", weight=0.06, wood=(0.0, 0.4), parcels=0.4, lakes=(1.0, 0.45), river=0.3, roads=0.15),
    Kind(
        name="mountain",
        weight=0.10,
        wood=(0.1, 0.6),
        lakes=(0.2, 0.06),
        river=0.2,
        rock=(0.1, 0.6),
        snow=(-0.2, 0.5),
        dry=0.3,
    ),
    Kind(name="desert", weight=0.06, rock=(-0.2, 0.5), roads=0.1, dry=1.0),
    Kind(name="snow field", weight=0.06, snow=(0.6, 1.05), rock=(0.0, 0.2), dry=0.5),
    Kind(name="burnt land", weight=0.09, wood=(0.3, 0.9), river=0.2, roads=0.2, burnt=(0.2, 0.8)),
    Kind(name="pasture", weight=0.02, wood=(-0.1, 0.05), dry=0.0),
    Kind(name="ploughed land", weight=0.02, dry=1.0, parcels=0.3),
)

KINDS = {row.name: row for row in _ROWS}
"""Kinds of places by name."""

KIND_NAMES = tuple(KINDS)
"""Their names in the order of their codes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a batch of tiles will show; arrays over tiles, (tile, date) where weather or time is meant."""

    seeds: NDArray[np.int64]
    side_px: int
    """Pixels along one side of the picture."""
    dates: int
    """Dates of each tile, or frames."""
    moving: bool
    """True for frames of a video, seconds apart: things move and nothing else changes."""
    gsd_m: NDArray[np.float32]
    """Ground distance of a pixel in metres."""
    kind: NDArray[np.int64]
    """Codes of `KIND_NAMES`."""
    wood: NDArray[np.float32]
    burnt: NDArray[np.float32]
    rock: NDArray[np.float32]
    snow: NDArray[np.float32]
    lakes: NDArray[np.float32]
    sea: NDArray[np.float32]
    town: NDArray[np.float32]
    """Shares of the tile."""
    ground: NDArray[np.uint8]
    """Material of open ground."""
    parcels: NDArray[np.bool_]
    parcel_m: NDArray[np.float32]
    """Narrow side of a field; the long one is 1 to 3 times as long."""
    river_m: NDArray[np.float32]
    """Half the width of the river, 0 for none."""
    road_m: NDArray[np.float32]
    """(tile, road) half the width of each road, 0 for none."""
    plot_m: NDArray[np.float32]
    """Side of a building's plot."""
    hamlet: NDArray[np.bool_]
    """True where the settlement is made of buildings that are told apart one by one."""
    yard: NDArray[np.bool_]
    muddy: NDArray[np.bool_]
    """True where rivers and lakes carry silt."""

    @property
    def count(self) -> int:
        """Tiles of the batch."""
        return len(self.seeds)

    @property
    def extent_m(self) -> NDArray[np.float32]:
        """Side of each tile in metres."""
        return self.gsd_m * np.float32(self.side_px)

    def some(self, chosen: NDArray[np.bool_]) -> Recipe:
        """The recipe of the chosen tiles alone."""
        parts: dict[str, Any] = {}
        for field in fields(self):
            part = getattr(self, field.name)
            parts[field.name] = part[chosen] if isinstance(part, np.ndarray) else part
        return Recipe(**parts)

    def kind_is(self, *names: str) -> NDArray[np.bool_]:
        """True for tiles of one of these kinds."""
        return np.isin(self.kind, [KIND_NAMES.index(name) for name in names])


def plan_tiles(
    seeds: Sequence[int] | NDArray[np.int64],
    *,
    side_px: int = 128,
    dates: int = 1,
    gsd_m: tuple[float, float] = (10.0, 10.0),
    moving: bool = False,
) -> Recipe:
    """The recipes of a batch of tiles.

    Args:
        seeds: One for each tile; the same seed with the same other arguments is the same tile in any batch.
        side_px: Pixels along one side, a multiple of 32.
        dates: 1 for a picture, 2 for a pair, more for a series or the frames of a video.
        gsd_m: Lowest and highest ground distance in metres; drawn evenly on a logarithmic scale.
        moving: True for a video.

    Raises:
        CatalogError: for what cannot be drawn.
    """
    numbers = np.asarray(seeds, np.int64).reshape(-1)
    low, high = gsd_m
    if (
        not 32 <= side_px <= MAX_SIDE_PX
        or side_px % 32
        or not 1 <= dates <= MAX_DATES
        or not GSD_M[0] <= low <= high <= GSD_M[1]
    ):
        raise CatalogError(
            f"tiles of {side_px} pixels, {dates} dates and {low} to {high} m",
            expected=f"a multiple of 32 up to {MAX_SIDE_PX}, 1 to {MAX_DATES} dates, and {GSD_M[0]} to {GSD_M[1]} m",
        )
    gsd = _rounded(between_scales(draw(numbers, "gsd"), low, high)) if low < high else np.full(len(numbers), low, "f4")
    kind = _kinds(numbers, gsd)
    shares = _shares(numbers, kind)
    extent = gsd * np.float32(side_px)
    return Recipe(
        seeds=numbers,
        side_px=side_px,
        dates=dates,
        moving=moving,
        gsd_m=gsd,
        kind=kind,
        ground=_open_ground(numbers, kind),
        **_layout(numbers, kind, gsd=gsd, extent=extent, town=shares["town"]),
        **shares,
    )


def _rounded(gsd: NDArray[np.float32]) -> NDArray[np.float32]:
    """Ground distances to two digits."""
    return each(lambda value: float(f"{value:.2g}"), gsd).astype(np.float32)


def _of_kind(kind: NDArray[np.int64], name: str) -> NDArray[np.float32]:
    """A column of `KINDS` for each tile; two numbers of a pair along axis 1."""
    return np.array([getattr(row, name) for row in _ROWS], np.float32)[kind]


def _kinds(seeds: NDArray[np.int64], gsd: NDArray[np.float32]) -> NDArray[np.int64]:
    """Codes of kinds. Where single things can be seen, places with things are twice as frequent."""
    weights = np.repeat(np.array([[row.weight for row in _ROWS]]), len(seeds), axis=0)
    full = [KIND_NAMES.index(name) for name in ("town", "industry", "airport", "coast")]
    weights[:, full] *= np.where(gsd < 12.0, 2.0, 1.0)[:, None]
    edges = np.cumsum(weights, axis=1)
    return np.asarray((draw(seeds, "kind")[:, None] * edges[:, -1:] >= edges[:, :-1]).sum(axis=1))


def _shares(seeds: NDArray[np.int64], kind: NDArray[np.int64]) -> dict[str, Any]:
    found = {}
    for name in ("wood", "burnt", "rock", "snow", "sea", "town"):
        low, high = _of_kind(kind, name).T
        found[name] = np.clip(between(draw(seeds, name), low, high), 0.0, 1.0)
    chance, most = _of_kind(kind, "lakes").T
    is_there, size = draw(seeds, "lakes", 2).T
    found["lakes"] = np.where(is_there < chance, 0.004 + size * size * most, 0.0).astype(np.float32)
    return found


def _open_ground(seeds: NDArray[np.int64], kind: NDArray[np.int64]) -> NDArray[np.uint8]:
    is_dry, which = draw(seeds, "ground", 2).T
    dry = np.array([code_of(name) for name in ("bare", "dark soil", "stubble", "sand")], np.uint8)
    soil = dry[np.minimum((which * 4).astype(np.int64), 3)]
    desert = np.where(which < 0.65, code_of("sand"), code_of("bare"))
    soil = np.where(kind == KIND_NAMES.index("desert"), desert, soil)
    return np.where(is_dry < _of_kind(kind, "dry"), soil, code_of("grass")).astype(np.uint8)


def _layout(
    seeds: NDArray[np.int64],
    kind: NDArray[np.int64],
    *,
    gsd: NDArray[np.float32],
    extent: NDArray[np.float32],
    town: NDArray[np.float32],
) -> dict[str, Any]:
    """Lengths in metres and what there is of each thing."""
    chance, size = draw(seeds, "layout chance", 5).T, draw(seeds, "layout size", 4).T
    river = np.minimum(between_scales(size[0], 6.0, 300.0), 0.12 * extent)
    river = np.where((chance[0] < _of_kind(kind, "river")) & (river > 0.7 * gsd), river, 0.0)
    roads = between_scales(draw(seeds, "road width", ROADS), 2.2, 14.0)
    is_road = draw(seeds, "road", ROADS) < _of_kind(kind, "roads")[:, None]
    parcel = np.maximum(between_scales(size[1], 35.0, 420.0), 5.0 * gsd)
    plot = np.maximum(between(size[2], 22.0, 46.0), between(size[3], 6.0, 13.0) * gsd)
    objects = (gsd <= 20.0) & (chance[2] < np.where(gsd < 3.0, 1.0, 0.45))
    builds = (town > 0) | ((kind == KIND_NAMES.index("industry")) & (chance[4] < 0.6))
    return {
        "river_m": river.astype(np.float32),
        "road_m": np.where(is_road & (roads > 0.2 * gsd[:, None]), roads, 0.0).astype(np.float32),
        "parcels": (chance[1] < _of_kind(kind, "parcels")) & (parcel < 0.7 * extent),
        "parcel_m": parcel,
        "hamlet": objects & builds,
        "plot_m": np.where(objects, plot, between(size[2], 22.0, 46.0)).astype(np.float32),
        "yard": (draw(seeds, "yard") < _of_kind(kind, "yard")),
        "muddy": chance[3] < 0.35,
    }
