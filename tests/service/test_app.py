"""The service over HTTP: the standard's schemas, roles and quotas, and that nothing a stranger sends is a defect."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate

from earthmap.errors import JobError
from earthmap.service.access import MAX_BODY
from earthmap.service.app import check_address
from earthmap.service.database import open_database
from earthmap.service.openapi import CONFORMANCE
from earthmap.service.tokens import Quotas, Role, TokenStore
from tests.service.programs import FAILS, MAPS, WAITS
from tests.service.serving import Served, serve
from tests.service.standard import Standard

PLAIN = {"inputs": {"area": [4.0, 45.0, 4.1, 45.1], "queries": ["Where is water?"]}}

STANDARD_TYPES = "http://www.opengis.net/def/exceptions/ogcapi-processes-1/1.0/"


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Served]:
    """Jobs are taken, and nobody runs them."""
    yield from serve(tmp_path)


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Served]:
    """The same with tokens."""
    yield from serve(tmp_path, secured=True)


@pytest.fixture(scope="module")
def open_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The same, for many tests."""
    yield from serve(tmp_path_factory.mktemp("open"))


@pytest.fixture
def mapping(tmp_path: Path) -> Iterator[Served]:
    """Jobs run, and come to an end."""
    yield from serve(tmp_path, command=MAPS)


def _get(client: httpx.Client, path: str, status: int = 200) -> Any:
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    return answer.json()


def _post(client: httpx.Client, body: Any = PLAIN, status: int = 201) -> Any:
    answer = client.post("/processes/map/execution", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def _ended(client: httpx.Client, job_id: str) -> Any:
    end = time.monotonic() + 30
    while (job := _get(client, f"/jobs/{job_id}"))["status"] in ("accepted", "running"):
        assert time.monotonic() < end
        time.sleep(0.02)
    return job


def test_every_document_is_as_the_standard_says(idle: Served, standard: Standard) -> None:
    with idle.client() as client:
        landing = _get(client, "/")
        standard.check("landingPage", landing)
        assert {link["rel"].rpartition("/")[2] for link in landing["links"]} == {
            "self", "service-desc", "conformance", "processes", "job-list", "data", "related",
        }  # fmt: skip
        for link in landing["links"]:
            assert client.get(link["href"]).status_code == 200
        conformance = _get(client, "/conformance")
        standard.check("confClasses", conformance)
        assert conformance["conformsTo"] == list(CONFORMANCE)
        listed = _get(client, "/processes")
        standard.check("processList", listed)
        for one in listed["processes"]:
            for link in one["links"][:1]:
                standard.check("process", _get(client, link["href"]))
        job = _post(client)
        standard.check("statusInfo", job)
        standard.check("statusInfo", _get(client, f"/jobs/{job['jobID']}"))
        standard.check("jobList", _get(client, "/jobs"))


def test_the_api_document_is_openapi_3_0(idle: Served, secured: Served) -> None:
    with idle.client() as client:
        answer = client.get("/api")
        assert answer.headers["content-type"].startswith("application/vnd.oai.openapi+json;version=3.0")
        validate(answer.json())
        assert "security" not in answer.json()
    with secured.client() as client:
        found = _get(client, "/api")
        validate(found)
        assert found["security"] == [{"token": []}]
        assert "/secret" not in json.dumps(found)


def test_a_job_from_question_to_result(mapping: Served, standard: Standard) -> None:
    with mapping.client() as client:
        answer = client.post("/processes/map/execution", json=PLAIN, headers={"Prefer": "respond-async"})
        assert answer.status_code == 201
        assert answer.headers["preference-applied"] == "respond-async"
        job_id = answer.json()["jobID"]
        assert answer.headers["location"] == f"{mapping.url}/jobs/{job_id}"
        job = _ended(client, job_id)
        assert job["status"] == "successful"
        assert job["progress"] == 100
        assert job["messages"][0]["text"] == "searching the catalogue"
        results = _get(client, f"/jobs/{job_id}/results")
        standard.check("results", results)
        assert results["summary"]["value"] == {"asked": ["Where is water?"]}
        assert client.get(results["features"]["href"]).content == b"PAR1"
        page = client.get(results["report"]["href"])
        assert page.headers["content-type"].startswith("text/html")
        assert page.headers["content-security-policy"] == "sandbox allow-scripts"
        assert client.get(f"/jobs/{job_id}/results/preview").status_code == 404
        assert client.get(f"/jobs/{job_id}/results/job.json").status_code == 404
        assert client.get(f"/jobs/{job_id}/results/..%2f..%2fstate.sqlite").status_code == 404
        assert client.delete(f"/jobs/{job_id}").json()["status"] == "dismissed"
        assert client.get(f"/jobs/{job_id}/results").status_code == 410
        assert client.get(results["features"]["href"]).status_code == 410


def test_no_results_before_the_end_and_after_a_dismissal(idle: Served, standard: Standard) -> None:
    with idle.client() as client:
        job_id = _post(client)["jobID"]
        early = _get(client, f"/jobs/{job_id}/results", 404)
        standard.check("exception", early)
        assert early["type"] == f"{STANDARD_TYPES}result-not-ready"
        dismissed = client.delete(f"/jobs/{job_id}").json()
        standard.check("statusInfo", dismissed)
        assert dismissed["status"] == "dismissed"
        assert client.delete(f"/jobs/{job_id}").status_code == 410
        assert _get(client, f"/jobs/{job_id}")["status"] == "dismissed"


def test_a_failed_job_says_why(tmp_path: Path, standard: Standard) -> None:
    for served in serve(tmp_path, command=FAILS):
        with served.client() as client:
            job = _ended(client, _post(client)["jobID"])
            assert (job["status"], job["message"]) == ("failed", "nothing in run")
            told = _get(client, f"/jobs/{job['jobID']}/results", 400)
            standard.check("exception", told)
            assert told["type"] == "urn:earthmap:problem:catalog"


def test_deleting_a_running_job_ends_its_process(tmp_path: Path) -> None:
    for served in serve(tmp_path, command=WAITS):
        with served.client() as client:
            job_id = _post(client)["jobID"]
            pid = tmp_path / "runs" / job_id / "pid"
            while not (pid.exists() and pid.read_text()):
                time.sleep(0.02)
            process = Path("/proc") / pid.read_text()
            assert client.delete(f"/jobs/{job_id}").status_code == 200
            end = time.monotonic() + 20
            while process.exists():
                assert time.monotonic() < end
                time.sleep(0.02)


def test_what_is_not_there_is_told(open_house: Served, standard: Standard) -> None:
    nobody = "00000000-0000-0000-0000-000000000000"
    with open_house.client() as client:
        for path, kind in (
            ("/processes/fly", f"{STANDARD_TYPES}no-such-process"),
            (f"/jobs/{nobody}", f"{STANDARD_TYPES}no-such-job"),
            (f"/jobs/{nobody}/results", f"{STANDARD_TYPES}no-such-job"),
            (f"/jobs/{nobody}/results/features", f"{STANDARD_TYPES}no-such-job"),
            ("/jobs/..%2f..%2fetc", "about:blank"),
            ("/nowhere", "about:blank"),
        ):
            answer = client.get(path)
            assert answer.status_code == 404
            assert answer.headers["content-type"] == "application/problem+json"
            standard.check("exception", answer.json())
            assert answer.json()["type"] == kind
        assert client.post("/processes/fly/execution", json=PLAIN).status_code == 404
        assert client.post("/jobs").status_code == 405
        assert client.get("/processes/map/execution").status_code == 405


def test_pages_of_jobs_follow_each_other(idle: Served) -> None:
    with idle.client() as client:
        made = [_post(client)["jobID"] for _ in range(5)]
        seen, address = [], "/jobs?limit=2&status=accepted&type=process&processID=map"
        while address:
            page = _get(client, address)
            seen += [job["jobID"] for job in page["jobs"]]
            address = next((link["href"] for link in page["links"] if link["rel"] == "next"), "")
        assert seen == made[::-1]
        assert len(_get(client, "/jobs?limit=100000")["jobs"]) == 5
        for none in ("status=failed", "processID=ask", "datetime=2020-01-01/2020-02-01", "minDuration=1"):
            assert _get(client, f"/jobs?{none}")["jobs"] == []
        assert len(_get(client, "/jobs?datetime=2020-01-01/..")["jobs"]) == 5
        assert len(_get(client, "/jobs?status=failed,accepted")["jobs"]) == 5


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=-1", "limit=ten", "limit=1e9999", "limit=٣", "limit=", "status=flying", "type=query",
     "after=1", "datetime=gestern", "minDuration=x", "maxDuration=-1"],
)  # fmt: skip
def test_a_parameter_that_cannot_be_read_is_told(open_house: Served, query: str) -> None:
    with open_house.client() as client:
        assert client.get(f"/jobs?{query}").status_code == 400


def test_a_request_that_cannot_be_run_makes_no_job(idle: Served, standard: Standard) -> None:
    with idle.client() as client:
        told = _post(client, {"inputs": {**PLAIN["inputs"], "out": "/etc", "area": [4, 45, 4.1, 99]}}, 400)
        standard.check("exception", told)
        assert "out" in told["detail"]
        for body, media_type, status in (
            (b"{", "application/json", 400),
            (json.dumps(PLAIN).encode(), "text/plain", 415),
            (json.dumps(PLAIN).encode(), "application/x-www-form-urlencoded", 415),
            (b" " * (MAX_BODY + 1), "application/json", 413),
        ):
            answer = client.post("/processes/map/execution", content=body, headers={"Content-Type": media_type})
            assert answer.status_code == status
        assert _get(client, "/jobs")["jobs"] == []


def test_a_page_that_calls_this_machine_by_its_own_name_is_refused(open_house: Served) -> None:
    with open_house.client() as client:
        answer = client.get("/jobs", headers={"Host": "attacker.example"})
        assert answer.status_code == 403
        assert client.get("/jobs", headers={"Host": "localhost:80"}).status_code == 200


def test_a_database_that_is_gone_is_not_now_and_shows_no_place(idle: Served, tmp_path: Path) -> None:
    with idle.jobs.database.write() as connection:
        connection.execute(sa.text("drop table earthmap_messages"))
        connection.execute(sa.text("drop table earthmap_jobs"))
    with idle.client() as client:
        for answer in (client.get("/jobs"), client.post("/processes/map/execution", json=PLAIN)):
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "30"
            assert str(tmp_path) not in answer.text
            assert "earthmap_jobs" not in answer.text


# ── tokens ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_a_token_nothing_is_shown(secured: Served) -> None:
    assert secured.tokens is not None
    token = secured.tokens.make("ada", role=Role.SUBMITTER)
    wrong = [{}, {"Authorization": "Bearer"}, {"Authorization": f"Basic {token}"}, {"Authorization": "Bearer em_x"}]
    with secured.client() as client:
        for headers in wrong:
            for method, path in (("GET", "/jobs"), ("GET", "/processes"), ("POST", "/processes/map/execution")):
                answer = client.request(method, path, headers=headers)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
                assert "em_" not in answer.text
        assert client.get("/").status_code == 200


def test_roles_and_owners(secured: Served) -> None:
    tokens = secured.tokens
    assert tokens is not None
    made = {owner: tokens.make(owner, role=Role.SUBMITTER) for owner in ("ada", "bob")}
    viewer, operator = tokens.make("ada", role=Role.VIEWER), tokens.make("root", role=Role.OPERATOR)
    with secured.client(made["ada"]) as ada, secured.client(made["bob"]) as bob, secured.client(viewer) as sees:
        job_id = _post(ada)["jobID"]
        assert [job["jobID"] for job in _get(sees, "/jobs")["jobs"]] == [job_id]
        _post(sees, status=403)
        assert sees.delete(f"/jobs/{job_id}").status_code == 403
        assert _get(bob, "/jobs")["jobs"] == []
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/results"), ("GET", "/results/features")):
            assert bob.request(method, f"/jobs/{job_id}{path}").status_code == 404
        assert _get(ada, f"/jobs/{job_id}")["status"] == "accepted"
    with secured.client(operator) as root:
        assert [job["jobID"] for job in _get(root, "/jobs")["jobs"]] == [job_id]
        assert root.delete(f"/jobs/{job_id}").status_code == 200


def test_quotas_hold(secured: Served) -> None:
    assert secured.tokens is not None
    quotas = Quotas(area_km2=100.0, tiles=7, read_bytes=1000, open_jobs=2)
    with secured.client(secured.tokens.make("ada", role=Role.SUBMITTER, quotas=quotas)) as client:
        large = {"inputs": {**PLAIN["inputs"], "area": [4.0, 45.0, 4.5, 45.5]}}
        assert "km²" in _post(client, large, 403)["detail"]
        job_id = _post(client)["jobID"]
        _post(client)
        assert _post(client, status=429)["type"] == "urn:earthmap:problem:quota"
        client.delete(f"/jobs/{job_id}")
        _post(client)
    job = secured.jobs.get(job_id)
    assert job is not None
    assert job.limits == {"tiles": 7, "read_bytes": 1000}


def test_beyond_loopback_only_with_tokens(tmp_path: Path) -> None:
    database = open_database(tmp_path / "state.sqlite")
    tokens = TokenStore(database)
    for host in ("127.0.0.1", "localhost", "::1", "[::1]", "127.8.9.1"):
        check_address(host, None)
    for host in ("0.0.0.0", "::", "192.168.1.4", "localhost.attacker.example", "earth.example.org", ""):
        for store in (None, tokens):
            with pytest.raises(JobError, match="let everybody in"):
                check_address(host, store)
    token = tokens.make("ada", role=Role.VIEWER)
    check_address("0.0.0.0", tokens)
    holder = tokens.check(token)
    assert holder is not None
    tokens.revoke(holder.id)
    with pytest.raises(JobError, match="let everybody in"):
        check_address("0.0.0.0", tokens)
    database.close()


# ── strangers ────────────────────────────────────────────────────────────────────────────────────────────────

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=25)
@given(body=st.binary(max_size=200) | _JSON.map(lambda value: json.dumps(value).encode()))
def test_no_body_is_a_defect(open_house: Served, body: bytes) -> None:
    with open_house.client() as client:
        headers = {"Content-Type": "application/json"}
        answer = client.post("/processes/map/execution", content=body, headers=headers)
        assert answer.status_code == 400
        assert answer.json()["status"] == 400


@settings(max_examples=25)
@given(
    path=st.text(st.characters(codec="utf-8"), max_size=30),
    method=st.sampled_from(["GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS", "PATCH"]),
    front=st.sampled_from(["/", "/jobs/", "/processes/", "/jobs?datetime=", "/jobs?limit=", "/jobs?after="]),
)
def test_no_address_is_a_defect(open_house: Served, path: str, method: str, front: str) -> None:
    from urllib.parse import quote

    with open_house.client() as client:
        assert client.request(method, front + quote(path)).status_code < 500
