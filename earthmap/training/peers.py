"""The workers that share a step: what they tell each other, whatever they talk through; imports neither Ray nor torch.

Every worker asks for the same exchanges in the same order. `earthmap.training.distributed` has those of a cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from earthmap.errors import EarthmapError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


class Peers(Protocol):
    """All workers of a step, this one among them; each method returns when every worker has called it."""

    @property
    def rank(self) -> int:
        """Which of them this is, from 0."""
        ...

    @property
    def count(self) -> int:
        """How many they are."""
        ...

    def gather(self, mine: T) -> list[T]:
        """What each worker has to tell, by rank."""
        ...

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Make each tensor, in its place, the sum of all workers' tensors: the same bits on every worker."""
        ...


class Alone:
    """One process that shares its steps with nobody."""

    rank, count = 0, 1

    def gather(self, mine: T) -> list[T]:
        """See `Peers`."""
        return [mine]

    def add(self, tensors: Sequence[Tensor]) -> None:
        """See `Peers`."""


def agree(peers: Peers, act: Callable[[], T]) -> T:
    """What `act` returns. Where it fails on one worker, every worker raises that error, and none waits for another.

    Raises:
        EarthmapError: the first one, by rank.
    """
    done, error = None, None
    try:
        done = act()
    except EarthmapError as raised:
        error = raised
    first = next((one for one in peers.gather(error) if one is not None), None)
    if first is not None:
        raise first
    return done  # type: ignore[return-value]  # no error: `act` has returned
