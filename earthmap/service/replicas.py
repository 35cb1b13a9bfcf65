"""Predictors as replicas of Ray Serve, which all runs of a cluster and all who ask share.

One application for each model that is offered, by its name; a replica holds one model and computes one thing at a time.
Nothing here listens on a port: runs and the service reach replicas through Ray alone.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from earthmap.content import content_key
from earthmap.errors import ClusterError, JobError
from earthmap.pipeline.cluster import PREDICTOR, TRACE, by_role
from earthmap.pipeline.context import reason_and_message
from earthmap.pipeline.sharing import deployed, served_name
from earthmap.predict import TileInput, build_predictor, key_of
from earthmap.tasks import Answer, Query

if TYPE_CHECKING:
    from ray.serve import Application
    from ray.serve.handle import DeploymentHandle

    from earthmap.predict import Predictor

ONGOING = 256
"""Requests that a replica holds at once: more than runs send, so that who asks is never kept out by them."""

ENDING_S = 20.0
"""What a replica that is no longer offered may take to end the batch that it computes."""

QUIET: dict[str, Any] = {"log_level": "WARNING", "enable_access_log": False}
"""What Ray Serve writes into its logs."""

T = TypeVar("T")

_ASKED, _BATCH = 0, 1
"""Who is computed first: somebody waits for an answer; a run does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaOptions:
    """How many replicas a model has, and what each may use."""

    fewest: int = 0
    """Replicas that are held ready; with 0 the first who asks waits until the model is loaded."""
    most: int = 1
    """Replicas where much is asked."""
    gpus: float | None = None
    """GPUs of each, or a share of one; None for a whole one where the cluster has or can grow any."""
    idle_s: float = 600.0
    """Seconds without questions after which a replica is given up."""
    queued: int = 64
    """Questions that one caller may have waiting; more are refused at once."""
    asked_together: int = 16
    """Questions that are computed together at most."""
    asked_wait_s: float = 0.0
    """Seconds that a question waits for others to be computed with; those that come meanwhile wait anyhow."""

    def __post_init__(self) -> None:
        if not 0 <= self.fewest <= self.most or self.most < 1:
            raise JobError(
                f"a model is to have {self.fewest} to {self.most} replicas",
                expected="a number from 0, to one that is no smaller and 1 or more",
            )
        share = self.gpus
        if share is not None and not (0 <= share <= 1 or share == int(share)):
            raise JobError(
                f"a replica is to have {share:g} GPUs", expected="a share such as 0.5, or a whole number of them"
            )
        if min(self.queued, self.asked_together) < 1 or min(self.asked_wait_s, self.idle_s) < 0:
            raise JobError(
                f"{self.queued} questions wait, {self.asked_together} are computed together, {self.asked_wait_s:g} s"
                f" and {self.idle_s:g} s are waited",
                expected="1 or more questions, and 0 or more seconds",
            )


# ── what runs on the cluster ─────────────────────────────────────────────────────────────────────────────────


class Replica:
    """One model, and the line of what it is to compute; made by Ray Serve, called through `replica_handle`."""

    def __init__(self, spec: Mapping[str, Any], *, asked_together: int, asked_wait_s: float) -> None:
        from ray import serve

        self._predictor = build_predictor(spec)
        batched = serve.batch(max_batch_size=asked_together, batch_wait_timeout_s=asked_wait_s)
        self._together: Callable[[tuple[TileInput, Query]], Any] = batched(self._ask_all)
        self._line = Line()

    async def key(self) -> str:
        """Content key of everything that can change an answer."""
        return self._predictor.key

    async def predict(self, inputs: Sequence[TileInput], queries: Sequence[Query]) -> list[list[Answer]]:
        """One list for each tile with one answer for each query, of exactly this batch: what runs use."""
        return await self._line.wait(_BATCH, partial(self._predictor.predict, inputs, queries))

    async def ask(self, item: TileInput, query: Query) -> Answer:
        """One answer about one tile, computed together with what others ask just now, and before runs' batches."""
        answer: Answer = await self._together((item, query))
        return answer

    async def _ask_all(self, asked: list[tuple[TileInput, Query]]) -> list[Answer]:
        return await self._line.wait(_ASKED, partial(answer_all, self._predictor, asked))


class Line:
    """What one thread computes, the most urgent first and else as it came: predictors are no two threads' at a time."""

    def __init__(self) -> None:
        self._waiting: queue.PriorityQueue[tuple[int, int, Callable[[], Any], Future[Any]]] = queue.PriorityQueue()
        self._numbers = itertools.count()
        threading.Thread(target=self._work, name="earthmap-predictor", daemon=True).start()

    async def wait(self, rank: int, work: Callable[[], T]) -> T:
        """What `work` returns or raises, computed when those of lower rank, and earlier ones of the same, are done.

        Who no longer waits, because the caller is gone, is passed over.
        """
        future: Future[T] = Future()
        self._waiting.put((rank, next(self._numbers), work, future))
        return await asyncio.wrap_future(future)

    def _work(self) -> None:
        while True:
            _, _, work, future = self._waiting.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                future.set_exception(error)
            del work, future  # pixels go before the next come


def answer_all(predictor: Predictor, asked: Sequence[tuple[TileInput, Query]]) -> list[Answer]:
    """The answers to single questions, in their order, each tile encoded once.

    Tiles that the same is asked of are one batch. What breaks a batch is found one by one, and has failed.
    """
    items: list[TileInput] = []
    places: dict[int, list[int]] = {}
    for number, (item, _) in enumerate(asked):
        place = next((place for place, other in enumerate(items) if _same(item, other)), len(items))
        if place == len(items):
            items.append(item)
        places.setdefault(place, []).append(number)
    alike: dict[tuple[Query, ...], list[int]] = {}
    for place, numbers in places.items():
        alike.setdefault(tuple(dict.fromkeys(asked[number][1] for number in numbers)), []).append(place)
    found: dict[int, Answer] = {}
    for queries, group in alike.items():
        rows = _predicted(predictor, [items[place] for place in group], queries)
        for place, row in zip(group, rows, strict=True):
            known = dict(zip(queries, row, strict=True))
            found |= {number: known[asked[number][1]] for number in places[place]}
    return [found[number] for number in range(len(asked))]


def _same(one: TileInput, other: TileInput) -> bool:
    """Whether two questions are about the same pixels of the same tile."""
    return one == other and all(
        np.array_equal(mine.mask, its.mask) and np.array_equal(mine.data, its.data, equal_nan=True)
        for mine, its in zip(one.pictures, other.pictures, strict=True)
    )


def _predicted(predictor: Predictor, items: Sequence[TileInput], queries: Sequence[Query]) -> list[list[Answer]]:
    try:
        return predictor.predict(items, queries)
    except Exception as error:  # noqa: BLE001 - the boundary of the tile: what broke the batch is found one by one
        if len(items) > 1:
            return [row for item in items for row in _predicted(predictor, [item], queries)]
        reason, message = reason_and_message(error)
        return [[Answer(status="failed", stage="predict", reason=reason, message=message)] * len(queries)]


# ── deploying ────────────────────────────────────────────────────────────────────────────────────────────────


def deploy(models: Mapping[str, Mapping[str, Any]], *, options: ReplicaOptions | None = None) -> None:
    """Offer `models` on the cluster that this process is connected to, and no others any more.

    What is offered already, with the same weights and options, stays as it is. Returns when all can be asked.

    Args:
        models: What `build_predictor` takes, by name; weights and type of a model are filled in where they are left
            out: bfloat16 on a GPU, float32 elsewhere.
        options: Of each model.

    Raises:
        ModelError: for a checkpoint that cannot be used.
        ClusterError: where a replica does not start.
    """
    from ray import serve

    options = options or ReplicaOptions()
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(proxy_location="Disabled", logging_config=QUIET)
    wanted = {name: _application(spec, options) for name, spec in models.items()}
    former = deployed()
    for name in former.keys() - wanted.keys():
        withdraw(name)
    _run({name: bound for name, (deployment, bound) in wanted.items() if former.get(name) != deployment})


def deploy_for_questions(name: str, spec: Mapping[str, Any], *, options: ReplicaOptions) -> None:
    """Let one more model be asked through `replica_handle`; runs do not share it, so that it may be withdrawn any time.

    Raises:
        ModelError: for a checkpoint that cannot be used.
        ClusterError: where Ray Serve does not take it.
    """
    _run({name: _application(spec, options, named=_unshared_name)[1]})


def withdraw(name: str) -> None:
    """Offer the model `name` no more; waits until its replicas have ended what they compute."""
    from ray import serve

    serve.delete(name)


def running() -> set[str]:
    """Names of all that can be asked on the cluster, models and others."""
    from ray import serve

    return {name for name, told in serve.status().applications.items() if told.status == "RUNNING"}


def _unshared_name(predictor: str, options: str) -> str:
    return f"asked-{predictor}-{options}"


def _run(applications: Mapping[str, Application]) -> None:
    """Raises ClusterError."""
    from ray import serve

    targets = [
        serve.RunTarget(target=application, name=name, route_prefix=None, logging_config=QUIET)
        for name, application in applications.items()
    ]
    try:
        if targets:
            serve.run_many(targets)
    except RuntimeError as error:
        raise ClusterError(
            f"the replicas do not start: {error}", fix="`earthmap doctor` looks at the models"
        ) from error


def application(args: Mapping[str, str]) -> Application:
    """The application of one model for a file of Ray Serve's, such as jobs/kuberay/rayservice.yaml.

    Args:
        args: `model`, a checkpoint, `nano` or `spectral`; and of ReplicaOptions `fewest`, `most` and `gpus`.

    Raises:
        JobError: for other arguments.
        ModelError: for a checkpoint that cannot be used.
    """
    unknown = set(args) - {"model", "fewest", "most", "gpus"}
    if unknown or "model" not in args:
        raise JobError(
            f"the replicas are given {', '.join(sorted(args)) or 'nothing'}", expected="model, fewest, most, gpus"
        )
    try:
        options = ReplicaOptions(
            fewest=int(args.get("fewest", 1)),
            most=int(args.get("most", args.get("fewest", 1))),
            gpus=float(args["gpus"]) if "gpus" in args else None,
        )
    except ValueError as error:
        if isinstance(error, JobError):
            raise
        raise JobError(f"the options of the replicas are no numbers: {error}") from None
    return _application(spec_of(args["model"]), options)[1]


def spec_of(model: str) -> dict[str, str]:
    """What `build_predictor` takes for `spectral`, and for a checkpoint."""
    return {"name": "spectral"} if model == "spectral" else {"name": "vlm", "checkpoint": model}


def replica_handle(name: str) -> DeploymentHandle[Any]:
    """What calls the replicas of the model `name`: `.predict`, `.ask` and `.key` of Replica, each with `.remote(…)`.

    Raises:
        ClusterError: where the cluster offers no such model.
    """
    from ray import serve
    from ray.serve.exceptions import RayServeException

    try:
        return serve.get_app_handle(name)
    except RayServeException as error:
        raise ClusterError(
            f"the cluster has no replicas of {name}: {error}", fix="start them with `earthmap serve`"
        ) from error


def _application(
    spec: Mapping[str, Any], options: ReplicaOptions, *, named: Callable[[str, str], str] = served_name
) -> tuple[str, Application]:
    """Name of the deployment, which says what it is made of, and the application. Raises ModelError."""
    from ray import serve

    asked, gpus = _asked_of_node(spec["name"], options.gpus)
    spec = _whole_spec(spec, dtype="bfloat16" if gpus else "float32")
    name = named(key_of(spec), content_key(asdict(options), asked))
    deployment = serve.deployment(
        name=name,
        ray_actor_options=asked,
        max_ongoing_requests=ONGOING,
        max_queued_requests=options.queued,
        max_constructor_retry_count=3,
        graceful_shutdown_timeout_s=ENDING_S,
        autoscaling_config={
            "min_replicas": options.fewest,
            "initial_replicas": options.fewest,
            "max_replicas": options.most,
            "target_ongoing_requests": 2,
            "upscale_delay_s": 5.0,
            "downscale_delay_s": options.idle_s,
        },
    )(Replica)
    bound = deployment.bind(spec, asked_together=options.asked_together, asked_wait_s=options.asked_wait_s)
    return name, bound


def _whole_spec(spec: Mapping[str, Any], *, dtype: str) -> dict[str, Any]:
    """`spec` with the key of its weights, and the type that it computes in. Raises ModelError."""
    if spec["name"] != "vlm":
        return dict(spec)
    from earthmap.model import checkpoint_key, find_checkpoint

    return {"weights": checkpoint_key(find_checkpoint(spec["checkpoint"])), "dtype": dtype, **spec}


def _asked_of_node(predictor: str, gpus: float | None) -> tuple[dict[str, Any], float]:
    """What a replica asks of a node, and the GPUs among it.

    Nearly no CPU: tasks that wait for its answers hold theirs meanwhile, and were it to wait for one of those, neither
    would ever go on.
    """
    import ray

    resources: Callable[[], dict[str, float]] = ray.cluster_resources
    offered = resources()
    if gpus is None:
        gpus = 1.0 if predictor == "vlm" and (offered.get("GPU") or PREDICTOR in offered) else 0.0
    return by_role({"num_cpus": TRACE, "num_gpus": gpus}, offered), gpus
