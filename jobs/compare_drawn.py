"""How drawn pixels lie beside real ones, by class and band: `python jobs/compare_drawn.py ../shared/data`.

Only where a real scene has a label: water and land of a flood (Sentinel-2 L1C, Sentinel-1), a desert (Sentinel-2 L2A),
land cover of Slovenia (Sentinel-2 L1C). Real pixels are compared with, never learned from. A row says which share of
the real numbers lies between the 1st and 99th percentile of the drawn ones, and the medians of both.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.sensors.bands import FAMILIES, OPTICAL_BANDS
from earthmap.synthetic import CLASSES, draw_tiles, measure, plan_tiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from earthmap.synthetic import Pictures, Tiles

LULC = {"vegetation": (1, 2, 3), "water": (5,), "built-up": (8,)}
"""Codes of the Slovenian map: cultivated, forest and grassland; water; artificial."""

Sample = tuple[str, str, str, "NDArray[np.float32]"]
"""Sensor, class, band, real numbers."""


def read(path: Path) -> NDArray[np.float32]:
    """(band, y, x) as stored."""
    import rasterio

    with rasterio.open(path) as file:
        data: NDArray[np.float32] = file.read().astype(np.float32)
    return data


def flood(data: Path) -> Iterator[Sample]:
    """Water and other ground of the hand-labelled flood."""
    folder = data / "04_sen1floods11"
    label = read(folder / "Labels" / "Spain_7370579_LabelHand_west.tif")[0]
    light = read(folder / "S2" / "Spain_7370579_S2Hand_west.tif") / 10_000.0
    radar = read(folder / "S1" / "Spain_7370579_S1Hand_west.tif")
    for name, there in (("water", label == 1), ("land", label == 0)):
        for band, plane in zip(OPTICAL_BANDS, light, strict=True):
            yield "sentinel-2-l1c", name, band, plane[there]
        for band, plane in zip(("vv", "vh"), radar, strict=True):
            yield "sentinel-1-rtc", name, band, plane[there & np.isfinite(plane)]


def desert(data: Path) -> Iterator[Sample]:
    """The clear ground of the Sahara scene; all of it is bare."""
    (folder,) = (data / "02_sentinel2_scene").glob("S2A_*")
    bare = read(folder / "SCL.tif")[0] == 5
    for number, band in FAMILIES["sentinel-2"].items():
        path = folder / f"B{number[1:].upper().zfill(2)}.tif"
        plane = read(path)[0] / 10_000.0 if path.is_file() else bare[:0]
        if plane.shape == bare.shape:
            yield "sentinel-2-l2a", "bare", band, plane[bare]


def slovenia(data: Path) -> Iterator[Sample]:
    """Mapped land cover on the clear dates."""
    folder = data / "10_eolearn_s2_patch"
    scenes = np.load(folder / "REFERENCE_SCENES.npy")[2:]
    cover = np.load(folder / "TestEOPatch" / "mask_timeless" / "LULC.npy")[..., 0]
    for name, codes in LULC.items():
        there = np.isin(cover, codes)
        for number, band in enumerate(OPTICAL_BANDS):
            yield "sentinel-2-l1c", name, band, scenes[..., number][:, there].ravel()


def drawn_numbers(pictures: Pictures, tiles: Tiles, name: str, band: str) -> NDArray[np.float32]:
    """The clear drawn pixels of a class in a band; radar in decibels."""
    sky = tiles.sky
    clear = (sky.cloud == 0) & (sky.shade == 0) & (sky.cirrus == 0) & ~sky.beyond
    wanted = tiles.cover != 1 if name == "land" else tiles.cover == CLASSES.index(name) + 1
    numbers: NDArray[np.float32] = pictures.data[:, :, pictures.bands.index(band)][clear & wanted].numpy()
    return np.asarray(10.0 * np.log10(numbers), np.float32) if pictures.sensor.startswith("sentinel-1") else numbers


def rows(data: Path, tiles: Tiles) -> Iterator[dict[str, Any]]:
    """One row for each source, class and band."""
    measured: dict[str, Pictures] = {}
    for source in (flood, desert, slovenia):
        for sensor, name, band, real in source(data):
            if real.size < 100:
                continue
            if sensor not in measured:
                measured[sensor] = measure(tiles, sensor)
            drawn = drawn_numbers(measured[sensor], tiles, name, band)
            low, high = np.percentile(drawn, (1, 99))
            yield {
                "source": source.__name__,
                "sensor": sensor,
                "class": name,
                "band": band,
                "real": [round(float(value), 3) for value in np.percentile(real, (5, 50, 95))],
                "drawn": [round(float(value), 3) for value in np.percentile(drawn, (5, 50, 95))],
                "inside": round(float(((real >= low) & (real <= high)).mean()), 3),
            }


def main() -> int:
    """Print one JSON object a row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="the folder of real scenes")
    parser.add_argument("--tiles", type=int, default=128, help="drawn tiles to compare with")
    arguments = parser.parse_args()
    tiles = draw_tiles(plan_tiles(range(arguments.tiles)))
    for row in rows(arguments.data, tiles):
        sys.stdout.write(json.dumps(row) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
