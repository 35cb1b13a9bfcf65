"""Requests for disaster runs, and how their progress and quotas are told; the rest is `earthmap.pipeline.respond`'s."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from earthmap.pipeline.job import JobSpec
from earthmap.service.processes import Assignment, Scope, Site, describe
from earthmap.service.processes.given import kept_files
from earthmap.service.processes.map import MAP, PUBLIC
from earthmap.service.processes.respond import DECIDED, RESPOND, _Ladder
from tests.service.processes.requests import OFFER, ask, refusal, scope_on
from tests.service.standard import Standard

PLAIN: dict[str, Any] = {
    "area": [4.0, 45.0, 4.1, 45.1],
    "event_time": "2024-06-07T03:30Z",
    "queries": ["What is flooded?"],
}

HOUSE = {
    "type": "Feature",
    "properties": {"id": "a1"},
    "geometry": {"type": "Polygon", "coordinates": [[[4.05, 45.05], [4.06, 45.05], [4.06, 45.06], [4.05, 45.05]]]},
}


@pytest.fixture
def scope(tmp_path: Path) -> Scope:
    return scope_on(tmp_path)


def _collection(*features: Any) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": list(features)}


def test_the_description_is_as_the_standard_says_and_complete(standard: Standard) -> None:
    described = describe(RESPOND, OFFER)
    standard.check("process", described)
    assert [name for name, one in described["inputs"].items() if not one.get("description")] == []
    assert {name for name, one in described["inputs"].items() if one["minOccurs"]} == {"area", "queries", "event_time"}
    assert set(DECIDED) <= set(PUBLIC) <= set(JobSpec.model_fields)
    assert not set(DECIDED) & set(described["inputs"])


def test_a_request_is_told_to_the_worker_as_the_command_says_it(scope: Scope, tmp_path: Path) -> None:
    checked = ask(RESPOND, {**PLAIN, "before": "2024-05/2024-06", "reference_water": _collection(HOUSE)}, scope)
    assert checked.area is not None
    assert 80 < checked.area.area_km2 < 95
    assert RESPOND.labour is not None
    site = Site(scope=scope, out=str(tmp_path / "job"), store=str(tmp_path / "store"))
    told = json.loads(json.dumps(RESPOND.labour.prepare(checked.inputs, site)))
    assert told["event"] == {"event_time": PLAIN["event_time"], "before": "2024-05/2024-06", "after": None}
    assert told["job"]["catalog"] == OFFER.catalogs["drawn"]
    assert told["job"]["out"] == str(tmp_path / "job")
    assert told["given"] == {"reference_water": _collection(HOUSE)}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"event_time": "gestern"}, "gestern"),
        ({"event_time": "../2024"}, "no beginning"),
        ({"event_time": None}, "event_time"),
        ({"before": "2025"}, "after the event"),
        ({"after": "2023"}, "before the event"),
        ({"queries": [{"text": "What changed?", "before": "2024-01"}]}, "its own before"),
        ({"queries": ["How did this change from month to month?"], "datetime": "2024"}, "datetime"),
        ({"sensor": "nonesuch"}, "no sensor"),
        ({"scenes": "all"}, "scenes"),
        ({"rush": False}, "rush"),
        ({"follow": True}, "follow"),
        ({"reference_water": "/etc/passwd"}, "reference_water"),
        ({"reference_water": {"type": "Point"}}, "no GeoJSON FeatureCollection"),
        ({"reference_water": _collection()}, "0 features"),
        ({"reference_water": _collection({"type": "Feature", "properties": {}, "geometry": None})}, ""),
        ({"reference_water": _collection(HOUSE), "queries": ["Where is water?"]}, "no question asks for flood"),
        ({"footprints": _collection(*[{"properties": {}}] * 20_001)}, "20,001 features"),
        ({"footprints": {"href": "http://169.254.169.254/"}}, "reference"),
    ],
)
def test_what_cannot_be_run_is_told(scope: Scope, change: dict[str, Any], word: str) -> None:
    assert word in refusal(RESPOND, {**PLAIN, **change}, scope)


def test_footprints_elsewhere_are_refused_by_map_too_and_no_path_is_told(scope: Scope) -> None:
    far = json.loads(json.dumps(HOUSE).replace("45.0", "55.0"))
    asked = {
        "area": PLAIN["area"],
        "queries": ["Which buildings are damaged?"],
        "model": "mine",
        "footprints": _collection(far),
    }
    told = refusal(MAP, {**asked, "model": None, "predictor": "oracle"}, scope)
    assert "overlaps the area" in told
    assert "earthmap-" not in told
    assert ask(MAP, {**asked, "model": None, "predictor": "oracle", "footprints": _collection(HOUSE)}, scope).area


def test_inputs_by_value_are_files_in_the_folder_of_the_job_and_equal_when_it_goes_on(tmp_path: Path) -> None:
    given = {"footprints": _collection(HOUSE)}
    with kept_files(given, str(tmp_path / "job")) as files:
        first = Path(files["footprints"]).read_bytes()
    with kept_files(json.loads(json.dumps(given)), str(tmp_path / "job")) as files:
        assert Path(files["footprints"]).read_bytes() == first
        assert Path(files["footprints"]).is_relative_to(tmp_path / "job")
    assert json.loads(first)["features"] == [HOUSE]


@dataclass(frozen=True)
class _Told:
    """How far a run is, as `earthmap.pipeline.Progress` says it."""

    tiles: int = 5
    tiles_planned: int = 10


def test_progress_counts_passes() -> None:
    told: list[Any] = []
    ladder = _Ladder(Assignment(out="run", values={}, limits={}, tell=told.append))
    nothing: Any = None
    half: Any = _Told()
    ladder.found([nothing] * 4)  # none is looked up where there is no quota
    ladder.report(half)
    ladder.mapped(nothing)
    ladder.report(half)
    assert [line["progress"] for line in told] == [11, 25, 36]
