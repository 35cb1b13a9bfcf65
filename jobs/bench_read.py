"""Reading, ours against odc-stac with dask: the same files, the same cores, the same pixels, in one run.

    python jobs/bench_read.py                 # draws 16 COGs (about 180 MB) in a temporary folder
    python jobs/bench_read.py --side 5120 --files 16 --rounds 5 --threads 2

The files are one scene of as many bands. Each cell (16 tiles of 448 pixels) is read whole, with its halo ring, all
bands, calibrated to reflectance. odc-stac loads the same geoboxes and its stored numbers are scaled in the same way;
both read with the same number of threads and neither writes. Rounds alternate, the medians are compared.
odc-stac is measured with chunks of a tile, which is what is asked about, and with one chunk for a whole cell, which is
the best that it can be given here: then both spend most of their time in the same decoder. Files are
opened anew in each round, so that nobody is timed on decoded pixels.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.catalog.scene import BandSource, Observation, Scene
from earthmap.cube import CellPixels, CellRead, RasterioReader, close_files, read_cell
from earthmap.grid.tiling import CELL_TILES, Cell, Grid, Zone
from earthmap.sensors.calibration import Calibration

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pystac import Item

WHEN = datetime.datetime(2024, 6, 1, 10, 30, tzinfo=datetime.UTC)
GRID = Grid(resolution_m=10.0)
FIRST = Cell(GRID, Zone(31, True), 300, 14)
SCALE = 1e-4
BAR = 2.0


def draw(folder: Path, *, files: int, side: int) -> list[Path]:
    """`files` tiled, deflated uint16 COGs of `side` pixels that look like land to a compressor."""
    import rasterio
    from rasterio.transform import Affine
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    box = FIRST.geobox
    corner = Affine(10.0, 0.0, box.affine.c - 640.0, 0.0, -10.0, box.affine.f + 640.0)
    land = gaussian_filter(rng.normal(size=(side, side)).astype(np.float32), 6) * 9000 + 2000
    paths = [folder / f"B{number:02d}.tif" for number in range(files)]
    for path in paths:
        noise = rng.normal(0, 2, (side, side)).astype(np.float32)
        values = np.clip(land + noise, 1, 65535).astype(np.uint16)
        with rasterio.open(
            path, "w", driver="COG", height=side, width=side, count=1, dtype="uint16", crs=f"EPSG:{FIRST.zone.epsg}",
            transform=corner, nodata=0, blocksize=512, compress="deflate", predictor="yes",
            overviews="none",  # the cells ask for full resolution
        ) as file:  # fmt: skip
            file.write(values, 1)
    return paths


def cells_within(side: int) -> list[Cell]:
    """The cells that lie wholly in files of `side` pixels, halo ring included."""
    count = (side - 64) // GRID.cell_core_px
    return [
        Cell(GRID, FIRST.zone, FIRST.row - down, FIRST.column + right)
        for down in range(count)
        for right in range(count)
    ]


def our_reads(cells: Sequence[Cell], paths: Sequence[Path]) -> list[CellRead]:
    """The cells as one observation of one scene."""
    sources = tuple(
        BandSource(band=path.stem, href=str(path), calibration=Calibration(scale=SCALE, nodata=0)) for path in paths
    )
    scene = Scene(
        id="drawn",
        collection="drawn",
        sensor="sentinel-2-l2a",
        datetime=WHEN,
        footprint=b"",
        resolution_m=10.0,
        sources=sources,
    )
    observation = Observation(id="drawn", sensor=scene.sensor, datetime=WHEN, scenes=(scene,))
    return [CellRead.of(cell, observation) for cell in cells]


def stac_item(paths: Sequence[Path]) -> Item:
    """The same files as odc-stac wants them."""
    import pystac
    import rasterio

    with rasterio.open(paths[0]) as file:
        shape, transform, epsg = list(file.shape), list(file.transform)[:6], file.crs.to_epsg()
    ring = [[-180.0, -90.0], [180.0, -90.0], [180.0, 90.0], [-180.0, 90.0], [-180.0, -90.0]]
    item = pystac.Item(
        id="drawn",
        geometry={"type": "Polygon", "coordinates": [ring]},
        bbox=[-180.0, -90.0, 180.0, 90.0],
        datetime=WHEN,
        properties={"proj:epsg": epsg, "proj:shape": shape, "proj:transform": transform},
        stac_extensions=[
            "https://stac-extensions.github.io/projection/v1.1.0/schema.json",
            "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
        ],
    )
    for path in paths:
        band = {"data_type": "uint16", "nodata": 0}
        asset = pystac.Asset(href=str(path), media_type=pystac.MediaType.COG, roles=["data"])
        asset.extra_fields["raster:bands"] = [band]
        item.add_asset(path.stem, asset)
    return item


def read_ours(reads: Sequence[CellRead], *, threads: int) -> list[CellPixels]:
    """Every cell by `read_cell`, from files that are opened anew."""
    close_files()
    with ThreadPoolExecutor(threads) as pool:
        return [read_cell(RasterioReader(), read, pool=pool) for read in reads]


def read_odc(cells: Sequence[Cell], item: Item, *, threads: int, chunk_px: int) -> list[NDArray[np.float32]]:
    """Every cell by odc-stac with dask's threads, scaled to reflectance."""
    import dask
    import odc.stac

    loaded: list[NDArray[np.float32]] = []
    with dask.config.set(scheduler="threads", num_workers=threads):
        for cell in cells:
            chunks: dict[str, Any] = {"x": chunk_px, "y": chunk_px}
            dataset = odc.stac.load([item], geobox=cell.geobox, chunks=chunks).compute()
            stored = np.stack([dataset[name].values[0] for name in dataset.data_vars])
            values = stored.astype(np.float32) * np.float32(SCALE)
            values[stored == 0] = np.nan
            loaded.append(values)
    return loaded


def seconds_of(work: Callable[[], Any]) -> float:
    """How long `work` takes; its result is dropped."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def largest_difference(ours: Sequence[CellPixels], theirs: Sequence[NDArray[np.float32]]) -> float:
    """Between the pixels of both, over all cells."""
    return max(float(np.nanmax(np.abs(a.data - b))) for a, b in zip(ours, theirs, strict=True))


def measure(
    reads: Sequence[CellRead], item: Item, *, rounds: int, threads: int, chunks_px: Sequence[int]
) -> dict[str, Any]:
    """Median seconds of ours and of odc-stac with each size of chunk, alternating, and the pixels' difference."""
    cells = [read.cell for read in reads]
    # Not timed: it imports, warms the disk and checks the pixels.
    difference = largest_difference(
        read_ours(reads, threads=threads), read_odc(cells, item, threads=threads, chunk_px=chunks_px[0])
    )
    ours: list[float] = []
    theirs: dict[int, list[float]] = {chunk: [] for chunk in chunks_px}
    for _ in range(rounds):
        for chunk in chunks_px:
            ours.append(seconds_of(lambda: read_ours(reads, threads=threads)))
            theirs[chunk].append(
                seconds_of(lambda size=chunk: read_odc(cells, item, threads=threads, chunk_px=size))  # type: ignore[misc]
            )
    medians = {chunk: statistics.median(seconds) for chunk, seconds in theirs.items()}
    return {"ours_s": statistics.median(ours), "odc_s": medians, "difference": difference}


def report(figures: dict[str, Any], *, tiles: int, megabytes: float) -> dict[str, Any]:
    """What is printed: tiles per second of both, their ratio by odc-stac's size of chunk, and the difference."""
    return {
        "tiles": tiles,
        "file_mb": round(megabytes, 1),
        "ours_tiles_per_s": round(tiles / figures["ours_s"], 1),
        "odc_tiles_per_s": {str(chunk): round(tiles / seconds, 1) for chunk, seconds in figures["odc_s"].items()},
        "ratio": {str(chunk): round(seconds / figures["ours_s"], 2) for chunk, seconds in figures["odc_s"].items()},
        "max_difference": figures["difference"],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one JSON line; 1 where ours is not twice as fast (tile chunks) or reads other pixels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=16, help="number of COGs, one band each")
    parser.add_argument("--side", type=int, default=3200, help="their side in pixels; a cell needs 1664")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--chunk",
        type=int,
        nargs="+",
        default=[GRID.picture_px, GRID.cell_px],
        help="sides of odc-stac's dask chunks in pixels; the first decides the exit code",
    )
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="earthmap-bench-") as folder:
        paths = draw(Path(folder), files=options.files, side=options.side)
        cells = cells_within(options.side)
        if not cells:
            parser.error("--side is too small for one cell")
        figures = measure(
            our_reads(cells, paths), stac_item(paths), rounds=options.rounds, threads=options.threads,
            chunks_px=options.chunk,
        )  # fmt: skip
        close_files()
        megabytes = sum(path.stat().st_size for path in paths) / 1e6
    result = report(figures, tiles=len(cells) * CELL_TILES**2, megabytes=megabytes)
    print(json.dumps(result))
    return 0 if result["ratio"][str(options.chunk[0])] >= BAR and result["max_difference"] <= 1e-6 else 1


if __name__ == "__main__":
    sys.exit(main())
