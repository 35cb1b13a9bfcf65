"""The table of sensors, and the rules that find a row."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap.errors import SensorError
from earthmap.sensors.bands import OPTICAL_BANDS, SAR_BANDS, THERMAL_BANDS
from earthmap.sensors.registry import SENSORS, BandFacts, ItemFacts, get_sensor, recognize
from earthmap.sensors.views import VIEWS


def facts(*names: str, **stated: object) -> tuple[BandFacts, ...]:
    return tuple(BandFacts(band=name, **stated) for name in names)  # type: ignore[arg-type]


def test_the_table_is_whole() -> None:
    for id, sensor in SENSORS.items():
        assert sensor.id == id
        assert set(sensor.views) <= set(VIEWS)
        assert set(sensor.bands) <= {*OPTICAL_BANDS, *SAR_BANDS, *THERMAL_BANDS}
        assert sensor.calibrated == ("uncalibrated" not in id)
        assert sensor.is_sar == id.startswith("sentinel-1")
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
        (ItemFacts(bands=facts("vv", data_type="uint16"), platform="sentinel-1a", level="GRD"), "uncalibrated"),
        (ItemFacts(bands=facts("hh", data_type="uint16"), level="RTC"), "uncalibrated"),
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
