"""Conversations of every layout become the same questions and answers; what is none is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap.tasks import CATEGORIES
from earthmap.tasks.serialization import parse
from earthmap.training.conversations import Conversation, Exchange, read_conversation, split_records
from earthmap.training.faults import CAUSES, Unfit
from earthmap.training.instructions import asked_of
from tests.training.data_sets import turns

TWO = (("Is there any water?", "Yes."), ("Describe it.", "A lake."))


def _said(record: Any) -> tuple[tuple[Any, ...], tuple[tuple[str, str], ...]]:
    found = read_conversation(record)
    return found.images, tuple((one.question, one.answer) for one in found.exchanges)


@pytest.mark.parametrize(
    "record",
    [
        {"image": "a.png", "conversations": turns("<image>\nIs there any water?", "Yes.", "Describe it.", "A lake.")},
        {
            "images": ["a.png"],
            "messages": [
                {"role": "system", "content": "You see from above."},
                {"role": "user", "content": "<image>Is there any water?"},
                {"role": "assistant", "content": "Yes."},
                {"role": "user", "content": "Describe it."},
                {"role": "assistant", "content": "A lake."},
            ],
        },
        {
            "messages": [
                {"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": TWO[0][0]}]},
                {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]},
                {"role": "user", "content": [{"type": "text", "text": "Describe it."}]},
                {"role": "assistant", "content": "A lake."},
            ]
        },
        {
            "conversations": [
                {"from": "user", "value": "Picture 1: <img>a.png</img>\nIs there any water?"},
                {"from": "assistant", "value": "Yes."},
                {"from": "user", "value": "Describe it."},
                {"from": "assistant", "value": "A lake."},
            ]
        },
        {
            "images": [{"bytes": None, "path": "a.png"}],
            "texts": [{"user": question, "assistant": answer, "source": "x"} for question, answer in TWO],
        },
    ],
)
def test_every_layout_says_the_same(record: dict[str, Any]) -> None:
    assert _said(record) == (("a.png",), TWO)


def test_a_question_with_answers_of_several_people_has_the_first() -> None:
    record = {"image": {"bytes": b"png", "path": "x"}, "question": "How many?", "answers": ["3", "4"]}
    assert _said(record) == ((b"png",), (("How many?", "3"),))


def test_what_stands_for_a_text_is_one() -> None:
    for answer, text in ((True, "yes"), (False, "no"), (3, "3"), ("a \ud800 b", "a ? b")):
        assert _said({"image": "a", "question": "What?", "answer": answer}) == (("a",), (("What?", text),))
    said = [{"role": "user", "content": {"text": "What?"}}, {"role": "assistant", "content": ["That.", {"text": "!"}]}]
    assert _said({"image": "a", "messages": said}) == (("a",), (("What?", "That.\n!"),))
    with pytest.raises(Unfit, match="answer"):
        read_conversation({"image": "a", "question": "What?", "answer": float("nan")})


def test_dates_sizes_and_tasks_are_taken_over() -> None:
    pair = {"images": ["a", "b"], "dates": ["2024-05-01", "2024-06-01T10:00:00+02:00"], "width": 9, "height": 8}
    found = read_conversation({**pair, "task": "Change ", "conversations": turns("<image><image> What?", "That.")})
    assert [time.isoformat() if time else None for time in found.dates] == [
        "2024-05-01T00:00:00+00:00",
        "2024-06-01T08:00:00+00:00",
    ]
    assert (found.size_px, found.task) == ((9, 8), "change")


@pytest.mark.parametrize(
    ("record", "cause"),
    [
        ([1], "conversation"),
        ({"image": "a"}, "conversation"),
        ({"image": "a", "conversations": ["hello"]}, "conversation"),
        ({"image": "a", "conversations": [{"from": "narrator", "value": "x"}]}, "conversation"),
        ({"image": "a", "conversations": turns("What?")}, "answer"),
        ({"image": "a", "conversations": turns("What?", " ")}, "answer"),
        ({"image": "a", "question": "What?"}, "answer"),
        ({"image": "a", "conversations": [{"from": "gpt", "value": "That."}]}, "question"),
        ({"conversations": turns("What?", "That.")}, "images"),
        ({"image": "a", "conversations": turns("<image><image>?", "That.")}, "images"),
        ({"images": ["a", "b"], "dates": ["2024-01-01"], "conversations": turns("?", "That.")}, "images"),
        ({"image": "a", "dates": ["soon"], "conversations": turns("?", "That.")}, "unknown"),
        ({"image": "a", "date": "0001-01-01T00:00:00+14:00", "conversations": turns("?", "That.")}, "unknown"),
        ({"image": "a", "modality": "radio", "conversations": turns("?", "That.")}, "unknown"),
        ({"video": "a.mp4", "conversations": turns("?", "That.")}, "unsupported"),
        ({"image": {"bytes": None, "path": None}, "images": [None, "a"], "question": "?", "answer": "!"}, "missing"),
    ],
)
def test_what_is_no_conversation_is_named(record: Any, cause: str) -> None:
    with pytest.raises(Unfit) as found:
        read_conversation(record)
    assert found.value.cause == cause
    assert cause in CAUSES


def test_a_turn_without_an_answer_costs_itself_alone() -> None:
    record = {"image": "a", "conversations": turns("One?", "1", "Two?", "", "Three?", "3", "Four?")}
    found = read_conversation(record)
    assert [one.answer for one in found.exchanges] == ["1", "3"]
    assert [unfit.cause for unfit in found.unfit] == ["answer", "answer"]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["image", "images", "conversations", "messages", "from", "value", "role", "content", "type"]
            )
            | st.sampled_from(
                ["text", "texts", "user", "question", "answer", "bytes", "path", "dates", "width", "task"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def _or_why(read: Callable[[], Any]) -> Any:
    """What is read, or why not."""
    try:
        return read()
    except Unfit as unfit:
        return unfit


@given(_JSON)
def test_whatever_a_record_is_it_is_read_or_named(record: Any) -> None:
    found = _or_why(lambda: read_conversation(record))
    if isinstance(found, Unfit):
        assert found.cause in CAUSES
        return
    assert isinstance(found, Conversation)
    assert found.images
    assert all(one.question and one.answer for one in found.exchanges)


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────

RECORDS = [{"a": 1}, {"b": [2, "],["]}, {"c": {"d": "\n"}}]


@pytest.mark.parametrize("text", [json.dumps(RECORDS), json.dumps(RECORDS, indent=2), "\ufeff" + json.dumps(RECORDS)])
def test_lists_and_lines_hold_the_same_records(text: str) -> None:
    assert [record for _, record in split_records(text)] == RECORDS
    assert [record for _, record in split_records("\n".join(map(json.dumps, RECORDS)))] == RECORDS


def test_a_list_that_breaks_off_gives_what_came_before() -> None:
    whole = json.dumps(RECORDS, indent=1)
    found = list(split_records(whole[: whole.index('"d"') + 2]))
    assert [record for _, record in found[:2]] == RECORDS[:2]
    assert isinstance(found[2][1], Unfit)
    assert found[2][0] == f"line {whole[: whole.index('{', whole.index('],['))].count(chr(10)) + 1}"


def test_a_broken_line_costs_itself_alone() -> None:
    found = list(split_records('{"a": 1}\n\n{"b": \n{"c": 3}'))
    assert [place for place, _ in found] == ["line 1", "line 3", "line 4"]
    assert [isinstance(record, Unfit) for _, record in found] == [False, True, False]


def test_an_object_of_another_kind_is_one_fault() -> None:
    ((place, why),) = split_records(json.dumps({"images": [], "annotations": [1, 2]}, indent=1))
    assert (place, why.cause) == ("", "format")


# ── questions ────────────────────────────────────────────────────────────────────────────────────────────────


def _asked(question: str, answer: str, **options: Any) -> Any:
    return asked_of(Exchange(question=question, answer=answer), **options)


def test_a_closed_question_is_asked_as_the_predictor_asks_it() -> None:
    one = _asked("Is there any water?", "Yes.")
    assert (one.question, one.answer) == ("Is there any water?\nReply with one of: yes; no.", "yes")
    assert (one.choices, one.category, one.task, one.spatial) == (("yes", "no"), "vqa", "presence", False)
    other = _asked("Is this a harbour, an airport or a farm?", "Airport")
    assert (other.answer, other.choices) == ("airport", ("harbour", "airport", "farm"))


def test_what_answers_in_words_is_asked_in_words() -> None:
    for question, answer in (("How many ships are there?", "3"), ("Is there any water?", "Only a little")):
        one = _asked(question, answer)
        assert (one.task, one.answer, one.spatial, one.choices) == ("vqa", answer, False, ())
        assert one.question == f"{question}\nReply in a few words."


def test_a_long_answer_is_not_asked_for_in_a_few_words() -> None:
    one = _asked("Why is the valley green?", "word " * 17)
    assert (one.question, one.category, one.task) == ("Why is the valley green?", "vqa", "")


def test_a_question_in_our_own_words_stays_as_it_is() -> None:
    text = "Which of these is it?\nReply with one of: sea; town; forest."
    one = _asked(text, "town", task="choose")
    assert (one.question, one.choices, one.answer) == (text, ("sea", "town", "forest"), "town")


def test_shapes_are_spelt_and_say_what_is_asked() -> None:
    one = _asked("Find the ships.", "ship:box[10,20,30,40]; ship:box[1,2,3,4]")
    assert (one.spatial, one.task, one.category) == (True, "detect", "detect")
    assert one.answer == "ship:box[10,20,30,40];ship:box[1,2,3,4]"
    assert one.question.endswith("Reply with box for each one, or none.")
    assert _asked("Where is the largest ship?", "point[5,6]").task == "ground"
    assert _asked("Where is water?", "water:mask[8|0:0+8]").category == "segment"
    assert _asked("Find the ships.", "None.").spatial
    assert _asked("Outline it", "poly[0,0,10,0,10,10]").spatial


@pytest.mark.parametrize(
    "answer",
    ["There is a ship at box[1,2,3,4] here.", "box[1,2,3", "ship:box[1,2,3];ship:box[1,2,3,4]", "poly[1,1,2,2]"],
)
def test_shapes_among_words_and_broken_ones_are_left_out(answer: str) -> None:
    with pytest.raises(Unfit) as found:
        _asked("Find the ships.", answer)
    assert found.value.cause == "coordinates"


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Where is it?", "<box>(12,30),(40,55)</box>"),
        ("Where is it?", '[{"bbox_2d": [12, 30, 40, 55], "label": "ship"}]'),
        ("Where is it?", "[0.12, 0.3, 0.4, 0.55]"),
        ("Where is it?", "{<12><30><40><55>|<90>}"),
        ("Where is it?", "[[12, 30, 40, 55, 1.5]]"),
        ("What is in [12, 30, 40, 55]?", "a ship"),
        ("What is in (12,30,40,55)?", "ship:box[1,2,3,4]"),
    ],
)
def test_coordinates_of_other_conventions_are_left_out(question: str, answer: str) -> None:
    with pytest.raises(Unfit) as found:
        _asked(question, answer)
    assert found.value.cause == "coordinates"


def test_a_place_in_a_question_cannot_move() -> None:
    assert _asked("What is in box[1,2,3,4]?", "a ship").answer == "a ship"
    with pytest.raises(Unfit, match="padded or shrunk"):
        _asked("What is in box[1,2,3,4]?", "a ship", scale=(0.5, 0.5))
    assert _asked("Are 3 (or more, 4) ships there?", "yes").answer == "yes"


def test_shapes_move_with_their_picture() -> None:
    scale = {"scale": (0.5, 0.25)}
    assert _asked("Find the ships.", "ship:box[100,200,300,400]", **scale).answer == "ship:box[50,50,150,100]"
    assert _asked("Where is the ship?", "point[1000,1000]@2024-06-01", **scale).answer == "point[500,250]@2024-06-01"
    whole = "water:mask[8|" + "|".join(f"{row}:0+8" for row in range(8)) + "]"
    assert _asked("Where is water?", whole, **scale).answer == "water:mask[8|0:0+4|1:0+4]"
    with pytest.raises(Unfit, match="coordinates"):
        _asked("Outline it", "poly[0,0,1,0,1,1]", scale=(0.2, 0.2))


@given(st.text(max_size=60), st.text(max_size=60), st.none() | st.text(max_size=8) | st.sampled_from(CATEGORIES))
def test_whatever_is_asked_makes_a_row_or_is_named(question: str, answer: str, task: str | None) -> None:
    if not question.strip() or not answer.strip():
        return
    one = _or_why(lambda: _asked(question, answer, task=task))
    if isinstance(one, Unfit):
        assert one.cause == "coordinates"
        return
    assert one.question.strip()
    assert one.answer.strip()
    assert one.category in CATEGORIES
    assert not one.choices or one.answer in one.choices
    assert one.spatial is False or not parse(one.answer).rejected
