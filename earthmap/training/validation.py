"""How well a model answers rows that it does not learn from, by modality and task, as its training goes.

Closed questions are scored as the engine scores them. What is written is right where each of its tokens is the
likeliest after those before it: then, and only then, the model would write exactly this. Shares come from the alignment
heads' map of blocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.metrics import interval
from earthmap.tasks.vocabulary import TARGETS
from earthmap.training.packing import layout_of, pack
from earthmap.training.rows import Asked, Row

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from earthmap.model.alignment import AlignmentHeads
    from earthmap.model.earth_onevision import EarthOneVision
    from earthmap.model.vision import VisualFeatures
    from earthmap.training.packing import Batch

AT_ONCE = 16
"""Rows of one forward."""

ACCURACY, EXACT, SHARE = "accuracy", "exact text", "1 − error of the share"
"""What a score is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationFigure:
    """How well one task is answered from one modality."""

    modality: str
    task: str
    """Id in `earthmap.tasks.TASKS`; the category where the data do not tell the task."""
    metric: str
    """What the score is, the higher the better: ACCURACY, EXACT or SHARE."""
    score: float
    """0 to 1, the mean over the answers."""
    low: float
    high: float
    """Its 95 % interval, by drawing rows again."""
    constant: float
    """Score of the best constant answer to the same questions, in hindsight."""
    count: int
    """Answers that were scored."""


@dataclass(slots=True)
class _Marks:
    """Answers to one task from one modality."""

    rows: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    truths: list[Any] = field(default_factory=list)
    """Text, or (class,) shares."""

    def add(self, row: str, score: float, truth: Any) -> None:
        """Count one answer."""
        self.rows.append(row)
        self.scores.append(score)
        self.truths.append(truth)


_Key = tuple[str, str, str]
"""Modality, task and metric."""


def validate(model: EarthOneVision, heads: AlignmentHeads, rows: Sequence[Row]) -> list[ValidationFigure]:
    """The figures of `rows`, by modality, task and metric in this order.

    Args:
        model: with weights in the type that it computes in.
        heads: its alignment heads, on the same device.
        rows: of any layouts; none of them should be learned from.

    Raises:
        TrainingError: for a row that is longer than the model reads.
    """
    import torch

    marks: dict[_Key, _Marks] = {}
    with torch.inference_mode():
        for members in _together(rows, model):
            _mark(model, heads, members, marks)
    return [_figure(key, marks[key]) for key in sorted(marks)]


def _together(rows: Sequence[Row], model: EarthOneVision) -> Iterator[list[Row]]:
    """Rows of one layout, AT_ONCE at most."""
    grouped: dict[object, list[Row]] = {}
    for row in rows:
        grouped.setdefault(layout_of(row, model.words), []).append(row)
    for members in grouped.values():
        for start in range(0, len(members), AT_ONCE):
            yield members[start : start + AT_ONCE]


def _mark(model: EarthOneVision, heads: AlignmentHeads, rows: Sequence[Row], marks: dict[_Key, _Marks]) -> None:
    """Count in what is answered about rows of one layout."""
    from earthmap.training.losses import look

    said = [[tried for one in row.asked for tried in _tries(one)] for row in rows]
    tried = [replace(row, asked=tuple(tries)) for row, tries in zip(rows, said, strict=True)]
    batch = pack(tried, model.words, device=model.engine.device)
    features = look(model.model, batch)
    _mark_answers(model, rows, batch, features, marks)
    if batch.shares is not None:
        _mark_shares(model, heads, rows, batch, features, marks)


def _tries(one: Asked) -> list[Asked]:
    """What is read: of a closed question each choice, else the answer."""
    return [replace(one, answer=choice, choices=()) for choice in one.choices or (one.answer,)]


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────


def _mark_answers(
    model: EarthOneVision, rows: Sequence[Row], batch: Batch, features: VisualFeatures, marks: dict[_Key, _Marks]
) -> None:
    from earthmap.training.losses import answer_losses

    found = answer_losses(model.model, batch, features)
    place = {
        (int(row), int(number)): at for at, (row, number) in enumerate(zip(batch.row, batch.question, strict=True))
    }
    likely = (-found.loss.new_zeros(len(place)).index_add_(0, batch.answer, found.loss)).cpu().numpy()
    wrong = found.loss.new_zeros(len(place)).index_add_(0, batch.answer, (~found.right).float()).cpu().numpy()
    for number, row in enumerate(rows):
        first = 0
        for one in row.asked:
            count = len(one.choices) or 1
            tried = [place[number, first + at] for at in range(count)]
            first += count
            said = one.choices[int(likely[tried].argmax())] if one.choices else None
            right = said == one.answer if one.choices else wrong[tried[0]] == 0
            key = (row.modality, one.task or one.category, ACCURACY if one.choices else EXACT)
            marks.setdefault(key, _Marks()).add(row.id, float(right), one.answer)


# ── shares ───────────────────────────────────────────────────────────────────────────────────────────────────


def _mark_shares(
    model: EarthOneVision,
    heads: AlignmentHeads,
    rows: Sequence[Row],
    batch: Batch,
    features: VisualFeatures,
    marks: dict[_Key, _Marks],
) -> None:
    """The share of the picture that each class of land cover covers, the mean of its blocks; of other classes where
    the rows know of no land cover."""
    from earthmap.model.alignment import class_map, text_vectors

    names = rows[0].classes
    wanted = [number for number, name in enumerate(names) if name in TARGETS] or list(range(len(names)))
    text = text_vectors(model.model.model.language_model, [batch.classes[number] for number in wanted])
    told = class_map(heads, features, text).float().cpu().numpy()
    for row, map_ in zip(rows, told, strict=True):
        if row.shares is None:
            continue
        true = row.shares.reshape(len(map_), -1)[:, wanted]
        error = np.abs(_means(map_, true) - _means(true, true))
        if np.isfinite(error).any():
            key = (row.modality, "fraction", SHARE)
            marks.setdefault(key, _Marks()).add(row.id, 1.0 - float(np.nanmean(error)), _means(true, true))


def _means(blocks: NDArray[np.float32], known: NDArray[np.float32]) -> NDArray[np.float64]:
    """(class,) means of (block, class) over the blocks of which `known` knows the class; NaN for none."""
    is_known = np.isfinite(known)
    count = is_known.sum(axis=0)
    sums = np.where(is_known, blocks, 0.0).sum(axis=0, dtype=np.float64)
    means: NDArray[np.float64] = np.where(count > 0, sums / np.maximum(count, 1), np.nan)
    return means


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────────


def _figure(key: _Key, marks: _Marks) -> ValidationFigure:
    modality, task, metric = key
    scores = np.array(marks.scores)
    low, high = interval(scores, marks.rows)
    score = float(scores.mean())
    return ValidationFigure(
        modality=modality,
        task=task,
        metric=metric,
        score=score,
        low=min(low, score),
        high=max(high, score),
        constant=_CONSTANTS[metric](marks.truths),
        count=len(scores),
    )


def _most_frequent(truths: Sequence[str]) -> float:
    return Counter(truths).most_common(1)[0][1] / len(truths)


def _medians(truths: Sequence[NDArray[np.float64]]) -> float:
    """Of the median share of each class."""
    whole = np.stack(truths)
    known = np.isfinite(whole)
    middle = np.array(
        [np.median(column[seen]) if seen.any() else 0.0 for column, seen in zip(whole.T, known.T, strict=True)]
    )
    errors = np.where(known, np.abs(whole - middle), 0.0).sum(axis=1) / known.sum(axis=1)
    return 1.0 - float(errors.mean())


_CONSTANTS: dict[str, Callable[[Sequence[Any]], float]] = {
    ACCURACY: _most_frequent,
    EXACT: _most_frequent,
    SHARE: _medians,
}
"""Score of the best constant answer, from the true ones."""
