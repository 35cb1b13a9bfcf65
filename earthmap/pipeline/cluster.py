"""The Ray cluster of a run: connecting to it, and looking after it while rows come from it.

Beside `earthmap.pipeline.batches` and `earthmap.pipeline.sharing` the only module of the pipeline that imports Ray.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Container, Iterator, Mapping
from functools import partial
from typing import Any, Protocol

from earthmap.connection import handed_on
from earthmap.errors import ClusterError, JobError

WATCH_S = 1.0
"""How often a run looks after its cluster."""

MOMENT_S = 0.2
"""How long it waits for a row before it looks whether something else is to be done."""

HEAD_LOST_S = 2.0
"""A head that is not heard for so long is lost: what ran there is no more, even where another takes its place."""

READER, PREDICTOR = ROLES = ("reader", "predictor")
"""What a node can be for: reading, merging and whatever else needs no GPU; holding the model on one."""

TRACE = 0.001
"""How much of a role work asks for: enough to be sent there, and never what a node runs out of first."""

OBJECT_STORE_BYTES = 256 * 2**20
"""Ray's object store for a cluster that a run starts: only small rows pass through it."""


class _End:
    """All rows of a dataset came."""


END = _End()

Told = dict[str, Any] | BaseException | _End
"""A row, what ended the rows, or that they came to their end."""


def by_role(asked: Mapping[str, float], roles: Container[str]) -> dict[str, Any]:
    """What is asked, of a node of the role that it is for where the cluster offers that role."""
    role = PREDICTOR if asked.get("num_gpus") else READER
    return {**asked, "resources": {role: TRACE}} if role in roles else dict(asked)


@contextlib.contextmanager
def cluster(address: str | None, *, object_store_bytes: int = OBJECT_STORE_BYTES) -> Iterator[None]:
    """A Ray cluster for the run: the caller's if one is connected, the one at `address`, else one of this machine,
    with an object store of that size.

    Workers of the one at `address` get the variables that `EARTHMAP_HANDED_ON` names; those of this machine have them.

    Raises:
        JobError: when there is no cluster at `address`.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray warns on the terminal without it
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # a thread that still waits starts no other cluster
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # what Ray says of dead workers, which it runs again
    if address is None:
        yield from _connected(None, include_dashboard=False, object_store_memory=object_store_bytes)
        return
    _knock(address)
    variables = handed_on()
    local = {"runtime_env": {"env_vars": variables}} if variables else {}
    with _variable("RAY_AUTH_MODE", "token"):  # what `ray start` asks of those who connect
        yield from _connected(address, **local)


def _connected(address: str | None, **options: Any) -> Iterator[None]:
    import ray

    if ray.is_initialized():
        yield
        return
    try:
        with _unheard() if address else contextlib.nullcontext():
            ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise JobError(
            f"there is no Ray cluster at {address}: {error}",
            fix="start one with `ray start --head`, or leave --cluster out to use this machine",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """The environment has `name`, as it was set, else with this value; afterwards it is as before."""
    former = os.environ.get(name)
    os.environ.setdefault(name, value)
    try:
        yield
    finally:
        if former is None:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """Ray's core takes on that a lost cluster is told once, and by us; where it says so, it is not heard."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        with _variable("RAY_BACKEND_LOG_LEVEL", "fatal"):
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _knock(address: str) -> None:
    """Find out in seconds that nobody listens at `host:port`; Ray itself tries for a minute and a half."""
    target = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    host, _, port = target.rpartition(":")
    if "://" in target or not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise JobError(
            f"there is no Ray cluster at {target}: {error}",
            fix="start one with `ray start --head`, or leave --cluster out to use this machine",
        ) from error


class Watch:
    """What becomes of the cluster while a run waits for its cells.

    Ray does the work of a lost node again by itself. For a lost head it waits for a minute and then ends the process
    of the driver without a word, so that is found out here, before.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        import ray

        here = ray.get_runtime_context()
        self.address = here.gcs_address
        host, _, port = self.address.rpartition(":")
        own_ip: Callable[[], str] = ray.util.get_node_ip_address
        local = host == own_ip()
        self.head = ("127.0.0.1" if local else host.strip("[]"), int(port))  # it listens on every interface
        self.own = here.get_node_id()
        self.say = say
        self.nodes = self._alive()
        self.heard = self.looked = time.monotonic()

    def _alive(self) -> dict[str, float]:
        """CPUs of the nodes that are up."""
        import ray

        list_nodes: Callable[[], list[dict[str, Any]]] = ray.nodes
        return {node["NodeID"]: node["Resources"].get("CPU", 0.0) for node in list_nodes() if node["Alive"]}

    @property
    def cpus(self) -> int:
        """Those of all nodes together."""
        return int(sum(self.nodes.values()))

    @property
    def gpus(self) -> float:
        """Those of all nodes together."""
        return self._resources().get("GPU", 0.0)

    @property
    def roles(self) -> frozenset[str]:
        """Those of ROLES that the cluster offers: a node has a resource of that name.

        The head of a cluster that grows names those that it can grow, too, beside no CPU (docs/cluster.md).
        """
        return frozenset(ROLES) & self._resources().keys()

    @staticmethod
    def _resources() -> dict[str, float]:
        import ray

        resources: Callable[[], dict[str, float]] = ray.cluster_resources
        return resources()

    def wait(self, taken: queue.SimpleQueue[Told]) -> Told | None:
        """What is told next; None where nothing is for a moment.

        Raises:
            ClusterError: when the head is lost.
            BaseException: what ended the rows.
        """
        if time.monotonic() - self.looked >= WATCH_S:
            self.look()
        try:
            told = taken.get(timeout=MOMENT_S)
        except queue.Empty:
            return None
        if isinstance(told, BaseException):
            while not self.look():  # what Ray says of a cluster that is no more
                time.sleep(WATCH_S)
            raise told
        return told

    def look(self) -> bool:
        """Whether the head is heard, and say so when a node is gone. Raises ClusterError when the head is."""
        self.looked = time.monotonic()
        try:
            socket.create_connection(self.head, timeout=2).close()
        except OSError as error:
            if self.looked - self.heard < HEAD_LOST_S:
                return False
            raise self._lost(str(error)) from None
        self.heard = self.looked
        alive = self._alive()
        if self.own not in alive:
            raise self._lost("another took its place")
        if self.nodes.keys() - alive.keys():
            self.say("a node was lost; its work is done again")
        self.nodes = alive
        return True

    def _lost(self, why: str) -> ClusterError:
        return ClusterError(
            f"the Ray cluster at {self.address} was lost in the middle of the run: {why}",
            fix="start it again and run the same command: what is done is kept, and it goes on from there",
        )


class Datasets(Protocol):
    """What rows come from, one dataset after the other."""

    def begin(self, came: int) -> Any:
        """The next dataset, when `came` rows came so far; None where it is not its turn yet, or there is none."""

    @property
    def is_over(self) -> bool:
        """Whether the last dataset was begun."""


def watched_rows(datasets: Datasets, watch: Watch) -> Iterator[dict[str, Any]]:
    """The rows of all datasets as they come, the cluster watched all the while.

    Threads take them from Ray, where they may wait for ever for a cluster that is no more; they are left to themselves
    then.
    """
    taken: queue.SimpleQueue[Told] = queue.SimpleQueue()
    stop = threading.Event()

    def take(dataset: Any) -> None:
        try:
            for row in dataset.iter_rows():
                taken.put(row)
                if stop.is_set():
                    return
            taken.put(END)
        except BaseException as error:  # noqa: BLE001 - raised again where the rows are waited for
            taken.put(error)

    former = sys.unraisablehook
    sys.unraisablehook = partial(_not_of_ray, former)
    came = working = 0
    try:
        while working or not datasets.is_over:
            dataset = datasets.begin(came)
            if dataset is not None:
                working += 1
                threading.Thread(target=take, args=(dataset,), name="earthmap-rows", daemon=True).start()
            told = watch.wait(taken)
            if isinstance(told, dict):
                came += 1
                yield told
            elif told is not None:
                working -= 1
        sys.unraisablehook = former  # not where it failed: what is left of a lost cluster is cleared away later
    finally:
        stop.set()


def _not_of_ray(former: Callable[[sys.UnraisableHookArgs], Any], ignored: sys.UnraisableHookArgs) -> None:
    """`former`, but for what Ray's generators raise while they are cleared away: a lost cluster is told once, by us."""
    code = getattr(ignored.object, "gi_code", None)
    if code is None or f"{os.sep}ray{os.sep}" not in code.co_filename:
        former(ignored)
