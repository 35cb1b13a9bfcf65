"""Sizes of the presets, and configurations as the public checkpoints write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen3VLForConditionalGeneration

from earthmap.errors import ModelError
from earthmap.model.checkpoint import load_model
from earthmap.model.config import MARK_IDS, MROPE_SECTION, PRESETS, get_preset

# What the public Qwen3-VL-2B publishes, in the form of the transformers it was written with.
PUBLIC_TEXT = {
    "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 151643, "dtype": "bfloat16",
    "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
    "intermediate_size": 6144, "max_position_embeddings": 262144, "model_type": "qwen3_vl_text",
    "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8, "rms_norm_eps": 1e-06,
    "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
    "rope_theta": 5000000, "tie_word_embeddings": True, "use_cache": True, "vocab_size": 151936,
}  # fmt: skip
PUBLIC_VISION = {
    "deepstack_visual_indexes": [5, 11, 17], "depth": 24, "hidden_act": "gelu_pytorch_tanh", "hidden_size": 1024,
    "in_channels": 3, "initializer_range": 0.02, "intermediate_size": 4096, "model_type": "qwen3_vl", "num_heads": 16,
    "num_position_embeddings": 2304, "out_hidden_size": 2048, "patch_size": 16, "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}  # fmt: skip
PUBLIC: dict[str, Any] = {
    "architectures": ["Qwen3VLForConditionalGeneration"], "image_token_id": 151655, "model_type": "qwen3_vl",
    "text_config": PUBLIC_TEXT, "tie_word_embeddings": True, "transformers_version": "4.57.0.dev0",
    "video_token_id": 151656, "vision_config": PUBLIC_VISION, "vision_end_token_id": 151653,
    "vision_start_token_id": 151652,
}  # fmt: skip


def _empty(name: str) -> Any:
    with torch.device("meta"):
        return Qwen3VLForConditionalGeneration(get_preset(name).config())


def test_the_papers_size() -> None:
    assert round(sum(weight.numel() for weight in _empty("2b").parameters()) / 1e9, 4) == 2.1275


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_is_a_model(name: str) -> None:
    preset = get_preset(name)
    assert sum(MROPE_SECTION[preset.head_width]) * 2 == preset.head_width
    model = _empty(name)
    assert model.config.text_config.head_dim == preset.head_width
    assert len(model.model.visual.deepstack_merger_list) == len(preset.levels)
    assert max(getattr(model.config, id) for id in MARK_IDS) < preset.vocabulary


def test_2b_is_the_public_configuration() -> None:
    ours = get_preset("2b").config()
    for key, value in PUBLIC_VISION.items():
        if key != "model_type":
            assert getattr(ours.vision_config, key) == value, key
    for key, value in PUBLIC_TEXT.items():
        if key not in ("rope_scaling", "rope_theta", "bos_token_id", "eos_token_id", "dtype"):
            assert getattr(ours.text_config, key) == value, key
    assert ours.text_config.rope_parameters["mrope_section"] == [24, 20, 20]
    assert ours.text_config.rope_parameters["rope_theta"] == 5000000
    assert all(getattr(ours, key) == PUBLIC[key] for key in MARK_IDS)


def test_a_configuration_in_the_public_form_loads(tiny: Any, tmp_path: Path) -> None:
    tiny.save_pretrained(tmp_path)
    told = json.loads((tmp_path / "config.json").read_text())
    text = {key: told["text_config"][key] for key in PUBLIC_TEXT if key in told["text_config"]}
    rope = {"mrope_interleaved": True, "mrope_section": [4, 2, 2], "rope_type": "default"}
    vision = {key: told["vision_config"][key] for key in PUBLIC_VISION}
    public = PUBLIC | {key: told[key] for key in MARK_IDS}
    public["text_config"] = text | {"rope_scaling": rope, "rope_theta": 10_000, "dtype": "float32"}
    public["vision_config"] = vision | {"model_type": "qwen3_vl"}
    (tmp_path / "config.json").write_text(json.dumps(public))
    loaded = load_model(tmp_path, dtype=torch.float32)
    assert loaded.config.text_config.rope_parameters["rope_theta"] == 10_000
    rows = torch.arange(12)[None]
    with torch.inference_mode():
        torch.testing.assert_close(loaded(input_ids=rows).logits, tiny(input_ids=rows).logits, atol=1e-4, rtol=0)


def test_no_preset_is_one_sentence() -> None:
    with pytest.raises(ModelError, match="expected one of 2b, nano, tiny"):
        get_preset("8b")
