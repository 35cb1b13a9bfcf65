"""What a checkpoint answers on real scenes: `python jobs/evaluate_real.py CHECKPOINT ../shared/data --table real.md`.

Every figure stands beside the best constant answer, `spectral` where that can answer, and its 95 % interval: first of
each scene, then of all scenes of a sensor together. With `--write` the latter go into the card as what the checkpoint
may answer. Scenes are compared with and never learned from.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import warnings
from pathlib import Path

from earthmap.errors import EarthmapError
from earthmap.evaluation import GROUPS, Paper, mark, measure_real, open_unjudged, real_tables, write_figures
from earthmap.model import find_checkpoint
from earthmap.predict import SpectralPredictor


def papers(arguments: argparse.Namespace) -> list[Paper]:
    """What was said of all scenes; the time that each took goes to standard error."""
    return measure_real(
        arguments.data,
        model=open_unjudged(arguments.checkpoint, device=arguments.device),
        spectral=SpectralPredictor(),
        names=arguments.groups,
        say=lambda text: print(text, file=sys.stderr),
    )


def main() -> int:
    """Print one JSON object a figure; write table and card where asked to."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", help="a folder, or nano for the one that comes with the package")
    parser.add_argument("data", type=Path, help="the folder of real scenes")
    parser.add_argument("--groups", nargs="+", default=[], metavar="NAME", help=f"some of {', '.join(GROUPS)}")
    parser.add_argument("--device", help="cpu or cuda (default a GPU where there is one)")
    parser.add_argument("--table", type=Path, help="write Markdown tables here")
    parser.add_argument("--write", action="store_true", help="put the figures into the checkpoint's card")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of pictures that lie nowhere on the Earth
    try:
        said = papers(arguments)
        for row in mark(said):
            print(json.dumps({**dataclasses.asdict(row.figure), "bands": row.bands, "dates": row.dates}))
        if arguments.table:
            arguments.table.write_text(real_tables(said), encoding="utf-8")
        if arguments.write:
            write_figures(find_checkpoint(arguments.checkpoint), real=mark(said))
    except EarthmapError as error:
        print(f"evaluate_real: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
