"""`earthmap serve` beside a Ray whose job API is open, and beside one that asks for a token."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from earthmap.errors import JobError
from earthmap.operate.job_api import Guard, Place, find_places, probe, probe_head
from earthmap.service.processes import Offer
from earthmap.service.serve import Settings, serve
from tests.heads import started_head

_DASHBOARD = """
import http.server, sys
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        text = {"/api/version": b'{"ray_version": "2.60.0"}', "/api/jobs/": b"[]"}.get(self.path, b"")
        self.send_response(int(sys.argv[1]))
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
server = http.server.HTTPServer(("127.0.0.1", 0), Answers)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


@pytest.fixture
def dashboard(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A process that looks like Ray's dashboard, and answers everything with one status."""
    command = [sys.executable, "-c", _DASHBOARD, str(request.param), "/lib/ray/dashboard/dashboard.py"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        yield Place("127.0.0.1", int(process.stdout.readline()))
        process.kill()


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="processes are found by /proc, which Linux has")
@pytest.mark.parametrize(("dashboard", "started"), [(200, False), (401, True)], indirect=["dashboard"])
def test_it_does_not_start_beside_an_open_job_api(
    dashboard: Place, started: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dashboard in find_places()
    monkeypatch.setattr("earthmap.operate.job_api.find_places", lambda beside: {*beside, *find_places()} & {dashboard})
    settings = Settings(out=str(tmp_path), offer=Offer(catalogs={"a": "/a"}), host="203.0.113.1", port=1)
    monkeypatch.setattr("earthmap.service.serve.check_address", lambda host, tokens: None)
    with pytest.raises(JobError, match="nothing can listen" if started else f"{dashboard} lets everybody.*token"):
        serve(settings, say=lambda text: pytest.fail(text))


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(200)
@pytest.mark.skipif("PYTEST_XDIST_WORKER" in os.environ, reason="no service of other tests would start beside it")
def test_it_does_not_start_beside_a_real_ray_that_asks_for_no_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that asks is tested where jobs are submitted to it."""
    with started_head("--num-cpus=1", storage=tmp_path, mode="disabled") as head:
        dashboard = Place("127.0.0.1", int(head.server.rpartition(":")[2]))
        assert dashboard in find_places(), "by its process: the port is none of the usual ones"
        assert probe(dashboard) is probe_head(head.address) is Guard.OPEN
        monkeypatch.setattr("earthmap.operate.job_api.find_places", lambda beside: {dashboard, *beside})  # no other
        for cluster in (None, head.address):
            settings = Settings(out=str(tmp_path), offer=Offer(catalogs={"a": "/a"}), cluster=cluster)
            with pytest.raises(JobError, match=f"{dashboard}.* lets everybody"):
                serve(settings, say=lambda text: pytest.fail(text))
