"""The automaton and the grammar are one: whatever it lets through parses, and all that is written goes through it."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from earthmap.errors import QueryError
from earthmap.tasks.grammar import END, build_automaton
from earthmap.tasks.serialization import KINDS, Instance, parse, serialize, tokenize_spatial

AUTOMATA = {
    (kinds, labels): build_automaton(kinds, labels=labels)
    for kinds in [*((kind,) for kind in KINDS), tuple(KINDS)]
    for labels in [(), ("ship", "storage tank")]
}


@given(st.sampled_from(sorted(AUTOMATA)), st.integers(2, 120), st.randoms(use_true_random=False))
def test_every_walk_ends_within_its_budget_and_parses(key: tuple, budget: int, chance) -> None:  # type: ignore[no-untyped-def]
    automaton = AUTOMATA[key]
    state, text = 0, []
    for spent in range(budget):
        allowed = automaton.allowed(state, budget=budget - spent)
        assert allowed, "a walk never gets stuck"
        terminal = chance.choice(allowed)
        if terminal == END:
            break
        text.append(terminal)
        state = automaton.steps[state][terminal]
    else:
        pytest.fail("the budget was overrun")
    found = parse("".join(text))
    assert not set(found.rejected) & {"cut off", "numbers", "mask", "corners"}
    assert found.nothing == (text == ["none"])
    kinds, labels = key
    assert all(one.kind in kinds and (one.label in labels if labels else one.label is None) for one in found.instances)


corner = st.tuples(st.floats(0, 1), st.floats(0, 1))


@given(st.lists(st.lists(corner, min_size=3, max_size=9), max_size=3), st.sampled_from(KINDS[:-1]), st.booleans())
def test_all_that_is_written_goes_through(rings: list, kind: str, named: bool) -> None:  # type: ignore[no-untyped-def]
    label = "storage tank" if named else None
    written = serialize([Instance(kind=kind, geometry=shapely.Polygon(ring), label=label) for ring in rings])
    automaton = AUTOMATA[(kind,), ("ship", "storage tank") if named else ()]
    state = automaton.walk(tokenize_spatial(written))
    assert state is not None
    assert END in automaton.allowed(state, budget=1)


@given(st.binary(min_size=32, max_size=32))
def test_masks_go_through(bits: bytes) -> None:
    mask = np.unpackbits(np.frombuffer(bits, np.uint8)).reshape(16, 16).astype(bool)
    state = AUTOMATA[("mask",), ()].walk(tokenize_spatial(serialize([Instance(kind="mask", mask=mask)])))
    assert state is not None


@pytest.mark.parametrize("number", [*range(0, 1200, 7), 999, 1000, 1001])
def test_numbers_are_0_to_1000_without_leading_zeros(number: int) -> None:
    automaton = AUTOMATA[("point",), ()]
    assert (automaton.walk(tokenize_spatial(f"point[{number},5]")) is not None) == (number <= 1000)
    assert automaton.walk(tokenize_spatial(f"point[0{number},5]")) is None


@pytest.mark.parametrize("side", [8, 16, 32, 64])
def test_rows_and_runs_stay_in_the_mask(side: int) -> None:
    automaton = build_automaton(["mask"], side=side)
    for row in range(100):
        good = automaton.walk(tokenize_spatial(f"mask[{side}|{row}:{row}+{row + 1}]")) is not None
        assert good == (row < side)
    assert automaton.walk(tokenize_spatial(f"mask[{side}|0:0+0]")) is None


def test_kinds_that_are_none_are_refused() -> None:
    for kinds in ((), ("blob",)):
        with pytest.raises(QueryError, match="expected some of point"):
            build_automaton(kinds)


TIMES = ("0s", "0.5s", "10s", "2024-06-01", "2024-06-01T10:30:00Z")
TRACKED = build_automaton(["box", "polygon"], labels=["ship"], times=TIMES)


@given(st.integers(2, 150), st.randoms(use_true_random=False))
def test_every_state_of_a_track_has_its_number_and_one_of_the_times(budget: int, chance) -> None:  # type: ignore[no-untyped-def]
    state, text = 0, []
    for spent in range(budget):
        terminal = chance.choice(TRACKED.allowed(state, budget=budget - spent))
        if terminal == END:
            break
        text.append(terminal)
        state = TRACKED.steps[state][terminal]
    else:
        pytest.fail("the budget was overrun")
    assert tokenize_spatial("".join(text)) == text, "spelt as in training"
    found = parse("".join(text))
    assert not set(found.rejected) & {"cut off", "numbers", "corners"}
    assert all(one.time in TIMES and one.label == "ship" for one in found.instances)
    assert all(one.track is not None and 1 <= one.track <= 99 for one in found.instances)


@given(st.lists(st.tuples(st.integers(1, 99), st.sampled_from(TIMES)), max_size=4))
def test_tracks_go_through(states: list[tuple[int, str]]) -> None:
    box = shapely.box(0.1, 0.2, 0.3, 0.4)
    made = [Instance(kind="box", geometry=box, label="ship", track=track, time=time) for track, time in states]
    walked = TRACKED.walk(tokenize_spatial(serialize(made)))
    assert walked is not None
    assert END in TRACKED.allowed(walked, budget=1)
    for wrong in (
        "#0 ship:box[1,2,3,4]@0s",
        "#100 ship:box[1,2,3,4]@0s",
        "#1 ship:box[1,2,3,4]",
        "ship:box[1,2,3,4]@0s",
    ):
        walked = TRACKED.walk(tokenize_spatial(wrong))
        assert walked is None or END not in TRACKED.allowed(walked, budget=1)


def test_a_time_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(QueryError, match="the time 'noon'"):
        build_automaton(["box"], times=["noon"])
