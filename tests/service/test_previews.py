"""What a running job has so far is shown to whom the job is shown, and to nobody else; its results are not."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import httpx

from earthmap.service.tokens import Role
from tests.service.programs import program
from tests.service.serving import serve
from tests.service.standard import Standard

GROWS = program(
    """
out.mkdir(parents=True, exist_ok=True)
tell(progress=1)
(out / "features.parquet").write_bytes(b"PAR1 so far")
time.sleep(300)
"""
)

PLAIN = {"inputs": {"area": [4.0, 45.0, 4.1, 45.1], "queries": ["Where is water?"]}}


def _until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def _started(client: httpx.Client) -> str:
    """The path of a job that has features so far."""
    path = f"/jobs/{client.post('/processes/map/execution', json=PLAIN).json()['jobID']}"
    _until(lambda: client.get(f"{path}/preview/features").status_code == 200)
    return path


def test_a_running_job_links_to_what_it_has_so_far(tmp_path: Path, standard: Standard) -> None:
    for served in serve(tmp_path, command=GROWS):
        with served.client() as client:
            path = _started(client)
            status = client.get(path).json()
            standard.check("statusInfo", status)
            links = [link for link in status["links"] if link["rel"] == "preview"]
            assert [link["href"] for link in links] == [f"{served.url}{path}/preview/features"]
            answer = client.get(links[0]["href"])
            assert (answer.content, answer.headers["cache-control"]) == (b"PAR1 so far", "no-store")
            assert client.get(f"{path}/results").status_code == 404
            assert client.get(f"{path}/results/features").status_code == 404
            for name in ("coverage", "summary", "report", "nothing", "..%2fstate"):
                assert client.get(f"{path}/preview/{name}").status_code == 404
            assert client.delete(path).status_code == 200
            assert client.get(links[0]["href"]).status_code == 404
            assert client.get(path).json()["links"] == [link for link in status["links"] if link["rel"] == "self"]


def test_nobody_else_sees_what_grows(tmp_path: Path) -> None:
    for served in serve(tmp_path, command=GROWS, secured=True):
        assert served.tokens is not None
        ada, bob = (served.tokens.make(name, role=Role.SUBMITTER) for name in ("ada", "bob"))
        with served.client(ada) as client:
            path = f"{_started(client)}/preview/features"
        with served.client(bob) as client:
            assert client.get(path).status_code == 404
        with served.client() as client:
            assert client.get(path).status_code == 401
