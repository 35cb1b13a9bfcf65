"""What is true of a drawn tile as a sensor sees it: shares, cells, things, what happened. Questions are made of it.

Facts count what can be seen: under clouds (which radar looks through) and beyond the swath nothing is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

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
    radar: bool
    """True where the facts are those that radar sees."""

    def tellable(self, label: str) -> bool:
        """True where a thing of this class could be told at the tile's ground distance, and is told one by one."""
        if label == "building" and self.spread_town:
            return False
        return self.gsd_m <= COARSEST_M[label]

    def of(self, label: str, date: int = 0) -> list[Thing]:
        """The things of a class on a date, from the top down, then from the left."""
        return [thing for thing in self.things[date] if thing.label == label]


def facts_of(tiles: Tiles, *, radar: bool = False) -> list[Facts]:
    """The facts of each tile of a batch.

    Args:
        tiles: The batch.
        radar: True where a radar is among the sensors: it looks through clouds.
    """
    recipe = tiles.recipe
    seen = tiles.seen(radar=radar)
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
            radar=radar,
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
