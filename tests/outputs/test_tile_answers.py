"""Answers in words: squares, counts of tiles, and never an area."""

from __future__ import annotations

from typing import Any

import pytest

from earthmap.outputs.drawing import look_of
from earthmap.outputs.numbers import format_tiles, headlines, read_numbers
from earthmap.outputs.preview import render_preview
from earthmap.outputs.provenance import Provenance
from earthmap.outputs.report import render_report
from tests.outputs import drawn_results as drawn

ANSWERS = {"classify": ("harbour", "farm"), "change-type": ("flooding", "no change"), "caption": ("A lake.", "Hills.")}


def words_results(task: str) -> tuple[Any, Any, dict[str, Any]]:
    """Squares that say one or the other, and their summary."""
    world, lattice = drawn.world_and_lattice()
    first, second = ANSWERS[task]
    features = [
        drawn.feature(
            box, query="What is it?", query_key="q5", task=task, area_m2=3.6e5, scenes=["a"],
            answer=second if index % 4 else first, datetime_min=world.before, datetime_max=world.after,
        )
        for index, (_, _, box) in enumerate(drawn.squares(lattice))
    ]  # fmt: skip
    seen = drawn.numbers_of(drawn.observation(world.before), world.before, world.after, {})
    del seen["km2"]
    seen["answered_tiles"] = len(features)
    if task != "caption":
        seen["tiles_by_answer"] = {second: 73, first: 24}
    query = {"query_key": "q5", "text": "What is it?", "task": task, "targets": [], "observations": [seen]}
    coverage = drawn.coverage_rows(lattice, "q5", drawn.observation(world.before), world.before)
    summary = drawn.summary_of([query], 1)
    return drawn.frame(features, drawn.FEATURE_COLUMNS), drawn.frame(coverage, drawn.COVERAGE_COLUMNS), summary


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("classify", "farm in 73, harbour in 24 of 97 tiles"),
        ("change-type", "no change in 73, flooding in 24 of 97 tiles"),
        ("caption", "answers of 97 tiles"),
    ],
)
def test_pages_count_tiles(task: str, said: str) -> None:
    features, coverage, summary = words_results(task)
    (row,) = read_numbers(summary)
    assert (row.fraction, row.bounds, row.is_pair) == (None, None, task == "change-type")
    assert headlines(summary)[0].endswith(said)
    page = render_report(features, coverage, summary, backdrops=[], title="t", provenance=Provenance(job={}))
    assert "km² of" not in page.split("<h2>Map")[0].split("What is it?")[-1]
    assert ("texts: point at a tile" in page) == (task == "caption")
    assert render_preview(features, coverage, summary, backdrops=[], title="t").startswith(b"\x89PNG")


def test_a_text_for_each_tile_is_one_layer_of_the_page() -> None:
    features, coverage, summary = words_results("caption")
    features["answer"] = [f"Text {number}" for number in range(len(features))]
    page = render_report(features, coverage, summary, backdrops=[], title="t", provenance=Provenance(job={}))
    assert page.count("texts: point at a tile") == 1


def test_many_answers_are_cut_short() -> None:
    tiles = {name: 9 - index for index, name in enumerate("abcdef")}
    assert format_tiles(tiles, 9) == "a in 9, b in 8, c in 7, d in 6 of 9 tiles, and 2 more answers"


def test_squares_let_the_ground_show() -> None:
    assert look_of("water", task="classify").alpha == look_of("yes", task="presence").alpha
