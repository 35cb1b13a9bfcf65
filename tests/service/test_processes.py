"""Descriptions by the standard's schemas, and requests: data only, every fault named, no exception but a problem."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap.pipeline import Job
from earthmap.pipeline.job import JobSpec
from earthmap.service.errors import ProblemError
from earthmap.service.processes import Checked, Offer, Scope, describe, parse_execution
from earthmap.service.processes.inputs import CRS84
from earthmap.service.processes.map import MAP, NARROWED, PUBLIC, WITHHELD, job_of
from tests.service.standard import Standard

OFFER = Offer(catalogs={"drawn": "/secret/place/catalog.json", "other": "https://stac.example.org/v1"})

PLAIN: dict[str, Any] = {"area": [4.0, 45.0, 4.1, 45.1], "queries": ["Where is water?"]}


SCOPE = Scope(offer=OFFER)


def _parse(inputs: dict[str, Any], **more: Any) -> Checked:
    return parse_execution(MAP, json.dumps({"inputs": inputs, **more}).encode(), SCOPE)


def _job(checked: Checked) -> Job:
    return job_of(json.loads(json.dumps(checked.inputs)), SCOPE, out="run", store=None)


def _km2(checked: Checked) -> float:
    assert checked.area is not None
    return checked.area.area_km2


def _refusal(inputs: Any, **more: Any) -> dict[str, Any]:
    with pytest.raises(ProblemError) as caught:
        _parse(inputs, **more)
    assert caught.value.document["status"] == 400
    assert "/secret" not in json.dumps(caught.value.document)
    return caught.value.document


def test_every_field_of_a_job_is_decided() -> None:
    assert sorted((*PUBLIC, *NARROWED, *WITHHELD)) == sorted(JobSpec.model_fields)


def test_the_description_is_as_the_standard_says(standard: Standard) -> None:
    described = describe(MAP, Offer(catalogs=OFFER.catalogs, models={"mine": "/models/mine"}))
    standard.check("process", described)
    for one in described["inputs"].values():
        standard.check("schema", one["schema"])
    assert set(described["inputs"]) == {*PUBLIC, *NARROWED}
    assert "/" not in described["inputs"]["catalog"]["schema"]["enum"][0]
    assert "/models" not in json.dumps(described)
    undescribed = [name for name, one in described["inputs"].items() if not one.get("description")]
    assert undescribed == []
    details = described["inputs"]["queries"]["schema"]["items"]["anyOf"][1]["properties"]
    assert [name for name, one in details.items() if not one.get("description")] == []


def test_a_request_means_its_job() -> None:
    checked = _parse({**PLAIN, "datetime": "2024-06", "resolution": 20, "catalog": "other"})
    job = _job(checked)
    assert job.spec.catalog == "https://stac.example.org/v1"
    assert job.spec.resolution == 20
    assert checked.inputs == {**PLAIN, "datetime": "2024-06", "resolution": 20, "catalog": "other"}
    again = job_of(checked.inputs, SCOPE, out="elsewhere", store=None)
    assert again.content_key() == job.content_key()


@pytest.mark.parametrize(
    "area",
    [
        {"bbox": [4.0, 45.0, 4.1, 45.1]},
        {"bbox": [4.0, 45.0, 4.1, 45.1], "crs": CRS84},
        {"value": {"bbox": [4.0, 45.0, 4.1, 45.1]}},
        {"type": "Polygon", "coordinates": [[[4.0, 45.0], [4.1, 45.0], [4.1, 45.1], [4.0, 45.1], [4.0, 45.0]]]},
        {
            "mediaType": "application/geo+json",
            "value": {
                "type": "Feature",
                "properties": {},
                "geometry": {
                    "type": "Polygon",
                    "coordinates": [[[4.0, 45.0], [4.1, 45.0], [4.1, 45.1], [4.0, 45.1], [4.0, 45.0]]],
                },
            },
        },
    ],
)
def test_an_area_in_any_of_its_forms_is_the_same_ground(area: Any) -> None:
    assert _km2(_parse({**PLAIN, "area": area})) == pytest.approx(_km2(_parse(PLAIN)), rel=1e-6)


def test_a_ring_across_the_antimeridian_is_read() -> None:
    ring = [[179.9, 10.0], [-179.9, 10.0], [-179.9, 10.1], [179.9, 10.1], [179.9, 10.0]]
    checked = _parse({**PLAIN, "area": {"type": "Polygon", "coordinates": [ring]}})
    assert 200 < _km2(checked) < 300


def test_a_request_may_give_way_and_may_not_overtake() -> None:
    assert _job(_parse(PLAIN)).spec.priority == "normal"
    assert _job(_parse({**PLAIN, "priority": "bulk"})).spec.priority == "bulk"
    assert _refusal({**PLAIN, "priority": "urgent"})["faults"] == [
        {"where": "priority", "what": "Input should be 'normal' or 'bulk'"}
    ]


@pytest.mark.parametrize("name", WITHHELD)
@pytest.mark.parametrize("value", ["/etc/passwd", ["/etc/passwd"], None])
def test_paths_and_places_cannot_be_said(name: str, value: Any) -> None:
    document = _refusal({**PLAIN, name: value})
    assert {"where": name, "what": "Extra inputs are not permitted"} in document["faults"]


@pytest.mark.parametrize(
    "catalog", ["/etc/passwd", "file:///etc/passwd", "/vsicurl/http://x", "http://169.254.169.254/", "", 7, ["drawn"]]
)
def test_a_catalogue_is_a_name_that_the_operator_gave(catalog: Any) -> None:
    document = _refusal({**PLAIN, "catalog": catalog})
    assert document["faults"][0]["what"] == "Input should be 'drawn' or 'other'"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"area": "/etc/passwd"}, "area"),
        ({"area": "POLYGON((0 0,1 0,1 1,0 0))"}, "area"),
        ({"area": []}, "four numbers"),
        ({"area": [True, 1, 2, 3]}, "four numbers"),
        ({"area": [4, 45, 4, 45]}, ""),
        ({"area": [4, 45, 4.1, 91]}, "latitude"),
        ({"area": {"bbox": [4, 45, 4.1, 45.1], "crs": "EPSG:32631"}}, "bounding box"),
        ({"area": {"bbox": "4,45,4.1,45.1"}}, "four numbers"),
        ({"area": {"bbox": None}}, "four numbers"),
        ({"area": {"bbox": {"type": "Polygon"}}}, "four numbers"),
        ({"area": {"type": "Point", "coordinates": [4, 45]}}, ""),
        ({"area": {"type": "Polygon", "coordinates": [], "crs": {"properties": {"name": "+proj=merc"}}}}, "crs"),
        ({"area": {"type": "Polygon", "coordinates": [[["a", "b"]]]}}, ""),
        ({"area": {"type": "Polygon", "coordinates": None}}, ""),
        ({"area": {"href": "http://169.254.169.254/"}}, "reference"),
        ({"area": {}}, ""),
        ({"queries": []}, "queries"),
        ({"queries": "Where is water?"}, "queries"),
        ({"queries": [""]}, "empty"),
        ({"queries": ["Where is water?"] * 33}, "queries"),
        ({"queries": ["Where is water?"] * 2}, "twice"),
        ({"queries": [{"text": "Where is water?", "model": "/x"}]}, "model"),
        ({"queries": [{"text": "Where is water?", "task": "os.system"}]}, "task"),
        ({"datetime": "gestern"}, "gestern"),
        ({"scenes": "nearest", "date": "2024-13-99"}, "2024-13-99"),
        ({"sensor": "../../etc"}, "sensor"),
        ({"resolution": "10"}, "resolution"),
        ({"resolution": 0}, "resolution"),
        ({"max_tiles": 1.5}, "max_tiles"),
        ({"max_tiles": 10**17}, None),
    ],
)
def test_what_cannot_be_run_is_told(change: dict[str, Any], word: str | None) -> None:
    if word is None:
        assert _job(_parse({**PLAIN, **change})).spec.max_tiles == 10**17  # the quota is another matter
        return
    assert word in _refusal({**PLAIN, **change})["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{",
        b'{"inputs": {"area": [NaN, 1, 2, 3]}}',
        b'{"inputs": {"area": [1e999, 1, 2, 3], "queries": ["Where is water?"]}}',
        b'{"inputs": {"area": [' + b"9" * 400 + b', 1, 2, 3], "queries": ["Where is water?"]}}',
        b'{"inputs": {"area": [' + b"9" * 9000 + b"]}}",
        b'{"inputs": {"queries": ["\\ud800"], "area": [4, 45, 4.1, 45.1]}}',
        b'{"inputs": {"area": ' + b"[" * 200_000 + b"]" * 200_000 + b"}}",
        b'{"inputs": {"area": ' + b'{"a":' * 20_000 + b"1" + b"}" * 20_000 + b"}}",
        b'{"inputs": 7}',
        b'{"subscriber": {"successUri": "http://169.254.169.254/"}, "inputs": {}}',
    ],
)
def test_a_body_that_is_no_request_is_told(body: bytes) -> None:
    with pytest.raises(ProblemError) as caught:
        parse_execution(MAP, body, SCOPE)
    assert caught.value.document["status"] == 400


def test_outputs_are_those_of_the_process() -> None:
    assert _parse(PLAIN, outputs={"summary": {}, "features": {"transmissionMode": "reference"}}, response="document")
    _refusal(PLAIN, outputs={"secrets": {}})
    _refusal(PLAIN, outputs={"features": {"transmissionMode": "value"}})
    _refusal(PLAIN, outputs={"features": {"format": {"mediaType": "text/csv"}}})
    _refusal(PLAIN, response="raw")


def _taken(body: bytes) -> Checked | None:
    """What a body asks; None where it is told as a fault of the request. Raises whatever else is raised."""
    try:
        return parse_execution(MAP, body, SCOPE)
    except ProblemError as error:
        return None if error.document["status"] == 400 else pytest.fail(str(error.document))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=12,
)


@given(name=st.sampled_from([*PUBLIC, *NARROWED, *WITHHELD]), value=_JSON)
def test_any_value_of_any_input_is_taken_or_told(name: str, value: Any) -> None:
    body = json.dumps({"inputs": {**PLAIN, name: value}}).encode()
    checked = _taken(body)
    assert checked is None or name not in WITHHELD
    json.dumps(checked.inputs if checked else None)


@given(bbox=_JSON, crs=st.just(CRS84) | _JSON)
def test_any_bounding_box_is_taken_or_told(bbox: Any, crs: Any) -> None:
    _taken(json.dumps({"inputs": {**PLAIN, "area": {"bbox": bbox, "crs": crs}}}).encode())


_GEOMETRY = st.fixed_dictionaries(
    {"type": st.sampled_from(["Polygon", "MultiPolygon", "Feature", "FeatureCollection", "GeometryCollection"])},
    optional={"coordinates": _JSON, "geometry": _JSON, "features": _JSON, "geometries": _JSON, "bbox": _JSON},
)


@given(_GEOMETRY)
def test_any_geojson_is_taken_or_told(area: Any) -> None:
    _taken(json.dumps({"inputs": {**PLAIN, "area": area}}).encode())


def test_no_path_of_this_machine_is_tried(tmp_path: Path) -> None:
    folder = tmp_path / "area.geojson"
    folder.write_text(json.dumps({"type": "Polygon", "coordinates": [[[4, 45], [4.1, 45], [4.1, 45.1], [4, 45]]]}))
    _refusal({**PLAIN, "area": str(folder)})
