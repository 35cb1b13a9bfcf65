"""Learning to the end of a stage table in one process, with checkpoints on the way; imports no Ray, no rasterio."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from earthmap.training.checkpoints import load_learner, newest_checkpoint, save_checkpoint
from earthmap.training.step import Learned, Learner

if TYPE_CHECKING:
    from earthmap.model.alignment import AlignmentHeads
    from earthmap.model.earth_onevision import EarthOneVision
    from earthmap.training.sources import RowSource
    from earthmap.training.stages import StageTable

Start = Callable[[], "tuple[EarthOneVision, AlignmentHeads]"]
"""Makes the model that a new run begins with, and its alignment heads."""


def begin(folder: Path, *, table: StageTable, source: RowSource, start: Start, at_once: int = 64) -> Learner:
    """The learner of the newest whole checkpoint in `folder`, or a new one.

    Raises:
        TrainingError: where the checkpoint was trained along another table or on other rows, with what differs.
        ModelError: for a checkpoint that cannot be read.
    """
    found = newest_checkpoint(folder)
    if found is not None:
        return load_learner(found, table=table, source=source.key, at_once=at_once)
    model, heads = start()
    return Learner(model, heads, table=table, source=source.key, at_once=at_once)


def train(
    learner: Learner,
    source: RowSource,
    *,
    folder: Path,
    every: int = 500,
    watch: Callable[[Learned], None] = lambda learned: None,
    until: Callable[[], bool] = lambda: False,
) -> Path | None:
    """Learn to the end of the table, or until `until()` says stop; returns the last checkpoint.

    Args:
        learner: where it stands.
        source: what it learns from.
        folder: where checkpoints are written.
        every: steps between two checkpoints; there is one at the end, and where it is stopped.
        watch: told of every step.
        until: asked before every step.

    Raises:
        TrainingError: for a loss that is not a number, and one that leaps; names the last checkpoint.
        StorageError: for a checkpoint that cannot be written; those before it stay.
    """
    begun = learner.step
    while learner.step < learner.table.steps and not until():
        watch(learner.learn(source.rows(learner.table, learner.step)))
        if learner.step % every == 0 and learner.step < learner.table.steps:
            save_checkpoint(learner, folder)
    return save_checkpoint(learner, folder) if learner.step > begun else newest_checkpoint(folder)
