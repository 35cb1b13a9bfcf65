"""Questions become exact queries, or are refused with what would be understood."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap.errors import QueryError
from earthmap.tasks import LAND_COVER_TASKS, MAX_TEXT, SYNONYMS, TARGETS, TASKS, make_query, mask_legend


@pytest.mark.parametrize(
    ("text", "task", "targets"),
    [
        ("Where is water?", "segment", ("water",)),
        ("Map the flood", "segment", ("water",)),
        ("What is under water?", "segment", ("water",)),
        ("Which areas are burned?", "segment", ("burnt",)),
        ("Show trees and snow", "segment", ("vegetation", "snow")),
        ("Is there any water?", "presence", ("water",)),
        ("Are there buildings here?", "presence", ("built-up",)),
        ("Is there snow or not?", "presence", ("snow",)),
        ("How much of the valley is under water?", "fraction", ("water",)),
        ("What share is forest?", "fraction", ("vegetation",)),
        ("What changed?", "change", TARGETS),
        ("what changed since May?", "change", TARGETS),
        ("Are there any changes?", "change", TARGETS),
        ("Where did water appear?", "change", ("water",)),
        ("Which vegetation was lost between May and June?", "change", ("vegetation",)),
        ("Where has the sea ice retreated?", "change", ("snow",)),
    ],
)
def test_plain_questions(text: str, task: str, targets: tuple[str, ...]) -> None:
    query = make_query(text)
    assert (query.task, query.targets, query.dates) == (task, targets, TASKS[task].dates)


@pytest.mark.parametrize("task", LAND_COVER_TASKS)
def test_every_task_of_land_cover_is_guessed_from_its_own_example(task: str) -> None:
    assert make_query(TASKS[task].example).task == task


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("a" * (MAX_TEXT + 1), str(MAX_TEXT)),
        ("Where is\x07 water?", "U+0007"),
        ("Where is water?\nWhere is snow?", "U+000A"),
        ("water", "--task"),
        ("Find the ships", "vision-language model"),
        ("Where are water and ships?", "vision-language model"),
        ("Which unicorns appeared?", "vision-language model"),
        ("How many lakes are there?", "how many"),
        ("Which buildings are damaged?", "damaged"),
        ("Where is no water?", "not"),
    ],
)
def test_refused_questions_say_what_is_understood(text: str, says: str) -> None:
    with pytest.raises(QueryError) as caught:
        make_query(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_are_checked() -> None:
    assert make_query("water", task="segment").targets == ("water",)
    assert make_query("anything", task="segment", targets=["lake", "Trees"]).targets == ("water", "vegetation")
    assert make_query("Where is water?", unseen=["shadow"]).unseen == ("nodata", "shadow")
    assert make_query("What changed?", before="2020-01", after="2021-01").before == "2020-01"
    for options in (
        {"task": "count"},
        {"targets": ["ship"]},
        {"targets": []},
        {"unseen": ["fog"]},
        {"before": "2020-01"},
    ):
        with pytest.raises(QueryError):
            make_query("Where is water?", **options)  # type: ignore[arg-type]


def test_every_synonym_is_understood() -> None:
    assert set(SYNONYMS.values()) == set(TARGETS)
    for word, target in SYNONYMS.items():
        assert target in make_query(f"map {word}", task="segment").targets


def test_legends() -> None:
    assert mask_legend(make_query("Where are snow and water?")) == {1: "water", 2: "snow"}
    changes = mask_legend(make_query("What changed?"))
    assert (changes[1], changes[2], changes[12], len(changes)) == ("water gained", "water lost", "burnt lost", 12)
    assert mask_legend(make_query("Is there water?")) == {}


@given(
    st.one_of(st.text(), st.lists(st.sampled_from([*SYNONYMS, "where", "is", "what", "not", "changed"])).map(" ".join))
)
def test_any_text_gives_a_query_or_a_query_error(text: str) -> None:
    try:
        query = make_query(text)
    except QueryError:
        return
    assert query.task in TASKS
    assert query.targets
    assert set(query.targets) <= set(TARGETS)
    assert make_query(text).content_key() == query.content_key()
