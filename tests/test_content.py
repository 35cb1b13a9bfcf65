"""Equal content has an equal key."""

from __future__ import annotations

import datetime
import subprocess
import sys
from dataclasses import dataclass
from enum import Enum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap.content import KEY_LENGTH, canonical_json, content_key

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@dataclass(frozen=True)
class _Point:
    x: float
    y: float


class _Colour(Enum):
    RED = "red"


@given(st.dictionaries(st.text(), VALUES, max_size=5))
def test_order_of_a_mapping_does_not_matter(value: dict[str, object]) -> None:
    assert content_key(dict(reversed(value.items()))) == content_key(value)


@given(VALUES, VALUES)
def test_keys_are_equal_where_json_is(one: object, other: object) -> None:
    assert (content_key(one) == content_key(other)) == (canonical_json([one]) == canonical_json([other]))


def test_an_integer_length_and_its_float_are_one() -> None:
    assert content_key(10) == content_key(10.0) != content_key(10.5)


def test_records_know_their_type_and_enums_their_value() -> None:
    assert content_key(_Point(1, 2)) != content_key({"x": 1, "y": 2})
    assert content_key(_Colour.RED) == content_key("red")


def test_times_are_instants() -> None:
    noon = datetime.datetime(2024, 6, 1, 12, tzinfo=datetime.UTC)
    there = noon.astimezone(datetime.timezone(datetime.timedelta(hours=9)))
    assert content_key(noon) == content_key(there)


@pytest.mark.parametrize("value", [object(), datetime.datetime(2024, 6, 1), {1: object()}])
def test_what_has_no_stable_content_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        content_key(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        content_key(value)


def test_the_same_in_another_process() -> None:
    code = "from earthmap.content import content_key; print(content_key({'a': {'z', 'b'}, 'c': b'bytes'}, 0.1))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == content_key({"c": b"bytes", "a": {"b", "z"}}, 0.1)
    assert len(done.stdout.strip()) == KEY_LENGTH
