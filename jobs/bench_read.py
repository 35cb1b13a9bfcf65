"""Reading, ours against async-geotiff with obstore and odc-stac with dask: the same files, the same pixels, in one run.

    python jobs/bench_read.py                 # draws 8 COGs (about 90 MB) in a temporary folder
    python jobs/bench_read.py --side 5120 --files 16 --rounds 5

The files are one scene of as many bands: on this disk, and over a server of the loopback that answers at once, after
50 ms, and after 50 ms with 5 % of the answers a 503 or a reset connection. Each cell (16 tiles of 448 pixels) is read
whole, with its halo ring, all bands, calibrated to reflectance; nobody writes. odc-stac is measured with chunks of a
tile, which is what is asked about, and with one chunk for a whole cell, which is the best that it can be given here.
Rounds go through all readers in turn, each on files opened anew under addresses that nothing has cached; medians are
compared, and the pixels of every read are those of every other. Where faults are injected another reader may give up:
its rounds are counted as lost, and ours must not lose any. The server is a process of its own on the same cores: its
processor time is shown.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.catalog.scene import BandSource, Observation, Scene
from earthmap.cube import (
    Budget,
    CellRead,
    Patience,
    PatientReader,
    RasterioReader,
    Spent,
    close_files,
    read_cell,
)
from earthmap.grid.tiling import CELL_TILES, Cell, Grid, Zone
from earthmap.pipeline.reading import READ_THREADS
from earthmap.sensors.calibration import Calibration

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pystac import Item

WHEN = datetime.datetime(2024, 6, 1, 10, 30, tzinfo=datetime.UTC)
GRID = Grid(resolution_m=10.0)
FIRST = Cell(GRID, Zone(31, True), 300, 14)
SCALE = 1e-4
BAR = 2.0

Row = dict[str, Any]
Pixels = list["NDArray[np.float32]"]
"""Of each cell, (band, y, x)."""


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


def our_reads(cells: Sequence[Cell], addresses: Sequence[str]) -> list[CellRead]:
    """The cells as one observation of one scene."""
    sources = tuple(
        BandSource(band=Path(one).stem, href=one, calibration=Calibration(scale=SCALE, nodata=0)) for one in addresses
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


def stac_item(addresses: Sequence[str], local: Path) -> Item:
    """The same files as odc-stac wants them; `local` is one of them on the disk."""
    import pystac
    import rasterio

    with rasterio.open(local) as file:
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
    for one in addresses:
        band = {"data_type": "uint16", "nodata": 0}
        asset = pystac.Asset(href=one, media_type=pystac.MediaType.COG, roles=["data"])
        asset.extra_fields["raster:bands"] = [band]
        item.add_asset(Path(one).stem, asset)
    return item


def read_ours(cells: Sequence[Cell], addresses: Sequence[str], *, threads: int) -> Pixels:
    """Every cell by `read_cell`, from files that are opened anew; what is refused is asked for again."""
    close_files()
    reader = PatientReader(reader=RasterioReader(), budget=Budget(Patience(), Spent()))
    with ThreadPoolExecutor(threads) as pool:
        read = [read_cell(reader, one, pool=pool) for one in our_reads(cells, addresses)]
    lost = [failure.message for cell in read for failure in cell.failures]
    if lost:
        raise RuntimeError(f"{len(lost)} tiles were not read: {lost[0]}")
    return [cell.data for cell in read]


def read_async(cells: Sequence[Cell], addresses: Sequence[str]) -> Pixels:
    """Every cell by async-geotiff and obstore, the bands of a cell at the same time."""
    return asyncio.run(_read_async(cells, addresses))


async def _read_async(cells: Sequence[Cell], addresses: Sequence[str]) -> Pixels:
    from async_geotiff import GeoTIFF, Window
    from obstore.store import from_url

    folder = addresses[0].rpartition("/")[0]
    store = from_url(folder if "://" in folder else f"file://{folder}", **_http_options(folder))
    opened = await asyncio.gather(*(GeoTIFF.open(one.rpartition("/")[2], store=store) for one in addresses))
    loaded = []
    for cell in cells:
        box, first = cell.geobox, opened[0].transform
        left, top = round((box.affine.c - first.c) / first.a), round((box.affine.f - first.f) / first.e)
        window = Window(col_off=left, row_off=top, width=box.shape[1], height=box.shape[0])
        stored = np.stack(
            [(await one).data[0] for one in [asyncio.ensure_future(f.read(window=window)) for f in opened]]
        )
        loaded.append(_reflectance(stored))
    return loaded


def _http_options(folder: str) -> dict[str, Any]:
    return {"client_options": {"allow_http": True}} if "://" in folder else {}


def _reflectance(stored: NDArray[np.uint16]) -> NDArray[np.float32]:
    values = stored.astype(np.float32) * np.float32(SCALE)
    values[stored == 0] = np.nan
    return values


def read_odc(cells: Sequence[Cell], addresses: Sequence[str], *, local: Path, threads: int, chunk_px: int) -> Pixels:
    """Every cell by odc-stac with dask's threads, scaled to reflectance; GDAL asks again what is refused."""
    import dask
    import odc.stac

    odc.stac.configure_rio(cloud_defaults=True, GDAL_HTTP_MAX_RETRY="10", GDAL_HTTP_RETRY_DELAY="0.3")
    item = stac_item(addresses, local)
    loaded: Pixels = []
    with dask.config.set(scheduler="threads", num_workers=threads):
        for cell in cells:
            chunks: dict[str, Any] = {"x": chunk_px, "y": chunk_px}
            dataset = odc.stac.load([item], geobox=cell.geobox, chunks=chunks).compute()
            loaded.append(_reflectance(np.stack([dataset[name].values[0] for name in dataset.data_vars])))
    return loaded


# ── measuring ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the files are read from."""

    name: str
    delay_s: float | None = None
    """Before each answer; None for the disk."""
    faults: float = 0.0


PLACES = (
    Place(name="disk"),
    Place(name="http", delay_s=0.0),
    Place(name="http, 50 ms", delay_s=0.05),
    Place(name="http, 50 ms, 5 % faults", delay_s=0.05, faults=0.05),
)


@contextlib.contextmanager
def served(folder: Path, place: Place) -> Iterator[tuple[str, Callable[[], float]]]:
    """The address of `folder` at `place`, and what its server has computed so far in processor seconds."""
    if place.delay_s is None:
        yield str(folder), lambda: 0.0
        return
    script = str(Path(__file__).with_name("range_server.py"))
    options = [str(folder), "--delay", str(place.delay_s), "--faults", str(place.faults)]
    command = [sys.executable, script, *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        port = server.stdout.readline().strip() if server.stdout else ""
        stat = Path(f"/proc/{server.pid}/stat")

        def computed() -> float:
            user, system = stat.read_text().rsplit(")", 1)[1].split()[11:13]
            return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

        try:
            yield f"http://127.0.0.1:{port}", computed
        finally:
            server.terminate()


def readers(
    place: Place, paths: Sequence[Path], threads: int
) -> dict[str, Callable[[Sequence[Cell], Sequence[str]], Pixels]]:
    """Who is measured at `place`, by name; ours first as a run reads. More threads than bands would all be the same."""
    far, local = place.delay_s is not None, paths[0]
    counts = [READ_THREADS, *(count for count in (4, 16, 32) if count <= len(paths))] if far else [threads]
    ours = {f"ours, {count} threads": partial(read_ours, threads=count) for count in counts}
    odc = partial(read_odc, local=local, threads=16 if far else threads)
    return {
        **ours,
        "async-geotiff": read_async,
        "odc-stac": partial(odc, chunk_px=GRID.picture_px),
        "odc-stac, whole cells": partial(odc, chunk_px=GRID.cell_px),
    }


def measure(place: Place, paths: Sequence[Path], cells: Sequence[Cell], *, rounds: int, threads: int) -> list[Row]:
    """Medians of every reader at `place`. Raises RuntimeError where one reads other pixels."""
    sums: dict[str, list[float]] = {}
    seconds: dict[str, list[tuple[float, float, float]]] = {}
    lost: Counter[str] = Counter()
    with served(paths[0].parent, place) as (base, computed):
        for turn in range(rounds + 1):
            for name, read in readers(place, paths, threads).items():
                folder = base if place.delay_s is None else f"{base}/{name.replace(', ', '-').replace(' ', '-')}{turn}"
                addresses = [f"{folder}/{path.name}" for path in paths]
                start, used, server = time.perf_counter(), time.process_time(), computed()
                try:
                    pixels = read(cells, addresses)
                except Exception:
                    if not place.faults or name.startswith("ours"):
                        raise
                    lost[name] += 1
                    continue
                spent = (time.perf_counter() - start, time.process_time() - used, computed() - server)
                sums.setdefault(name, [zlib.crc32(cell.tobytes()) for cell in pixels])
                if turn:  # the first imports and warms the disk
                    seconds.setdefault(name, []).append(spent)
    if len({tuple(one) for one in sums.values()}) != 1:
        raise RuntimeError(f"at {place.name} not all read the same pixels: {sums}")
    tiles = len(cells) * CELL_TILES**2
    return [_row(place, name, tiles, spent, lost=lost[name]) for name, spent in seconds.items()]


def _row(place: Place, name: str, tiles: int, spent: Sequence[tuple[float, float, float]], *, lost: int) -> Row:
    wall, used, server = (statistics.median(column) for column in zip(*spent, strict=True))
    return {
        "place": place.name,
        "reader": name,
        "tiles_per_s": round(tiles / wall, 1),
        "tiles_per_cpu_s": round(tiles / used, 1),
        "server_cpu": round(server / wall, 2),
        "rounds_lost": lost,
    }


def table(rows: Sequence[Row]) -> str:
    """The rows for people."""
    lines = [
        "| files | reader | tiles/s | tiles per CPU-second | cores of the server | rounds lost |",
        "| --- " * 6 + "|",
    ]
    lines += ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in rows]
    return "\n".join(lines)


def ratios(rows: Sequence[Row]) -> dict[str, float]:
    """How many times the tiles per second of odc-stac (chunks of a tile) ours are, as a run reads, by place.

    The best of several counts of threads would flatter: their differences are as large as the noise.
    """
    ours: dict[str, float] = {}
    theirs = {row["place"]: row["tiles_per_s"] for row in rows if row["reader"] == "odc-stac"}
    for row in rows:  # a place where odc-stac lost every round has no ratio
        if row["reader"].startswith("ours") and row["place"] in theirs:
            ours.setdefault(row["place"], row["tiles_per_s"])
    return {place: round(value / theirs[place], 2) for place, value in ours.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table and one JSON line; 1 where ours is not twice as fast as odc-stac somewhere."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=8, help="number of COGs, one band each")
    parser.add_argument("--side", type=int, default=3200, help="their side in pixels; a cell needs 1664")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of those who read from the disk")
    options = parser.parse_args(arguments)
    cells = cells_within(options.side)
    if not cells:
        parser.error("--side is too small for one cell")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="earthmap-bench-") as folder:
        paths = draw(Path(folder), files=options.files, side=options.side)
        for place in PLACES:
            rows += measure(place, paths, cells, rounds=options.rounds, threads=options.threads)
            print(table(rows), file=sys.stderr, flush=True)
        close_files()
    found = ratios(rows)
    print(table(rows))
    print(json.dumps({"tiles": len(cells) * CELL_TILES**2, "rows": rows, "ratio": found}))
    return 0 if min(found.values()) >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
