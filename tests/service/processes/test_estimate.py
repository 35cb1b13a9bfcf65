"""Requests to draw a sample, and to estimate from one that is labelled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap.errors import BadRequestError
from earthmap.pipeline.labels import Labels
from earthmap.service.processes import Scope, Site, describe
from earthmap.service.processes.estimate import ESTIMATE, labels_of
from earthmap.service.processes.sample import SAMPLE
from tests.service.processes.requests import MAPPED, NOBODYS, OFFER, TRAINED, ask, refusal, scope_on
from tests.service.standard import Standard


@pytest.fixture
def scope(tmp_path: Path) -> Scope:
    return scope_on(tmp_path)


def _labelled(*rows: tuple[Any, Any]) -> dict[str, Any]:
    features = [{"type": "Feature", "properties": {"id": one, "label": label}} for one, label in rows]
    return {"type": "FeatureCollection", "features": features}


GOOD = _labelled(("1a2b-0001", "water"), ("1a2b-0002", "  Cannot  tell "), ("1a2b-0003", None), ("1a2b-0004", 3))


@pytest.mark.parametrize("process", [SAMPLE, ESTIMATE])
def test_descriptions_are_as_the_standard_says_and_complete(process: Any, standard: Standard) -> None:
    described = describe(process, OFFER)
    standard.check("process", described)
    assert [name for name, one in described["inputs"].items() if not one.get("description")] == []


def test_labels_are_read_from_features() -> None:
    told = {"1a2b-0001": "water", "1a2b-0002": "Cannot tell", "1a2b-0004": "3"}
    assert labels_of(GOOD) == Labels(key="1a2b", by_unit=told, empty=1)


@pytest.mark.parametrize(
    ("labels", "word"),
    [
        (_labelled(("1a2b-0001", "water"), ("1a2b-0001", "water")), "more than once"),
        (_labelled(("1a2b-0001", "water"), ("3c4d-0001", "water")), "2 samples"),
        (_labelled((None, "water")), "without an id"),
        (_labelled(("../../etc-0001", "water")), "no id of a unit"),
        (_labelled(("..-0001", "water")), "no id of a unit"),
        (_labelled(), "0 features"),
        ({"type": "FeatureCollection"}, "no GeoJSON"),
        ({"type": "FeatureCollection", "features": [7]}, "no GeoJSON"),
        ({"type": "FeatureCollection", "features": [{"properties": []}]}, "no GeoJSON"),
        (_labelled(*((f"1a2b-{number:06d}", "water") for number in range(20_001))), "20,001"),
        ([], "labels"),
        ("sample.gpkg", "labels"),
    ],
)
def test_labels_that_are_of_no_sample_are_told(scope: Scope, labels: Any, word: str) -> None:
    assert word in refusal(ESTIMATE, {"job": MAPPED, "labels": labels}, scope)


@pytest.mark.parametrize("process", [SAMPLE, ESTIMATE])
@pytest.mark.parametrize(
    ("job", "word"), [(NOBODYS, "not yours"), (TRAINED, "mapped nothing"), ("../x", "job"), (7, "job"), ("", "job")]
)
def test_only_ones_own_mapped_jobs_are_sampled(scope: Scope, process: Any, job: Any, word: str) -> None:
    labels = {"labels": GOOD} if process is ESTIMATE else {}
    assert word in refusal(process, {"job": job, **labels}, scope)


@pytest.mark.parametrize("change", [{"units": 0}, {"units": 5_001}, {"units": "all"}, {"seed": -1}, {"out": "/etc"}])
def test_samples_have_bounds(scope: Scope, change: dict[str, Any]) -> None:
    assert next(iter(change)) in refusal(SAMPLE, {"job": MAPPED, **change}, scope)


def test_the_worker_is_told_of_the_run_and_not_of_the_job(scope: Scope, tmp_path: Path) -> None:
    site = Site(scope=scope, out="out", store="store")
    assert SAMPLE.labour is not None
    assert ESTIMATE.labour is not None
    told = SAMPLE.labour.prepare(ask(SAMPLE, {"job": MAPPED, "units": 50}, scope).inputs, site)
    assert told["run"] == str(tmp_path / MAPPED)
    assert told["sample"] == {"units": 50, "seed": 0, "question": None, "observation": None, "unseen": False}
    inputs = ask(ESTIMATE, {"job": MAPPED, "labels": GOOD, "seen": 0.25}, scope).inputs
    told = ESTIMATE.labour.prepare(inputs, site)
    assert told["demands"] == {"seen": 0.25, "certainty": None}
    assert labels_of(told["labels"]) == labels_of(GOOD)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)

_FEATURE = st.fixed_dictionaries(
    {}, optional={"type": st.just("Feature"), "properties": _JSON, "geometry": _JSON, "id": _JSON}
)


@given(st.lists(_FEATURE | _JSON, max_size=4), st.dictionaries(st.sampled_from(["id", "label"]), _JSON))
def test_any_features_are_taken_or_told(features: list[Any], properties: dict[str, Any]) -> None:
    try:
        labels_of({"type": "FeatureCollection", "features": [*features, {"properties": properties}]})
    except BadRequestError:
        return
