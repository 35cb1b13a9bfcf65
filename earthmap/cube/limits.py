"""What a file may ask for before any of it is decoded: memory, blocks, and no other file.

A few hundred bytes can claim any size, and metadata can name other files for GDAL to open: an image's overviews may
stand at an address in its own `OVERVIEWS` metadata, and the files beside a local image may be VRTs, which fetch what
they like. An image is itself and the images beside it that GDAL's own rules name, or it is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from earthmap.catalog.admission import Fetch, check_directories
from earthmap.cube.failures import Cause, read_error

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

MAX_BLOCK_BYTES = 2**28
"""Largest internal block that is decoded: a crafted file could ask for all memory with a few bytes."""

MAX_BLOCKS = 2**24
"""Most internal blocks of one band: their index alone takes memory, and a JPEG 2000 of single pixels hours."""

MAX_LEVELS = 32
"""Most overviews; each halves the one before, so that no image needs more."""

_BESIDE = (".ovr", ".OVR", ".msk", ".MSK")
"""Endings of the images that GDAL opens beside a local image: its overviews and its mask."""

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def check_size(dataset: DatasetReader, href: str) -> None:
    """Raises ReadError (`too_large`) for blocks that are too large or too many."""
    together = dataset.count if dataset.interleaving and dataset.interleaving.value == "PIXEL" else 1
    for (rows, columns), dtype in zip(dataset.block_shapes, dataset.dtypes, strict=True):
        item = 16 if dtype.startswith("complex") else np.dtype(dtype).itemsize
        if rows * columns * item * together > MAX_BLOCK_BYTES:
            size = f"blocks of {rows} × {columns} pixels"
            raise read_error(href, Cause.TOO_LARGE, f"{href} is stored in {size}, over {MAX_BLOCK_BYTES // 2**20} MB")
        count = -(-dataset.height // rows) * -(-dataset.width // columns)
        if count > MAX_BLOCKS:
            raise read_error(href, Cause.TOO_LARGE, f"{href} is stored in {count:,} blocks, over {MAX_BLOCKS:,}")


def check_links(dataset: DatasetReader, href: str) -> None:
    """Raises ReadError (`unsupported`) where the file's metadata say that its overviews stand in another file.

    To be called before anything asks for its overviews, which is when GDAL would open that file.
    """
    if dataset.tags(ns="OVERVIEWS"):
        raise read_error(href, Cause.UNSUPPORTED, f"{href} names another file as its overviews")


def check_levels(levels: int, href: str) -> None:
    """Raises ReadError (`too_large`) for more overviews than any image has."""
    if levels > MAX_LEVELS:
        raise read_error(href, Cause.TOO_LARGE, f"{href} has {levels:,} overviews, over {MAX_LEVELS}")


def _part_of(data: bytes) -> Fetch:
    return lambda start, count: data[start : start + count]


def check_beside(path: str, href: str) -> None:
    """Raises ReadError (`unsupported`) where a file beside the local image, which GDAL would open with it, is no plain
    TIFF. Nothing is looked for beside a remote one."""
    for ending in _BESIDE:
        beside = Path(path + ending)
        if not beside.is_file():
            continue
        with beside.open("rb") as file:
            data = file.read()
        check_directories(_part_of(data), f"{beside.name} beside {href}")
        if not data.startswith(_TIFF) or b"OVERVIEW_FILE" in data:
            raise read_error(href, Cause.UNSUPPORTED, f"the file {beside.name} beside {href} is no plain TIFF")
        check_beside(str(beside), href)
