"""The reason mask: why a pixel may not show the ground.

A query lists the reasons that count as unseen, because none is right for all: water and floods are often classed as
shadow or dark, and a mask of clear sky alone would delete them.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from earthmap.errors import QueryError, SensorError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from earthmap.sensors.registry import Sensor


class Reason(enum.IntEnum):
    """Codes of a reason mask. They are stored in cubes: none is ever renumbered or reused."""

    CLEAR = 0
    NODATA = 1
    CLOUD = 2
    CIRRUS = 3
    SHADOW = 4
    DARK = 5
    SNOW = 6
    SATURATED = 7
    LAYOVER = 8
    UNKNOWN = 9

    @property
    def label(self) -> str:
        """The word for it in queries, ledgers and reports: `cloud`."""
        return self.name.lower()


REASONS = tuple(reason.label for reason in Reason)
"""The words for all reasons, by code."""

# Classes 0 to 11 of the Scene Classification Layer: ESA, Sentinel-2 Products Specification Document (S2-PDGS-TAS-DI-
# PSD), and Sen2Cor's L2A Algorithm Theoretical Basis Document, table of scene classes.
SCL_REASONS = {
    0: Reason.NODATA,  # no data
    1: Reason.SATURATED,  # saturated or defective
    2: Reason.DARK,  # dark area, or cast shadow of terrain
    3: Reason.SHADOW,  # cloud shadow
    4: Reason.CLEAR,  # vegetation
    5: Reason.CLEAR,  # not vegetated
    6: Reason.CLEAR,  # water
    7: Reason.UNKNOWN,  # unclassified
    8: Reason.CLOUD,  # cloud, medium probability
    9: Reason.CLOUD,  # cloud, high probability
    10: Reason.CIRRUS,  # thin cirrus
    11: Reason.SNOW,  # snow or ice
}
"""Classes of Sentinel-2's Scene Classification Layer → reasons; any other number is unknown."""


def _scl_table() -> NDArray[np.uint8]:
    table = np.full(256, Reason.UNKNOWN, np.uint8)
    for code, reason in SCL_REASONS.items():
        table[code] = reason
    return table


def reasons_from_scl(scl: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Reason codes of a Scene Classification Layer of any shape; NaN, its nodata once read, is nodata."""
    classes = np.asarray(scl)
    if classes.dtype.kind != "f":
        return _scl_table().take(np.where((classes < 0) | (classes > 255), 255, classes).astype(np.int64))
    missing = ~np.isfinite(classes)
    whole = np.clip(np.where(missing, 0, classes), 0, 255).astype(np.int64)
    reasons = _scl_table().take(whole)
    # A fraction is no class: it shows that somebody interpolated.
    reasons[~missing & (whole != classes)] = Reason.UNKNOWN
    return reasons


def reason_mask(data: NDArray[np.float32], mask_layer: NDArray[np.generic] | None, sensor: Sensor) -> NDArray[np.uint8]:
    """Why each pixel may not show the ground, (y, x) uint8 codes of `Reason`.

    A pixel is nodata where all bands are NaN, and where all are 0 in pictures without a stated scale, which fill with
    black what they do not show: one band that is missing does not hide what the others show, and a question that
    needs that band sees its NaN. Elsewhere the sensor's rule decides: SCL's class, clear for radar, and unknown where
    there is no mask, for what is not known is not clear.

    Args:
        data: (band, y, x) physical values, NaN where nodata.
        mask_layer: (y, x) stored classes of the sensor's mask layer; None where the scene has none.
        sensor: The row that they belong to.

    Raises:
        SensorError: where the two do not lie on the same pixels.
    """
    if data.ndim != 3 or (mask_layer is not None and mask_layer.shape != data.shape[1:]):
        seen = None if mask_layer is None else mask_layer.shape
        raise SensorError(
            f"bands of shape {data.shape} and a mask of shape {seen}", expected="(band, y, x) and (y, x) alike"
        )
    if sensor.mask == "clear":
        reasons = np.full(data.shape[1:], Reason.CLEAR, np.uint8)
    elif sensor.mask == "scl" and mask_layer is not None:
        reasons = reasons_from_scl(mask_layer)
    else:
        reasons = np.full(data.shape[1:], Reason.UNKNOWN, np.uint8)
    reasons[np.isnan(data).all(axis=0)] = Reason.NODATA
    if not sensor.calibrated:
        reasons[(data == 0).all(axis=0)] = Reason.NODATA  # pictures without a scale are filled with black
    return reasons


def unseen(mask: NDArray[np.uint8], reasons: Iterable[str]) -> NDArray[np.bool_]:
    """True where the reason of a pixel is among `reasons`; the shape of `mask`.

    Raises:
        QueryError: for a word that is no reason.

    Example:
        >>> unseen(np.array([0, 2, 4], np.uint8), ("nodata", "cloud")).tolist()
        [False, True, False]
    """
    table = np.zeros(256, bool)
    for word in reasons:
        if word not in REASONS:
            raise QueryError(f"{word!r} is no reason for a pixel to be unseen", expected=f"of {', '.join(REASONS)}")
        table[REASONS.index(word)] = True
    return table.take(mask)
