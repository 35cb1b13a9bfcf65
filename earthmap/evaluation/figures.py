"""Figures of merit with their 95 % intervals beside the best constant answer; as a table, and in a checkpoint's card.

Scores are means over what was scored, the higher the better. Intervals resample places: what was asked about one piece
of ground, however often and on however many dates, is drawn together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from earthmap.errors import ModelError
from earthmap.metrics.intervals import interval, reach
from earthmap.model.card import Figure, read_card, write_card
from earthmap.model.evidence import Calibration, SceneErrors

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_PLACES = 6
"""Places below which nothing is concluded: a figure of fewer stands in the table and not in the card."""

MOST_CONSTANT = 0.995
"""Score of a constant answer above which no model can do better, where answers are right by degrees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One task asked of some sensors: the scores of the model and of what it is compared with, answer by answer."""

    task: str
    """Id in `earthmap.tasks.TASKS`."""
    sensors: tuple[str, ...]
    """Ids in `earthmap.sensors.SENSORS` of those that look at each tile; more than one are fused."""
    bands: tuple[str, ...] = ()
    """Those that were there, where a sensor's others were left out; () for all that are usual."""
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
    """(answer,) scores of the predictor `spectral`, NaN where it cannot answer; None where it never can. Its figure is
    of what it answers, where that is half of it or more."""

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
        """A flawless model could be told from the constant: there are places enough, where no constant is always right.

        Of answers that are right or wrong, so many places are needed that the interval of none wrong lies above it.
        """
        count, constant = len(set(self.places)), float(self.constant.mean())
        is_binary = bool(np.isin(np.concatenate([self.model, self.constant]), (0.0, 1.0)).all())
        return count >= MIN_PLACES and constant < (reach(count) if is_binary else MOST_CONSTANT)


def _named(row: Measured) -> str:
    parts = [" + ".join(row.sensors), *([" ".join(row.bands)] if row.bands else [])]
    return ", ".join([*parts, f"{row.dates} dates"] if row.dates > 1 else parts)


def _verdict(row: Measured) -> str:
    if not row.is_evidence:
        return "proves nothing"
    return "yes" if row.figure.is_supported else "**no**"


def table(rows: Iterable[Measured]) -> str:
    """The figures as a Markdown table: score, interval, constant with its own interval, `spectral`, and whether the
    score's interval lies above the constant."""
    head = (
        "task", "sensor", "score is", "model", "95 %", "constant", "95 %", "`spectral`", "answers, places",
        "beats the constant", "measured on",
    )  # fmt: skip
    lines = [head, ("---",) * len(head)]
    for row in rows:
        figure, (low, high) = row.figure, interval(row.constant, row.places)
        lines.append(
            (
                row.task, _named(row), row.metric, f"{figure.score:.3f}", f"{figure.low:.3f}–{figure.high:.3f}",
                f"{figure.constant:.3f}", f"{low:.3f}–{high:.3f}",
                "–" if figure.spectral is None else f"{figure.spectral:.3f}",
                f"{figure.tiles}, {len(set(row.places))}", _verdict(row), row.data,
            )
        )  # fmt: skip
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def headline(rows: Iterable[Measured]) -> tuple[Figure, ...]:
    """Figures for a card: of each task and sensor the first that is evidence. Fused sensors, and sensors of which only
    some bands were there, have none."""
    found: dict[tuple[str, str], Figure] = {}
    for row in rows:
        if row.is_evidence and len(row.sensors) == 1 and not row.bands:
            found.setdefault((row.task, row.sensors[0]), row.figure)
    return tuple(found.values())


def write_figures(
    folder: Path,
    *,
    real: Iterable[Measured] | None = None,
    drawn: Iterable[Measured] | None = None,
    errors: Iterable[SceneErrors] | None = None,
    calibrations: Iterable[Calibration] | None = None,
) -> None:
    """Put what was measured into the card of the checkpoint in `folder`, in place of what was there; None leaves it.

    Args:
        folder: A checkpoint.
        real: Measured on real scenes that it never learned from: what it may answer.
        drawn: Measured on drawn scenes that were held out: what it is not asked where no real scene tells.
        errors: How wrong its maps were on real scenes that it never learned from.
        calibrations: Temperatures of its probabilities.

    Raises:
        ModelError: for a folder without a card, or whose card cannot be read.
    """
    card = read_card(folder)
    answers = card.answers if real is None else headline(real)
    drafts = card.drawn if drawn is None else headline(drawn)
    kept = card.errors if errors is None else tuple(errors)
    tempered = card.calibrations if calibrations is None else tuple(calibrations)
    write_card(dataclasses.replace(card, answers=answers, drawn=drafts, errors=kept, calibrations=tempered), folder)
