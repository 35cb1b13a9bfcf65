"""What a radar sees of drawn tiles: backscatter by material and incidence, speckle, and the edges of buildings."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np

from earthmap.synthetic.draws import between, directions, draw, each, noise
from earthmap.synthetic.land import FINE, column
from earthmap.synthetic.objects import SLOT_CLASS, slots_of
from earthmap.synthetic.optics import material_index, mean_of_fine
from earthmap.synthetic.recipes import Recipe
from earthmap.synthetic.sky import by_date
from earthmap.synthetic.spectra import MATERIAL_NAMES, backscatter_ends, cover_of_material
from earthmap.synthetic.stamps import ZONES, cast
from earthmap.synthetic.tiles import Tiles
from earthmap.synthetic.truth import WATER

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_STEP_DB, _LOWEST_DB = 0.05, -70.0
_STEPS = 2400
"""Decibels become power by a table: a power of ten does not round alike everywhere."""

FLOOR_DB = {"vv": -26.0, "vh": -30.0}
"""Noise-equivalent sigma0 of the dark end (Sentinel-1 product definition: −22 dB at worst)."""

MAX_LOOKS = 16


@functools.lru_cache(maxsize=4)
def _powers(device: str) -> Tensor:
    import torch

    decibels = np.arange(_STEPS) * _STEP_DB + _LOWEST_DB
    return torch.from_numpy(np.power(10.0, decibels / 10.0).astype(np.float32)).to(device)


def _power(decibels: Tensor) -> Tensor:
    """Linear power of decibels, to a twentieth of one."""
    steps = ((decibels - _LOWEST_DB) * (1.0 / _STEP_DB)).clamp(0, _STEPS - 1).long()
    return _powers(str(decibels.device)).index_select(0, steps.flatten()).view(decibels.shape)


def looks_of(recipe: Recipe) -> NDArray[np.int64]:
    """(tile,) looks of each tile's speckle: 4 or 5 at 10 m as Sentinel-1's detected products, more where coarser."""
    base = 1 + np.floor(draw(recipe.seeds, "looks") ** 2 * 8)
    base = np.where(recipe.gsd_m >= 10, np.maximum(base, 4), base)
    coarse = np.maximum(1.0, (recipe.gsd_m / 10.0) ** 2)
    looks: NDArray[np.int64] = np.minimum(base * coarse, MAX_LOOKS).astype(np.int64)
    return looks


def _tile_table(recipe: Recipe, polarization: int) -> NDArray[np.float32]:
    """(2, tile, date, material) sigma0 in dB at tone 0 and what a tone of 1 adds, by wind, moisture and incidence."""
    low, rise = (part[:, polarization] for part in backscatter_ends())
    count = len(MATERIAL_NAMES)
    own = between(draw(recipe.seeds, "backscatter", 1, count), -1.5, 1.5)
    incidence = between(draw(recipe.seeds, "incidence"), 29.0, 46.0)[:, None, None]
    wet = cover_of_material() == WATER
    slope = np.where(wet, -0.35, -0.1) * (incidence - 38.0)
    wind = (by_date(recipe, "wind") ** 2 * (11.0 if polarization == 0 else 9.0) - 1.5)[:, :, None] * wet
    moist = between(by_date(recipe, "moisture"), -1.5, 1.5)[:, :, None] * ~wet
    start = low + own + slope + wind + moist
    return np.stack([start, np.broadcast_to(rise, start.shape)]).astype(np.float32)


def backscatter(tiles: Tiles, bands: tuple[str, ...], *, flattened: bool) -> Tensor:
    """(tile × date, band, y, x) sigma0 in linear power; bands of `vv`, `vh`, `hh`, `hv`.

    Args:
        tiles: What it looks at.
        bands: Canonical names.
        flattened: True where slopes were corrected (terrain-corrected gamma0).
    """
    import torch

    index = material_index(tiles)
    tone = tiles.tone.flatten(0, 1) * (1.0 / 255.0)
    lift = _things(tiles) + (0.0 if flattened else _slopes(tiles))
    planes = []
    for name in bands:
        cross = int(name in ("vh", "hv"))
        table = torch.from_numpy(_tile_table(tiles.recipe, cross)).to(tiles.device).flatten(1)
        start, rise = (part.index_select(0, index).view(tone.shape) for part in table)
        power = _power(start + rise * tone + lift)
        floor = float(10.0 ** (FLOOR_DB["vh" if cross else "vv"] / 10.0))
        planes.append((mean_of_fine(power) + 0.3 * floor) * speckle(tiles, name))
    return torch.stack(planes, dim=1)


def speckle(tiles: Tiles, name: str) -> Tensor:
    """(tile × date, y, x) of mean 1: the mean of as many exponentials as the tile has looks (Goodman 1976)."""
    import torch

    recipe = tiles.recipe
    looks, side = looks_of(recipe), recipe.side_px
    total = torch.zeros(recipe.count, recipe.dates, side, side, device=tiles.device)
    for look in range(int(looks.max())):
        grain = noise(
            recipe.seeds, f"{name} look {look}", recipe.dates, side, side, device=tiles.device, kind="exponential"
        )
        total = total + grain * column((looks > look).astype(np.float32), tiles.device)[..., None]
    return (total / column(looks.astype(np.float32), tiles.device)[..., None]).flatten(0, 1)


def look_direction(recipe: Recipe) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(tile,) x and y of the direction in which the radar looks over the ground, near east or west."""
    west = draw(recipe.seeds, "orbit") < 0.5
    aside = between(draw(recipe.seeds, "look"), -0.04, 0.04)
    return directions(((0.5 * west + aside) % 1.0).astype(np.float32))


def _slopes(tiles: Tiles) -> Tensor:
    """Decibels that slopes facing the radar gain; (tile × date, y, x). Fine."""
    import torch

    recipe, relief = tiles.recipe, tiles.relief
    x, y = look_direction(recipe)
    strength = np.where(recipe.kind_is("mountain", "snow field"), 60.0, 12.0) * FINE * recipe.side_px / 256.0
    rise = torch.zeros_like(relief)
    rise[:, :, 1:] = (relief[:, :, 1:] - relief[:, :, :-1]) * column((x * strength).astype(np.float32), tiles.device)
    rise[:, 1:] += (relief[:, 1:] - relief[:, :-1]) * column((y * strength).astype(np.float32), tiles.device)
    table = torch.from_numpy(cover_of_material() != WATER).to(tiles.device)
    dry = table.index_select(0, tiles.material.flatten().int()).view(tiles.material.shape)
    return (rise.clamp(-5.0, 6.0)[:, None] * dry).flatten(0, 1)


def _things(tiles: Tiles) -> Tensor:
    """Decibels that things add: walls facing the radar are bright, ground behind high things is in shadow. Fine."""
    recipe, objects = tiles.recipe, tiles.objects
    if not objects.present.any():
        return tiles.relief.new_zeros(1, 1, 1)
    x, y = look_direction(recipe)
    incidence = between(draw(recipe.seeds, "incidence"), 29.0, 46.0).astype(np.float64) * (np.pi / 180.0)
    steep = each(math.tan, incidence).astype(np.float32)
    high = np.where(slots_of("aircraft"), 0.0, objects.height_m).astype(np.float32)
    edge = np.maximum(high / steep[:, None], 0.75 * recipe.gsd_m[:, None]) * (high > 0)
    near = cast(objects, recipe, reach_m=edge.astype(np.float32), way=(-x, -y), device=tiles.device)
    dark = cast(objects, recipe, reach_m=(high * steep[:, None]).astype(np.float32), way=(x, y), device=tiles.device)
    on_top = tiles.stamped > 0
    ships = (tiles.stamped >= ZONES * (int(np.argmax(SLOT_CLASS == 1)) + 1)) & (
        tiles.stamped < ZONES * (int(np.argmax(SLOT_CLASS == 2)) + 1)
    )
    wall = (near > 0) & ~on_top
    shadow = (dark > 0) & ~on_top & ~wall
    return (wall * 9.0 + ships * 3.0 - shadow * 9.0).flatten(0, 1)
