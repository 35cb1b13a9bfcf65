"""What a checkpoint answers on held-out drawn tiles: `python jobs/evaluate_drawn.py CHECKPOINT --table drawn.md`.

Every figure stands beside the best constant answer, `spectral` where that can answer, and its 95 % interval. With
`--write` the figures go into the card, so that what beats no constant is not asked of the checkpoint any more.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

from earthmap.errors import EarthmapError
from earthmap.evaluation import LOOKS, Measured, measure_drawn, table, write_figures
from earthmap.model import load_earth_onevision
from earthmap.predict import SpectralPredictor
from earthmap.predict.vlm import VlmPredictor


def measured(arguments: argparse.Namespace) -> list[Measured]:
    """All figures, said on standard error as they come."""
    model = load_earth_onevision(arguments.checkpoint, device=arguments.device)
    model.card = dataclasses.replace(model.card, answers=(), drawn=())  # what it may not answer is measured too
    vlm, found = VlmPredictor(model), []
    for look in LOOKS:
        if arguments.sensors and not set(look.sensors) <= set(arguments.sensors):
            continue
        start = time.perf_counter()
        found += measure_drawn(
            look, model=vlm, spectral=SpectralPredictor(), tiles=arguments.tiles, written=arguments.written
        )
        took = time.perf_counter() - start
        sys.stderr.write(f"{look.modality} {'+'.join(look.sensors)} × {look.dates}: {took:.0f} s\n")
    return found


def main() -> int:
    """Print one JSON object a figure; write table and card where asked to."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--tiles", type=int, default=128, help="tiles of each look (default 128)")
    parser.add_argument(
        "--written", type=int, default=24, help="tiles asked for boxes or masks; half for each class (default 24)"
    )
    parser.add_argument("--sensors", nargs="+", help="looks of these sensors only (default all)")
    parser.add_argument("--device", help="cpu or cuda (default a GPU where there is one)")
    parser.add_argument("--table", type=Path, help="write a Markdown table here")
    parser.add_argument("--write", action="store_true", help="put the figures into the checkpoint's card")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        found = measured(arguments)
        for row in found:
            sys.stdout.write(json.dumps({**dataclasses.asdict(row.figure), "dates": row.dates}) + "\n")
        if arguments.table:
            arguments.table.write_text(table(found), encoding="utf-8")
        if arguments.write:
            write_figures(Path(arguments.checkpoint), drawn=found)
    except EarthmapError as error:
        sys.stderr.write(f"evaluate_drawn: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
