"""Figures of merit with their 95 % intervals beside the best constant answer; as a table, and in a checkpoint's card.

Scores are means over what was scored, the higher the better. Intervals resample places: what was asked about one piece
of ground, however often and on however many dates, is drawn together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from earthmap.errors import ModelError
from earthmap.model.card import Figure, read_card, write_card

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 2000
"""Draws of a bootstrap."""

LEVEL = 0.95
"""Share of the draws inside an interval."""

MIN_PLACES = 6
"""Places below which nothing is concluded: a figure of fewer stands in the table and not in the card."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One task asked of some sensors: the scores of the model and of what it is compared with, answer by answer."""

    task: str
    """Id in `earthmap.tasks.TASKS`."""
    sensors: tuple[str, ...]
    """Ids in `earthmap.sensors.SENSORS` of those that look at each tile; more than one are fused."""
    dates: int = 1
    metric: str
    """What a score is."""
    data: str
    """What it was measured on."""
    places: tuple[str, ...] = field(repr=False)
    """Where each answer was asked; equal ones are the same ground."""
    model: NDArray[np.float64] = field(repr=False)
    """(answer,) scores of the model, 0 to 1."""
    constant: NDArray[np.float64] = field(repr=False)
    """(answer,) scores of the best constant answer to each question."""
    spectral: NDArray[np.float64] | None = field(default=None, repr=False)
    """(answer,) scores of the predictor `spectral`, NaN where it cannot answer; None where it never can."""

    def __post_init__(self) -> None:
        sizes = {len(self.places), len(self.model), len(self.constant)}
        sizes |= set() if self.spectral is None else {len(self.spectral)}
        if len(sizes) > 1 or not self.places:
            raise ModelError(f"scores of {sorted(sizes)} answers", expected="as many of each, and one at least")

    @property
    def figure(self) -> Figure:
        """The figure with its interval. Fused sensors are joined by `+`."""
        low, high = interval(self.model, self.places)
        score = float(self.model.mean())
        spectral = None
        if self.spectral is not None and np.isfinite(self.spectral).mean() >= 0.5:
            spectral = round(float(np.nanmean(self.spectral)), 4)
        return Figure(
            task=self.task,
            sensor="+".join(self.sensors),
            metric=self.metric,
            score=round(score, 4),
            low=round(min(low, score), 4),
            high=round(max(high, score), 4),
            constant=round(float(self.constant.mean()), 4),
            spectral=spectral,
            tiles=len(self.places),
            data=self.data,
        )

    @property
    def is_evidence(self) -> bool:
        """It can tell a model from a constant answer: enough places, on which no constant is always right."""
        return len(set(self.places)) >= MIN_PLACES and float(self.constant.mean()) < 0.995


def interval(scores: NDArray[np.float64], places: Sequence[str]) -> tuple[float, float]:
    """The 95 % interval of a mean by drawing places again; of scores that are all 0 or all 1 the exact binomial one.

    One place alone tells nothing: 0 to 1.
    """
    names, owner = np.unique(np.asarray(places), return_inverse=True)
    tail = (1.0 - LEVEL) / 2.0
    reach = tail ** (1.0 / len(names))  # Clopper and Pearson (1934) for no failure, or no success, in n
    if len(names) == 1:
        return 0.0, 1.0
    if (scores >= 1.0).all():
        return reach, 1.0
    if (scores <= 0.0).all():
        return 0.0, 1.0 - reach
    sums, counts = np.bincount(owner, weights=scores), np.bincount(owner)
    drawn = np.random.default_rng(0).integers(len(names), size=(RESAMPLES, len(names)))
    low, high = np.quantile(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1), [tail, 1.0 - tail]).tolist()
    return float(low), float(high)


def _named(row: Measured) -> str:
    sensors = " + ".join(row.sensors)
    return f"{sensors}, {row.dates} dates" if row.dates > 1 else sensors


def _verdict(row: Measured) -> str:
    if not row.is_evidence:
        return "proves nothing"
    return "yes" if row.figure.is_supported else "**no**"


def table(rows: Iterable[Measured]) -> str:
    """The figures as a Markdown table: score, interval, constant with its own interval, `spectral`, and whether the
    score's interval lies above the constant."""
    head = (
        "task", "sensor", "score is", "model", "95 %", "constant", "95 %", "`spectral`", "answers, places",
        "beats the constant",
    )  # fmt: skip
    lines = [head, ("---",) * len(head)]
    for row in rows:
        figure, (low, high) = row.figure, interval(row.constant, row.places)
        lines.append(
            (
                row.task, _named(row), row.metric, f"{figure.score:.3f}", f"{figure.low:.3f}–{figure.high:.3f}",
                f"{figure.constant:.3f}", f"{low:.3f}–{high:.3f}",
                "–" if figure.spectral is None else f"{figure.spectral:.3f}",
                f"{figure.tiles}, {len(set(row.places))}", _verdict(row),
            )
        )  # fmt: skip
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def headline(rows: Iterable[Measured]) -> tuple[Figure, ...]:
    """Figures for a card: of each task and sensor the first that is evidence; fused sensors have none of their own."""
    found: dict[tuple[str, str], Figure] = {}
    for row in rows:
        if row.is_evidence and len(row.sensors) == 1:
            found.setdefault((row.task, row.sensors[0]), row.figure)
    return tuple(found.values())


def write_figures(
    folder: Path, *, real: Iterable[Measured] | None = None, drawn: Iterable[Measured] | None = None
) -> None:
    """Put figures into the card of the checkpoint in `folder`, in place of those of its kind; None leaves them.

    Args:
        folder: A checkpoint.
        real: Measured on real scenes that it never learned from: what it may answer.
        drawn: Measured on drawn scenes that were held out: what it is not asked where no real scene tells.

    Raises:
        ModelError: for a folder without a card, or whose card cannot be read.
    """
    card = read_card(folder)
    answers = card.answers if real is None else headline(real)
    drafts = card.drawn if drawn is None else headline(drawn)
    write_card(dataclasses.replace(card, answers=answers, drawn=drafts), folder)
