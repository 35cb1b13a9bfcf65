"""Drawn tiles as any sensor of the table would have measured them: physical bands, a reason mask, views."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from earthmap.errors import SensorError
from earthmap.sensors.masks import Reason
from earthmap.sensors.registry import get_sensor
from earthmap.sensors.views import NODATA_GREY, Channel, get_view
from earthmap.synthetic.draws import between, between_scales, draw
from earthmap.synthetic.optics import RAYLEIGH, reflectance
from earthmap.synthetic.radar import backscatter
from earthmap.synthetic.sky import CLOUD_OPACITY
from earthmap.synthetic.thermal import temperature
from earthmap.synthetic.tiles import CHUNK, Tiles, some_of
from earthmap.synthetic.truth import SNOW, WATER

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

CIRRUS_OPACITY, SHADE_DEPTH = 0.12, 0.4
"""From what a pixel counts as cirrus and as shadow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """What one sensor measured of a batch of tiles."""

    sensor: str
    """Row of `earthmap.sensors.registry`."""
    bands: tuple[str, ...]
    """Canonical names along the bands' axis."""
    data: Tensor
    """(tile, date, band, y, x) float32 physical values, radar in linear power; NaN where nodata."""
    mask: Tensor
    """(tile, date, y, x) uint8 codes of `earthmap.sensors.masks.Reason`."""


_Measure = Callable[[Tiles, tuple[str, ...]], "Tensor"]


def _optical(*, top: bool = False, native: bool = False) -> _Measure:
    return lambda tiles, bands: reflectance(tiles, bands, top=top, native=native)


def _landsat(*, top: bool) -> _Measure:
    def measure(tiles: Tiles, bands: tuple[str, ...]) -> Tensor:
        import torch

        hot = tuple(band for band in bands if band.startswith("lwir"))
        cool = tuple(band for band in bands if band not in hot)
        parts = [reflectance(tiles, cool, top=top, native=False)] if cool else []
        return torch.cat([*parts, *([temperature(tiles, hot, top=top)] if hot else [])], dim=1)

    return measure


def _radar(*, flattened: bool) -> _Measure:
    return lambda tiles, bands: backscatter(tiles, bands, flattened=flattened)


def _raw_radar(tiles: Tiles, bands: tuple[str, ...]) -> Tensor:
    """Squares of stored amplitudes: sigma0 lifted by a constant that nobody states."""
    lift = _column(between_scales(draw(tiles.recipe.seeds, "radar gain"), 10.0**4.9, 10.0**5.7), tiles)
    return backscatter(tiles, bands, flattened=False) * lift


def _thermal(tiles: Tiles, bands: tuple[str, ...]) -> Tensor:
    return temperature(tiles, bands, top=False)


def _raw_thermal(tiles: Tiles, bands: tuple[str, ...]) -> Tensor:
    """Temperatures as levels of 8 bits between two temperatures that nobody states."""
    low = _column(between(draw(tiles.recipe.seeds, "thermal low"), 235.0, 272.0), tiles)
    span = _column(between(draw(tiles.recipe.seeds, "thermal span"), 45.0, 90.0), tiles)
    return ((temperature(tiles, bands, top=False) - low) / span * 255.0).round().clamp(0.0, 255.0)


def _stored(levels: float) -> _Measure:
    """Numbers of a camera: exposure, white balance and tone curve that nobody states, with a blue veil."""

    def measure(tiles: Tiles, bands: tuple[str, ...]) -> Tensor:
        import torch

        seeds = tiles.recipe.seeds
        seen = reflectance(tiles, bands, top=False, native=False)
        gain = between_scales(draw(seeds, "exposure"), 1.3, 3.4)[:, None]
        balance = between(draw(seeds, "white balance", len(bands)), 0.88, 1.12)
        veil = between(draw(seeds, "veil", 1), 0.0, 0.4) * np.array([RAYLEIGH[band] for band in bands], np.float32)
        dark = between(draw(seeds, "black level", len(bands)), 0.0, 0.03) - veil
        scaled = (seen - _columns(dark, tiles)) * _columns(gain * balance, tiles)
        scaled = scaled.clamp(0.0, 1.0)
        curve = _column(between(draw(seeds, "tone curve"), 0.0, 1.0), tiles)
        toned = scaled + (torch.sqrt(scaled) - scaled) * curve
        return (toned * levels).round()

    return measure


def _column(values: NDArray[np.float32], tiles: Tiles) -> Tensor:
    """(tile,) as (tile × date, 1, 1, 1)."""
    return _columns(values[:, None], tiles)


def _columns(values: NDArray[np.float32], tiles: Tiles) -> Tensor:
    """(tile, band) as (tile × date, band, 1, 1)."""
    import torch

    repeated = np.repeat(values.astype(np.float32), tiles.recipe.dates, axis=0)
    return torch.from_numpy(repeated).to(tiles.device)[:, :, None, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """How a sensor is drawn."""

    measure: _Measure
    gsd_m: tuple[float, float]
    bands: tuple[str, ...] = ()
    """Those drawn; empty for the sensor's own."""


_VISIBLE = ("blue", "green", "red", "nir")
_POLARIZED = ("vv", "vh")

DRAWN: Mapping[str, _Row] = {
    "sentinel-2-l2a": _Row(measure=_optical(native=True), gsd_m=(10.0, 60.0)),
    "sentinel-2-l1c": _Row(measure=_optical(top=True, native=True), gsd_m=(10.0, 60.0)),
    "sentinel-1-db": _Row(measure=_radar(flattened=False), gsd_m=(10.0, 60.0), bands=_POLARIZED),
    "sentinel-1-rtc": _Row(measure=_radar(flattened=True), gsd_m=(10.0, 60.0), bands=_POLARIZED),
    "sentinel-1-grd": _Row(measure=_radar(flattened=False), gsd_m=(10.0, 60.0), bands=_POLARIZED),
    "radar-uncalibrated": _Row(measure=_raw_radar, gsd_m=(0.5, 20.0), bands=_POLARIZED),
    "landsat-c2-l2": _Row(measure=_landsat(top=False), gsd_m=(30.0, 100.0)),
    "landsat-c2-l1": _Row(measure=_landsat(top=True), gsd_m=(30.0, 100.0)),
    "hyperspectral": _Row(measure=_optical(), gsd_m=(5.0, 60.0)),
    "thermal": _Row(measure=_thermal, gsd_m=(0.5, 100.0), bands=("lwir11",)),
    "thermal-uncalibrated": _Row(measure=_raw_thermal, gsd_m=(0.5, 100.0), bands=("lwir11",)),
    "optical-reflectance": _Row(measure=_optical(), gsd_m=(0.3, 100.0), bands=_VISIBLE),
    "optical-uncalibrated": _Row(measure=_stored(255.0), gsd_m=(0.3, 30.0), bands=_VISIBLE),
    "optical-uncalibrated-16bit": _Row(measure=_stored(2047.0), gsd_m=(0.3, 10.0), bands=_VISIBLE),
}
"""Every sensor of the table, by id, and the ground distances that it is drawn at."""


def ground_distances(*sensors: str) -> tuple[float, float]:
    """The ground distances in metres that all of these sensors are drawn at: what `plan_tiles` takes.

    Raises:
        SensorError: for a sensor that is not there, or sensors that share no ground distance.

    Example:
        >>> ground_distances("sentinel-2-l2a", "sentinel-1-rtc")
        (10.0, 60.0)
    """
    ranges = [DRAWN[get_sensor(name).id].gsd_m for name in sensors]
    low, high = max((low for low, _ in ranges), default=1.0), min((high for _, high in ranges), default=0.0)
    if low > high:
        raise SensorError(f"no ground distance is drawn for all of {', '.join(sensors) or 'no sensors'}")
    return low, high


def measure(tiles: Tiles, sensor: str, *, bands: tuple[str, ...] | None = None) -> Pictures:
    """What a sensor measured of the tiles, in the same physical values as a cube holds.

    Args:
        tiles: What it looks at; sensors that look at the same tiles are co-registered.
        sensor: Row of `earthmap.sensors.registry`.
        bands: Those wanted; None for all that are drawn.

    Raises:
        SensorError: for a sensor or band that is not there.
    """
    row = get_sensor(sensor)
    drawn = DRAWN[row.id]
    names = bands or drawn.bands or row.bands
    missing = [name for name in names if name not in row.bands]
    if missing:
        raise SensorError(f"{row.id} has no band {', '.join(missing)}", expected=f"some of {', '.join(row.bands)}")
    recipe = tiles.recipe
    side = recipe.side_px
    data = _measured(tiles, drawn.measure, names).view(recipe.count, recipe.dates, len(names), side, side)
    if tiles.sky.beyond.any():
        data.masked_fill_(tiles.sky.beyond[:, :, None], float("nan"))
    return Pictures(sensor=row.id, bands=names, data=data, mask=_mask(tiles, row.is_sar, row.masks))


def _measured(tiles: Tiles, measure: _Measure, bands: tuple[str, ...]) -> Tensor:
    """(tile × date, band, y, x), a few tiles at once on a CPU."""
    recipe = tiles.recipe
    if tiles.device != "cpu" or recipe.count <= CHUNK:
        return measure(tiles, bands)
    side, step = recipe.side_px, CHUNK * recipe.dates
    whole = tiles.relief.new_empty(recipe.count * recipe.dates, len(bands), side, side)
    for number, start in enumerate(range(0, recipe.count, CHUNK)):
        part = measure(some_of(tiles, slice(start, start + CHUNK)), bands)
        whole[number * step : number * step + len(part)] = part
    return whole


def _mask(tiles: Tiles, is_sar: bool, layers: tuple[str, ...]) -> Tensor:
    """The reason mask as the sensor's quality layers make it; only nodata is known without one."""
    import torch

    sky = tiles.sky
    mask = torch.zeros_like(tiles.cover)
    if not layers and not is_sar:
        mask = mask + int(Reason.UNKNOWN)
    elif not is_sar:
        if "scl" in layers or "qa_pixel" in layers:
            mask = _coded(mask, tiles.cover == SNOW, Reason.SNOW)
            mask = _coded(mask, (sky.shade > SHADE_DEPTH) & (tiles.cover != WATER), Reason.SHADOW)
            mask = _coded(mask, sky.cirrus > CIRRUS_OPACITY, Reason.CIRRUS)
        mask = _coded(mask, sky.cloud > CLOUD_OPACITY, Reason.CLOUD)
    return _coded(mask, sky.beyond, Reason.NODATA)


def _coded(mask: Tensor, where: Tensor, reason: Reason) -> Tensor:
    return mask + where * (int(reason) - mask)


def draw_views(pictures: Pictures, name: str) -> Tensor:
    """(tile, date, y, x, 3) uint8: the view `name` of every picture, as `earthmap.sensors.views.make_view` makes it.

    The same table and arithmetic on tensors; a decibel may differ in its last bit, which moves a level by one at most.
    """
    import torch

    view = get_view(name)
    planes = {band: pictures.data[:, :, pictures.bands.index(band)] for band in view.bands}
    values = [_channel(channel, planes) for channel in view.channels]
    hidden = torch.stack([value.isnan() for value in values]).any(dim=0) | (pictures.mask == int(Reason.NODATA))
    levels = [_levels(channel, value) for channel, value in zip(view.channels, values, strict=True)]
    picture = torch.stack(levels, dim=-1)
    return picture.masked_fill(hidden[..., None], NODATA_GREY)


def _channel(channel: Channel, planes: Mapping[str, Tensor]) -> Tensor:
    if channel.unit != "dB":
        return planes[channel.band]
    value = 10.0 * planes[channel.band].clamp(min=1e-10).log10()
    return value if channel.minus is None else value - 10.0 * planes[channel.minus].clamp(min=1e-10).log10()


def _levels(channel: Channel, value: Tensor) -> Tensor:
    import torch

    share = (value.nan_to_num(channel.low).clamp(channel.low, channel.high) - channel.low) / (
        channel.high - channel.low
    )
    share = share.sqrt() if channel.curve == "sqrt" else share
    return (share * 255.0).round().to(torch.uint8)
