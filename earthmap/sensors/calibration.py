"""From the numbers in a file to physical values."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """physical = stored × scale + offset, then out of decibels, amplitude or radiance where the file holds
    these.

    Reflectance comes out as a share of one, temperature in kelvin, SAR as linear power (so that resampling and
    composites are right), uncalibrated data as they are.
    """

    scale: float = 1.0
    offset: float = 0.0
    nodata: float | None = None
    """Stored number that means "no measurement"; compared before scale and offset."""
    saturated: float | None = None
    """Stored number that means "more than the sensor can measure", where the format states one."""
    decibels: bool = False
    """The stored number is 10·log10 of linear power."""
    amplitude: bool = False
    """The scaled number is an amplitude, or a complex number of such a magnitude, and its square the power."""
    planck: tuple[float, float] | None = None
    """K1 and K2 where the scaled number is the radiance of a thermal band: brightness temperature is K2 / ln(K1 /
    radiance + 1) in kelvin (USGS, Landsat 8-9 Data Users Handbook, LSDS-1574, section 5)."""
    categorical: bool = False
    """Classes or bits: never interpolated, never read from an overview, returned as stored."""

    def apply(self, stored: NDArray[np.generic]) -> NDArray[np.float32]:
        """Physical values as float32 of the same shape: NaN where `stored` is nodata, NaN or infinite, and positive
        infinity where it is saturated."""
        numbers = np.asarray(stored)
        numbers = np.abs(numbers) if numbers.dtype.kind == "c" else numbers
        values = numbers.astype(np.float32)  # a copy, then changed in place: reading is bound by memory
        missing = None if numbers.dtype.kind in "iub" else ~np.isfinite(values)
        if self.nodata is not None and np.isfinite(self.nodata):
            same = numbers == self.nodata
            missing = same if missing is None else missing | same
        if not self.categorical:
            values *= np.float32(self.scale)
            values += np.float32(self.offset)
            if self.decibels:
                np.power(np.float32(10.0), values / np.float32(10.0), out=values)
            if self.amplitude:
                np.square(values, out=values)
            if self.planck is not None:
                _brightness_temperature(values, *self.planck)
        if missing is not None:
            values[missing] = np.nan
        if self.saturated is not None:
            values[numbers == self.saturated] = np.inf
        return values

    @property
    def ceiling(self) -> float:
        """The physical value of a saturated number: at least so much was there."""
        if self.saturated is None:
            return math.inf
        plain = dataclasses.replace(self, saturated=None, nodata=None)
        return float(plain.apply(np.array([self.saturated], np.float64))[0])


def _brightness_temperature(radiance: NDArray[np.float32], k1: float, k2: float) -> None:
    """Radiance becomes kelvin in place, NaN where there is none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        kelvin = np.float32(k2) / np.log(np.float32(k1) / radiance + np.float32(1.0))
    radiance[:] = np.where(radiance > 0, kelvin, np.float32(np.nan))
