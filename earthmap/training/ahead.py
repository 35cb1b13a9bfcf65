"""Rows that other processes make while the model learns from those before them."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from earthmap.errors import TrainingError

if TYPE_CHECKING:
    from earthmap.training.rows import Row
    from earthmap.training.sources import RowSource
    from earthmap.training.stages import StageTable

STEPS = 3
"""Steps that each process is ahead."""


@dataclass(slots=True)
class RowsAhead:
    """The rows of another source, made ahead. See `RowSource`; asked for in order, or from anywhere at the cost of
    waiting for them."""

    source: RowSource
    workers: int
    pool: ProcessPoolExecutor
    waiting: dict[tuple[int, int, int], Future[list[Row]]] = field(default_factory=dict)
    """By step, part and parts."""

    @property
    def key(self) -> str:
        """See `RowSource`."""
        return self.source.key

    def rows(self, table: StageTable, step: int, *, part: int = 0, parts: int = 1) -> list[Row]:
        """See `RowSource`. Raises TrainingError where a process that makes them died."""
        wanted = [(later, part, parts) for later in range(step, min(step + STEPS * self.workers, table.steps))]
        self.waiting = {place: made for place, made in self.waiting.items() if place in wanted}
        try:
            for place in wanted:
                if place not in self.waiting:
                    self.waiting[place] = self.pool.submit(_make, self.source, table, place)
            return self.waiting.pop((step, part, parts)).result()
        except BrokenProcessPool as error:
            raise TrainingError(
                f"a process that makes the rows died at step {step}",
                expected="memory for it beside the model",
                fix="run the same command again: it goes on from the last checkpoint",
            ) from error


def _make(source: RowSource, table: StageTable, place: tuple[int, int, int]) -> list[Row]:
    step, part, parts = place
    return source.rows(table, step, part=part, parts=parts)


def _begin() -> None:
    """One thread for drawing, and one that ends the process with the one that started it, however that ends."""
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def ahead(source: RowSource, *, workers: int = 1) -> Iterator[RowsAhead]:
    """`source` with its rows made by `workers` processes, which end with the block."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin) as pool:
        try:
            yield RowsAhead(source=source, workers=workers, pool=pool)
        finally:
            pool.shutdown(cancel_futures=True)
