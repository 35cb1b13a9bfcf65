"""Clients of others: OWSLib, and schemathesis, which sends what the API document allows, and more."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import shapely

from earthmap.service.processes import PROCESSES
from tests.service.finished_jobs import finish_job, found
from tests.service.serving import Served, serve


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Served]:
    """Jobs are taken, and nobody runs them."""
    yield from serve(tmp_path)


def test_owslib_finds_describes_and_executes(idle: Served) -> None:
    from owslib.ogcapi.processes import Processes  # type: ignore[import-untyped]

    client = Processes(idle.url)
    assert [one["id"] for one in client.processes()] == list(PROCESSES)
    inputs = client.process("map")["inputs"]
    assert inputs["area"]["minOccurs"] == 1
    assert client.conformance()["conformsTo"]
    job = client.execute("map", inputs={"area": [4.0, 45.0, 4.1, 45.1], "queries": ["Where is water?"]}, async_=True)
    assert job["status"] == "accepted"
    assert idle.jobs.get(job["jobID"]) is not None


@pytest.mark.slow
def test_schemathesis_finds_no_defect(idle: Served, tmp_path: Path) -> None:
    finish_job(idle.jobs, tmp_path / "done", [found(shapely.box(4, 45, 5, 46))])  # so that lists have something
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{idle.url}/api", "--checks", checks]
    more = ["--max-examples", "8", "--seed", "7", "--no-color", "--suppress-health-check", "all"]
    env = {**os.environ, "NO_PROXY": "*"}
    done = subprocess.run(
        [*command, *more], capture_output=True, text=True, timeout=280, check=False, cwd=tmp_path, env=env
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
