"""The embedded checkpoint: what it is called, when it is the default, and what the demonstration asks of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from earthmap import cli
from earthmap.errors import ModelError
from earthmap.model import Card, Figure, checkpoint_key, load_earth_onevision, new_earth_onevision, train_words
from earthmap.model import checkpoint as checkpoints
from earthmap.model.alignment import AlignmentHeads, save_heads
from earthmap.model.card import read_card, write_card
from earthmap.pipeline import Job, parse_job
from earthmap.pipeline.demo import demo_job, embedded_card
from earthmap.predict import default_predictor
from earthmap.synthetic import demo_world

TEXTS = ["Is there any water? yes no none water", "Reply with mask[16|0:0+3] poly"] * 3
GOOD = Figure(
    task="presence", sensor="sentinel-2-l2a", metric="accuracy", score=0.9, low=0.85, high=0.94, constant=0.7,
    spectral=0.8, tiles=120, data="a test",
)  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of random weights laid out as the embedded one."""
    folder = tmp_path_factory.mktemp("embedded") / "nano"
    new_earth_onevision("tiny", train_words(TEXTS, size=400), seed=1).save(folder)
    save_heads(AlignmentHeads(width=32, levels=3, shared_width=16), folder)
    return folder


@pytest.fixture
def embedded(weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(checkpoints, "EMBEDDED_FOLDER", weights)
    write_card(Card(preset="tiny", tile_sizes=(128,)), weights)
    return weights


@pytest.fixture
def missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "EMBEDDED_FOLDER", tmp_path / "nothing")


def job_of(*queries: Any, **changes: Any) -> Job:
    values = {"area": [10.0, 45.0, 10.1, 45.1], "catalog": "catalog.json", "queries": queries, "out": "runs/one"}
    return parse_job({**values, **changes})


def test_its_name_is_its_folder(embedded: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "nano").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_earth_onevision("nano").key == checkpoint_key(embedded)
    assert checkpoints.find_checkpoint("./nano") == Path("nano")


@pytest.mark.usefixtures("missing")
def test_a_copy_without_weights_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="came without the weights of nano"):
        load_earth_onevision("nano")
    with pytest.raises(ModelError, match="train_nano"):
        job_of("Where is water?", predictor="vlm")
    assert cli.main(["ask", str(tmp_path / "a.png"), "Is there any water?", "--predictor", "vlm"]) == cli.BAD_REQUEST
    assert "came without the weights" in capsys.readouterr().err
    assert job_of("Where is water?").spec.predictor == "spectral"
    assert embedded_card() is None
    assert default_predictor([("presence", "sentinel-2-l2a")]) == "spectral"


@pytest.mark.usefixtures("embedded")
def test_vlm_without_a_model_is_the_embedded_one() -> None:
    job = job_of("Describe this place.", predictor="vlm")
    assert (job.spec.model, job.spec.tile_size) == ("nano", 128)
    assert job.spec.model_key
    assert job_of("Describe this place.", predictor="vlm", tile_size=224).spec.tile_size == 224
    assert parse_job(job.to_dict()).content_key() == job.content_key()
    assert job_of("Describe this place.", model="nano").content_key() == job.content_key(), "a model means the model"


def test_it_is_the_default_only_where_it_is_proven(embedded: Path) -> None:
    write_card(replace(read_card(embedded), answers=(GOOD,)), embedded)
    place = {"sensor": "sentinel-2-l2a"}
    assert job_of("Is there any water?", **place).spec.predictor == "vlm"
    assert job_of("Is there any water?").spec.predictor == "spectral", "of a sensor that is not known yet"
    assert job_of("Is there any water?", sensor="sentinel-1-db").spec.predictor == "spectral"
    assert job_of("Is there any water?", "Where is water?", **place).spec.predictor == "spectral"
    asked = {"text": "Is there any water?", "sensors": ["sentinel-2-l2a"]}
    assert job_of(asked).spec.predictor == "vlm"
    assert job_of(asked, predictor="spectral").spec.tile_size == 448
    write_card(replace(read_card(embedded), answers=(replace(GOOD, spectral=0.86),)), embedded)
    assert job_of(asked).spec.predictor == "spectral", "spectral may be as good"


def test_the_demonstration_asks_what_the_card_supports() -> None:
    world = demo_world()
    card = Card(tile_sizes=(128,), drawn=(GOOD, replace(GOOD, task="fraction", sensor="sentinel-1-db")))
    job = demo_job(world, card)
    assert job["predictor"] == "vlm"
    assert [(query["text"], query["sensors"]) for query in job["queries"]] == [
        ("How much of the ground is water?", ["sentinel-1-db"]),
        ("Is there any water?", ["sentinel-2-l2a"]),
    ]
    bad = replace(GOOD, score=0.6, low=0.5, high=0.7)
    refused = replace(card, answers=(bad, replace(bad, task="fraction", sensor="sentinel-1-db")))
    assert demo_job(world, refused)["predictor"] == "spectral", "real scenes decide where they tell"
    assert demo_job(world, None)["predictor"] == "spectral"


@pytest.mark.usefixtures("embedded")
@pytest.mark.parametrize("supported", [GOOD, replace(GOOD, task="classify"), replace(GOOD, task="change-type")])
def test_what_the_demonstration_asks_is_a_job(supported: Figure, tmp_path: Path) -> None:
    card = Card(tile_sizes=(128,), drawn=(supported,))
    job = parse_job({**demo_job(demo_world(), card), "catalog": "catalog.json", "out": str(tmp_path)})
    assert {query.task for query in job.queries} == {supported.task}
    assert job.spec.tile_size == 128


def test_a_photograph_is_asked_with_it(embedded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole command, on the weights that are there."""
    Image.fromarray(np.random.default_rng(1).integers(1, 255, (128, 128, 3), np.uint8)).save(tmp_path / "a.png")
    words = ["ask", str(tmp_path / "a.png"), "Is there any water?", "--json"]
    assert cli.main([*words, "--predictor", "vlm"]) == cli.DONE
    assert "unvalidated" in capsys.readouterr().out
    good = replace(GOOD, sensor="optical-uncalibrated")
    write_card(replace(read_card(embedded), answers=(good,)), embedded)
    assert cli.main(words) == cli.DONE
    assert '"unvalidated"' not in (said := capsys.readouterr().out)
    assert '"yes":' in said, "proven for this sensor, it is the default"
    write_card(replace(read_card(embedded), answers=(replace(good, low=0.6),)), embedded)
    assert cli.main([*words, "--predictor", "vlm"]) == cli.DONE
    assert "not_supported" in capsys.readouterr().out


def test_pictures_of_a_size_that_it_never_saw_are_told(
    embedded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_card(replace(read_card(embedded), answers=(replace(GOOD, sensor="optical-uncalibrated"),)), embedded)
    Image.fromarray(np.full((200, 200, 3), 90, np.uint8)).save(tmp_path / "a.png")
    assert cli.main(["ask", str(tmp_path / "a.png"), "Is there any water?", "--predictor", "vlm"]) == cli.DONE
    assert "224 pixels a side; learned from 128" in capsys.readouterr().out
