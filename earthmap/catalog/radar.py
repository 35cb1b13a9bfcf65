"""What an item says of a radar image in ground range: its annotation and the distance of its pixels.

Earth Search and Planetary Computer key a polarization's annotation alike: `schema-calibration-vv`, `schema-noise-vv`.
Their `proj:*` fields are not used: they lay a north-up box around a swath that is turned, whose corners are up to 90
kilometres off, and the distance that follows from them is none of the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from earthmap.catalog.assets import resolve_href
from earthmap.catalog.fields import Item, number_of, properties_of
from earthmap.catalog.scene import RadarAnnotation
from earthmap.sensors.bands import SAR_BANDS

GROUND_RANGE_M = 10.0
"""Pixel distance of Sentinel-1's IW and SM products of high resolution, where an item states none."""

_MODES_M = {"EW": 40.0, "WV": 25.0}


def radar_annotation(item: Item, band: str, base: str) -> RadarAnnotation | None:
    """The annotation of a polarization; None where the item has no calibration of it."""
    calibration = _href(item, f"schema-calibration-{band}", base)
    if calibration is None:
        return None
    return RadarAnnotation(calibration=calibration, noise=_href(item, f"schema-noise-{band}", base))


def has_calibration(item: Item, bands: Sequence[str]) -> bool:
    """True where each of the polarizations among `bands` has its calibration, and there is one."""
    channels = [band for band in bands if band in SAR_BANDS]
    return bool(channels) and all(_href(item, f"schema-calibration-{band}", "/") for band in channels)


NOISE_KEPT = "noise not removed"
"""The note, and the convention, of sigma nought without its noise annotation: dark ground comes out brighter."""


def noise_kept(item: Item, bands: Sequence[str]) -> str | None:
    """The note on polarizations among `bands` that have no noise annotation; None where each has."""
    channels = [band for band in bands if band in SAR_BANDS]
    without = [band for band in channels if _href(item, f"schema-noise-{band}", "/") is None]
    if not without:
        return None
    return NOISE_KEPT if len(without) == len(channels) else f"{NOISE_KEPT} from {', '.join(without)}"


def _href(item: Item, key: str, base: str) -> str | None:
    asset = item["assets"].get(key)
    href = asset.get("href") if isinstance(asset, Mapping) else None
    return resolve_href(href, base) if isinstance(href, str) and href else None


def ground_range_spacing(item: Item) -> float | None:
    """The longer side of a pixel in metres, as the sar extension states it, else by the mode; None for neither."""
    properties = properties_of(item)
    sides = [number_of(properties.get(f"sar:pixel_spacing_{axis}")) for axis in ("range", "azimuth")]
    stated = [side for side in sides if side is not None and side > 0]
    return max(stated) if stated else _MODES_M.get(str(properties.get("sar:instrument_mode")))
