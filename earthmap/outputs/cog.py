"""Class rasters as cloud-optimised GeoTIFFs: one for each question, observation and zone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from earthmap.grid import Cell
from earthmap.tasks import UNSEEN

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK_PX = 512
"""Side of the file's internal tiles."""

CACHE_BYTES = 32 * 2**20
"""Decoded blocks that GDAL may keep while it writes."""

COLOURS: Mapping[str, tuple[int, int, int]] = {
    "water": (38, 110, 190),
    "flood": (10, 91, 211),
    "flood, includes permanent water": (111, 159, 216),
    "vegetation": (77, 146, 79),
    "bare": (205, 164, 92),
    "built-up": (168, 84, 80),
    "snow": (150, 214, 226),
    "burnt": (84, 58, 44),
}
"""Colour of each land-cover class; what appeared is drawn brighter, what disappeared darker."""


def colour_of(label: str) -> tuple[int, int, int]:
    """Red, green, blue of a label such as `water`, `water gained`, `water lost`."""
    name, _, change = label.partition(" ")
    base = COLOURS.get(label) or COLOURS.get(name, (128, 128, 128))
    share, towards = {"gained": (0.25, 255), "lost": (0.45, 0)}.get(change, (0.0, 0))
    red, green, blue = (round(value + (towards - value) * share) for value in base)
    return red, green, blue


def class_cog(
    cells: Sequence[Cell], codes: Iterable[NDArray[np.uint8]], *, legend: Mapping[int, str], path: Path
) -> None:
    """Write one class raster of `cells`, which lie in one zone of one grid, to the local file `path`.

    Args:
        cells: what the raster covers, at least one; ground between them stays nodata and takes no space.
        codes: the (cell_core_px, cell_core_px) codes of each cell, row 0 in the north: 0 is none of the classes, 255
            unseen or outside the area. Taken one at a time.
        legend: what the other codes mean; written as tags (`class_1=water`) and as a colour table.
        path: whole when this returns.
    """
    import rasterio
    import rasterio.shutil
    from rasterio.windows import Window

    grid, zone = cells[0].grid, cells[0].zone
    side = grid.cell_core_px
    top, bottom = max(cell.row for cell in cells), min(cell.row for cell in cells)
    left, right = min(cell.column for cell in cells), max(cell.column for cell in cells)
    profile = {
        "driver": "GTiff", "dtype": "uint8", "count": 1, "nodata": UNSEEN, "crs": f"EPSG:{zone.epsg}",
        "height": (top - bottom + 1) * side, "width": (right - left + 1) * side,
        "transform": Cell(grid, zone, top, left).core_geobox.affine,
        "tiled": True, "blockxsize": BLOCK_PX, "blockysize": BLOCK_PX, "compress": "deflate", "sparse_ok": True,
    }  # fmt: skip
    # GDAL keeps up to a twentieth of the machine's memory of decoded blocks, which would grow with the area.
    with tempfile.TemporaryDirectory(prefix="earthmap-") as folder, rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
        plain = Path(folder) / "plain.tif"
        with rasterio.open(plain, "w", bigtiff="if_safer", **profile) as target:
            for cell, values in zip(cells, codes, strict=True):
                window = Window((cell.column - left) * side, (top - cell.row) * side, side, side)
                target.write(values, 1, window=window)
            target.write_colormap(1, {code: (*colour_of(name), 255) for code, name in legend.items()})
            target.update_tags(1, **{f"class_{code}": name for code, name in sorted(legend.items())})
        rasterio.shutil.copy(
            plain, path, driver="COG", compress="deflate", overview_resampling="nearest", blocksize=BLOCK_PX,
            sparse_ok=True, bigtiff="if_safer",
        )  # fmt: skip
