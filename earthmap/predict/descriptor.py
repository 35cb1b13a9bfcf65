"""What ground looks like in numbers that need no model: how a few physical values are spread over a tile.

Each value has a fixed range that is the same for all scenes, divided into BINS; a block of the descriptor holds the
square root of the share of the seen pixels in each bin. The inner product of two descriptors is then the mean over
their blocks of the Bhattacharyya coefficient of two distributions: 1 where they are the same, 0 where nothing of one
is in the other (A. Bhattacharyya, Bull. Calcutta Math. Soc. 35, 1943). Normalised differences of bands are hardly
changed by sun and haze, which brightness is; docs/decisions/0029-what-a-tile-looks-like.md has what was tried.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from earthmap.predict.filters import mean_filter, roughness
from earthmap.sensors.bands import SAR_BANDS, THERMAL_BANDS
from earthmap.sensors.registry import SENSORS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from earthmap.predict.protocol import Picture

    Image = NDArray[np.float32]

BINS = 16
"""Of each value's range. A pixel counts in the two bins whose middles it lies between, so that no edge tells more."""

DIFFERENCES = (
    ("nir", "red"), ("green", "nir"), ("swir16", "nir"), ("swir22", "swir16"), ("green", "red"), ("blue", "green"),
)  # fmt: skip
"""Bands whose difference is divided by their sum, from -1 to 1."""

SPECKLE_PX = 5
"""Side of the square over which radar's power is averaged."""

_INSTEAD = {"nir": "nir08"}
_LEAST = np.float32(1e-3)  # a reflectance below it is noise, of which no ratio can be taken
_ROUGH = np.float32(0.5)  # of brightness, a pixel
_DB = {True: (-32.0, 5.0), False: (20.0, 80.0)}  # calibrated or not, as the views of both have them
_RATIO_DB = (0.0, 20.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """One value and how it is made."""

    low: float
    high: float
    make: Callable[[Picture], Image | None]
    """(y, x) values, NaN where there are none; None where the picture lacks a band."""


def describe(picture: Picture, seen: NDArray[np.bool_], core: tuple[slice, slice]) -> Image | None:
    """The descriptor of a tile at one date; None where the picture has no band that a block is made of.

    (D,) float32, D the same for all pictures of a sensor: a block that a picture lacks the bands for is zero, and has
    nothing in common with that of a picture that has them.

    Args:
        picture: of a sensor of the table, its whole square.
        seen: (core, core) True where the ground counts.
        core: rows and columns of the core.
    """
    nothing = np.zeros(BINS, np.float32)
    found = []
    for block in _blocks(picture.sensor):
        values = block.make(picture)
        found.append(nothing if values is None else _spread(values[core][seen], block))
    vector = np.concatenate(found)
    return vector if vector.any() else None


def _spread(values: Image, block: _Block) -> Image:
    """(BINS,) square roots of shares; zeros where there is no number."""
    finite = values[np.isfinite(values)].astype(np.float64)
    place = np.clip((finite - block.low) / (block.high - block.low) * BINS - 0.5, 0.0, BINS - 1.0)
    lower = np.minimum(place.astype(np.int64), BINS - 2)
    upper_share = place - lower
    counts = np.bincount(lower, 1.0 - upper_share, BINS) + np.bincount(lower + 1, upper_share, BINS)
    return np.sqrt(counts / max(len(finite), 1)).astype(np.float32)


def _blocks(sensor: str) -> list[_Block]:
    """The blocks of a sensor's descriptor, in order."""
    row = SENSORS[sensor]
    if row.is_sar:
        low, high = _DB[row.calibrated]
        levels = [_Block(low=low, high=high, make=_decibels(band)) for band in SAR_BANDS]
        pairs = (("vv", "vh"), ("hh", "hv"))
        return [*levels, *(_Block(low=_RATIO_DB[0], high=_RATIO_DB[1], make=_decibels(*pair)) for pair in pairs)]
    grey = [_Block(low=0.0, high=1.0, make=make) for make in (_brightness, _roughness)]
    if set(row.bands) <= set(THERMAL_BANDS):
        return grey
    return [*(_Block(low=-1.0, high=1.0, make=_difference(*pair)) for pair in DIFFERENCES), *grey]


# ── values ───────────────────────────────────────────────────────────────────────────────────────────────────


def _band(picture: Picture, name: str) -> Image | None:
    names = [each for each in (name, _INSTEAD.get(name, name)) if each in picture.bands]
    return picture.data[picture.bands.index(names[0])] if names else None


def _difference(first: str, second: str) -> Callable[[Picture], Image | None]:
    def make(picture: Picture) -> Image | None:
        a, b = _band(picture, first), _band(picture, second)
        if a is None or b is None:
            return None
        a, b = np.maximum(a, _LEAST), np.maximum(b, _LEAST)  # NaN stays NaN
        return np.asarray((a - b) / (a + b), np.float32)

    return make


def _decibels(band: str, under: str | None = None) -> Callable[[Picture], Image | None]:
    """Power in dB, or what it is over that of another polarization."""

    def make(picture: Picture) -> Image | None:
        levels = []
        for name in (band, under) if under else (band,):
            if name not in picture.bands:
                return None
            power = mean_filter(picture.data[picture.bands.index(name)], SPECKLE_PX)
            with np.errstate(divide="ignore", invalid="ignore"):
                levels.append(np.float32(10) * np.log10(power))
        return np.asarray(levels[0] - levels[1] if under else levels[0], np.float32)

    return make


def _level(sensor: str, band: str, data: Image) -> Image:
    """A band's numbers from 0 to 1 over the range that its sensor's views show."""
    row = SENSORS[sensor]
    if not row.calibrated:
        deep = sensor.endswith("16bit")
        return np.asarray(np.sqrt(np.clip(data / 2047, 0, 1)) if deep else np.clip(data / 255, 0, 1), np.float32)
    if band in THERMAL_BANDS:
        return np.asarray(np.clip((data - 230) / 120, 0, 1), np.float32)
    return np.asarray(np.sqrt(np.clip(data, 0, 1)), np.float32)


def _brightness(picture: Picture) -> Image | None:
    """The mean over the bands of reflected light; of a thermal sensor over all."""
    bright = [name for name in picture.bands if name not in THERMAL_BANDS] or list(picture.bands)
    if not bright:
        return None
    levels = [_level(picture.sensor, name, picture.data[picture.bands.index(name)]) for name in bright]
    total = levels[0]
    for level in levels[1:]:
        total = total + level
    return np.asarray(total / np.float32(len(levels)), np.float32)


def _roughness(picture: Picture) -> Image | None:
    """How much brightness differs from pixel to pixel, as a square root from 0 to 1."""
    bright = _brightness(picture)
    return None if bright is None else np.sqrt(np.clip(roughness(bright) / _ROUGH, 0, 1))
