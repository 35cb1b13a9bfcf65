"""Learning to the end of a stage table, with checkpoints on the way; imports no Ray, no rasterio.

One process runs it, or each worker of several that share the steps: the first of these writes the checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from earthmap.training.checkpoints import Start, load_learner, newest_checkpoint
from earthmap.training.peers import Peers, agree
from earthmap.training.step import Learned, Learner

if TYPE_CHECKING:
    from earthmap.training.rows import Row
    from earthmap.training.sources import RowSource
    from earthmap.training.stages import StageTable


def begin(
    folder: Path, *, table: StageTable, source: RowSource, start: Start, at_once: int = 64, peers: Peers | None = None
) -> Learner:
    """The learner of the newest whole checkpoint in `folder`, or a new one.

    Raises:
        TrainingError: where the checkpoint was trained along another table or on other rows, with what differs.
        ModelError: for a checkpoint that cannot be read.
    """
    found = newest_checkpoint(folder)
    if found is not None:
        return load_learner(found, table=table, source=source.key, start=start, at_once=at_once, peers=peers)
    model, heads = start()
    return Learner(model, heads, table=table, source=source.key, at_once=at_once, peers=peers)


def train(
    learner: Learner,
    source: RowSource,
    *,
    save: Callable[[Learner], object],
    every: int = 500,
    watch: Callable[[Learned], None] = lambda learned: None,
    until: Callable[[], bool] = lambda: False,
) -> None:
    """Learn to the end of the table, or until `until()` says stop.

    Args:
        learner: where it stands.
        source: what it learns from.
        save: writes a checkpoint (`save_checkpoint`).
        every: steps between two checkpoints; there is one at the end, and where it is stopped.
        watch: told of every step, before it is saved.
        until: asked before every step.

    Raises:
        TrainingError: for a loss that is not a number, and one that leaps; names the last checkpoint.
        StorageError: for a checkpoint that cannot be written; those before it stay.
    """
    peers, saved = learner.peers, learner.step
    while learner.step < learner.table.steps and not peers.gather(until())[0]:
        watch(learner.learn(agree(peers, lambda: _rows(learner, source))))
        if learner.step % every == 0:
            _save(learner, save)
            saved = learner.step
    if learner.step > saved:
        _save(learner, save)


def _rows(learner: Learner, source: RowSource) -> list[Row]:
    """This worker's rows of the next step."""
    return source.rows(learner.table, learner.step, part=learner.peers.rank, parts=learner.peers.count)


def _save(learner: Learner, save: Callable[[Learner], object]) -> None:
    """By the first worker; all know where it lies."""
    agree(learner.peers, lambda: save(learner) if learner.peers.rank == 0 else None)
    learner.last_good = learner.peers.gather(learner.last_good)[0]
