"""What a thermal sensor sees of drawn tiles: temperature by material, sun, height and cloud, in kelvin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from earthmap.synthetic.draws import between, draw, noise
from earthmap.synthetic.optics import blurred, mean_of_fine
from earthmap.synthetic.spectra import MATERIAL_NAMES, warmth
from earthmap.synthetic.tiles import Tiles

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

COLDEST_K, HOTTEST_K = 232.0, 348.0
"""Temperatures are held between these."""

_ICE_K = 273.0


def _by_picture(values: NDArray[np.generic], device: str) -> Tensor:
    """(tile, date) as (tile × date, 1, 1)."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(device).reshape(-1, 1, 1)


def temperature(tiles: Tiles, bands: tuple[str, ...], *, top: bool) -> Tensor:
    """(tile × date, band, y, x) kelvin: of the surface, or above the atmosphere where `top`."""
    import torch

    recipe, sky = tiles.recipe, tiles.sky
    ground = mean_of_fine(_surface(tiles)) - sky.shade.flatten(0, 1) * 4.0
    cold = _by_picture(
        between(draw(recipe.seeds, "cloud top"), 225.0, 268.0)[:, None].repeat(recipe.dates, 1), tiles.device
    )
    seen = ground + (cold - ground) * (sky.cloud * 0.97 + sky.cirrus * 0.4).clamp(0, 1).flatten(0, 1)
    seen = blurred(blurred(seen, 0.22), 0.22)  # thermal bands are measured at 100 m and delivered at 30
    grain = noise(recipe.seeds, "thermal noise", recipe.dates, len(bands), *seen.shape[1:], device=tiles.device)
    planes = []
    for number, name in enumerate(bands):
        loss = (2.5 if name == "lwir11" else 4.0) if top else 0.0
        noisy = (seen - loss).view(recipe.count, recipe.dates, *seen.shape[1:]) + grain[:, :, number] * 0.25
        planes.append(noisy.flatten(0, 1).clamp(COLDEST_K, HOTTEST_K))
    return torch.stack(planes, dim=1)


def _surface(tiles: Tiles) -> Tensor:
    """(tile × date, y, x) kelvin of the ground in the sun. Fine."""
    import torch

    recipe, device = tiles.recipe, tiles.device
    names = list(MATERIAL_NAMES)
    winter = recipe.kind_is("snow field", "mountain")
    air = np.where(
        winter, between(draw(recipe.seeds, "air"), 258.0, 286.0), between(draw(recipe.seeds, "air"), 268.0, 308.0)
    )
    air = np.where(recipe.kind_is("desert"), np.maximum(air, 290.0), air)[:, None]
    noon = tiles.sky.sun * between(draw(recipe.seeds, "noon"), 0.3, 1.5)[:, None]  # night and winter: little
    own = between(draw(recipe.seeds, "warmth", len(names)), -2.0, 2.0)
    table = (air[:, :, None] + own[:, None] + warmth()[None, None, :] * noon[:, :, None]).astype(np.float32)
    snow = names.index("snow")
    table[:, :, snow] = np.minimum(table[:, :, snow], _ICE_K - 0.5 - own[:, snow, None] * 0.5)
    lakes = [names.index("water"), names.index("muddy water")]
    sea = between(draw(recipe.seeds, "sea warmth"), 274.0, 300.0)[:, None, None]
    table[:, :, lakes] = 0.5 * (table[:, :, lakes] + sea)
    table[:, :, lakes] = np.maximum(table[:, :, lakes], _ICE_K)
    count, dates = recipe.count, recipe.dates
    planes = torch.arange(count * dates, device=device).view(count, dates, 1, 1) * len(names)
    index = (planes + tiles.material.long()).flatten()
    kelvin = torch.from_numpy(table).to(device).flatten().index_select(0, index).view(-1, *tiles.tone.shape[2:])
    dry = (tiles.cover == 1).flatten(0, 1)
    wide = torch.stack([dry, dry], dim=-1).flatten(-2)
    wide = torch.stack([wide, wide], dim=-2).flatten(-3, -2)
    fall = torch.from_numpy(np.where(winter, 4.0, 1.0).astype(np.float32)).to(device)[:, None, None, None]
    height = (tiles.relief[:, None] * fall).expand(-1, dates, -1, -1).flatten(0, 1)
    texture = (tiles.tone.flatten(0, 1).float() - 128.0) * (1.0 / 64.0)
    return kelvin + (texture - height) * ~wide
