"""What the service does, in numbers for Prometheus: of this process, in a registry of its own, with no id in any label.

Names and units as in `earthmap.operate.metrics`, which counts what single runs do. What is true of the state, and not
of this process, is asked for when the numbers are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from earthmap.operate.metrics import make_registry

if TYPE_CHECKING:
    from earthmap.service.egress_counts import EgressCounts
    from earthmap.service.state import Tally

SECONDS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)
"""Upper ends of the classes of how long requests take."""

METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH"})
"""Those that are told apart; whatever else a client may send is `other`."""


class ServiceMetrics:
    """The counters of a service.

    Raises:
        JobError: on making one where the package prometheus_client is not installed.
    """

    def __init__(self) -> None:
        self.registry = of = make_registry()
        from prometheus_client import Counter, Gauge, Histogram, ProcessCollector

        about = "Requests that were answered"
        self.requests = Counter("earthmap_requests", about, ["route", "method", "status"], registry=of)
        about = "How long requests took, until their last byte"
        self.seconds = Histogram("earthmap_request_duration_seconds", about, ["route"], buckets=SECONDS, registry=of)
        self._asked = Counter(
            "earthmap_asked", "Questions about one place, by how they ended", ["outcome"], registry=of
        )
        about = "How long who asked about one place waited for an answer"
        self._ask_seconds = Histogram("earthmap_ask_duration_seconds", about, buckets=SECONDS, registry=of)
        self._jobs = Gauge("earthmap_jobs", "Jobs in the state, by where they stand", ["status"], registry=of)
        about = "How long the oldest job has waited that nobody works on; 0 where none waits"
        self._waiting = Gauge("earthmap_jobs_waiting_seconds", about, registry=of)
        self._running = Gauge("earthmap_runs_running", "Runs of this service that work now", registry=of)
        ProcessCollector(registry=of)

    def answered(self, *, route: str, method: str, status: int, seconds: float) -> None:
        """A request to `route`, the template of a path, was answered."""
        named = method if method in METHODS else "other"
        self.requests.labels(route, named, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def asked(self, outcome: str, seconds: float) -> None:
        """A question about one place ended so: a word of `earthmap.service.asking`, `answered` where it was."""
        self._asked.labels(outcome).inc()
        if outcome == "answered":
            self._ask_seconds.observe(seconds)

    def render(self, tally: Tally, *, running: int = 0, egress: EgressCounts | None = None) -> bytes:
        """All numbers in Prometheus' text format, version 0.0.4.

        Args:
            tally: the jobs of the state.
            running: runs of this service.
            egress: what the proxy of its runs let through, and what it refused.
        """
        from prometheus_client import generate_latest

        for status, count in tally.counts.items():
            self._jobs.labels(str(status)).set(count)
        self._waiting.set(tally.waiting_s)
        self._running.set(running)
        return generate_latest(self.registry) + (egress.metrics().encode() if egress is not None else b"")
