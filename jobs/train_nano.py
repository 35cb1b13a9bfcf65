"""Train the embedded default `nano` on drawn tiles, in slices that can be stopped and taken up again.

    python jobs/train_nano.py --out runs/nano                       # the whole table
    python jobs/train_nano.py --out runs/nano --minutes 9           # a slice; run again for the next
    python jobs/embed_nano.py runs/nano/step-… --data ../shared/data  # measures it and puts it into the package

Imports neither Ray nor rasterio, on transformers 5.17 and newer. The same table, seed, machine and number of threads
give the same weights, however often it was stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch

from earthmap.model.alignment import AlignmentHeads
from earthmap.model.earth_onevision import EarthOneVision, new_earth_onevision
from earthmap.model.words import nano_words
from earthmap.training import Learned, begin, load_table, save_checkpoint, train
from earthmap.training.ahead import ahead
from earthmap.training.drawn import DrawnRows

STAGES = Path(__file__).parent / "nano_stages.yaml"
TASKS = ("presence", "choose", "classify", "label", "change-type")
"""What `nano` is taught to answer in words; shares of the ground come from its alignment heads."""

QUESTIONS = 4
"""Of a tile: fewer leave time for more tiles, which is what the tower learns from."""

SEED = 20261121
EVERY, SHOWN = 100, 10
"""Steps between checkpoints, and between lines of the log."""


def start() -> tuple[EarthOneVision, AlignmentHeads]:
    """A new `nano`, on a GPU where there is one."""
    model = new_earth_onevision("nano", nano_words(), seed=SEED, device=None)
    torch.manual_seed(SEED)
    width = model.model.config.text_config.hidden_size
    heads = AlignmentHeads(width=width, levels=len(model.model.config.vision_config.deepstack_visual_indexes) + 1)
    return model, heads.to(model.engine.device)


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--stages", type=Path, default=STAGES, help="table of stages (default: nano_stages.yaml)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after these; run again to go on")
    parser.add_argument("--threads", type=int, default=1, help="threads of the step on a processor (default 1)")
    parser.add_argument("--drawers", type=int, default=1, help="processes that draw (default 1)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    end = time.monotonic() + 60.0 * options.minutes
    source = DrawnRows(seed=SEED, questions=QUESTIONS, tasks=TASKS)
    table = load_table(options.stages)
    options.out.mkdir(parents=True, exist_ok=True)
    learner = begin(options.out, table=table, source=source, start=start)
    with ahead(source, workers=options.drawers) as drawn, (options.out / "log.jsonl").open("a") as log:

        def watch(learned: Learned) -> None:
            if learned.step % SHOWN == 0:
                print(
                    f"{learned.step:6} {learned.stage:14} loss {learned.loss:6.3f} answers {learned.answers:6.3f}"
                    f" right {learned.right:.3f} "
                    + " ".join(f"{name} {value:.3f}" for name, value in learned.alignment.items()),
                    flush=True,
                )
            log.write(json.dumps({"time": time.time(), **{k: getattr(learned, k) for k in FIELDS}}) + "\n")
            log.flush()

        train(
            learner,
            drawn,
            save=lambda learner: save_checkpoint(learner, options.out),
            every=EVERY,
            watch=watch,
            until=lambda: time.monotonic() > end,
        )


FIELDS = ("step", "stage", "loss", "answers", "right", "alignment", "tokens", "gradient", "rate")

if __name__ == "__main__":
    main()
