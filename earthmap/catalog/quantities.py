"""From what an item states of its numbers to the calibration that makes them physical values."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from earthmap.catalog.assets import AssetBand
from earthmap.catalog.fields import number_of, text_of
from earthmap.sensors.bands import THERMAL_BANDS
from earthmap.sensors.calibration import Calibration
from earthmap.sensors.registry import CELSIUS, LANDSAT_L2_REFLECTANCE, LANDSAT_L2_TEMPERATURE, Sensor

S2_SCALE, S2_OFFSET = 1e-4, -0.1
"""Sentinel-2's stored number to reflectance; the offset is there since processing baseline 04.00."""

LARGEST_16_BIT = 65_535.0
"""Saturated pixels of Sentinel-2 (S2-PDGS-TAS-DI-PSD, Special_Values: SATURATED) and of Sentinel-1's 16-bit amplitudes,
whose numbers end there (S1-RS-MDA-52-7441)."""

ZERO_CELSIUS_K = 273.15

_OFFSET_BASELINE = 4.0
_OFFSET_DATE = datetime.datetime(2022, 1, 25, tzinfo=datetime.UTC)


def calibrate(
    bands: Sequence[AssetBand], *, sensor: Sensor, properties: Mapping[str, Any], time: datetime.datetime
) -> tuple[list[Calibration], tuple[str, ...]]:
    """How the stored numbers of `bands` become physical values of `sensor`, one for each, and what was assumed."""
    if sensor.id == "sentinel-1-grd":
        saturated = LARGEST_16_BIT
        return [Calibration(nodata=one.nodata or 0.0, amplitude=True, saturated=saturated) for one in bands], ()
    if sensor.is_sar and not sensor.calibrated:
        return [Calibration(nodata=one.nodata or 0.0, amplitude=True) for one in bands], ()
    if not sensor.calibrated:
        return [Calibration(nodata=one.nodata) for one in bands], ()
    if sensor.id.startswith("sentinel-2"):
        return _sentinel_2(bands, properties=properties, time=time)
    if sensor.id == "landsat-c2-l2":
        return [_landsat_l2(one) for one in bands], ()
    if sensor.id == "landsat-c2-l1":
        sun = sun_elevation(properties) or 0.0
        return [_landsat_l1(one, sun) for one in bands], (f"divided by the sine of the sun's elevation, {sun:.2f}°",)
    return [_as_stated(one, decibels=sensor.id == "sentinel-1-db") for one in bands], ()


def is_readable(one: AssetBand, sensor: Sensor) -> bool:
    """False for a thermal band of Landsat's level 1 without the constants K1 and K2: radiance is no temperature."""
    thermal = sensor.id == "landsat-c2-l1" and one.band in THERMAL_BANDS
    return not thermal or one.facts.planck is not None or one.facts.is_temperature


def sun_azimuth(properties: Mapping[str, Any]) -> float | None:
    """Of the sun from north over east in degrees, where stated."""
    names = ("view:sun_azimuth", "eo:sun_azimuth", "s2:mean_solar_azimuth")
    return next((value for name in names if (value := number_of(properties.get(name))) is not None), None)


def sun_elevation(properties: Mapping[str, Any]) -> float | None:
    """Of the sun above the horizon in degrees, where stated; Planetary Computer's Sentinel-2 states the zenith."""
    zenith = number_of(properties.get("s2:mean_solar_zenith"))
    stated = number_of(properties.get("view:sun_elevation", properties.get("eo:sun_elevation")))
    return 90.0 - zenith if stated is None and zenith is not None else stated


def _as_stated(one: AssetBand, *, decibels: bool = False) -> Calibration:
    """The item's own scale and offset; degrees Celsius become kelvin."""
    facts = one.facts
    celsius = one.band in THERMAL_BANDS and (facts.unit or "").strip().lower() in CELSIUS
    return Calibration(
        scale=1.0 if facts.scale is None else facts.scale,
        offset=(facts.offset or 0.0) + (ZERO_CELSIUS_K if celsius else 0.0),
        nodata=one.nodata,
        decibels=decibels,
    )


# -- Landsat (USGS LSDS-1619; Landsat 8-9 Data Users Handbook, LSDS-1574, section 5)


def _landsat_l2(one: AssetBand) -> Calibration:
    """Surface reflectance, or surface temperature in kelvin: the archive's one scale where the item states none."""
    scale, offset = LANDSAT_L2_TEMPERATURE if one.band in THERMAL_BANDS else LANDSAT_L2_REFLECTANCE
    facts = one.facts
    return Calibration(
        scale=scale if facts.scale is None else facts.scale,
        offset=offset if facts.scale is None or facts.offset is None else facts.offset,
        nodata=0.0 if one.nodata is None else one.nodata,
    )


def _landsat_l1(one: AssetBand, sun_elevation_deg: float) -> Calibration:
    """Top-of-atmosphere reflectance: the factors leave out the height of the sun. Thermal: brightness temperature."""
    facts, nodata = one.facts, 0.0 if one.nodata is None else one.nodata
    scale, offset = 1.0 if facts.scale is None else facts.scale, facts.offset or 0.0
    if one.band in THERMAL_BANDS:
        return Calibration(scale=scale, offset=offset, nodata=nodata, planck=facts.planck)
    sine = math.sin(math.radians(sun_elevation_deg))
    return Calibration(scale=scale / sine, offset=offset / sine, nodata=nodata)


# -- Sentinel-2


def _sentinel_2(
    bands: Sequence[AssetBand], *, properties: Mapping[str, Any], time: datetime.datetime
) -> tuple[list[Calibration], tuple[str, ...]]:
    applied = bool(properties.get("earthsearch:boa_offset_applied"))
    offset, notes = (0.0, ()) if applied else _s2_offset(properties, time)
    if all(one.facts.offset is not None for one in bands):
        notes = ()  # nothing was assumed
    return [_s2_calibration(one, offset=offset, applied=applied) for one in bands], notes


def _s2_calibration(one: AssetBand, *, offset: float, applied: bool) -> Calibration:
    """Reflectance; stored 0 is nodata before the offset, and negative reflectance stays.

    Where Earth Search has added the offset to the pixels it still states it at times: obeying both subtracts twice.
    """
    facts = one.facts
    if (facts.data_type or "").startswith("float") and facts.scale is None:
        return Calibration(offset=facts.offset or 0.0, nodata=one.nodata)
    stated = facts.offset if facts.offset is not None else offset
    return Calibration(
        scale=S2_SCALE if facts.scale is None else facts.scale,
        offset=0.0 if applied else stated,
        nodata=0.0 if one.nodata is None else one.nodata,
        saturated=LARGEST_16_BIT if facts.saturated is None else facts.saturated,
    )


def _s2_offset(properties: Mapping[str, Any], time: datetime.datetime) -> tuple[float, tuple[str, ...]]:
    """The offset that the processing baseline brings, and a note where it had to be told from the date."""
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
