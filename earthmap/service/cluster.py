"""The Ray cluster of the service, with the replicas on it: the operator's, or one of its own.

A process of its own connects to it, or starts it, and ends with the service: `python -m earthmap.service.cluster`, its
work a line of JSON on the standard input. For who is connected to a cluster that is lost is ended by Ray without a
word, and the service must outlive its cluster. It is started when it is first needed, and again when it was lost.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import IO, TYPE_CHECKING, Any, cast

from earthmap.errors import ClusterError, EarthmapError

if TYPE_CHECKING:
    from earthmap.service.replicas import ReplicaOptions

KEEPER = (sys.executable, "-m", "earthmap.service.cluster")
"""What keeps the cluster; it tells of it on the standard output, a line of JSON each."""

START_S = 50.0
"""What a cluster may take to start, or to be connected to; less than the lease of a job."""

END_S = 15.0
"""What the keeper may take to end before it is killed."""

PIXEL_BYTES = 1 << 30
"""Ray's object store for a cluster of the service: pictures on their way to replicas pass through it."""

_log = logging.getLogger("earthmap.service")


@dataclass(slots=True, kw_only=True)
class ServiceCluster:
    """The cluster that runs and questions of the service use; to be used by several threads."""

    models: Mapping[str, Mapping[str, Any]]
    """What `build_predictor` takes, by the name under which it is offered."""
    options: ReplicaOptions
    """Of each model."""
    given: str | None = None
    """Address of the operator's; None for one of the service's own, on this machine."""
    command: Sequence[str] = KEEPER
    _keeper: subprocess.Popen[bytes] | None = None
    _found: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def address(self) -> str:
        """Where the cluster is; waits until it is up and its replicas can be asked.

        Raises:
            ClusterError: where there is none now; it may be there later.
        """
        with self._lock:
            if self._keeper is None or self._keeper.poll() is not None:
                self._end()
                self._found = self._start()
            return self._found

    def close(self) -> None:
        """End a cluster of the service's own. The replicas on another stay, for when the service starts again."""
        with self._lock:
            self._end()

    def _start(self) -> str:
        environment = {**os.environ, "RAY_AUTH_MODE": "token"}
        self._keeper = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, env=environment
        )
        work = {"cluster": self.given, "models": self.models, "options": asdict(self.options)}
        stdin = cast(IO[bytes], self._keeper.stdin)  # it stays open: its end tells the keeper that we are gone
        with contextlib.suppress(BrokenPipeError):  # it died at once, which is told below
            stdin.write(json.dumps(work).encode() + b"\n")
            stdin.flush()
        told = _first_line(cast(IO[bytes], self._keeper.stdout))
        if "cluster" not in told:
            self._end()
            raise ClusterError(told.get("fault", f"the cluster was not up within {START_S:g} s, or died"))
        if "fault" in told:
            _log.error("the service goes on without replicas: %s", told["fault"])
        return str(told["cluster"])

    def _end(self) -> None:
        """End the keeper, and all that it started with it."""
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        with contextlib.suppress(OSError):  # what was not flushed to one that died
            cast(IO[bytes], keeper.stdin).close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            keeper.wait(END_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(keeper.pid, signal.SIGKILL)
        keeper.wait()
        cast(IO[bytes], keeper.stdout).close()


def _first_line(told: IO[bytes]) -> dict[str, Any]:
    """The first line of JSON; nothing where none comes in time."""
    heard: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=lambda: heard.put(told.readline()), name="cluster", daemon=True).start()
    with contextlib.suppress(queue.Empty, ValueError):
        found: dict[str, Any] = json.loads(heard.get(timeout=START_S))
        return found
    return {}


# ── the keeper ───────────────────────────────────────────────────────────────────────────────────────────────


def main() -> int:
    """Keep the cluster of the standard input until that ends; 1 where the cluster is lost, or never was there."""
    told = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is not taken for ours
    work = json.loads(sys.stdin.readline())
    over = threading.Event()
    threading.Thread(target=_wait_for_end, args=(sys.stdin, over), daemon=True).start()
    try:
        _keep(work, over, told)
    except EarthmapError as error:
        print(json.dumps({"fault": str(error)}), file=told, flush=True)
        return 1
    return 0


def _keep(work: Mapping[str, Any], over: threading.Event, told: IO[str]) -> None:
    """Raises JobError where there is no such cluster, and ClusterError when it is lost."""
    from earthmap.pipeline.cluster import WATCH_S, Watch, cluster

    with cluster(work["cluster"], object_store_bytes=PIXEL_BYTES):
        watch = Watch(lambda text: None)
        line = {"cluster": watch.address, **_deployed(work)}
        print(json.dumps(line), file=told, flush=True)
        while not over.wait(WATCH_S):
            watch.look()


def _deployed(work: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with the replicas, if anything: runs and whoever needs none of them can go on."""
    from earthmap.service.replicas import ReplicaOptions, deploy

    try:
        deploy(work["models"], options=ReplicaOptions(**work["options"]))
    except EarthmapError as error:
        return {"fault": str(error)}
    return {}


def _wait_for_end(stdin: IO[str], over: threading.Event) -> None:
    """End the keeper when `stdin` ends, by force after a while."""
    while stdin.read(4096):
        pass
    over.set()
    time.sleep(END_S)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
