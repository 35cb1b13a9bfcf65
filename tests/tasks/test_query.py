"""A query's key is its content."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap.errors import QueryError
from earthmap.tasks import TASKS, Query, make_query

words = st.text(max_size=9)
several = st.lists(words, max_size=3).map(tuple)
maybe = st.one_of(st.none(), words)
queries = st.builds(
    Query,
    text=words,
    task=st.sampled_from(sorted(TASKS)),
    targets=several,
    sensors=several,
    unseen=several,
    before=maybe,
    after=maybe,
    choices=several,
    shape=maybe,
)
FIELDS = tuple(field.name for field in dataclasses.fields(Query))


@given(queries, queries)
def test_keys_are_equal_where_queries_are(one: Query, other: Query) -> None:
    assert (one.content_key() == other.content_key()) == (one == other)


@pytest.mark.parametrize("name", FIELDS)
@given(queries, queries)
def test_a_key_differs_whenever_one_field_does(name: str, one: Query, other: Query) -> None:
    changed = dataclasses.replace(one, **{name: getattr(other, name)})
    assert (one.content_key() == changed.content_key()) == (getattr(one, name) == getattr(other, name))


def test_a_task_that_is_none_is_refused() -> None:
    with pytest.raises(QueryError, match="no such"):
        Query(text="Hm", task="no such", targets=())


def test_a_query_knows_how_many_dates_it_looks_at() -> None:
    for row in TASKS.values():
        assert make_query(row.example, task=row.id, open_vocabulary=True).dates == row.dates
