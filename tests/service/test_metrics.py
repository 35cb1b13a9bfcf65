"""The service in numbers: as Prometheus reads them, by whom they are read, and how few they stay."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse
from starlette.testclient import TestClient

from earthmap.service.access import Service
from earthmap.service.app import create_app
from earthmap.service.database import open_database
from earthmap.service.egress_counts import EgressCounter
from earthmap.service.egress_rules import Refusal
from earthmap.service.metrics import ServiceMetrics
from earthmap.service.processes import Offer
from earthmap.service.state import JobStore, Status
from earthmap.service.tokens import Role, TokenStore
from tests.service.programs import WAITS
from tests.service.serving import serve

OFFER = Offer(catalogs={"drawn": "/secret/place/catalog.json"})
BODY = {"inputs": {"area": [4.0, 45.0, 4.1, 45.1], "queries": ["Where is water?"]}}


def values(text: str) -> dict[str, float]:
    """Samples by name and labels, as Prometheus' own parser reads them."""
    return {
        sample.name + "".join(f"|{name}={sample.labels[name]}" for name in sorted(sample.labels)): sample.value
        for family in parse(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[JobStore]:
    """An empty state."""
    database = open_database(tmp_path / "state.sqlite")
    yield JobStore(database)
    database.close()


def client_of(service: Service) -> TestClient:
    """A client of the service, without a network."""
    return TestClient(create_app(service), base_url="http://localhost", raise_server_exceptions=False)


def test_requests_are_counted_by_route_and_never_by_id(jobs: JobStore) -> None:
    client = client_of(Service(jobs=jobs, offer=OFFER))
    made = client.post("/processes/map/execution", json=BODY)
    assert made.status_code == 201, made.text
    ids = [made.json()["jobID"], *(str(uuid.uuid4()) for _ in range(20)), "../../x", "%00", "ä"]
    for name in ids:
        client.get(f"/jobs/{name}")
        client.get(f"/nowhere/{name}")
    client.delete(f"/jobs/{ids[0]}")
    client.put("/jobs")
    client.request("BREW", "/jobs")
    answer = client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = values(answer.text)
    assert found["earthmap_requests_total|method=POST|route=/processes/{process}/execution|status=201"] == 1
    assert found["earthmap_requests_total|method=GET|route=/jobs/{job}|status=200"] == 1
    assert found["earthmap_requests_total|method=GET|route=/jobs/{job}|status=404"] >= 21
    assert found["earthmap_requests_total|method=DELETE|route=/jobs/{job}|status=200"] == 1
    assert found["earthmap_requests_total|method=PUT|route=/jobs|status=405"] == 1
    assert found["earthmap_requests_total|method=other|route=/jobs|status=405"] == 1
    assert found["earthmap_requests_total|method=GET|route=none|status=404"] >= 21
    assert not any(name in answer.text for name in ids if len(name) > 30)
    assert "secret" not in answer.text
    assert found["earthmap_request_duration_seconds_count|route=/processes/{process}/execution"] == 1
    assert found["earthmap_request_duration_seconds_bucket|le=60.0|route=/jobs/{job}"] >= 21
    assert values(client.get("/metrics").text)["earthmap_requests_total|method=GET|route=/metrics|status=200"] == 1


def test_a_defect_is_counted_as_one(jobs: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    client = client_of(Service(jobs=jobs, offer=OFFER))
    with monkeypatch.context() as broken:
        broken.setattr(JobStore, "page", lambda *_: 1 / 0)
        assert client.get("/jobs").status_code == 500
    assert values(client.get("/metrics").text)["earthmap_requests_total|method=GET|route=/jobs|status=500"] == 1


def test_jobs_and_how_long_they_wait(jobs: JobStore) -> None:
    now = 1_000.0
    jobs = JobStore(jobs.database, clock=lambda: now)
    client = client_of(Service(jobs=jobs, offer=OFFER))
    found = values(client.get("/metrics").text)
    assert {found[f"earthmap_jobs|status={status}"] for status in Status} == {0}
    assert found["earthmap_jobs_waiting_seconds"] == found["earthmap_runs_running"] == 0
    made = [jobs.submit("map", {}, owner="ada") for _ in range(2)]
    now = 1_030.0
    assert values(client.get("/metrics").text)["earthmap_jobs_waiting_seconds"] == 30
    taken = jobs.claim("one", lease_s=60)
    (other,) = (job.id for job in made if job is not None and taken is not None and job.id != taken.id)
    jobs.dismiss(other)
    found = values(client.get("/metrics").text)
    assert (found["earthmap_jobs|status=running"], found["earthmap_jobs|status=dismissed"]) == (1, 1)
    assert found["earthmap_jobs|status=accepted"] == found["earthmap_jobs_waiting_seconds"] == 0
    now = 1_100.0  # nobody renews the lease: it waits again, since it was asked for
    assert values(client.get("/metrics").text)["earthmap_jobs_waiting_seconds"] == 100


def test_what_was_asked(jobs: JobStore) -> None:
    service = Service(jobs=jobs, offer=OFFER)
    service.metrics.asked("answered", 0.3)
    service.metrics.asked("busy", 9.0)
    found = values(client_of(service).get("/metrics").text)
    assert found["earthmap_asked_total|outcome=answered"] == found["earthmap_asked_total|outcome=busy"] == 1
    assert found["earthmap_ask_duration_seconds_count"] == 1
    assert found["earthmap_ask_duration_seconds_sum"] == 0.3


def test_what_the_proxy_counts(jobs: JobStore) -> None:
    counter = EgressCounter()
    counter.allowed()
    counter.refused(Refusal.NOT_PUBLIC)
    counter.carried(down=5)
    found = values(client_of(Service(jobs=jobs, offer=OFFER, egress=counter)).get("/metrics").text)
    assert found["earthmap_egress_allowed_total"] == found["earthmap_egress_refused_total|reason=not_public"] == 1
    assert found["earthmap_egress_bytes_total|direction=down"] == 5


def test_operators_alone_read_them(jobs: JobStore) -> None:
    tokens = TokenStore(jobs.database)
    client = client_of(Service(jobs=jobs, offer=OFFER, tokens=tokens))
    told = {role: tokens.make("ada", role=role) for role in Role}
    status = {
        role: client.get("/metrics", headers={"Authorization": f"Bearer {token}"}).status_code
        for role, token in told.items()
    }
    assert status == {Role.VIEWER: 403, Role.SUBMITTER: 403, Role.OPERATOR: 200}
    assert client.get("/metrics").status_code == 401
    tokens.revoke(told[Role.OPERATOR].split("_")[1])
    assert client.get("/metrics", headers={"Authorization": f"Bearer {told[Role.OPERATOR]}"}).status_code == 401


def test_without_tokens_they_are_read_from_here_only(jobs: JobStore) -> None:
    client = client_of(Service(jobs=jobs, offer=OFFER))
    assert client.get("/metrics").status_code == 200
    assert client.get("/metrics", headers={"Host": "evil.example"}).status_code == 403


def test_services_are_apart_and_names_are_prometheus(jobs: JobStore) -> None:
    one, two = ServiceMetrics(), ServiceMetrics()
    one.answered(route="/", method="GET", status=200, seconds=0.1)
    text = two.render(jobs.tally(), egress=EgressCounter().read()).decode()
    assert "earthmap_requests_total|method=GET|route=/|status=200" not in values(text)
    for family in parse(text):
        assert family.name.startswith(("earthmap_", "process_"))
        if family.type == "counter":
            assert all(sample.name.endswith(("_total", "_created")) for sample in family.samples)


def test_a_running_service_is_read(tmp_path: Path) -> None:
    for served in serve(tmp_path, command=WAITS):
        with served.client() as client:
            job = client.post("/processes/map/execution", json=BODY).json()["jobID"]
            end = time.monotonic() + 20
            while not (tmp_path / "runs" / job / "pid").exists():
                assert time.monotonic() < end
                time.sleep(0.02)
            found = values(client.get("/metrics").text)
            assert found["earthmap_runs_running"] == found["earthmap_jobs|status=running"] == 1
            assert found["process_open_fds"] > 0
            client.delete(f"/jobs/{job}")
            assert _gone(client)


def _gone(client: httpx.Client) -> bool:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if values(client.get("/metrics").text)["earthmap_runs_running"] == 0:
            return True
        time.sleep(0.05)
    return False
