"""Turns of the runs of a cluster, in a model of one whose cells take a known time."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap.pipeline.turns import LEASE_S, PATIENCE, RANKS, Priority, Standing, Turns

ROOM = 4
"""Cells that the cluster works on at once."""

POLL_S = 0.25


def standing(
    priority: Priority = "normal", *, left: int = 0, wanted: int = 8, room: int = ROOM, worked: float = 0.0
) -> Standing:
    return Standing(priority=priority, left=left, wanted=wanted, room=room, worked=worked)


# ── single decisions ─────────────────────────────────────────────────────────────────────────────────────────


def test_who_is_alone_goes_on_before_its_last_cells_are_done() -> None:
    turns = Turns()
    assert turns.ask("a", standing(), now=0)
    assert not turns.ask("a", standing(left=ROOM), now=1), "the cluster has no room"
    assert turns.ask("a", standing(left=ROOM - 1), now=2)


def test_who_wants_nothing_gets_nothing() -> None:
    assert not Turns().ask("a", standing(wanted=0), now=0)


def test_the_urgent_are_first_and_the_others_go_on_after_them() -> None:
    turns = Turns()
    assert turns.ask("bulk", standing("bulk"), now=0)
    assert not turns.ask("urgent", standing("urgent"), now=1)
    assert not turns.ask("bulk", standing("bulk", left=3), now=2), "somebody more urgent waits"
    assert turns.ask("urgent", standing("urgent"), now=3)
    assert not turns.ask("bulk", standing("bulk", left=0), now=4)
    assert not turns.ask("urgent", standing("urgent", left=2, wanted=0), now=5)
    assert turns.ask("bulk", standing("bulk", left=0), now=6)


def test_a_newcomer_does_not_make_up_for_the_time_before_it_came() -> None:
    turns = Turns()
    assert turns.ask("old", standing(), now=0)
    turns.ask("old", standing(left=8, wanted=0, worked=100.0), now=9)
    turns.ask("new", standing(wanted=0, worked=5.0), now=10)
    assert turns.served() == {"old": 100.0, "new": 100.0}
    turns.ask("new", standing(wanted=0, worked=8.0), now=11)
    assert turns.served() == {"old": 100.0, "new": 103.0}


def test_a_run_that_died_gives_its_turn_back() -> None:
    turns = Turns()
    assert turns.ask("dead", standing("urgent"), now=0)
    assert not turns.ask("other", standing("bulk"), now=LEASE_S)
    assert turns.ask("other", standing("bulk"), now=LEASE_S + 0.1)
    assert turns.served().keys() == {"other"}


def test_a_run_that_left_is_forgotten() -> None:
    turns = Turns()
    assert turns.ask("a", standing(), now=0)
    turns.leave("a")
    turns.leave("nobody")
    assert turns.ask("b", standing(), now=1)


def test_a_keeper_that_forgot_everything_learns_it_again() -> None:
    turns = Turns()
    assert not turns.ask("a", standing(left=ROOM), now=0), "what it has begun counts"
    assert not turns.ask("b", standing(), now=0)
    assert not turns.ask("b", standing(left=0), now=1)


def test_a_run_may_become_urgent() -> None:
    turns = Turns()
    assert turns.ask("a", standing("normal"), now=0)
    assert not turns.ask("b", standing("bulk"), now=1)
    assert not turns.ask("c", standing("normal"), now=1)
    assert not turns.ask("b", standing("urgent"), now=2)
    turns.ask("a", standing("normal", left=0, wanted=0), now=3)
    assert not turns.ask("c", standing("normal"), now=3)
    assert turns.ask("b", standing("urgent"), now=3)


# ── a whole cluster ──────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Run:
    """A run in the model."""

    name: str
    priority: Priority
    cells: int
    batch: int
    seconds: float
    """That each of its cells takes."""
    comes: float
    dies: float = float("inf")
    todo: int = field(init=False)
    left: int = 0
    done: int = 0
    ended: float = float("inf")
    turns: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.todo = self.cells

    @property
    def wanted(self) -> int:
        return min(self.batch, self.todo)


@dataclass
class Cluster:
    """ROOM slots; cells are worked on in the order in which they were begun."""

    runs: list[Run]
    turns: Turns = field(default_factory=Turns)
    now: float = 0.0
    waiting: list[Run] = field(default_factory=list)
    working: list[tuple[float, int, Run]] = field(default_factory=list)
    number: int = 0

    def work(self, until: float = 100_000.0) -> None:
        while self.now < until and any(run.ended > self.now and run.dies > self.now for run in self.runs):
            for run in self.runs:
                if run.comes <= self.now < run.dies and run.ended > self.now:
                    self.ask(run)
            self.step()
            self.now += POLL_S

    def ask(self, run: Run) -> None:
        worked = run.seconds * run.done * (1 + run.left / max(1, run.done))
        told = Standing(priority=run.priority, left=run.left, wanted=run.wanted, room=ROOM, worked=worked)
        others = [one for one in self.runs if one is not run and one.comes <= self.now < one.dies and one.wanted]
        if self.turns.ask(run.name, told, now=self.now):
            begun = sum(one.left for one in self.runs if one.dies > self.now)
            assert begun < ROOM, "a batch is begun while the cluster has room"
            heard = [one for one in others if max([one.comes, *one.turns[-1:]]) < self.now - POLL_S]
            assert all(RANKS[one.priority] >= RANKS[run.priority] for one in heard), "who matters more is first"
            self.waiting += [run] * run.wanted
            run.left += run.wanted
            run.todo -= run.wanted
            run.turns.append(self.now)
        if not run.todo and not run.left:
            run.ended = self.now
            self.turns.leave(run.name)

    def step(self) -> None:
        while self.working and (self.working[0][0] <= self.now or self.working[0][2].dies <= self.now):
            _, _, run = heapq.heappop(self.working)
            run.left -= 1
            run.done += 1
        self.waiting = [run for run in self.waiting if run.dies > self.now]
        while self.waiting and len(self.working) < ROOM:
            run = self.waiting.pop(0)
            self.number += 1
            heapq.heappush(self.working, (self.now + run.seconds, self.number, run))


NEVER = float("inf")


def runs(
    priority: st.SearchStrategy[Priority], *, batch: int | None = None, seconds: float | None = None, die: bool = False
) -> st.SearchStrategy[list[Run]]:
    one = st.builds(
        Run,
        name=st.uuids().map(str),
        priority=priority,
        cells=st.integers(1, 60),
        batch=st.integers(1, 16) if batch is None else st.just(batch),
        seconds=st.floats(0.5, 8.0) if seconds is None else st.just(seconds),
        comes=st.floats(0, 60),
        dies=st.one_of(st.just(NEVER), st.floats(0, 120)) if die else st.just(NEVER),
    )
    return st.lists(one, min_size=1, max_size=5)


NORMAL: st.SearchStrategy[Priority] = st.just("normal")


@given(runs(st.sampled_from(sorted(RANKS)), die=True))  # type: ignore[arg-type]
def test_every_run_that_lives_comes_to_its_end_and_priority_is_kept(drawn: list[Run]) -> None:
    Cluster(drawn).work()
    for run in drawn:
        assert run.ended < float("inf") or run.dies < float("inf")


@given(runs(NORMAL, batch=8, seconds=2.0))
def test_between_two_turns_of_a_run_its_equals_have_at_most_two_each(drawn: list[Run]) -> None:
    Cluster(drawn).work()
    for run in drawn:
        for other in drawn:
            for start, end in zip([run.comes + POLL_S, *run.turns], run.turns, strict=False):
                assert sum(start < turn < end for turn in other.turns) <= 2


@given(runs(NORMAL))
def test_nobody_waits_for_many_turns_of_equals(drawn: list[Run]) -> None:
    Cluster(drawn).work()
    for run in drawn:
        for start, end in zip([run.comes + POLL_S, *(turn + POLL_S for turn in run.turns)], run.turns, strict=False):
            others = sum(start <= turn < end for other in drawn if other is not run for turn in other.turns)
            assert others <= PATIENCE + len(drawn) - 2


@pytest.mark.parametrize("comes", [0.0, 3.3, 10.0, 17.9])
def test_an_urgent_run_waits_for_one_batch_at_most(comes: float) -> None:
    bulk = Run(name="bulk", priority="bulk", cells=80, batch=8, seconds=3.0, comes=0.0)
    urgent = Run(name="urgent", priority="urgent", cells=20, batch=8, seconds=3.0, comes=comes)
    Cluster([bulk, urgent]).work()
    assert sum(urgent.comes < turn < urgent.ended for turn in bulk.turns) <= 1, "the last one, while it ends"
    assert urgent.turns[0] - comes <= (8 + ROOM) / ROOM * 3.0
    assert urgent.ended < bulk.ended
    assert bulk.ended <= 100 / ROOM * 3.0 + 10, "the cluster was never idle for long"


def test_equals_alternate() -> None:
    pair = [Run(name=name, priority="normal", cells=80, batch=8, seconds=2.0, comes=0.0) for name in ("a", "b")]
    Cluster(pair).work()
    order = [name for _, name in sorted((turn, run.name) for run in pair for turn in run.turns)]
    assert order == ["a", "b"] * 10


def test_who_takes_longer_gets_fewer_turns() -> None:
    slow = Run(name="slow", priority="normal", cells=400, batch=8, seconds=8.0, comes=0.0)
    quick = Run(name="quick", priority="normal", cells=400, batch=8, seconds=2.0, comes=0.0)
    Cluster([slow, quick]).work(until=400.0)
    assert len(quick.turns) == pytest.approx(2 * len(slow.turns), abs=3)
