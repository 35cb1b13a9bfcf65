"""`ray job submit` to a head on loopback that asks for its token, offers a role, and knows the storage.

The head is a `ray start --block` process of its own; what it started is known by a mark in its environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from earthmap.pipeline.folder import RUN_PATH
from earthmap.pipeline.job import STORAGE
from earthmap.synthetic import World, small_world, write_world
from tests.pipeline.commands import MARK, end_marked, write_job
from tests.servers import free_port

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
UP_S = 60.0
JOB_S = 150.0


@dataclass(frozen=True)
class Head:
    """A started head."""

    address: str
    """Of the cluster."""
    server: str
    """Of its job server."""
    env: Mapping[str, str]
    """With what a client is let in."""

    def submit(
        self, folder: Path, *entry: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """`ray job submit --working-dir . -- python …`, in `folder`, waited for."""
        line = [
            str(BIN / "ray"),
            "job",
            "submit",
            "--address",
            self.server,
            "--working-dir",
            ".",
            "--",
            "python",
            *entry,
        ]
        return subprocess.run(
            line, cwd=folder, env=dict(self.env if env is None else env), capture_output=True, text=True, timeout=JOB_S
        )


def _answers(address: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=2) as answer:
        return bool(answer.status == 200)
    return False


@contextlib.contextmanager
def started_head(*flags: str, storage: Path) -> Iterator[Head]:
    """A head on loopback with a job server and a token of its own; nothing of it is left behind.

    Results are kept in `storage`.
    """
    mark, port, server = secrets.token_hex(8), free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as scratch:
        token = Path(scratch) / "token"
        token.write_text(secrets.token_hex(32))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "EARTHMAP_"))}
        client = {
            **kept,
            "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        places = [f"--port={port}", f"--dashboard-port={server}", f"--temp-dir={scratch}/ray"]
        places += [f"--dashboard-agent-listen-port={free_port()}", "--object-store-memory=200000000"]
        with (Path(scratch) / "head.log").open("w") as log:
            head = subprocess.Popen(
                [str(BIN / "ray"), "start", "--head", "--block", "--node-ip-address=127.0.0.1", *places, *flags],
                env={**client, STORAGE: str(storage), MARK: mark},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            until = time.monotonic() + UP_S
            while not _answers(f"http://127.0.0.1:{server}/api/gcs_healthz"):
                assert head.poll() is None, (Path(scratch) / "head.log").read_text()
                assert time.monotonic() < until, (Path(scratch) / "head.log").read_text()
                time.sleep(0.2)
            yield Head(f"127.0.0.1:{port}", f"http://127.0.0.1:{server}", client)
        finally:
            head.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                head.wait(timeout=20)
            end_marked(mark, patience=2.0)
            head.wait(timeout=10)


@pytest.fixture(scope="module")
def world() -> World:
    """A valley of two kilometres."""
    return small_world(3, size_m=1800.0, cloud_share=0.0)


@pytest.fixture(scope="module")
def catalog(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The catalogue of its scenes."""
    return write_world(world, tmp_path_factory.mktemp("valley"), columns=1)


@pytest.fixture
def folder(world: World, catalog: Path, tmp_path: Path) -> Path:
    """What a person submits: the thin entry points, and a job whose run folder is a relative path."""
    submitted = tmp_path / "submitted"
    job = write_job(submitted, world, catalog, out="runs/valley", predictor="spectral")
    (submitted / "jobs").mkdir()
    for name in ("map_area.py", "respond.py"):
        (submitted / "jobs" / name).write_bytes((ROOT / "jobs" / name).read_bytes())
    (submitted / "area.geojson").write_text(json.dumps(yaml.safe_load(job.read_text())["area"]))
    return submitted


def test_jobs_are_submitted_with_the_token_and_kept_in_the_storage(
    world: World, catalog: Path, folder: Path, tmp_path: Path
) -> None:
    storage = tmp_path / "storage"
    with started_head("--num-cpus=2", '--resources={"reader": 1}', storage=storage) as head:
        mapped = head.submit(folder, "jobs/map_area.py", "job.yaml")
        assert mapped.returncode == 0, mapped.stdout + mapped.stderr
        kept = storage / "runs" / "valley"
        assert (kept / RUN_PATH).is_file()
        assert str(kept) in mapped.stdout, "says where the result is"

        event = ("--event", "area.geojson", "--event-time", f"{world.after:%Y-%m-%d}", "--catalog", str(catalog))
        asked = ("--query", "Where is water?", "--predictor", "spectral", "--collection", "drawn-sentinel-2-l2a")
        answered = head.submit(folder, "jobs/respond.py", *event, *asked, "--out", "events/valley")
        assert answered.returncode == 0, answered.stdout + answered.stderr
        assert len(list((storage / "events" / "valley").glob(f"*/{RUN_PATH}"))) == 1

        stranger = {**head.env, "RAY_AUTH_TOKEN_PATH": "", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        refused = head.submit(folder, "jobs/map_area.py", "job.yaml", env=stranger)
        assert refused.returncode != 0
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{head.server}/api/jobs/", timeout=5)
