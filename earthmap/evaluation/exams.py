"""Questions with known answers, asked of a predictor tile by tile as a user asks them, and scored.

An exam is one question. The constant answer that stands beside it is the best one in hindsight: of all candidates the
one that scores highest on the very tiles that are asked about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.evaluation.figures import Measured
from earthmap.metrics.boxes import f1_at_half, overlap
from earthmap.tasks.answer import UNSEEN, Answer
from earthmap.tasks.registry import TASKS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

    from earthmap.predict.protocol import Predictor, TileInput
    from earthmap.predict.vlm import VlmPredictor
    from earthmap.tasks.query import Query

HALF = 0.5
"""Overlap from which a shape counts as found."""

AT_ONCE = 16
"""Tiles handed to a predictor together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How replies to one kind of question are scored."""

    metric: str
    """What a score is, for people."""
    read: Callable[[Answer], Any]
    """What of an answer is scored."""
    grade: Callable[[Any, Any], float]
    """Said, true → 0 to 1."""
    guesses: Callable[[Sequence[Any]], Sequence[Any]]
    """Constant answers worth trying, from the true ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exam:
    """One question, and its true answer for each tile that it is asked of."""

    query: Query
    rule: Rule
    truths: Mapping[int, Any] = field(repr=False)
    """True answer by number of the tile."""


# ── rules ────────────────────────────────────────────────────────────────────────────────────────────────────


def _same(said: Any, true: Any) -> float:
    return float(said == true)


def _distinct(truths: Sequence[Any]) -> list[Any]:
    return list(dict.fromkeys(truths))


def _near(said: float | None, true: float) -> float:
    return 0.0 if said is None else 1.0 - abs(said - true)


def _shapes(answer: Answer) -> list[Any]:
    return [one.geometry for one in answer.instances if one.geometry is not None]


def _first_overlap(said: Sequence[Any], true: Any) -> float:
    """1 where the first shape meets the true one by half."""
    return float(bool(said) and overlap(said[0], true) >= HALF)


def _plain_boxes(truths: Sequence[BaseGeometry]) -> list[list[BaseGeometry]]:
    """The whole picture, and the box whose edges are the medians of the true ones."""
    import shapely

    bounds = np.array([shape.bounds for shape in truths]).reshape(-1, 4)
    middle = [shapely.box(*np.median(bounds, axis=0))] if len(bounds) else []
    return [[shape] for shape in (shapely.box(0, 0, 1, 1), *middle)]


def _mask_overlap(said: NDArray[np.uint8] | None, true: NDArray[np.uint8]) -> float:
    """IoU of what has any code, where both know the ground; of nothing against nothing 1."""
    if said is None:
        return 0.0
    known = (said != UNSEEN) & (true != UNSEEN)
    ours, theirs = (said > 0) & known, (true > 0) & known
    either = int((ours | theirs).sum())
    return 1.0 if either == 0 else float((ours & theirs).sum() / either)


def _everywhere_and_nowhere(truths: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    return [np.ones_like(truths[0]), np.zeros_like(truths[0])]


CHOICE = Rule(metric="accuracy", read=lambda answer: answer.value, grade=_same, guesses=_distinct)
COUNT = Rule(metric="exact count", read=lambda answer: answer.value, grade=_same, guesses=_distinct)
SHARE = Rule(
    metric="1 − error of the share",
    read=lambda answer: answer.fraction,
    grade=_near,
    guesses=lambda truths: [float(np.median(truths)), float(np.mean(truths))],
)
BOX = Rule(metric="box P@0.5", read=_shapes, grade=_first_overlap, guesses=_plain_boxes)
ORIENTED_BOX = Rule(metric="oriented box P@0.5", read=_shapes, grade=_first_overlap, guesses=_plain_boxes)
THINGS = Rule(
    metric="F1 of boxes at 0.5",
    read=_shapes,
    grade=f1_at_half,
    guesses=lambda truths: [[], *_plain_boxes([shape for shapes in truths for shape in shapes])],
)
MASK = Rule(metric="mask IoU", read=lambda answer: answer.mask, grade=_mask_overlap, guesses=_everywhere_and_nowhere)
EXTENT = Rule(
    metric="extent P@0.5",
    read=MASK.read,
    grade=lambda said, true: float(_mask_overlap(said, true) >= HALF),
    guesses=_everywhere_and_nowhere,
)


def balanced(truths: Mapping[int, Any]) -> dict[int, Any]:
    """As many tiles of each answer as of the rarest, the first ones: no constant is right more often than another.

    Empty where there is one answer only.

    Example:
        >>> balanced({0: "yes", 1: "no", 2: "no"})
        {0: 'yes', 1: 'no'}
    """
    by_answer: dict[Any, list[int]] = {}
    for tile, true in truths.items():
        by_answer.setdefault(true, []).append(tile)
    fewest = min(map(len, by_answer.values())) if len(by_answer) > 1 else 0
    kept = {tile for tiles in by_answer.values() for tile in tiles[:fewest]}
    return {tile: true for tile, true in truths.items() if tile in kept}


def _label_agreement(said: str | None, true: frozenset[str]) -> float:
    """F1 of a set of labels; of none against none 1."""
    found = _label_set(said)
    return 2.0 * len(found & true) / (len(found) + len(true)) if found or true else 1.0


def _label_set(text: str | None) -> frozenset[str]:
    return frozenset() if text in (None, "none") else frozenset(str(text).split("; "))


def _usual_labels(truths: Sequence[frozenset[str]]) -> list[str]:
    """Answers that name each label that is true at least so often."""
    names = sorted(frozenset().union(*truths))
    often = {name: sum(name in true for true in truths) / len(truths) for name in names}
    return [
        "; ".join(name for name in names if often[name] >= share) or "none" for share in (0.0, 0.2, 0.35, 0.5, 0.65)
    ]


LABELS = Rule(metric="F1 of labels", read=lambda answer: answer.value, grade=_label_agreement, guesses=_usual_labels)


# ── asking ───────────────────────────────────────────────────────────────────────────────────────────────────


def open_unjudged(checkpoint: str | Path, *, device: str | None = None) -> VlmPredictor:
    """The model of a checkpoint as if nothing were known of it: what it may not answer is asked too.

    Raises:
        ModelError: for a checkpoint that cannot be used.
    """
    from earthmap.model import load_earth_onevision
    from earthmap.predict.vlm import VlmPredictor

    model = load_earth_onevision(checkpoint, device=device)
    model.card = replace(model.card.unmeasured, taught=None)
    return VlmPredictor(model)


def ask_all(predictor: Predictor, items: Sequence[TileInput], exams: Sequence[Exam]) -> list[dict[int, Answer]]:
    """The answer to each exam by tile. A question is asked once, and what is not written together, on one look."""
    wanted: dict[Query, set[int]] = {}
    for exam in exams:
        wanted.setdefault(exam.query, set()).update(exam.truths)
    quick = [query for query in wanted if not is_written(query)]
    found: dict[Query, dict[int, Answer]] = {query: {} for query in wanted}
    for queries in (quick, *([query] for query in wanted if is_written(query))):
        tiles = sorted(set().union(*(wanted[query] for query in queries)))
        for start in range(0, len(tiles), AT_ONCE):
            chunk = tiles[start : start + AT_ONCE]
            replies = predictor.predict([items[tile] for tile in chunk], queries)
            for tile, answers in zip(chunk, replies, strict=True):
                for query, answer in zip(queries, answers, strict=True):
                    found[query][tile] = answer
    return [{tile: found[exam.query][tile] for tile in exam.truths} for exam in exams]


def is_written(query: Query) -> bool:
    """The answer is written token by token, which takes longer than choosing or mapping blocks."""
    return TASKS[query.task].answer not in ("yes/no", "choice", "labels", "share")


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """What was said in an exam."""

    exam: Exam
    data: str
    """What the tiles are, for people."""
    sensors: tuple[str, ...]
    dates: int
    bands: tuple[str, ...]
    """Those that were there, where a sensor's others were left out; () for all that are usual."""
    places: tuple[str, ...] = field(repr=False)
    """The ground of each tile that was asked about, in the order of the truths."""
    model: NDArray[np.float64] = field(repr=False)
    """(tile,) scores of what is measured."""
    spectral: NDArray[np.float64] = field(repr=False)
    """(tile,) the same of `spectral`, NaN where it does not answer."""


def take(
    exams: Sequence[Exam],
    items: Sequence[TileInput],
    *,
    model: Predictor,
    spectral: Predictor | None,
    places: Sequence[str],
    data: str,
    bands: tuple[str, ...] = (),
) -> list[Paper]:
    """The papers of exams that have any truth.

    Args:
        exams: What is asked.
        items: The tiles.
        model: What is measured.
        spectral: What it is compared with; None for nothing.
        places: The ground of each tile; equal ones are resampled together.
        data: What the tiles are, for people.
        bands: Those that are there, where a sensor's others were left out.
    """
    asked = [exam for exam in exams if exam.truths]
    ours = ask_all(model, items, asked)
    theirs = ask_all(spectral, items, asked) if spectral is not None else [{} for _ in asked]
    papers = []
    for exam, mine, others in zip(asked, ours, theirs, strict=True):
        pictures = items[next(iter(exam.truths))].pictures
        sensors = tuple(dict.fromkeys(picture.sensor for picture in pictures))
        papers.append(
            Paper(
                exam=exam,
                data=data,
                sensors=sensors,
                dates=len(pictures) // len(sensors),
                bands=bands,
                places=tuple(places[tile] for tile in exam.truths),
                model=_scores(exam, mine),
                spectral=_scores(exam, others, missing=np.nan),
            )
        )
    return papers


def mark(papers: Iterable[Paper]) -> list[Measured]:
    """The scores of one task and metric on the same sensors, bands and dates together, whatever they were measured on.

    A question that was asked of several scenes has one constant answer for all of them.
    """
    groups: dict[tuple[str, str, tuple[str, ...], tuple[str, ...], int], list[Paper]] = {}
    for paper in papers:
        key = (paper.exam.query.task, paper.exam.rule.metric, paper.sensors, paper.bands, paper.dates)
        groups.setdefault(key, []).append(paper)
    return [
        Measured(
            task=task,
            sensors=sensors,
            bands=bands,
            dates=dates,
            metric=metric,
            data="; ".join(dict.fromkeys(paper.data for paper in group)),
            places=tuple(place for paper in group for place in paper.places),
            model=np.concatenate([paper.model for paper in group]),
            constant=_constants(group),
            spectral=_or_none(np.concatenate([paper.spectral for paper in group])),
        )
        for (task, metric, sensors, bands, dates), group in groups.items()
    ]


def _constants(group: Sequence[Paper]) -> NDArray[np.float64]:
    """(answer,) scores of the best constant answer to each question, in the order of the papers."""
    found: dict[int, NDArray[np.float64]] = {}
    for query in dict.fromkeys(paper.exam.query for paper in group):
        numbers = [number for number, paper in enumerate(group) if paper.exam.query == query]
        rule = group[numbers[0]].exam.rule
        scores = best_constant(rule, [true for number in numbers for true in group[number].exam.truths.values()])
        ends = np.cumsum([len(group[number].places) for number in numbers])[:-1]
        found |= dict(zip(numbers, np.split(scores, ends), strict=True))
    return np.concatenate([found[number] for number in range(len(group))])


def _or_none(scores: NDArray[np.float64]) -> NDArray[np.float64] | None:
    return scores if np.isfinite(scores).any() else None


def _scores(exam: Exam, answers: Mapping[int, Answer], *, missing: float = 0.0) -> NDArray[np.float64]:
    """(tile,) scores in the order of the truths; what was not answered scores `missing`."""
    return np.array(
        [
            exam.rule.grade(exam.rule.read(answers[tile]), true)
            if tile in answers and answers[tile].status == "answered"
            else missing
            for tile, true in exam.truths.items()
        ],
        np.float64,
    )


def best_constant(rule: Rule, truths: Sequence[Any]) -> NDArray[np.float64]:
    """(tile,) scores of the one answer to all tiles that scores best."""
    tried = [np.array([rule.grade(guess, true) for true in truths], np.float64) for guess in rule.guesses(truths)]
    return max(tried, key=lambda scores: float(scores.mean()))
