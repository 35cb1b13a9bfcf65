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
        values = np.asarray(stored).astype(np.float32)
        missing = ~np.isfinite(values)
        if self.nodata is not None and np.isfinite(self.nodata):
            missing |= np.asarray(stored) == self.nodata
        if not self.categorical:
            values = values * np.float32(self.scale) + np.float32(self.offset)
            if self.decibels:
                values = np.float32(10.0) ** (values / np.float32(10.0))
        values[missing] = np.nan
        return values
