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

    def metrics(self) -> str:
        """The same in the text format that Prometheus reads (version 0.0.4)."""
        name = "earthmap_egress"
        rows = [
            f"# TYPE {name}_allowed_total counter",
            f"{name}_allowed_total {self.allowed}",
            f"# TYPE {name}_refused_total counter",
            *(f'{name}_refused_total{{reason="{word}"}} {count}' for word, count in self.refused.items()),
            f"# TYPE {name}_bytes_total counter",
            f'{name}_bytes_total{{direction="up"}} {self.bytes_up}',
            f'{name}_bytes_total{{direction="down"}} {self.bytes_down}',
            f"# TYPE {name}_connections gauge",
            f"{name}_connections {self.open}",
        ]
        return "\n".join([*rows, ""])


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
