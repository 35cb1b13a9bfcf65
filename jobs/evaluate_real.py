"""What a checkpoint answers on real scenes: `python jobs/evaluate_real.py CHECKPOINT ../shared/data --table real.md`.

Every figure stands beside the best constant answer, `spectral` where that can answer, and its 95 % interval: first of
each scene, then of all scenes of a sensor together. With `--write` the latter go into the card as what the checkpoint
may answer, and beside them how wrong its maps were on each scene. Scenes are compared with and never learned from.

`python jobs/evaluate_real.py spectral ../shared/data --write` measures the thresholds instead of a checkpoint: only how
wrong their maps are, for the table that comes with the package.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from earthmap.errors import EarthmapError
from earthmap.evaluation import (
    GROUPS,
    Measured,
    headline,
    mark,
    measure_errors,
    measure_real,
    open_unjudged,
    real_scenes,
    real_tables,
    write_figures,
)
from earthmap.model import Card, find_checkpoint
from earthmap.model.evidence import SceneErrors
from earthmap.predict import Predictor, SpectralPredictor
from earthmap.predict.held_out import SPECTRAL_ERRORS, write_errors

MADE = "python jobs/evaluate_real.py spectral ../shared/data --write"
"""What writes the table of `spectral`."""


def errors_of(model: Predictor, arguments: argparse.Namespace, figures: Sequence[Measured] | None) -> list[SceneErrors]:
    """How wrong maps are, of the sensors that these figures let it map; None for all."""
    scenes = list(real_scenes(arguments.data, arguments.groups or tuple(GROUPS)))
    if figures is None:
        return measure_errors(scenes, model=model)
    card = Card(answers=headline(figures))
    sensors = {picture.sensor for scene in scenes for item in scene.items for picture in item.pictures}
    return measure_errors(scenes, model=model, sensors={one for one in sensors if card.supports("segment", one)})


def measure_thresholds(arguments: argparse.Namespace) -> None:
    """Print the error matrices of `spectral`; put them into the package where asked to."""
    spectral = SpectralPredictor()
    found = errors_of(spectral, arguments, None)
    for one in found:
        print(json.dumps(dataclasses.asdict(one)))
    if arguments.write:
        write_errors(SPECTRAL_ERRORS, predictor="spectral", key=spectral.key, made=MADE, scenes=found)


def measure_checkpoint(arguments: argparse.Namespace) -> None:
    """Print the figures and error matrices of a checkpoint; the time that each scene took goes to standard error."""
    model = open_unjudged(arguments.checkpoint, device=arguments.device)
    said = measure_real(
        arguments.data,
        model=model,
        spectral=SpectralPredictor(),
        names=arguments.groups,
        say=lambda text: print(text, file=sys.stderr),
    )
    found = mark(said)
    errors = errors_of(model, arguments, found)
    for row in found:
        print(json.dumps({**dataclasses.asdict(row.figure), "bands": row.bands, "dates": row.dates}))
    for one in errors:
        print(json.dumps(dataclasses.asdict(one)))
    if arguments.table:
        arguments.table.write_text(real_tables(said), encoding="utf-8")
    if arguments.write:
        write_figures(find_checkpoint(arguments.checkpoint), real=found, errors=errors)


def main() -> int:
    """Print one JSON object a figure or error matrix; write table and card where asked to."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", help="a folder, nano for the one that comes with the package, or spectral")
    parser.add_argument("data", type=Path, help="the folder of real scenes")
    parser.add_argument("--groups", nargs="+", default=[], metavar="NAME", help=f"some of {', '.join(GROUPS)}")
    parser.add_argument("--device", help="cpu or cuda (default a GPU where there is one)")
    parser.add_argument("--table", type=Path, help="write Markdown tables here")
    parser.add_argument("--write", action="store_true", help="put the figures into the checkpoint's card")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of pictures that lie nowhere on the Earth
    try:
        (measure_thresholds if arguments.checkpoint == "spectral" else measure_checkpoint)(arguments)
    except EarthmapError as error:
        print(f"evaluate_real: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
