"""LoRA: the model itself stays, its adapters learn, are read again, and are added to it to the same answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import Qwen3VLForConditionalGeneration

from earthmap.errors import ModelError, TrainingError
from earthmap.model.words import Words
from earthmap.training import Learner, load_learner, newest_checkpoint, save_checkpoint
from earthmap.training.lora import adapt, is_adapted, load_adapters, merge, save_adapters
from earthmap.training.losses import answer_losses, look
from earthmap.training.packing import pack
from tests.training.learners import make, row, table

ROWS = [row(number) for number in range(4)]


def _adapted(words: Words, *, rank: int = 2, groups: str = "decoder vision_blocks", seed: int = 5) -> Learner:
    stages = table(groups=groups)
    plain = make(words, stages)
    adapt(plain.model.model, rank=rank, table=stages, seed=seed)
    return Learner(plain.model, plain.heads, table=stages)


def _losses(learner: Learner) -> torch.Tensor:
    batch = pack(ROWS, learner.model.words)
    with torch.no_grad():
        return answer_losses(learner.model.model, batch, look(learner.model.model, batch)).loss


def test_adapters_change_nothing_before_they_have_learned(words: Words) -> None:
    torch.testing.assert_close(_losses(_adapted(words)), _losses(make(words, table())))


def test_the_model_stays_and_its_adapters_learn(words: Words) -> None:
    learner = _adapted(words)
    before = {name: p.detach().clone() for name, p in learner.model.model.named_parameters()}
    first = learner.learn(ROWS)
    for _ in range(30):
        last = learner.learn(ROWS)
    moved = {name for name, p in learner.model.model.named_parameters() if not torch.equal(p, before[name])}
    assert last.answers < 0.8 * first.answers
    assert moved
    assert all(".lora_" in name for name in moved)
    parts = {name.split(".layers")[0].split(".blocks")[0] for name in moved}
    assert parts == {"model.visual", "model.language_model"}
    assert not any("merger" in name for name in moved)


def test_a_checkpoint_of_adapters_goes_on_to_the_same_bits(words: Words, tmp_path: Path) -> None:
    learner = _adapted(words)
    for _ in range(3):
        learner.learn(ROWS)
    place = save_checkpoint(learner, tmp_path)
    assert newest_checkpoint(tmp_path) == place
    assert not (place / "model").exists()
    again = load_learner(place, table=learner.table, start=lambda: (_adapted(words).model, make(words, table()).heads))
    assert learner.learn(ROWS) == again.learn(ROWS)
    for name, weight in learner.model.model.state_dict().items():
        assert torch.equal(again.model.model.state_dict()[name], weight), name
    with pytest.raises(TrainingError, match="holds adapters alone"):
        load_learner(place, table=learner.table)


def test_merged_it_is_a_plain_checkpoint_that_says_the_same(words: Words, tmp_path: Path) -> None:
    learner = _adapted(words)
    for _ in range(5):
        learner.learn(ROWS)
    expected, names = _losses(learner), set(make(words, table()).model.model.state_dict())
    merge(learner.model.model)
    assert not is_adapted(learner.model.model)
    assert set(learner.model.model.state_dict()) == names
    torch.testing.assert_close(_losses(learner), expected, atol=1e-4, rtol=1e-4)
    learner.model.save(tmp_path / "model")
    stock = Qwen3VLForConditionalGeneration.from_pretrained(tmp_path / "model", dtype=torch.float32)
    for name, weight in learner.model.model.state_dict().items():
        assert torch.equal(stock.state_dict()[name], weight), name


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks transformers for it
def test_peft_reads_what_is_written(words: Words, tmp_path: Path) -> None:
    learner = _adapted(words)
    for _ in range(5):
        learner.learn(ROWS)
    save_adapters(learner.model.model, tmp_path)
    plain = make(words, table())
    loaded = PeftModel.from_pretrained(plain.model.model, tmp_path)
    torch.testing.assert_close(_losses(plain), _losses(learner))
    assert loaded.peft_config["default"].r == 2


def test_what_cannot_be_adapted_is_refused(words: Words, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="rank 0"):
        _adapted(words, rank=0)
    with pytest.raises(TrainingError, match="none of alignment_heads, patch_embedding has layers"):
        _adapted(words, groups="patch_embedding")
    save_adapters(_adapted(words, rank=3).model.model, tmp_path)
    with pytest.raises(ModelError, match="no adapters of this model"):
        load_adapters(_adapted(words).model.model, tmp_path)
    with pytest.raises(ModelError, match="tensors"):
        load_adapters(_adapted(words, groups="decoder").model.model, tmp_path)
