"""What a run starts from: a new model, or one that knows something already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from earthmap.errors import ModelError
from earthmap.training.lora import adapt

if TYPE_CHECKING:
    from earthmap.model.alignment import AlignmentHeads
    from earthmap.model.earth_onevision import EarthOneVision
    from earthmap.model.words import Words
    from earthmap.training.sources import RowSource
    from earthmap.training.stages import StageTable

_WORD_STEPS = 4
"""Steps whose texts a small tokenizer is made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a run starts from: a new model of a preset, or a checkpoint; adapted where `lora` is a rank."""

    table: StageTable
    source: RowSource
    preset: str | None
    model: str | None
    seed: int
    lora: int | None

    def __call__(self) -> tuple[EarthOneVision, AlignmentHeads]:
        """The model, on a GPU where there is one, and its alignment heads. Raises ModelError, TrainingError."""
        model = self._new() if self.preset else self._trained()
        try:
            heads = model.heads()
        except ModelError:
            heads = _new_heads(model, seed=self.seed)
        if self.lora is not None:
            adapt(model.model, rank=self.lora, table=self.table, seed=self.seed)
        return model, heads

    def _new(self) -> EarthOneVision:
        from earthmap.model.earth_onevision import new_earth_onevision

        return new_earth_onevision(str(self.preset), self._words(), seed=self.seed, device=None)

    def _words(self) -> Words:
        """`nano`'s, or where they are too many for the preset, some made of what is asked and answered first."""
        from earthmap.model.config import get_preset
        from earthmap.model.words import nano_words, train_words

        preset, words = get_preset(str(self.preset)), nano_words()
        if len(words.tokenizer) <= preset.vocabulary:
            return words
        steps = range(min(_WORD_STEPS, self.table.steps))
        asked = [one for step in steps for row in self.source.rows(self.table, step) for one in row.asked]
        return train_words([text for one in asked for text in (one.question, one.answer)], size=preset.vocabulary)

    def _trained(self) -> EarthOneVision:
        """Its figures were another model's: what it learns here, it is to be measured on again."""
        from earthmap.model.earth_onevision import load_earth_onevision

        model = load_earth_onevision(str(self.model), dtype="float32")
        model.card = model.card.unmeasured
        return model


def _new_heads(model: EarthOneVision, *, seed: int) -> AlignmentHeads:
    import torch

    from earthmap.model.alignment import AlignmentHeads

    config = model.model.config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        levels = len(config.vision_config.deepstack_visual_indexes) + 1
        heads = AlignmentHeads(width=config.text_config.hidden_size, levels=levels)
    return heads.to(model.engine.device)
