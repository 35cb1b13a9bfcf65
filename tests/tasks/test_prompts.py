"""Every question has its words, and no two questions the same."""

from __future__ import annotations

import datetime as dt
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap.content import content_key
from earthmap.errors import QueryError
from earthmap.tasks import (
    PROMPT_VERSION,
    TASKS,
    Query,
    closed_choices,
    frame_name,
    label_questions,
    make_query,
    picture_name,
    question_prompt,
)
from earthmap.tasks.serialization import WORDS

texts = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=80)
labels = st.lists(st.text("abc xyz{}%<|", min_size=1, max_size=12).filter(str.strip), min_size=1, max_size=5)


@st.composite
def queries(draw: st.DrawFn) -> Query:
    """Legal queries of every task that is asked in words."""
    row = TASKS[draw(st.sampled_from(sorted(name for name, row in TASKS.items() if row.template)))]
    options = {
        "targets": draw(st.one_of(st.none(), labels)) or (["ship"] if row.needs_targets else None),
        "choices": draw(st.one_of(st.none(), labels)) if row.chooses else None,
        "shape": draw(st.sampled_from(row.shapes)) if row.shapes else None,
    }
    try:
        return make_query(draw(texts), task=row.id, open_vocabulary=True, **options)
    except QueryError:
        return make_query(row.example, task=row.id, open_vocabulary=True)


def places_of(query: Query) -> set[str]:
    """The places of the row's template."""
    return {name for name in ("text", "targets", "choices", "shape") if f"{{{name}}}" in TASKS[query.task].template}


@given(queries())
def test_every_legal_query_has_a_prompt_that_says_all_of_it(query: Query) -> None:
    prompt = question_prompt(query)
    assert prompt.startswith(query.text)
    assert "Reply" in prompt
    assert all(
        target in prompt for target in query.targets if "targets" in places_of(query) and not label_questions(query)
    )
    assert all(choice in prompt for choice in (*query.choices, *closed_choices(query)))
    if query.shape:
        assert WORDS[query.shape] in prompt.removeprefix(query.text)
    assert "\n\n" not in prompt


@given(queries())
def test_closed_questions_are_those_that_are_scored_by_choices(query: Query) -> None:
    row = TASKS[query.task]
    assert bool(closed_choices(query)) == (row.scoring in ("choices", "independent"))
    asked = label_questions(query)
    assert len(asked) == (len(query.choices) if row.scoring == "independent" else 0)
    assert len(set(asked)) == len(asked)
    assert all(label in question for label, question in zip(query.choices, asked, strict=False))


@given(queries())
def test_the_order_of_choices_is_in_the_words_alone(query: Query) -> None:
    choices = closed_choices(query)
    assert question_prompt(query, choices=choices) == question_prompt(query)
    if len(choices) > 1:
        turned = question_prompt(query, choices=choices[::-1])
        assert turned != question_prompt(query)
        assert sorted(turned) == sorted(question_prompt(query))


def test_other_options_are_another_prompt() -> None:
    ask = {"text": "Hm", "task": "detect", "open_vocabulary": True}
    prompts = [
        question_prompt(make_query(**ask, targets=targets, shape=shape))  # type: ignore[arg-type]
        for targets, shape in itertools.product((None, ["ship"], ["ship", "car"]), ("box", "point", "polygon"))
    ]
    assert len(set(prompts)) == 9


def test_every_template_has_the_places_of_its_row() -> None:
    for row in TASKS.values():
        if row.is_vector:
            assert row.template == ""
            continue
        closed = row.scoring in ("choices", "independent")
        assert "{text}" in row.template
        assert ("{choices}" in row.template) == closed
        assert ("{shape}" in row.template) == bool(row.shapes)
        assert "{targets}" in row.template or not row.needs_targets


PROMPTS = "b41737beb6108dbb619b264ef253c869"
"""Key of all prompts of version 1."""


def test_prompts_change_with_their_version_only() -> None:
    rows = [row for row in TASKS.values() if row.template]
    examples = [make_query(row.example, task=row.id, targets=["ship"], open_vocabulary=True) for row in rows]
    said = [(question_prompt(query), closed_choices(query), label_questions(query)) for query in examples]
    name = picture_name("rgb", datetime=dt.datetime(2024, 6, 1, tzinfo=dt.UTC), seen_share=0.5)
    assert frame_name(12.25) == "<12.2 seconds>"
    assert (PROMPT_VERSION, content_key(said, name)) == ("1", PROMPTS), "raise PROMPT_VERSION, and set the key here"


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "rgb: "),
        ({"datetime": dt.datetime(2024, 6, 1, 23, tzinfo=dt.timezone(-dt.timedelta(hours=3)))}, "rgb, 2024-06-02: "),
        ({"seen_share": 0.9999}, "rgb, 99% seen: "),
        ({"seen_share": 0.0001}, "rgb, 1% seen: "),
        ({"seen_share": 0.0}, "rgb, 0% seen: "),
    ],
)
def test_the_words_before_a_picture(options: dict[str, object], name: str) -> None:
    assert picture_name("rgb", **options) == name  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(QueryError):
        picture_name("rgb", seen_share=share)
