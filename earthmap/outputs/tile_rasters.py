"""Rasters of a zone's tiles: one pixel for the core of each, as cloud-optimised GeoTIFF."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from earthmap.grid import Tile

if TYPE_CHECKING:
    from numpy.typing import NDArray

NOTHING = 0
"""Code of tiles without any."""

BLOCK_PX = 128
"""Side of the file's internal tiles: a zone has few pixels of this kind."""


def tile_cog(
    tiles: Sequence[Tile],
    codes: NDArray[np.integer],
    *,
    legend: Mapping[int, str],
    colours: Mapping[int, tuple[int, int, int]],
    path: Path,
) -> None:
    """Write one code for each of `tiles`, which lie in one zone of one grid, to the local file `path`.

    A pixel is a tile's whole core; where a zone ends only a part of it is the tile's own ground, which areas are
    counted by. Bytes where the legend has at most 255 codes, else 16 bits; 0 is nodata.

    Args:
        tiles: at least one.
        codes: (n,) from 1 on.
        legend: what the codes mean; written as tags (`class_1=cluster 1`).
        colours: red, green, blue of each code.
        path: whole when this returns.
    """
    import rasterio
    import rasterio.shutil

    grid, zone = tiles[0].grid, tiles[0].zone
    rows, columns = np.array([(tile.row, tile.column) for tile in tiles]).T
    top, left = int(rows.max()), int(columns.min())
    pixels = np.zeros((top - int(rows.min()) + 1, int(columns.max()) - left + 1), _kind(legend))
    pixels[top - rows, columns - left] = codes
    corner = Tile(grid, zone, top, left).core_geobox.affine
    step = rasterio.Affine(grid.core_m, 0.0, corner.c, 0.0, -grid.core_m, corner.f)
    profile = {
        "driver": "GTiff", "dtype": pixels.dtype.name, "count": 1, "nodata": NOTHING, "crs": f"EPSG:{zone.epsg}",
        "height": pixels.shape[0], "width": pixels.shape[1], "transform": step, "compress": "deflate",
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="earthmap-") as folder:
        plain = Path(folder) / "plain.tif"
        with rasterio.open(plain, "w", **profile) as target:
            target.write(pixels, 1)
            target.write_colormap(1, {NOTHING: (0, 0, 0, 0), **{code: (*rgb, 255) for code, rgb in colours.items()}})
            target.update_tags(1, **{f"class_{code}": name for code, name in sorted(legend.items())})
        rasterio.shutil.copy(
            plain, path, driver="COG", compress="deflate", overview_resampling="nearest", blocksize=BLOCK_PX
        )


def _kind(legend: Mapping[int, str]) -> str:
    return "uint8" if max(legend) <= np.iinfo(np.uint8).max else "uint16"
