"""The seam between files and pixels: a band source and a geobox in, physical values out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from earthmap.catalog.scene import BandSource
from earthmap.cube.control import ControlGrid
from earthmap.cube.failures import Cause
from earthmap.cube.gather import gather, gather_block, positions, target_scale
from earthmap.cube.warp import (
    Block,
    SourceGrid,
    aligned_block,
    margin_px,
    needed_block,
    part_of,
    source_scale,
    toward,
    warp_onto,
)
from earthmap.errors import ReadError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox

MAX_PIXELS = 2**26
"""Largest part of one band that is read at once: 64 million pixels, 256 MB as float32."""


class Reader(Protocol):
    """Bytes of files → pixels. One instance is used by many threads at once, and is pickled to other processes."""

    def read(self, source: BandSource, geobox: GeoBox, *, frame: GeoBox | None = None) -> NDArray[np.float32]:
        """`source` on `geobox`: (y, x) float32 physical values, SAR in linear power, NaN where there is nothing, and
        positive infinity where any number that went into a pixel is saturated.

        Classes and bits come as they are stored, from full resolution, the nearest pixel. With `frame`, which
        `geobox` is a part of, the pixels are bit for bit those of reading all of `frame`, whose rest is not touched.

        Raises:
            ReadError: with a `reason` of `earthmap.cube.failures.Cause`.
        """
        ...


class Image(Protocol):
    """An opened file, or an array in its place."""

    @property
    def grids(self) -> Sequence[SourceGrid] | ControlGrid:
        """Full resolution first, then the overviews from fine to coarse; one grid where control points place it."""
        ...

    @property
    def nodata(self) -> float | None:
        """What the file itself declares as nodata."""
        ...

    def load(self, index: int, block: Block, level: int) -> NDArray[np.generic]:
        """Stored numbers of a block that lies wholly inside level `level` of 1-based band `index`."""
        ...

    def seen(self, index: int, block: Block, level: int) -> NDArray[np.bool_] | None:
        """False where the file's own mask hides a pixel; None where it has no mask."""
        ...


def _level(grids: Sequence[SourceGrid], source: BandSource, geobox: GeoBox) -> int:
    """The coarsest level that is not coarser than the target.

    Classes have no overviews, and neither have decibels and amplitudes, whose average is not one of power; but where
    coarse will do.
    """
    calibration = source.calibration
    if (calibration.categorical or calibration.decibels or calibration.amplitude) and not source.coarse:
        return 0
    scales = [source_scale(toward(grid, geobox), geobox) for grid in grids]
    fine = [level for level, scale in enumerate(scales) if scale >= 1.0 - 1e-3]
    return fine[-1] if fine else 0


def _physical(image: Image, source: BandSource, block: Block, level: int) -> NDArray[np.float32]:
    calibration = source.calibration
    stored = image.load(source.index, block, level)
    if np.iscomplexobj(stored) and not calibration.amplitude:
        raise ReadError(
            f"{source.href} holds complex numbers",
            address=source.href,
            reason=Cause.UNSUPPORTED.value,
            expected="one real number a pixel, or a complex one of radar, whose square is power",
            fix="name its polarization in the item, or use a detected product (amplitude or backscatter)",
        )
    if calibration.nodata is None and image.nodata is not None:
        calibration = dataclasses.replace(calibration, nodata=image.nodata)
    values = calibration.apply(stored)
    seen = image.seen(source.index, block, level)
    if seen is not None:
        values[~seen] = np.nan
    return values


def _check_size(block: Block, source: BandSource, max_pixels: int) -> None:
    if block.size > max_pixels:
        raise ReadError(
            f"{source.href} would be read {block.shape[0]} × {block.shape[1]} pixels at once",
            address=source.href,
            reason="too_large",
            expected=f"at most {max_pixels} pixels",
            fix="ask for a finer resolution or smaller tiles, or give the file overviews",
        )


def read_image(
    image: Image,
    source: BandSource,
    geobox: GeoBox,
    *,
    frame: GeoBox | None = None,
    max_pixels: int = MAX_PIXELS,
) -> NDArray[np.float32]:
    """What `Reader.read` promises, for an image that is open. Raises ReadError."""
    whole = frame or geobox
    part = part_of(whole, geobox)
    grids = image.grids
    if isinstance(grids, ControlGrid):
        return _read_by_points((image, grids), source, whole, part, max_pixels=max_pixels)
    level = _level(grids, source, whole)
    grid = toward(grids[level], whole)
    block = aligned_block(grid, whole)
    if block is not None:
        block = Block(block.top + part.top, block.left + part.left, block.top + part.bottom, block.left + part.right)
        return _spread(image, source, block.within(grid.shape), block, level)
    scale = source_scale(grid, whole)
    inside = needed_block(grid, geobox, scale=scale).within(grid.shape)
    if not inside.size:
        return np.full(geobox.shape, np.nan, np.float32)
    _check_size(inside, source, max_pixels)
    rimmed = needed_block(grid, whole, scale=scale).within(grid.shape, margin=margin_px(scale))
    if rimmed.size > max_pixels and frame is not None:  # all of `frame` can not be read at once: nothing to agree with
        return read_image(image, source, geobox, max_pixels=max_pixels)
    values = _spread(image, source, inside.within_block(rimmed), rimmed, level)
    from affine import Affine

    moved = dataclasses.replace(
        grid, shape=rimmed.shape, transform=grid.transform @ Affine.translation(rimmed.left, rimmed.top)
    )
    warped = warp_onto(_marked(values), moved, whole, categorical=source.calibration.categorical, scale=scale)
    return _unmarked(warped[part.top : part.bottom, part.left : part.right])


_MARK, _MARKED = np.float32(1e30), np.float32(1e22)
"""What a saturated number is while others are interpolated with it, where infinity would spread as NaN; no measurement
comes near, and what holds a hundred-millionth of it is told."""


def _marked(values: NDArray[np.float32]) -> NDArray[np.float32]:
    saturated = np.isposinf(values)
    return np.where(saturated, _MARK, values) if saturated.any() else values


def _unmarked(values: NDArray[np.float32]) -> NDArray[np.float32]:
    saturated = values > _MARKED
    return np.where(saturated, np.float32(np.inf), values) if saturated.any() else values


PIECE_PIXELS = 2**22
"""An image placed by control points is read in pieces of at most so many pixels, for it has no overviews to use."""


def _read_by_points(
    placed: tuple[Image, ControlGrid], source: BandSource, frame: GeoBox, part: Block, *, max_pixels: int
) -> NDArray[np.float32]:
    """The pixels of `part` of `frame`, read in as many pieces as their size needs."""
    image, grid = placed
    scale = target_scale(grid, frame)
    nodes = positions(grid, frame, part)
    inside = gather_block(nodes, scale=scale).within(grid.shape)
    if not inside.size:
        return np.full(part.shape, np.nan, np.float32)
    halves = part.halves() if inside.size > min(PIECE_PIXELS, max_pixels) else ()
    if halves:
        along = 0 if halves[0].right == part.right else 1
        pieces = [_read_by_points(placed, source, frame, half, max_pixels=max_pixels) for half in halves]
        return np.concatenate(pieces, axis=along)
    _check_size(inside, source, max_pixels)
    return _unmarked(gather(_marked(_physical(image, source, inside, 0)), inside, nodes, part, scale=scale))


def _spread(image: Image, source: BandSource, inside: Block, outer: Block, level: int) -> NDArray[np.float32]:
    """The values of `inside` in an array that covers `outer`, NaN around them."""
    if inside == outer:
        return _physical(image, source, inside, level)
    values = np.full(outer.shape, np.nan, np.float32)
    if inside.size:
        values[inside.slices_in(outer)] = _physical(image, source, inside, level)
    return values


@dataclass(frozen=True, kw_only=True)
class ArrayImage:
    """An image in memory."""

    bands: NDArray[np.generic] = field(repr=False)
    """(band, y, x) stored numbers."""
    grid: SourceGrid | ControlGrid
    nodata: float | None = None

    @property
    def grids(self) -> Sequence[SourceGrid] | ControlGrid:
        """Its one level."""
        return self.grid if isinstance(self.grid, ControlGrid) else (self.grid,)

    def load(self, index: int, block: Block, level: int) -> NDArray[np.generic]:
        """Stored numbers of a block inside the image."""
        return self.bands[index - 1, block.top : block.bottom, block.left : block.right]

    def seen(self, index: int, block: Block, level: int) -> NDArray[np.bool_] | None:
        """None: an array has no mask of its own."""
        return None


@dataclass(frozen=True, kw_only=True)
class MemoryReader:
    """The in-memory twin of `RasterioReader`: images by href, read by the same rules. Safe for any number of threads.

    Example:
        >>> MemoryReader(images={}).images
        {}
    """

    images: Mapping[str, ArrayImage | ReadError]
    """By href; an error is raised when its href is read."""

    def read(self, source: BandSource, geobox: GeoBox, *, frame: GeoBox | None = None) -> NDArray[np.float32]:
        """As `Reader.read`."""
        image = self.images.get(source.href)
        if image is None:
            raise ReadError(f"there is no image {source.href}", address=source.href, reason=Cause.NEVER_PUBLISHED.value)
        if isinstance(image, ReadError):
            raise image
        return read_image(image, source, geobox, frame=frame)
