"""From the numbers in a file to physical values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """physical = stored × scale + offset, then out of decibels where the file is in decibels.

    Reflectance comes out as a share of one, SAR as linear power (so that resampling and composites are right),
    uncalibrated data as they are.
    """

    scale: float = 1.0
    offset: float = 0.0
    nodata: float | None = None
    """Stored number that means "no measurement"; compared before scale and offset."""
    decibels: bool = False
    """The stored number is 10·log10 of linear power."""
    categorical: bool = False
    """Classes or bits: never interpolated, never read from an overview, returned as stored."""

    def apply(self, stored: NDArray[np.generic]) -> NDArray[np.float32]:
        """Physical values as float32 of the same shape, NaN where `stored` is nodata, NaN or infinite."""
        numbers = np.asarray(stored)
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
        if missing is not None:
            values[missing] = np.nan
        return values
