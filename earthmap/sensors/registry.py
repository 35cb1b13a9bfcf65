"""The table of sensors, and which row a STAC item belongs to.

A further sensor is one more row of `SENSORS` and at most one more rule of `_RULES`. A rule sees `ItemFacts` only:
what the item says of the measurement. The names of item and collection are not among them, so no rule can use them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from earthmap.errors import SensorError
from earthmap.sensors.bands import OPTICAL_BANDS, PAN, SAR_BANDS, THERMAL_BANDS

_S2_L1C = OPTICAL_BANDS
_S2_L2A = tuple(band for band in OPTICAL_BANDS if band != "cirrus")  # cirrus holds no surface: L2A leaves it out
_WITH_PAN = (*OPTICAL_BANDS, PAN)  # pan is read where an item has nothing else
_LANDSAT_L2 = ("coastal", "blue", "green", "red", "nir08", "swir16", "swir22", "lwir11")
_LANDSAT_L1 = ("coastal", "blue", "green", "red", "nir08", "cirrus", "swir16", "swir22", "lwir11", "lwir12")


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
    anchor_m: int = 0
    """Anchor of the lattice on which its pixels are not resampled."""
    views: tuple[str, ...]
    """Names in `earthmap.sensors.views.VIEWS` that show it, the first for people."""

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
        nominal_m=10.0,
        views=_S2_VIEWS,
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
        nominal_m=10.0,
        views=_S2_VIEWS,
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
        views=_SAR_VIEWS,
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
        views=_SAR_VIEWS,
    ),
    Sensor(
        id="sentinel-1-grd",
        title="Sentinel-1 GRD, calibrated with its annotation",
        quantity="backscatter",
        convention="sigma0 on the ellipsoid, noise removed, linear power",
        unit="1",
        bands=SAR_BANDS,
        coarsest_m=300.0,
        nominal_m=10.0,
        views=_SAR_VIEWS,
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
        nominal_m=30.0,
        anchor_m=15,
        views=_LANDSAT_VIEWS,
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
        nominal_m=30.0,
        anchor_m=15,
        views=_LANDSAT_VIEWS,
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
    ),
    Sensor(
        id="thermal",
        title="Thermal infrared with a stated temperature",
        quantity="temperature",
        convention="surface or brightness temperature as the provider states it",
        unit="K",
        bands=THERMAL_BANDS,
        coarsest_m=1000.0,
        views=("thermal", "thermal-lwir12"),
    ),
    Sensor(
        id="thermal-uncalibrated",
        title="Thermal infrared without a stated physical scale",
        quantity="digital number",
        convention="uncalibrated",
        unit="DN",
        bands=THERMAL_BANDS,
        coarsest_m=1000.0,
        views=("thermal-8bit", "thermal-lwir12-8bit"),
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognition:
    """The row that an item belongs to, and what its reader should know of the choice."""

    sensor: str
    notes: tuple[str, ...] = ()
    convention: str = ""
    """Which convention its numbers follow where the row leaves it open: `Scene.convention`."""


def recognize(facts: ItemFacts) -> Recognition:
    """The sensor of an item, from what it says of its measurement and from nothing else.

    Raises:
        SensorError: for imagery that has no row, and for radar that is not calibrated.

    Example:
        >>> bands = tuple(BandFacts(band=name, data_type="uint8") for name in ("red", "green", "blue"))
        >>> recognize(ItemFacts(bands=bands)).sensor
        'optical-uncalibrated'
    """
    for rule in _RULES:
        found = rule(facts)
        if found is not None:
            return found
    raise SensorError(
        "no data band is recognised",
        expected="optical bands (red, green, blue, nir …) or radar polarizations (vv, vh, hh, hv) in its assets",
        fix="choose a collection of Sentinel-1, Sentinel-2 or optical images whose items name their bands",
    )


NOT_TERRAIN_CORRECTED = (
    "placed by ground control points, not terrain-corrected: off by the error of their height over the tangent of the"
    " incidence angle"
)
"""What the reader of a radar scene in ground range should know."""


def _radar(facts: ItemFacts) -> Recognition | None:
    polarized = [fact for fact in facts.bands if fact.band in SAR_BANDS]
    if not polarized:
        return None
    calibrated = _backscatter(facts, polarized)
    if calibrated and facts.platform and not facts.platform.startswith("sentinel-1"):
        raise SensorError(
            f"backscatter of {facts.platform} has no row in the table of sensors", expected="backscatter of Sentinel-1"
        )
    notes = (NOT_TERRAIN_CORRECTED,) if is_ground_range(facts.level) else ()
    if calibrated:
        way = _which_backscatter(facts) if calibrated == "sentinel-1-db" else ""
        return Recognition(sensor=calibrated, notes=notes if calibrated == "sentinel-1-grd" else (), convention=way)
    return Recognition(sensor="radar-uncalibrated", notes=("uncalibrated", *notes))


def _which_backscatter(facts: ItemFacts) -> str:
    """`sigma0`, `gamma0` or `terrain-corrected gamma0`, where the words say so."""
    if _is_terrain_corrected(facts):
        return "terrain-corrected gamma0"
    return "gamma0" if _GAMMA.search(facts.measurement) else "sigma0" if _SIGMA.search(facts.measurement) else ""


def _backscatter(facts: ItemFacts, polarized: Sequence[BandFacts]) -> str | None:
    """The row of radar that is calibrated, or can be; None for amplitudes that nothing calibrates."""
    if all(_in_decibels(fact) for fact in polarized):
        return "sentinel-1-db"
    if _is_terrain_corrected(facts) and not any(_is_integer(fact) for fact in polarized):
        return "sentinel-1-rtc"
    return "sentinel-1-grd" if CALIBRATION in facts.layers else None


CALIBRATION = "calibration"
"""In `ItemFacts.layers`: every polarization has its calibration annotation."""


def is_ground_range(level: str | None) -> bool:
    """True for a detected product in ground range, which no affine transform places.

    Example:
        >>> is_ground_range("GRD"), is_ground_range("RTC"), is_ground_range(None)
        (True, False, False)
    """
    return (level or "").upper().startswith("GRD")


def _in_decibels(fact: BandFacts) -> bool:
    return (fact.unit or "").strip().lower() in ("db", "decibel", "decibels")


def _is_integer(fact: BandFacts) -> bool:
    return "int" in (fact.data_type or "")


_TERRAIN_LEVELS = ("rtc", "nrb")  # STAC sar extension: sar:product_type; CEOS: Normalised Radar Backscatter
_GAMMA, _SIGMA = (re.compile(name + r"[\s_-]*(?:0|naught|nought|zero)") for name in ("gamma", "sigma"))


def _is_terrain_corrected(facts: ItemFacts) -> bool:
    if (facts.level or "").lower() in _TERRAIN_LEVELS:
        return True
    return bool(_GAMMA.search(facts.measurement)) and "terrain" in facts.measurement


_RED_EDGE = frozenset({"rededge071", "rededge075", "rededge078", "nir08"})


def _sentinel_2(facts: ItemFacts) -> Recognition | None:
    ours = facts.platform.startswith("sentinel-2") if facts.platform else facts.names >= _RED_EDGE
    if not ours or facts.rendered or not facts.names & set(OPTICAL_BANDS):
        return None
    if all(fact.data_type == "uint8" for fact in facts.bands):
        return None
    level = re.sub(r"[^a-z0-9]", "", (facts.level or "").lower())
    if level.endswith(("2a", "l2")):
        return Recognition(sensor="sentinel-2-l2a")
    if level.endswith(("1c", "l1")):
        return Recognition(sensor="sentinel-2-l1c")
    if facts.layers & {"scl", "aot", "wvp"}:
        return Recognition(sensor="sentinel-2-l2a")
    if "cirrus" in facts.names:
        return Recognition(sensor="sentinel-2-l1c")
    return Recognition(sensor="sentinel-2-l2a", notes=("level assumed L2A",))


_LANDSAT_LEVEL = re.compile(r"collection 2 level[\s-]?([12])")


def _landsat(facts: ItemFacts) -> Recognition | None:
    ours = (facts.platform or "").startswith("landsat") and not facts.rendered
    if not ours or (facts.edition or "02").lstrip("0") != "2":
        return None
    said = _LANDSAT_LEVEL.search(facts.measurement)
    level = (facts.level or "").lower()[:2] or (f"l{said[1]}" if said else "")
    if level == "l2" or (not level and _scaled_as_l2(facts)):
        return Recognition(sensor="landsat-c2-l2") if facts.names & set(_LANDSAT_L2) else None
    if level == "l1":
        return _landsat_l1(facts)
    return None


def _scaled_as_l2(facts: ItemFacts) -> bool:
    optical = [fact for fact in facts.bands if fact.band in OPTICAL_BANDS]
    return bool(optical) and all((fact.scale, fact.offset) == LANDSAT_L2_REFLECTANCE for fact in optical)


def _landsat_l1(facts: ItemFacts) -> Recognition | None:
    optical = [fact for fact in facts.bands if fact.band in OPTICAL_BANDS]
    if optical and all(fact.is_reflectance for fact in optical) and (facts.sun_elevation_deg or 0.0) > 0:
        return Recognition(sensor="landsat-c2-l1")
    raise SensorError(
        "Landsat level 1 without the factors of its reflectance, or without the sun's elevation above the horizon",
        expected="raster:bands with scale and offset, or MTL.json beside the files, and view:sun_elevation",
        fix="use Collection 2 level 2, whose scale is fixed, or add them to the item",
    )


_MANY_BANDS = 40
"""Centre wavelengths from which an image is one of a spectrometer: MODIS, the widest multispectral one, has 36."""


def _hyperspectral(facts: ItemFacts) -> Recognition | None:
    optical = [fact for fact in facts.bands if fact.band in OPTICAL_BANDS]
    if facts.spectral_bands < _MANY_BANDS or not optical or not all(fact.is_reflectance for fact in optical):
        return None
    return Recognition(sensor="hyperspectral", convention=(facts.level or "").lower())


def _which_temperature(facts: ItemFacts) -> str:
    """`surface` or `brightness`, where the words say so."""
    return next((word for word in ("surface", "brightness") if f"{word} temperature" in facts.measurement), "")


def _thermal(facts: ItemFacts) -> Recognition | None:
    if not facts.names or facts.names - set(THERMAL_BANDS):
        return None
    if all(fact.is_temperature for fact in facts.bands):
        return Recognition(sensor="thermal", convention=_which_temperature(facts))
    return Recognition(sensor="thermal-uncalibrated", notes=("uncalibrated",))


def _optical(facts: ItemFacts) -> Recognition | None:
    optical = [fact for fact in facts.bands if fact.band in _WITH_PAN]
    if not optical:
        return None
    if all(fact.is_reflectance for fact in optical):
        return Recognition(sensor="optical-reflectance", convention=(facts.level or "").lower())
    if all(fact.data_type in ("uint16", "int16", "uint32", "int32") for fact in optical):
        return Recognition(sensor="optical-uncalibrated-16bit", notes=("uncalibrated",))
    return Recognition(
        sensor="optical-uncalibrated",
        notes=("uncalibrated",),
        convention="picture" if facts.rendered else "",
    )


_RULES: tuple[Callable[[ItemFacts], Recognition | None], ...] = (
    _radar,
    _sentinel_2,
    _landsat,
    _hyperspectral,
    _thermal,
    _optical,
)
