"""What a process of a fine-tuning does, alone or as one of several workers: take up the run, learn, keep, publish.

Imports no Ray. A run folder, local or on S3, holds `step-…` (checkpoints), `curves.parquet`, `validation.parquet`,
`curves.png`, and in the end `model`, a plain checkpoint, and `finetuned.json`, written last.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from earthmap.errors import ModelError, StorageError
from earthmap.storage import Storage
from earthmap.training.ahead import ahead
from earthmap.training.checkpoints import save_checkpoint
from earthmap.training.curves import Curves
from earthmap.training.held_out import figure_lines, held_out_rows
from earthmap.training.loop import begin, train
from earthmap.training.lora import merge
from earthmap.training.peers import Alone, Peers, agree
from earthmap.training.remote import fetch_newest, upload_checkpoint, upload_folder
from earthmap.training.validation import validate

if TYPE_CHECKING:
    from earthmap.training.origin import Origin
    from earthmap.training.sources import RowSource
    from earthmap.training.stages import StageTable
    from earthmap.training.step import Learned, Learner

MODEL, DONE = "model", "finetuned.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What all workers of a run are told. Small and picklable."""

    out: str
    """Address of the run folder; a folder is one that all workers see."""
    table: StageTable
    source: RowSource
    origin: Origin
    every: int
    """Steps between checkpoints."""
    until: int
    """Steps after which it stops."""
    at_once: int
    """Rows of one forward."""
    validate: int
    """Rows that are held out and asked at each checkpoint."""


def work(task: Work, *, peers: Peers, watch: Callable[[Learned], None], say: Callable[[str], None]) -> int:
    """Take up the run where its newest checkpoint stands, and learn on; returns the steps that are done.

    `watch` is told of every step, `say` of what happens between them.

    Raises:
        TrainingError: for a checkpoint of another table or of other rows, and a loss that leaps or is not a number.
        ModelError: for a model that cannot be used.
        StorageError: for a run folder that cannot be read or written.
    """
    storage = Storage(task.out)
    with _local(storage) as folder:
        learner, curves = agree(peers, lambda: _begun(task, storage, folder, peers))
        _check_together(learner)
        if learner.step:
            say(f"going on from {learner.last_good}")
        elif task.origin.model is not None:
            _validate(learner, task, curves, say)  # what it knew before

        def told(learned: Learned) -> None:
            curves.add(learned)
            watch(learned)

        def save(learner: Learner) -> None:
            _validate(learner, task, curves, say)
            curves.write()
            place = save_checkpoint(learner, folder)
            if not storage.is_local:
                learner.last_good = upload_checkpoint(place, storage)

        try:
            with _made_ahead(task.source, peers) as source:
                train(
                    learner,
                    source,
                    save=save,
                    every=task.every,
                    watch=told,
                    until=lambda: learner.step >= task.until,
                )
        finally:
            if peers.rank == 0:
                with contextlib.suppress(StorageError):  # what ended it is told; these are beside it
                    curves.write(last=True)
        agree(peers, lambda: _publish(learner, storage, folder) if peers.rank == 0 else None)
        return learner.step


@contextlib.contextmanager
def _local(storage: Storage) -> Iterator[Path]:
    """The run folder, or for one on S3 a folder of this machine, which goes with the block."""
    if storage.is_local:
        yield Path(storage.address)
        return
    with tempfile.TemporaryDirectory(prefix="earthmap-finetune-") as scratch:
        yield Path(scratch)


def _begun(task: Work, storage: Storage, folder: Path, peers: Peers) -> tuple[Learner, Curves]:
    copy = None if storage.is_local else fetch_newest(storage, folder)
    learner = begin(folder, table=task.table, source=task.source, start=task.origin, at_once=task.at_once, peers=peers)
    if copy is not None:
        learner.last_good = storage.locate(copy.name)
    return learner, Curves(storage, step=learner.step)


def _check_together(learner: Learner) -> None:
    """Raises StorageError where the workers do not stand at the same step."""
    steps = learner.peers.gather(learner.step)
    if len(set(steps)) > 1:
        raise StorageError(
            f"the workers find checkpoints of different steps: {', '.join(map(str, steps))}",
            expected="a run folder that all of them see",
            fix="give an --out on a file system that the nodes share, or on S3",
        )


def _validate(learner: Learner, task: Work, curves: Curves, say: Callable[[str], None]) -> None:
    """Ask what no step learns from, and take in how well it was answered."""
    rows = held_out_rows(task.source, task.table, most=task.validate) if task.validate else []
    if rows:
        learner.model.model.eval()
        figures = validate(learner.model, learner.heads, rows)
        curves.add_figures(learner.step, figures)
        for line in figure_lines(learner.step, figures):
            say(line)


@contextlib.contextmanager
def _made_ahead(source: RowSource, peers: Peers) -> Iterator[RowSource]:
    """`source`, drawn by another process while this one learns; of several workers each draws for itself."""
    if not isinstance(peers, Alone):
        yield source
        return
    with ahead(source) as rows:
        yield rows


def _publish(learner: Learner, storage: Storage, folder: Path) -> None:
    """Write the model of a run that came to its end: plain, whatever was beside it while it learned.

    Raises StorageError where it cannot be written; the same command tries again.
    """
    from safetensors import SafetensorError

    if learner.step < learner.table.steps or storage.exists(DONE):
        return
    merge(learner.model.model)
    try:
        _write_model(learner, storage, folder)
    except (OSError, ModelError, SafetensorError) as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(
            f"the model cannot be written to {storage.locate(MODEL)}: {error}",
            fix="make room and run the same command again",
        ) from error
    content = {"step": learner.step, "checkpoint": learner.last_good}
    storage.write(DONE, json.dumps(content, indent=1).encode())


def _write_model(learner: Learner, storage: Storage, folder: Path) -> None:
    from earthmap.model.alignment import save_heads

    with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as scratch:
        model = Path(scratch) / MODEL
        learner.model.save(model)
        save_heads(learner.heads, model)
        if storage.is_local:
            shutil.rmtree(folder / MODEL, ignore_errors=True)
            model.rename(folder / MODEL)
        else:
            upload_folder(model, storage.sub(MODEL))
