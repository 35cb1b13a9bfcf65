"""Band names of every provider → canonical names."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap.sensors.bands import BANDS, FAMILIES, OPTICAL_BANDS, SAR_BANDS, resolve_band, resolve_family

CANONICAL = (*OPTICAL_BANDS, *SAR_BANDS)
SPELLINGS = [
    *CANONICAL, "B04", "B8A", "B04_10m", "rededge1", "rededge2", "rededge3", "nir08", "VV", "iw-vh", "VH_dB",
    "OLI_B5", "SR_B3", "band_07", "pan", "SCL", "nonsense",
]  # fmt: skip


def test_sentinel_2() -> None:
    names = [f"B{number:02d}" for number in range(1, 9)] + ["B8A", "B09", "B10", "B11", "B12"]
    assert [resolve_band(name, family="sentinel-2") for name in names] == list(OPTICAL_BANDS)
    assert resolve_band("B04_10m") == "red"
    assert resolve_band("B06", common_name="rededge", wavelength_um=0.74) == "rededge075"
    assert [resolve_band(f"rededge{index}") for index in (1, 2, 3)] == ["rededge071", "rededge075", "rededge078"]


@pytest.mark.parametrize(
    ("name", "family", "band"),
    [
        ("B5", "landsat-oli", "nir08"),
        ("SR_B5", "landsat-tm", "swir16"),
        ("OLI_B2", "landsat-oli", "blue"),
        ("B5", None, None),  # three instruments disagree
        ("B11", None, None),  # short-wave infrared to one, thermal to another
        ("B8", "landsat-oli", None),  # panchromatic
        ("BAND_P", None, None),
    ],
)
def test_numbers_need_their_instrument(name: str, family: str | None, band: str | None) -> None:
    assert resolve_band(name, family=family) == band


def test_wavelengths() -> None:
    assert all(resolve_band(None, wavelength_um=band.centre_um) == band.name for band in BANDS.values())
    assert resolve_band("x", wavelength_um=10.9) == "lwir11"
    assert resolve_band("x", wavelength_um=0.61) is None
    assert resolve_band("B3", common_name="nir", wavelength_um=0.56) == "nir"


def test_polarizations() -> None:
    assert resolve_band("amplitude", polarization="HV") == "hv"
    assert resolve_band("gamma0_vv") == "vv"
    assert resolve_band("vvvh") is None


def test_ranges_do_not_overlap() -> None:
    ranges = [band.range_um for band in BANDS.values()]
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(ranges))


@given(st.sampled_from(SPELLINGS), st.sampled_from([None, *FAMILIES]), st.randoms())
def test_case_does_not_matter_and_twice_is_once(name: str, family: str | None, random: object) -> None:
    shuffled = "".join(letter.upper() if random.random() < 0.5 else letter.lower() for letter in name)  # type: ignore[attr-defined]
    band = resolve_band(name, family=family)
    assert resolve_band(shuffled, family=family) == band
    if band is not None:
        assert resolve_band(band, family=family) == band


@pytest.mark.parametrize(
    ("platform", "instruments", "family"),
    [
        ("Sentinel-2A", (), "sentinel-2"),
        ("Sentinel 2", (), "sentinel-2"),
        (None, ("MSI",), "sentinel-2"),
        ("LANDSAT_8", ("OLI", "TIRS"), "landsat-oli"),
        ("landsat-5", ("tm",), "landsat-tm"),
        ("WV02", (), None),
        (None, (), None),
    ],
)
def test_families(platform: str | None, instruments: tuple[str, ...], family: str | None) -> None:
    assert resolve_family(platform, instruments) == family
