"""What a pixel means: bands, sensors, calibration, reason masks and views."""

from earthmap.sensors.bands import BANDS, OPTICAL_BANDS, SAR_BANDS, Band, resolve_band, resolve_family
from earthmap.sensors.calibration import Calibration
from earthmap.sensors.masks import REASONS, SCL_REASONS, Reason, reason_mask, reasons_from_scl, unseen
from earthmap.sensors.registry import SENSORS, BandFacts, ItemFacts, Recognition, Sensor, get_sensor, recognize
from earthmap.sensors.views import NODATA_GREY, VIEWS, Channel, View, default_view, get_view, invert_view, make_view

__all__ = [
    "BANDS",
    "NODATA_GREY",
    "OPTICAL_BANDS",
    "REASONS",
    "SAR_BANDS",
    "SCL_REASONS",
    "SENSORS",
    "VIEWS",
    "Band",
    "BandFacts",
    "Calibration",
    "Channel",
    "ItemFacts",
    "Reason",
    "Recognition",
    "Sensor",
    "View",
    "default_view",
    "get_sensor",
    "get_view",
    "invert_view",
    "make_view",
    "reason_mask",
    "reasons_from_scl",
    "recognize",
    "resolve_band",
    "resolve_family",
    "unseen",
]
