"""What the egress proxy let through and what it refused, in numbers that an operator reads."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass

from earthmap.service.egress_rules import Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressCounts:
    """The numbers at one moment, since the proxy began."""

    allowed: int
    """Requests and tunnels that reached their host."""
    refused: dict[str, int]
    """Those that did not, by the word of `Refusal`; only words that happened."""
    bytes_up: int
    """Sent to hosts: bodies of plain requests, and everything in tunnels."""
    bytes_down: int
    """Received from hosts."""
    open: int
    """Connections of clients right now."""


class EgressCounter:
    """Counts; used by the proxy's thread, and read by any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._allowed = self._up = self._down = self._open = 0
        self._refused: Counter[Refusal] = Counter()

    def connection(self, step: int) -> int:
        """One connection more (1) or less (-1); how many there are then."""
        with self._lock:
            self._open += step
            return self._open

    def allowed(self) -> None:
        """A request or tunnel reached its host."""
        with self._lock:
            self._allowed += 1

    def refused(self, refusal: Refusal) -> None:
        """A request or connection was refused."""
        with self._lock:
            self._refused[refusal] += 1

    def carried(self, *, up: int = 0, down: int = 0) -> None:
        """Bytes that were passed on."""
        with self._lock:
            self._up += up
            self._down += down

    def read(self) -> EgressCounts:
        """The numbers now."""
        with self._lock:
            refused = {str(word): count for word, count in sorted(self._refused.items())}
            return EgressCounts(
                allowed=self._allowed, refused=refused, bytes_up=self._up, bytes_down=self._down, open=self._open
            )
