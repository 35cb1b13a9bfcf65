"""Presets: the sizes in which Earth-OneVision is built. Each is a plain Qwen3-VL configuration.

`2b` has the shape of the public Qwen3-VL-2B, which the paper (Cai et al., arXiv 2606.10819) starts from: 2.1275 billion
parameters with the word embeddings counted once. `nano` answers on one core of a CPU. `tiny` is for tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from earthmap.errors import ModelError

if TYPE_CHECKING:
    from transformers import Qwen3VLConfig

MAX_TOKENS = 5_400
"""Longest prompt with its answer, in tokens (the paper's limit)."""

MROPE_SECTION = {128: (24, 20, 20), 64: (12, 10, 10), 32: (6, 5, 5), 16: (4, 2, 2)}
"""Shares of time, height and width among the rotary frequencies, by the width of a head; Qwen3-VL's for 128."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One size of the model."""

    name: str
    vocabulary: int
    """Rows of the embedding table; a smaller tokenizer leaves the last ones unused."""
    text_layers: int
    text_width: int
    heads: int
    key_heads: int
    """Heads of keys and values, each shared by `heads / key_heads` queries."""
    head_width: int
    feed_forward: int
    vision_layers: int
    vision_width: int
    vision_heads: int
    vision_feed_forward: int
    levels: tuple[int, ...]
    """Vision layers whose features enter the first decoder layers (DeepStack), from shallow to deep."""
    positions: int
    """Learned positions of the vision tower: a square number."""
    theta: float = 5_000_000.0
    """Base of the text's rotary frequencies."""
    tile_sizes: tuple[int, ...] = (448, 224, 128)
    """Sides in pixels of the pictures that it is trained on."""

    def config(self, marks: Mapping[str, int] | None = None) -> Qwen3VLConfig:
        """The configuration that transformers builds this size from; word embeddings are tied.

        `marks` are the ids of a tokenizer's marks (`Words.marks`); without them those of the public checkpoints, or the
        last ones of a small vocabulary.
        """
        from transformers import Qwen3VLConfig

        return Qwen3VLConfig(
            vision_config=self._vision(),
            text_config=self._text(),
            tie_word_embeddings=True,
            **(_special(self.vocabulary) if marks is None else {id: marks[mark] for id, mark in MARK_IDS.items()}),
        )

    def _vision(self) -> dict[str, Any]:
        return {
            "depth": self.vision_layers,
            "hidden_size": self.vision_width,
            "intermediate_size": self.vision_feed_forward,
            "num_heads": self.vision_heads,
            "out_hidden_size": self.text_width,
            "num_position_embeddings": self.positions,
            "deepstack_visual_indexes": list(self.levels),
        }

    def _text(self) -> dict[str, Any]:
        rope = {
            "rope_type": "default",
            "rope_theta": self.theta,
            "mrope_section": list(MROPE_SECTION[self.head_width]),
            "mrope_interleaved": True,
        }
        return {
            "vocab_size": self.vocabulary,
            "hidden_size": self.text_width,
            "intermediate_size": self.feed_forward,
            "num_hidden_layers": self.text_layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_heads,
            "head_dim": self.head_width,
            "max_position_embeddings": 262_144,
            "rope_parameters": rope,
            "tie_word_embeddings": True,
        }


MARK_IDS = {
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
}
"""Where a configuration names the ids of the marks around pictures."""


def _special(vocabulary: int) -> dict[str, int]:
    """Ids of the four marks around pictures: the public checkpoints', or the last ones of a small vocabulary."""
    if vocabulary > 151_656:
        return dict(zip(MARK_IDS, (151_652, 151_653, 151_655, 151_656), strict=True))
    return {name: vocabulary - 4 + number for number, name in enumerate(MARK_IDS)}


_PRESETS = (
    Preset(
        name="2b", vocabulary=151_936, text_layers=28, text_width=2048, heads=16, key_heads=8, head_width=128,
        feed_forward=6144, vision_layers=24, vision_width=1024, vision_heads=16, vision_feed_forward=4096,
        levels=(5, 11, 17), positions=2304,
    ),
    Preset(
        name="nano", vocabulary=4096, text_layers=4, text_width=192, heads=6, key_heads=2, head_width=32,
        feed_forward=512, vision_layers=6, vision_width=192, vision_heads=6, vision_feed_forward=512,
        levels=(1, 3), positions=64, theta=10_000.0, tile_sizes=(128,),
    ),
    Preset(
        name="tiny", vocabulary=512, text_layers=3, text_width=32, heads=4, key_heads=2, head_width=16,
        feed_forward=64, vision_layers=3, vision_width=32, vision_heads=2, vision_feed_forward=64,
        levels=(0, 1), positions=64, theta=10_000.0,
    ),
)  # fmt: skip

PRESETS = {preset.name: preset for preset in _PRESETS}
"""Every size by name."""


def get_preset(name: str) -> Preset:
    """The preset `name`. Raises ModelError that names those there are."""
    if name not in PRESETS:
        raise ModelError(f"there is no preset {name!r}", expected=f"one of {', '.join(PRESETS)}")
    return PRESETS[name]
