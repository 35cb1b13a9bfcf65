"""Temperatures for a card: fitted on one half of held-out tiles, told by what they do on the other half.

The tiles are drawn of seeds that no training and no figure uses. Half of them are those with even numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.evaluation.drawn import FIRST_SEED, LOOKS, Look, draw_batch, exams_of
from earthmap.evaluation.exams import BOX, CHOICE, HALF, LABELS, MASK, ORIENTED_BOX, THINGS, Exam, Rule, ask_all
from earthmap.metrics.boxes import overlap
from earthmap.metrics.calibration import Said, Stated, compare, fit_temperature, reliability
from earthmap.model.evidence import Calibration

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from earthmap.predict.protocol import Predictor
    from earthmap.tasks.answer import Answer

FIRST_CALIBRATION_SEED = FIRST_SEED + (1 << 20)
"""Of the tiles that temperatures are fitted and tested on: none of those that figures are measured on."""

LEAST_ANSWERS = 100
"""Answers of a half below which no temperature is fitted."""

LEAST_PLACES = 30
"""The same for places."""


def calibrate_looks(
    model: Predictor,
    *,
    looks: Sequence[Look] = LOOKS,
    tiles: int = 256,
    written: int = 0,
    first: int = FIRST_CALIBRATION_SEED,
    say: Callable[[str], None] = lambda text: None,
) -> list[Calibration]:
    """Temperatures of each task, for each way of seeing and for all together, where there are answers enough.

    Args:
        model: What states probabilities, at temperature 1.
        looks: How tiles are seen.
        tiles: How many of each look are drawn.
        written: How many of them at most are asked for what is written token by token, for each such question.
        first: Seed of the first tile.
        say: Hears of each look when it is done.
    """
    found: dict[str, dict[str, list[Said]]] = {}
    for look in looks:
        start = time.perf_counter()
        for task, answers in state_drawn(look, model=model, tiles=tiles, written=written, first=first).items():
            found.setdefault(task, {}).setdefault("+".join(look.sensors), []).extend(answers)
        say(f"{look.modality}, {' + '.join(look.sensors)} × {look.dates}: {time.perf_counter() - start:.0f} s")
    domain = f"{tiles} drawn tiles, {{}}, seeds from {first}"
    return list(_calibrations(found, domain))


def state_drawn(look: Look, *, model: Predictor, tiles: int, written: int, first: int) -> dict[str, list[Said]]:
    """What a model says of held-out drawn tiles, with its probabilities, by task.

    Raises:
        SensorError: for sensors that are not drawn together.
    """
    batch = draw_batch(look, tiles, first=first)
    exams = [exam for exam in exams_of(look, batch, written) if exam.truths and exam.rule in _STATED]
    found: dict[str, list[Said]] = {}
    for exam, answers in zip(exams, ask_all(model, batch.items, exams), strict=True):
        found.setdefault(exam.query.task, []).extend(said_in(exam, answers, first=first))
    return found


def said_in(exam: Exam, answers: Mapping[int, Answer], *, first: int = 0) -> Iterator[Said]:
    """What an exam's answers say with which probabilities; places are seeds of the tiles, from `first` on.

    A choice is one, a label is one that is there or not, a mask and each thing are right where they meet the true one
    by half.
    """
    for tile, true in exam.truths.items():
        answer = answers.get(tile)
        if answer is not None and answer.status == "answered":
            for shares, told, said in _STATED[exam.rule](answer, true):
                yield Said(shares=shares, true=told, said=said, place=str(first + tile))


_Row = tuple[tuple[float, ...], int, int]


def _choice(answer: Answer, true: str) -> Iterator[_Row]:
    names = list(answer.scores)
    if true in names and answer.value in names:
        yield tuple(answer.scores.values()), names.index(true), names.index(answer.value)


def _labels(answer: Answer, true: frozenset[str]) -> Iterator[_Row]:
    said = set((answer.value or "").split("; "))
    for name, share in answer.scores.items():
        yield (share, 1.0 - share), int(name not in true), int(name not in said)


def _things(answer: Answer, true: Any) -> Iterator[_Row]:
    real = true if isinstance(true, list) else [true]
    for one, score in zip(answer.instances, answer.instance_scores, strict=True):
        meets = one.geometry is not None and any(overlap(one.geometry, shape) >= HALF for shape in real)
        yield (score, 1.0 - score), int(not meets), 0


def _mask(answer: Answer, true: NDArray[np.uint8]) -> Iterator[_Row]:
    if answer.probability is not None:
        share = answer.probability
        yield (share, 1.0 - share), int(MASK.grade(answer.mask, true) < HALF), 0


_STATED: Mapping[Rule, Callable[[Answer, Any], Iterator[_Row]]] = {
    CHOICE: _choice, LABELS: _labels, BOX: _things, ORIENTED_BOX: _things, THINGS: _things, MASK: _mask,
}  # fmt: skip
"""How probabilities are stated, by the rule of an exam; a share has none."""


def _calibrations(found: Mapping[str, Mapping[str, Sequence[Said]]], domain: str) -> Iterator[Calibration]:
    for task, by_sensor in found.items():
        wanted: dict[str | None, Sequence[Said]] = dict(by_sensor.items())
        if len(by_sensor) > 1:
            wanted[None] = [one for answers in by_sensor.values() for one in answers]
        for sensor, answers in wanted.items():
            where = domain.format(sensor or f"{len(by_sensor)} ways of seeing")
            one = calibrate(task, sensor, Stated.of(answers), domain=where)
            if one is not None:
                yield one


def calibrate(task: str, sensor: str | None, stated: Stated, *, domain: str) -> Calibration | None:
    """The temperature of some answers, fitted on places with even numbers and told by the others; None for too few."""
    odd = np.array([int(place) % 2 for place in stated.places], np.bool_)
    fitted, tested = stated.part(~odd), stated.part(odd)
    fewest = min(len(fitted), len(tested))
    places = [len(np.unique(half.places)) for half in (fitted, tested)]
    if fewest < LEAST_ANSWERS or min(places) < LEAST_PLACES:
        return None
    temperature = fit_temperature(fitted)
    after = tested.at(temperature)
    log_loss, error = compare(tested, after)
    return Calibration(
        task=task,
        sensor=sensor,
        temperature=temperature,
        domain=domain,
        fitted=len(fitted),
        tested=len(tested),
        places=places[1],
        log_loss=log_loss,
        error=error,
        before=reliability(tested),
        after=reliability(after),
    )


def calibration_table(rows: Sequence[Calibration]) -> str:
    """The temperatures as a Markdown table, with what they do on answers that they were not fitted on."""
    head = (
        "task", "sensor", "temperature", "answers, places", "log loss before → after", "95 % of the difference",
        "calibration error before → after", "95 % of the difference",
    )  # fmt: skip
    lines = [head, ("---",) * len(head)]
    for row in rows:
        losses = [
            text
            for loss in (row.log_loss, row.error)
            for text in (f"{loss.before:.3f} → {loss.after:.3f}", f"{loss.low:+.3f} to {loss.high:+.3f}")
        ]
        count = f"{row.tested:,}, {row.places:,}"
        lines.append((row.task, row.sensor or "all others", f"{row.temperature:.2f}", count, *losses))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
