"""Checkpoints go both ways between stock transformers and here; what is none is refused in one line."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen3VLForConditionalGeneration

from earthmap.errors import ModelError
from earthmap.model.card import Card, read_card
from earthmap.model.checkpoint import load_model, save_model
from tests.model.conftest import stock_logits


def _rows(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    picture = [model.config.vision_start_token_id, *[model.config.image_token_id] * 4, model.config.vision_end_token_id]
    pixels = torch.randint(0, 256, (2, 1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return torch.tensor([[5, *picture, 7, 8, 9]] * 2), pixels


def test_what_stock_writes_is_read_here(tiny: Any, tmp_path: Path) -> None:
    tiny.save_pretrained(tmp_path)
    rows, pixels = _rows(tiny)
    ours = load_model(tmp_path, dtype=torch.float32)
    torch.testing.assert_close(stock_logits(ours, rows, pixels), stock_logits(tiny, rows, pixels), atol=1e-4, rtol=0)
    assert not ours.training
    assert read_card(tmp_path) == Card()


def test_what_is_written_here_is_read_by_stock(tiny: Any, tmp_path: Path) -> None:
    save_model(tiny, tmp_path)
    rows, pixels = _rows(tiny)
    stock = Qwen3VLForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32).eval()
    torch.testing.assert_close(stock_logits(stock, rows, pixels), stock_logits(tiny, rows, pixels), atol=1e-4, rtol=0)


def _weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    def changed(folder: Path) -> None:
        path = folder / "model.safetensors"
        state = load_file(path)
        change(state)
        save_file(state, path, metadata={"format": "pt"})

    return changed


def _truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(print))


def _another(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_weights(lambda state: state.pop("model.visual.merger.linear_fc2.bias")), "lacks model.visual.merger"),
        (_weights(lambda state: state.update(other=torch.zeros(2))), "has besides other"),
        (_truncate, "model.safetensors is damaged"),
        (_pickled, "only pytorch_model.bin, which runs code"),
        (_another, "of type 'llama'"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is damaged"),
        (lambda folder: (folder / "config.json").unlink(), "holds no config.json"),
    ],
)
def test_folders_that_are_no_checkpoint(
    tiny: Any, tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    tiny.save_pretrained(tmp_path)
    change(tmp_path)
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path, dtype=torch.float32)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(pickle.dumps(print))
    with pytest.raises(ModelError, match="may be a pickle"):
        load_model(path, dtype=torch.float32)
