"""A checkpoint's folder before anything is opened that could run code, or allocated that nothing fills.

Configuration and headers are read and compared here; weights only follow where the numbers agree. What else a folder
can name (code of its own, kernels, adapters, other files) is refused or passed over, and pickles are never opened.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earthmap.errors import ModelError

if TYPE_CHECKING:
    from transformers import Qwen3VLConfig

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
"""Endings of files that may be pickles."""

FIX = "give a folder saved by earthmap or by transformers' save_pretrained, or the name of a Qwen3-VL checkpoint"

_MOST_JSON_BYTES = 100_000_000
_MOST = {"layers": 1_000, "width": 1_000_000, "rows": 10_000_000}
"""Above what any model has, and small enough that its empty form is built in a moment."""

_SIZES = {
    "text_config": {
        "num_hidden_layers": "layers",
        "hidden_size": "width",
        "intermediate_size": "width",
        "num_attention_heads": "width",
        "num_key_value_heads": "width",
        "head_dim": "width",
        "vocab_size": "rows",
    },
    "vision_config": {
        "depth": "layers",
        "hidden_size": "width",
        "intermediate_size": "width",
        "num_heads": "width",
        "out_hidden_size": "width",
        "num_position_embeddings": "rows",
    },
}
"""Numbers of a configuration that sizes follow from."""

_FIXED = {"patch_size": 16, "temporal_patch_size": 2, "spatial_merge_size": 2, "in_channels": 3}
"""What `earthmap.model.processing` makes of a picture."""

_NOT_FOLLOWED = ("auto_map", "attn_implementation", "_attn_implementation", "kernel_config", "transformers_weights")
"""Keys of a configuration that name code, kernels to fetch or other files."""


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its class."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def inspect_folder(folder: Path) -> Qwen3VLConfig:
    """The configuration of the checkpoint in `folder`, whose weights are whole and as large as it says.

    Raises:
        ModelError: for what is no folder of a Qwen3-VL checkpoint in safetensors.
    """
    if not folder.is_dir():
        raise _no_folder(folder)
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{folder} holds an adapter", expected="a whole checkpoint", fix="merge it into its model first"
        )
    config = _configuration(folder)
    held = sum(_elements(path) for path in weight_files(folder))
    described = _described_elements(config, folder)
    # Tied word embeddings may be kept twice; anything else that lies apart is named tensor by tensor later.
    if described > 2 * held:
        raise ModelError(
            f"{folder / 'config.json'} describes a model of {described:,} numbers, and its weights are {held:,}",
            expected="the weights that it describes",
            fix="take config.json from where the weights come from",
        )
    return config


def _no_folder(path: Path) -> ModelError:
    expected = "the folder of a checkpoint in safetensors"
    if path.suffix.lower() in PICKLES:
        return ModelError(f"{path} may be a pickle, which runs code when it is opened", expected=expected, fix=FIX)
    what = "is a file" if path.is_file() else "is not there, or a link to itself"
    return ModelError(f"{path} {what}", expected=expected, fix=FIX)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises ModelError for a file that is damaged, too large, or holds something else."""
    try:
        if path.stat().st_size > _MOST_JSON_BYTES:
            raise ModelError(f"{path} is over {_MOST_JSON_BYTES:,} bytes", expected="JSON of a checkpoint", fix=FIX)
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}", expected="JSON", fix=FIX) from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is damaged: {first_line(error)}", expected="JSON", fix=FIX) from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} is damaged: it holds a {type(found).__name__}", expected="a JSON object", fix=FIX)
    return found


# ── configuration ────────────────────────────────────────────────────────────────────────────────────────────────


def _configuration(folder: Path) -> Qwen3VLConfig:
    from transformers import Qwen3VLConfig

    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"{folder} holds no config.json", expected="the folder of a checkpoint", fix=FIX)
    told = read_json(path)
    if told.get("model_type") != "qwen3_vl":
        raise ModelError(f"{folder} holds a model of type {told.get('model_type')!r}", expected="qwen3_vl", fix=FIX)
    if told.get("quantization_config"):
        raise ModelError(f"{folder} holds quantised weights", expected="float32, float16 or bfloat16", fix=FIX)
    try:
        config = Qwen3VLConfig.from_dict(_without_code(told))
    except Exception as error:  # its checks share no base class
        raise ModelError(f"{path} cannot be used: {first_line(error)}", expected="Qwen3-VL's", fix=FIX) from error
    _check_sizes(config, path)
    _check_shares(config, path)
    return config


def _check_sizes(config: Qwen3VLConfig, path: Path) -> None:
    for part, sizes in _SIZES.items():
        for key, kind in sizes.items():
            value = getattr(getattr(config, part), key)
            if not isinstance(value, int) or not 1 <= value <= _MOST[kind]:
                raise ModelError(
                    f"{path} has {part}.{key} {value!r}", expected=f"a number from 1 to {_MOST[kind]:,}", fix=FIX
                )
    for key, fixed in _FIXED.items():
        value = getattr(config.vision_config, key)
        if value != fixed:
            raise ModelError(f"{path} has vision_config.{key} {value!r}", expected=str(fixed), fix=FIX)


def _check_shares(config: Qwen3VLConfig, path: Path) -> None:
    """Numbers that have to divide or add up, which weights of the right shapes do not tell."""
    text, vision = config.text_config, config.vision_config
    levels, sections = list(vision.deepstack_visual_indexes), (text.rope_parameters or {}).get("mrope_section")
    faults = {
        "key_value_heads that do not divide the heads": text.num_attention_heads % text.num_key_value_heads,
        "vision heads that do not divide their width": vision.hidden_size % vision.num_heads,
        "visual features of another width than the text's": vision.out_hidden_size != text.hidden_size,
        "levels that are no rising layers of the vision tower": levels
        != sorted(set(levels) & set(range(vision.depth))),
        "more levels than decoder layers": len(levels) > text.num_hidden_layers,
        "rotary sections that are no half of a head": sections is not None
        and (len(sections) != 3 or min(sections) < 0 or sum(sections) * 2 != text.head_dim),
    }
    for fault, found in faults.items():
        if found:
            raise ModelError(f"{path} has {fault}", expected="Qwen3-VL's", fix=FIX)


def _without_code(told: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without the keys that are not followed, its parts' included."""
    return {
        key: _without_code(value) if isinstance(value, Mapping) else value
        for key, value in told.items()
        if key not in _NOT_FOLLOWED
    }


def _described_elements(config: Qwen3VLConfig, folder: Path) -> int:
    """Numbers in the model of a configuration; nothing is allocated."""
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    try:
        with torch.device("meta"):
            model = Qwen3VLForConditionalGeneration(config)
    except Exception as error:  # whatever a layer says of sizes that do not fit each other
        raise ModelError(
            f"{folder / 'config.json'} describes no model: {first_line(error)}", expected="Qwen3-VL's", fix=FIX
        ) from error
    return sum(weight.numel() for weight in model.parameters())


# ── weights ──────────────────────────────────────────────────────────────────────────────────────────────────────


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a checkpoint's weights: the one, or those of its index, which never lie elsewhere.

    Raises:
        ModelError: where there are none, or the index is damaged or names files that are not in the folder.
    """
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if not (folder / INDEX_FILE).is_file():
        raise _no_weights(folder)
    named = read_json(folder / INDEX_FILE).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named.values()):
        raise ModelError(f"{folder / INDEX_FILE} is damaged", expected="the file of each tensor in weight_map", fix=FIX)
    files = sorted(set(named.values()))
    for name in files:
        if "/" in name or "\\" in name or not name.endswith(".safetensors"):
            raise ModelError(
                f"{folder / INDEX_FILE} names {name[:100]!r}", expected="safetensors files of the same folder", fix=FIX
            )
        if not (folder / name).is_file():
            raise ModelError(f"{folder} lacks {name}", expected="every file of its index", fix="fetch it again")
    return [folder / name for name in files]


def _no_weights(folder: Path) -> ModelError:
    if not folder.is_dir():
        return _no_folder(folder)
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in PICKLES)
    kept = f", only {pickles[0]}, which runs code when it is opened" if pickles else ""
    return ModelError(f"{folder} holds no weights{kept}", expected=WEIGHTS_FILE, fix=FIX)


def _elements(path: Path) -> int:
    """Numbers that a safetensors file holds, by its header, which its length has to agree with."""
    from safetensors import SafetensorError, safe_open

    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}", expected="weights", fix=FIX) from error
    if start == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05"):
        raise ModelError(
            f"{path} is a pickle, which runs code when it is opened", expected="weights in safetensors", fix=FIX
        )
    try:
        with safe_open(path, framework="pt") as tensors:
            return sum(_product(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is damaged: {first_line(error)}", expected="a whole safetensors file", fix="fetch it again"
        ) from error


def _product(shape: list[int]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count
