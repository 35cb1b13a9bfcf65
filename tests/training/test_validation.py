"""Validation says what the engine says, beside the best constant, and knows what it was taught."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from earthmap.model.alignment import AlignmentHeads
from earthmap.model.closed import Closed
from earthmap.model.earth_onevision import EarthOneVision
from earthmap.model.engine import lay_out_stem
from earthmap.model.processing import patch_grid
from earthmap.model.words import Words
from earthmap.training import Asked, Learner, Row
from earthmap.training.validation import ACCURACY, EXACT, SHARE, ValidationFigure, validate
from tests.training.learners import make, row, table


def _closed(number: int) -> Row:
    """`learners.row`, asked among choices."""
    one, other = row(number).asked
    asked = (
        dataclasses.replace(one, choices=("yes", "no"), task="presence"),
        dataclasses.replace(one, question="Is it snow?", choices=("no", "yes"), task="presence"),
        other,
    )
    return dataclasses.replace(row(number), asked=asked)


def _by_task(figures: list[ValidationFigure]) -> dict[tuple[str, str], ValidationFigure]:
    return {(figure.task, figure.metric): figure for figure in figures}


def _engines_choices(model: EarthOneVision, one: Row) -> list[str]:
    """What the engine finds likeliest, question by question."""
    words, grid = model.words, patch_grid(*one.pictures.shape[-2:])
    features = model.engine.encode(torch.from_numpy(one.pictures)[None])
    stem = model.engine.read_stem(lay_out_stem(words.opening([(name, grid) for name in one.names])), features)
    closed = [
        Closed(question=words.asking(asked.question), choices=tuple(map(words.answering, asked.choices)))
        for asked in one.asked
        if asked.choices
    ]
    chosen = [int(scores[0].argmax()) for scores in model.engine.score(stem, closed)]
    return [asked.choices[at] for asked, at in zip(one.asked, chosen, strict=False)]


def test_closed_questions_are_scored_as_the_engine_scores_them(words: Words) -> None:
    learner = make(words, table())
    rows = [_closed(number) for number in range(12)]
    said = [
        (mine, one.answer)
        for row in rows
        for mine, one in zip(_engines_choices(learner.model, row), row.asked, strict=False)
    ]
    figure = _by_task(validate(learner.model, learner.heads, rows))["presence", ACCURACY]
    assert figure.count == len(said) == 24
    assert figure.score == pytest.approx(np.mean([mine == true for mine, true in said]))
    assert figure.constant == 0.5


def test_what_is_learned_is_seen(learner: Learner) -> None:
    rows = [_closed(number) for number in range(8)]
    before = _by_task(validate(learner.model, learner.heads, rows))
    for _ in range(45):
        learner.learn(rows)
    after = _by_task(validate(learner.model, learner.heads, rows))
    assert set(after) == {("presence", ACCURACY), ("caption", EXACT), ("fraction", SHARE)}
    assert all(figure.score > 0.8 > before[key].score for key, figure in after.items())
    assert all(figure.low <= figure.score <= figure.high for figure in after.values())
    assert after["presence", ACCURACY].low > after["presence", ACCURACY].constant


def test_exact_text_is_what_the_model_would_write(learner: Learner) -> None:
    rows = [row(number) for number in range(6)]
    for _ in range(12):  # half taught: some are right
        learner.learn(rows)
    words, engine, right = learner.model.words, learner.model.engine, []
    for one in rows:
        features = engine.encode(torch.from_numpy(one.pictures)[None])
        stem = engine.read_stem(
            lay_out_stem(words.opening([(name, patch_grid(64, 64)) for name in one.names])), features
        )
        for asked in one.asked:
            written = engine.write(stem, [words.asking(asked.question)], most=20, end=words.end)[0][0]
            right.append(written.ended and written.tokens == words.answering(asked.answer)[:-1])
    figures = validate(learner.model, learner.heads, rows)
    scored = [figure for figure in figures if figure.metric == EXACT]
    assert sum(figure.score * figure.count for figure in scored) == pytest.approx(sum(right))


def test_unknown_blocks_count_for_nothing(learner: Learner) -> None:
    known = row(0)
    assert known.shares is not None
    hidden = known.shares.copy()
    hidden[0, :2] = np.nan
    unknown = dataclasses.replace(known, shares=np.full_like(known.shares, np.nan))
    figures = _by_task(validate(learner.model, learner.heads, [dataclasses.replace(known, shares=hidden), unknown]))
    assert figures["fraction", SHARE].count == 1
    assert figures["fraction", SHARE].constant == 1.0
    bare = dataclasses.replace(known, shares=None, classes=())
    assert ("fraction", SHARE) not in _by_task(validate(learner.model, learner.heads, [bare]))


def test_rows_of_other_sensors_and_sizes_have_figures_of_their_own(words: Words) -> None:
    learner = make(words, table())
    frames = np.zeros((2, 2, 3, 64, 64), np.uint8)
    asked = (Asked(question="Is it bright?", answer="no", category="track"),)
    video = Row(id="v", modality="video", names=("<0.5 seconds>", "<2.5 seconds>"), pictures=frames, asked=asked)
    figures = validate(learner.model, learner.heads, [row(0), row(1, size=96), video])
    assert [(figure.modality, figure.task, figure.count) for figure in figures] == [
        ("optical", "caption", 2), ("optical", "fraction", 2), ("optical", "vqa", 2), ("video", "track", 1),
    ]  # fmt: skip
    assert validate(learner.model, AlignmentHeads(width=32, levels=3), []) == []
