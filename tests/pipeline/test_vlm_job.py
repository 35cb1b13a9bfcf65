"""Jobs of the vision-language model: what they may ask, whose weights they are of, and a run from end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import shapely

from earthmap import cli
from earthmap.errors import JobError, ModelError
from earthmap.grid import AreaOfInterest
from earthmap.model import new_earth_onevision, train_words
from earthmap.pipeline import parse_job
from earthmap.synthetic import World
from tests.model.conftest import of_others

TEXTS = ["Is there any water? yes no none water", "Reply with mask[16|0:0+3] poly"] * 3


def checkpoint(folder: Path, seed: int = 1) -> Path:
    """Random weights: they know nothing."""
    of_others(new_earth_onevision("tiny", train_words(TEXTS, size=400), seed=seed)).save(folder)
    return folder


def job_of(folder: Path, *queries: Any, **changes: Any) -> Any:
    values = {
        "area": [10.0, 45.0, 10.1, 45.1],
        "catalog": "catalog.json",
        "queries": queries,
        "predictor": "vlm",
        "model": str(folder),
        "out": "runs/one",
    }
    return parse_job({**values, **changes})


def test_other_weights_are_another_job_and_a_moved_folder_is_not(tmp_path: Path) -> None:
    one = job_of(checkpoint(tmp_path / "one"), "How big are the ships?")
    (tmp_path / "moved").mkdir()
    moved = job_of((tmp_path / "one").rename(tmp_path / "moved" / "one"), "How big are the ships?")
    assert one.content_key() == moved.content_key()
    other = job_of(checkpoint(tmp_path / "other", seed=2), "How big are the ships?")
    assert one.content_key() != other.content_key()
    assert parse_job(one.to_dict()).content_key() == one.content_key()  # the folder is gone, the run can be read


def test_anything_may_be_asked(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "model")
    asked = job_of(
        folder, "Describe this place.", "Map the solar panels", "How many ships are there?", "Find the ships.",
        "Track the ships.", "How did the town develop over the years?",
    )  # fmt: skip
    tasks = [query.task for query in asked.queries]
    assert tasks == ["caption", "segment", "count", "detect", "track", "series"]


def test_a_model_belongs_to_its_predictor(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="a model"):
        job_of(tmp_path, "Where is water?", predictor="spectral")
    with pytest.raises(ModelError):
        job_of(tmp_path / "nowhere", "Where is water?")
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError):
        job_of(tmp_path / "pickled", "Where is water?")


@pytest.mark.slow  # two runs whose workers load torch
@pytest.mark.ray
@pytest.mark.timeout(280)
@pytest.mark.usefixtures("ray_cluster")
def test_a_map_says_unvalidated_and_is_computed_once(
    drawn_world: World, drawn_catalog: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    west, south, east, north = drawn_world.bounds
    middle, up = (west + east) / 2, (south + north) / 2
    area = AreaOfInterest.from_geometry(
        shapely.box(middle - 800, up - 800, middle + 800, up + 800), f"EPSG:{drawn_world.epsg}"
    )
    place = tmp_path / "area.geojson"
    place.write_text(json.dumps(area.to_geojson()))
    arguments = [
        "map", "--area", str(place), "--catalog", str(drawn_catalog), "--collection", "drawn-sentinel-2-l2a",
        "--query", "Is there any water?", "--query", "What kind of land cover is this?", "--tile-size", "128",
        "--predictor", "vlm", "--model", str(checkpoint(tmp_path / "model")), "--json", "--quiet",
    ]  # fmt: skip
    store = ["--store", str(tmp_path / "store")]
    assert cli.main([*arguments, *store, "--out", str(tmp_path / "one")]) == cli.DONE
    first = json.loads(capsys.readouterr().out.splitlines()[-1])["summary"]
    assert cli.main([*arguments, *store, "--out", str(tmp_path / "two")]) == cli.DONE
    second = json.loads(capsys.readouterr().out.splitlines()[-1])["summary"]
    assert "unvalidated" in json.dumps(first)
    assert sum(first["failed"].values()) == 0
    answers = [json.loads((tmp_path / run / "run.json").read_text()) for run in ("one", "two")]
    assert "unvalidated" in json.dumps(second)
    assert answers[0]["parts"]["computed"] > 0
    assert answers[1]["parts"]["computed"] == 0
