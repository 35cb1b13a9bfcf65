"""How long a plan of a million tiles takes, and how much memory: `python jobs/bench_plan.py`.

The area is a square in central Africa across two UTM zones; the catalogue is in memory: footprints of Sentinel-2's
size and spacing on several dates. Bars: under 60 s, under 4 GB.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from typing import Any

from earthmap.catalog import MemoryCatalog
from earthmap.pipeline import make_plan, parse_job


def item(west: float, south: float, side: float, day: int) -> dict[str, Any]:
    """A Sentinel-2 L2A item over a square of `side` degrees."""
    ring = [[west, south], [west + side, south], [west + side, south + side], [west, south + side], [west, south]]
    bands = {"B03": ("green", 0.56), "B08": ("nir", 0.842), "B11": ("swir16", 1.61)}
    name = f"S2A_{west:+.1f}{south:+.1f}_{day:02d}"
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": "sentinel-2-l2a",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [west, south, west + side, south + side],
        "properties": {
            "datetime": f"2024-06-{day:02d}T09:00:{int(abs(west) * 10) % 60:02d}Z",
            "platform": "sentinel-2a",
            "instruments": ["msi"],
            "eo:cloud_cover": (day * 7 + int(west * 10)) % 60,
            "gsd": 10,
            "s2:processing_baseline": "05.10",
            "s2:product_type": "S2MSI2A",
        },
        "links": [],
        "assets": {
            key: {
                "href": f"https://example.invalid/{name}/{key}.tif",
                "type": "image/tiff; application=geotiff; profile=cloud-optimized",
                "gsd": 10,
                "roles": ["data", "reflectance"],
                "eo:bands": [{"name": key, "common_name": common, "center_wavelength": wavelength}],
                "raster:bands": [{"scale": 0.0001, "offset": -0.1, "nodata": 0}],
            }
            for key, (common, wavelength) in bands.items()
        },
    }


def main() -> int:
    """Print one JSON line with the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--degrees", type=float, default=34.6, help="side of the area; 34.6 is about a million tiles")
    parser.add_argument("--dates", type=int, default=3)
    arguments = parser.parse_args()
    side, west, south = arguments.degrees, 6.0, -arguments.degrees / 2
    count = int(side) + 2
    items = [
        item(west - 0.5 + column * 0.9, south - 0.5 + row * 0.9, 1.0, 3 + 5 * date)
        for column in range(int(count / 0.9))
        for row in range(int(count / 0.9))
        for date in range(arguments.dates)
    ]
    job = parse_job(
        {
            "area": [west, south, west + side, south + side],
            "catalog": "memory",
            "queries": ["Where is water?"],
            "max_tiles": 10_000_000,
            "out": "unused",
        }
    )
    started = time.perf_counter()
    plan = make_plan(job, MemoryCatalog(items, address="memory"))
    took = time.perf_counter() - started
    figures = {
        "tiles": plan.tiles,
        "cells": plan.cells,
        "scenes": len(items),
        "seconds": round(took, 1),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0 if took < 60 and figures["peak_gb"] < 4 else 1


if __name__ == "__main__":
    sys.exit(main())
