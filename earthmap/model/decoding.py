"""A grammar's automaton over token ids: what a constrained answer may continue with, for all rows at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from earthmap.errors import ModelError
from earthmap.tasks.grammar import END, Automaton

if TYPE_CHECKING:
    from torch import Tensor

_Place = tuple[int, tuple[int, ...]]
"""A state of the automaton, and the tokens of a terminal that are still to come before it is reached."""

_NEVER = 2**40
"""More tokens than any budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenAutomaton:
    """States are numbers, the first is 0. Tables are looked up by state, so that a step is a few small gathers."""

    ids: Tensor
    """(K,) token ids that occur; the last one ends the answer."""
    following: Tensor
    """(states, K) the next state, −1 where a token may not stand."""
    needed: Tensor
    """(states, K) fewest tokens until the answer has ended, this one counted; huge where it may not stand."""

    @property
    def shortest(self) -> int:
        """Fewest tokens of an answer, its end counted."""
        return int(self.needed[0].min())

    def choose(self, logits: Tensor, states: Tensor, *, budget: int) -> tuple[Tensor, Tensor]:
        """Of (R, V) logits the column of the likeliest token allowed, (R,), and the state behind it, (R,).

        Allowed are tokens after which an answer can still end within `budget` tokens, this one counted.
        """
        offered = logits[:, self.ids].masked_fill_(self.needed[states] > budget, -float("inf"))
        column = offered.argmax(dim=1)
        return column, self.following[states, column].clamp(min=0)

    def to(self, device: Any) -> TokenAutomaton:
        """The same on another device."""
        return TokenAutomaton(
            ids=self.ids.to(device), following=self.following.to(device), needed=self.needed.to(device)
        )


def over_tokens(automaton: Automaton, spelling: Mapping[str, Sequence[int]], *, end: int) -> TokenAutomaton:
    """`automaton` with each terminal spelt in tokens; terminals that begin alike are told apart as they go on.

    Args:
        automaton: of `earthmap.tasks.grammar`.
        spelling: token ids of each terminal, as its tokenizer writes it alone.
        end: the token that ends an answer.

    Raises:
        ModelError: for a terminal without tokens.
    """
    spelt = {terminal: tuple(spelling.get(terminal, ())) for terminal in automaton.terminals} | {END: (end,)}
    lost = [terminal for terminal, ids in spelt.items() if not ids]
    if lost:
        raise ModelError(f"the tokenizer writes nothing for {lost[0]!r}", expected="at least one token")
    tables = _determined(automaton, spelt)
    return _as_tensors(tables, end)


def _onward(automaton: Automaton, spelt: Mapping[str, tuple[int, ...]], place: _Place) -> dict[int, set[_Place]]:
    """Where each token leads from one place."""
    state, rest = place
    if rest:
        return {rest[0]: {(state, rest[1:])}}
    found: dict[int, set[_Place]] = {}
    for terminal, after in automaton.steps[state].items():
        ids = spelt[terminal]
        found.setdefault(ids[0], set()).add((after, ids[1:]))
    return found


def _determined(automaton: Automaton, spelt: Mapping[str, tuple[int, ...]]) -> list[dict[int, int]]:
    """The automaton over tokens, by the subset construction (Rabin and Scott 1959)."""
    first = frozenset({(0, ())})
    numbers: dict[frozenset[_Place], int] = {first: 0}
    tables: list[dict[int, int]] = []
    waiting: deque[frozenset[_Place]] = deque([first])
    while waiting:
        together: dict[int, set[_Place]] = {}
        for place in waiting.popleft():
            for token, places in _onward(automaton, spelt, place).items():
                together.setdefault(token, set()).update(places)
        table = {}
        for token, places in sorted(together.items()):
            key = frozenset(places)
            if key not in numbers:
                numbers[key] = len(numbers)
                waiting.append(key)
            table[token] = numbers[key]
        tables.append(table)
    return tables


def _as_tensors(tables: Sequence[Mapping[int, int]], end: int) -> TokenAutomaton:
    import torch

    ids = [*sorted({token for table in tables for token in table} - {end}), end]
    column = {token: number for number, token in enumerate(ids)}
    following = torch.full((len(tables), len(ids)), -1, dtype=torch.long)
    for state, table in enumerate(tables):
        for token, after in table.items():
            following[state, column[token]] = after
    left = torch.tensor(_distances(tables))
    needed = (left[following.clamp(min=0)] + 1).masked_fill(following < 0, _NEVER)
    return TokenAutomaton(ids=torch.tensor(ids), following=following, needed=needed)


def _distances(tables: Sequence[Mapping[int, int]]) -> list[int]:
    """Fewest tokens from each state to one from which nothing leads on."""
    before: list[list[int]] = [[] for _ in tables]
    for state, table in enumerate(tables):
        for after in table.values():
            before[after].append(state)
    left = {state: 0 for state, table in enumerate(tables) if not table}
    waiting = deque(left)
    while waiting:
        state = waiting.popleft()
        for earlier in before[state]:
            if earlier not in left:
                left[earlier] = left[state] + 1
                waiting.append(earlier)
    return [left[state] for state in range(len(tables))]
