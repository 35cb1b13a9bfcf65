"""How many tiles a second are drawn, measured and asked about: `python jobs/bench_drawn.py`.

128 pixels, all bands of Sentinel-2 L2A, one date, twelve questions, one thread. Seconds are processor time, which other
work on the machine disturbs less than a clock. Bar: 60 tiles a second.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from earthmap.synthetic import ask, draw_tiles, facts_of, measure, plan_tiles

BAR = 60.0
"""Tiles a second."""


def timed(seeds: range, batch: int, device: str) -> dict[str, Any]:
    """Milliseconds a tile of each step, and tiles a second of all."""
    spent = dict.fromkeys(("draw", "measure", "facts", "questions"), 0.0)
    asked = 0
    clock = time.process_time if device == "cpu" else time.perf_counter
    for start in range(0, len(seeds), batch):
        marks = [clock()]
        tiles = draw_tiles(plan_tiles(seeds[start : start + batch]), device=device)
        marks.append(clock())
        measure(tiles, "sentinel-2-l2a")
        marks.append(clock())
        facts = facts_of(tiles)
        marks.append(clock())
        asked += sum(len(ask(one, count=12)) for one in facts)
        marks.append(clock())
        for name, first, last in zip(spent, marks[:-1], marks[1:], strict=True):
            spent[name] += last - first
    steps = {f"{name}_ms": round(1000 * seconds / len(seeds), 2) for name, seconds in spent.items()}
    return {"batch": batch, "tiles_per_s": round(len(seeds) / sum(spent.values()), 1), **steps, "questions": asked}


def main() -> int:
    """Print one JSON object a batch size; 1 where the best is below the bar."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 16, 64])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    timed(range(16), 8, arguments.device)
    found = [timed(range(1000, 1000 + arguments.tiles), batch, arguments.device) for batch in arguments.batches]
    for row in found:
        sys.stdout.write(json.dumps(row) + "\n")
    return 0 if max(row["tiles_per_s"] for row in found) >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
