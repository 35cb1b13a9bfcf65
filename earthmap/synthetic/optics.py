"""What an optical sensor sees of drawn tiles: sunlight on slopes, shadows, haze, clouds, blur and noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from earthmap.sensors.bands import BANDS
from earthmap.synthetic.draws import between, draw, noise
from earthmap.synthetic.land import FINE
from earthmap.synthetic.recipes import Recipe
from earthmap.synthetic.sky import by_date
from earthmap.synthetic.spectra import BAND_NAMES, CLOUD, MATERIAL_NAMES, cover_of_material, spectrum_ends
from earthmap.synthetic.stamps import cast
from earthmap.synthetic.tiles import Tiles
from earthmap.synthetic.truth import VEGETATION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

_PAN = {"blue": 0.2, "green": 0.3, "red": 0.3, "nir": 0.2}
"""What a panchromatic band is made of."""

NATIVE_M = {
    "coastal": 60.0,
    "nir09": 60.0,
    "cirrus": 60.0,
    **dict.fromkeys(("rededge071", "rededge075", "rededge078", "nir08", "swir16", "swir22"), 20.0),
}
"""Ground distance of Sentinel-2's bands where it is coarser than 10 m."""

_WAVELENGTHS = np.array([BANDS[name].centre_um for name in BAND_NAMES], np.float32)
_DIFFUSE = np.clip(0.10 + 0.28 * (_WAVELENGTHS / 0.443) ** -2.2, 0.0, 1.0).astype(np.float32)
"""Share of the light that comes from the sky, by band: what is left in a shadow."""
_RAYLEIGH = (0.078 * (_WAVELENGTHS / 0.443) ** -4.0).astype(np.float32)
"""Reflectance of clear air above the ground (Bucholtz 1995, doi:10.1364/AO.34.002765: optical depth as λ⁻⁴)."""
RAYLEIGH = dict(zip(BAND_NAMES, _RAYLEIGH.tolist(), strict=True))
"""The same by band."""
_AEROSOL = ((_WAVELENGTHS / 0.55) ** -1.3).astype(np.float32)
"""Optical depth of haze by band, against that at 0.55 µm (Ångström's law)."""
_CIRRUS = np.array([0.55] * 9 + [0.5, 0.35, 0.25], np.float32)
"""Reflectance of thick cirrus."""


def tile_spectra(recipe: Recipe) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(tile, date, material, band) reflectance at tone 0, and what a tone of 1 adds: the table's, as found in a place.

    Each material of a tile is brighter or darker, its spectrum tilted and bent a little; from date to date plants are
    greener or duller, everything else a little drier or moister, and all of it brighter or darker.
    """
    low, rise = spectrum_ends()
    place = np.linspace(-1.0, 1.0, len(BAND_NAMES), dtype=np.float32)
    draws = draw(recipe.seeds, "spectra", 3, 1, len(MATERIAL_NAMES), 1)
    gain, tilt, bend = (between(draws[:, index], -span, span) for index, span in enumerate((0.22, 0.12, 0.06)))
    factor = (1.0 + gain) * (1.0 + tilt * place + bend * (2.0 * place * place - 1.0))
    green = cover_of_material() == VEGETATION
    season = between(by_date(recipe, "season"), -0.3, 0.3)[:, :, None, None] * green[:, None]
    moist = 1.0 + between(by_date(recipe, "moist"), -0.1, 0.1)[:, :, None, None] * ~green[:, None]
    light = between(by_date(recipe, "illumination"), 0.75, 1.08)[:, :, None, None]
    start, more = low * factor * moist * light, rise * factor * moist * light
    return (start + more * season).astype(np.float32), more.astype(np.float32)


def _flat(values: NDArray[np.generic], device: str) -> Tensor:
    """(tile, date) as (tile × date, 1, 1)."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(values)).to(device).reshape(-1, 1, 1)


def mean_of_fine(values: Tensor) -> Tensor:
    """Means of 2 × 2 fine pixels."""
    rows = values[..., ::2, :] + values[..., 1::2, :]
    return (rows[..., ::2] + rows[..., 1::2]) * 0.25


def blurred(values: Tensor, side: float) -> Tensor:
    """A point spread of three pixels whose outer ones weigh `side`; edges are repeated."""
    for axis in (-2, -1):
        size = values.shape[axis]
        outer = values * side
        values = values * (1.0 - 2.0 * side)
        for start, end in ((0, 1), (1, 0)):
            values.narrow(axis, end, size - 1).add_(outer.narrow(axis, start, size - 1))
        for edge in (0, size - 1):
            values.narrow(axis, edge, 1).add_(outer.narrow(axis, edge, 1))
    return values


def material_index(tiles: Tiles) -> Tensor:
    """Row of each fine pixel in a table (tile × date × material): flat, of tile, date, y, x."""
    import torch

    count, dates = tiles.recipe.count, tiles.recipe.dates
    places = torch.arange(count * dates, device=tiles.device).view(count, dates, 1, 1) * len(MATERIAL_NAMES)
    return (tiles.material.long() + places).flatten()


def _slope(tiles: Tiles) -> Tensor:
    """(tile × date, y, x) brightness of slopes towards the sun, about 1; water lies flat. Fine."""
    import torch

    recipe, sky, relief = tiles.recipe, tiles.sky, tiles.relief
    strength = np.where(recipe.kind_is("mountain", "desert", "snow field"), 14.0, 3.5)
    scale = (strength * FINE * recipe.side_px / 256.0 * between(draw(recipe.seeds, "ruggedness"), 0.3, 1.0))[:, None]
    east = torch.zeros_like(relief)
    south = torch.zeros_like(relief)
    east[:, :, 1:] = relief[:, :, 1:] - relief[:, :, :-1]
    south[:, 1:] = relief[:, 1:] - relief[:, :-1]
    dates = recipe.dates
    tilt = east[:, None] * _flat((sky.shadow_x * scale).astype(np.float32), tiles.device).view(-1, dates, 1, 1)
    tilt = tilt + south[:, None] * _flat((sky.shadow_y * scale).astype(np.float32), tiles.device).view(-1, dates, 1, 1)
    wet = (tiles.material == 0) | (tiles.material == MATERIAL_NAMES.index("muddy water"))
    return (1.0 - tilt.clamp(-0.4, 0.4) * ~wet).flatten(0, 1)


_SHADOWS_M = 12.0
"""Ground distance up to which shadows of single things are seen."""


def _shadows(tiles: Tiles) -> Tensor | None:
    """(tile × date, y, x) 1 in the shadow of a thing and not on the thing itself; None without any. Fine."""
    import torch

    recipe, objects = tiles.recipe, tiles.objects
    high = objects.height_m * (recipe.gsd_m < _SHADOWS_M)[:, None]
    if not (objects.present & (high > 0)[:, :, None]).any():
        return None
    cut = [
        cast(
            objects,
            recipe,
            reach_m=(high * (objects.grade[:, :, date] < 3) * tiles.sky.reach[:, date, None]).astype(np.float32),
            way=(tiles.sky.shadow_x[:, date], tiles.sky.shadow_y[:, date]),
            device=tiles.device,
        )[:, date]
        for date in range(recipe.dates)
    ]
    shadow = torch.stack(cut, dim=1) * (tiles.stamped == 0)
    return shadow.flatten(0, 1).float()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scene:
    """What all bands share; tensors (tile × date, y, x), fine or at the picture's pixels."""

    tiles: Tiles
    low: Tensor
    rise: Tensor
    """(band, tile × date × material) ends of the spectra."""
    index: Tensor
    """Rows of the spectra, flat. Fine."""
    tone: Tensor
    """Fine."""
    slope: Tensor
    """Fine."""
    shadow: Tensor | None
    """Fine; None where nothing casts one."""
    shade: Tensor
    cirrus: Tensor
    cloud: Tensor
    cloud_light: Tensor
    """Brightness of the clouds."""
    is_clear: bool
    """True where there is no cloud, cirrus or shadow of one over any tile."""
    vapour: Tensor
    """(tile × date, 1, 1) share of light that water vapour leaves at 0.945 µm."""
    noise: Tensor
    """(tile × date, 1, 1) strength of the noise as a share of the signal."""


def _scene(tiles: Tiles) -> _Scene:
    import torch

    ends = [
        torch.from_numpy(part.reshape(-1, part.shape[-1]).T.copy()).to(tiles.device)
        for part in tile_spectra(tiles.recipe)
    ]
    seeds, dates, sky = tiles.recipe.seeds, tiles.recipe.dates, tiles.sky
    light = between(draw(seeds, "cloud brightness"), 0.75, 1.1)
    return _Scene(
        tiles=tiles,
        low=ends[0],
        rise=ends[1],
        index=material_index(tiles),
        tone=tiles.tone.flatten(0, 1) * (1.0 / 255.0),
        slope=_slope(tiles),
        shadow=_shadows(tiles),
        is_clear=not (sky.cloud.any() or sky.cirrus.any()),
        shade=sky.shade.flatten(0, 1),
        cirrus=sky.cirrus.flatten(0, 1),
        cloud=sky.cloud.flatten(0, 1),
        cloud_light=_flat(np.repeat(light, dates), tiles.device) + sky.billow.flatten(0, 1) * 0.06,
        vapour=_flat(between(by_date(tiles.recipe, "vapour"), 0.12, 0.45), tiles.device),
        noise=_flat(np.repeat(between(draw(seeds, "noise"), 0.002, 0.015), dates), tiles.device),
    )


def _ground(scene: _Scene, band: str) -> Tensor:
    """Reflectance of the lit ground, before the air above it."""
    number = BAND_NAMES.index(band)
    seen = scene.rise[number].index_select(0, scene.index).view(scene.tone.shape).mul_(scene.tone)
    seen.add_(scene.low[number].index_select(0, scene.index).view(scene.tone.shape)).mul_(scene.slope)
    if scene.shadow is not None:
        seen.mul_(1.0 - scene.shadow * (1.0 - float(_DIFFUSE[number])))
    return mean_of_fine(seen)


def _through_air(scene: _Scene, band: str, *, top: bool) -> Tensor:
    """The ground under cloud shadows, haze, cirrus and clouds."""
    number = BAND_NAMES.index(band)
    seen = _ground(scene, band)
    clear = float(_RAYLEIGH[number]) if top else 0.0
    if top and band == "nir09":  # water vapour lies above the ground, not in the processor's correction
        seen.mul_(scene.vapour)
    haze = scene.tiles.sky.haze * np.float32((1.6 if top else 0.7) * float(_AEROSOL[number]))
    depth = _flat(haze, scene.tiles.device)
    if scene.is_clear:
        return seen.mul_(1.0 - clear - depth * 0.45).add_(depth * 0.16 + clear)
    seen.mul_(1.0 - scene.shade * (0.85 * (1.0 - float(_DIFFUSE[number]))))
    seen.mul_(1.0 - clear - depth * 0.45).add_(depth * 0.16 + clear)
    seen.add_((float(_CIRRUS[number]) - seen).mul_(scene.cirrus))
    return seen.add_((scene.cloud_light * float(CLOUD[number]) - seen).mul_(scene.cloud))


def reflectance(tiles: Tiles, bands: Sequence[str], *, top: bool, native: bool) -> Tensor:
    """(tile × date, band, y, x) reflectance as a sensor measures it.

    Args:
        tiles: What it looks at.
        bands: Canonical names, `pan` and `cirrus` among them.
        top: True above the atmosphere (L1C), False where a processor took most of it away (L2A).
        native: True where bands have Sentinel-2's own, coarser ground distances.
    """
    scene = _scene(tiles)
    side = tiles.recipe.side_px
    whole = tiles.tone.new_empty(len(scene.noise), len(bands), side, side, dtype=scene.tone.dtype)
    for number, band in enumerate(bands):
        seen = blurred(_above_ground(scene, band, top=top), 0.1)
        if native and band in NATIVE_M:
            seen = _coarser(seen, tiles.recipe, NATIVE_M[band])
        grain = noise(tiles.recipe.seeds, f"noise of {band}", tiles.recipe.dates, side, side, device=tiles.device)
        whole[:, number] = grain.flatten(0, 1).mul_((seen * scene.noise).add_(0.0012)).add_(seen)
    return whole


def _above_ground(scene: _Scene, band: str, *, top: bool) -> Tensor:
    """One band before the sensor's blur and noise."""
    if band == "cirrus":
        return scene.cirrus * 0.35 + scene.cloud * 0.03 + 0.0015
    if band == "pan":
        parts = [_through_air(scene, name, top=top) * weight for name, weight in _PAN.items()]
        return parts[0] + parts[1] + parts[2] + parts[3]
    return _through_air(scene, band, top=top)


def _coarser(seen: Tensor, recipe: Recipe, native_m: float) -> Tensor:
    """A coarser band as it lies on the picture's pixels: measured coarse, then interpolated.

    60 m bands are drawn at 40 m, which divides the picture.
    """
    import torch

    step = np.rint(native_m / recipe.gsd_m)
    for wide, mine in ((2, step == 2), (4, step > 2)):
        if mine.any():
            again = _interpolated(_averaged(seen, wide), wide)
            keep = _flat(np.repeat(mine, recipe.dates), str(seen.device))
            seen = torch.where(keep, again, seen)
    return seen


def _averaged(plane: Tensor, wide: int) -> Tensor:
    for _ in range(wide // 2):
        plane = mean_of_fine(plane)
    return plane


def _interpolated(plane: Tensor, wide: int) -> Tensor:
    """Bilinear, by doublings whose steps weigh ¾ and ¼; edges are repeated."""
    import torch

    for _ in range(wide // 2):
        for axis in (-1, -2):
            size = plane.shape[axis]
            part = plane * 0.25
            before = torch.cat([part.narrow(axis, 0, 1), part.narrow(axis, 0, size - 1)], dim=axis)
            behind = torch.cat([part.narrow(axis, 1, size - 1), part.narrow(axis, size - 1, 1)], dim=axis)
            near = plane * 0.75
            pair = torch.stack([near + before, near + behind], dim=axis)
            plane = pair.flatten(-2) if axis == -1 else pair.flatten(-3, -2)
    return plane
