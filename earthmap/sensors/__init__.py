"""What a pixel means: bands, sensors, calibration, reason masks and views."""

from earthmap.sensors.bands import (
    BANDS,
    OPTICAL_BANDS,
    PAN,
    SAR_BANDS,
    THERMAL_BANDS,
    Band,
    resolve_band,
    resolve_family,
)
from earthmap.sensors.calibration import Calibration
from earthmap.sensors.masks import REASONS, Reason, unseen
from earthmap.sensors.quality import QUALITY_LAYERS, QualityLayer, reason_mask
from earthmap.sensors.recognition import Recognition, recognize
from earthmap.sensors.registry import SENSORS, BandFacts, ItemFacts, Place, Sensor, get_sensor
from earthmap.sensors.views import (
    NODATA_GREY,
    VIEWS,
    Channel,
    View,
    default_view,
    fitting,
    get_view,
    invert_view,
    make_view,
    missing_views,
    sensor_views,
)

__all__ = [
    "BANDS",
    "NODATA_GREY",
    "OPTICAL_BANDS",
    "PAN",
    "QUALITY_LAYERS",
    "REASONS",
    "SAR_BANDS",
    "SENSORS",
    "THERMAL_BANDS",
    "VIEWS",
    "Band",
    "BandFacts",
    "Calibration",
    "Channel",
    "ItemFacts",
    "Place",
    "QualityLayer",
    "Reason",
    "Recognition",
    "Sensor",
    "View",
    "default_view",
    "fitting",
    "get_sensor",
    "get_view",
    "invert_view",
    "make_view",
    "missing_views",
    "reason_mask",
    "recognize",
    "resolve_band",
    "resolve_family",
    "sensor_views",
    "unseen",
]
