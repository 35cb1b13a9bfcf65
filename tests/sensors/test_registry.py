"""The table of sensors, and the rules that find a row."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap.errors import SensorError
from earthmap.sensors.bands import OPTICAL_BANDS, PAN, SAR_BANDS, THERMAL_BANDS
from earthmap.sensors.recognition import NOT_TERRAIN_CORRECTED, recognize
from earthmap.sensors.registry import SENSORS, BandFacts, ItemFacts, get_sensor
from earthmap.sensors.views import VIEWS, default_view


def facts(*names: str, **stated: object) -> tuple[BandFacts, ...]:
    return tuple(BandFacts(band=name, **stated) for name in names)  # type: ignore[arg-type]


def test_the_table_is_whole() -> None:
    for id, sensor in SENSORS.items():
        assert sensor.id == id
        assert set(sensor.views) <= set(VIEWS)
        assert set(sensor.bands) <= {*OPTICAL_BANDS, PAN, *SAR_BANDS, *THERMAL_BANDS}
        assert sensor.calibrated == ("uncalibrated" not in id)
        assert sensor.is_sar == id.startswith(("sentinel-1", "radar"))
    assert get_sensor("sentinel-2-l2a").masks[0] == "scl"
    with pytest.raises(SensorError, match=r"no sensor 'x'.*sentinel-2-l2a"):
        get_sensor("x")


@pytest.mark.parametrize(
    ("given_facts", "sensor", "notes"),
    [
        (ItemFacts(bands=facts("red"), platform="sentinel-2a", level="S2MSI2A"), "sentinel-2-l2a", ()),
        (ItemFacts(bands=facts("red"), platform="sentinel-2", level="L1C"), "sentinel-2-l1c", ()),
        (ItemFacts(bands=facts("red", "cirrus"), platform="sentinel-2a"), "sentinel-2-l1c", ()),
        (
            ItemFacts(bands=facts("red", "cirrus"), platform="sentinel-2a", layers=frozenset({"scl"})),
            "sentinel-2-l2a",
            (),
        ),
        (ItemFacts(bands=facts("red"), platform="sentinel-2a"), "sentinel-2-l2a", ("level assumed L2A",)),
        (
            ItemFacts(bands=facts("rededge071", "rededge075", "rededge078", "nir08"), level="L2A"),
            "sentinel-2-l2a",
            (),
        ),
        (ItemFacts(bands=facts("red"), platform="sentinel-2a", rendered=True), "optical-uncalibrated", None),
        (ItemFacts(bands=facts("vv", "vh", unit="dB"), platform="sentinel-1a", level="GRD"), "sentinel-1-db", ()),
        (ItemFacts(bands=facts("vv", data_type="float32"), level="RTC"), "sentinel-1-rtc", ()),
        (
            ItemFacts(bands=facts("vv", data_type="uint16"), level="GRD", layers=frozenset({"calibration"})),
            "sentinel-1-grd",
            (NOT_TERRAIN_CORRECTED,),
        ),
        (
            ItemFacts(bands=facts("vv", data_type="uint16"), platform="sentinel-1a", level="GRD"),
            "radar-uncalibrated",
            ("uncalibrated", NOT_TERRAIN_CORRECTED),
        ),
        (ItemFacts(bands=facts("hh", data_type="uint16"), level="RTC"), "radar-uncalibrated", ("uncalibrated",)),
        (ItemFacts(bands=facts("hh", "hv", data_type="cfloat32"), platform="aircraft"), "radar-uncalibrated", None),
        (ItemFacts(bands=facts("red", data_type="uint16", scale=2.75e-5)), "optical-reflectance", ()),
        (ItemFacts(bands=facts("red", data_type="float32", unit="reflectance")), "optical-reflectance", ()),
        (ItemFacts(bands=facts("red", data_type="float32")), "optical-uncalibrated", ("uncalibrated",)),
        (ItemFacts(bands=facts("red", scale=0.01, unit="W/m2/sr/um")), "optical-uncalibrated", ("uncalibrated",)),
        (ItemFacts(bands=facts("red", "nir", data_type="uint8")), "optical-uncalibrated", ("uncalibrated",)),
    ],
)
def test_rules(given_facts: ItemFacts, sensor: str, notes: tuple[str, ...] | None) -> None:
    found = recognize(given_facts)
    assert found.sensor == sensor
    assert notes is None or found.notes == notes


@pytest.mark.parametrize(
    ("given_facts", "said"),
    [
        (ItemFacts(bands=facts("vv", unit="dB"), platform="alos-2"), "alos-2"),
        (ItemFacts(bands=()), "no data band"),
    ],
)
def test_refusals_are_sentences(given_facts: ItemFacts, said: str) -> None:
    with pytest.raises(SensorError, match=said) as caught:
        recognize(given_facts)
    assert caught.value.expected


@given(st.lists(st.sampled_from([*OPTICAL_BANDS, *SAR_BANDS]), unique=True, min_size=1), st.text(), st.text())
def test_any_item_is_a_row_or_an_error(names: list[str], platform: str, level: str) -> None:
    try:
        found = recognize(ItemFacts(bands=facts(*names), platform=platform or None, level=level or None))
    except SensorError:
        return
    assert found.sensor in SENSORS


L1 = {"scale": 2e-5, "offset": -0.1}
L2 = {"scale": 2.75e-5, "offset": -0.2}


@pytest.mark.parametrize(
    ("given_facts", "sensor"),
    [
        (ItemFacts(bands=facts("red"), platform="landsat-8", level="L2SP", edition="02"), "landsat-c2-l2"),
        (ItemFacts(bands=facts("red", "lwir11"), platform="landsat-5", level="L2SP"), "landsat-c2-l2"),
        (ItemFacts(bands=facts("red"), platform="landsat-7", measurement="collection 2 level-2 red"), "landsat-c2-l2"),
        (ItemFacts(bands=facts("red", **L2), platform="landsat-8"), "landsat-c2-l2"),
        (ItemFacts(bands=facts("red", **L2), platform="landsat-8", level="L2SP", edition="01"), "optical-reflectance"),
        (ItemFacts(bands=facts("red", data_type="uint8"), platform="landsat-5"), "optical-uncalibrated"),
        (
            ItemFacts(bands=facts("red", **L1), platform="landsat-8", level="L1TP", sun_elevation_deg=30),
            "landsat-c2-l1",
        ),
        (ItemFacts(bands=facts("red", scale=1e-4), spectral_bands=200), "hyperspectral"),
        (ItemFacts(bands=facts("red", scale=1e-4), spectral_bands=36), "optical-reflectance"),
        (ItemFacts(bands=facts("red"), spectral_bands=200), "optical-uncalibrated"),
        (ItemFacts(bands=facts("lwir11", unit="kelvin")), "thermal"),
        (ItemFacts(bands=facts("lwir11", unit="°C")), "thermal"),
        (ItemFacts(bands=facts("lwir11", data_type="uint8")), "thermal-uncalibrated"),
        (ItemFacts(bands=facts("red", "lwir11", data_type="uint8")), "optical-uncalibrated"),
        (ItemFacts(bands=facts("red", "nir", data_type="uint16")), "optical-uncalibrated-16bit"),
    ],
)
def test_rules_of_further_sensors(given_facts: ItemFacts, sensor: str) -> None:
    assert recognize(given_facts).sensor == sensor


@pytest.mark.parametrize("missing", [{"sun_elevation_deg": None}, {"sun_elevation_deg": -3.0}, {"bands": facts("red")}])
def test_landsat_level_1_needs_factors_and_sun(missing: dict[str, object]) -> None:
    whole = {"bands": facts("red", **L1), "platform": "landsat-8", "level": "L1TP", "sun_elevation_deg": 30.0}
    with pytest.raises(SensorError, match="Landsat level 1 without") as caught:
        recognize(ItemFacts(**{**whole, **missing}))  # type: ignore[arg-type]
    assert "level 2" in str(caught.value)


def test_radiance_of_landsat_is_not_reflectance() -> None:
    with pytest.raises(SensorError, match="factors of its reflectance"):
        recognize(
            ItemFacts(
                bands=facts("red", scale=0.01, unit="watt/steradian/square_meter/micrometer"),
                platform="landsat-5",
                level="L1TP",
                sun_elevation_deg=30.0,
            )
        )


def test_every_row_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "sensors.md").read_text(encoding="utf-8")
    assert [id for id in SENSORS if f"| `{id}` |" not in page] == []


def test_every_row_can_be_shown() -> None:
    for sensor in SENSORS.values():
        assert VIEWS[default_view(sensor)].name == sensor.views[0]
        for name in sensor.views if sensor.calibrated or not sensor.is_sar else ():
            unit = {channel.unit for channel in VIEWS[name].channels}
            thermal = set(VIEWS[name].bands) <= set(THERMAL_BANDS)
            expected = "dB" if sensor.is_sar else "DN" if not sensor.calibrated else "K" if thermal else "1"
            assert unit == {expected}, (sensor.id, name)


@pytest.mark.parametrize(
    ("level", "words", "convention"),
    [
        ("GRD", "backscatter sigma0 in db", "sigma0"),
        ("GRD", "gamma naught, vv", "gamma0"),
        ("RTC", "gamma0 in db", "terrain-corrected gamma0"),
        ("GRD", "vv", ""),
    ],
)
def test_decibels_keep_their_convention(level: str, words: str, convention: str) -> None:
    found = recognize(ItemFacts(bands=facts("vv", unit="dB"), level=level, measurement=words))
    assert (found.sensor, found.convention) == ("sentinel-1-db", convention)
