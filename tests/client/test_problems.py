"""What a service says went wrong becomes the error that it met, word for word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap import errors
from earthmap.client.problems import error_of
from earthmap.errors import EarthmapError, JobError, ServiceError
from earthmap.service.errors import problem, problem_of

PLAIN = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type)
    and issubclass(kind, EarthmapError)
    and kind.__name__ not in ("EarthmapError", "ReadError", "IsolatedError", "ReplicaError")
]
WORDS = st.text(st.characters(codec="ascii", exclude_categories=("C",)), min_size=1, max_size=30).map(str.strip)


@given(kind=st.sampled_from(PLAIN), what=WORDS, expected=st.none() | WORDS, fix=st.none() | WORDS)
def test_there_and_back(kind: type[EarthmapError], what: str, expected: str | None, fix: str | None) -> None:
    error = kind(what or "x", expected=expected or None, fix=fix or None)
    back = error_of(problem_of(error))
    assert str(back) == str(error)
    assert type(back) is kind


def test_errors_that_need_more_than_words_are_the_services() -> None:
    lost = errors.ReadError("gone", address="a", reason="b", expected="it", fix="that")
    back = error_of(problem_of(lost), status=500)
    assert isinstance(back, ServiceError)
    assert (back.expected, back.fix, back.status) == ("it", "that", 500)


@pytest.mark.parametrize("kind", ["schema", "quota", "json"])
def test_requests_that_cannot_be_run_are_bad_requests(kind: str) -> None:
    assert isinstance(error_of(problem(400, "No", "area: not there", kind=kind)), JobError)


@pytest.mark.parametrize(
    "document", [{}, {"type": 7, "detail": ["x"]}, {"type": "urn:earthmap:problem:_rebuild", "detail": "d"},
                 {"type": "urn:earthmap:problem:earthmap", "title": "t"}]
)  # fmt: skip
def test_strange_documents_are_told_of(document: dict[str, object]) -> None:
    back = error_of(document, status=418)
    assert isinstance(back, ServiceError)
    assert back.status == 418
