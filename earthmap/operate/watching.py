"""What those who operate hear of one run: logs (`EARTHMAP_LOG`) and numbers (`EARTHMAP_METRICS`), off by default."""

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
from earthmap.operate.logs import VARIABLE as LOG_VARIABLE
from earthmap.operate.logs import bound, log_outcome, log_progress, log_step
from earthmap.operate.metrics import Metrics, RunMeter

if TYPE_CHECKING:
    from earthmap.pipeline import Progress, Run

METRICS_VARIABLE = "EARTHMAP_METRICS"
"""Environment variable with the file that numbers are written to, such as node_exporter's `earthmap.prom`."""


EVERY_S = 10.0
"""Seconds between two writings of the file while a run works."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watcher:
    """The callbacks of a run that is watched."""

    report: Callable[[Progress], None]
    """For `run_job`."""
    say: Callable[[str], None]
    """For `run_job`."""
    finished: Callable[[Run], None]
    """Hears of the finished run."""


@contextlib.contextmanager
def watching(
    address: str, *, report: Callable[[Progress], None] | None, say: Callable[[str], None]
) -> Iterator[Watcher]:  # fmt: skip
    """Callbacks for the run at `address` that log and count where the environment asks for it, and pass on.

    Raises:
        JobError: where the numbers cannot be counted or written.
    """
    logged, path = bool(os.environ.get(LOG_VARIABLE, "").strip()), os.environ.get(METRICS_VARIABLE, "").strip()
    with contextlib.ExitStack() as stack:
        heard: list[Callable[[Progress], None]] = [log_progress] if logged else []
        meter: RunMeter | None = None
        if path:
            numbers = _Written(Metrics(), Path(path))
            stack.callback(numbers.again)
            meter = stack.enter_context(numbers.metrics.run())
            heard += [meter.report, numbers.now_and_then]
        stack.enter_context(bound({"run": address}))
        heard += [report] if report is not None else []
        yield Watcher(
            report=partial(_tell_all, heard),
            say=_said(say) if logged else say,
            finished=lambda run: _finished(run, meter=meter, logged=logged),
        )


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


def _said(say: Callable[[str], None]) -> Callable[[str], None]:
    def said(step: str) -> None:
        log_step(step)
        say(step)

    return said


def _finished(run: Run, *, meter: RunMeter | None, logged: bool) -> None:
    if meter is not None:
        meter.finished(run)
    if logged:
        log_outcome(run)
