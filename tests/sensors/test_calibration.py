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
