"""What a band is called here: STAC's common names, and the names that providers use for the same band."""

from __future__ import annotations

import re
from dataclasses import dataclass

SAR_BANDS = ("vv", "vh", "hh", "hv")
"""Canonical names of SAR bands: transmitted, then received polarization."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """One row of `BANDS`."""

    name: str
    """Canonical name."""
    centre_um: float
    """Centre wavelength of the band on Sentinel-2, of a thermal one on Landsat 8, in micrometres."""
    range_um: tuple[float, float]
    """Centre wavelengths that are this band: the first included, the second not."""


# Names and ranges: STAC eo extension 2.0, "Common Band Names". Its ranges say how far a band may reach and overlap;
# those here say where a centre may lie, and divide what overlaps (nir and nir08 at 0.85: Sentinel-2's B08 and B8A).
# Centres: ESA, Sentinel-2 Spectral Response Functions (COPE-GSEG-EOPG-TN-15-0007), Sentinel-2A; USGS, Landsat 8 TIRS.
# Thermal bands between 10 and 11.5 µm are one: what is asked of them is a temperature.
_ROWS = (
    ("coastal", 0.443, 0.400, 0.450),
    ("blue", 0.492, 0.450, 0.515),
    ("green", 0.560, 0.515, 0.590),
    ("red", 0.665, 0.620, 0.690),
    ("rededge071", 0.704, 0.690, 0.730),
    ("rededge075", 0.741, 0.730, 0.760),
    ("rededge078", 0.783, 0.760, 0.800),
    ("nir", 0.833, 0.800, 0.850),
    ("nir08", 0.865, 0.850, 0.900),
    ("nir09", 0.945, 0.900, 1.000),
    ("cirrus", 1.374, 1.350, 1.400),
    ("swir16", 1.614, 1.550, 1.750),
    ("swir22", 2.202, 2.080, 2.350),
    ("lwir11", 10.895, 10.000, 11.500),
    ("lwir12", 12.005, 11.500, 13.000),
)

BANDS = {name: Band(name=name, centre_um=centre, range_um=(low, high)) for name, centre, low, high in _ROWS}
"""Optical and thermal bands by canonical name, in order of wavelength."""

OPTICAL_BANDS = tuple(name for name, band in BANDS.items() if band.centre_um < 3.0)
"""Canonical names of optical bands, in order of wavelength."""

THERMAL_BANDS = tuple(name for name in BANDS if name not in OPTICAL_BANDS)
"""Canonical names of thermal bands, in order of wavelength."""

PAN = "pan"
"""Canonical name of a panchromatic band, which spans the visible and is told by its name alone."""

# The names of the instruments' own bands: ESA, Sentinel-2 User Handbook, table 1; USGS, Landsat 8-9 OLI/TIRS, Landsat
# 7 ETM+ and Landsat 4-5 TM band designations. Panchromatic bands are left out: one of them would make the lattice of
# all the others twice as fine.
_SENTINEL_2 = {
    "b1": "coastal",
    "b2": "blue",
    "b3": "green",
    "b4": "red",
    "b5": "rededge071",
    "b6": "rededge075",
    "b7": "rededge078",
    "b8": "nir",
    "b8a": "nir08",
    "b9": "nir09",
    "b10": "cirrus",
    "b11": "swir16",
    "b12": "swir22",
}
_OLI = {
    "b1": "coastal",
    "b2": "blue",
    "b3": "green",
    "b4": "red",
    "b5": "nir08",
    "b6": "swir16",
    "b7": "swir22",
    "b9": "cirrus",
    "b10": "lwir11",
    "b11": "lwir12",
}
_TM = {"b1": "blue", "b2": "green", "b3": "red", "b4": "nir08", "b5": "swir16", "b6": "lwir11", "b7": "swir22"}

FAMILIES = {"sentinel-2": _SENTINEL_2, "landsat-oli": _OLI, "landsat-tm": _TM}
"""Numbered bands of an instrument → canonical names."""

# Earth Search calls Sentinel-2's three bands at the red edge so; nir08 and nir09 are canonical already.
# `lwir` is STAC's name for a thermal band that is not told apart: Landsat 4-7's one of 10.4 to 12.5 µm.
_ALIASES = {
    "rededge1": "rededge071",
    "rededge2": "rededge075",
    "rededge3": "rededge078",
    "nira": "nir08",
    "lwir": "lwir11",
}

_DISTANCE = re.compile(r"[_-]\d+m$")
_NUMBERED = re.compile(r"(?:^|[_-])b(?:and)?[_-]?0*(\d{1,2}a?)$")
_ZERO_LED = re.compile(r"(?:^|[_-])b(?:0\d|8a)$")
_POLARIZED = re.compile(r"(?:^|[^a-z0-9])(vv|vh|hh|hv)(?:$|[^a-z0-9])")


def resolve_family(platform: str | None, instruments: tuple[str, ...] = ()) -> str | None:
    """The key of `FAMILIES` whose band numbers a platform uses; None for any other platform.

    Example:
        >>> resolve_family("Sentinel-2A"), resolve_family("LANDSAT_8"), resolve_family("WV02")
        ('sentinel-2', 'landsat-oli', None)
    """
    name = re.sub(r"[\s_]+", "-", (platform or "").lower())
    known = {instrument.lower() for instrument in instruments}
    if name.startswith("sentinel-2"):
        return "sentinel-2"
    if name.startswith("landsat"):
        return "landsat-oli" if name[-1] in "89" or "oli" in known else "landsat-tm"
    return "sentinel-2" if not name and known == {"msi"} else None


def resolve_band(
    name: str | None,
    *,
    common_name: str | None = None,
    wavelength_um: float | None = None,
    polarization: str | None = None,
    family: str | None = None,
) -> str | None:
    """The canonical name of a band; None for a band that has no row here (quality).

    What is said outright goes before what is inferred: the polarization, the common name, the name itself, the number
    in the platform's family, then the centre wavelength. Without a family a stated wavelength goes before the number,
    which may be one of hundreds. Case does not matter, and a canonical name is its own.

    Args:
        name: As the provider writes it: `B04`, `B04_10m`, `rededge1`, `OLI_B5`, `VV`.
        common_name: STAC's, where stated.
        wavelength_um: Centre in micrometres.
        polarization: `VV` and so on, where stated.
        family: Key of `FAMILIES`. Without one, numbers led by zero and `B8A` are Sentinel-2's; others are not guessed.

    Example:
        >>> resolve_band("B04_10m"), resolve_band("B5", family="landsat-oli"), resolve_band("iw-vh")
        ('red', 'nir08', 'vh')
    """
    for text in (polarization, common_name, name):
        found = _said((text or "").strip().lower())
        if found:
            return found
    if family is None and wavelength_um is not None:
        return _by_wavelength(wavelength_um)
    return _numbered((name or "").strip().lower(), family) or _by_wavelength(wavelength_um)


def _said(text: str) -> str | None:
    if text in BANDS or text in SAR_BANDS or text == PAN:
        return text
    polarized = _POLARIZED.search(text)
    return polarized[1] if polarized else _ALIASES.get(_DISTANCE.sub("", text))


def _numbered(text: str, family: str | None) -> str | None:
    bare = _DISTANCE.sub("", text)
    if bare in BANDS:
        return bare
    number = _NUMBERED.search(bare)
    if number is None:
        return None
    table = FAMILIES.get(family or ("sentinel-2" if _ZERO_LED.search(bare) else ""), {})
    return table.get(f"b{number[1]}")


def _by_wavelength(centre_um: float | None) -> str | None:
    if centre_um is None:
        return None
    return next((band.name for band in BANDS.values() if band.range_um[0] <= centre_um < band.range_um[1]), None)
