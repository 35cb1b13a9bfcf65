"""The table of sensors, and what an item may say that tells which row it belongs to.

A further sensor is one more row of `SENSORS` and at most one more rule of `earthmap.sensors.recognition`.
"""

from __future__ import annotations

from dataclasses import dataclass

from earthmap.errors import SensorError
from earthmap.sensors.bands import OPTICAL_BANDS, PAN, SAR_BANDS, THERMAL_BANDS

_S2_L1C = OPTICAL_BANDS
_S2_L2A = tuple(band for band in OPTICAL_BANDS if band != "cirrus")  # cirrus holds no surface: L2A leaves it out
_WITH_PAN = (*OPTICAL_BANDS, PAN)  # pan is read where an item has nothing else
_LANDSAT_L2 = ("coastal", "blue", "green", "red", "nir08", "swir16", "swir22", "lwir11")
_LANDSAT_L1 = ("coastal", "blue", "green", "red", "nir08", "cirrus", "swir16", "swir22", "lwir11", "lwir12")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A place for one view among those that the model is given of a picture."""

    views: tuple[str, ...]
    """Names of equal rank in `earthmap.sensors.views.VIEWS`: the first that a picture's bands suffice for is given."""
    instead: tuple[str, ...] = ()
    """What stands in where they suffice for none of them. The place's own view is missing nevertheless."""
    extra: bool = False
    """True for a view that is given where it can be made, and that nobody misses elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensor:
    """One row of `SENSORS`: what a pixel of this imagery means."""

    id: str
    title: str
    """For people."""
    quantity: str
    """`reflectance`, `temperature`, `backscatter` or `digital number`."""
    convention: str
    """Which of the quantity's conventions: `surface reflectance`, `top-of-atmosphere reflectance` …"""
    unit: str
    """Of the values in a cube: `1` for a share of one and for linear power, `K`, or `DN` where nothing is stated. The
    thermal bands of a row with reflectance are in kelvin."""
    bands: tuple[str, ...]
    """Bands that a scene of it may have, in the order in which cubes hold them."""
    masks: tuple[str, ...] = ()
    """Kinds of quality layers (`earthmap.sensors.quality`) that a scene of it may have."""
    coarsest_m: float
    """Coarsest ground distance in metres at which a target is asked for, unless the job says otherwise."""
    nominal_m: float | None = None
    """Ground distance in metres of its finest band, for items that state none; None where it differs by scene."""
    placed_m: float | None = None
    """How far apart two dates of it may show the same ground, in metres, as its product is specified; None where that
    differs by scene or is nowhere promised."""
    anchor_m: int = 0
    """Anchor of the lattice on which its pixels are not resampled."""
    views: tuple[str, ...]
    """Names in `earthmap.sensors.views.VIEWS` that show it to people, the first that can be made."""
    places: tuple[Place, ...]
    """The views that the model is given of it, in their order; what is above its limit is dropped from the end on."""

    @property
    def calibrated(self) -> bool:
        """True where values are physical; spectral indices and thresholds are refused elsewhere."""
        return self.quantity != "digital number"

    @property
    def is_sar(self) -> bool:
        """True for radar: values are linear power, or the square of what is stored where nothing calibrates it."""
        return set(self.bands) <= set(SAR_BANDS)


_S2_VIEWS = ("rgb", "swir", "rededge", "nir-coastal", "nir-red-green", "swir-nir-red")
_SAR_VIEWS = ("sar-vv-vh", "sar-hh-hv", "sar-vv", "sar-hh", "sar-vh", "sar-hv")
_SAR_STORED_VIEWS = tuple(f"{name}-stored" for name in _SAR_VIEWS)
_PLAIN_VIEWS = (
    "rgb-8bit",
    "nir-red-green-8bit",
    "swir-nir-red-8bit",
    "red-8bit",
    "nir-8bit",
    "pan-8bit",
)
_DEEP_VIEWS = ("rgb-11bit", "nir-red-green-11bit", "red-11bit", "nir-11bit", "pan-11bit")
_LANDSAT_VIEWS = ("rgb", "swir", "nir08-red-green", "swir-nir08-red", "thermal", "thermal-lwir12")

_S2_PLACES = (
    Place(views=("rgb",), instead=("nir-red-green", "swir-nir-red", "red", "nir", "pan")),
    Place(views=("rededge",)),
    Place(views=("swir",), instead=("swir-nir-red", "swir-nir08-red")),
    Place(views=("nir-coastal",), instead=("nir-red-green", "nir08-red-green")),
)
_LANDSAT_PLACES = (
    Place(views=("rgb",), instead=("nir08-red-green", "swir-nir08-red")),
    Place(views=("swir",), instead=("swir-nir08-red", "nir08-red-green")),
    Place(views=("thermal", "thermal-lwir12")),
)
_SAR_PLACES = (Place(views=_SAR_VIEWS),)  # one polarization, replicated, is a form of its own and no lack
_PLAIN_PLACES = (
    Place(views=("rgb-8bit",), instead=_PLAIN_VIEWS[1:]),
    Place(views=("nir-red-green-8bit",), extra=True),
)
_DEEP_PLACES = (
    Place(views=("rgb-11bit",), instead=_DEEP_VIEWS[1:]),
    Place(views=("nir-red-green-11bit",), extra=True),
)
_THERMAL_VIEWS = ("thermal", "thermal-lwir12")
_THERMAL_STORED_VIEWS = ("thermal-8bit", "thermal-lwir12-8bit")

_ROWS = (
    Sensor(
        id="sentinel-2-l2a",
        title="Sentinel-2 surface reflectance (L2A)",
        quantity="reflectance",
        convention="surface reflectance (L2A)",
        unit="1",
        bands=_S2_L2A,
        masks=("scl", "cloud_probability"),
        coarsest_m=300.0,
        placed_m=12.5,
        nominal_m=10.0,
        views=_S2_VIEWS,
        places=_S2_PLACES,
    ),
    Sensor(
        id="sentinel-2-l1c",
        title="Sentinel-2 top-of-atmosphere reflectance (L1C)",
        quantity="reflectance",
        convention="top-of-atmosphere reflectance (L1C)",
        unit="1",
        bands=_S2_L1C,
        masks=("cloud_probability",),
        coarsest_m=300.0,
        placed_m=12.5,
        nominal_m=10.0,
        views=_S2_VIEWS,
        places=_S2_PLACES,
    ),
    Sensor(
        id="sentinel-1-db",
        title="Sentinel-1 backscatter delivered in decibels",
        quantity="backscatter",
        convention="sigma0 or gamma0, delivered in dB, read as linear power",
        unit="1",
        bands=SAR_BANDS,
        masks=("layover",),
        coarsest_m=300.0,
        placed_m=7.0,
        views=_SAR_VIEWS,
        places=_SAR_PLACES,
    ),
    Sensor(
        id="sentinel-1-rtc",
        title="Sentinel-1 terrain-corrected gamma0",
        quantity="backscatter",
        convention="terrain-corrected gamma0, linear power",
        unit="1",
        bands=SAR_BANDS,
        masks=("layover",),
        coarsest_m=300.0,
        placed_m=7.0,
        views=_SAR_VIEWS,
        places=_SAR_PLACES,
    ),
    Sensor(
        id="sentinel-1-grd",
        title="Sentinel-1 GRD, calibrated with its annotation",
        quantity="backscatter",
        convention="sigma0 on the ellipsoid, noise removed, linear power",
        unit="1",
        bands=SAR_BANDS,
        coarsest_m=300.0,
        placed_m=7.0,
        nominal_m=10.0,
        views=_SAR_VIEWS,
        places=_SAR_PLACES,
    ),
    Sensor(
        id="radar-uncalibrated",
        title="Radar amplitudes or complex numbers without calibration",
        quantity="digital number",
        convention="uncalibrated, the square of the stored amplitude",
        unit="DN",
        bands=SAR_BANDS,
        coarsest_m=300.0,
        views=_SAR_STORED_VIEWS,
        places=(Place(views=_SAR_STORED_VIEWS),),
    ),
    Sensor(
        id="landsat-c2-l2",
        title="Landsat surface reflectance and temperature (Collection 2, level 2)",
        quantity="reflectance",
        convention="surface reflectance and surface temperature (Collection 2, level 2)",
        unit="1",
        bands=_LANDSAT_L2,
        masks=("qa_pixel", "qa_radsat"),
        coarsest_m=1000.0,
        placed_m=12.0,
        nominal_m=30.0,
        anchor_m=15,
        views=_LANDSAT_VIEWS,
        places=_LANDSAT_PLACES,
    ),
    Sensor(
        id="landsat-c2-l1",
        title="Landsat top-of-atmosphere reflectance and brightness temperature (Collection 2, level 1)",
        quantity="reflectance",
        convention="top-of-atmosphere reflectance and brightness temperature (Collection 2, level 1)",
        unit="1",
        bands=_LANDSAT_L1,
        masks=("qa_pixel", "qa_radsat"),
        coarsest_m=1000.0,
        placed_m=12.0,
        nominal_m=30.0,
        anchor_m=15,
        views=_LANDSAT_VIEWS,
        places=_LANDSAT_PLACES,
    ),
    Sensor(
        id="hyperspectral",
        title="Imaging spectrometer, the bands nearest to the canonical ones",
        quantity="reflectance",
        convention="reflectance as the provider states it",
        unit="1",
        bands=OPTICAL_BANDS,
        coarsest_m=1000.0,
        views=_S2_VIEWS,
        places=_S2_PLACES,
    ),
    Sensor(
        id="thermal",
        title="Thermal infrared with a stated temperature",
        quantity="temperature",
        convention="surface or brightness temperature as the provider states it",
        unit="K",
        bands=THERMAL_BANDS,
        coarsest_m=1000.0,
        views=_THERMAL_VIEWS,
        places=(Place(views=_THERMAL_VIEWS),),
    ),
    Sensor(
        id="thermal-uncalibrated",
        title="Thermal infrared without a stated physical scale",
        quantity="digital number",
        convention="uncalibrated",
        unit="DN",
        bands=THERMAL_BANDS,
        coarsest_m=1000.0,
        views=_THERMAL_STORED_VIEWS,
        places=(Place(views=_THERMAL_STORED_VIEWS),),
    ),
    Sensor(
        id="optical-reflectance",
        title="Optical reflectance with a stated scale",
        quantity="reflectance",
        convention="reflectance as the provider states it",
        unit="1",
        bands=_WITH_PAN,
        coarsest_m=1000.0,
        views=(*_S2_VIEWS, "red", "nir", "pan"),
        places=_S2_PLACES,
    ),
    Sensor(
        id="optical-uncalibrated",
        title="Optical image without a stated physical scale",
        quantity="digital number",
        convention="uncalibrated",
        unit="DN",
        bands=_WITH_PAN,
        coarsest_m=1000.0,
        views=_PLAIN_VIEWS,
        places=_PLAIN_PLACES,
    ),
    Sensor(
        id="optical-uncalibrated-16bit",
        title="Optical image of more than 8 bits without a stated physical scale",
        quantity="digital number",
        convention="uncalibrated",
        unit="DN",
        bands=_WITH_PAN,
        coarsest_m=1000.0,
        views=_DEEP_VIEWS,
        places=_DEEP_PLACES,
    ),
)

SENSORS = {row.id: row for row in _ROWS}
"""Every sensor that can be read, by id."""


def get_sensor(id: str) -> Sensor:
    """The row of `id`. Raises SensorError that names the rows there are."""
    if id not in SENSORS:
        raise SensorError(f"there is no sensor {id!r}", expected=f"one of {', '.join(SENSORS)}")
    return SENSORS[id]


@dataclass(frozen=True, slots=True, kw_only=True)
class BandFacts:
    """What an item says of one data band."""

    band: str
    """Canonical name."""
    data_type: str | None = None
    """`uint16`, `float32` …"""
    scale: float | None = None
    """Stated factor from stored numbers to physical values."""
    offset: float | None = None
    """Stated offset, in physical units."""
    unit: str | None = None
    """Stated unit."""
    planck: tuple[float, float] | None = None
    """Constants K1 and K2 that turn a thermal band's radiance into brightness temperature, where stated."""
    saturated: float | None = None
    """Stored number that means "more than the sensor can measure", where stated."""

    @property
    def is_temperature(self) -> bool:
        """True where the item states that the number becomes a temperature."""
        return (self.unit or "").strip().lower() in (*KELVIN, *CELSIUS)

    @property
    def is_reflectance(self) -> bool:
        """True where the item states how the stored number becomes reflectance."""
        unit = (self.unit or "").strip().lower()
        if unit not in _REFLECTANCE_UNITS:
            return False
        if self.scale is not None and self.scale not in (0.0, 1.0):
            return True
        # A share of one in floating point needs no factor, but it has to be said that it is one.
        return (self.data_type or "").startswith("float") and (self.scale == 1.0 or bool(unit))


KELVIN = ("k", "kelvin", "kelvins")
CELSIUS = ("°c", "c", "celsius", "degc", "degree celsius", "degrees celsius")
"""How items write the unit of a temperature."""

LANDSAT_L2_REFLECTANCE = (2.75e-5, -0.2)
LANDSAT_L2_TEMPERATURE = (0.00341802, 149.0)
"""Landsat Collection 2 level 2's scale and offset, to reflectance and to kelvin (USGS LSDS-1619)."""

_REFLECTANCE_UNITS = ("", "1", "reflectance", "unitless", "dimensionless", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemFacts:
    """What an item says of its measurement: the whole input of `recognize`."""

    bands: tuple[BandFacts, ...]
    """Its data bands."""
    platform: str | None = None
    """Platform, or else constellation, in lower case with hyphens: `sentinel-2a`."""
    instruments: tuple[str, ...] = ()
    """In lower case."""
    level: str | None = None
    """Processing level or product type as stated: `L2A`, `S2MSI1C`, `GRD`, `RTC` …"""
    layers: frozenset[str] = frozenset()
    """Layers beside the data that tell the level: `scl`, `aot`, `wvp`."""
    measurement: str = ""
    """Text of its data assets on what was measured, in lower case."""
    rendered: bool = False
    """True where all that it has is a picture made for people to look at."""
    edition: str | None = None
    """Which processing of the archive, as stated: `02` for Landsat's Collection 2."""
    sun_elevation_deg: float | None = None
    """Of the sun above the horizon."""
    spectral_bands: int = 0
    """Bands, known here or not, whose centre wavelength is stated."""

    @property
    def names(self) -> frozenset[str]:
        """Canonical names of its data bands."""
        return frozenset(fact.band for fact in self.bands)
