"""A trained checkpoint becomes what the package carries: half the bytes, the same answers, its figures in its card."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from earthmap.errors import ModelError
from earthmap.evaluation import Look, mark, measure_looks, open_unjudged, write_figures
from earthmap.model import load_earth_onevision, nano_words, new_earth_onevision
from earthmap.model.alignment import AlignmentHeads, save_heads
from earthmap.model.card import read_card
from earthmap.model.words import NANO_WORDS
from jobs.embed_nano import Findings, embed, model_card


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost such a small model more than they bring."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `nano` of random weights, as training saves it."""
    folder = tmp_path_factory.mktemp("step") / "model"
    model = new_earth_onevision("nano", nano_words(), seed=1)
    model.save(folder)
    vision = model.model.config.vision_config
    levels = len(vision.deepstack_visual_indexes) + 1
    save_heads(AlignmentHeads(width=vision.out_hidden_size, levels=levels), folder)
    return folder


def test_it_is_small_and_says_the_same(checkpoint: Path, tmp_path: Path) -> None:
    size = embed(checkpoint, tmp_path)
    assert size == (tmp_path / "model.safetensors").stat().st_size <= 15 * 2**20
    before, after = load_earth_onevision(checkpoint), load_earth_onevision(tmp_path)
    assert after.model.dtype == torch.float32
    pairs = zip(before.model.parameters(), after.model.parameters(), strict=True)
    assert all(torch.allclose(one, other, rtol=1e-3, atol=1e-6) for one, other in pairs)
    assert after.words.encode("Is there any water? 12") == before.words.encode("Is there any water? 12")
    assert after.heads().levels == before.heads().levels
    assert (tmp_path / NANO_WORDS.name).read_bytes() == NANO_WORDS.read_bytes()


def test_what_it_cannot_do_is_measured_and_then_not_asked(checkpoint: Path, tmp_path: Path) -> None:
    size = embed(checkpoint, tmp_path)
    look = Look(modality="infrared", sensors=("thermal",))
    rows = measure_looks(open_unjudged(tmp_path), spectral=None, looks=[look], tiles=24, written=1)
    write_figures(tmp_path, drawn=rows)
    card = read_card(tmp_path)
    assert card.drawn
    refused = [row for row in card.drawn if not row.is_supported]
    assert refused, "random weights know nothing"
    assert card.refusal(refused[0].task, "thermal") == f"measured on {refused[0].data}, it beats no constant"
    again = measure_looks(open_unjudged(tmp_path), spectral=None, looks=[look], tiles=2, written=1)
    scores = next(row.model for row in again if row.task == "fraction")
    assert scores.max() > 0.0, "what is refused is measured all the same"
    stage = {"name": "all", "modalities": ["sar"], "steps": 9, "tokens": 5000, "replay": 0.3, "alignment_weight": 1.0}
    state = {"step": 7, "source": "abc", "table": {"stages": [stage]}, "taught": ["fraction", "presence"]}
    found = Findings(drawn=rows, real=[], temperatures=[])
    page = model_card(state=json.loads(json.dumps(state)), machine="on one core", size=size, findings=found)
    assert "7 of 9 steps, on one core" in page
    assert "It was taught fraction, presence;" in page
    assert page.count("| thermal |") == len(rows)
    assert "Not measured." in page
    assert mark([]) == []


def test_what_does_not_fit_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no model\.safetensors"):
        embed(tmp_path / "nothing", tmp_path / "out")
    assert not (tmp_path / "out").exists()
