"""Does staging matter? Staged against mixed from the start, and alignment on against off, at equal steps and data.

    python jobs/compare_pcma.py --out runs/compare                  # overnight on two cores, an hour on a GPU
    python jobs/compare_pcma.py --out runs/compare --minutes 9      # a slice; run again for the next

Each arm and seed is a training in a folder of its own; one that was stopped, or killed, goes on from its last
checkpoint. When all are done the table is printed and put into docs/does-staging-matter.md, which says how it is made.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent))

from earthmap.content import content_key
from earthmap.errors import EarthmapError, TrainingError
from earthmap.training.comparison import (
    ARMS,
    PRIMARY,
    Arm,
    arm_source,
    arm_table,
    closed_accuracy,
    held_out,
    result_table,
    scaled,
)
from earthmap.training.stages import MODALITIES, StageTable, default_table, load_table

if TYPE_CHECKING:
    from earthmap.model.alignment import AlignmentHeads
    from earthmap.model.earth_onevision import EarthOneVision
    from earthmap.model.words import Words
    from earthmap.training import Learned, Learner, Row, RowSource

PAGE = Path(__file__).parent.parent / "docs" / "does-staging-matter.md"
BEGIN, END = "<!-- table -->\n", "<!-- /table -->\n"
"""Between these the page holds the table."""

SEEDS = (1, 2, 3)
HELD_OUT_SEED = 20_000_003
EVERY, SHOWN = 100, 50
"""Steps between checkpoints, and between lines of the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is compared, by how much of it."""

    out: Path
    preset: str
    staged: StageTable
    seeds: tuple[int, ...]
    held_out: int
    """Rows of each modality that are held out."""
    side_px: int
    drawers: int
    """Processes that draw; 0 for none beside the one that learns."""
    end: float
    """When to stop, by `time.monotonic`."""

    def source(self, seed: int) -> RowSource:
        """Drawn rows of a seed."""
        from earthmap.training.drawn import DrawnRows

        return DrawnRows(seed=seed, side_px=self.side_px)

    @property
    def key(self) -> str:
        """Of all that the figures depend on, but the seed."""
        held_out = self.source(HELD_OUT_SEED).key
        return content_key("compare", self.preset, self.staged.content_key(), held_out, self.held_out, PRIMARY)

    def folder(self, arm: Arm, seed: int) -> Path:
        """Where an arm learns."""
        return self.out / f"{arm.name}-{seed}"


def start(preset: str, seed: int) -> tuple[EarthOneVision, AlignmentHeads]:
    """A new model, equal for equal seeds, on a GPU where there is one."""
    import torch

    from earthmap.model.alignment import AlignmentHeads
    from earthmap.model.earth_onevision import new_earth_onevision

    model = new_earth_onevision(preset, _words(preset), seed=seed, device=None)
    torch.manual_seed(seed)
    levels = len(model.model.config.vision_config.deepstack_visual_indexes) + 1
    heads = AlignmentHeads(width=model.model.config.text_config.hidden_size, levels=levels)
    return model, heads.to(model.engine.device)


def _words(preset: str) -> Words:
    from earthmap.model.config import get_preset
    from earthmap.model.words import nano_words, train_words
    from earthmap.tasks import TASKS

    words = nano_words()
    entries = get_preset(preset).vocabulary
    return words if len(words.tokenizer) <= entries else train_words([t.template for t in TASKS.values()], size=entries)


@contextmanager
def _drawn(source: RowSource, workers: int) -> Iterator[RowSource]:
    from earthmap.training.ahead import ahead

    if not workers:
        yield source
        return
    with ahead(source, workers=workers) as drawn:
        yield drawn


def learn(plan: Plan, arm: Arm, seed: int) -> Learner | None:
    """An arm to the end of its table; None where time was up before."""
    from earthmap.training import begin, save_checkpoint, train

    folder, table = plan.folder(arm, seed), arm_table(arm, plan.staged)
    source = arm_source(arm, plan.staged, plan.source(seed))
    folder.mkdir(parents=True, exist_ok=True)
    learner = begin(folder, table=table, source=source, start=partial(start, plan.preset, seed))
    with _drawn(source, plan.drawers) as rows:
        train(
            learner,
            rows,
            save=lambda learner: save_checkpoint(learner, folder),
            every=EVERY,
            watch=partial(_say, f"{arm.name}-{seed}", table.steps),
            until=lambda: time.monotonic() > plan.end,
        )
    return learner if learner.step == table.steps else None


def _say(name: str, steps: int, learned: Learned) -> None:
    if learned.step % SHOWN == 0 or learned.step == steps - 1:
        print(f"{name} {learned.step + 1}/{steps} {learned.stage} answers {learned.answers:.3f}", flush=True)


def measure(plan: Plan, learner: Learner, rows: Sequence[Row], place: Path) -> None:
    """Write what a learner answers about rows that were held out."""
    from earthmap.training import validate

    figures = validate(learner.model, learner.heads, rows)
    record = {
        "of": plan.key,
        "scores": closed_accuracy(figures),
        "figures": [asdict(figure) for figure in figures],
    }
    scratch = place.with_suffix(".writing")
    scratch.write_text(json.dumps(record, indent=1), encoding="utf-8")
    scratch.replace(place)


def _scores(plan: Plan, place: Path) -> dict[str, float] | None:
    """What was measured there; None for nothing yet. Raises TrainingError where that was another comparison."""
    if not place.exists():
        return None
    record = json.loads(place.read_text(encoding="utf-8"))
    if record["of"] != plan.key:
        raise TrainingError(
            f"{place} is of a comparison with other stages, steps or rows",
            expected="the one that is asked for",
            fix="give the same options again, or another --out",
        )
    scores: dict[str, float] = record["scores"]
    return scores


def compare(plan: Plan) -> str | None:
    """The table; None where time was up before all arms had learned."""
    rows: list[Row] = []
    scores: dict[str, list[dict[str, float]]] = {arm.name: [] for arm in ARMS}
    for seed, arm in itertools.product(plan.seeds, ARMS):  # what is cut short has whole seeds
        place = plan.folder(arm, seed) / "figures.json"
        found = _scores(plan, place)
        if found is None:
            learner = learn(plan, arm, seed)
            if learner is None:
                return None
            rows = rows or held_out(plan.source(HELD_OUT_SEED), MODALITIES, count=plan.held_out)
            measure(plan, learner, rows, place)
            found = _scores(plan, place) or {}
        scores[arm.name].append(found)
    return result_table(scores)


def publish(table: str, page: Path) -> None:
    """Put the table into the page, whichever way it came out."""
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    page.write_text(before + BEGIN + table + END + rest.split(END)[1], encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Learn, compare, publish."""
    import torch

    options = _options(arguments)
    torch.set_num_threads(options.threads)
    try:
        plan = Plan(
            out=options.out,
            preset=options.preset,
            staged=scaled(
                load_table(options.stages) if options.stages else default_table(),
                steps=options.steps,
                tokens=options.tokens,
            ),
            seeds=SEEDS,
            held_out=options.held_out,
            side_px=options.side_px,
            drawers=options.drawers,
            end=time.monotonic() + 60.0 * options.minutes,
        )
        table = compare(plan)
    except EarthmapError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if table is None:
        print("time is up; run again to go on")
        return 0
    print(table)
    if options.page:
        publish(f"{conditions(plan)}\n\n{table}", options.page)
    return 0


def conditions(plan: Plan) -> str:
    """What was compared, in a sentence."""
    tokens = plan.staged.stages[0].tokens
    return (
        f"`{plan.preset}`, {plan.staged.steps:,} steps of about {tokens:,} tokens in {len(plan.staged.stages)} stages, "
        f"seeds {', '.join(map(str, plan.seeds))}, {plan.held_out} held-out rows of each modality. Mean ± standard "
        "deviation over seeds."
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the trainings")
    parser.add_argument("--stages", type=Path, help="table of stages (default: PCMA's)")
    parser.add_argument("--preset", default="nano", help="size of the model (default nano)")
    parser.add_argument("--steps", type=int, default=1500, help="steps of each training (default 1500)")
    parser.add_argument("--tokens", type=int, default=6144, help="tokens of a step, about (default 6144)")
    parser.add_argument("--held-out", type=int, default=160, help="rows of each modality to measure on (default 160)")
    parser.add_argument("--side-px", type=int, default=128, help="side of a picture (default 128)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after these; run again to go on")
    parser.add_argument("--threads", type=int, default=1, help="threads of a step on a processor (default 1)")
    parser.add_argument("--drawers", type=int, default=1, help="processes that draw (default 1)")
    parser.add_argument("--page", type=Path, default=PAGE, help="page that the table is put into")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
