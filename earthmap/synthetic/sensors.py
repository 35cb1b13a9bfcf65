"""From the truth of a drawn world to pixels as a sensor would have measured and a provider delivered them.

A `DrawnSensor` is a row of `SENSORS`: what its item says of it, and a function from (world, lattice, date) to layers.
Noise and speckle belong to the ground (the pixel's place in its CRS), so that scenes that overlap agree.
"""

from __future__ import annotations

import datetime
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.synthetic.fields import hash64, noise
from earthmap.synthetic.spectra import BACKSCATTER_DB, CLOUD, S2_BANDS, SPECTRA
from earthmap.synthetic.truth import OUTSIDE, WATER, Ground, World, covered, pixel_centres

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox

LATTICE_STEP = 6
"""Lattices that are drawn on have corners at multiples of so many finest pixels: Sentinel-2's 10, 20 and 60 m."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One file of a drawn scene."""

    name: str
    """Key of the asset in the item."""
    data: NDArray[Any] = field(repr=False)
    """(band, y, x), row 0 in the north, as it is stored."""
    geobox: GeoBox
    """Where its pixels lie."""
    bands: tuple[Mapping[str, Any], ...]
    """The asset's `bands` of STAC 1.1, one object along each step of axis 0."""
    nodata: float | None = None
    """Stored number that means "no measurement"."""
    roles: tuple[str, ...] = ("data",)
    """Roles of the asset."""
    categorical: bool = False
    """Classes: overviews take the nearest pixel, never a mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnSensor:
    """One kind of imagery that can be drawn."""

    collection: str
    """Id of its STAC collection."""
    title: str
    """What it is, for people."""
    properties: Mapping[str, Any]
    """What every item of it says."""
    hours: float
    """When it passes, in hours after the world's date: no two sensors look at one moment."""
    draw: Callable[[World, GeoBox, datetime.datetime], list[Layer]]
    """Its layers on a lattice whose pixel is the world's and whose sides are multiples of LATTICE_STEP."""


_SHADOW = np.float32(0.45)
"""Share of the light that is left in the shadow of a cloud."""

# Centre and width in micrometres of Sentinel-2A's bands: ESA, Sentinel-2 Spectral Response Functions (COPE-GSEG-EOPG-
# TN-15-0007); step is the band's pixel in finest pixels.
_S2_BAND_ROWS: dict[str, tuple[str, float, float, int]] = {
    "B01": ("coastal", 0.443, 0.021, 6),
    "B02": ("blue", 0.492, 0.066, 1),
    "B03": ("green", 0.560, 0.036, 1),
    "B04": ("red", 0.665, 0.031, 1),
    "B05": ("rededge071", 0.704, 0.015, 2),
    "B06": ("rededge075", 0.741, 0.015, 2),
    "B07": ("rededge078", 0.783, 0.020, 2),
    "B08": ("nir", 0.833, 0.106, 1),
    "B8A": ("nir08", 0.865, 0.021, 2),
    "B09": ("nir09", 0.945, 0.020, 6),
    "B11": ("swir16", 1.614, 0.091, 2),
    "B12": ("swir22", 2.202, 0.175, 2),
}

S2_SCALE, S2_OFFSET = 0.0001, -0.1
"""Stored number to reflectance since processing baseline 04.00."""


@functools.lru_cache(maxsize=1)
def _spectrum_ends() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(band, code) reflectance at tone 0, and what a tone of 1 adds; code 0 and 7 (outside) are zero."""
    ends = np.array([[[0.0] * 12, *(pair[end] for pair in SPECTRA.values()), [0.0] * 12] for end in (0, 1)], np.float32)
    return ends[0].T.copy(), (ends[1] - ends[0]).T.copy()


@functools.lru_cache(maxsize=2)
def _normal_table(kind: str) -> NDArray[np.float32]:
    """65,536 quantiles: of the standard normal, or of five-look speckle in decibels."""
    from scipy.special import gammaincinv, ndtri

    share = (np.arange(65536) + 0.5) / 65536
    values = ndtri(share) if kind == "normal" else 10.0 * np.log10(gammaincinv(_LOOKS, share) / _LOOKS)
    return np.asarray(values, np.float32)


def ground_noise(world: World, geobox: GeoBox, name: int, *, kind: str = "normal") -> NDArray[np.float32]:
    """Noise that belongs to the ground under each pixel: (y, x) float32, equal wherever two lattices share a pixel.

    `name` tells the bands and dates apart; `kind` is `normal` (mean 0, deviation 1) or `speckle` (dB).
    """
    height, width = geobox.shape
    affine = geobox.affine
    column = np.rint(affine.c / affine.a).astype(np.int64) + np.arange(width)[None, :]
    row = np.rint(affine.f / affine.e).astype(np.int64) + np.arange(height)[:, None]
    place = hash64(world.seed, name, row)
    # One round over the full lattice: the rest of the mixing is done along a single column.
    mixed = (place ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    drawn: NDArray[np.float32] = _normal_table(kind).take((mixed >> np.uint64(48)).astype(np.int64))
    return drawn


def _is_after(world: World, date: datetime.datetime) -> int:
    return int(world.is_after(date))


def _padded(geobox: GeoBox, pixels: int) -> GeoBox:
    from affine import Affine
    from odc.geo.geobox import GeoBox

    height, width = geobox.shape
    old = geobox.affine
    affine = Affine(old.a, 0.0, old.c - pixels * old.a, 0.0, old.e, old.f - pixels * old.e)
    return GeoBox((height + 2 * pixels, width + 2 * pixels), affine, geobox.crs)


def coarser(geobox: GeoBox, step: int) -> GeoBox:
    """The same ground in pixels `step` times as wide."""
    from affine import Affine
    from odc.geo.geobox import GeoBox

    height, width = geobox.shape
    old = geobox.affine
    affine = Affine(old.a * step, 0.0, old.c, 0.0, old.e * step, old.f)
    return GeoBox((height // step, width // step), affine, geobox.crs)


def _block_mean(values: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    """Means of step × step pixels."""
    if step == 1:
        return values
    height, width = values.shape
    total = np.zeros((height // step, width // step), np.float32)
    for down in range(step):
        for right in range(step):
            total += values[down::step, right::step]
    return total * np.float32(1.0 / (step * step))


def _blurred(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a sensor's point spread makes of `values`: (y - 2, x - 2); a response of 0.4 at the finest detail."""
    side, middle = np.float32(0.15), np.float32(0.70)
    rows = values[:-2] * side + values[1:-1] * middle + values[2:] * side
    mixed: NDArray[np.float32] = rows[:, :-2] * side + rows[:, 1:-1] * middle + rows[:, 2:] * side
    return mixed


@dataclass(frozen=True, slots=True, kw_only=True)
class _Light:
    """What lies between the ground and an optical sensor, on one lattice."""

    code: NDArray[np.uint8]
    """Class codes with 7 for outside: indices of the spectra."""
    tone: NDArray[np.float32]
    slope: NDArray[np.float32]
    """Brightness of the slope towards the sun, about 1."""
    shadow: NDArray[np.float32]
    """Share of the light that the shadow of a cloud leaves."""
    cloud: NDArray[np.float32]
    """Opacity of the cloud above, 0 to 1."""


def _shadow_opacity(
    world: World, x: NDArray[np.float64], y: NDArray[np.float64], date: datetime.datetime
) -> NDArray[np.float32]:
    """Opacity of the cloud between each point and the sun, which stands in the south-east (north-east down south)."""
    reach = 900.0 * min(1.0, 2.0 * world.scale)
    south = -1.0 if _is_southern(world.epsg) else 1.0
    return world.clouds(x + 0.6 * reach, y - 0.8 * south * reach, date)


@functools.lru_cache(maxsize=32)
def _is_southern(epsg: int) -> bool:
    """True where the CRS is used south of the equator."""
    from pyproj import CRS

    area = CRS.from_epsg(epsg).area_of_use
    return area is not None and area.north <= 0.5


def _toned(world: World, ground: Ground, date: datetime.datetime) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Codes (7 for outside) and tones on `date`; the water of a flood, the river's own with it, is turbid."""
    cover = covered(world, ground, date)
    tone = np.clip(ground.tone, 0, 1)
    if _is_after(world, date):
        tone = np.where(ground.rubble > 0, ground.rubble, tone)
        river = (cover == WATER) & (ground.height_m < world.flood_m)
        tone = np.where(ground.flooded | river, np.float32(0.85), tone)
    return np.where(cover == OUTSIDE, np.uint8(7), cover), tone.astype(np.float32)


def _light(world: World, geobox: GeoBox, date: datetime.datetime) -> _Light:
    x, y = pixel_centres(world, geobox)
    ground = world.ground(x, y, date)
    code, tone = _toned(world, ground, date)
    down, right = np.gradient(ground.height_m, world.resolution_m)
    south = np.float32(-1.0 if _is_southern(world.epsg) else 1.0)
    tilt = np.clip(np.float32(0.7) * (south * -down - right), -0.35, 0.35)
    flat = (code == WATER) | (code == 7)
    slope = np.where(flat, np.float32(1.0), np.float32(1.0) + tilt).astype(np.float32)
    cloud = world.clouds(x, y, date)
    if not cloud.any():
        return _Light(code=code, tone=tone, slope=slope, shadow=np.ones_like(tone), cloud=cloud)
    shadow = np.float32(1.0) - (np.float32(1.0) - _SHADOW) * _shadow_opacity(world, x, y, date)
    return _Light(code=code, tone=tone, slope=slope, shadow=shadow, cloud=cloud)


def _reflectance(light: _Light, band: int) -> NDArray[np.float32]:
    """What reaches the sensor in one band, as a share of one; 0 outside the world."""
    low, rise = _spectrum_ends()
    ground = (low[band].take(light.code) + rise[band].take(light.code) * light.tone) * light.slope * light.shadow
    mixed: NDArray[np.float32] = ground + (CLOUD[band] - ground) * light.cloud
    return mixed


def _s2_band(world: World, light: _Light, geobox: GeoBox, *, name: str, after: int) -> Layer:
    """One band at its own resolution. `light` lies on `geobox` with LATTICE_STEP pixels around it."""
    common, centre, width, step = _S2_BAND_ROWS[name]
    band = S2_BANDS.index(name)
    edge = LATTICE_STEP - 1
    seen = _blurred(_reflectance(light, band)[edge:-edge, edge:-edge])
    seen = _block_mean(seen, step)
    box = coarser(geobox, step)
    grain = ground_noise(world, box, 100 + 2 * band + after)
    seen = seen * (np.float32(1.0) + np.float32(0.03) * grain) + np.float32(0.001) * grain
    stored = np.rint((seen - np.float32(S2_OFFSET)) * np.float32(1.0 / S2_SCALE))
    inside = _block_mean(
        (light.code[LATTICE_STEP:-LATTICE_STEP, LATTICE_STEP:-LATTICE_STEP] != 7).astype(np.float32), step
    )
    data = np.where(inside > np.float32(0.999), np.clip(stored, 1, 65535), 0).astype(np.uint16)
    says = {
        "name": name,
        "eo:common_name": common,
        "eo:center_wavelength": centre,
        "eo:full_width_half_max": width,
        "data_type": "uint16",
        "nodata": 0,
        "unit": "1",
        "raster:scale": S2_SCALE,
        "raster:offset": S2_OFFSET,
        "raster:spatial_resolution": world.resolution_m * step,
    }
    return Layer(name=name, data=data[None], geobox=box, bands=(says,), nodata=0, roles=("data", "reflectance"))


# SCL's codes: Sentinel-2 Products Specification Document, Scene Classification.
_SCL_OF_CLASS = np.array([0, 6, 4, 5, 5, 11, 5, 0], np.uint8)
SCL_CLOUDS = (8, 9, 10)
"""Codes of the scene classification that `eo:cloud_cover` counts."""


def _scl(world: World, geobox: GeoBox, date: datetime.datetime) -> Layer:
    """The scene classification at two finest pixels, as the processor of L2A tends to get it."""
    box = coarser(geobox, 2)
    x, y = pixel_centres(world, box)
    ground = world.ground(x, y, date)
    code, _ = _toned(world, ground, date)
    data = _SCL_OF_CLASS.take(code)
    if _is_after(world, date):
        # Turbid water over fields is often taken for dark ground.
        data[ground.flooded & (noise(world.seed, "dark", x, y, wavelength_m=500.0) > np.float32(0.72))] = 2
    cloud = world.clouds(x, y, date)
    if cloud.any():
        data[_shadow_opacity(world, x, y, date) > np.float32(0.35)] = 3
        data[cloud > np.float32(0.05)] = 10
        data[cloud > np.float32(0.25)] = 8
        data[cloud > np.float32(0.6)] = 9
    data[code == 7] = 0
    says = {"name": "SCL", "data_type": "uint8", "nodata": 0, "raster:spatial_resolution": world.resolution_m * 2}
    return Layer(name="SCL", data=data[None], geobox=box, bands=(says,), nodata=0, categorical=True)


def draw_sentinel2(world: World, geobox: GeoBox, date: datetime.datetime) -> list[Layer]:
    """Sentinel-2 L2A on `geobox`: twelve bands of stored numbers (uint16, 0 nodata) and SCL, each at its own pixel.

    Reflectance is stored × 0.0001 − 0.1 (processing baseline 05.10).
    """
    light = _light(world, _padded(geobox, LATTICE_STEP), date)
    after = _is_after(world, date)
    bands = [_s2_band(world, light, geobox, name=name, after=after) for name in S2_BANDS]
    return [*bands, _scl(world, geobox, date)]


_LOOKS = 5.0
"""Looks of an Interferometric Wide GRD product (4.4 in ESA's product definition), rounded."""

_DECIBEL_STEP = np.float32(0.01)
"""Stored precision: finer than the speckle by two orders, and it halves the file."""


def draw_sentinel1(world: World, geobox: GeoBox, date: datetime.datetime) -> list[Layer]:
    """Sentinel-1 on `geobox`: VV and VH, terrain-flattened look, float32 dB, NaN outside the world."""
    x, y = pixel_centres(world, geobox)
    code, tone = _toned(world, world.ground(x, y, date), date)
    after = _is_after(world, date)
    layers = []
    for index, name in enumerate(("vv", "vh")):
        low = np.array([0.0, *(ends[0][index] for ends in BACKSCATTER_DB.values()), np.nan], np.float32)
        high = np.array([0.0, *(ends[1][index] for ends in BACKSCATTER_DB.values()), np.nan], np.float32)
        speckle = ground_noise(world, geobox, 10 + 2 * index + after, kind="speckle")
        power_db = low.take(code) + (high - low).take(code) * tone + speckle
        data = np.rint(power_db / _DECIBEL_STEP) * _DECIBEL_STEP
        says = {
            "name": name.upper(),
            "description": f"{name.upper()} sigma0 backscatter in decibels",
            "data_type": "float32",
            "nodata": "nan",
            "unit": "dB",
            "raster:spatial_resolution": world.resolution_m,
        }
        layers.append(Layer(name=name, data=data[None], geobox=geobox, bands=(says,), nodata=math.nan))
    return layers


_RGB_BANDS = (("red", "B04", 0.665), ("green", "B03", 0.560), ("blue", "B02", 0.492), ("nir", "B08", 0.833))
_RGB_GAIN = {"red": 800.0, "green": 800.0, "blue": 800.0, "nir": 500.0}


def draw_rgb(world: World, geobox: GeoBox, date: datetime.datetime) -> list[Layer]:
    """An aerial camera's red, green, blue and near infrared on `geobox`: uint8 without a stated scale, no nodata.

    It is flown under the clouds; outside the world it is 0.
    """
    light = _light(world, _padded(geobox, 2), date)
    clear = _Light(
        code=light.code,
        tone=light.tone,
        slope=light.slope,
        shadow=np.ones_like(light.shadow),
        cloud=np.zeros_like(light.cloud),
    )
    planes, says = [], []
    for index, (name, band, centre) in enumerate(_RGB_BANDS):
        seen = _blurred(_reflectance(clear, S2_BANDS.index(band))[1:-1, 1:-1])
        grain = ground_noise(world, geobox, 200 + 2 * index + _is_after(world, date))
        stored = np.rint(seen * np.float32(_RGB_GAIN[name]) + np.float32(1.5) * grain)
        planes.append(np.where(clear.code[2:-2, 2:-2] == 7, 0, np.clip(stored, 1, 255)).astype(np.uint8))
        says.append({"name": name, "eo:common_name": name, "eo:center_wavelength": centre, "data_type": "uint8"})
    return [Layer(name="image", data=np.stack(planes), geobox=geobox, bands=tuple(says))]


def draw_labels(world: World, geobox: GeoBox, date: datetime.datetime) -> Layer:
    """The truth on `geobox` as a layer: uint8 class codes, 255 outside the world."""
    x, y = pixel_centres(world, geobox)
    data = world.classes(x, y, date)[None]
    says = {"name": "labels", "data_type": "uint8", "nodata": OUTSIDE}
    return Layer(
        name="labels", data=data, geobox=geobox, bands=(says,), nodata=OUTSIDE, roles=("labels",), categorical=True
    )


SENSORS: dict[str, DrawnSensor] = {
    "sentinel-2": DrawnSensor(
        collection="drawn-sentinel-2-l2a",
        title="Sentinel-2 L2A, drawn",
        properties={
            "platform": "sentinel-2a",
            "constellation": "sentinel-2",
            "instruments": ["msi"],
            "s2:product_type": "S2MSI2A",
            "s2:processing_baseline": "05.10",
            "sat:relative_orbit": 108,
        },
        hours=0.0,
        draw=draw_sentinel2,
    ),
    "sentinel-1": DrawnSensor(
        collection="drawn-sentinel-1",
        title="Sentinel-1 sigma0 in decibels, drawn",
        properties={
            "platform": "sentinel-1a",
            "constellation": "sentinel-1",
            "instruments": ["c-sar"],
            "sar:instrument_mode": "IW",
            "sar:frequency_band": "C",
            "sar:center_frequency": 5.405,
            "sar:polarizations": ["VV", "VH"],
            "sar:product_type": "GRD",
            "sat:orbit_state": "ascending",
            "sat:relative_orbit": 59,
        },
        hours=7.0,
        draw=draw_sentinel1,
    ),
    "rgb": DrawnSensor(
        collection="drawn-aerial",
        title="Aerial image, red, green, blue and near infrared, 8 bit without a scale, drawn",
        properties={"platform": "aircraft", "instruments": ["camera"]},
        hours=1.0,
        draw=draw_rgb,
    ),
}
"""What can be drawn, by the name that `write_world` takes."""
