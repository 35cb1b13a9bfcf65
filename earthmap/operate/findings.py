"""What a check of a machine, a cluster or a storage says: what was found, what was expected, how to fix it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """How a check ended, the better first."""

    OK = "ok"
    WARNING = "warning"
    """Runs work, but slower, or not for long."""
    WRONG = "wrong"
    """Runs fail, or their results cannot be relied on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found."""

    check: str
    """What was looked at, such as `disk.temporary`."""
    verdict: Verdict
    found: str
    expected: str | None = None
    """None where all is well."""
    fix: str | None = None
    """None where all is well."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {**asdict(self), "verdict": self.verdict.value}


def ok(check: str, found: str) -> Finding:
    """The finding that all is well."""
    return Finding(check=check, verdict=Verdict.OK, found=_one_line(found))


def warning(check: str, found: str, *, expected: str, fix: str) -> Finding:
    """The finding that something should be better."""
    return Finding(check=check, verdict=Verdict.WARNING, found=_one_line(found), expected=expected, fix=_one_line(fix))


def wrong(check: str, found: str, *, expected: str, fix: str) -> Finding:
    """The finding that something does not work."""
    return Finding(check=check, verdict=Verdict.WRONG, found=_one_line(found), expected=expected, fix=_one_line(fix))


def worst(findings: Iterable[Finding]) -> Verdict:
    """The worst verdict of all; OK of none."""
    order = list(Verdict)
    return max((finding.verdict for finding in findings), key=order.index, default=Verdict.OK)


def size_text(count: float) -> str:
    """Bytes for people: 3.2 GB."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit in ("B", "KB") else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _one_line(text: str) -> str:
    return " ".join(text.split())
