"""Quality layers of products, and the reason mask that they make together.

A layer is a row of `QUALITY_LAYERS`: what its stored numbers say of each pixel, in the codes of `Reason`. A further
product's layer is one more row, named in the `masks` of the sensors that have it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from earthmap.errors import SensorError
from earthmap.sensors.masks import Reason

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from earthmap.sensors.registry import Sensor

SILENT = 255
"""What a layer gives for a pixel that it says nothing of."""

CLOUD_PERCENT = 65.0
"""Cloud probability in percent from which a pixel is cloud: Sen2Cor's class of high probability (L2A Algorithm
Theoretical Basis Document, S2-PDGS-MPC-ATBD-L2A, cloud screening)."""

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

# USGS, Landsat 8-9 Collection 2 Level 2 Science Product Guide (LSDS-1619), table of QA_PIXEL; Landsat 4-7 (LSDS-1618)
# has the same bits and leaves that of cirrus unused. The first bit that is set decides.
QA_PIXEL_REASONS = (
    (0, Reason.NODATA),  # fill
    (3, Reason.CLOUD),  # cloud, high confidence
    (4, Reason.SHADOW),  # cloud shadow
    (1, Reason.CLOUD),  # dilated cloud: "clear" is not set on it either
    (2, Reason.CIRRUS),  # cirrus, high confidence
    (5, Reason.SNOW),  # snow
    (6, Reason.CLEAR),  # neither cloud nor dilated cloud
    (7, Reason.CLEAR),  # water
)
"""Bits of Landsat Collection 2's QA_PIXEL, in order of precedence → reasons; no bit at all is unknown."""

# The same guides, tables of QA_RADSAT: bits 0 to 8 are bands of the instrument that were saturated (thermal ones of
# ETM+ and TM among them), 9 a pixel that was dropped (ETM+, TM), 11 ground that terrain hid from the sensor (OLI).
QA_RADSAT_REASONS = ((9, Reason.NODATA), (11, Reason.LAYOVER), *((bit, Reason.SATURATED) for bit in range(9)))
"""Bits of Landsat Collection 2's QA_RADSAT, in order of precedence → reasons; no bit at all says nothing."""

# OPERA RTC-S1 product specification (JPL D-108758), layer `mask`; CEOS Normalised Radar Backscatter, per-pixel mask.
_LAYOVER_REASONS = {1: Reason.LAYOVER, 2: Reason.LAYOVER, 3: Reason.LAYOVER}


def _table(reasons: Mapping[int, int], *, otherwise: int) -> NDArray[np.uint8]:
    table = np.full(256, otherwise, np.uint8)
    for code, reason in reasons.items():
        table[code] = reason
    return table


def _bit_table(bits: tuple[tuple[int, Reason], ...], *, otherwise: int) -> NDArray[np.uint8]:
    numbers = np.arange(2**16)
    table = np.full(2**16, otherwise, np.uint8)
    for bit, reason in reversed(bits):
        table[(numbers >> bit) & 1 == 1] = reason
    return table


def _looked_up(
    layer: NDArray[np.generic], table: NDArray[np.uint8], *, odd: int, missing: int
) -> NDArray[np.uint8]:  # fmt: skip
    """`table` at the whole numbers of `layer`; `odd` for a number that is not in it, `missing` where NaN."""
    numbers = np.asarray(layer)
    absent = ~np.isfinite(numbers) if numbers.dtype.kind == "f" else np.zeros(numbers.shape, bool)
    filled = np.where(absent, 0, numbers)
    inside = (filled >= 0) & (filled < len(table))
    whole = np.where(inside, filled, 0).astype(np.int64)
    reasons = table.take(whole)
    # A fraction is no class: it shows that somebody interpolated.
    reasons[~inside | (whole != filled)] = odd
    reasons[absent] = missing
    return reasons


def reasons_from_scl(scl: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Reason codes of a Scene Classification Layer of any shape; NaN, its nodata once read, is nodata."""
    table = _table(SCL_REASONS, otherwise=Reason.UNKNOWN)
    return _looked_up(scl, table, odd=Reason.UNKNOWN, missing=Reason.NODATA)


def reasons_from_qa_pixel(bits: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Reason codes of Landsat Collection 2's QA_PIXEL of any shape; NaN, its nodata once read, is nodata."""
    table = _bit_table(QA_PIXEL_REASONS, otherwise=Reason.UNKNOWN)
    return _looked_up(bits, table, odd=Reason.UNKNOWN, missing=Reason.NODATA)


def reasons_from_qa_radsat(bits: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Reason codes of Landsat Collection 2's QA_RADSAT of any shape, `SILENT` where no band was saturated."""
    table = _bit_table(QA_RADSAT_REASONS, otherwise=SILENT)
    return _looked_up(bits, table, odd=SILENT, missing=SILENT)


def reasons_from_cloud_probability(percent: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Cloud from `CLOUD_PERCENT` on, clear below, unknown where the layer has no number; any shape."""
    values = np.asarray(percent, np.float32)
    reasons = np.where(values >= CLOUD_PERCENT, np.uint8(Reason.CLOUD), np.uint8(Reason.CLEAR))
    reasons[~np.isfinite(values)] = Reason.UNKNOWN
    return reasons


def reasons_from_layover(classes: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Layover or radar shadow where the layer says 1 (shadow), 2 (layover) or 3 (both), else `SILENT`; any shape."""
    return _looked_up(classes, _table(_LAYOVER_REASONS, otherwise=SILENT), odd=SILENT, missing=SILENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityLayer:
    """One row of `QUALITY_LAYERS`."""

    kind: str
    classifies: bool
    """True where it says of every pixel what it is: a scene is read with the first such layer that it has. Others
    only add what they know."""
    outlines: bool
    """True where its nodata is the scene's own: where it is missing no band is read."""
    reasons: Callable[[NDArray[np.generic]], NDArray[np.uint8]] = field(repr=False)
    """From stored numbers (NaN where nodata) to codes of `Reason`, or `SILENT`."""


_ROWS = (
    QualityLayer(kind="scl", classifies=True, outlines=True, reasons=reasons_from_scl),
    QualityLayer(kind="qa_pixel", classifies=True, outlines=True, reasons=reasons_from_qa_pixel),
    QualityLayer(
        kind="cloud_probability", classifies=True, outlines=False, reasons=reasons_from_cloud_probability
    ),
    QualityLayer(kind="qa_radsat", classifies=False, outlines=False, reasons=reasons_from_qa_radsat),
    QualityLayer(kind="layover", classifies=False, outlines=False, reasons=reasons_from_layover),
)  # fmt: skip

QUALITY_LAYERS = {layer.kind: layer for layer in _ROWS}
"""Every quality layer that is understood, by kind, in the order in which they are asked."""


def reason_mask(
    data: NDArray[np.float32], layers: Mapping[str, NDArray[np.generic]], sensor: Sensor
) -> NDArray[np.uint8]:  # fmt: skip
    """Why each pixel may not show the ground, (y, x) uint8 codes of `Reason`.

    A pixel is nodata where all bands are NaN, and where all are 0 in pictures without a stated scale, which fill with
    black what they do not show: one band that is missing does not hide what the others show, and a question that
    needs that band sees its NaN. Elsewhere the layers decide, in the order of `QUALITY_LAYERS`: the first that knows
    of anything but a clear sky is believed. Without any the pixel is unknown, for what is not known is not clear; but
    for radar it is clear, which sees through clouds.

    Args:
        data: (band, y, x) physical values, NaN where nodata, positive infinity where saturated: no layer need say it.
        layers: By kind, (y, x) stored numbers of the scene's quality layers, NaN where nodata.
        sensor: The row that they belong to.

    Raises:
        SensorError: where they do not lie on the same pixels, or a layer is of no kind in `QUALITY_LAYERS`.
    """
    shapes = {layer.shape for layer in layers.values()}
    if data.ndim != 3 or shapes - {data.shape[1:]}:
        raise SensorError(
            f"bands of shape {data.shape} and masks of shape {sorted(shapes)}", expected="(band, y, x) and (y, x) alike"
        )
    if set(layers) - set(QUALITY_LAYERS):
        raise SensorError(f"{sorted(layers)} as quality layers", expected=f"some of {', '.join(QUALITY_LAYERS)}")
    mask = np.full(data.shape[1:], Reason.CLEAR if sensor.is_sar else Reason.UNKNOWN, np.uint8)
    for layer in QUALITY_LAYERS.values():
        if layer.kind in layers:
            said = layer.reasons(layers[layer.kind])
            open_yet = (mask == Reason.UNKNOWN) | ((mask == Reason.CLEAR) & (said != Reason.UNKNOWN))
            np.copyto(mask, said, where=open_yet & (said != SILENT))
    saturated = np.isposinf(data).any(axis=0)
    mask[saturated & ((mask == Reason.CLEAR) | (mask == Reason.UNKNOWN))] = Reason.SATURATED
    mask[np.isnan(data).all(axis=0)] = Reason.NODATA
    if not sensor.calibrated and not sensor.is_sar:
        mask[(data == 0).all(axis=0)] = Reason.NODATA  # pictures without a scale are filled with black
    return mask
