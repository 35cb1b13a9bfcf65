"""What the rows of a step have to be learned from: the denominators of its means, over all batches and workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from earthmap.training.packing import caption_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from earthmap.model.words import Words
    from earthmap.training.peers import Peers
    from earthmap.training.rows import Row


@dataclass(slots=True, kw_only=True)
class Extent:
    """How much there is to learn from in rows of one layout."""

    answers: int = 0
    known: dict[str, int] = field(default_factory=dict)
    """By granularity: blocks of which a share is known, regions, captions."""
    captions: set[tuple[int, ...]] = field(default_factory=set)
    """Ids of their words, each caption once."""

    def add(self, other: Extent) -> None:
        """Count `other` in."""
        self.answers += other.answers
        for name, count in other.known.items():
            self.known[name] = self.known.get(name, 0) + count
        self.captions |= other.captions


def extent_of(rows: Sequence[Row], words: Words) -> Extent:
    """The extent of rows, counted as `earthmap.training.losses` averages over them."""
    captions = [ids for row in rows if (ids := caption_of(row, words))]
    shares = [row.shares for row in rows if row.shares is not None]
    known = {"patch": sum(map(_blocks, shares)), "region": sum(map(_regions, shares)), "scene": len(captions)}
    return Extent(answers=sum(len(row.asked) for row in rows), known=known, captions=set(captions))


def _blocks(shares: NDArray[np.float32]) -> int:
    """Of (view, block, class) shares the blocks of which some share is known."""
    import numpy as np

    return int((~np.isnan(shares)).any(axis=2).sum())


def _regions(shares: NDArray[np.float32]) -> int:
    """Of (view, block, class) shares the classes that fill a block for more than half."""
    return int((shares > 0.5).any(axis=(0, 1)).sum())


def shared(mine: Mapping[object, Extent], peers: Peers) -> dict[object, Extent]:
    """The extent of each layout over all workers, of what each worker has of it."""
    whole: dict[object, Extent] = {}
    for extents in peers.gather(mine):
        for layout, extent in extents.items():
            whole.setdefault(layout, Extent()).add(extent)
    return whole
