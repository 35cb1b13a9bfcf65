"""Images whose affine transform is turned, as airborne radar delivers them, and their complex numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.warp import reproject

from earthmap.cube import ArrayImage, RasterioReader, SourceGrid
from earthmap.cube.reader import read_image
from earthmap.cube.warp import aligned_block
from tests.cube.conftest import source
from tests.cube.test_warp import CELL, ramp

UTM = CRS("EPSG:32631")


def turned(target: GeoBox, degrees: float, size: float, *, mirrored: bool = False, grow: float = 1.6) -> GeoBox:
    """Ground around the middle of `target`, turned."""
    rows, columns = target.shape
    side = int(max(rows, columns) * target.affine.a * grow / size)
    x, y = target.affine @ (columns / 2, rows / 2)
    scale = Affine.scale(-size if mirrored else size, -size)
    turn = Affine.translation(x, y) @ Affine.rotation(degrees) @ scale @ Affine.translation(-side / 2, -side / 2)
    return GeoBox((side, side), turn, target.crs)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("size", [4.0, 10.0, 17.0])
@pytest.mark.parametrize(("degrees", "mirrored"), [(12.0, False), (90.65, False), (180.0, False), (33.0, True)])
def test_turned_ground_is_where_it_should_be(
    degrees: float, mirrored: bool, size: float, axis: int, write: Callable[..., str]
) -> None:
    target = CELL.geobox[100:300, 80:280]
    file = turned(target, degrees, size, mirrored=mirrored)
    href = write("a.tif", ramp(file, target, axis), file)
    got = RasterioReader().read(source(href), target)
    # GDAL averages over the upright box around a turned pixel: a little blurred, and hardly moved.
    assert np.abs(got - (np.mgrid[:200, :200] + 0.5)[1 - axis]).max() < 0.1


def test_overviews_of_a_turned_image_do_not_move_the_ground(write: Callable[..., str]) -> None:
    target = CELL.geobox[100:300, 80:280]
    file = turned(target, 12.0, 2.5)
    href = write("a.tif", ramp(file, target, 0), file, overviews=[2, 4])
    got = RasterioReader().read(source(href), target)
    assert np.abs(got - (np.mgrid[:200, :200] + 0.5)[1]).max() < 0.05


def test_a_turned_image_is_never_copied() -> None:
    target = CELL.geobox
    for degrees in (90.0, 180.0, 0.01):
        box = turned(target, degrees, 10.0)
        assert aligned_block(SourceGrid(shape=box.shape, transform=box.affine, crs=UTM), target) is None


@given(top=st.integers(0, 150), left=st.integers(0, 150), degrees=st.floats(-180, 180))
def test_a_part_has_the_bits_of_the_whole(top: int, left: int, degrees: float) -> None:
    frame = CELL.geobox[100:300, 80:280]
    box = turned(frame, degrees, 9.0)
    numbers = np.random.default_rng(1).normal(size=(2, *box.shape))
    image = ArrayImage(
        bands=(numbers[:1] + 1j * numbers[1:]).astype(np.complex64),
        grid=SourceGrid(shape=box.shape, transform=box.affine, crs=UTM),
    )
    read = source("a", "hh", amplitude=True)
    whole = read_image(image, read, frame)
    part = read_image(image, read, frame[top : top + 50, left : left + 50], frame=frame)
    np.testing.assert_array_equal(part, whole[top : top + 50, left : left + 50])


@pytest.mark.real
@pytest.mark.parametrize("size", [2.5, 10.0])
@pytest.mark.parametrize("channel", ["hh", "hv", "vh", "vv"])
def test_real_complex_radar_is_the_power_that_gdal_warps(channel: str, size: float, real_data: Path) -> None:
    path = real_data / "06_spacenet_highres_optical_sar" / f"sar_{channel}.tif"
    with rasterio.open(path) as file:
        power = np.abs(file.read(1).astype(np.complex128)) ** 2
        x, y = file.transform @ (100, 100)
        side = int(400 / size)
        corner = round(x / size) * size - side // 2 * size, round(y / size) * size + side // 2 * size
        target = GeoBox((side, side), Affine(size, 0, corner[0], 0, -size, corner[1]), UTM)
        want = np.full(target.shape, np.nan, np.float32)
        reproject(
            power.astype(np.float32), want, src_transform=file.transform, src_crs=file.crs, dst_crs="EPSG:32631",
            dst_transform=target.affine, dst_nodata=np.nan, tolerance=0.01, XSCALE=1, YSCALE=1,
            resampling=Resampling.average if size > 5 else Resampling.bilinear,
        )  # fmt: skip
    got = RasterioReader().read(source(str(path), channel, amplitude=True, nodata=0.0), target)
    assert np.isfinite(got).mean() > 0.9
    both = np.isfinite(got) & np.isfinite(want)
    assert both.mean() > 0.9
    np.testing.assert_allclose(got[both], want[both], rtol=2e-3)
    assert abs(np.nanmean(got) / power.mean() - 1) < 0.15
