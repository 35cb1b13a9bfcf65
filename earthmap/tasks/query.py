"""A query: one question, made exact."""

from __future__ import annotations

from dataclasses import dataclass

from earthmap.content import content_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One question about every tile. Made from text by `earthmap.tasks.registry.make_query`."""

    text: str
    """The question as it was asked."""
    task: str
    """Row of `earthmap.tasks.registry`: `presence`, `fraction`, `segment` or `change`."""
    targets: tuple[str, ...]
    """Land-cover classes asked for, in the order of `earthmap.tasks.registry.TARGETS`."""
    sensors: tuple[str, ...] = ()
    """Ids of the sensors that may answer; empty for any."""
    unseen: tuple[str, ...] = ("nodata", "cloud")
    """Reasons of the reason mask that count as unseen."""
    before: str | None = None
    """STAC datetime or interval that the first date of a change query is taken from; None for the earliest."""
    after: str | None = None
    """The same for the second date; None for the latest."""

    @property
    def dates(self) -> int:
        """How many dates one answer looks at: 2 for change, else 1."""
        return 2 if self.task == "change" else 1

    def content_key(self) -> str:
        """Key of the question with all that it asks for."""
        return content_key(self)
