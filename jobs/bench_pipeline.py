"""A run from end to end at 10, 100 and 1,000 cells: does memory stay flat, and where does the time go?

    python jobs/bench_pipeline.py                  # minutes on two cores
    python jobs/bench_pipeline.py --cells 10 100

A drawn valley is mapped by the oracle, each size by an `earthmap map` of its own, in pictures of 128 pixels. Memory is
what the kernel calls the peak of a process's resident set (VmHWM), of the driver and of the largest worker; time is
what the run itself says in `run.json`. Exit code 1 where a process of a run of 10 times the cells peaks more than 15 %
higher, or where more than 15 % of the workers' time in the largest run went into neither reading nor predicting.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CELL_M = 4480.0
"""Side of a cell: 4 × 4 tiles of 112 owned pixels of 10 m."""

SCENE_M = 50.0
"""Pixels of the scenes: coarse, so that they are drawn quickly; a cell is read and asked at 10 m."""

FLAT = 1.15
OTHER = 0.15
EVERY_S = 0.5


@dataclass
class Peaks:
    """Peak resident memory in MB, by process, of a command and all that it started."""

    driver: int
    by_process: dict[int, float] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        """Note peaks until told to stop."""
        while not self._stop.wait(EVERY_S):
            for pid in _family(self.driver):
                with contextlib.suppress(OSError, StopIteration):
                    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                    peak = next(line for line in lines if line.startswith("VmHWM"))
                    self.by_process[pid] = int(peak.split()[1]) / 1024
                    self.names[pid] = Path(f"/proc/{pid}/cmdline").read_text(errors="replace")

    def stop(self) -> None:
        """No more."""
        self._stop.set()

    @property
    def worker(self) -> float:
        """Of the largest process that worked on a cell."""
        return max((mb for pid, mb in self.by_process.items() if self.names[pid].startswith("ray::")), default=0.0)


def _family(pid: int) -> set[int]:
    """`pid` and everything that descends from it."""
    parents = {}
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit():
                parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
    found, before = {pid}, set[int]()
    while found != before:
        before = set(found)
        found |= {child for child, parent in parents.items() if parent in before}
    return found


def draw(folder: Path, *, cells: int) -> tuple[Any, Path]:
    """A world a little larger than a square of `cells` cells, and its catalogue."""
    from earthmap.synthetic import World, write_world

    west, south, side = 420_000.0, 5_000_000.0, (cells**0.5 + 2) * CELL_M // 300 * 300
    world = World(
        seed=3,
        epsg=32631,
        bounds=(west, south, west + side, south + side),
        before=datetime.datetime(2024, 5, 1, 10, 30, tzinfo=datetime.UTC),
        after=datetime.datetime(2024, 5, 11, 10, 30, tzinfo=datetime.UTC),
        resolution_m=SCENE_M,
        cloud_share=0.0,
    )
    return world, write_world(world, folder, sensors=("rgb",), columns=1)


def job_of(world: Any, catalog: Path, out: Path, *, cells: int) -> dict[str, Any]:
    """A job of about `cells` cells (whole rows of them) in the middle of `world`."""
    import shapely

    from earthmap.grid import AreaOfInterest

    down = max(1, int(cells**0.5))
    across = round(cells / down)
    west, south = (int(edge // CELL_M + 1) * CELL_M for edge in world.bounds[:2])
    box = shapely.box(west + 30, south + 30, west + across * CELL_M - 30, south + down * CELL_M - 30)
    return {
        "area": AreaOfInterest.from_geometry(box, f"EPSG:{world.epsg}").to_geojson(),
        "catalog": str(catalog),
        "collections": ["drawn-aerial"],
        "queries": ["Where is water?"],
        "predictor": "oracle",
        "resolution": 10.0,
        "scenes": "latest",
        "tile_size": 128,
        "out": str(out),
    }


def measure(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run `job` as a command of its own: its record and its peaks. Raises RuntimeError where it fails."""
    path, out = folder / "job.json", Path(job["out"])
    path.write_text(json.dumps(job))
    started = time.monotonic()
    command = [sys.executable, "-m", "earthmap.cli", "map", str(path), "--quiet"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        peaks = Peaks(running.pid)
        watcher = threading.Thread(target=peaks.watch)
        watcher.start()
        try:
            _, said = running.communicate()
        finally:
            peaks.stop()
            watcher.join()
    if running.returncode:
        raise RuntimeError(f"the run ended with {running.returncode}: {said}")
    record = json.loads((out / "run.json").read_bytes())
    summary = json.loads((out / "summary.json").read_bytes())
    return {
        "cells": record["parts"]["computed"],
        "tiles": summary["planned"],
        "wall_s": round(time.monotonic() - started, 1),
        "seconds": record["seconds"],
        "shares": record["shares"],
        "worker_seconds": record["worker_seconds"],
        "publish_seconds": record["publish_seconds"],
        "driver_mb": round(peaks.by_process[running.pid], 1),
        "worker_mb": round(peaks.worker, 1),
    }


def growth(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, float]]:
    """How much higher each kind of process peaks in each run than in the one before."""
    for smaller, larger in itertools.pairwise(rows):
        for kind in ("driver", "worker"):
            yield f"{kind} {smaller['cells']} to {larger['cells']}", larger[f"{kind}_mb"] / smaller[f"{kind}_mb"]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows for people."""
    names = ("cells", "tiles", "seconds", "read", "predict", "merge", "other", "publishing: join + classes + pages, s")
    lines = [f"| {' | '.join(names)} | driver, MB | worker, MB |", "|---" * (len(names) + 2) + "|"]
    for row in rows:
        shares = " | ".join(f"{row['shares'][name]:.0%}" for name in ("read", "predict", "merge", "other"))
        steps = " + ".join(f"{row['publish_seconds'][name]:.1f}" for name in ("join", "classes", "pages"))
        lines.append(
            f"| {row['cells']} | {row['tiles']} | {row['wall_s']:.0f} | {shares} "
            f"| {steps} | {row['driver_mb']:.0f} | {row['worker_mb']:.0f} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table and one JSON line; 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="+", default=[10, 100, 1000])
    options = parser.parse_args(arguments)
    rows = []
    with tempfile.TemporaryDirectory(prefix="earthmap-bench-") as scratch:
        folder = Path(scratch)
        world, catalog = draw(folder / "scenes", cells=max(options.cells))
        for cells in sorted(options.cells):
            rows.append(measure(job_of(world, catalog, folder / str(cells), cells=cells), folder))
            print(table(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    grown = {name: round(ratio, 3) for name, ratio in growth(rows)}
    outside = 1.0 - rows[-1]["shares"]["read"] - rows[-1]["shares"]["predict"]
    flat = all(ratio <= FLAT for ratio in grown.values())
    print(table(rows))
    print(json.dumps({"runs": rows, "growth": grown, "outside": round(outside, 4), "flat": flat}))
    return 0 if flat and outside <= OTHER else 1


if __name__ == "__main__":
    sys.exit(main())
