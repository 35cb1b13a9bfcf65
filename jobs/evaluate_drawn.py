"""What a checkpoint answers on held-out drawn tiles: `python jobs/evaluate_drawn.py CHECKPOINT --table drawn.md`.

Every figure stands beside the best constant answer, `spectral` where that can answer, and its 95 % interval. With
`--write` the figures go into the card, so that what beats no constant is not asked of the checkpoint any more.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from earthmap.errors import EarthmapError
from earthmap.evaluation import LOOKS, Measured, measure_looks, open_unjudged, table, write_figures
from earthmap.model import find_checkpoint
from earthmap.predict import SpectralPredictor


def measured(arguments: argparse.Namespace) -> list[Measured]:
    """All figures, said on standard error as they come."""
    return measure_looks(
        open_unjudged(arguments.checkpoint, device=arguments.device),
        spectral=SpectralPredictor(),
        looks=[look for look in LOOKS if not arguments.sensors or set(look.sensors) <= set(arguments.sensors)],
        tiles=arguments.tiles,
        written=arguments.written,
        say=lambda text: print(text, file=sys.stderr),
    )


def main() -> int:
    """Print one JSON object a figure; write table and card where asked to."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", help="a folder, or nano for the one that comes with the package")
    parser.add_argument("--tiles", type=int, default=128, help="tiles of each look (default 128)")
    parser.add_argument("--written", type=int, default=24, help="tiles asked for boxes; half for masks (default 24)")
    parser.add_argument("--sensors", nargs="+", help="looks of these sensors only (default all)")
    parser.add_argument("--device", help="cpu or cuda (default a GPU where there is one)")
    parser.add_argument("--table", type=Path, help="write a Markdown table here")
    parser.add_argument("--write", action="store_true", help="put the figures into the checkpoint's card")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        found = measured(arguments)
        for row in found:
            print(json.dumps({**dataclasses.asdict(row.figure), "dates": row.dates}))
        if arguments.table:
            arguments.table.write_text(table(found), encoding="utf-8")
        if arguments.write:
            write_figures(find_checkpoint(arguments.checkpoint), drawn=found)
    except EarthmapError as error:
        print(f"evaluate_drawn: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
