"""From the grid of a file onto the lattice: which of its pixels are needed, and where they go.

Pixels on the same lattice are copied. All others go through GDAL's warper in float32 with NaN as nodata: bilinear,
average where the target is at least twice as coarse, nearest for classes. A target pixel is valid where at least half
of what the kernel weighs is valid, so that neither nodata bleeds inwards nor values smear across an edge.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.errors import GridError

if TYPE_CHECKING:
    from affine import Affine
    from numpy.typing import NDArray
    from odc.geo.crs import CRS
    from odc.geo.geobox import GeoBox

SIZE_TOLERANCE = 1e-6
"""Pixels whose sizes differ by less, as a share, are of one size."""

OFFSET_TOLERANCE_PX = 0.01
"""Grids that differ by less than this from whole pixels are one lattice."""

WARP_TOLERANCE_PX = 0.01
"""How far GDAL's approximation of a transformation may be off, in source pixels (its own default is 0.125)."""

COARSER = 2.0 - 1e-3
"""From this scale on a target pixel is the average of the ground that it covers.

Below it, bilinear looks at nearly all of that ground, and moves nothing: an average of whole pixels and parts of
pixels is off by up to 0.06 pixel at a scale of 1.25, and by less than 0.02 from 2 on.
"""

FALSE_NORTHING_M = 10_000_000.0
"""What separates the north and south codes of one UTM zone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceGrid:
    """Where the pixels of an image lie."""

    shape: tuple[int, int]
    """Rows, columns."""
    transform: Affine
    """From (column, row) to (x, y) of `crs`."""
    crs: CRS


@dataclass(frozen=True, slots=True)
class Block:
    """A rectangle of pixels; `bottom` and `right` are excluded. It may reach beyond the image."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, columns; never negative."""
        return max(self.bottom - self.top, 0), max(self.right - self.left, 0)

    @property
    def size(self) -> int:
        """Number of pixels."""
        rows, columns = self.shape
        return rows * columns

    def within(self, shape: tuple[int, int], *, margin: int = 0) -> Block:
        """The part that lies in an image of `shape`, or at most `margin` pixels outside it."""
        rows, columns = shape
        return Block(
            max(self.top, -margin),
            max(self.left, -margin),
            min(self.bottom, rows + margin),
            min(self.right, columns + margin),
        )

    def within_block(self, outer: Block) -> Block:
        """The part that lies in `outer`."""
        return Block(
            max(self.top, outer.top),
            max(self.left, outer.left),
            min(self.bottom, outer.bottom),
            min(self.right, outer.right),
        )

    def halves(self) -> tuple[Block, ...]:
        """Two parts, cut across the longer side; none where it is a single pixel."""
        rows, columns = self.shape
        if max(rows, columns) < 2:
            return ()
        if rows >= columns:
            middle = self.top + rows // 2
            return replace(self, bottom=middle), replace(self, top=middle)
        middle = self.left + columns // 2
        return replace(self, right=middle), replace(self, left=middle)

    def slices_in(self, outer: Block) -> tuple[slice, slice]:
        """Where this block lies in an array that covers `outer`."""
        return (
            slice(self.top - outer.top, self.bottom - outer.top),
            slice(self.left - outer.left, self.right - outer.left),
        )


def _crs(geobox: GeoBox) -> CRS:
    """The CRS of a geobox, which every cell and tile has."""
    if geobox.crs is None:
        raise GridError("a geobox without a CRS", expected="the geobox of a cell or tile")
    return geobox.crs


def _utm(crs: CRS) -> tuple[int, int] | None:
    code = crs.epsg
    if code is None or code // 100 not in (326, 327):
        return None
    return code // 100, code % 100


def toward(grid: SourceGrid, geobox: GeoBox) -> SourceGrid:
    """`grid` in the CRS of `geobox` where they are the two hemispheres of one UTM zone (a shift); else as it is."""
    from affine import Affine

    source, target = _utm(grid.crs), _utm(_crs(geobox))
    if source is None or target is None or source[1] != target[1] or source == target:
        return grid
    shift = FALSE_NORTHING_M if source[0] == 326 else -FALSE_NORTHING_M
    return replace(grid, crs=_crs(geobox), transform=Affine.translation(0.0, shift) @ grid.transform)


def aligned_block(grid: SourceGrid, geobox: GeoBox) -> Block | None:
    """The pixels that lie exactly under `geobox`; None where the two are not one lattice."""
    if grid.crs != geobox.crs:
        return None
    step = ~grid.transform @ geobox.affine  # from target pixels to source pixels
    if max(abs(step.a - 1), abs(step.e - 1), abs(step.b), abs(step.d)) > SIZE_TOLERANCE:
        return None
    left, top = round(step.c), round(step.f)
    if max(abs(step.c - left), abs(step.f - top)) > OFFSET_TOLERANCE_PX:
        return None
    rows, columns = geobox.shape
    return Block(top, left, top + rows, left + columns)


def part_of(frame: GeoBox, geobox: GeoBox) -> Block:
    """Where `geobox` lies in `frame`, in its pixels. Raises GridError where it is no part of it."""
    step = ~frame.affine @ geobox.affine
    top, left = round(step.f), round(step.c)
    rows, columns = geobox.shape
    part = Block(top, left, top + rows, left + columns)
    whole = SourceGrid(shape=(frame.shape[0], frame.shape[1]), transform=frame.affine, crs=_crs(frame))
    if aligned_block(whole, geobox) != part.within(whole.shape):
        raise GridError("a geobox that is no part of its frame", expected="whole pixels of the frame, all inside it")
    return part


def _through(
    affine: Affine, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    with np.errstate(invalid="ignore"):  # infinite where a projection has no answer
        return affine.a * x + affine.b * y + affine.c, affine.d * x + affine.e * y + affine.f


def _source_pixels(
    grid: SourceGrid, geobox: GeoBox, columns: NDArray[np.float64], rows: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Target pixel coordinates as (column, row) of the source; not finite where the projection has no answer."""
    x, y = _through(geobox.affine, columns, rows)
    if grid.crs != geobox.crs:
        x, y = (np.asarray(part) for part in _crs(geobox).transformer_to_crs(grid.crs)(x, y))
    if grid.crs.geographic:
        height, width = grid.shape
        middle, _ = grid.transform @ (width / 2, height / 2)
        x = (x - middle + 180.0) % 360.0 - 180.0 + middle  # the same meridian, whichever side of 180° it is written
    return _through(~grid.transform, x, y)


def source_scale(grid: SourceGrid, geobox: GeoBox) -> float:
    """Source pixels along one side of a target pixel, at the middle of `geobox`; 2 means the target is coarser."""
    rows, columns = geobox.shape
    column, row = columns / 2, rows / 2
    at = _source_pixels(grid, geobox, np.array([column, column + 1, column]), np.array([row, row, row + 1]))
    (x0, x1, x2), (y0, y1, y2) = at
    area = abs((x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0))
    return math.sqrt(area) if math.isfinite(area) and area > 0 else 1.0


def needed_block(grid: SourceGrid, geobox: GeoBox, *, scale: float) -> Block:
    """The source pixels that the warper looks at for `geobox`, its kernel included; empty where it has none."""
    rows, columns = geobox.shape
    across, down = np.meshgrid(np.linspace(0, columns, 33), np.linspace(0, rows, 33))
    x, y = _source_pixels(grid, geobox, across.ravel(), down.ravel())
    known = np.isfinite(x) & np.isfinite(y)
    if not known.any():
        return Block(0, 0, 0, 0)
    margin = math.ceil(2 * max(scale, 1.0)) + 1
    return Block(
        math.floor(y[known].min()) - margin,
        math.floor(x[known].min()) - margin,
        math.ceil(y[known].max()) + margin,
        math.ceil(x[known].max()) + margin,
    )


def margin_px(scale: float) -> int:
    """How far beyond an image's edge NaN is laid around it, so that the edge counts as one."""
    return math.ceil(scale) + 1


@functools.lru_cache(maxsize=64)
def _rasterio_crs(wkt: str) -> Any:
    from rasterio.crs import CRS

    return CRS.from_wkt(wkt)


def _warp(
    values: NDArray[np.float32], grid: SourceGrid, geobox: GeoBox, *, resampling: Any, nodata: float | None
) -> NDArray[np.float32]:
    from rasterio.warp import reproject

    target = np.full(geobox.shape, np.nan, np.float32)
    reproject(
        values,
        target,
        src_transform=grid.transform,
        src_crs=_rasterio_crs(grid.crs.to_wkt()),
        src_nodata=nodata,
        dst_transform=geobox.affine,
        dst_crs=_rasterio_crs(_crs(geobox).to_wkt()),
        dst_nodata=np.nan,
        resampling=resampling,
        tolerance=WARP_TOLERANCE_PX,
        # GDAL would guess a scale from the extents, which the turn between two zones makes wrong, and widen its kernel.
        XSCALE=1,
        YSCALE=1,
    )
    return target


def warp_onto(
    values: NDArray[np.float32], grid: SourceGrid, geobox: GeoBox, *, categorical: bool, scale: float
) -> NDArray[np.float32]:
    """`values` (y, x) of `grid` on `geobox`, NaN where less than half of what a pixel looks at is valid.

    Args:
        values: physical values, NaN where nodata, with a rim of NaN where the image ends.
        grid: where they lie.
        geobox: where they go.
        categorical: classes: the nearest pixel, as it is.
        scale: source pixels along a target pixel (`source_scale`).
    """
    from rasterio.enums import Resampling

    if categorical:
        return _warp(values, grid, geobox, resampling=Resampling.nearest, nodata=float("nan"))
    resampling = Resampling.average if scale >= COARSER else Resampling.bilinear
    warped = _warp(values, grid, geobox, resampling=resampling, nodata=float("nan"))
    valid = np.isfinite(values)
    if not valid.all():
        share = _warp(valid.astype(np.float32), grid, geobox, resampling=resampling, nodata=None)
        warped[~(share >= 0.5 - 1e-4)] = np.nan
    return warped
