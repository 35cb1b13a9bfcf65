"""Which row of the table of sensors a STAC item belongs to.

A rule sees `ItemFacts` only: what the item says of the measurement. The names of item and collection are not among
them, so no rule can use them. The first rule that knows the item decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from earthmap.errors import SensorError
from earthmap.sensors.bands import OPTICAL_BANDS, PAN, SAR_BANDS, THERMAL_BANDS
from earthmap.sensors.registry import LANDSAT_L2_REFLECTANCE, SENSORS, BandFacts, ItemFacts


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
        return Recognition(sensor="landsat-c2-l2") if facts.names & set(SENSORS["landsat-c2-l2"].bands) else None
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
    optical = [fact for fact in facts.bands if fact.band in (*OPTICAL_BANDS, PAN)]
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
