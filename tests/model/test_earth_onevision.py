"""The whole model: what is saved loads again, here and in stock transformers; one key for equal content."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, Qwen3VLForConditionalGeneration

from earthmap.errors import ModelError
from earthmap.model import earth_onevision
from earthmap.model.alignment import AlignmentHeads, save_heads
from earthmap.model.card import Card, Figure
from earthmap.model.checkpoint import checkpoint_key
from earthmap.model.config import get_preset
from earthmap.model.earth_onevision import EarthOneVision, load_earth_onevision, new_earth_onevision
from earthmap.model.engine import Closed, lay_out_stem
from earthmap.model.processing import patch_grid
from earthmap.model.words import MARKS, Words, train_words
from tests.model.conftest import stock_logits

TEXTS = ["Is there any water in this tile? yes no", "ship:box[100,200,300,400];none"] * 30


@pytest.fixture(scope="module")
def words() -> Words:
    return train_words(TEXTS, size=400)


@pytest.fixture(scope="module")
def new(words: Words) -> EarthOneVision:
    return new_earth_onevision("tiny", words, seed=3)


@pytest.fixture(scope="module")
def saved(new: EarthOneVision, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    new.save(folder)
    return folder


def _copy(saved: Path, folder: Path) -> Path:
    return Path(shutil.copytree(saved, folder / "copy"))


def _pixels(batch: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (batch, 1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def _rows(model: EarthOneVision) -> torch.Tensor:
    """The ids of a conversation about one picture."""
    parts = [*model.words.opening([("rgb: ", patch_grid(64, 64))]), model.words.asking("Is there any water?")]
    ids = [id for part in parts for id in (part if isinstance(part, tuple) else [part.token] * part.grid.tokens)]
    return torch.tensor([ids] * 2)


def _score(model: EarthOneVision) -> torch.Tensor:
    parts = model.words.opening([("rgb: ", patch_grid(64, 64))])
    stem = model.engine.read_stem(lay_out_stem(parts), model.engine.encode(_pixels()))
    choices = tuple(model.words.answering(choice) for choice in ("yes", "no"))
    return model.engine.score(stem, [Closed(question=model.words.asking("Is there any water?"), choices=choices)])[0]


def test_a_seed_is_a_model_and_other_seeds_are_others(words: Words, new: EarthOneVision) -> None:
    before = torch.random.get_rng_state()
    assert new_earth_onevision("tiny", words, seed=3).key == new.key
    assert new_earth_onevision("tiny", words, seed=4).key != new.key
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not new.model.training
    assert new.card == Card(preset="tiny", tile_sizes=get_preset("tiny").tile_sizes, taught=())


def test_what_is_saved_loads_again(new: EarthOneVision, saved: Path) -> None:
    again = load_earth_onevision(saved)
    assert again.card == new.card
    assert again.words.marks == new.words.marks
    assert again.model.dtype == torch.float32
    assert torch.equal(_score(again), _score(new))


def test_what_is_saved_loads_in_stock_with_tokenizer_template_and_processor(new: EarthOneVision, saved: Path) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    stock = Qwen3VLForConditionalGeneration.from_pretrained(saved, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(saved)
    processor = Qwen2VLImageProcessorPil.from_pretrained(saved)
    content = [{"type": "text", "text": "rgb: "}, {"type": "image"}, {"type": "text", "text": "Is there any water?"}]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    side = new.card.tile_sizes[-1]
    picture = np.random.default_rng(1).integers(0, 256, (side, side, 3), dtype=np.uint8)
    seen = processor(images=[picture], return_tensors="pt")
    grid = patch_grid(side, side)
    assert seen["image_grid_thw"].tolist() == [[1, grid.rows, grid.columns]]  # not enlarged
    rows = tokenizer(text.replace("<|image_pad|>", "<|image_pad|>" * grid.tokens), return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        logits = stock(
            input_ids=rows,
            attention_mask=torch.ones_like(rows),
            pixel_values=seen["pixel_values"],
            image_grid_thw=seen["image_grid_thw"],
            mm_token_type_ids=(rows == stock.config.image_token_id).int(),
        ).logits
    parts = [*new.words.opening([("rgb: ", grid)]), new.words.asking("Is there any water?")]
    ours = [id for part in parts for id in (part if isinstance(part, tuple) else [part.token] * part.grid.tokens)]
    assert rows[0].tolist() == ours
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None, None]
    torch.testing.assert_close(logits, stock_logits(new.model, rows, pixels), atol=1e-4, rtol=0)
    video = json.loads((saved / "video_preprocessor_config.json").read_text())
    assert video["video_processor_type"] == "Qwen3VLVideoProcessor"


def test_what_stock_writes_loads_here_and_is_written_back(new: EarthOneVision, tmp_path: Path) -> None:
    new.model.save_pretrained(tmp_path / "stock")
    new.words.tokenizer.save_pretrained(tmp_path / "stock")
    ours = load_earth_onevision(tmp_path / "stock")
    assert ours.card == Card()
    ours.save(tmp_path / "ours")
    again = Qwen3VLForConditionalGeneration.from_pretrained(tmp_path / "ours", dtype=torch.float32).eval()
    rows = _rows(new)
    torch.testing.assert_close(
        stock_logits(again, rows, _pixels()), stock_logits(new.model, rows, _pixels()), atol=1e-4, rtol=0
    )


def test_bfloat16_comes_back_bit_by_bit(saved: Path, tmp_path: Path) -> None:
    half = load_earth_onevision(saved, dtype="bfloat16")
    assert half.model.dtype == torch.bfloat16
    half.save(tmp_path / "half")
    again = load_earth_onevision(tmp_path / "half", dtype=torch.bfloat16)
    assert all(
        torch.equal(one, two) for one, two in zip(half.model.parameters(), again.model.parameters(), strict=True)
    )
    assert torch.equal(_score(half), _score(again))
    stock = Qwen3VLForConditionalGeneration.from_pretrained(tmp_path / "half", dtype=torch.bfloat16).eval()
    rows = _rows(half)
    assert torch.equal(stock_logits(stock, rows, _pixels()), stock_logits(half.model, rows, _pixels()))
    wide = load_earth_onevision(tmp_path / "half")  # a checkpoint in bfloat16 computes in float32 on a CPU
    assert wide.model.dtype == torch.float32
    torch.testing.assert_close(_score(wide), _score(half), atol=0.1, rtol=0.1)


def test_shards_are_one_checkpoint(new: EarthOneVision, saved: Path, tmp_path: Path) -> None:
    folder = _copy(saved, tmp_path)
    (folder / "model.safetensors").unlink()
    new.model.save_pretrained(folder, max_shard_size="100KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    assert torch.equal(_score(load_earth_onevision(folder)), _score(new))


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _flip(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


def _figured(folder: Path) -> None:
    path = folder / "earthmap.json"
    path.write_text(path.read_text().replace('"tiny"', '"tiny-2"'))


def _other_words(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"version": "1.0"', '"version":"1.0"'))


def test_a_key_is_of_content_alone(saved: Path, tmp_path: Path) -> None:
    key = load_earth_onevision(saved).key
    assert load_earth_onevision(_copy(saved, tmp_path)).key == key
    assert load_earth_onevision(saved, dtype="bfloat16").key == key


@pytest.mark.parametrize("change", [_flip, _figured, _other_words])
def test_every_change_changes_the_key(saved: Path, tmp_path: Path, change: Callable[[Path], None]) -> None:
    folder = _copy(saved, tmp_path)
    before = load_earth_onevision(folder).key
    change(folder)
    # The same length within a coarse clock: only the time of change can tell.
    path = folder / "model.safetensors"
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1_000_000))
    assert load_earth_onevision(folder).key != before


def test_a_changed_card_is_another_key(new: EarthOneVision) -> None:
    figure = Figure(
        task="presence", sensor="thermal", metric="accuracy", score=1, low=1, high=1, constant=0, tiles=1, data="x"
    )
    assert EarthOneVision(new.model, words=new.words, card=Card(preset="tiny", answers=(figure,))).key != new.key


# ── what cannot be used ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dtype", ["float16", "int8", "float64", torch.float16, torch.int64])
def test_other_numbers_are_refused(saved: Path, dtype: Any) -> None:
    with pytest.raises(ModelError, match=r"expected .*float32"):
        load_earth_onevision(saved, dtype=dtype)


@pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
def test_devices_that_are_not_there_are_refused(saved: Path, device: str) -> None:
    with pytest.raises(ModelError, match="cannot be used"):
        load_earth_onevision(saved, device=device)


def test_heads_come_with_the_checkpoint(new: EarthOneVision, saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"a new model has no alignment\.safetensors"):
        new.heads()
    with pytest.raises(ModelError, match=r"holds no alignment\.safetensors"):
        load_earth_onevision(saved).heads()
    folder = _copy(saved, tmp_path)
    save_heads(AlignmentHeads(width=32, levels=3, shared_width=8), folder)
    model = load_earth_onevision(folder)
    assert model.heads().levels == 3
    model.save(tmp_path / "again")
    torch.testing.assert_close(
        load_earth_onevision(tmp_path / "again").heads().state_dict(), model.heads().state_dict()
    )
    model.save(folder)  # over itself
    assert load_earth_onevision(folder).heads().levels == 3


def test_words_of_another_model_are_refused(words: Words, saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="entries for a model of 512"):
        new_earth_onevision("tiny", _many_words(), seed=0)
    folder = _copy(saved, tmp_path)
    train_words(TEXTS, size=280).tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match=r"the tokenizer.s .* the model.s is"):
        load_earth_onevision(folder)


def _many_words() -> Words:
    words = train_words(TEXTS, size=400)
    words.tokenizer.add_tokens([f"word{number}" for number in range(300)])
    return Words.of(words.tokenizer)


def test_a_folder_that_cannot_be_written_is_one_sentence(new: EarthOneVision, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot be written to"):
        new.save(tmp_path / "file")
    with pytest.raises(ModelError, match="cannot be written to"):
        new.save(tmp_path / "file" / "below")


def test_a_public_name_without_a_network_is_one_sentence() -> None:
    with pytest.raises(ModelError, match="nobody/nothing is no folder here, and cannot be fetched"):
        load_earth_onevision("nobody/nothing")
    with pytest.raises(ModelError, match="is not there"):
        load_earth_onevision("no-such-folder")


def test_every_mark_has_its_place_in_the_configuration(new: EarthOneVision) -> None:
    assert set(earth_onevision.MARK_IDS.values()) <= set(MARKS)
    assert new.model.config.image_token_id == new.words.marks["<|image_pad|>"]


def test_the_page_of_checkpoints_runs(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    block = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert block is not None
    shutil.copytree(saved, tmp_path / "checkpoints" / "mine")
    monkeypatch.chdir(tmp_path)
    exec(block[1], {})  # the documentation's own words
    assert checkpoint_key(tmp_path / "checkpoints" / "copy")
    assert {path.name for path in saved.iterdir()} <= set(re.findall(r"`([\w.]+)`", page))
