"""Learning on a small model: what is taught is learned, what is frozen stays, what leaps is told."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from earthmap.errors import TrainingError
from earthmap.model.alignment import AlignmentHeads
from earthmap.model.words import Words, train_words
from earthmap.training import Asked, Row, StageTable, parse_table
from earthmap.training.step import REMEMBERED, Learner

RATE = 0.003


def table(
    steps: int = 60, groups: str = "decoder patch_embedding vision_blocks mergers deepstack_mergers"
) -> StageTable:
    """One stage in which `groups` and the heads learn."""
    rates = ", ".join(f"{name}: {RATE}" for name in [*groups.split(), "alignment_heads"])
    stage = f"name: a, modalities: optical, rates: {{{rates}}}, steps: {steps}, tokens: 1, alignment_weight: 0.3"
    return parse_table(f"stages: [{{{stage}}}]", source="t")


def row(number: int, *, size: int = 64) -> Row:
    """Bright or dark, and asked which."""
    bright = number % 2 == 0
    rng = np.random.default_rng(number)
    pictures = rng.integers(150 if bright else 0, 256 if bright else 100, (1, 3, size, size), dtype=np.uint8)
    shares = np.zeros((1, (size // 32) ** 2, 2), np.float32)
    shares[:, :, 0 if bright else 1] = 1.0
    asked = (
        Asked(question="Is it bright?", answer="yes" if bright else "no", category="vqa"),
        Asked(question="What is there?", answer="snow" if bright else "deep water", category="caption"),
    )
    return Row(id=str(number), modality="optical", names=("rgb",), pictures=pictures, asked=asked,
               classes=("snow", "water"), shares=shares)  # fmt: skip


@pytest.fixture(scope="module")
def words() -> Words:
    return train_words(["Is it bright? yes no", "What is there? snow deep water"] * 3, size=320)


@pytest.fixture
def learner(tiny: Any, words: Words) -> Learner:
    return make(tiny, words, table())


def make(tiny: Any, words: Words, stages: StageTable, **options: int) -> Learner:
    """A learner of a copy of `tiny`."""
    torch.manual_seed(1)
    model = copy.deepcopy(tiny)
    heads = AlignmentHeads(width=model.config.text_config.hidden_size, levels=3, shared_width=32)
    return Learner(model, heads, words, table=stages, **options)


def test_what_is_taught_is_learned(learner: Learner) -> None:
    first = learner.learn([row(i) for i in range(8)])
    for _ in range(40):
        last = learner.learn([row(i) for i in range(8)])
    assert first.stage == "a"
    assert set(first.alignment) == {"patch", "region", "scene"}
    assert last.answers < 0.2 * first.answers
    assert last.right > 0.95
    assert last.alignment["patch"] < first.alignment["patch"]


def test_small_batches_have_the_gradients_of_one(tiny: Any, words: Words) -> None:
    """All of it but scene alignment, whose texts are contrasted within a batch."""
    rows = [row(i) for i in range(6)]
    gradients = []
    for at_once in (6, 2):
        learner = make(tiny, words, table(), at_once=at_once)
        stage = learner.stage.model_copy(update={"alignment_weight": 0.0})
        learner._gradients(rows, stage)
        gradients.append({name: p.grad for name, p in learner.model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-5, rtol=1e-3)


def test_what_is_frozen_stays(tiny: Any, words: Words) -> None:
    learner = make(tiny, words, table(groups="mergers"))
    before = {name: p.detach().clone() for name, p in learner.model.named_parameters()}
    learner.learn([row(0), row(1)])
    moved = {name for name, p in learner.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert all(name.startswith("model.visual.merger.") for name in moved)


def test_rows_of_several_sizes_are_one_step(learner: Learner) -> None:
    done = learner.learn([row(0), row(1, size=96), row(2)])
    assert done.tokens > 0
    assert learner.step == 1


def test_a_loss_that_leaps_or_is_no_number_ends_the_training(learner: Learner) -> None:
    learner.last_good = "runs/one/step-000400"
    learner.losses.extend([0.01] * REMEMBERED)
    with pytest.raises(TrainingError, match=r"the loss of step 0 is .*, 0\.01 before; .*step-000400"):
        learner.learn([row(0)])
    assert learner.step == 0
    with torch.no_grad():
        learner.model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="not a number"):
        learner.learn([row(0)])


def test_nothing_is_learned_from_nothing(learner: Learner) -> None:
    with pytest.raises(TrainingError, match="without rows"):
        learner.learn([])
