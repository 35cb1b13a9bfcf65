"""What is said of areas without labels: bounds, an interval where scenes tell one, and the reason where they do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from earthmap.cli import main
from earthmap.errors import BadRequestError, JobError
from earthmap.pipeline.folder import Run
from earthmap.pipeline.unlabelled import assess_unlabelled
from earthmap.predict.held_out import read_errors

LAYER = {
    "observation": "sentinel-2-l2a_20240504T105031_61142ec1", "sensor": "sentinel-2-l2a", "area_km2": 110.0,
    "datetime_min": "2024-05-04T10:50:31+00:00", "datetime_max": "2024-05-04T10:50:31+00:00", "seen_km2": 100.0,
    "km2": {"water": 27.5}, "bounds_km2": {"water": [27.5, 37.5]},
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """As much of a run folder as tells the areas."""
    job = {
        "area": [3.0, 45.0, 3.1, 45.1], "catalog": "catalog.json", "out": str(tmp_path / "run"),
        "queries": ["How many ships are there?", "Where is water?"], "predictor": "oracle",
    }  # fmt: skip
    summary = {
        "queries": [
            {"query_key": "a", "observations": [{**LAYER, "total": 3}]},
            {"query_key": "b", "observations": [LAYER]},
        ]
    }
    folder = tmp_path / "run"
    folder.mkdir()
    for name, content in (("job.json", {"job": job}), ("summary.json", summary), ("run.json", {})):
        (folder / name).write_text(json.dumps(content))
    return Run(str(folder))


def _errors(
    folder: Path, *, sensor: str = "sentinel-2-l2a", count: int = 9, name: str = "water", **changes: Any
) -> str:
    """Scenes in which 0.8 of the class is found and 0.1 of the rest is taken for it, give or take."""
    scenes = [
        {
            "scene": f"s{place}", "sensor": sensor, "class": "water", "hits": 800 + place, "misses": 200 - place,
            "false_alarms": 500 + place, "rejections": 4500 - place, **changes,
        }
        for place in range(count)
    ]  # fmt: skip
    predictor = changes.get("predictor", "oracle")
    path = folder / "errors.json"
    path.write_text(json.dumps({"predictor": predictor, "scenes": scenes}))
    return str(path)


def test_an_interval_is_named_for_what_it_is_and_corrects_the_map(run: Run, tmp_path: Path) -> None:
    found = assess_unlabelled(run, errors=_errors(tmp_path))
    (water,) = found.to_dict()["classes"]
    assert (water["mapped_km2"], water["bounds_km2"]) == (27.5, [27.5, 37.5])
    low, high = water["model_based"]["interval_km2"]
    assert water["model_based"]["km2"] == pytest.approx(100 * (0.275 - 0.1008) / (0.804 - 0.1008), abs=0.05)
    assert low < water["model_based"]["km2"] < high < 27.5
    assert (water["model_based"]["level"], water["model_based"]["scenes"]) == (0.9, 9)
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()
    assert "model_based 90 % interval" in "\n".join(found.lines())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (None, "no error matrices of held-out scenes are kept of oracle"),
        ({"count": 5}, "5 held-out scenes with the class, of 8 that are needed"),
        ({"sensor": "sentinel-1-db"}, "no evidence for sentinel-2-l2a: the error matrices are of sentinel-1-db"),
        ({"predictor": "spectral"}, "no evidence for oracle: the error matrices are of spectral"),
        ({"class": "snow"}, "no evidence with the class"),
    ],
)
def test_there_is_none_without_evidence_and_the_reason_is_told(
    changes: dict[str, Any] | None, reason: str, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [] if changes is None else ["--errors", _errors(tmp_path, **changes)]
    assert main(["estimate", run.address, *words, "--json"]) == 0
    shown = capsys.readouterr().out
    (water,) = json.loads(shown.splitlines()[-1])["classes"]
    assert water["model_based"] is None
    assert reason in water["reason"]
    assert f"no interval: {water['reason']}" in shown


def test_the_number_of_things_is_not_guessed(run: Run) -> None:
    with pytest.raises(JobError, match="nothing is known of the number of things"):
        assess_unlabelled(run, question="1")


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"predictor": "s", "scenes": [{}]}', '{"predictor": "s", "scenes": 3}', "\x00"]
)
def test_files_that_are_no_error_matrices_are_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "errors.json"
    path.write_text(content)
    with pytest.raises(BadRequestError, match="holds no error matrices"):
        read_errors(str(path))
    with pytest.raises(BadRequestError, match="holds no error matrices"):
        read_errors(str(tmp_path / "nothing.json"))


def test_counts_below_nought_and_scenes_given_twice_are_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match="below nought"):
        read_errors(_errors(tmp_path, hits=-1))
    with pytest.raises(BadRequestError, match="twice"):
        assess_unlabelled(run, errors=_errors(tmp_path, scene="same"))
