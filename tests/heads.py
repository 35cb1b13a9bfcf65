"""A Ray head on loopback with a job server, as an operator starts one; nothing of it is left behind.

It is a `ray start --block` process of its own; what it started is known by a mark in its environment.
"""

from __future__ import annotations

import contextlib
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

from earthmap.pipeline.job import STORAGE
from tests.pipeline.commands import MARK, end_marked
from tests.servers import free_port

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
def started_head(*flags: str, storage: Path, mode: str = "token") -> Iterator[Head]:
    """A head with a token of its own, which it asks for unless `mode` is `disabled`. Results are kept in `storage`."""
    mark, port, server = secrets.token_hex(8), free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as scratch:
        token = Path(scratch) / "token"
        token.write_text(secrets.token_hex(32))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "EARTHMAP_"))}
        client = {
            **kept,
            "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
            "RAY_AUTH_MODE": mode,
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
