"""Checkpoints that stock transformers writes and reads, written and read here; what is none is refused in one line."""

from __future__ import annotations

import json
import os
import pickle
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen3VLForConditionalGeneration

from earthmap.errors import ModelError
from earthmap.model.card import Card, read_card
from earthmap.model.checkpoint import checkpoint_key, find_checkpoint, load_model, save_model
from earthmap.model.inspection import inspect_folder, weight_files
from earthmap.model.words import load_words, train_words
from tests.model.conftest import stock_logits

Change = Callable[[Path], object]


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


def test_word_embeddings_may_be_kept_twice(tiny: Any, tmp_path: Path) -> None:
    """Some programs write the tied output layer too."""
    tiny.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state["lm_head.weight"] = state["model.language_model.embed_tokens.weight"].clone()
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    rows, pixels = _rows(tiny)
    ours = load_model(tmp_path, dtype=torch.float32)
    torch.testing.assert_close(stock_logits(ours, rows, pixels), stock_logits(tiny, rows, pixels), atol=1e-4, rtol=0)


def test_nothing_is_said_while_loading(tiny: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tiny.save_pretrained(tmp_path)
    capfd.readouterr()
    load_model(tmp_path, dtype=torch.float32)
    assert capfd.readouterr() == ("", "")


# ── weights ──────────────────────────────────────────────────────────────────────────────────────────────────────


class _Bomb:
    """What runs code when a pickle of it is opened."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def _bomb(folder: Path) -> bytes:
    return pickle.dumps(_Bomb(folder / "ran"))


def _weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    def changed(folder: Path) -> None:
        path = folder / "model.safetensors"
        state = load_file(path)
        change(state)
        save_file(state, path, metadata={"format": "pt"})

    return changed


def _bytes(change: Callable[[bytes], bytes]) -> Change:
    def changed(folder: Path) -> None:
        path = folder / "model.safetensors"
        path.write_bytes(change(path.read_bytes()))

    return changed


def _header(change: Callable[[dict[str, Any]], object]) -> Change:
    """The same data behind another header."""

    def changed(data: bytes) -> bytes:
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + data[8 + length :]

    return _bytes(changed)


def _first(header: dict[str, Any]) -> Any:
    return next(value for name, value in header.items() if name != "__metadata__")


def _pickled_only(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(_bomb(folder))


def _pickled_under_the_name(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(_bomb(folder))


def _saved_by_torch_under_the_name(folder: Path) -> None:
    torch.save({"weight": _Bomb(folder / "ran")}, folder / "model.safetensors")


def _index(weight_map: Any) -> Change:
    def changed(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "model-1.safetensors")
        (folder / "pytorch_model.bin").write_bytes(_bomb(folder))
        told = {"metadata": {}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(told))

    return changed


def _loop(name: str) -> Change:
    def changed(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(folder / name)

    return changed


NORM = "model.language_model.norm.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_weights(lambda state: state.pop("model.visual.merger.linear_fc2.bias")), "lacks model.visual.merger"),
        (_weights(lambda state: state.update(other=torch.zeros(2))), "has besides other"),
        (_weights(lambda state: state.update({NORM: torch.zeros(33)})), "cannot be loaded|misshapes"),
        (_weights(lambda state: [state.pop(name) for name in list(state)[3:]]), "its weights are"),
        (_weights(lambda state: state.clear()), "its weights are 0"),
        (_bytes(lambda data: data[: len(data) // 2]), r"model\.safetensors is damaged"),
        (_bytes(lambda data: data[:-1]), r"model\.safetensors is damaged"),
        (_bytes(lambda data: data + b"0"), r"model\.safetensors is damaged"),
        (_bytes(lambda data: data[:5]), r"model\.safetensors is damaged"),
        (_bytes(lambda _: b""), r"model\.safetensors is damaged"),
        (_bytes(lambda data: struct.pack("<Q", 2**63) + data[8:]), r"model\.safetensors is damaged"),
        (_bytes(lambda data: struct.pack("<Q", 90_000_000) + data[8:]), r"model\.safetensors is damaged"),
        (_bytes(lambda data: data[:8] + b"x" + data[9:]), r"model\.safetensors is damaged"),
        (_bytes(lambda _: b"<html>not found</html>" * 9), r"model\.safetensors is damaged"),
        (_header(lambda header: _first(header).update(shape=[2**40, 2**40])), r"model\.safetensors is damaged"),
        (_header(lambda header: _first(header).update(data_offsets=[0, 2**50])), r"model\.safetensors is damaged"),
        (_header(lambda header: _first(header).update(dtype="F128")), r"model\.safetensors is damaged"),
        (_pickled_only, r"only pytorch_model\.bin, which runs code"),
        (_pickled_under_the_name, "is a pickle, which runs code"),
        (_saved_by_torch_under_the_name, "is a pickle, which runs code"),
        (_index({"a": "../../etc/passwd"}), r"names '\.\./\.\./etc/passwd'"),
        (_index({"a": "/etc/passwd.safetensors"}), "names '/etc/passwd"),
        (_index({"a": "..\\model-1.safetensors"}), "names '"),
        (_index({"a": "pytorch_model.bin"}), "names 'pytorch_model.bin'"),
        (_index({"a": "model-1.safetensors", "b": "model-2.safetensors"}), r"lacks model-2\.safetensors"),
        (_index({}), r"index\.json is damaged"),
        (_index([1]), r"index\.json is damaged"),
        (_index({"a": 1}), r"index\.json is damaged"),
        (_loop("model.safetensors"), "holds no weights"),
        (_loop("config.json"), r"holds no config\.json"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "holds an adapter"),
    ],
)
def test_weights_that_are_refused(tiny: Any, tmp_path: Path, change: Change, message: str) -> None:
    tiny.save_pretrained(tmp_path)
    change(tmp_path)
    _refused(tmp_path, message)
    assert not (tmp_path / "ran").exists()


def _refused(folder: Path, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        load_model(folder, dtype=torch.float32)
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 1_200
    assert "expected" in said or "to fix" in said


def test_a_pickle_is_not_opened_wherever_it_lies(tiny: Any, tmp_path: Path) -> None:
    for name in ("model.pt", "model.bin", "model.ckpt", "model.pkl"):
        (tmp_path / name).write_bytes(_bomb(tmp_path))
        _refused(tmp_path / name, "may be a pickle")
    tiny.save_pretrained(tmp_path)  # beside whole weights it is passed over
    (tmp_path / "pytorch_model.bin").write_bytes(_bomb(tmp_path))
    load_model(tmp_path, dtype=torch.float32)
    assert not (tmp_path / "ran").exists()


def test_what_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file.txt").write_text("")
    for name, message in (("loop", "a link to itself"), ("gone", "is not there"), ("file.txt", "is a file")):
        _refused(tmp_path / name, message)
    with pytest.raises(ModelError, match="holds no weights"):
        weight_files(tmp_path)
    assert find_checkpoint("~").is_absolute()


@pytest.mark.parametrize("seed", range(40))
def test_any_damage_is_a_typed_error_or_does_no_harm(tiny: Any, tmp_path: Path, seed: int) -> None:
    """Bytes of the header and the configuration overwritten, cut out or repeated."""
    tiny.save_pretrained(tmp_path)
    generator = torch.Generator().manual_seed(seed)

    def draw(most: int) -> int:
        return int(torch.randint(0, most, (1,), generator=generator))

    path = tmp_path / ("config.json", "model.safetensors")[seed % 2]
    data = bytearray(path.read_bytes())
    start, length = draw(min(len(data), 4_000)), 1 + draw(30)
    match draw(3):
        case 0:
            data[start : start + length] = bytes(draw(256) for _ in range(length))
        case 1:
            del data[start : start + length]
        case _:
            data[start:start] = data[start : start + length]
    path.write_bytes(data)
    with suppress(ModelError):
        inspect_folder(tmp_path)


# ── configuration ────────────────────────────────────────────────────────────────────────────────────────────────


def _config(change: Callable[[dict[str, Any]], object]) -> Change:
    def changed(folder: Path) -> None:
        path = folder / "config.json"
        told = json.loads(path.read_text())
        change(told)
        path.write_text(json.dumps(told))

    return changed


def _text(**values: Any) -> Change:
    return _config(lambda told: told["text_config"].update(values))


def _vision(**values: Any) -> Change:
    return _config(lambda told: told["vision_config"].update(values))


def _written(data: bytes) -> Change:
    return lambda folder: (folder / "config.json").write_bytes(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), r"holds no config\.json"),
        (_written(b"{"), r"config\.json is damaged"),
        (_written(b""), r"config\.json is damaged"),
        (_written(b"\xff\xfe\x00"), r"config\.json is damaged"),
        (_written(b"[]"), "holds a list"),
        (_written(b'{"a":' * 100_000), r"config\.json is damaged"),
        (_written(b'{"a":' + b"9" * 5_000 + b"}"), r"config\.json is damaged"),
        (_written(b'{"model_type": "llama"}'), "of type 'llama'"),
        (_written(b'{"model_type": ["qwen3_vl"]}'), "of type"),
        (_written(b"{}"), "of type None"),
        (_config(lambda told: told.update(quantization_config={"quant_method": "x"})), "quantised"),
        (_config(lambda told: told.update(text_config=7)), "cannot be used"),
        # Ten terabytes and more, in every dimension.
        (_text(hidden_size=10**12), "hidden_size 1000000000000"),
        (_text(hidden_size=1_000_000), "another width"),
        (_text(intermediate_size=1_000_000), "its weights are"),
        (_text(vocab_size=10**13), "vocab_size"),
        (_text(vocab_size=10_000_000), "its weights are"),
        (_text(num_hidden_layers=10**9), "num_hidden_layers"),
        (_text(num_hidden_layers=900), "its weights are"),
        (_text(head_dim=10**6), "rotary sections"),
        (_vision(depth=10**9), "depth"),
        (_vision(num_position_embeddings=10**12), "num_position_embeddings"),
        (_vision(num_position_embeddings=10**7), "its weights are"),
        (_vision(hidden_size=10**6), "its weights are"),
        (_vision(deepstack_visual_indexes=list(range(10**5))), "rising layers"),
        (_vision(deepstack_visual_indexes=[1, 0]), "rising layers"),
        (_vision(deepstack_visual_indexes=[-1]), "rising layers"),
        (_vision(patch_size=10**6), "patch_size"),
        (_vision(spatial_merge_size=4), "spatial_merge_size"),
        (_vision(num_heads=3), "vision heads that do not divide"),
        (_vision(hidden_act="rm -rf"), "describes no model"),
        (_text(num_key_value_heads=3), "key_value_heads"),
        (_text(hidden_size=0), "hidden_size 0"),
        (_text(hidden_size=-32), "hidden_size -32"),
        (_text(hidden_size="32"), "cannot be used"),
        (_text(hidden_size=1.5), "cannot be used"),
        (_text(num_hidden_layers=True), "num_hidden_layers|cannot be used"),
        (_text(num_hidden_layers=2), "has besides model.language_model.layers.2"),
        (_text(num_hidden_layers=4), "lacks model.language_model.layers.3"),
        (_vision(deepstack_visual_indexes=[0]), "has besides model.visual.deepstack"),
    ],
)
def test_configurations_that_are_refused(tiny: Any, tmp_path: Path, change: Change, message: str) -> None:
    tiny.save_pretrained(tmp_path)
    change(tmp_path)
    start = time.process_time()
    _refused(tmp_path, message)
    assert time.process_time() - start < 5.0


CODE = "from pathlib import Path\nPath(__file__).parent.joinpath('ran').mkdir()\nclass Evil: pass\n"


def test_code_in_a_checkpoint_is_not_run(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # nobody is asked either
    words = train_words(["Is there any water?"] * 3, size=300)
    save_model(tiny, tmp_path)
    words.tokenizer.save_pretrained(tmp_path)
    (tmp_path / "evil.py").write_text(CODE)
    named = dict.fromkeys(("AutoConfig", "AutoModel", "AutoModelForImageTextToText"), "evil.Evil")
    _config(lambda told: told.update(auto_map=named, attn_implementation="evil/kernel"))(tmp_path)
    _config(lambda told: told.update(transformers_weights="../model.safetensors", kernel_config={"a": "b"}))(tmp_path)
    _text(_attn_implementation="evil/kernel", auto_map=named)(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    told = json.loads(path.read_text()) | {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
    path.write_text(json.dumps(told))
    model = load_model(tmp_path, dtype=torch.float32)
    assert model.config.text_config._attn_implementation == "sdpa"
    assert load_words(tmp_path).marks == words.marks
    told["tokenizer_class"] = "Evil"  # one that only the code in the folder would know
    path.write_text(json.dumps(told))
    with suppress(ModelError):
        assert load_words(tmp_path).marks == words.marks
    assert not (tmp_path / "ran").exists()


# ── tokenizers ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "cannot be loaded"),
        (lambda path: path.write_text(""), "cannot be loaded"),
        (lambda path: path.write_text("{"), "cannot be loaded"),
        (lambda path: path.write_text("[]"), "cannot be loaded"),
        (lambda path: path.write_bytes(path.read_bytes()[:5_000]), "cannot be loaded"),
        (lambda path: path.write_bytes(pickle.dumps([1])), "cannot be loaded"),
        (lambda path: path.write_text("[" * 100_000), "cannot be loaded"),
        (lambda path: path.write_text(path.read_text().replace('"BPE"', '"Other"')), "cannot be loaded"),
        (lambda path: path.write_text(path.read_text().replace("<|image_pad|>", "<|other|>")), "has no <.image_pad.>"),
    ],
)
def test_tokenizers_that_are_refused(tmp_path: Path, change: Change, message: str) -> None:
    train_words(["Is there any water?"] * 3, size=300).tokenizer.save_pretrained(tmp_path)
    change(tmp_path / "tokenizer.json")
    with pytest.raises(ModelError, match=message) as caught:
        load_words(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_key_needs_weights(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no weights"):
        checkpoint_key(tmp_path)
