"""Workers that prepare what is asked about one place: replicas of Ray Serve on CPUs, none of which holds a model.

The pixels go from a worker to the model's replica, and nowhere else. `python -m earthmap.service.ask_workers` deploys
the workers on the cluster of the models and passes on to them what it is told on its standard input, one line of JSON
for each question, and on its standard output what they answer (`earthmap.service.ask_relay` has the other end): the
service itself connects to no cluster, whose loss would end it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import pickle
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import earthmap
from earthmap.content import content_key
from earthmap.errors import ClusterError, EarthmapError
from earthmap.pipeline.cluster import TRACE, WATCH_S, Watch, by_role, cluster
from earthmap.service.asking import SPECTRAL, Asked, BusyError, Prepared, finish, prepare
from earthmap.service.replicas import QUIET, ReplicaOptions, replica_handle
from earthmap.service.trained import Trained
from earthmap.tasks import Answer, Query

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

    from earthmap.predict import TileInput

APPLICATION = "asking"
"""Of Ray Serve."""

THREADS = 2
"""Of a worker: while one waits for the storage, the other computes."""

ONGOING = 32
"""Questions of a worker, most of which wait for the model: their pixels are in its memory meanwhile."""

Told = dict[str, Any] | EarthmapError | BusyError
"""A reply, or why there is none: as a value, because Ray would wrap what is raised."""

Tell = Callable[[Mapping[str, Any]], None]


# ── what runs on the cluster ─────────────────────────────────────────────────────────────────────────────────


class Worker:
    """Prepares questions, has the model's replica answer them, and outlines what was found; made by Ray Serve."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS)
        self._handles: dict[str, DeploymentHandle[Any]] = {}
        self._keys: dict[str, str] = {}

    async def answer(self, asked: Asked) -> Told:
        """The reply, or why there is none."""
        from ray.exceptions import RayError, RayTaskError
        from ray.serve.exceptions import RayServeException

        loop = asyncio.get_running_loop()
        model = ""
        try:
            prepared = await loop.run_in_executor(self._threads, prepare, asked)
            model = prepared.model
            answer, key = await self._ask(prepared)
            return await loop.run_in_executor(self._threads, partial(finish, prepared, answer, predictor=key))
        except RayTaskError:
            raise  # a defect
        except (RayError, RayServeException, ClusterError) as error:
            self._handles.pop(model, None)
            return BusyError(f"{type(error).__name__} of {model}")
        except EarthmapError as error:
            return error

    async def _ask(self, prepared: Prepared) -> tuple[Answer, str]:
        """The answer, and the content key of who gave it. What has no weights is computed where the pixels are."""
        item, query = prepared.subject.item, prepared.query
        if prepared.model == SPECTRAL:
            from earthmap.predict import build_predictor

            plain = build_predictor({"name": SPECTRAL})
            loop = asyncio.get_running_loop()
            answers = await loop.run_in_executor(self._threads, plain.predict, [item], [query])
            return answers[0][0], plain.key
        from ray.serve.exceptions import DeploymentUnavailableError

        kept = self._handles.get(prepared.model)
        if kept is not None:
            with contextlib.suppress(DeploymentUnavailableError):  # another took its place
                return await self._ask_by(kept, item, query)
        self._handles[prepared.model] = handle = replica_handle(prepared.model)
        return await self._ask_by(handle, item, query)

    async def _ask_by(self, handle: DeploymentHandle[Any], item: TileInput, query: Query) -> tuple[Answer, str]:
        answer: Answer = await handle.ask.remote(item, query)
        name = handle.deployment_id.name  # it changes with the weights
        if name not in self._keys:
            self._keys[name] = await handle.key.remote()
        return answer, self._keys[name]


def deploy(*, workers: int, queued: int) -> DeploymentHandle[Any]:
    """What calls the workers of the cluster that this process is connected to, deployed where they are not there yet.

    Args:
        workers: how many.
        queued: questions that may wait for one; further ones are refused at once.

    Raises:
        ClusterError: where they do not start.
    """
    import ray
    from ray import serve

    resources: Callable[[], dict[str, float]] = ray.cluster_resources
    options = by_role({"num_cpus": TRACE}, resources())
    serve.start(proxy_location="Disabled", logging_config=QUIET)
    name = f"workers-{content_key(earthmap.__version__, workers, queued, options)}"
    running = serve.status().applications.get(APPLICATION)
    if running is None or running.status != "RUNNING" or name not in running.deployments:
        deployment = serve.deployment(
            name=name,
            num_replicas=workers,
            ray_actor_options=options,
            max_ongoing_requests=ONGOING,
            max_queued_requests=queued,
        )(Worker)
        try:
            serve.run(deployment.bind(), name=APPLICATION, route_prefix=None, logging_config=QUIET)
        except RuntimeError as error:
            raise ClusterError(f"the workers that prepare questions do not start: {error}") from error
    return serve.get_app_handle(APPLICATION)


# ── who passes on ────────────────────────────────────────────────────────────────────────────────────────────


def main() -> NoReturn:
    """Pass on questions until the standard input ends, or the cluster is lost, which is told by 1."""
    told = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is not taken for ours
    settings = json.loads(sys.stdin.readline())
    lines = queue.SimpleQueue[str]()
    threading.Thread(target=_listen, args=(lines,), name="listen", daemon=True).start()

    def tell(line: Mapping[str, Any]) -> None:
        print(json.dumps(line), file=told, flush=True)

    try:
        with cluster(settings["address"]):
            handle = deploy(workers=settings["workers"], queued=settings["queued"])
            trained = Trained(ReplicaOptions(**settings["replicas"]))
            threading.Thread(target=_watch, name="watch", daemon=True).start()
            tell({"ready": True})
            asyncio.run(_pass_on(handle, trained, lines, tell))
    except EarthmapError as error:
        sys.exit(str(error))


def _listen(lines: queue.SimpleQueue[str]) -> None:
    """Take in what the service says; this process ends when that does, wherever it stands."""
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)


def _watch() -> None:
    """End this process when the cluster is lost: Ray would wait for it, and then end it without a word."""
    watch = Watch(lambda text: None)
    while True:
        time.sleep(WATCH_S)
        try:
            watch.look()
        except ClusterError as error:
            sys.stderr.write(f"{error}\n")
            sys.stderr.flush()
            os._exit(1)


async def _pass_on(
    handle: DeploymentHandle[Any], trained: Trained, lines: queue.SimpleQueue[str], tell: Tell
) -> NoReturn:
    at_work: dict[int, asyncio.Task[None]] = {}
    while True:
        said = json.loads(await asyncio.to_thread(lines.get))
        number = said["number"]
        if "asked" in said:
            at_work[number] = asyncio.create_task(_pass_one(handle, trained, said, tell))
            at_work[number].add_done_callback(partial(_forget, at_work, number))
        elif number in at_work:
            at_work[number].cancel()  # nobody waits for it any more


def _forget(at_work: dict[int, asyncio.Task[None]], number: int, _: asyncio.Task[None]) -> None:
    del at_work[number]


async def _pass_one(handle: DeploymentHandle[Any], trained: Trained, said: Mapping[str, Any], tell: Tell) -> None:
    from ray.exceptions import RayError, RayTaskError
    from ray.serve.exceptions import RayServeException

    try:
        outcome = await _outcome(handle, trained, Asked(**said["asked"]))
    except (RayTaskError, asyncio.CancelledError) as error:
        tell({"number": said["number"], "defect": f"{type(error).__name__}: {error}"})
    except (RayError, RayServeException) as error:
        tell({"number": said["number"], "busy": type(error).__name__})
    else:
        tell({"number": said["number"], **_lines_of(outcome)})


async def _outcome(handle: DeploymentHandle[Any], trained: Trained, asked: Asked) -> Told:
    """What a worker answers, once the model that is asked is offered."""
    model = asked.model if asked.checkpoint is not None else None
    try:
        if model is not None and asked.checkpoint is not None:
            await trained.offer(model, asked.checkpoint)
    except ClusterError as error:
        return BusyError(str(error))
    except EarthmapError as error:
        return error
    outcome: Told = await handle.answer.remote(asked)
    if model is not None and isinstance(outcome, BusyError):
        await trained.look(model)
    return outcome


def _lines_of(outcome: Told) -> dict[str, Any]:
    if isinstance(outcome, BusyError):
        return {"busy": str(outcome)}
    if isinstance(outcome, EarthmapError):
        return {"error": base64.b64encode(pickle.dumps(outcome)).decode()}
    return {"reply": outcome}


if __name__ == "__main__":
    main()
