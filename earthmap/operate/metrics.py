"""What runs did, in numbers for Prometheus: of one process, in a registry of its own, with no id in any label.

Names and units follow Prometheus' conventions (prometheus.io/docs/practices/naming): base units, `_total` for what only
grows. Counts of answers, groups and parts come when a run is finished; cells and tiles while it works.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earthmap.errors import BadRequestError, JobError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from earthmap.pipeline import Progress, Run

MAX_REASONS = 60
"""Reasons that are told apart; further ones are counted as `other`. Today's tables have about thirty."""

RUN_SECONDS = (10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 24 * 3600.0)
"""Upper ends of the classes of how long runs take."""

_REASON = re.compile(r"[a-z][a-z_]{0,40}")


def make_registry() -> CollectorRegistry:
    """One for the numbers of this process, with the version of earthmap.

    Raises:
        JobError: where the package prometheus_client is not installed.
    """
    try:
        from prometheus_client import CollectorRegistry, Info
    except ImportError as error:
        raise JobError(
            "metrics are written by a package that is not installed",
            expected="prometheus_client",
            fix="pip install prometheus_client",
        ) from error
    import earthmap

    registry = CollectorRegistry()
    Info("earthmap_build", "Version of earthmap", registry=registry).info({"version": earthmap.__version__})
    return registry


class Metrics:
    """The counters of a process.

    Raises:
        JobError: on making one where the package prometheus_client is not installed.
    """

    def __init__(self) -> None:
        self.registry = of = make_registry()
        from prometheus_client import Counter, Gauge, Histogram

        self.running = Gauge("earthmap_runs_running", "Runs that work now", registry=of)
        self.runs = Counter("earthmap_runs", "Runs that ended, by how", ["outcome"], registry=of)
        self.seconds = Histogram(
            "earthmap_run_duration_seconds", "How long runs took that finished", buckets=RUN_SECONDS, registry=of
        )
        self.cells = Counter("earthmap_cells", "Cells that are done", registry=of)
        self.tiles = Counter("earthmap_tiles", "Tiles that are done", registry=of)
        about = "Rows of finished ledgers by status and reason, those of earlier executions included"
        self.answers = Counter("earthmap_answers", about, ["status", "reason"], registry=of)
        about = "Seconds that workers of finished runs spent, all together, by stage"
        self.worked = Counter("earthmap_worker_seconds", about, ["stage"], registry=of)
        about = "Seconds that finished runs took by the clock, by step"
        self.steps = Counter("earthmap_step_seconds", about, ["step"], registry=of)
        self.waited = Counter("earthmap_provider_wait_seconds", "Seconds waited for providers that refuse", registry=of)
        self.groups = Counter("earthmap_groups", "Groups of the cube, read or reused", ["origin"], registry=of)
        self.parts = Counter("earthmap_parts", "Answer parts, computed or reused", ["origin"], registry=of)
        self._reasons: set[str] = set()

    @contextlib.contextmanager
    def run(self) -> Iterator[RunMeter]:
        """One run, from its start to its end: it counts as finished once `RunMeter.finished` was told."""
        meter, outcome = RunMeter(self), "failed"
        self.running.inc()
        try:
            yield meter
            outcome = "finished" if meter.is_finished else "stopped"
        except BadRequestError:
            outcome = "refused"
            raise
        except KeyboardInterrupt:
            outcome = "stopped"
            raise
        finally:
            self.running.dec()
            self.runs.labels(outcome).inc()

    def reason(self, name: str) -> str:
        """A reason as a label: of a fixed form, and of so many that all can be kept."""
        if name in self._reasons:
            return name
        if _REASON.fullmatch(name) is None or len(self._reasons) >= MAX_REASONS:
            return "other"
        self._reasons.add(name)
        return name

    def render(self) -> bytes:
        """All numbers in Prometheus' text format, version 0.0.4."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)

    def write(self, path: Path) -> None:
        """The same as a file, whole or not at all, for node_exporter's textfile collector.

        Raises:
            JobError: where it cannot be written.
        """
        from prometheus_client import write_to_textfile

        try:
            write_to_textfile(str(path), self.registry)
        except OSError as error:
            raise JobError(
                f"{path} cannot be written: {error.strerror}", expected="a file in a folder that is there"
            ) from error


class RunMeter:
    """Counts one run: `report` is for `run_job`, and `finished` for what it returns."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._cells = self._tiles = 0
        self.is_finished = False

    def report(self, progress: Progress) -> None:
        """A cell is done."""
        self._metrics.cells.inc(max(0, progress.cells - self._cells))
        self._metrics.tiles.inc(max(0, progress.tiles - self._tiles))
        self._cells, self._tiles = progress.cells, progress.tiles

    def finished(self, run: Run) -> None:
        """The run is finished."""
        from earthmap.pipeline.folder import RUN_PATH

        of, told = self._metrics, json.loads(run.storage.read(RUN_PATH))
        self.is_finished = True
        of.answers.labels("answered", "").inc(run.summary["answered"])
        for status in ("skipped", "failed"):
            for reason, count in run.summary[status].items():
                of.answers.labels(status, of.reason(reason)).inc(count)
        for counter, name in ((of.worked, "worker_seconds"), (of.steps, "seconds")):
            for part, seconds in _numbers(told, name):
                if part != "total":
                    counter.labels(part).inc(seconds)
        for counter, name in ((of.groups, "groups"), (of.parts, "parts")):
            for origin, count in _numbers(told, name):
                counter.labels(origin).inc(count)
        of.waited.inc(float(told.get("waited_seconds", 0.0)))
        of.seconds.observe(told["seconds"]["total"])


def _numbers(told: dict[str, Any], name: str) -> Iterator[tuple[str, float]]:
    """Named numbers of `run.json`; none where an older version did not write them."""
    return ((str(part), max(0.0, float(value))) for part, value in told.get(name, {}).items())
