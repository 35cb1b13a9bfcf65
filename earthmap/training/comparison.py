"""Does the order of the stages matter, and does alignment? Trainings that differ in one thing alone.

All arms of a seed begin with the same weights and learn from the same rows, in as many steps and with the same rates: a
table of stages is brought to one length and one rate for that. `mixed` has the rows in another order: of each of its
steps every part comes from another step of the stages. All arms are asked about the same held-out rows.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from earthmap.content import content_key
from earthmap.errors import TrainingError
from earthmap.training.stages import Stage, StageTable
from earthmap.training.validation import ACCURACY

if TYPE_CHECKING:
    from earthmap.training.rows import Row
    from earthmap.training.sources import RowSource
    from earthmap.training.validation import ValidationFigure

PRIMARY = "closed accuracy"
"""The one figure that decides: accuracy of closed questions, the mean over modalities, each weighing the same."""

PARTS = 2
"""Steps of the stages that one step of `mixed` is made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way to learn the same."""

    name: str
    staged: bool
    """Stage by stage; else all modalities from the first step on."""
    aligned: bool
    """With FGVLA's loss beside that of the answers."""


ARMS = (
    Arm(name="staged", staged=True, aligned=True),
    Arm(name="mixed", staged=False, aligned=True),
    Arm(name="unaligned", staged=True, aligned=False),
)

QUESTIONS = (("staged", "mixed"), ("staged", "unaligned"))
"""Arms whose difference is asked for, the first less the second."""


# ── what is learned ──────────────────────────────────────────────────────────────────────────────────────────


def scaled(table: StageTable, *, steps: int, tokens: int) -> StageTable:
    """The stages in about `steps` steps of `tokens` tokens, with the rates and alignment of the first.

    Raises TrainingError for fewer steps than stages.
    """
    if steps < len(table.stages):
        raise TrainingError(f"{steps} steps for {len(table.stages)} stages", expected="one each at least")
    first, share = table.stages[0], steps / table.steps
    return StageTable(
        stages=tuple(
            _changed(
                stage,
                steps=max(1, round(stage.steps * share)),
                warmup=min(round(stage.warmup * share), max(1, round(stage.steps * share))),
                tokens=tokens,
                rates=first.rates,
                alignment_weight=first.alignment_weight,
            )
            for stage in table.stages
        )
    )


def _changed(stage: Stage, **changes: object) -> Stage:
    return Stage.model_validate({**stage.model_dump(), **changes})


def arm_table(arm: Arm, staged: StageTable) -> StageTable:
    """What an arm learns along, of stages that are `scaled`."""
    stages = staged.stages
    if not arm.staged:
        modalities = tuple(dict.fromkeys(name for stage in stages for name in stage.modalities))
        stages = (_changed(stages[0], name="mixed", modalities=modalities, steps=staged.steps, replay=0.0),)
    if not arm.aligned:
        stages = tuple(_changed(stage, alignment_weight=0.0) for stage in stages)
    return StageTable(stages=stages)


def arm_source(arm: Arm, staged: StageTable, source: RowSource) -> RowSource:
    """Where an arm has its rows from: all arms the same ones, `mixed` in another order."""
    return source if arm.staged else Mixed(source=source, staged=staged)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixed:
    """The rows of a staged training, each exactly once, out of order. See `RowSource`."""

    source: RowSource
    staged: StageTable

    @property
    def key(self) -> str:
        """See `RowSource`."""
        return content_key("mixed", PARTS, self.source.key, self.staged.content_key())

    def rows(self, table: StageTable, step: int, *, part: int = 0, parts: int = 1) -> list[Row]:
        """See `RowSource`. `table` says how many steps there are; the rows are those of the stages."""
        table.at(step)
        orders = (_order(self.source.key, self.staged.steps, share) for share in range(PARTS))
        whole = [
            row
            for share, order in enumerate(orders)
            for row in self.source.rows(self.staged, order[step], part=share, parts=PARTS)
        ]
        return whole[part::parts]


def _order(key: str, steps: int, share: int) -> list[int]:
    order = list(range(steps))
    random.Random(f"{key}/{share}").shuffle(order)
    return order


def held_out(source: RowSource, modalities: Sequence[str], *, count: int) -> list[Row]:
    """About `count` rows of each modality, of a source that nothing is learned from."""
    found: list[Row] = []
    for modality in modalities:
        stage = Stage(name=modality, modalities=(modality,), rates={"decoder": 1.0}, steps=count, tokens=1)
        mine: list[Row] = []
        for step in range(count):
            mine += source.rows(StageTable(stages=(stage,)), step)
            if len(mine) >= count:
                break
        found += mine[:count]
    return found


# ── what it came to ──────────────────────────────────────────────────────────────────────────────────────────


def closed_accuracy(figures: Sequence[ValidationFigure]) -> dict[str, float]:
    """Accuracy of all closed questions by modality, and PRIMARY, their mean. Raises TrainingError where none is asked.

    A modality that no closed question is asked of, as a video, is left out.
    """
    closed = [figure for figure in figures if figure.metric == ACCURACY]
    if not closed:
        raise TrainingError("no closed question was asked", expected="some in the held-out rows", fix="hold out more")
    found = {}
    for modality in dict.fromkeys(figure.modality for figure in closed):
        mine = [figure for figure in closed if figure.modality == modality]
        found[modality] = sum(figure.score * figure.count for figure in mine) / sum(figure.count for figure in mine)
    return {PRIMARY: statistics.fmean(found.values()), **found}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How much better one arm is than another, seed by seed."""

    mean: float
    low: float
    high: float
    """95 % interval of the mean over seeds, by Student's t of the paired differences; all there is for one seed."""

    @property
    def verdict(self) -> str:
        """`better` or `worse` where the interval leaves out zero, else `not told apart`."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "not told apart"


def paired(one: Sequence[float], other: Sequence[float]) -> Difference:
    """The difference of two arms over the same seeds, in the same order.

    Example:
        >>> paired([0.9, 0.8, 0.85], [0.8, 0.72, 0.74]).verdict
        'better'
    """
    from scipy.stats import t

    differences = [mine - theirs for mine, theirs in zip(one, other, strict=True)]
    mean, count = statistics.fmean(differences), len(differences)
    if count < 2:
        return Difference(mean=mean, low=-1.0, high=1.0)
    reach = float(t.ppf(0.975, count - 1)) * statistics.stdev(differences) / count**0.5
    return Difference(mean=mean, low=mean - reach, high=mean + reach)


Scores = Mapping[str, Sequence[Mapping[str, float]]]
"""Of each arm by name what `closed_accuracy` says, seed by seed."""


def result_table(scores: Scores) -> str:
    """The figures as Markdown: mean and spread of each arm, then the differences that were asked for."""
    return "\n".join([*_arm_lines(scores), "", *_difference_lines(scores)]) + "\n"


def _arm_lines(scores: Scores) -> Iterator[str]:
    names = list(dict.fromkeys(name for found in scores.values() for one in found for name in one))
    yield "| arm | " + " | ".join(f"**{name}**" if name == PRIMARY else name for name in names) + " |"
    yield "|---" * (len(names) + 1) + "|"
    for arm, found in scores.items():
        cells = []
        for name in names:
            values = [one[name] for one in found if name in one]
            spread = statistics.stdev(values) if len(values) > 1 else float("nan")
            cells.append(f"{statistics.fmean(values):.3f} ± {spread:.3f}" if values else "–")
        yield f"| {arm} | " + " | ".join(cells) + " |"


def _difference_lines(scores: Scores) -> Iterator[str]:
    yield f"| difference in {PRIMARY} | mean | 95 % interval | seed by seed | verdict |"
    yield "|---|---|---|---|---|"
    for one, other in QUESTIONS:
        mine, theirs = ([found[PRIMARY] for found in scores[name]] for name in (one, other))
        found = paired(mine, theirs)
        each = ", ".join(f"{first - second:+.3f}" for first, second in zip(mine, theirs, strict=True))
        yield (
            f"| {one} − {other} | {found.mean:+.3f} | {found.low:+.3f} to {found.high:+.3f} | {each} "
            f"| {one} is {found.verdict} |"
        )
