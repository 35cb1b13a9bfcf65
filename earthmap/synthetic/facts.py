"""What is true of a drawn tile as sensors see it: shares, cells, things, what happened. Questions are made of it.

Facts count what can be seen: under clouds (which radar looks through) and beyond the swath nothing is known. They say
which classes the sensors can tell at all: no radar knows burnt ground from bare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from earthmap.sensors.bands import THERMAL_BANDS
from earthmap.sensors.registry import get_sensor
from earthmap.synthetic.objects import OBJECT_CLASSES, SLOT_CLASS, SLOTS, Objects
from earthmap.synthetic.recipes import EVENTS, KIND_NAMES
from earthmap.synthetic.tiles import Tiles, patch_shares
from earthmap.synthetic.truth import CLASSES

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

CELLS = 32
"""Cells along one side of a tile in which shares are counted."""

VISIBLE_SHARE = 0.6
"""Share of a thing that must be seen for it to be counted."""

COARSEST_M = {"building": 20.0, "ship": 100.0, "storage tank": 20.0, "aircraft": 12.0, "vehicle": 0.7}
"""Ground distance beyond which nobody could tell a thing of this class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """A thing on one date."""

    label: str
    """One of OBJECT_CLASSES."""
    slot: int
    """Its number in the tile: the same on every date."""
    outline: NDArray[np.float64]
    oriented_box: NDArray[np.float64]
    """(corner, 2) in tile coordinates, x to the right and y down, 0 to 1 where it lies inside."""
    seen: bool
    """True where most of it can be seen."""
    grade: int
    """Grade of damage, 0 for none."""

    middle: tuple[float, float]
    """Of the oriented box: x, y."""
    area: float
    """Of the oriented box, as a share of the tile's."""

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom within the tile."""
        low, high = np.clip(self.outline.min(axis=0), 0, 1), np.clip(self.outline.max(axis=0), 0, 1)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is true of one tile."""

    seed: int
    gsd_m: float
    kind: str
    """Row of `earthmap.synthetic.recipes.KINDS`."""
    dates: int
    moving: bool
    seen: NDArray[np.float64]
    """(date,) share of the tile that can be seen."""
    shares: NDArray[np.float64]
    """(date, class) share of the seen ground, 0 where nothing is seen."""
    cells: NDArray[np.float32]
    """(date, class, CELLS, CELLS) share of each cell that shows the class: what is hidden shows nothing."""
    changed: NDArray[np.float32]
    """(class, way, CELLS, CELLS) share of each cell that was gained (0) or lost (1) between the first and last date."""
    things: tuple[tuple[Thing, ...], ...]
    """By date, from the top down, then from the left."""
    river: float
    """Share of the tile that is a river's water on the first date."""
    spread_town: bool
    """True where there are houses that are not told apart."""
    event: str
    """One of EVENTS: what happened between the first and the last date, and can be seen."""
    since: int
    """First date that shows it."""
    sensors: tuple[str, ...]
    """Rows of `earthmap.sensors.registry` that look at it."""
    classes: tuple[str, ...]
    """Land cover that they can tell, of CLASSES."""
    labels: tuple[str, ...]
    """Classes of things that they can tell, of OBJECT_CLASSES."""

    def tellable(self, label: str) -> bool:
        """True where a thing of this class could be told at the tile's ground distance, and is told one by one."""
        if label not in self.labels or (label == "building" and self.spread_town):
            return False
        return self.gsd_m <= COARSEST_M[label]

    def share(self, name: str, date: int = 0) -> float:
        """Share of the seen ground that a class covers."""
        return float(self.shares[date][CLASSES.index(name)])

    def of(self, label: str, date: int = 0) -> list[Thing]:
        """The things of a class on a date, from the top down, then from the left."""
        return [thing for thing in self.things[date] if thing.label == label]


_RADAR = (("water", "vegetation", "bare", "built-up"), ("building", "ship", "storage tank", "aircraft"))
_THERMAL = (("water", "snow"), ("building", "ship", "storage tank"))
_OPTICAL = (CLASSES, OBJECT_CLASSES)
"""Land cover and things that a kind of sensor can tell."""


def told_by(sensors: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Land cover and classes of things that these sensors can tell together. Raises SensorError for an unknown one.

    Example:
        >>> told_by(("sentinel-1-rtc",))[0]
        ('water', 'vegetation', 'bare', 'built-up')
    """
    kinds = []
    for name in sensors:
        row = get_sensor(name)
        kinds.append(_RADAR if row.is_sar else _THERMAL if set(row.bands) <= set(THERMAL_BANDS) else _OPTICAL)
    classes, labels = (frozenset(name for kind in kinds for name in kind[part]) for part in (0, 1))
    return tuple(name for name in CLASSES if name in classes), tuple(name for name in OBJECT_CLASSES if name in labels)


def facts_of(tiles: Tiles, *, sensors: Sequence[str] = ("sentinel-2-l2a",)) -> list[Facts]:
    """The facts of each tile of a batch.

    Args:
        tiles: The batch.
        sensors: Rows of `earthmap.sensors.registry` that look at it. Where a radar is among them the ground under
            clouds is seen, by it alone: a tile with clouds is then told by the radar's classes.

    Raises:
        SensorError: for a sensor that is not there, or none.
    """
    recipe = tiles.recipe
    radars = tuple(name for name in sensors if get_sensor(name).is_sar)
    seen = tiles.seen(radar=bool(radars))
    told = [told_by(sensors)] * recipe.count
    if radars and len(radars) < len(sensors):
        covered = (tiles.seen() != seen).flatten(1).any(dim=1).tolist()
        told = [told_by(radars if is_covered else sensors) for is_covered in covered]
    shown = tiles.cover * seen
    cell = recipe.side_px // CELLS
    cells = patch_shares(shown, patch_px=cell, classes=len(CLASSES)).cpu().numpy()
    changed = _changes(tiles, seen, cell)
    visible = _visible(tiles.instances.cpu().numpy(), seen.cpu().numpy())
    seen_share = seen.flatten(2).sum(dim=2).cpu().numpy() / recipe.side_px**2
    rivers = tiles.river.flatten(1).sum(dim=1).cpu().numpy() / tiles.river[0].numel()
    shares = cells.astype(np.float64).mean(axis=(3, 4)) / np.maximum(seen_share, 1e-9)[:, :, None]
    return [
        Facts(
            seed=int(recipe.seeds[tile]),
            gsd_m=float(recipe.gsd_m[tile]),
            kind=KIND_NAMES[recipe.kind[tile]],
            dates=recipe.dates,
            moving=recipe.moving,
            seen=seen_share[tile],
            shares=shares[tile],
            cells=cells[tile],
            changed=changed[tile],
            things=_things(tiles, tile, visible[tile]),
            river=float(rivers[tile]),
            spread_town=bool(recipe.town[tile] > 0 and not recipe.hamlet[tile]),
            event=EVENTS[tiles.happening.event[tile]],
            since=int(tiles.happening.since[tile]),
            sensors=tuple(sensors),
            classes=told[tile][0],
            labels=told[tile][1],
        )
        for tile in range(recipe.count)
    ]


def _changes(tiles: Tiles, seen: Tensor, cell: int) -> NDArray[np.float32]:
    """(tile, class, way, CELLS, CELLS) shares of cells gained and lost, where both dates are seen."""
    count = tiles.recipe.count
    if tiles.recipe.dates == 1 or tiles.recipe.moving:
        return np.zeros((count, len(CLASSES), 2, CELLS, CELLS), np.float32)
    first, last = tiles.cover[:, 0], tiles.cover[:, -1]
    known = (first != last) & seen[:, 0] & seen[:, -1]
    gained = patch_shares(last * known, patch_px=cell, classes=len(CLASSES))
    lost = patch_shares(first * known, patch_px=cell, classes=len(CLASSES))
    return np.stack([gained.cpu().numpy(), lost.cpu().numpy()], axis=2)


def _visible(instances: NDArray[np.uint8], seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(tile, date, slot) True where most of a thing's pixels can be seen, and it has any."""
    count, dates = instances.shape[:2]
    planes = np.arange(count * dates).reshape(count, dates, 1, 1) * (SLOTS + 1)
    place = (planes + instances).ravel()
    size = count * dates * (SLOTS + 1)
    whole = np.bincount(place, minlength=size).reshape(count, dates, -1)[:, :, 1:]
    shown = np.bincount(place[seen.ravel()], minlength=size).reshape(count, dates, -1)[:, :, 1:]
    return (shown >= VISIBLE_SHARE * whole) & (whole > 0)


def _things(tiles: Tiles, tile: int, visible: NDArray[np.bool_]) -> tuple[tuple[Thing, ...], ...]:
    objects, extent = tiles.objects, float(tiles.recipe.extent_m[tile])
    found = []
    for date in range(tiles.recipe.dates):
        slots = np.flatnonzero(objects.present[tile, :, date]).tolist()
        things = [_thing(objects, (tile, slot, date), extent, bool(visible[date, slot])) for slot in slots]
        found.append(tuple(sorted(things, key=lambda thing: (round(thing.middle[1], 3), thing.middle[0]))))
    return tuple(found)


def _thing(objects: Objects, place: tuple[int, int, int], extent: float, seen: bool) -> Thing:
    tile, slot, date = place
    return Thing(
        label=OBJECT_CLASSES[SLOT_CLASS[slot]],
        slot=slot,
        outline=objects.outline(tile, slot, date) / extent + 0.5,
        oriented_box=objects.oriented_box(tile, slot, date) / extent + 0.5,
        seen=seen,
        grade=int(objects.grade[tile, slot, date]),
        middle=(float(objects.x[tile, slot, date]) / extent + 0.5, float(objects.y[tile, slot, date]) / extent + 0.5),
        area=4.0 * float(objects.length_m[tile, slot]) * float(objects.width_m[tile, slot]) / extent**2,
    )


def direction_of(cells: NDArray[np.float32]) -> str | None:
    """Where most of what fills `cells` lies: `north`, `south-east` …; None where it has no side of its own."""
    total = float(cells.sum())
    if total <= 0:
        return None
    place = (np.arange(len(cells)) + 0.5) / len(cells) - 0.5
    x = float((cells.sum(axis=0) * place).sum()) / total
    y = float((cells.sum(axis=1) * place).sum()) / total
    return direction(x, y)


def direction(x: float, y: float) -> str | None:
    """The word for a place `x` to the right and `y` down of the middle, in shares of the side; None near the middle."""
    if max(abs(x), abs(y)) < 0.12:
        return None
    vertical = "north" if y < 0 else "south"
    horizontal = "west" if x < 0 else "east"
    if abs(y) > 2.0 * abs(x):
        return vertical
    return horizontal if abs(x) > 2.0 * abs(y) else f"{vertical}-{horizontal}"
