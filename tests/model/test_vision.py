"""Dense pictures against stock transformers, and patches against its image processor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from earthmap.errors import ModelError
from earthmap.model.config import get_preset
from earthmap.model.processing import normalize, patch_grid, patchify
from earthmap.model.vision import encode, grid_positions


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (224, 224), (96, 32)])
def test_dense_is_stock(tiny: Any, height: int, width: int) -> None:
    pixels = torch.randint(0, 256, (3, 3, height, width), dtype=torch.uint8)
    patches, grid = patchify(pixels), patch_grid(height, width)
    with torch.inference_mode():
        stock = tiny.model.visual(patches.flatten(0, 1), grid_thw=torch.tensor([[1, grid.rows, grid.columns]] * 3))
        ours = encode(tiny.model.visual, patches, grid_positions(tiny.model.visual, grid))
    torch.testing.assert_close(ours.last.flatten(0, 1), stock.pooler_output, atol=1e-4, rtol=1e-4)
    assert len(ours.levels) == len(stock.deepstack_features)
    for level, expected in zip(ours.levels, stock.deepstack_features, strict=True):
        torch.testing.assert_close(level.flatten(0, 1), expected, atol=1e-4, rtol=1e-4)


def test_patches_are_those_of_the_stock_processor() -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    processor = Qwen2VLImageProcessorPil(image_mean=[0.5] * 3, image_std=[0.5] * 3, patch_size=16, do_resize=False)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    stock = processor(images=[pixels], return_tensors="pt")
    ours = patchify(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    torch.testing.assert_close(ours[0], torch.as_tensor(stock["pixel_values"]).float(), atol=1e-5, rtol=0)
    assert stock["image_grid_thw"].tolist() == [[1, 4, 6]]


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (torch.tensor([0, 255], dtype=torch.uint8), [-1.0, 1.0]),
        (torch.tensor([0, 65535], dtype=torch.uint16), [-1.0, 1.0]),
        (torch.tensor([0.0, 0.5, 1.0]), [-1.0, 0.0, 1.0]),
    ],
)
def test_all_types_mean_the_same(pixels: torch.Tensor, expected: list[float]) -> None:
    assert normalize(pixels).tolist() == pytest.approx(expected)
    assert pixels[-1].item() > 0, "the argument is left as it was"


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (torch.zeros(1, 3, 100, 64, dtype=torch.uint8), "multiples of 32"),
        (torch.zeros(1, 4, 64, 64, dtype=torch.uint8), r"expected \(B, 3, H, W\)"),
        (torch.zeros(1, 3, 3, 64, 64, dtype=torch.uint8), r"expected \(B, 3, H, W\)"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.int32), "uint8, uint16 or floats"),
        (torch.full((1, 3, 64, 64), float("nan")), "NaN or infinite"),
    ],
)
def test_pixels_that_are_none_are_refused(pixels: torch.Tensor, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        patchify(pixels)


def test_frames_of_a_video_share_a_patch() -> None:
    frames = torch.randint(0, 256, (2, 2, 3, 32, 32), dtype=torch.uint8)
    patches = patchify(frames).view(2, 4, 3, 2, 16, 16)
    first = patchify(frames[:, 0]).view(2, 4, 3, 2, 16, 16)
    torch.testing.assert_close(patches[:, :, :, 0], first[:, :, :, 0])
    assert not torch.equal(patches[:, :, :, 0], patches[:, :, :, 1])


def test_the_preset_2b_is_the_papers() -> None:
    from transformers import Qwen3VLForConditionalGeneration

    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration(get_preset("2b").config())
        model.tie_weights()
    count = sum(weight.numel() for weight in model.parameters())
    assert count == pytest.approx(2.1275e9, abs=5e4)
    with pytest.raises(ModelError, match="expected one of 2b, "):
        get_preset("3b")
