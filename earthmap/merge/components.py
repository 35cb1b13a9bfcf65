"""What grows together as cells come: members joined into groups, each finished when nothing can join it any more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Member = TypeVar("Member")


@dataclass(slots=True)
class Group(Generic[Member]):
    """Members that belong together as far as it is known."""

    members: list[Member]
    numbers: list[int]
    """Those of its members."""
    waiting: int = 0
    """What may still join it: one for each member and each cell that has not come."""


@dataclass(slots=True)
class Components(Generic[Member]):
    """Groups of members, by the number that each member got. What becomes of a group depends on no order."""

    groups: dict[int, Group[Member]] = field(default_factory=dict)
    """By the number of one of the members, their root."""
    _parents: dict[int, int] = field(default_factory=dict)
    _count: int = 0

    def add(self, member: Member) -> int:
        """Take up a member as a group of its own; returns its number."""
        number = self._count
        self._count += 1
        self.groups[number], self._parents[number] = Group([member], [number]), number
        return number

    def wait(self, numbers: Iterable[int], step: int) -> None:
        """Add `step` to what the group of each of these members waits for."""
        for number in numbers:
            self.groups[self.root(number)].waiting += step

    def root(self, number: int) -> int:
        """The number that the group of a member is kept by."""
        while (parent := self._parents[number]) != number:
            self._parents[number] = number = self._parents[parent]
        return number

    def group(self, number: int) -> Group[Member]:
        """The group of a member."""
        return self.groups[self.root(number)]

    def unite(self, one: int, other: int) -> None:
        """Make one group of those of two members."""
        small, large = sorted((self.root(one), self.root(other)), key=lambda root: len(self.groups[root].members))
        if small == large:
            return
        gone, group = self.groups.pop(small), self.groups[large]
        self._parents[small] = large
        group.members += gone.members
        group.numbers += gone.numbers
        group.waiting += gone.waiting

    def finished(self, numbers: Iterable[int]) -> list[list[Member]]:
        """Take out the groups of these members that wait for nothing."""
        roots = sorted({self.root(number) for number in numbers})
        return [self._taken(root) for root in roots if not self.groups[root].waiting]

    def rest(self) -> list[list[Member]]:
        """Take out all groups."""
        return [self._taken(root) for root in list(self.groups)]

    def _taken(self, root: int) -> list[Member]:
        group = self.groups.pop(root)
        for number in group.numbers:
            del self._parents[number]
        return group.members
