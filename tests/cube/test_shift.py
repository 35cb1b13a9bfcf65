"""Shifts between dates: found between the pixels, whatever else changed, and never out of nothing."""

from __future__ import annotations

import functools
import math
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from scipy import ndimage

from earthmap.cube import Shift, estimate_shift, moved_part
from earthmap.errors import GridError
from earthmap.predict import Picture
from earthmap.sensors import Reason
from earthmap.synthetic import small_world
from earthmap.synthetic.sensors import draw_rgb, draw_sentinel1

SIDE = 368
OPTICAL, RADAR = ("optical-uncalibrated", ("red", "nir")), ("sentinel-1-db", ("vv", "vh"))


def picture(data: np.ndarray, mask: np.ndarray | None = None, kind: tuple[str, tuple[str, ...]] = OPTICAL) -> Picture:
    clear = np.full(data.shape[1:], Reason.CLEAR, np.uint8)
    return Picture(
        sensor=kind[0],
        observation="one",
        datetime=None,
        bands=kind[1],
        data=np.asarray(data, np.float32),
        mask=clear if mask is None else mask,
    )


@functools.cache
def drawn(
    kind: tuple[str, tuple[str, ...]], *, after: bool = False, down: float = 0.0, right: float = 0.0, seed: int = 1
) -> np.ndarray:
    """A drawn world of ten metres on one of its dates, its ground `down` and `right` pixels further than it is."""
    world = small_world(seed, size_m=5000)
    west, _, _, north = world.bounds
    geobox = GeoBox(
        (SIDE, SIDE),
        Affine(10.0, 0.0, west + 600 - 10 * right, 0.0, -10.0, north - 600 + 10 * down),
        f"EPSG:{world.epsg}",
    )
    date = world.after if after else world.before
    if kind == RADAR:
        return 10 ** (np.stack([layer.data[0] for layer in draw_sentinel1(world, geobox, date)]) / 10)
    return draw_rgb(world, geobox, date)[0].data[[0, 3]].astype(np.float32)


def blobs(share: float, seed: int = 0) -> np.ndarray:
    """True on `share` of the ground, in pieces."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(SIDE, SIDE)), 25)
    return np.asarray(field > np.quantile(field, 1 - share))


def error(found: Shift, down: float, right: float) -> float:
    return math.hypot(found.down_px - down, found.right_px - right)


@pytest.mark.parametrize("kind", [OPTICAL, RADAR], ids=["optical", "radar"])
@pytest.mark.parametrize(("down", "right"), [(0.0, 0.0), (0.5, -0.25), (-3.3, 5.4), (7.9, -8.0)])
def test_a_shift_is_found_between_the_pixels(
    kind: tuple[str, tuple[str, ...]], down: float, right: float
) -> None:  # fmt: skip
    found = estimate_shift(
        picture(drawn(kind), kind=kind), picture(drawn(kind, after=True, down=down, right=right), kind=kind)
    )
    assert found.is_good
    assert error(found, down, right) < (0.1 if kind == OPTICAL else 0.2)
    assert found.spread_px is not None
    assert found.spread_px < 0.5


@pytest.mark.parametrize("kind", [OPTICAL, RADAR], ids=["optical", "radar"])
def test_changed_ground_and_clouds_do_not_pull_it(kind: tuple[str, tuple[str, ...]]) -> None:
    first, second = drawn(kind), drawn(kind, after=True, down=-3.3, right=5.4)
    changed = np.where(blobs(0.4), drawn(kind, seed=2), second)
    found = estimate_shift(picture(first, kind=kind), picture(changed, kind=kind))
    assert found.is_good
    assert error(found, -3.3, 5.4) < 0.25
    mask = np.where(blobs(0.5), np.uint8(Reason.CLOUD), np.uint8(Reason.CLEAR))
    cloud = np.where(mask == Reason.CLOUD, second.max(), second)
    under = estimate_shift(picture(first, kind=kind), picture(cloud, mask, kind=kind))
    assert under.is_good
    assert error(under, -3.3, 5.4) < 0.25


def test_clouds_that_nobody_marked_and_a_border_do_not_pull_it_to_nothing() -> None:
    """What lies at the same place on both pictures, such as an edge of the data, is no ground."""
    first, second = drawn(OPTICAL).copy(), drawn(OPTICAL, after=True, down=2.5, right=4.0).copy()
    hidden = np.zeros((SIDE, SIDE), bool)
    hidden[:, :90] = hidden[200:230, ::3] = True
    masks = np.where(hidden, np.uint8(Reason.NODATA), np.uint8(Reason.CLEAR))
    for data in (first, second):
        data[:, hidden] = np.nan
    found = estimate_shift(picture(first, masks), picture(second, masks))
    assert found.is_good
    assert error(found, 2.5, 4.0) < 0.15
    for data, seed in ((first, 3), (second, 4)):
        data[:, blobs(0.2, seed)] = 250.0
    assert error(estimate_shift(picture(first, masks), picture(second, masks)), 2.5, 4.0) < 0.2


@pytest.mark.parametrize(("gain", "offset"), [(0.3, 12.0), (-1.0, 255.0)], ids=["darker", "turned round"])
def test_brightness_and_contrast_do_not_matter(gain: float, offset: float) -> None:
    second = drawn(OPTICAL, after=True, down=0.5, right=-0.25)
    plain, other = (
        estimate_shift(picture(drawn(OPTICAL)), picture(data)) for data in (second, gain * second + offset)
    )  # fmt: skip
    assert error(other, plain.down_px, plain.right_px) < 0.03


def test_the_other_order_gives_the_opposite() -> None:
    first, second = (
        picture(drawn(RADAR), kind=RADAR),
        picture(drawn(RADAR, after=True, down=-3.3, right=5.4), kind=RADAR),
    )
    there, back = estimate_shift(first, second), estimate_shift(second, first)
    assert error(there, -back.down_px, -back.right_px) < 0.1


def test_parts_that_lie_differently_are_torn() -> None:
    first, west, east = drawn(OPTICAL), drawn(OPTICAL, down=5.0), drawn(OPTICAL, down=-5.0)
    second = np.where(np.arange(SIDE) < SIDE // 2, west, east)
    found = estimate_shift(picture(first), picture(second))
    assert found.is_torn or (found.is_good and (found.spread_px or 0) > 2)


@pytest.mark.parametrize("what", ["unrelated", "noise", "even", "periodic", "unseen", "too far"])
def test_out_of_nothing_no_shift_is_found(what: str) -> None:
    noise = np.random.default_rng(5).normal(100.0, 1.0, size=(2, 2, SIDE, SIDE)).astype(np.float32)
    wave = 10 * (np.sin(np.arange(SIDE) / 2.5)[:, None] + np.sin(np.arange(SIDE) / 2.5))
    first, second = {
        "unrelated": (drawn(OPTICAL), drawn(OPTICAL, seed=2)),
        "noise": (noise[0], noise[1]),
        "even": (np.full((2, SIDE, SIDE), 7.0), np.full((2, SIDE, SIDE), 9.0)),
        "periodic": (noise[0] + wave, noise[1] + wave),
        "unseen": (drawn(OPTICAL), np.full((2, SIDE, SIDE), np.nan)),
        "too far": (drawn(OPTICAL), drawn(OPTICAL, down=40.0)),
    }[what]
    found = estimate_shift(picture(first), picture(second))
    assert not found.is_good
    assert not found.is_torn


@pytest.mark.parametrize("down", [16.0, 17.0])
def test_a_shift_at_the_end_of_what_is_looked_for_is_no_small_one(down: float) -> None:
    found = estimate_shift(picture(drawn(OPTICAL)), picture(drawn(OPTICAL, down=down)))
    assert not found.is_good
    assert found.is_torn


def test_pictures_of_two_lattices_are_refused() -> None:
    with pytest.raises(GridError, match="one lattice"):
        estimate_shift(picture(np.zeros((2, 40, 40))), picture(np.zeros((2, 50, 50))))


def test_aerial_pictures_of_a_decade_lie_as_their_files_say(real_data: Path) -> None:
    import rasterio

    pictures, corners = [], []
    for year in ("2012", "2017", "2020"):
        (path,) = (real_data / "08_landsat_naip_timeseries" / "naip_nd_west").glob(f"*_{year}*.tif")
        with rasterio.open(path) as source:
            pictures.append(picture(source.read([1, 4])[:, :512].astype(np.float32)))
            corners.append((source.transform.f / source.transform.e, source.transform.c / source.transform.a))
    pairs = [(0, 1), (1, 2), (0, 2)]
    found = [estimate_shift(pictures[one], pictures[other]) for one, other in pairs]
    for (one, other), shift in zip(pairs, found, strict=True):
        assert shift.is_good
        expected = [before - after for before, after in zip(corners[one], corners[other], strict=True)]
        assert error(shift, *expected) < 0.6  # the archive promises six metres, which is 1.2 pixels
    assert error(found[2], found[0].down_px + found[1].down_px, found[0].right_px + found[1].right_px) < 0.2


# ── moving ───────────────────────────────────────────────────────────────────────────────────────────────────

PART = (slice(10, 30), slice(12, 32))


@given(down=st.integers(-15, 15), right=st.integers(-15, 15))
def test_whole_pixels_are_copied(down: int, right: int) -> None:
    data = np.random.default_rng(0).normal(size=(2, 44, 44)).astype(np.float32)
    mask = np.random.default_rng(1).integers(0, 9, (44, 44)).astype(np.uint8)
    mask[mask == Reason.NODATA] = Reason.CLEAR
    moved, reasons = moved_part(data, mask, PART, shift=(float(down), float(right)))
    rows, columns = (np.arange(one.start, one.stop) + step for one, step in zip(PART, (down, right), strict=True))
    inside = np.ix_((rows >= 0) & (rows < 44), (columns >= 0) & (columns < 44))
    places = np.ix_(rows[(rows >= 0) & (rows < 44)], columns[(columns >= 0) & (columns < 44)])
    for plane, own in zip(moved, data, strict=True):
        np.testing.assert_array_equal(plane[inside], own[places])
    np.testing.assert_array_equal(reasons[inside], mask[places])
    outside = np.ones((20, 20), bool)
    outside[inside] = False
    assert np.isnan(moved[:, outside]).all()
    assert (reasons[outside] == Reason.NODATA).all()


@given(down=st.floats(-8, 8), right=st.floats(-8, 8))
def test_a_slope_is_moved_exactly(down: float, right: float) -> None:
    y, x = np.mgrid[:44, :44].astype(np.float32)
    moved, reasons = moved_part((2 * y + 3 * x)[None], np.zeros((44, 44), np.uint8), PART, shift=(down, right))
    np.testing.assert_allclose(moved[0], (2 * (y + down) + 3 * (x + right))[PART], atol=1e-3)
    assert (reasons == Reason.CLEAR).all()


def test_a_pixel_beside_missing_ones_is_missing() -> None:
    data, mask = np.ones((1, 44, 44), np.float32), np.zeros((44, 44), np.uint8)
    data[:, 20, 20], mask[20, 20], mask[25, 25] = np.nan, Reason.NODATA, Reason.CLOUD
    moved, reasons = moved_part(data, mask, PART, shift=(0.25, 0.5))
    lost = [(10 + row, 12 + column) for row, column in np.argwhere(np.isnan(moved[0])).tolist()]
    assert set(lost) == {(19, 19), (19, 20), (20, 19), (20, 20)}
    assert (reasons[np.isnan(moved[0])] == Reason.NODATA).all()
    assert (reasons == Reason.CLOUD).sum() == 1


def test_moved_back_a_date_lies_on_the_other() -> None:
    first, second = drawn(OPTICAL), drawn(OPTICAL, down=-3.3, right=5.4)
    found = estimate_shift(picture(first), picture(second))
    whole = (slice(0, SIDE), slice(0, SIDE))
    moved, mask = moved_part(second, np.zeros((SIDE, SIDE), np.uint8), whole, shift=(found.down_px, found.right_px))
    left = estimate_shift(picture(first), picture(moved, mask))
    assert left.is_good
    assert left.length_px < 0.1
    inner = (slice(None), slice(10, -10), slice(10, -10))
    before, after = (float(np.abs(data[inner] - first[inner]).mean()) for data in (second, moved))
    assert after < before / 3
