"""What the runs of one cluster share: replicas of predictors, and turns.

Beside `earthmap.pipeline.batches` and `earthmap.pipeline.cluster` the only module of the pipeline that imports Ray.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import TracebackType
from typing import Any, Self

from earthmap.errors import ClusterError, JobError, ReplicaError
from earthmap.pipeline.turns import LEASE_S, Priority, Standing, Turns
from earthmap.predict import TileInput, key_of
from earthmap.tasks import Answer, Query

KEEPER = "earthmap-turns"
"""Name of the actor that keeps the turns of a cluster."""

ASK_S = 0.2
"""How often a run asks for its turn."""

ANSWER_S = 5.0
"""What the keeper of turns may take to answer; afterwards it is asked again."""

_PREFIX = "earthmap-"
"""What the names of deployments of Ray Serve begin with that hold a predictor."""

LOOK_S = 30.0
"""How often a worker that waits for a replica looks whether the model is offered still."""


# ── replicas ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedPredictor:
    """A predictor whose replicas all runs of the cluster share (`earthmap.service.replicas`); it is sent to workers.

    Example:
        >>> SharedPredictor(application="nano", key="0" * 32).key[:4]
        '0000'
    """

    application: str
    """Name of the application of Ray Serve."""
    key: str
    """As of any predictor."""

    def predict(self, inputs: Sequence[TileInput], queries: Sequence[Query]) -> list[list[Answer]]:
        """As of any predictor, computed by a replica as one batch.

        Raises:
            ReplicaError: when the replica that computes it is lost.
            ClusterError: when the model is offered no more.
        """
        from ray.exceptions import RayError, RayTaskError
        from ray.serve.exceptions import RayServeException

        waiting = _handle(self.application).predict.remote(list(inputs), list(queries))
        while True:
            try:
                answers: list[list[Answer]] = waiting.result(timeout_s=LOOK_S)
                return answers
            except RayTaskError:
                raise  # what the predictor itself raised
            except TimeoutError:
                self._check_offered()
            except (RayError, RayServeException) as error:
                self._check_offered()
                raise ReplicaError(f"a replica of {self.application} was lost: {type(error).__name__}") from error

    def _check_offered(self) -> None:
        _handle.cache_clear()
        if self.key not in deployed().get(self.application, ""):
            raise ClusterError(
                f"the replicas of {self.application} were withdrawn in the middle of the run, or do not start",
                fix="look at the service that offers them, and run the same command: what is done is kept",
            )


@lru_cache(maxsize=8)
def _handle(application: str) -> Any:
    from ray import serve

    return serve.get_app_handle(application)


def served_name(predictor: str, options: str) -> str:
    """Name of the deployment of a predictor: its key, by which runs find it, and that of its options."""
    return f"{_PREFIX}{predictor}-{options}"


def deployed() -> dict[str, str]:
    """Names of the deployments that hold a predictor, by application; empty for one that does not start, or ends."""
    from ray import serve

    found = {}
    for name, told in serve.status().applications.items():
        ours = [one for one in told.deployments if one.startswith(_PREFIX)]
        if ours:
            found[name] = "" if told.status in ("DEPLOY_FAILED", "DELETING") else ours[0]
    return found


def find_shared(spec: Mapping[str, Any]) -> tuple[Mapping[str, Any], SharedPredictor] | None:
    """What the cluster shares of the predictor of `spec`, and the spec that it was made of; None where it does not.

    Only models are shared: what has no weights is computed where the pixels are. A model may be shared in another type
    of numbers than this machine would compute in; the run then takes that one.

    Raises:
        JobError: where the cluster has replicas, and this machine cannot reach them.
    """
    if spec["name"] != "vlm" or not _has_serve():
        return None
    from earthmap.model.earth_onevision import DTYPES

    try:
        offered = deployed()
    except ModuleNotFoundError as error:
        raise JobError(
            f"the cluster has replicas of models, which this machine cannot ask: {error}",
            fix="pip install 'earthmap[service]'",
        ) from error
    for dtype in dict.fromkeys((spec["dtype"], *DTYPES)):
        key = key_of({**spec, "dtype": dtype})
        application = next((name for name, told in sorted(offered.items()) if key in told), None)
        if application is not None:
            return {**spec, "dtype": dtype}, SharedPredictor(application=application, key=key)
    return None


def _has_serve() -> bool:
    """Whether Ray Serve runs on the cluster; found out without importing it, which takes seconds."""
    import ray

    actors: list[dict[str, str]] = ray.util.list_named_actors(all_namespaces=True)
    return any(actor["namespace"] == "serve" for actor in actors)


# ── turns ────────────────────────────────────────────────────────────────────────────────────────────────────


class Keeper:
    """The turns of a cluster, as an actor of Ray that outlives the runs: it has the clock that all runs are told."""

    def __init__(self) -> None:
        self._turns = Turns()

    def ask(self, name: str, standing: Standing) -> bool:
        """As of Turns."""
        return self._turns.ask(name, standing, now=time.monotonic())

    def renew(self, name: str, standing: Standing) -> None:
        """As of Turns."""
        self._turns.renew(name, standing, now=time.monotonic())

    def leave(self, name: str) -> None:
        """As of Turns."""
        self._turns.leave(name)


@dataclass(slots=True)
class Place:
    """A run's place among those of its cluster, as a context manager; it is lost when the run is."""

    priority: Priority
    worked: float = 0.0
    """Seconds of workers that its cells took so far, which it says of itself."""
    _name: str = field(default_factory=lambda: uuid.uuid4().hex)
    _standing: Standing = field(init=False)
    _again: float = 0.0
    """When it asks next, by the clock of this machine."""
    _keeper: Any = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._standing = Standing(priority=self.priority, left=0, wanted=0, room=1)
        threading.Thread(target=self._renew, name="earthmap-turns", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if not isinstance(error, ClusterError):  # where the cluster is lost, nobody hears it
            with self._lock:
                self._call("leave", self._name)

    def ask(self, *, done: int, left: int, wanted: int, room: int) -> bool:
        """Whether the run may begin its next batch: so many cells, with `left` in work, where there is `room`.

        Not where the keeper does not answer: who asks looks after the cluster meanwhile, which may be lost.
        """
        worked = self.worked * (1 + left / max(1, done))
        if time.monotonic() < self._again or not self._lock.acquire(blocking=False):
            return False
        try:
            self._again = time.monotonic() + ASK_S
            self._standing = Standing(priority=self.priority, left=left, wanted=wanted, room=room, worked=worked)
            if not self._call("ask", self._name, self._standing):
                return False
            self._standing = replace(self._standing, left=left + wanted, wanted=0)
            return True
        finally:
            self._lock.release()

    def _renew(self) -> None:
        """Be heard of while the run is busy otherwise; what it wants it asks for itself."""
        while not self._stop.wait(LEASE_S / 5):
            with self._lock:
                self._call("renew", self._name, self._standing)

    def _call(self, what: str, *arguments: Any) -> Any:
        """What the keeper answers; None where it does not, as while it is started anew. Within the lock."""
        import ray
        from ray.exceptions import RayError

        with contextlib.suppress(RayError, ValueError):
            if self._keeper is None:
                make: Any = ray.remote(Keeper)
                lasting = {"lifetime": "detached", "get_if_exists": True, "max_restarts": -1, "num_cpus": 0}
                self._keeper = make.options(name=KEEPER, namespace="earthmap", **lasting).remote()
            return ray.get(getattr(self._keeper, what).remote(*arguments), timeout=ANSWER_S)
        self._keeper = None
        return None
