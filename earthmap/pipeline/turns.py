"""Turns of the runs that share a cluster: which of them may begin its next batch of cells. Pure, without Ray and clock.

Work that is begun is never stopped; who matters more is only first when the cluster has room again. So an urgent run
begins after what is being worked on, and the others go on where they were when it is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

Priority = Literal["bulk", "normal", "urgent"]

RANKS: Mapping[str, int] = {"urgent": 0, "normal": 1, "bulk": 2}
"""The lower, the sooner."""

PATIENCE = 2
"""Turns of its equals for which a run waits at most, whatever it had before; then who waits longest is first."""

LEASE_S = 15.0
"""A run of which nothing is heard for so long is no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a run says of itself."""

    priority: Priority
    left: int
    """Cells that it has begun and are not done."""
    wanted: int
    """Cells of its next batch; 0 where there is none."""
    room: int
    """Cells that the cluster can work on at once."""
    worked: float = 0.0
    """Seconds of workers that its cells took, those in work as long as the others on average."""


@dataclass(slots=True)
class _Run:
    """One run of the cluster."""

    standing: Standing
    heard: float
    ahead: float
    """What it counts as served with beside its own seconds, since it came later."""
    waits: int
    """Number of the moment since which it wants a batch: the earlier, the smaller."""
    passed: int = 0
    """Turns that its equals had since."""

    @property
    def served(self) -> float:
        """Seconds of workers that it had, or is taken to have had."""
        return self.ahead + self.standing.worked


def _order(run: _Run) -> tuple[float, ...]:
    rank = RANKS[run.standing.priority]
    return (rank, 0, run.waits, 0) if run.passed >= PATIENCE else (rank, 1, run.served, run.waits)


@dataclass(slots=True)
class Turns:
    """Who is there, and what they had so far.

    The first is the run of the highest priority; among equals the one whose cells took the least time of workers, and
    then the one that waits longest; but no one waits for more than PATIENCE turns of its equals. Who comes anew is
    taken to have been served as little as the least served of its equals, and no less: it does not make up for the
    time before it came.
    """

    lease_s: float = LEASE_S
    _runs: dict[str, _Run] = field(default_factory=dict)
    _moments: int = 0

    def ask(self, name: str, standing: Standing, *, now: float) -> bool:
        """Whether the run `name` may begin its next batch at `now`, in seconds of one clock for all."""
        run = self.renew(name, standing, now=now)
        if not standing.wanted or self._first() is not run or self._in_work() >= standing.room:
            return False
        run.standing = replace(standing, left=standing.left + standing.wanted, wanted=0)
        run.passed = 0
        for other in self._waiting():
            other.passed += other.standing.priority == standing.priority
        return True

    def leave(self, name: str) -> None:
        """The run is over."""
        self._runs.pop(name, None)

    def served(self) -> dict[str, float]:
        """What each run had so far, in seconds of workers."""
        return {name: run.served for name, run in self._runs.items()}

    def renew(self, name: str, standing: Standing, *, now: float) -> _Run:
        """Hear how the run stands, and nothing else."""
        self._forget(now)
        run = self._runs.get(name)
        if run is None or run.standing.priority != standing.priority:
            equals = [other.served for other in self._runs.values() if other.standing.priority == standing.priority]
            ahead = min(equals, default=standing.worked) - standing.worked
            run = _Run(standing=standing, heard=now, ahead=ahead, waits=self._moment())
            self._runs[name] = run
        elif standing.wanted and not run.standing.wanted:
            run.waits = self._moment()
        run.standing, run.heard = standing, now
        return run

    def _forget(self, now: float) -> None:
        self._runs = {name: run for name, run in self._runs.items() if now - run.heard <= self.lease_s}

    def _moment(self) -> int:
        self._moments += 1
        return self._moments

    def _first(self) -> _Run | None:
        return min(self._waiting(), key=_order, default=None)

    def _waiting(self) -> list[_Run]:
        return [run for run in self._runs.values() if run.standing.wanted]

    def _in_work(self) -> int:
        return sum(run.standing.left for run in self._runs.values())
