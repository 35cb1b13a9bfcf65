"""Where training rows come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from earthmap.training.rows import Row
    from earthmap.training.stages import StageTable


class RowSource(Protocol):
    """Rows of each step: the same however often, and from wherever, they are asked for.

    A run that is taken up in the middle of an epoch therefore learns from the rows that it would have learned from.
    """

    @property
    def key(self) -> str:
        """Content key of all that changes a row; it is recorded with a checkpoint."""
        ...

    def rows(self, table: StageTable, step: int, *, part: int = 0, parts: int = 1) -> list[Row]:
        """The rows of `step` (from 0 over all stages) that fall to worker `part` of `parts`: each to one worker."""
        ...
