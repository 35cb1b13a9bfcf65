"""The service as a process: `earthmap serve`, `earthmap token`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from earthmap.cli import main
from earthmap.errors import JobError
from earthmap.service.processes import Offer
from earthmap.service.serve import Settings, parse_names, serve, state_address
from tests.servers import free_port


def test_names_of_catalogues_are_read() -> None:
    found = parse_names(["earth-search=https://a.example/v1?x=1", "here=data/catalog.json"], what="catalogue")
    assert found["earth-search"] == "https://a.example/v1?x=1"
    assert found["here"] == str(Path("data/catalog.json").absolute())
    for pairs in (["https://a.example/v1"], ["=x"], ["a="], ["a=x", "a=y"], ["a b=x"], ["../a=x"]):
        with pytest.raises(JobError, match="NAME=ADDRESS"):
            parse_names(pairs, what="catalogue")


def test_the_state_of_runs_elsewhere_must_be_named() -> None:
    assert state_address("runs", None) == "runs/state.sqlite"
    assert state_address("s3://bucket/runs", "postgresql://h/n") == "postgresql://h/n"
    with pytest.raises(JobError, match="--state"):
        state_address("s3://bucket/runs", None)


def test_it_does_not_start_beyond_loopback_without_tokens(tmp_path: Path) -> None:
    settings = Settings(out=str(tmp_path), offer=Offer(catalogs={"a": "/a"}), host="0.0.0.0")
    with pytest.raises(JobError, match="let everybody in"):
        serve(settings, say=lambda text: pytest.fail(text))


def test_what_cannot_be_listened_on_is_told(tmp_path: Path) -> None:
    offer = Offer(catalogs={"a": "/a"})
    for port, at_once in ((-1, 1), (65_536, 1), (8000, 0)):
        with pytest.raises(JobError):
            Settings(out=str(tmp_path), offer=offer, port=port, at_once=at_once)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Settings(out=str(tmp_path), offer=offer, port=taken.getsockname()[1])
        with pytest.raises(JobError, match="give another --port"):
            serve(settings, say=lambda text: pytest.fail(text))


def test_tokens_are_made_listed_and_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = str(tmp_path / "state.sqlite")
    out = str(tmp_path)  # as it is given to `earthmap serve`, whose state is in there
    assert main(["token", "make", "ada", "--out", out, "--role", "submitter", "--area-km2", "500"]) == 0
    token = capsys.readouterr().out.strip()
    assert token.startswith("em_")
    assert main(["token", "list", "--state", state]) == 0
    line = capsys.readouterr().out.strip()
    assert token.split("_", 2)[2] not in line
    assert "ada  submitter  500 km²" in line
    assert main(["token", "revoke", token.split("_")[1], "--state", state]) == 0
    assert main(["token", "revoke", token.split("_")[1], "--state", state]) == 2
    assert main(["token", "make", "a b", "--state", state]) == 2
    assert main(["token", "make", "ada", "--state", state, "--tiles", "0"]) == 2
    assert main(["token", "list", "--state", str(tmp_path / "none.sqlite")]) == 2
    assert not (tmp_path / "none.sqlite").exists()


@pytest.mark.slow
def test_a_service_takes_a_job_and_ends_when_told(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "earthmap.cli", "serve", "--out", str(tmp_path), "--port", str(port)]
    served = subprocess.Popen([*command, "--catalog", f"none={tmp_path}/none.json"], stderr=subprocess.PIPE, text=True)
    url = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
        _wait(client)
        body = {"inputs": {"area": [4.0, 45.0, 4.1, 45.1], "queries": ["Where is water?"]}}
        job = client.post("/processes/map/execution", json=body).json()
        end = time.monotonic() + 60
        while (found := client.get(f"/jobs/{job['jobID']}").json())["status"] in ("accepted", "running"):
            assert time.monotonic() < end
            time.sleep(0.1)
        assert found["status"] == "failed"
        assert str(tmp_path) not in json.dumps(found)
        assert client.get(f"/jobs/{job['jobID']}/results").json()["type"] == "urn:earthmap:problem:catalog"
    os.kill(served.pid, signal.SIGINT)
    said = served.communicate(timeout=30)[1]
    assert f"serving everybody on this machine at {url}" in said
    assert "Traceback" not in said


def _wait(client: httpx.Client) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            client.get("/")
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    pytest.fail("the service is not up")
