"""Stored numbers → physical values and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from earthmap.sensors.calibration import Calibration


@given(
    arrays.arrays(np.uint16, st.integers(1, 40)),
    st.floats(1e-5, 10.0),
    st.floats(-1.0, 1.0),
)
def test_scale_and_offset_are_undone(stored: np.ndarray, scale: float, offset: float) -> None:
    values = Calibration(scale=scale, offset=offset).apply(stored)
    back = (values.astype(float) - offset) / scale
    # float32 carries 24 bits of the larger of the two terms.
    assert np.allclose(back, stored, atol=1 + 1e-6 * (abs(offset) / scale), rtol=1e-5)


@given(arrays.arrays(np.float32, st.integers(1, 40), elements=st.floats(-60, 20, width=32)))
def test_decibels_are_undone(stored: np.ndarray) -> None:
    power = Calibration(decibels=True).apply(stored)
    assert (power > 0).all()
    assert np.allclose(10 * np.log10(power.astype(float)), stored, atol=1e-3)


def test_nodata_is_compared_before_the_offset() -> None:
    values = Calibration(scale=1e-4, offset=-0.1, nodata=0).apply(np.array([0, 1, 1000, 900], np.uint16))
    assert np.isnan(values[0])
    assert values[1:] == pytest.approx([-0.0999, 0.0, -0.01], abs=1e-6)


def test_classes_stay_as_stored() -> None:
    values = Calibration(scale=5.0, categorical=True, nodata=0).apply(np.array([0, 4, 11], np.uint8))
    assert np.isnan(values[0])
    assert values[1:].tolist() == [4.0, 11.0]


def test_radiance_becomes_brightness_temperature() -> None:
    # TIRS band 10 of a Landsat 8 scene (MTL): 26,214 counts at 3.342e-4 and 0.1 are 8.86 W/(m² sr µm), 295.8 K.
    tirs = Calibration(scale=3.342e-4, offset=0.1, nodata=0.0, planck=(774.8853, 1321.0789))
    found = tirs.apply(np.array([26214, 0], np.uint16))
    radiance = 26214 * 3.342e-4 + 0.1
    assert found[0] == pytest.approx(1321.0789 / np.log(774.8853 / radiance + 1), rel=1e-6)
    assert 290 < found[0] < 300
    assert np.isnan(found[1])
    dark = Calibration(scale=1.0, offset=-1.0, planck=(774.8853, 1321.0789)).apply(np.array([0.0, 1.0], np.float32))
    assert np.isnan(dark).all(), "no temperature without radiance"


def test_amplitude_becomes_power() -> None:
    stored = np.array([3 + 4j, 0, np.nan], np.complex64)
    assert np.array_equal(
        Calibration(amplitude=True).apply(stored), np.array([25, 0, np.nan], np.float32), equal_nan=True
    )
