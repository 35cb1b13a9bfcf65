"""Why a pixel may not show the ground."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from earthmap.errors import QueryError, SensorError
from earthmap.sensors.masks import REASONS, Reason, reason_mask, reasons_from_scl, unseen
from earthmap.sensors.registry import SENSORS

L2A = SENSORS["sentinel-2-l2a"]


def test_codes_are_fixed() -> None:
    # Stored in cubes: a change here makes every cube lie.
    assert REASONS == (
        "clear", "nodata", "cloud", "cirrus", "shadow", "dark", "snow", "saturated", "layover", "unknown",
    )  # fmt: skip
    assert [int(reason) for reason in Reason] == list(range(10))
    assert Reason.CLOUD.label == "cloud"


def test_every_class_of_scl() -> None:
    words = [REASONS[code] for code in reasons_from_scl(np.arange(13, dtype=np.uint8))]
    assert words == [
        "nodata", "saturated", "dark", "shadow", "clear", "clear", "clear", "unknown", "cloud", "cloud", "cirrus",
        "snow", "unknown",
    ]  # fmt: skip


@given(arrays.arrays(np.uint8, (3, 4)))
def test_classes_read_as_floats_are_the_same(scl: np.ndarray) -> None:
    read = np.where(scl == 0, np.nan, scl).astype(np.float32)
    assert np.array_equal(reasons_from_scl(read), reasons_from_scl(scl))


def test_a_fraction_is_no_class() -> None:
    found = reasons_from_scl(np.array([8.5, -3.0, 300.0, np.inf], np.float32))
    assert [REASONS[code] for code in found] == ["unknown", "unknown", "unknown", "nodata"]
    assert REASONS[reasons_from_scl(np.array([-3], np.int16))[0]] == "unknown"


def test_nodata_is_where_all_bands_are_missing() -> None:
    data = np.ones((2, 1, 3), np.float32)
    data[0, 0, 0] = data[:, 0, 1] = np.nan
    scl = np.array([[8, 8, 4]], np.uint8)
    assert reason_mask(data, scl, L2A).tolist() == [[Reason.CLOUD, Reason.NODATA, Reason.CLEAR]]


def test_black_is_a_fill_only_where_there_is_no_scale() -> None:
    data = np.array([[[0, 0, 5]], [[0, 3, 5]]], np.float32)
    found = reason_mask(data, None, SENSORS["optical-uncalibrated"])
    assert found.tolist() == [[Reason.NODATA, Reason.UNKNOWN, Reason.UNKNOWN]]
    assert (reason_mask(data, None, L2A) == Reason.UNKNOWN).all(), "a reflectance of 0 is a dark pixel"


def test_absent_is_not_clear_but_radar_is() -> None:
    data = np.ones((1, 2, 2), np.float32)
    for id, reason in {
        "sentinel-2-l2a": Reason.UNKNOWN,
        "sentinel-2-l1c": Reason.UNKNOWN,
        "optical-uncalibrated": Reason.UNKNOWN,
        "sentinel-1-db": Reason.CLEAR,
        "sentinel-1-rtc": Reason.CLEAR,
    }.items():
        assert (reason_mask(data, None, SENSORS[id]) == reason).all()


def test_shapes_must_agree() -> None:
    with pytest.raises(SensorError, match="shape"):
        reason_mask(np.ones((1, 2, 2), np.float32), np.ones((2, 3), np.uint8), L2A)


@given(arrays.arrays(np.uint8, (5, 5), elements=st.integers(0, 9)), st.sets(st.sampled_from(REASONS)))
def test_unseen_is_what_is_listed(mask: np.ndarray, reasons: set[str]) -> None:
    expected = [[REASONS[code] in reasons for code in row] for row in mask]
    assert unseen(mask, reasons).tolist() == expected


def test_unknown_words_are_refused() -> None:
    with pytest.raises(QueryError, match="'clouds'"):
        unseen(np.zeros((1, 1), np.uint8), ("clouds",))


def test_black_fill_of_pictures_without_a_scale_is_nodata() -> None:
    data = np.zeros((3, 2, 2), np.float32)
    data[1, 0, 0] = 7.0
    uncalibrated = reason_mask(data, None, SENSORS["optical-uncalibrated"])
    assert uncalibrated.tolist() == [[Reason.UNKNOWN, Reason.NODATA], [Reason.NODATA, Reason.NODATA]]
    reflectance = reason_mask(data, None, SENSORS["optical-reflectance"])
    assert set(reflectance.ravel().tolist()) == {Reason.UNKNOWN}
