"""Class rasters as cloud-optimised GeoTIFFs: one for each question, observation and zone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from earthmap.grid import Cell
from earthmap.tasks import UNSEEN

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rasterio.io import DatasetWriter

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


PERCENT_BAND = (
    "stated probability in percent: of the shape that covers a pixel, elsewhere of the whole answer about its tile; "
    "255: unseen, or none is stated"
)
"""Description of the band of `percent_cog`. No predictor measures single pixels."""


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

    def describe(target: DatasetWriter) -> None:
        target.write_colormap(1, {code: (*colour_of(name), 255) for code, name in legend.items()})
        target.update_tags(1, **{f"class_{code}": name for code, name in sorted(legend.items())})

    _write_cog(cells, codes, describe=describe, path=path)


def percent_cog(cells: Sequence[Cell], percent: Iterable[NDArray[np.uint8]], *, path: Path) -> None:
    """Write how sure answers are on the pixels of a class raster; arguments as of `class_cog`.

    `percent` are 0 to 100, 255 where the ground is unseen or no probability is stated.
    """

    def describe(target: DatasetWriter) -> None:
        target.set_band_description(1, PERCENT_BAND)
        target.set_band_unit(1, "%")

    _write_cog(cells, percent, describe=describe, path=path)


def _write_cog(
    cells: Sequence[Cell],
    values: Iterable[NDArray[np.uint8]],
    *,
    describe: Callable[[DatasetWriter], None],
    path: Path,
) -> None:
    """Write one band of uint8 whose nodata is 255; `describe` says what it is before overviews are made."""
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
            for cell, of_cell in zip(cells, values, strict=True):
                window = Window((cell.column - left) * side, (top - cell.row) * side, side, side)
                target.write(of_cell, 1, window=window)
            describe(target)
        rasterio.shutil.copy(
            plain, path, driver="COG", compress="deflate", overview_resampling="nearest", blocksize=BLOCK_PX,
            sparse_ok=True, bigtiff="if_safer",
        )  # fmt: skip
