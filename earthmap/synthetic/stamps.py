"""Things drawn on the fine lattice of a batch: themselves, and what they cast, each in a small square of its own.

All squares of one size are computed at once; where two things meet the higher slot is seen.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.synthetic.land import FINE
from earthmap.synthetic.objects import CIRCLE, CORNER, CROSS, SHIP, Objects
from earthmap.synthetic.recipes import Recipe
from earthmap.synthetic.spectra import code_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

ZONES = 4
"""Parts of a thing that may look different: its two sides, and a patch on each."""

_SQUARES = (12, 18, 28, 42, 64, 96, 144, 216, 324, 486, 730, 1096, 1644)
"""Fine pixels along one side of the squares that things are drawn in."""


@functools.lru_cache(maxsize=32)
def _square(side: int, device: str) -> Tensor:
    """(side × side, 2) whole fine pixels from a square's middle: x, y."""
    import torch

    place = torch.arange(side, device=device) - side // 2
    return torch.stack(torch.meshgrid(place, place, indexing="xy"), dim=-1).reshape(-1, 2)


def _is_in(shape: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """True inside each shape; `u`, `v` in half lengths and half widths."""
    au, av = u.abs(), v.abs()
    box = (au <= 1) & (av <= 1)
    inside = box & ~((shape == CORNER) & (u > 0.1) & (v > 0.1))
    inside &= ~((shape == SHIP) & (av > (1.0 - u) * 2.5))
    inside &= ~((shape == CIRCLE) & (u * u + v * v > 1.0))
    wing = (u < 0.25 - (av - 0.1) * 0.5) & (u > -0.15 - (av - 0.1) * (0.25 / 0.9))
    return inside & ~(
        (shape == CROSS) & ~((av <= 0.1) | wing | ((u < -0.8) & (av < 0.1 + (-0.8 - u) * 2.5) & (av <= 0.35)))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """The things that are there, one row each: tensors (row, 1)."""

    plane: Tensor
    """Which (tile, date) it lies in."""
    slot: Tensor
    shape: Tensor
    x: Tensor
    y: Tensor
    """Place in fine pixels."""
    cosine: Tensor
    sine: Tensor
    length: Tensor
    width: Tensor
    """Half sizes in fine pixels."""


def _rows(objects: Objects, recipe: Recipe, chosen: tuple[NDArray[Any], ...], device: str) -> _Rows:
    """Rows of the chosen (tile, slot, date)."""
    import torch

    tile, slot, date = chosen
    fine = recipe.gsd_m[tile] / FINE
    half = FINE * recipe.side_px / 2

    def row(values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device)[:, None]

    return _Rows(
        plane=row(tile * recipe.dates + date),
        slot=row(slot),
        shape=row(objects.shape[tile, slot]),
        x=row(objects.x[tile, slot, date] / fine + half),
        y=row(objects.y[tile, slot, date] / fine + half),
        cosine=row(objects.cosine[tile, slot]),
        sine=row(objects.sine[tile, slot]),
        length=row(np.maximum(objects.length_m[tile, slot] / fine, 0.6)),
        width=row(np.maximum(objects.width_m[tile, slot] / fine, 0.6)),
    )


def stamp(objects: Objects, recipe: Recipe, device: str = "cpu") -> Tensor:
    """(tile, date, y, x) uint8 on the fine lattice: 0 for ground, else ZONES × (slot + 1) + zone.

    The zone's first bit is the side across the length, its second a patch in the middle of each side.
    """

    def zones(rows: _Rows, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        patch = ((u + 0.2).abs() < 0.45) & ((v.abs() - 0.5).abs() < 0.3)
        return _is_in(rows.shape, u, v), (rows.slot + 1) * ZONES + (v > 0) * 1 + patch * 2

    return _stamped(objects, recipe, (objects.present, np.zeros_like(objects.length_m)), zones, device)


def cast(
    objects: Objects,
    recipe: Recipe,
    *,
    reach_m: NDArray[np.float32],
    way: tuple[NDArray[np.float32], NDArray[np.float32]],
    device: str = "cpu",
) -> Tensor:
    """(tile, date, y, x) uint8: 1 where a thing's box passes when it is moved by up to `reach_m` along `way`.

    Args:
        objects: The things; what is no higher than the ground casts nothing.
        recipe: Their batch.
        reach_m: (tile, slot) how far: a shadow's length, or a layover's.
        way: (tile,) x and y of the direction, of length 1.
        device: Where.
    """
    import torch

    def swept(rows: _Rows, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        tile = (rows.plane // recipe.dates).flatten().cpu().numpy()
        slot = rows.slot.flatten().cpu().numpy()
        reach = reach_m[tile, slot] / (recipe.gsd_m[tile] / FINE)
        moved = [torch.from_numpy(np.ascontiguousarray(way[axis][tile] * reach)).to(device)[:, None] for axis in (0, 1)]
        du = (moved[0] * rows.cosine + moved[1] * rows.sine) / rows.length
        dv = (moved[1] * rows.cosine - moved[0] * rows.sine) / rows.width
        first, last = _crossing(u, du)
        second, end = _crossing(v, dv)
        hit = torch.maximum(first, second).clamp(min=0.0) <= torch.minimum(last, end).clamp(max=1.0)
        return hit, torch.ones_like(rows.slot)

    return _stamped(objects, recipe, (objects.present & (reach_m > 0)[:, :, None], reach_m), swept, device)


def _crossing(place: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """When a unit interval that moves by `step` in a unit of time covers `place`: from, to."""
    import torch

    safe = torch.where(step.abs() < 1e-4, torch.full_like(step, 1e-4), step)
    one, other = (place - 1.0) / safe, (place + 1.0) / safe
    return torch.minimum(one, other), torch.maximum(one, other)


def _stamped(
    objects: Objects,
    recipe: Recipe,
    there: tuple[NDArray[np.bool_], NDArray[np.float32]],
    codes: Callable[[_Rows, Tensor, Tensor], tuple[Tensor, Tensor]],
    device: str,
) -> Tensor:
    """A canvas on which each thing's square was laid; where two meet the higher code stays.

    `there`: (tile, slot, date) what is laid, and (tile, slot) how far it reaches beyond itself in metres.
    """
    import torch

    present, reach_m = there
    side = FINE * recipe.side_px
    canvas = torch.zeros(recipe.count * recipe.dates * side * side, dtype=torch.uint8, device=device)
    chosen = np.nonzero(present)
    fine = recipe.gsd_m[chosen[0]] / FINE
    size = np.sqrt(objects.length_m**2 + objects.width_m**2) + reach_m
    needed = 2.0 * (size[chosen[0], chosen[1]] / fine) + 4.0
    lower = 0
    for upper in (*_SQUARES, 8 * side):
        mine = (needed > lower) & (needed <= upper)
        lower = upper
        if mine.any():
            rows = _rows(objects, recipe, tuple(axis[mine] for axis in chosen), device)
            _lay(canvas, rows, _square(min(upper, 2 * side), device), side, codes)
    return canvas.view(recipe.count, recipe.dates, side, side)


def _lay(
    canvas: Tensor,
    rows: _Rows,
    square: Tensor,
    side: int,
    codes: Callable[[_Rows, Tensor, Tensor], tuple[Tensor, Tensor]],
) -> None:
    """Lay the squares of some things on the canvas."""
    import torch

    column, line = rows.x.floor().long() + square[:, 0], rows.y.floor().long() + square[:, 1]
    dx, dy = column + 0.5 - rows.x, line + 0.5 - rows.y
    u = (dx * rows.cosine + dy * rows.sine) / rows.length
    v = (dy * rows.cosine - dx * rows.sine) / rows.width
    inside, code = codes(rows, u, v)
    inside = inside & (column >= 0) & (column < side) & (line >= 0) & (line < side)
    place = ((rows.plane * side + line) * side + column)[inside]
    values = code.expand_as(inside)[inside].to(torch.uint8)
    canvas.scatter_reduce_(0, place, values, "amax")


def paint_tables(objects: Objects) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(tile × date, 256) material and tone of each code of `stamp`; damage shows by its grade."""
    count, slots, dates = objects.present.shape
    code = (np.arange(slots)[:, None] + 1) * ZONES + np.arange(ZONES)  # (slot, zone)
    side, patch = np.arange(ZONES) & 1, np.arange(ZONES) >> 1
    material = np.broadcast_to(objects.material[:, None, :, None], (count, dates, slots, ZONES))
    shade = np.where(side == 1, -16, 10) + patch * 4
    tone = np.clip(objects.tone[:, None, :, None].astype(np.int64) + shade, 0, 255)
    tone = np.broadcast_to(tone, material.shape)
    grade = objects.grade.transpose(0, 2, 1)[..., None]
    broken = (grade == 3) | ((grade == 2) & ((side == 1) | (patch == 1)))
    covered = (grade == 1) & (side == 0) & (patch == 1)
    material = np.where(broken, code_of("rubble"), np.where(covered, code_of("tarpaulin"), material))
    tone = np.where(broken, np.clip(60 + 45 * side + 70 * patch, 0, 255), tone)
    tables = [np.zeros((count * dates, 256), np.uint8) for _ in range(2)]
    for table, values in zip(tables, (material, tone), strict=True):
        table[:, code.reshape(-1)] = values.reshape(count * dates, -1)
    return tables[0], tables[1]
