"""What ground and things reflect, radiate and scatter: one table of materials for all that is drawn.

Each row has two ends, between which the tone of the ground (0 to 1) chooses. The first six rows are the land-cover
classes as the drawn world knows them; the others tell apart what a class is made of.

Reflectance in the twelve bands of Sentinel-2 L2A: rounded by hand to the shape of the curves in the USGS Spectral
Library version 7 (Kokaly et al. 2017, doi:10.3133/ds1035) for lawn grass, conifer, soils, concrete, asphalt, roofs and
snow, and in the ECOSTRESS library (Meerdink et al. 2019, doi:10.1016/j.rse.2019.05.015) for water, sands and rocks;
the burnt ends after the fall of near infrared and rise of short-wave infrared in Key and Benson 2006 (FIREMON,
RMRS-GTR-164). Backscatter at C-band and about 35° to 40°, sigma0: of the order of the medians that are reported for
Sentinel-1 (water below −17 dB in VV: Twele et al. 2016, doi:10.1080/01431161.2016.1192304; forest, crops and soil:
Ulaby and Dobson 1989, Handbook of Radar Scattering Statistics for Terrain). Typical, not measured, and the classes'
rows were set with the spectral predictor's thresholds in view: how well it does on drawn radar is no evidence of how it
does on real radar. A rough flood is brighter than a calm river.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from earthmap.synthetic.truth import BARE, BUILT_UP, BURNT, SNOW, VEGETATION, WATER

if TYPE_CHECKING:
    from numpy.typing import NDArray

S2_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
"""Columns of the table, as Sentinel-2 names them."""

BAND_NAMES = (
    "coastal",
    "blue",
    "green",
    "red",
    "rededge071",
    "rededge075",
    "rededge078",
    "nir",
    "nir08",
    "nir09",
    "swir16",
    "swir22",
)
"""The same columns by canonical name."""

Spectrum = tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """One row of `MATERIALS`."""

    name: str
    cover: int
    """Code of its land cover, 1 to 6; 0 for a thing that lies on the ground and covers none of it."""
    low: Spectrum
    """Reflectance at tone 0."""
    high: Spectrum
    """Reflectance at tone 1."""
    backscatter_db: tuple[tuple[float, float], tuple[float, float]]
    """Sigma0 (VV, VH) at tone 0 and at tone 1."""
    warmth_k: float
    """Surface temperature above the air's at noon under a high sun."""


def _row(
    name: str,
    cover: int,
    spectra: tuple[Spectrum, Spectrum],
    backscatter_db: tuple[tuple[float, float], tuple[float, float]],
    warmth_k: float,
) -> Material:
    return Material(
        name=name, cover=cover, low=spectra[0], high=spectra[1], backscatter_db=backscatter_db, warmth_k=warmth_k
    )


def _scaled(spectrum: Spectrum, low: float, high: float) -> tuple[Spectrum, Spectrum]:
    return tuple(value * low for value in spectrum), tuple(value * high for value in spectrum)


_WATER = (
    (0.030, 0.036, 0.042, 0.026, 0.022, 0.016, 0.015, 0.013, 0.012, 0.010, 0.006, 0.004),
    (0.062, 0.076, 0.104, 0.098, 0.092, 0.066, 0.064, 0.056, 0.050, 0.036, 0.018, 0.012),
)
_VEGETATION = (
    (0.018, 0.022, 0.040, 0.024, 0.068, 0.190, 0.230, 0.245, 0.262, 0.260, 0.118, 0.052),
    (0.030, 0.042, 0.085, 0.052, 0.122, 0.340, 0.420, 0.445, 0.465, 0.455, 0.225, 0.112),
)
_BARE = (
    (0.058, 0.076, 0.108, 0.142, 0.168, 0.186, 0.200, 0.212, 0.224, 0.228, 0.285, 0.236),
    (0.092, 0.124, 0.180, 0.238, 0.268, 0.288, 0.304, 0.318, 0.332, 0.336, 0.410, 0.352),
)
_BUILT_UP = (
    (0.088, 0.094, 0.104, 0.112, 0.118, 0.124, 0.128, 0.132, 0.136, 0.138, 0.160, 0.148),
    (0.156, 0.178, 0.198, 0.220, 0.226, 0.234, 0.240, 0.246, 0.250, 0.252, 0.288, 0.268),
)
_SNOW = (
    (0.720, 0.740, 0.750, 0.745, 0.740, 0.725, 0.705, 0.690, 0.670, 0.560, 0.120, 0.110),
    (0.880, 0.905, 0.910, 0.905, 0.900, 0.885, 0.870, 0.860, 0.840, 0.720, 0.080, 0.072),
)
_BURNT = (
    (0.034, 0.042, 0.056, 0.068, 0.082, 0.102, 0.114, 0.124, 0.132, 0.134, 0.182, 0.176),
    (0.026, 0.030, 0.036, 0.042, 0.048, 0.056, 0.062, 0.068, 0.074, 0.078, 0.132, 0.150),
)
_MUDDY = (
    (0.058, 0.070, 0.100, 0.092, 0.086, 0.060, 0.058, 0.052, 0.046, 0.034, 0.016, 0.010),
    (0.092, 0.114, 0.160, 0.196, 0.194, 0.162, 0.160, 0.146, 0.138, 0.094, 0.056, 0.034),
)
_FOREST = (
    (0.007, 0.009, 0.019, 0.010, 0.034, 0.115, 0.142, 0.150, 0.165, 0.165, 0.060, 0.022),
    (0.022, 0.030, 0.060, 0.032, 0.092, 0.280, 0.345, 0.365, 0.385, 0.380, 0.180, 0.080),
)
_CROP = (
    (0.030, 0.042, 0.078, 0.056, 0.110, 0.220, 0.265, 0.280, 0.300, 0.300, 0.200, 0.115),
    (0.016, 0.022, 0.062, 0.024, 0.092, 0.390, 0.510, 0.530, 0.550, 0.535, 0.200, 0.080),
)
_GRASS = (
    (0.036, 0.050, 0.090, 0.078, 0.130, 0.215, 0.245, 0.262, 0.280, 0.285, 0.240, 0.145),
    (0.020, 0.028, 0.072, 0.036, 0.105, 0.320, 0.400, 0.420, 0.440, 0.430, 0.205, 0.090),
)
_STUBBLE = (
    (0.060, 0.078, 0.115, 0.145, 0.175, 0.200, 0.218, 0.232, 0.250, 0.258, 0.330, 0.245),
    (0.085, 0.115, 0.170, 0.215, 0.250, 0.280, 0.300, 0.318, 0.340, 0.345, 0.420, 0.320),
)
_DARK_SOIL = (
    (0.028, 0.034, 0.046, 0.058, 0.070, 0.080, 0.088, 0.096, 0.106, 0.110, 0.150, 0.128),
    (0.050, 0.064, 0.090, 0.118, 0.138, 0.154, 0.166, 0.178, 0.190, 0.196, 0.250, 0.212),
)
_SAND = (
    (0.110, 0.148, 0.225, 0.310, 0.345, 0.365, 0.380, 0.392, 0.405, 0.410, 0.470, 0.420),
    (0.175, 0.230, 0.330, 0.430, 0.465, 0.485, 0.500, 0.512, 0.525, 0.528, 0.600, 0.550),
)
_ROCK = (
    (0.070, 0.082, 0.100, 0.118, 0.128, 0.136, 0.142, 0.150, 0.158, 0.162, 0.200, 0.175),
    (0.165, 0.190, 0.225, 0.255, 0.268, 0.276, 0.284, 0.290, 0.298, 0.300, 0.330, 0.290),
)
_ASPHALT = (
    (0.052, 0.056, 0.062, 0.068, 0.072, 0.076, 0.078, 0.080, 0.084, 0.086, 0.105, 0.100),
    (0.105, 0.115, 0.128, 0.140, 0.146, 0.152, 0.156, 0.160, 0.165, 0.168, 0.195, 0.182),
)
_CONCRETE = (
    (0.150, 0.172, 0.200, 0.225, 0.235, 0.242, 0.248, 0.252, 0.258, 0.260, 0.290, 0.265),
    (0.260, 0.300, 0.340, 0.370, 0.380, 0.388, 0.394, 0.398, 0.402, 0.402, 0.420, 0.385),
)
_TILES = (
    (0.042, 0.050, 0.068, 0.130, 0.150, 0.165, 0.175, 0.182, 0.190, 0.192, 0.235, 0.205),
    (0.075, 0.092, 0.130, 0.265, 0.300, 0.325, 0.340, 0.352, 0.362, 0.365, 0.420, 0.375),
)
_METAL = (
    (0.300, 0.330, 0.355, 0.375, 0.385, 0.395, 0.400, 0.405, 0.410, 0.410, 0.430, 0.400),
    (0.560, 0.610, 0.640, 0.660, 0.668, 0.674, 0.680, 0.684, 0.688, 0.685, 0.640, 0.590),
)
_SLATE = (
    (0.040, 0.044, 0.050, 0.055, 0.058, 0.062, 0.065, 0.068, 0.072, 0.074, 0.095, 0.090),
    (0.095, 0.105, 0.118, 0.128, 0.134, 0.140, 0.145, 0.150, 0.155, 0.158, 0.185, 0.170),
)
_RUBBLE = (
    (0.085, 0.098, 0.118, 0.138, 0.148, 0.158, 0.164, 0.170, 0.178, 0.180, 0.225, 0.200),
    (0.190, 0.215, 0.250, 0.285, 0.298, 0.308, 0.316, 0.322, 0.330, 0.332, 0.380, 0.345),
)
_PAINT = (
    (0.060, 0.075, 0.070, 0.160, 0.180, 0.200, 0.210, 0.220, 0.230, 0.230, 0.240, 0.200),
    (0.500, 0.540, 0.560, 0.570, 0.575, 0.580, 0.585, 0.590, 0.590, 0.585, 0.480, 0.420),
)
_TARPAULIN = (
    (0.130, 0.210, 0.160, 0.080, 0.080, 0.100, 0.130, 0.200, 0.260, 0.260, 0.250, 0.180),
    (0.180, 0.320, 0.240, 0.110, 0.110, 0.150, 0.190, 0.280, 0.340, 0.340, 0.320, 0.240),
)

_ROWS = (
    _row("water", WATER, _WATER, ((-23.5, -30.0), (-19.5, -27.0)), -3.0),
    _row("vegetation", VEGETATION, _VEGETATION, ((-8.5, -14.0), (-11.0, -17.5)), 3.0),
    _row("bare", BARE, _BARE, ((-12.5, -19.5), (-10.5, -17.5)), 14.0),
    _row("built-up", BUILT_UP, _BUILT_UP, ((-7.0, -14.5), (-1.5, -9.5)), 13.0),
    _row("snow", SNOW, _SNOW, ((-11.5, -18.5), (-12.8, -19.6)), -8.0),
    _row("burnt", BURNT, _BURNT, ((-10.5, -17.0), (-12.0, -18.8)), 17.0),
    _row("muddy water", WATER, _MUDDY, ((-22.0, -29.0), (-16.5, -24.0)), -2.0),
    _row("forest", VEGETATION, _FOREST, ((-8.0, -13.2), (-9.5, -15.0)), 0.0),
    _row("crop", VEGETATION, _CROP, ((-11.5, -18.0), (-7.5, -14.5)), 5.0),
    _row("grass", VEGETATION, _GRASS, ((-11.5, -18.5), (-8.5, -15.5)), 6.0),
    _row("stubble", BARE, _STUBBLE, ((-12.5, -20.0), (-9.5, -17.0)), 13.0),
    _row("dark soil", BARE, _DARK_SOIL, ((-13.0, -20.5), (-7.5, -16.0)), 15.0),
    _row("sand", BARE, _SAND, ((-20.0, -28.5), (-14.0, -23.5)), 16.0),
    _row("rock", BARE, _ROCK, ((-11.0, -18.0), (-7.5, -15.5)), 12.0),
    _row("asphalt", BUILT_UP, _ASPHALT, ((-18.0, -26.0), (-12.5, -20.5)), 17.0),
    _row("concrete", BUILT_UP, _CONCRETE, ((-17.0, -25.0), (-11.0, -19.0)), 11.0),
    _row("tiles", BUILT_UP, _TILES, ((-9.0, -17.0), (-3.5, -11.5)), 15.0),
    _row("metal roof", BUILT_UP, _METAL, ((-8.0, -17.0), (-1.0, -11.0)), 9.0),
    _row("slate", BUILT_UP, _SLATE, ((-9.0, -17.0), (-4.0, -12.0)), 18.0),
    _row("rubble", BUILT_UP, _RUBBLE, ((-8.0, -14.5), (-4.0, -10.5)), 13.0),
    _row("deck", 0, _scaled(_PAINT[1], 0.25, 0.8), ((2.0, -7.0), (10.0, 0.0)), 9.0),
    _row("paint", 0, _PAINT, ((-5.0, -14.0), (0.0, -9.0)), 14.0),
    _row("tarpaulin", BUILT_UP, _TARPAULIN, ((-8.0, -15.0), (-5.0, -12.0)), 12.0),
)

MATERIALS = {row.name: row for row in _ROWS}
"""All materials by name."""

MATERIAL_NAMES = tuple(MATERIALS)
"""Their names in the order of their codes."""

SPECTRA = {row.name: (row.low, row.high) for row in _ROWS[:6]}
"""The two ends of each land-cover class of the drawn world."""

BACKSCATTER_DB = {row.name: row.backscatter_db for row in _ROWS[:6]}
"""Backscatter of each land-cover class of the drawn world: (VV, VH) at tone 0 and 1."""

CLOUD = np.array([0.70, 0.70, 0.69, 0.69, 0.69, 0.68, 0.68, 0.68, 0.67, 0.50, 0.42, 0.32], np.float32)
"""A thick water cloud: white, darker in the short-wave infrared (as SCL's and Fmask's tests expect)."""


def code_of(name: str) -> int:
    """The code of a material: its place in the table."""
    return MATERIAL_NAMES.index(name)


@functools.lru_cache(maxsize=1)
def cover_of_material() -> NDArray[np.uint8]:
    """(material,) codes of land cover."""
    return np.array([row.cover for row in _ROWS], np.uint8)


@functools.lru_cache(maxsize=1)
def spectrum_ends() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(material, band) reflectance at tone 0, and what a tone of 1 adds."""
    low = np.array([row.low for row in _ROWS], np.float32)
    return low, np.array([row.high for row in _ROWS], np.float32) - low


@functools.lru_cache(maxsize=1)
def backscatter_ends() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(material, polarisation) sigma0 in dB at tone 0, and what a tone of 1 adds; VV, then VH."""
    ends = np.array([row.backscatter_db for row in _ROWS], np.float32)
    return ends[:, 0], ends[:, 1] - ends[:, 0]


@functools.lru_cache(maxsize=1)
def warmth() -> NDArray[np.float32]:
    """(material,) kelvin above the air at noon."""
    return np.array([row.warmth_k for row in _ROWS], np.float32)
