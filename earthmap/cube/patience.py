"""Waiting for a provider that refuses or does not answer: growing pauses, within a budget of seconds."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from earthmap.catalog.scene import BandSource
from earthmap.cube.failures import Decision, decision_of, place_of
from earthmap.cube.reader import Reader
from earthmap.errors import ReadError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox

FIRST_PAUSE_S = 1.0
"""Each further pause is twice as long."""

LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long is waited, in seconds of the clock; what is still refused then is left for the next execution."""

    cell_s: float = 60.0
    """For one cell and observation."""
    run_s: float = 600.0
    """For all that one process reads in one execution of a run."""


@dataclass(slots=True)
class Spent:
    """What was waited so far. Threads that wait at the same time wait once."""

    seconds: float = 0.0


@dataclass(slots=True)
class Budget:
    """What may be waited for one cell. Used by many threads at once."""

    patience: Patience
    run: Spent
    """Of the process in this execution, shared by its cells."""
    seconds: float = 0.0
    """Waited for this cell."""
    place: str = ""
    """Who was waited for last."""
    _until: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait(self, *, times: int, asked_s: float | None = None, place: str = "") -> bool:
        """Pause before another try; False at once where that would exceed the budget.

        Args:
            times: how often the same read was tried before, from 0: the pause doubles with each.
            asked_s: how long the provider itself asks to wait, which is never cut short.
            place: who is waited for.
        """
        pause = max(asked_s or 0.0, min(FIRST_PAUSE_S * 2**times, LONGEST_PAUSE_S))
        with self._lock:
            now = time.monotonic()
            until = max(self._until, now + pause)
            more = until - max(self._until, now)
            if self.seconds + more > self.patience.cell_s or self.run.seconds + more > self.patience.run_s:
                return False
            self.seconds += more
            self.run.seconds += more
            self._until, self.place = until, place
        time.sleep(until - now)
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientReader:
    """A reader that asks again, after a pause, where the cause of a failure may pass while it waits."""

    reader: Reader
    budget: Budget

    def read(self, source: BandSource, geobox: GeoBox, *, frame: GeoBox | None = None) -> NDArray[np.float32]:
        """As `Reader.read`; raises what the reader raised last when patience is at its end."""
        times = 0
        while True:
            try:
                return self.reader.read(source, geobox, frame=frame)
            except ReadError as error:
                if decision_of(error.reason) is not Decision.WAIT:
                    raise
                place = place_of(source.href)
                if not self.budget.wait(times=times, asked_s=error.retry_after_s, place=place):
                    raise
                times += 1
