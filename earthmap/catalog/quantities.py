"""From what an item states of its numbers to the calibration that makes them physical values."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import Any

from earthmap.catalog.assets import AssetBand
from earthmap.catalog.fields import number_of, text_of
from earthmap.sensors.calibration import Calibration
from earthmap.sensors.registry import Sensor

S2_SCALE, S2_OFFSET = 1e-4, -0.1
"""Sentinel-2's stored number to reflectance; the offset is there since processing baseline 04.00."""

_OFFSET_BASELINE = 4.0
_OFFSET_DATE = datetime.datetime(2022, 1, 25, tzinfo=datetime.UTC)


def calibration_of(
    one: AssetBand, *, sensor: Sensor, offset: float | None, properties: Mapping[str, Any]
) -> Calibration:
    """How the stored numbers of one band become physical values of `sensor`."""
    if not sensor.calibrated:
        return Calibration(nodata=one.nodata)
    facts = one.facts
    if sensor.id.startswith("sentinel-2"):
        return _s2_calibration(one, offset=offset, applied=bool(properties.get("earthsearch:boa_offset_applied")))
    return Calibration(
        scale=1.0 if facts.scale is None else facts.scale,
        offset=facts.offset or 0.0,
        nodata=one.nodata,
        decibels=sensor.id == "sentinel-1-db",
    )


def _s2_calibration(one: AssetBand, *, offset: float | None, applied: bool) -> Calibration:
    """Reflectance; stored 0 is nodata before the offset, and negative reflectance stays.

    Where Earth Search has added the offset to the pixels it still states it at times: obeying both subtracts twice.
    """
    facts = one.facts
    if (facts.data_type or "").startswith("float") and facts.scale is None:
        return Calibration(offset=facts.offset or 0.0, nodata=one.nodata)
    stated = facts.offset if facts.offset is not None else offset
    return Calibration(
        scale=S2_SCALE if facts.scale is None else facts.scale,
        offset=0.0 if applied else stated or 0.0,
        nodata=0.0 if one.nodata is None else one.nodata,
    )


def s2_offset(properties: Mapping[str, Any], time: datetime.datetime) -> tuple[float, tuple[str, ...]]:
    """The offset that the processing baseline brings, and a note where it had to be told from the date."""
    if properties.get("earthsearch:boa_offset_applied"):
        return 0.0, ()
    baseline = _baseline(properties)
    if baseline is not None:
        return (S2_OFFSET if baseline >= _OFFSET_BASELINE else 0.0), ()
    offset = S2_OFFSET if time >= _OFFSET_DATE else 0.0
    return offset, (f"processing baseline not stated, offset {offset:g} assumed from the date",)


def _baseline(properties: Mapping[str, Any]) -> float | None:
    stated = number_of(text_of(properties, "s2:processing_baseline", "processing:version"))
    if stated is not None:
        return stated
    product = text_of(properties, "s2:datatake_id", "s2:product_uri", "sentinel:product_id") or ""
    match = re.search(r"_N(\d\d)\.?(\d\d)(?:_|$)", product)
    return float(f"{match[1]}.{match[2]}") if match else None
