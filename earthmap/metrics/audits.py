"""What a random sample of tiles, asked in full whatever triage says of them, tells of what triage misses.

Bounds are one-sided and exact: Clopper and Pearson 1934, Biometrika 26, 404–413. Tiles are drawn without replacement,
for which the binomial bound is on the safe side (Uhlmann 1966, Metrika 10, 145–185).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from earthmap.errors import BadRequestError

LEVEL = 0.95
"""Confidence of a bound."""


def upper_bound(events: int, trials: int, *, level: float = LEVEL) -> float:
    """The largest share under which so few events, or fewer, are as likely as 1 − `level`; 1 where all are events.

    Raises:
        BadRequestError: for more events than trials, or fewer than none.

    Example:
        >>> round(upper_bound(0, 150), 4), round(upper_bound(2, 40), 3), upper_bound(0, 0)
        (0.0198, 0.149, 1.0)
    """
    if not 0 <= events <= trials:
        raise BadRequestError(f"{events} events in {trials} trials", expected="from none to all of them")
    if events == trials:
        return 1.0
    from scipy.stats import beta

    return float(beta.ppf(level, events + 1, trials - events))


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Counts of tiles. Raises BadRequestError for counts that cannot be."""

    audited: int
    """Drawn and answered."""
    with_target: int
    """Of those, hold a target."""
    would_skip: int
    """Of the audited, triage alone would have skipped."""
    missed: int
    """Of those, hold a target."""
    skipped: int
    """Not of the audit, and skipped: nobody knows what they hold."""

    def __post_init__(self) -> None:
        inner = 0 <= self.missed <= min(self.with_target, self.would_skip)
        if not inner or max(self.with_target, self.would_skip) > self.audited or self.skipped < 0:
            raise BadRequestError(f"an audit of {self}", expected="parts that are no larger than their whole")

    @property
    def missed_share(self) -> float | None:
        """Of the audited tiles that hold a target, the share that triage would have skipped; None where none does."""
        return self.missed / self.with_target if self.with_target else None

    @property
    def missed_share_at_most(self) -> float | None:
        """Upper bound of that share among all tiles that hold a target; None where no audited tile does."""
        return upper_bound(self.missed, self.with_target) if self.with_target else None

    @property
    def skipped_with_target_at_most(self) -> float | None:
        """Upper bound of the share of tiles with a target among those that triage skips; None where the audit has none
        of them."""
        return upper_bound(self.missed, self.would_skip) if self.would_skip else None

    @property
    def missed_tiles_at_most(self) -> int | None:
        """That of how many skipped tiles hold a target: those of the audit were answered and are not among them."""
        share = self.skipped_with_target_at_most
        if share is None:
            return None if self.skipped else 0
        return min(self.skipped, math.floor(share * (self.skipped + self.would_skip)) - self.missed)
