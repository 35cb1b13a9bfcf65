"""Quality layers, and the reason mask that they make."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from earthmap.errors import SensorError
from earthmap.sensors.masks import REASONS, Reason
from earthmap.sensors.quality import (
    QUALITY_LAYERS,
    SILENT,
    reason_mask,
    reasons_from_cloud_probability,
    reasons_from_layover,
    reasons_from_qa_pixel,
    reasons_from_qa_radsat,
    reasons_from_scl,
)
from earthmap.sensors.registry import SENSORS

L2A = SENSORS["sentinel-2-l2a"]


def words(codes: np.ndarray) -> list[str]:
    return [REASONS[code] for code in codes.ravel()]


def test_every_class_of_scl() -> None:
    assert words(reasons_from_scl(np.arange(13, dtype=np.uint8))) == [
        "nodata", "saturated", "dark", "shadow", "clear", "clear", "clear", "unknown", "cloud", "cloud", "cirrus",
        "snow", "unknown",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("bits", "word"),
    [
        # Values that the guide itself lists for Landsat 8 and 9 (LSDS-1619, QA_PIXEL value interpretations).
        (1, "nodata"),
        (21824, "clear"),
        (21826, "cloud"),  # dilated cloud over land
        (21888, "clear"),
        (21952, "clear"),  # clear with lows set, water
        (22080, "clear"),  # cloud of middle confidence is no cloud: the bit of cloud stands for high confidence
        (22144, "clear"),
        (22280, "cloud"),  # high confidence cloud
        (23888, "shadow"),
        (23952, "shadow"),
        (24088, "cloud"),  # mid confidence cloud with shadow
        (24216, "cloud"),
        (30048, "snow"),
        (54596, "cirrus"),
        (54852, "cirrus"),
        (55052, "cloud"),
        (0, "unknown"),
    ],
)
def test_qa_pixel(bits: int, word: str) -> None:
    assert words(reasons_from_qa_pixel(np.array([bits], np.uint16))) == [word]
    assert words(reasons_from_qa_pixel(np.array([bits], np.float32))) == [word]


@given(st.integers(0, 2**16 - 1))
def test_qa_pixel_never_calls_fill_or_cloud_clear(bits: int) -> None:
    (word,) = words(reasons_from_qa_pixel(np.array([bits], np.uint16)))
    if bits & 1:
        assert word == "nodata"
    elif bits & 0b1000:
        assert word == "cloud"
    elif not bits & 0b11111111:
        assert word == "unknown"
    else:
        assert word != "nodata"


def test_qa_radsat_only_adds() -> None:
    found = reasons_from_qa_radsat(np.array([0, 1, 4, 256, 512, 2048, 1024], np.uint16))
    assert found.tolist() == [
        SILENT, Reason.SATURATED, Reason.SATURATED, Reason.SATURATED, Reason.NODATA, Reason.LAYOVER, SILENT,
    ]  # fmt: skip
    assert reasons_from_qa_radsat(np.array([np.nan], np.float32)).tolist() == [SILENT]


def test_cloud_probability() -> None:
    percent = np.array([0, 64.9, 65, 100, np.nan], np.float32)
    assert words(reasons_from_cloud_probability(percent)) == ["clear", "clear", "cloud", "cloud", "unknown"]


def test_layover() -> None:
    assert reasons_from_layover(np.array([0, 1, 2, 3, 255, np.nan], np.float32)).tolist() == [
        SILENT, Reason.LAYOVER, Reason.LAYOVER, Reason.LAYOVER, SILENT, SILENT,
    ]  # fmt: skip


@given(arrays.arrays(np.uint8, (3, 4)))
def test_classes_read_as_floats_are_the_same(scl: np.ndarray) -> None:
    read = np.where(scl == 0, np.nan, scl).astype(np.float32)
    assert np.array_equal(reasons_from_scl(read), reasons_from_scl(scl))


def test_a_fraction_is_no_class() -> None:
    found = reasons_from_scl(np.array([8.5, -3.0, 300.0, np.inf], np.float32))
    assert words(found) == ["unknown", "unknown", "unknown", "nodata"]
    assert words(reasons_from_scl(np.array([-3], np.int16))) == ["unknown"]


def test_nodata_is_where_all_bands_are_missing() -> None:
    data = np.ones((2, 1, 3), np.float32)
    data[0, 0, 0] = data[:, 0, 1] = np.nan
    scl = np.array([[8, 8, 4]], np.uint8)
    assert reason_mask(data, {"scl": scl}, L2A).tolist() == [[Reason.CLOUD, Reason.NODATA, Reason.CLEAR]]


def test_layers_act_together() -> None:
    data = np.ones((1, 1, 5), np.float32)
    layers = {
        "qa_radsat": np.array([[4, 4, 0, 4, 0]], np.uint16),
        "qa_pixel": np.array([[21824, 22280, 21824, 0, 1]], np.uint16),
    }
    assert words(reason_mask(data, layers, L2A)) == ["saturated", "cloud", "clear", "saturated", "nodata"]


@given(
    st.dictionaries(
        st.sampled_from(sorted(QUALITY_LAYERS)),
        arrays.arrays(np.float32, (2, 3), elements=st.floats(-5, 70000, width=32) | st.just(np.nan)),
    ),
    st.sampled_from(sorted(SENSORS)),
)
def test_any_layers_make_a_mask_and_none_makes_a_cloud_clear(layers: dict[str, np.ndarray], sensor: str) -> None:
    data = np.ones((1, 2, 3), np.float32)
    mask = reason_mask(data, layers, SENSORS[sensor])
    assert mask.max() < len(REASONS)
    for kind, stored in layers.items():
        said = QUALITY_LAYERS[kind].reasons(stored)
        hidden = ~np.isin(said, (SILENT, Reason.CLEAR, Reason.UNKNOWN))
        assert not np.isin(mask[hidden], (Reason.CLEAR, Reason.UNKNOWN)).any()
    if not layers and not SENSORS[sensor].is_sar:
        assert (mask == Reason.UNKNOWN).all()


def test_black_is_a_fill_only_where_there_is_no_scale() -> None:
    data = np.array([[[0, 0, 5]], [[0, 3, 5]]], np.float32)
    found = reason_mask(data, {}, SENSORS["optical-uncalibrated"])
    assert found.tolist() == [[Reason.NODATA, Reason.UNKNOWN, Reason.UNKNOWN]]
    assert (reason_mask(data, {}, L2A) == Reason.UNKNOWN).all(), "a reflectance of 0 is a dark pixel"


def test_absent_is_not_clear_but_radar_is() -> None:
    data = np.ones((1, 2, 2), np.float32)
    for id, sensor in SENSORS.items():
        reason = Reason.CLEAR if sensor.is_sar else Reason.UNKNOWN
        assert (reason_mask(data, {}, SENSORS[id]) == reason).all()


def test_what_cannot_be_put_together_is_refused() -> None:
    with pytest.raises(SensorError, match="shape"):
        reason_mask(np.ones((1, 2, 2), np.float32), {"scl": np.ones((2, 3), np.uint8)}, L2A)
    with pytest.raises(SensorError, match="quality layers"):
        reason_mask(np.ones((1, 2, 2), np.float32), {"x": np.ones((2, 2), np.uint8)}, L2A)


def test_black_fill_of_pictures_without_a_scale_is_nodata() -> None:
    data = np.zeros((3, 2, 2), np.float32)
    data[1, 0, 0] = 7.0
    uncalibrated = reason_mask(data, {}, SENSORS["optical-uncalibrated"])
    assert uncalibrated.tolist() == [[Reason.UNKNOWN, Reason.NODATA], [Reason.NODATA, Reason.NODATA]]
    reflectance = reason_mask(data, {}, SENSORS["optical-reflectance"])
    assert set(reflectance.ravel().tolist()) == {Reason.UNKNOWN}


@pytest.mark.real
def test_real_qa_pixel(real_data: Path) -> None:
    import rasterio

    folder = real_data / "09_landsat_thermal" / "LC08_L2SP_001062_20201031"
    with rasterio.open(next(folder.glob("*QA_PIXEL.TIF"))) as file:
        bits = file.read(1)
    reasons = reasons_from_qa_pixel(bits)
    assert ((reasons == Reason.NODATA) == (bits == 1)).all()
    inside = reasons[bits != 1]
    assert np.isin(inside, (Reason.CLOUD, Reason.CIRRUS)).mean() > 0.95  # the item says 99.94 % cloud
