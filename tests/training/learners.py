"""Small learners, and rows that are easily told apart."""

from __future__ import annotations

import numpy as np
import torch

from earthmap.model.alignment import AlignmentHeads
from earthmap.model.earth_onevision import new_earth_onevision
from earthmap.model.words import Words, train_words
from earthmap.training import Asked, Learner, Row, StageTable, parse_table

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


def few_words() -> Words:
    """Words for `row`."""
    return train_words(["Is it bright? yes no", "What is there? snow deep water"] * 3, size=320)


def make(words: Words, stages: StageTable, **options: int) -> Learner:
    """A learner of a new `tiny`."""
    model = new_earth_onevision("tiny", words, seed=1)
    for number, weight in enumerate(model.model.parameters()):
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.2, generator=torch.Generator().manual_seed(number))
    torch.manual_seed(1)
    heads = AlignmentHeads(width=model.model.config.text_config.hidden_size, levels=3, shared_width=32)
    return Learner(model, heads, table=stages, **options)
