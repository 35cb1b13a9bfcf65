"""Learning on a small model: what is taught is learned, what is frozen stays, what leaps is told."""

from __future__ import annotations

import pytest
import torch

from earthmap.errors import TrainingError
from earthmap.model.words import Words
from earthmap.training import Learner, StageTable
from earthmap.training.step import REMEMBERED
from tests.training.learners import make, row, table


def test_what_is_taught_is_learned(learner: Learner) -> None:
    first = learner.learn([row(i) for i in range(8)])
    for _ in range(40):
        last = learner.learn([row(i) for i in range(8)])
    assert first.stage == "a"
    assert set(first.alignment) == {"patch", "region", "scene"}
    assert last.answers < 0.2 * first.answers
    assert last.right > 0.95
    assert last.alignment["patch"] < first.alignment["patch"]


def test_what_is_frozen_stays(words: Words) -> None:
    learner = make(words, table(groups="mergers"))
    before = {name: p.detach().clone() for name, p in learner.model.model.named_parameters()}
    learner.learn([row(0), row(1)])
    moved = {name for name, p in learner.model.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert all(name.startswith("model.visual.merger.") for name in moved)


def test_rows_of_several_sizes_are_one_step(learner: Learner) -> None:
    done = learner.learn([row(0), row(1, size=96), row(2)])
    assert done.tokens > 0
    assert learner.step == 1


def test_a_loss_that_leaps_or_is_no_number_ends_the_training(learner: Learner) -> None:
    learner.learn([row(0)])
    learner.last_good = "runs/one/step-000400"
    learner.losses.extend([0.01] * REMEMBERED)
    with pytest.raises(TrainingError, match=r"the loss of step 1 is .*, 0\.01 before; .*step-000400"):
        learner.learn([row(0)])
    assert learner.step == 1
    with torch.no_grad():
        learner.model.model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="not a number"):
        learner.learn([row(0)])


def test_a_stage_is_not_measured_by_the_one_before(words: Words) -> None:
    """Alignment comes in and the loss is ten times as large."""
    stage = table(steps=REMEMBERED + 1).stages[0].model_copy(update={"alignment_weight": 0.0})
    second = stage.model_copy(update={"name": "b", "alignment_weight": 50.0})
    learner = make(words, StageTable(stages=(stage, second)))
    learner.step = REMEMBERED + 1
    learner.losses.extend([0.5] * REMEMBERED)
    done = learner.learn([row(0), row(1)])
    assert done.stage == "b"
    assert done.loss > 10 * 0.5
    assert list(learner.losses) == [done.loss]


def test_nothing_is_learned_from_nothing(learner: Learner) -> None:
    with pytest.raises(TrainingError, match="without rows"):
        learner.learn([])
