"""A fine-tuning on Ray Train: every worker has the whole model and its share of the rows of each step.

One of the two modules of `earthmap.training` that import Ray. Gradients are summed as `torch`'s DistributedDataParallel
would, but at the end of the step, over all of its batches: a step may have other batches on each worker. Checkpoints
are the run's own (`earthmap.training.checkpoints`), written by the first worker. When a worker dies, Ray Train starts
all of them again, and they go on from the newest.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from earthmap.errors import ClusterError, EarthmapError, JobError
from earthmap.pipeline.cluster import WATCH_S, Watch, cluster
from earthmap.training.working import Work, work

if TYPE_CHECKING:
    from torch import Tensor

    from earthmap.training.step import Learned

T = TypeVar("T")

FAILURES = 5
"""Times that workers may die before the run ends; nodes that a provider takes back are not counted."""

BUCKET = 2**24
"""Numbers that are summed over the workers at once, at most: 64 MB."""


class Workers:
    """The workers of a Ray Train group, through torch.distributed (gloo on CPUs, NCCL on GPUs). See `Peers`."""

    def __init__(self) -> None:
        import torch.distributed

        self.rank = torch.distributed.get_rank()
        self.count = torch.distributed.get_world_size()

    def gather(self, mine: T) -> list[T]:
        """See `Peers`."""
        import torch.distributed

        told: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(told, mine)
        return told

    def add(self, tensors: Sequence[Tensor]) -> None:
        """See `Peers`."""
        import torch

        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.flatten() for tensor in bucket])
            torch.distributed.all_reduce(flat)
            parts = torch.split(flat, [tensor.numel() for tensor in bucket])
            for tensor, part in zip(bucket, parts, strict=True):
                tensor.copy_(part.view_as(tensor))


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """In their order, of one type each, at most BUCKET numbers unless one tensor has more."""
    bucket: list[Tensor] = []
    count = 0
    for tensor in tensors:
        if bucket and (count + tensor.numel() > BUCKET or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, count = [], 0
        bucket.append(tensor)
        count += tensor.numel()
    if bucket:
        yield bucket


class _Board:
    """Where the first worker lays down what it has to tell; an actor, which outlives the workers."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    def tell(self, what: str, content: Any) -> None:
        """`step`, `say`, `done` or `error`."""
        self.told.append((what, content))

    def take(self) -> list[tuple[str, Any]]:
        """What was told since this was last asked."""
        told, self.told = self.told, []
        return told


def work_on_cluster(
    task: Work,
    *,
    workers: int,
    address: str | None,
    watch: Callable[[Learned], None],
    say: Callable[[str], None],
) -> int:
    """As `earthmap.training.working.work`, by several workers; returns the steps that are done.

    Raises:
        JobError: when there is no cluster at `address`, or this machine has fewer cores than workers.
        ClusterError: when workers died more than FAILURES times, or the cluster was lost.
        EarthmapError: what `work` raises.
    """
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    say(f"connecting to {address}" if address else "starting Ray")
    with cluster(address):
        import ray

        looking = Watch(say)
        if address is None and looking.cpus < workers:
            raise JobError(
                f"{workers} workers on {looking.cpus} cores", expected="a core for each worker, or --cluster"
            )
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id=looking.own, soft=False)
        kind: Any = ray.remote(_Board)
        board = kind.options(num_cpus=0, scheduling_strategy=here).remote()
        with tempfile.TemporaryDirectory(prefix="earthmap-train-") as scratch:
            trainer = _trainer(task, board, workers=workers, gpu=looking.gpus >= workers, scratch=scratch)
            return _follow(trainer, board, looking, watch=watch, say=say)


def _trainer(task: Work, board: Any, *, workers: int, gpu: bool, scratch: str) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    logging.getLogger("ray.train").setLevel(logging.CRITICAL)  # what ends the run is raised
    return TorchTrainer(
        _learn,
        train_loop_config={"task": task, "board": board},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu),
        run_config=RunConfig(storage_path=scratch, failure_config=FailureConfig(max_failures=FAILURES)),
    )


def _learn(config: dict[str, Any]) -> None:
    """What each worker runs. An error of ours is told, since to try again would not mend it; others are Ray's."""
    import ray

    peers, board = Workers(), config["board"]

    def tell(what: str, content: Any) -> None:
        if peers.rank == 0:
            board.tell.remote(what, content)

    try:
        step = work(
            config["task"],
            peers=peers,
            watch=lambda learned: tell("step", learned),
            say=lambda text: tell("say", text),
        )
    except EarthmapError as error:
        ray.get(board.tell.remote("error", error))
    else:
        ray.get(board.tell.remote("done", step))


def _follow(
    trainer: Any, board: Any, looking: Watch, *, watch: Callable[[Learned], None], say: Callable[[str], None]
) -> int:
    """Run the trainer in a thread of its own, which may wait for ever for a cluster that is no more, and pass on what
    is told. Returns the steps that are done."""
    import ray

    failed: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            failed.append(error)

    thread = threading.Thread(target=fit, name="earthmap-train", daemon=True)
    thread.start()
    ended: dict[str, Any] = {}
    hear: dict[str, Callable[[Any], None]] = {"step": watch, "say": say}
    while thread.is_alive() or not (failed or ended):
        thread.join(WATCH_S)
        looking.look()
        with suppress(ray.exceptions.GetTimeoutError):
            for what, content in ray.get(board.take.remote(), timeout=WATCH_S):
                hear.get(what, lambda content, what=what: ended.setdefault(what, content))(content)
    if "error" in ended:
        raise ended["error"]
    if failed:
        raise _lost(failed[0])
    return int(ended["done"])


def _lost(error: BaseException) -> EarthmapError:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return ClusterError(
        f"the workers ended {FAILURES + 1} times: {lines[-1] if lines else type(error).__name__}",
        fix="run the same command again: it goes on from the newest checkpoint",
    )
