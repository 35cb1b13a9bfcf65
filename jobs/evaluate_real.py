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
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from earthmap.errors import EarthmapError
from earthmap.evaluation import GROUPS, Paper, mark, measure_scene, real_scenes, table, write_figures
from earthmap.model import load_earth_onevision
from earthmap.predict import SpectralPredictor
from earthmap.predict.vlm import VlmPredictor


def papers(arguments: argparse.Namespace) -> list[Paper]:
    """What was said of all scenes; the time that each took goes to standard error."""
    model = load_earth_onevision(arguments.checkpoint, device=arguments.device)
    model.card = dataclasses.replace(model.card, answers=(), drawn=())  # what it may not answer is measured too
    vlm, spectral, found = VlmPredictor(model), SpectralPredictor(), []
    for scene in real_scenes(arguments.data, arguments.groups):
        start = time.perf_counter()
        found += measure_scene(scene, model=vlm, spectral=spectral)
        sys.stderr.write(f"{scene.name}: {len(scene.items)} tiles in {time.perf_counter() - start:.0f} s\n")
    return found


def tables(said: Sequence[Paper]) -> str:
    """Both tables in Markdown."""
    names = dict.fromkeys(paper.data for paper in said)
    each = [row for name in names for row in mark([paper for paper in said if paper.data == name])]
    return f"## Scene by scene\n\n{table(each)}\n## All scenes of a sensor\n\n{table(mark(said))}"


def main() -> int:
    """Print one JSON object a figure; write table and card where asked to."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("data", type=Path, help="the folder of real scenes")
    parser.add_argument(
        "--groups", nargs="+", default=list(GROUPS), metavar="NAME", help=f"some of {', '.join(GROUPS)}"
    )
    parser.add_argument("--device", help="cpu or cuda (default a GPU where there is one)")
    parser.add_argument("--table", type=Path, help="write Markdown tables here")
    parser.add_argument("--write", action="store_true", help="put the figures into the checkpoint's card")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of pictures that lie nowhere on the Earth
    try:
        said = papers(arguments)
        together = mark(said)
        for row in together:
            sys.stdout.write(json.dumps({**dataclasses.asdict(row.figure), "dates": row.dates}) + "\n")
        if arguments.table:
            arguments.table.write_text(tables(said), encoding="utf-8")
        if arguments.write:
            write_figures(Path(arguments.checkpoint), real=together)
    except EarthmapError as error:
        sys.stderr.write(f"evaluate_real: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
