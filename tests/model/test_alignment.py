"""Alignment: equal texts are one, regions are means, heads go to their own file and come back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from earthmap.errors import ModelError
from earthmap.model.alignment import (
    ALIGNMENT_FILE,
    AlignmentHeads,
    Pairs,
    class_map,
    granularities,
    load_heads,
    pool_regions,
    save_heads,
    text_vectors,
)
from earthmap.model.vision import VisualFeatures


def test_levels_go_from_words_to_the_scene() -> None:
    assert granularities(2) == ("patch", "scene")
    assert granularities(4) == ("patch", "region", "region", "scene")


def test_the_loss_is_siglips() -> None:
    torch.manual_seed(0)
    heads = AlignmentHeads(width=8, levels=3, shared_width=4)
    pairs = Pairs(visual=torch.randn(5, 8), text=torch.randn(3, 8), same=torch.rand(5, 3) > 0.5)
    logits = heads.logits(1, pairs.visual, pairs.text).detach()
    expected = sum(
        math.log1p(math.exp(-float(logits[i, j]) if pairs.same[i, j] else float(logits[i, j])))
        for i in range(5)
        for j in range(3)
    )
    assert heads.loss(1, pairs).item() == pytest.approx(expected / 5, rel=1e-5)


def test_training_the_heads_brings_words_and_patches_together() -> None:
    torch.manual_seed(0)
    heads = AlignmentHeads(width=8, levels=3, shared_width=8)
    kinds = torch.randint(0, 4, (64,))
    pairs = Pairs(
        visual=torch.randn(4, 8)[kinds] + 0.3 * torch.randn(64, 8),
        text=torch.randn(4, 8),
        same=torch.nn.functional.one_hot(kinds, 4).bool(),
    )
    optimizer = torch.optim.Adam(heads.parameters(), lr=0.03)
    before = heads.retrieval(0, pairs)
    for _ in range(60):
        optimizer.zero_grad()
        heads.loss(0, pairs).backward()
        optimizer.step()
    assert heads.retrieval(0, pairs) > max(before, 0.9)
    untouched = [heads.visual[level].weight.grad for level in (1, 2)]
    assert untouched == [None, None], "levels do not share heads"


def test_a_region_is_the_mean_of_its_blocks() -> None:
    features = torch.arange(12.0).view(1, 4, 3)
    masks = torch.tensor([[[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0]]])
    pooled = pool_regions(features, masks)
    assert pooled[0].tolist() == [[1.5, 2.5, 3.5], [6.0, 7.0, 8.0], [0.0, 0.0, 0.0]]


def test_the_vector_of_a_text_is_its_own(tiny: Any) -> None:
    """Mean final state, as stock gives it for the text alone, whatever stands beside it."""
    decoder = tiny.model.language_model
    texts = ((5, 6, 7), (8,), (9, 10))
    with torch.inference_mode():
        together = text_vectors(decoder, texts)
        for vector, text in zip(together, texts, strict=True):
            stock = decoder(input_ids=torch.tensor([text])).last_hidden_state[0].mean(dim=0)
            torch.testing.assert_close(vector, stock, atol=1e-4, rtol=1e-4)


def test_class_maps_use_the_last_level(tmp_path: Path) -> None:
    torch.manual_seed(0)
    heads = AlignmentHeads(width=8, levels=3, shared_width=4)
    save_heads(heads, tmp_path)
    again = load_heads(tmp_path, width=8, levels=3)
    features = VisualFeatures(last=torch.randn(2, 5, 8), levels=(torch.randn(2, 5, 8), torch.randn(2, 5, 8)))
    text = torch.randn(3, 8)
    found = class_map(again, features, text)
    assert found.shape == (2, 5, 3)
    torch.testing.assert_close(found, heads.logits(2, features.last, text).sigmoid())


def test_without_their_file_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"holds no {ALIGNMENT_FILE}"):
        load_heads(tmp_path, width=8, levels=3)
    save_heads(AlignmentHeads(width=8, levels=3, shared_width=4), tmp_path)
    with pytest.raises(ModelError, match="expected 4 levels of width 16"):
        load_heads(tmp_path, width=16, levels=4)
    (tmp_path / ALIGNMENT_FILE).write_bytes(b"no tensors")
    with pytest.raises(ModelError, match="is not the alignment"):
        load_heads(tmp_path, width=8, levels=3)
