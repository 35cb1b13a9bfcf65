"""What those who operate hear of one run if they ask: numbers (`EARTHMAP_METRICS`), how it ended (`EARTHMAP_LOG`)."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from earthmap.errors import JobError
from earthmap.operate.logs import bound, is_on, log_outcome
from earthmap.operate.metrics import Metrics, RunMeter
from earthmap.storage import Storage

if TYPE_CHECKING:
    from earthmap.pipeline import Progress, Run

METRICS_VARIABLE = "EARTHMAP_METRICS"
"""Environment variable with the file that numbers are written to, such as node_exporter's `earthmap.prom`."""


EVERY_S = 10.0
"""Seconds between two writings of the file while a run works."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watcher:
    """What hears of a run that is watched."""

    report: Callable[[Progress], None]
    """For `run_job`."""
    finished: Callable[[Run], None]
    """Hears of the finished run."""


@contextlib.contextmanager
def watching(address: str, *, report: Callable[[Progress], None] | None) -> Iterator[Watcher]:
    """What the run at `address` tells, counted where the environment asks for it, and passed on to `report`.

    Raises:
        JobError: where the numbers cannot be counted or written.
    """
    path = os.environ.get(METRICS_VARIABLE, "").strip()
    with contextlib.ExitStack() as stack:
        heard: list[Callable[[Progress], None]] = [report] if report is not None else []
        meter: RunMeter | None = None
        if path:
            numbers = _Written(Metrics(), Path(path))
            stack.callback(numbers.again)
            meter = stack.enter_context(numbers.metrics.run())
            heard += [meter.report, numbers.now_and_then]
        stack.enter_context(bound({"run": Storage(address).address}))
        yield Watcher(report=partial(_tell_all, heard), finished=partial(_finished, meter))


class _Written:
    """Numbers as a file. Raises JobError where it cannot be written at first; later a run is not ended by that."""

    def __init__(self, metrics: Metrics, path: Path) -> None:
        self.metrics, self._path = metrics, path
        metrics.write(path)
        self._last = time.monotonic()

    def now_and_then(self, _: Progress) -> None:
        """Write, unless that was done a moment ago."""
        if time.monotonic() - self._last >= EVERY_S:
            self.again()

    def again(self) -> None:
        """Write."""
        with contextlib.suppress(JobError):
            self.metrics.write(self._path)
        self._last = time.monotonic()


def _tell_all(heard: Sequence[Callable[[Progress], None]], progress: Progress) -> None:
    for each in heard:
        each(progress)


def _finished(meter: RunMeter | None, run: Run) -> None:
    if meter is not None:
        meter.finished(run)
    if is_on():
        log_outcome(run)
