"""The grammar of SLIS as an automaton over terminals: what may come next, and how soon the text can end.

Constrained decoding offers only terminals that can still close within the budget, so that what comes out always
parses; whether the outline that it draws makes sense is the parser's to say.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from earthmap.errors import QueryError
from earthmap.tasks.quantization import BINS
from earthmap.tasks.serialization import KINDS, MASK_SIDES, WORDS, is_time, plain_label

END = ""
"""The terminal that ends the text."""

State = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Automaton:
    """States are numbers, the first is 0; `END` leads to the last, from which nothing leads on."""

    steps: tuple[Mapping[str, int], ...]
    """By state: terminal → next state."""
    left: tuple[int, ...]
    """By state: fewest terminals until the text has ended, END counted."""

    @property
    def terminals(self) -> tuple[str, ...]:
        """All terminals, sorted."""
        return tuple(sorted({terminal for step in self.steps for terminal in step}))

    def allowed(self, state: int, *, budget: int) -> list[str]:
        """The terminals after which the text can still end within `budget` terminals, this one counted."""
        return sorted(terminal for terminal, after in self.steps[state].items() if self.left[after] < budget)

    def walk(self, terminals: Iterable[str]) -> int | None:
        """The state after `terminals`; None where one of them may not stand."""
        state = 0
        for terminal in terminals:
            after = self.steps[state].get(terminal)
            if after is None:
                return None
            state = after
        return state


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────────────────


@functools.cache
def _digits(highest: int) -> Mapping[str, Mapping[str, str]]:
    """The digits that may follow what is written of a number of 0 to `highest`, without leading zeros.

    Beginnings with the same future are one, under the name of the smallest of them: `100` may grow, `234` may not.
    """
    written = {str(number)[:count] for number in range(highest + 1) for count in range(len(str(number)) + 1)}
    follow = {text: [digit for digit in "0123456789" if text + digit in written] for text in sorted(written)}
    futures: dict[str, str] = {}

    def future(text: str) -> str:
        return "(" + "".join(digit + future(text + digit) for digit in follow[text]) + ")"

    for text in sorted(written):
        futures.setdefault(future(text) if text else "", text)
    same = {text: futures[future(text)] if text else "" for text in written}
    return {text: {digit: same[text + digit] for digit in follow[text]} for text in set(same.values())}


# ── states ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Rules:
    """The states and steps for some kinds and labels."""

    kinds: tuple[str, ...]
    labels: tuple[str, ...]
    side: int
    times: tuple[str, ...]

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        """Terminal and next state, for each that may follow."""
        name = state[0]
        if name == "start":
            yield "none", ("done",)
        if name in ("start", "next"):
            yield from (("#", ("track", "")),) if self.times else self._openings()
        elif name == "track":
            yield from self._track(str(state[1]))
        elif name == "named":
            yield from self._openings()
        elif name == "label":
            yield ":", ("shape",)
        elif name == "shape":
            yield from ((WORDS[kind], ("open", kind)) for kind in self.kinds)
        elif name == "open":
            yield "[", self._first(str(state[1]))
        elif name == "number":
            yield from self._number(str(state[1]), int(str(state[2])), str(state[3]))
        elif name == "side":
            yield from self._side(str(state[1]))
        elif name in ("row", "column", "length"):
            yield from self._run(str(name), str(state[1]))
        elif name == "ring":
            yield from (("[", self._first("polygon")), ("+", ("open", "polygon")))
            yield from self._after()
        elif name == "after":
            yield from self._after()
        elif name == "time":
            yield from self._time(str(state[1]))
        elif name == "done":
            yield END, ("end",)

    def _openings(self) -> Iterator[tuple[str, State]]:
        if self.labels:
            yield from ((label, ("label",)) for label in self.labels)
        else:
            yield from ((WORDS[kind], ("open", kind)) for kind in self.kinds)

    def _after(self) -> Iterator[tuple[str, State]]:
        if self.times:
            yield "@", ("time", "")
        else:
            yield from self._ends()

    @staticmethod
    def _ends() -> Iterator[tuple[str, State]]:
        yield ";", ("next",)
        yield END, ("end",)

    def _track(self, digits: str) -> Iterator[tuple[str, State]]:
        for digit, kept in _digits(MAX_TRACKS)[digits].items():
            if digits or digit != "0":
                yield digit, ("track", kept)
        if digits:
            yield " ", ("named",)

    def _time(self, written: str) -> Iterator[tuple[str, State]]:
        further = {time[len(written)] for time in self.times if time.startswith(written) and time != written}
        yield from ((mark, ("time", written + mark)) for mark in sorted(further))
        if written in self.times:
            yield from self._ends()

    @staticmethod
    def _first(kind: str) -> State:
        return ("side", "") if kind == "mask" else ("number", kind, 0, "")

    def _number(self, kind: str, index: int, digits: str) -> Iterator[tuple[str, State]]:
        for digit, kept in _digits(BINS)[digits].items():
            yield digit, ("number", kind, index, kept)
        if not digits:
            return
        if kind == "polygon":
            # Three corners at least; after them only whether x or y comes next is kept.
            further = index + 1 if index < 5 else 4 if index == 5 else 5
            yield ",", ("number", kind, further, "")
            if index == 5:
                yield "]", ("ring",)
        elif index + 1 < _NUMBERS[kind]:
            yield ",", ("number", kind, index + 1, "")
        else:
            yield "]", ("after",)

    def _side(self, digits: str) -> Iterator[tuple[str, State]]:
        text = str(self.side)
        if digits == text:
            yield "|", ("row", "")
            yield "]", ("after",)
        else:
            yield text[len(digits)], ("side", text[: len(digits) + 1])

    def _run(self, name: str, digits: str) -> Iterator[tuple[str, State]]:
        highest = self.side if name == "length" else self.side - 1
        for digit, kept in _digits(highest)[digits].items():
            if not (name == "length" and not digits and digit == "0"):
                yield digit, (name, kept)
        if not digits:
            return
        if name == "row":
            yield ":", ("column", "")
        elif name == "column":
            yield "+", ("length", "")
        else:
            yield from ((",", ("column", "")), ("|", ("row", "")), ("]", ("after",)))


_NUMBERS = {"point": 2, "box": 4, "oriented_box": 8}


MAX_TRACKS = 99
"""Highest number of a track."""


def build_automaton(
    kinds: Sequence[str], *, labels: Sequence[str] = (), side: int = 16, times: Sequence[str] = ()
) -> Automaton:
    """What an answer of these kinds may be: `none`, or instances, each with one of `labels` where there are some.

    Args:
        kinds: of `earthmap.tasks.serialization.KINDS`.
        labels: what instances may be called; each is one terminal.
        side: cells along a mask.
        times: at which things are followed; each instance then has the number of a track and one of these.

    Raises:
        QueryError: for an unknown kind, no kind, an odd side, or a time that the text cannot say.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds or side not in MASK_SIDES:
        raise QueryError(
            f"no answer can be of the kinds {', '.join(map(str, kinds)) or 'nothing'} on {side} cells",
            expected=f"some of {', '.join(KINDS)}, and one of {', '.join(map(str, MASK_SIDES))} cells",
        )
    odd = [time for time in times if not is_time(time)]
    if odd:
        raise QueryError(f"the time {odd[0][:40]!r}", expected="2024-06-01, 2024-06-01T10:30:00Z or 12.5s")
    names = tuple(dict.fromkeys(name for label in labels if (name := plain_label(label))))
    rules = _Rules(kinds=tuple(dict.fromkeys(kinds)), labels=names, side=side, times=tuple(dict.fromkeys(times)))
    numbers: dict[State, int] = {("start",): 0}
    steps: list[dict[str, int]] = []
    waiting: deque[State] = deque([("start",)])
    while waiting:
        state = waiting.popleft()
        found: dict[str, int] = {}
        for terminal, after in rules.steps(state):
            if after not in numbers:
                numbers[after] = len(numbers)
                waiting.append(after)
            found[terminal] = numbers[after]
        steps.append(found)
    return Automaton(tuple(steps), _distances(steps, numbers[("end",)]))


def _distances(steps: Sequence[Mapping[str, int]], end: int) -> tuple[int, ...]:
    """By state, the fewest terminals to the end, by a search backwards from it."""
    before: list[list[int]] = [[] for _ in steps]
    for state, found in enumerate(steps):
        for after in found.values():
            before[after].append(state)
    left = {end: 0}
    waiting = deque([end])
    while waiting:
        state = waiting.popleft()
        for earlier in before[state]:
            if earlier not in left:
                left[earlier] = left[state] + 1
                waiting.append(earlier)
    return tuple(left[state] for state in range(len(steps)))
