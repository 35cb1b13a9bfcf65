"""Who is asked about one place: a model that is offered, or one that a job of one's own trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from earthmap.service.processes import Scope
from earthmap.service.processes.ask import ASK, asked_of
from tests.service.processes.requests import MAPPED, NOBODYS, TRAINED, ask, refusal, scope_on

PLAIN = {"job": MAPPED, "at": [3.5, 45.7], "query": "Is there any water?"}


@pytest.fixture
def scope(tmp_path: Path) -> Scope:
    return scope_on(tmp_path)


@pytest.fixture
def answered_by(scope: Scope) -> Callable[[str], Scope]:
    """What may be named, where the job that mapped was answered by a model."""
    job = scope.find(MAPPED)

    def by(model: str) -> Scope:
        mine = dataclasses.replace(job, inputs={"model": model})
        return dataclasses.replace(scope, find=lambda name: mine if name == MAPPED else scope.find(name))

    return by


def test_a_trained_model_goes_with_its_folder_and_is_told_by_its_name(scope: Scope, tmp_path: Path) -> None:
    inputs = ask(ASK, {**PLAIN, "model": f"job:{TRAINED}"}, scope).inputs
    assert str(tmp_path) not in str(inputs)
    asked = asked_of(inputs, scope)
    assert (asked.model, asked.checkpoint) == (f"job:{TRAINED}", str(tmp_path / TRAINED / "model"))
    offered = asked_of(ask(ASK, {**PLAIN, "model": "mine"}, scope).inputs, scope)
    assert (offered.model, offered.checkpoint) == ("mine", None)


@pytest.mark.parametrize("name", [f"job:{MAPPED}", f"job:{NOBODYS}", "job:..", "job:", "/etc", "gone"])
def test_no_other_job_or_folder_is_a_model(scope: Scope, name: str) -> None:
    assert refusal(ASK, {**PLAIN, "model": name}, scope)


def test_a_job_is_asked_about_by_who_answered_it(answered_by: Callable[[str], Scope], tmp_path: Path) -> None:
    scope = answered_by(f"job:{TRAINED}")
    assert asked_of(ask(ASK, PLAIN, scope).inputs, scope).checkpoint == str(tmp_path / TRAINED / "model")
    other = asked_of(ask(ASK, {**PLAIN, "model": "mine"}, scope).inputs, scope)
    assert (other.model, other.checkpoint) == ("mine", None)


@pytest.mark.parametrize(("name", "word"), [("gone", "no longer offered"), (f"job:{NOBODYS}", "not yours")])
def test_who_answered_it_is_not_replaced_by_another(answered_by: Callable[[str], Scope], name: str, word: Any) -> None:
    assert word in refusal(ASK, PLAIN, answered_by(name))
