"""The page about questions says what the registry says, and what its sentences promise is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from earthmap.tasks import CATEGORIES, TASKS, Task, guess_task

PAGE = (Path(__file__).parents[2] / "docs/questions.md").read_text(encoding="utf-8")


def _row(task: Task) -> str:
    dates = str(task.dates or "series")
    shapes = ", ".join(task.shapes)
    cells = (task.category, f"`{task.id}`", task.example, dates, task.answer, shapes, task.scoring, task.merge)
    return f"| {' | '.join(cells)} |"


def test_the_table_is_the_registry() -> None:
    rows = [line for line in PAGE.splitlines() if re.match(rf"\| ({'|'.join(CATEGORIES)}) \|", line)]
    assert rows == [_row(task) for task in TASKS.values()]


def test_every_category_has_a_row() -> None:
    assert {task.category for task in TASKS.values()} == set(CATEGORIES)


@pytest.mark.parametrize("word", sorted({word for task in TASKS.values() for word in (task.scoring, task.merge)}))
def test_every_way_of_scoring_and_merging_is_explained(word: str) -> None:
    assert f"*{word}*:" in PAGE


@pytest.mark.parametrize(("text", "task"), re.findall(r'"([^"]+)"[^"]*?\(`([\w-]+)`\)', " ".join(PAGE.split())))
def test_the_guesses_that_the_page_promises(text: str, task: str) -> None:
    assert guess_task(text, open_vocabulary=True) == task


def test_the_page_promises_guesses() -> None:
    assert PAGE.count("(`vqa`)") == 1
    assert PAGE.count("(`ground`)") == 1
