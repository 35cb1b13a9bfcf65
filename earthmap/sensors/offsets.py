"""Whether an offset has been subtracted twice: what the pixels themselves say of a scene's calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from earthmap.sensors.masks import Reason

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from earthmap.sensors.registry import Sensor

OFFSET_SUSPECT = "offset_suspect"
"""The word for it in manifests and answers."""

NEGATIVE_SHARE = 0.10
"""Share of clear numbers below zero from which an offset counts as subtracted twice. Right ones leave less: only deep
water and shadow come out below zero."""

_BANDS = ("blue", "green", "red")
_FEWEST = 1000


def negative_share(
    data: NDArray[np.float32], bands: Sequence[str], mask: NDArray[np.uint8]
) -> float | None:  # fmt: skip
    """Share of the clear numbers of blue, green and red that lie below zero; None where too few are clear to tell.

    Args:
        data: (band, y, x) reflectance, NaN where nodata.
        bands: Canonical names along axis 0.
        mask: (y, x) reason mask. Unknown counts as clear where nothing is.
    """
    clear = mask == Reason.CLEAR
    if not clear.any():
        clear = mask == Reason.UNKNOWN
    numbers = [data[list(bands).index(band)][clear] for band in _BANDS if band in bands]
    finite = np.concatenate([one[np.isfinite(one)] for one in numbers]) if numbers else np.empty(0, np.float32)
    return float((finite < 0).mean()) if finite.size >= _FEWEST else None


def offset_notes(
    data: NDArray[np.float32], bands: Sequence[str], mask: NDArray[np.uint8], sensor: Sensor
) -> tuple[str, ...]:  # fmt: skip
    """`offset_suspect` and the share that says so, for Sentinel-2 pixels whose offset was subtracted twice; else ().

    Catalogues at times state that the offset of processing baseline 04.00 is still in the pixels when it is not.
    """
    share = negative_share(data, bands, mask) if sensor.id.startswith("sentinel-2") else None
    if share is None or share <= NEGATIVE_SHARE:
        return ()
    return (f"{OFFSET_SUSPECT}: {share:.0%} of the clear blue, green and red is below zero",)
