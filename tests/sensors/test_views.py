"""Fixed scalings, and their inverses."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap.errors import SensorError
from earthmap.sensors.masks import Reason
from earthmap.sensors.registry import SENSORS
from earthmap.sensors.views import (
    NODATA_GREY,
    VIEWS,
    default_view,
    fitting,
    get_view,
    invert_view,
    make_view,
    missing_views,
    sensor_views,
)


def drawn(name: str, seed: int) -> np.ndarray:
    """(3, 6, 7) channel values within the ranges of the view, in the channels' own units."""
    random = np.random.default_rng(seed)
    return np.stack([random.uniform(channel.low, channel.high, (6, 7)) for channel in VIEWS[name].channels])


def physical(name: str, values: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """The bands that show as `values` (and, for a difference, as what the first two channels leave)."""
    view, planes = VIEWS[name], {}
    for channel, plane in zip(view.channels, values, strict=True):
        if channel.minus is None:
            planes[channel.band] = 10 ** (plane / 10) if channel.unit == "dB" else plane
    return view.bands, np.stack([planes[band] for band in view.bands]).astype(np.float32)


@given(st.sampled_from(sorted(VIEWS)), st.integers(0, 2**31))
def test_inverse_is_within_half_a_step(name: str, seed: int) -> None:
    values = drawn(name, seed)
    bands, data = physical(name, values)
    picture = make_view(name, bands, data)
    assert picture.shape == (6, 7, 3)
    assert picture.dtype == np.uint8
    inverse = invert_view(name, picture)
    for index, channel in enumerate(VIEWS[name].channels):
        if channel.minus is not None:
            first, second = (10 * np.log10(data[bands.index(band)]) for band in channel.bands)
            expected = np.clip(first - second, channel.low, channel.high)
        elif VIEWS[name].channels[0] == VIEWS[name].channels[2]:
            expected = values[2]
        else:
            expected = values[index]
        shares = [(value - channel.low) / (channel.high - channel.low) for value in (inverse[index], expected)]
        shares = [np.sqrt(share) for share in shares] if channel.curve == "sqrt" else shares
        assert np.abs(shares[0] - shares[1]).max() <= 0.5 / 255 + 1e-5


@given(st.sampled_from(sorted(VIEWS)), st.integers(0, 2**31))
def test_every_level_comes_back(name: str, seed: int) -> None:
    view = VIEWS[name]
    if any(channel.minus for channel in view.channels):
        return
    levels = np.random.default_rng(seed).integers(0, 256, (5, 4, 1), dtype=np.uint8)
    picture = np.repeat(levels, 3, axis=2)
    bands, data = physical(name, invert_view(name, picture))
    assert np.array_equal(make_view(name, bands, data), picture)


def test_nodata_is_one_grey() -> None:
    data = np.full((3, 2, 2), 0.25, np.float32)
    data[1, 0, 0] = np.nan
    mask = np.array([[Reason.CLEAR, Reason.NODATA], [Reason.CLOUD, Reason.CLEAR]], np.uint8)
    picture = make_view("rgb", ("red", "green", "blue"), data, mask)
    assert (picture[0, 0] == NODATA_GREY).all()
    assert (picture[0, 1] == NODATA_GREY).all()
    assert (picture[1] == 128).all()  # the square root of 0.25 at half the range


def test_values_outside_are_held() -> None:
    data = np.array([[[-0.5, 3.0]]] * 3, np.float32)
    assert make_view("rgb", ("red", "green", "blue"), data)[0, :, 0].tolist() == [0, 255]
    power = np.array([[[0.0, -1.0]]], np.float32)
    assert make_view("sar-vv", ("vv",), power)[0, :, 0].tolist() == [0, 0]


def test_eight_bits_stay_as_they_are() -> None:
    data = np.arange(256, dtype=np.float32).reshape(1, 16, 16)
    assert np.array_equal(make_view("red-8bit", ("red",), data)[..., 1], data[0])


def test_default_views() -> None:
    assert default_view("sentinel-2-l2a") == "rgb"
    assert default_view(SENSORS["sentinel-1-db"], ("vv", "vh")) == "sar-vv-vh"
    assert default_view("sentinel-1-rtc", ("vh",)) == "sar-vh"
    assert default_view("optical-uncalibrated", ("green", "red", "nir", "swir16")) == "nir-red-green-8bit"
    with pytest.raises(SensorError, match="no view"):
        default_view("sentinel-2-l2a", ("green",))


def test_missing_bands_are_named() -> None:
    with pytest.raises(SensorError, match="needs blue"):
        make_view("rgb", ("red", "green"), np.ones((2, 1, 1), np.float32))
    with pytest.raises(SensorError, match="no view 'x'"):
        get_view("x")


def test_temperature_by_steps_of_half_a_kelvin() -> None:
    data = np.array([[[200.0, 230.0, 290.0, 350.0, 400.0, np.nan]]], np.float32)
    picture = make_view("thermal", ("lwir11",), data)
    assert picture[0, :, 0].tolist() == [0, 0, 128, 255, 255, NODATA_GREY]
    assert abs(invert_view("thermal", picture)[0, 0, 2] - 290.0) < 0.25
    assert default_view("landsat-c2-l2") == "rgb"
    assert default_view("landsat-c2-l2", ("lwir11",)) == "thermal"
    assert default_view("landsat-c2-l2", ("green", "red", "nir08")) == "nir08-red-green"
    assert default_view("optical-uncalibrated-16bit", ("red", "green", "blue", "nir")) == "rgb-11bit"


# ── what the model is given ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("sensor", "bands", "given", "missing"),
    [
        ("sentinel-2-l2a", SENSORS["sentinel-2-l2a"].bands, ("rgb", "rededge", "swir", "nir-coastal"), ()),
        (
            "sentinel-2-l2a",
            ("blue", "green", "red", "nir"),
            ("rgb", "nir-red-green"),
            ("rededge", "swir", "nir-coastal"),
        ),
        ("sentinel-2-l2a", ("green", "red", "nir"), ("nir-red-green",), ("rgb", "rededge", "swir", "nir-coastal")),
        ("landsat-c2-l2", SENSORS["landsat-c2-l2"].bands, ("rgb", "swir", "thermal"), ()),
        ("landsat-c2-l1", SENSORS["landsat-c2-l1"].bands, ("rgb", "swir", "thermal"), ()),
        ("landsat-c2-l2", ("green", "red", "nir08"), ("nir08-red-green",), ("rgb", "swir", "thermal")),
        ("sentinel-1-grd", ("vv", "vh"), ("sar-vv-vh",), ()),
        ("sentinel-1-rtc", ("vh",), ("sar-vh",), ()),
        ("radar-uncalibrated", ("hh",), ("sar-hh-stored",), ()),
        ("thermal", ("lwir12",), ("thermal-lwir12",), ()),
        ("optical-uncalibrated", ("red", "green", "blue"), ("rgb-8bit",), ()),
        ("optical-uncalibrated", ("red", "green", "blue", "nir"), ("rgb-8bit", "nir-red-green-8bit"), ()),
        ("optical-uncalibrated", ("green", "red", "nir"), ("nir-red-green-8bit",), ("rgb-8bit",)),
        ("optical-uncalibrated-16bit", ("pan",), ("pan-11bit",), ("rgb-11bit",)),
    ],
)
def test_views_that_the_model_is_given(
    sensor: str, bands: tuple[str, ...], given: tuple[str, ...], missing: tuple[str, ...]
) -> None:
    assert sensor_views(sensor, bands) == given
    assert missing_views(sensor, bands) == missing


@given(st.sampled_from(sorted(SENSORS)), st.data())
def test_given_views_can_be_made_and_more_bands_take_none_away(sensor: str, data: st.DataObject) -> None:
    row = SENSORS[sensor]
    bands = data.draw(st.lists(st.sampled_from(row.bands), unique=True))
    lost = missing_views(row, bands)
    try:
        names = sensor_views(row, bands)
    except SensorError:
        assert lost
        return
    assert len(set(names)) == len(names)
    for name in names:
        assert make_view(name, bands, np.full((len(bands), 2, 2), 0.5, np.float32)).shape == (2, 2, 3)
    assert not set(lost) & set(names)
    assert set(missing_views(row, row.bands)) <= set(lost)
    assert names == sensor_views(row, bands[::-1])


def test_no_view_at_all_is_refused() -> None:
    with pytest.raises(SensorError, match="no view of sentinel-2-l2a can be made from green"):
        sensor_views("sentinel-2-l2a", ("green",))


@given(st.sampled_from(sorted(VIEWS)), st.integers(0, 2**31))
def test_a_pixel_does_not_depend_on_the_others(name: str, seed: int) -> None:
    """Never a stretch: whatever else is in the picture, a value has its level."""
    bands, data = physical(name, drawn(name, seed))
    alone = make_view(name, bands, data)
    random = np.random.default_rng(seed)
    beside = random.choice(np.array([np.nan, np.inf, -1.0, 0.0, 1e9], np.float32), (len(bands), 6, 5))
    together = make_view(name, bands, np.concatenate([data, beside], axis=2))
    assert np.array_equal(together[:, :7], alone)


def test_infinity_is_held_and_nan_is_grey() -> None:
    data = np.array([[[np.inf, -np.inf, np.nan]]], np.float32)
    assert make_view("thermal", ("lwir11",), data)[0, :, 0].tolist() == [255, 0, NODATA_GREY]
    assert make_view("sar-vv", ("vv",), data)[0, :, 0].tolist() == [255, 0, NODATA_GREY]


ROWS = st.lists(st.lists(st.sampled_from(("a", "b", "c", "d", "e")), unique=True, min_size=1), min_size=1, max_size=8)


@given(ROWS, st.integers(1, 300), st.integers(0, 6000))
def test_dropping_is_minimal_and_leaves_the_first(rows: list[list[str]], tokens: int, limit: int) -> None:
    total = sum(map(len, rows))
    if len(rows) * tokens > limit:
        with pytest.raises(SensorError, match=f"at most {limit:,} tokens"):
            fitting(rows, tokens_per_view=tokens, limit=limit)
        return
    kept, dropped = fitting(rows, tokens_per_view=tokens, limit=limit)
    assert [[*one, *two] for one, two in zip(kept, dropped, strict=True)] == rows
    assert all(kept)
    left = sum(map(len, kept))
    assert left * tokens <= limit
    assert left == total or (left + 1) * tokens > limit
    assert (kept, dropped) == fitting(rows, tokens_per_view=tokens, limit=limit)
    # Whatever is dropped stands behind what is kept, and at one rank the oldest go first.
    gone = [
        (-len(views[:place]), number)
        for number, views in enumerate(rows)
        for place in range(len(kept[number]), len(views))
    ]
    stays = [(-place, number) for number, views in enumerate(kept) for place in range(1, len(views))]
    assert not gone or not stays or max(gone) < min(stays)


def test_the_oldest_lose_first() -> None:
    row = ("rgb", "rededge", "swir", "nir-coastal")
    kept, dropped = fitting([row, row, ("sar-vv-vh",)], tokens_per_view=100, limit=600)
    assert kept == (row[:2], row[:3], ("sar-vv-vh",))
    assert dropped == (row[2:], row[3:], ())


def test_the_page_of_sensors_lists_these_views() -> None:
    page = (Path(__file__).parents[2] / "docs" / "sensors.md").read_text(encoding="utf-8").split("## Views")[1]
    rows = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("| `")]
    told = {id: re.findall(r"`([^`]+)`", views) for ids, views in rows for id in re.findall(r"`([^`]+)`", ids)}
    assert told == {row.id: [name for place in row.places for name in place.views] for row in SENSORS.values()}
