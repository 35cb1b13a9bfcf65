"""Errors say what, expected and fix on one line, and cross processes whole."""

from __future__ import annotations

import pickle

import pytest

from earthmap import errors
from earthmap.errors import EarthmapError, IsolatedError, ReadError

KINDS = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, EarthmapError)]


def _make(kind: type[EarthmapError]) -> EarthmapError:
    extra = {ReadError: {"address": "x.tif", "reason": "damaged"}, IsolatedError: {"reason": "crashed"}}.get(kind, {})
    return kind("it broke\n  twice", expected="a whole one", fix="mend it", **extra)


@pytest.mark.parametrize("kind", KINDS)
def test_one_line_with_all_three(kind: type[EarthmapError]) -> None:
    assert str(_make(kind)) == "it broke twice; expected a whole one; to fix: mend it"


@pytest.mark.parametrize("kind", KINDS)
def test_pickled_and_back(kind: type[EarthmapError]) -> None:
    error = _make(kind)
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert (str(back), vars(back)) == (str(error), vars(error))


def test_bad_requests_are_value_errors_and_reads_are_os_errors() -> None:
    assert issubclass(errors.AreaError, ValueError)
    assert issubclass(errors.ReadError, OSError)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert errors.__doc__ is not None
    assert [kind.__name__ for kind in KINDS if kind.__name__ not in errors.__doc__] == []
