"""Checkpoints: plain Qwen3-VL folders, read and written so that stock transformers reads and writes the same.

A folder holds `config.json`, weights in safetensors, the tokenizer's files, and what is ours: `earthmap.json` (views,
preset, what it may answer) and `alignment.safetensors`, which other programs pass over. Pickles are never opened.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earthmap.errors import ModelError

if TYPE_CHECKING:
    import torch

CARD_FILE = "earthmap.json"
"""What a checkpoint says of itself."""

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_FIX = "give a folder saved by earthmap or by transformers' save_pretrained, or the name of a Qwen3-VL checkpoint"


def load_model(source: str | Path, *, dtype: torch.dtype) -> Any:
    """The `Qwen3VLForConditionalGeneration` in a folder, or of a public name, in evaluation mode and in `dtype`.

    Raises:
        ModelError: for a folder without a checkpoint, one of another model, one that lacks tensors or has others,
            damaged files, and pickles.
    """
    from transformers import Qwen3VLForConditionalGeneration

    folder = Path(source)
    if folder.exists():
        _check_folder(folder)
    try:
        model, found = Qwen3VLForConditionalGeneration.from_pretrained(
            str(source), dtype=dtype, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # transformers, tokenizers and safetensors share no base class of their errors
        raise ModelError(f"the checkpoint {source} cannot be loaded: {first_line(error)}", fix=_FIX) from error
    _check_tensors(str(source), found)
    return model.eval()


def first_line(error: Exception) -> str:
    """The first line of what an error says, or its class."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        pickled = folder.suffix.lower() in _PICKLES
        what = "may be a pickle, which runs code when it is opened" if pickled else "is a file"
        raise ModelError(f"{folder} {what}", expected="the folder of a checkpoint in safetensors", fix=_FIX)
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} holds no config.json", expected="the folder of a checkpoint", fix=_FIX)
    if not list(folder.glob("*.safetensors")):
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in _PICKLES)
        kept = f", only {pickles[0]}, which runs code when it is opened" if pickles else ""
        raise ModelError(f"{folder} holds no weights{kept}", expected="model.safetensors", fix=_FIX)
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{folder / 'config.json'} is damaged: {error}", fix=_FIX) from error
    if kind != "qwen3_vl":
        raise ModelError(f"{folder} holds a model of type {kind!r}", expected="qwen3_vl", fix=_FIX)


def _check_tensors(source: str, found: Mapping[str, Any]) -> None:
    for key, what in (("missing_keys", "lacks"), ("unexpected_keys", "has besides"), ("mismatched_keys", "misshapes")):
        names = sorted(str(name) for name in found.get(key) or ())
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ModelError(
                f"the checkpoint {source} {what} {', '.join(names[:3])}{more}",
                expected="the tensors that its config.json describes",
                fix="save it again, or take its config.json from where the weights come from",
            )


def save_model(model: Any, folder: Path, *, card: Mapping[str, Any]) -> None:
    """Write weights and configuration as stock transformers does, and what the checkpoint says of itself."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, safe_serialization=True)
    (folder / CARD_FILE).write_text(json.dumps(dict(card), indent=1, sort_keys=True), encoding="utf-8")


def read_card(folder: Path) -> dict[str, Any]:
    """What a checkpoint says of itself; empty for one that others made. Raises ModelError for a damaged card."""
    path = folder / CARD_FILE
    if not path.is_file():
        return {}
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is damaged: {error}", expected="JSON") from error
    if not isinstance(card, dict):
        raise ModelError(f"{path} holds a {type(card).__name__}", expected="a JSON object")
    return card
