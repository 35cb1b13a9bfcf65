"""What a checkpoint answers on held-out drawn tiles: `python jobs/evaluate_drawn.py CHECKPOINT --table drawn.md`.

Every figure stands beside the best constant answer, `spectral` where that can answer, and its 95 % interval. With
`--write` the figures go into the card, so that what beats no constant is not asked of the checkpoint any more.

With `--calibrate` it fits the temperatures of the checkpoint's probabilities instead, on one half of other held-out
tiles, and tells what they do on the other half; `--write` puts them into the card.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from earthmap.errors import EarthmapError
from earthmap.evaluation import (
    LOOKS,
    Look,
    Measured,
    calibrate_looks,
    calibration_table,
    measure_looks,
    open_unjudged,
    table,
    write_figures,
)
from earthmap.model import find_checkpoint
from earthmap.model.evidence import Calibration
from earthmap.predict import SpectralPredictor


def measured(arguments: argparse.Namespace) -> list[Measured]:
    """All figures, said on standard error as they come."""
    return measure_looks(
        open_unjudged(arguments.checkpoint, device=arguments.device),
        spectral=SpectralPredictor(),
        looks=_looks(arguments),
        tiles=arguments.tiles,
        written=arguments.written,
        say=lambda text: print(text, file=sys.stderr),
    )


def calibrated(arguments: argparse.Namespace) -> list[Calibration]:
    """All temperatures, said on standard error as they come."""
    return calibrate_looks(
        open_unjudged(arguments.checkpoint, device=arguments.device),
        looks=_looks(arguments),
        tiles=arguments.tiles,
        written=arguments.written,
        say=lambda text: print(text, file=sys.stderr),
    )


def _looks(arguments: argparse.Namespace) -> list[Look]:
    return [look for look in LOOKS if not arguments.sensors or set(look.sensors) <= set(arguments.sensors)]


def _figures(arguments: argparse.Namespace) -> None:
    found = measured(arguments)
    for row in found:
        print(json.dumps({**dataclasses.asdict(row.figure), "dates": row.dates}))
    if arguments.table:
        arguments.table.write_text(table(found), encoding="utf-8")
    if arguments.write:
        write_figures(find_checkpoint(arguments.checkpoint), drawn=found)


def _temperatures(arguments: argparse.Namespace) -> None:
    found = calibrated(arguments)
    for row in found:
        print(json.dumps(dataclasses.asdict(row)))
    if arguments.table:
        arguments.table.write_text(calibration_table(found), encoding="utf-8")
    if arguments.write:
        write_figures(find_checkpoint(arguments.checkpoint), calibrations=found)


def main() -> int:
    """Print one JSON object a figure or temperature; write table and card where asked to."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", help="a folder, or nano for the one that comes with the package")
    parser.add_argument("--tiles", type=int, default=128, help="tiles of each look (default 128)")
    parser.add_argument("--written", type=int, default=24, help="tiles asked for boxes; half for masks (default 24)")
    parser.add_argument("--sensors", nargs="+", help="looks of these sensors only (default all)")
    parser.add_argument("--device", help="cpu or cuda (default a GPU where there is one)")
    parser.add_argument("--table", type=Path, help="write a Markdown table here")
    parser.add_argument("--calibrate", action="store_true", help="fit temperatures instead of measuring figures")
    parser.add_argument("--write", action="store_true", help="put the figures into the checkpoint's card")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        (_temperatures if arguments.calibrate else _figures)(arguments)
    except EarthmapError as error:
        print(f"evaluate_drawn: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
