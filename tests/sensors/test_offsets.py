"""An offset that was subtracted twice shows in the pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap.sensors.masks import Reason
from earthmap.sensors.offsets import negative_share, offset_notes
from earthmap.sensors.registry import SENSORS

L2A = SENSORS["sentinel-2-l2a"]
BANDS = ("blue", "green", "red", "nir")


def drawn(share: float, *, side: int = 40) -> np.ndarray:
    """(4, side, side) reflectance of which `share` of each visible band is below zero."""
    data = np.full((4, side * side), 0.2, np.float32)
    data[:3, : round(share * side * side)] = -0.01
    return data.reshape(4, side, side)


@given(st.integers(0, 100))
def test_more_than_a_tenth_is_suspect(percent: int) -> None:
    mask = np.full((40, 40), Reason.CLEAR, np.uint8)
    found = offset_notes(drawn(percent / 100), BANDS, mask, L2A)
    assert bool(found) == (percent > 10)
    assert not found or found[0].startswith(f"offset_suspect: {percent}%")


def test_only_clear_pixels_count() -> None:
    mask = np.full((40, 40), Reason.CLEAR, np.uint8)
    mask[:20] = Reason.SHADOW
    data = drawn(0.5)
    assert offset_notes(data, BANDS, mask, L2A) == ()
    assert offset_notes(data, BANDS, np.full_like(mask, Reason.UNKNOWN), L2A) != ()
    data[:] = np.nan
    assert negative_share(data, BANDS, mask) is None
    assert negative_share(drawn(1.0, side=10), BANDS, mask[:10, :10]) is None  # 300 numbers tell nothing
    assert offset_notes(drawn(1.0), ("nir", "nir08", "swir16", "swir22"), mask, L2A) == ()


def test_other_sensors_are_not_asked() -> None:
    mask = np.full((40, 40), Reason.CLEAR, np.uint8)
    for id, sensor in SENSORS.items():
        assert bool(offset_notes(drawn(1.0), BANDS, mask, sensor)) == id.startswith("sentinel-2")


@pytest.mark.real
@pytest.mark.parametrize(("offset", "suspect"), [(0.0, False), (-0.1, False), (-0.3, True)])
def test_a_real_scene(real_data: Path, offset: float, suspect: bool) -> None:
    # A desert: its blue lies at 0.2, so that only an offset of that size turns it negative.
    import rasterio

    folder = real_data / "02_sentinel2_scene/S2A_29RKH_20200219_0_L2A"
    layers = []
    for name in ("B02", "B03", "B04"):
        with rasterio.open(folder / f"{name}.tif") as file:
            stored = file.read(1)[:300, :300].astype(np.float32)
        layers.append(np.where(stored == 0, np.nan, stored * 1e-4 + offset))
    data = np.stack(layers).astype(np.float32)
    mask = np.full(data.shape[1:], Reason.CLEAR, np.uint8)
    assert bool(offset_notes(data, BANDS[:3], mask, L2A)) == suspect
