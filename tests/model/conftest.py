"""A small model with weights large enough that every part of it matters, and stock transformers beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import Qwen3VLForConditionalGeneration

from earthmap.model import EarthOneVision
from earthmap.model.config import get_preset
from earthmap.model.processing import patch_grid, patchify


@pytest.fixture(scope="session")
def tiny() -> Any:
    """The preset `tiny`, as stock transformers builds it."""
    torch.manual_seed(7)
    model = Qwen3VLForConditionalGeneration(get_preset("tiny").config()).eval()
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.2)
    return model


def of_others(model: EarthOneVision) -> EarthOneVision:
    """As one that others trained: nobody knows what it was taught, and so it is asked everything."""
    model.card = replace(model.card, taught=None)
    return model


def stock_logits(model: Any, rows: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """(B, S, V) of stock transformers: (B, S) ids with the pictures' places, and (B, V, 3, H, W) uint8 views."""
    grid = patch_grid(*pixels.shape[-2:])
    views = pixels.shape[0] * pixels.shape[1]
    with torch.inference_mode():
        logits: torch.Tensor = model(
            input_ids=rows,
            attention_mask=torch.ones_like(rows),
            pixel_values=patchify(pixels.flatten(0, 1)).flatten(0, 1),
            image_grid_thw=torch.tensor([[1, grid.rows, grid.columns]] * views),
            mm_token_type_ids=(rows == model.config.image_token_id).int(),
        ).logits
    return logits
