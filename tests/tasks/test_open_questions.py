"""Questions about anything: the task that people mean, what they name, and what they let choose from."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap.errors import QueryError
from earthmap.tasks import CATEGORIES, PLAIN_TASKS, TARGETS, TASKS, guess_task, make_query
from earthmap.tasks.phrases import choices_in, shape_in
from earthmap.tasks.query import MAX_CHOICES, MAX_TARGETS, MAX_TEXT

SENTENCES: dict[str, tuple[str, ...]] = {
    "presence": (
        "Is there any water?",
        "Are there ships in the harbour?",
        "Is the runway damaged?",
        "Does this image contain a bridge?",
        "Do you see any smoke?",
        "Can you see a wind turbine?",
        "Has the field been harvested?",
        "Is there a road, yes or no?",
        "Is there a bridge between the island and the shore?",
        "Are there buildings here or not?",
        "Do the",
        "Are there more roads than water areas?",
        "Is a commercial building present?",
        "Is the number of roads equal to the number of buildings?",
    ),
    "fraction": (
        "How much of the valley is under water?",
        "What share of the tile is forest?",
        "What percentage is covered by solar panels?",
        "How much rubble is there?",
        "What fraction of the city is burnt?",
        "What is the area covered by buildings?",
    ),
    "vqa": (
        "What are the ships in the harbour doing?",
        "Why is the river brown?",
        "What colour is the largest roof?",
        "What is the building next to the pier used for?",
        "When was this taken?",
        "In which part of the picture is most of the water?",
        "How badly is the largest building damaged?",
        "What covers most of the ground?",
        "Is the field flooded or dry?",
        "What kind of ship is this?",
        "What is left of the road?",
        "water",
        "ships",
        "Wo ist das Wasser?",
        "?!",
    ),
    "choose": (
        "Is this a harbour, an airport or a farm?",
        "Is it urban or rural?",
        "Could you tell me, is it urban or rural?",
        "Is it a rural or an urban area?",
        "Which is it: forest, crops or grass?",
        "Is the scene mostly built-up or mostly green?",
    ),
    "classify": (
        "What kind of scene is this?",
        "Classify this image",
        "What land cover is this?",
        "Which type of area is it?",
        "What is the dominant land cover?",
        "Which class dominates?",
        "What class is this?",
    ),
    "label": (
        "Which land cover classes are there?",
        "List all land cover types",
        "What labels fit this tile?",
        "Tag this image",
        "Which kinds of land are there?",
        "What land cover can be seen?",
    ),
    "caption": (
        "Describe this place.",
        "Please describe the image.",
        "Can you describe what you see?",
        "Caption this image",
        "Write a short caption",
        "A detailed description of the scene, please",
        "What can be seen?",
        "What do you see here?",
        "What does this picture show?",
        "What is in the image?",
        "Summarize the scene",
        "Give me a description of the harbour",
        "What's in this image?",
        "Tell me what you see",
        "Generate a detailed caption",
    ),
    "ground": (
        "Where is the largest ship?",
        "Where is the red car near the bridge?",
        "Find the ship next to the pier",
        "Show me the northernmost building",
        "Point to the runway",
        "Locate the airport",
        "Please find the second building from the left",
        "The white plane on the left",
        "Where is the biggest lake?",
        "Where's my house?",
        "Draw a box around the largest ship",
        "What are the coordinates of the airport?",
        "Give me the location of the red ship",
        "Which building is the tallest?",
        "The two ships at the pier",
    ),
    "detect": (
        "Find the ships.",
        "Find all ships",
        "Detect airplanes",
        "Could you please find every vehicle?",
        "Locate the storage tanks in the refinery",
        "Where are the ships?",
        "Which buildings are damaged?",
        "Show me all the people",
        "List the planes on the apron",
        "Look for boats",
        "Find solar panels and wind turbines",
        "Identify any aircraft",
        "Draw bounding boxes around the planes",
        "Oriented bounding boxes of all ships",
        "Show me boxes around all vehicles, please",
    ),
    "count": (
        "How many ships are there?",
        "How many lakes can you see?",
        "Count the cars",
        "What is the number of planes?",
        "Number of storage tanks",
        "How many buildings are damaged?",
        "Can you count the trees?",
        "What is the amount of residential buildings?",
    ),
    "segment": (
        "Where is water?",
        "Where is the water?",
        "Map the flood",
        "Segment the buildings and the roads",
        "Outline the parking lots",
        "Which areas are burned?",
        "What is under water?",
        "Where are the buildings?",
        "Find water",
        "Extract the solar panels",
        "Map the land cover",
        "Where is bare soil?",
        "Where is built-up land?",
        "Find burnt ground",
    ),
    "change": (
        "What changed since May?",
        "What changed?",
        "Where did water appear?",
        "Which buildings disappeared?",
        "How much forest was lost?",
        "What changed between 2019 and 2021?",
        "Is there any change?",
        "Map the deforestation",
        "Where has the glacier retreated?",
        "How many buildings were lost since 2020?",
        "Find the differences",
        "Did the lake shrink?",
        "Which areas were deforested?",
        "Show the changes.",
        "Where did water appear or disappear?",
    ),
    "change-type": (
        "What kind of change is this?",
        "Which type of change happened?",
        "Classify the change",
        "What type of damage is it?",
    ),
    "change-caption": (
        "Describe what changed.",
        "Describe the changes between the two images",
        "What happened here?",
        "How has the town changed?",
        "Please summarize the differences",
        "What is different in the second picture?",
        "What are the differences between these two images?",
    ),
    "series": (
        "How did the town develop over the years?",
        "Describe the evolution of the lake",
        "Describe the change over time",
        "What happened along the series?",
        "Summarise the time series",
        "How did this place develop?",
        "When did the change begin?",
        "What happened in the series?",
    ),
    "track": (
        "Track the ships.",
        "Follow the white truck",
        "Where do the boats go?",
        "Show the trajectories of all vehicles",
        "How is the convoy moving?",
    ),
    "embed": (
        "Embed this area.",
        "Please embed every tile",
        "Compute the embedding of this scene",
        "Give me feature vectors",
    ),
}
"""By task, what people say."""


def test_the_sentences_are_many_and_of_every_kind() -> None:
    assert set(SENTENCES) == set(TASKS) - {"damage"}  # footprints beside the words make it that
    assert {TASKS[task].category for task in SENTENCES} == set(CATEGORIES)
    assert sum(map(len, SENTENCES.values())) >= 80


@pytest.mark.parametrize(("text", "task"), [(text, task) for task, texts in SENTENCES.items() for text in texts])
def test_what_people_mean(text: str, task: str) -> None:
    assert guess_task(text, open_vocabulary=True) == task


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("Is there any water?", ("water",)),
        ("Are there ships in the harbour?", ("ship",)),
        ("Does this image contain a bridge?", ("bridge",)),
        ("Is the runway damaged?", ()),
        ("Are there more roads than water areas?", ()),
        ("What is the area covered by buildings?", ("building",)),
        ("Draw oriented boxes around the ships", ("ship",)),
        ("Outline the parking lots and head gates", ("parking lot", "head gate")),
        ("How much of the valley is under water?", ("water",)),
        ("What share of the tile is forest?", ("forest",)),
        ("What percentage is covered by solar panels?", ("solar panel",)),
        ("How much forest is there?", ("forest",)),
        ("Find all ships and the red cars near the pier", ("ship", "red car")),
        ("Locate the storage tanks in the refinery", ("storage tank",)),
        ("Which buildings are damaged?", ("building",)),
        ("Find everything", ()),
        ("How many ships are there?", ("ship",)),
        ("Count the cars, trucks and buses.", ("car", "truck", "bus")),
        ("How many swimming-pools can you see?", ("swimming-pool",)),
        ("Where is water?", ("water",)),
        ("Where are snow and ice?", ("snow", "ice")),
        ("Map the flood", ("flood",)),
        ("Segment the buildings and the roads", ("building", "road")),
        ("Map the land cover", TARGETS),
        ("Segment all land cover classes", TARGETS),
        ("Which areas are burned?", ("burnt",)),
        ("What is under water?", ("water",)),
        ("What changed?", TARGETS),
        ("What changed since May?", TARGETS),
        ("Where did water appear?", ("water",)),
        ("Where did new buildings appear?", ("new building",)),
        ("How much forest was lost?", ("forest",)),
        ("Map the deforestation", ("vegetation",)),
        ("Where has the glacier retreated?", ("glacier",)),
        ("Where is the growth of the city?", ("city",)),
        ("Track the ships.", ("ship",)),
        ("Where do the boats go?", ("boat",)),
        ("Where is the largest ship?", ()),
        ("Describe this place.", ()),
        ("Where is bare ground?", ("bare",)),
        ("How much of this place is built-up land?", ("built-up",)),
        ("Segment burnt ground and snow cover", ("burnt", "snow")),
        ("Can water be seen here?", ("water",)),
        ("Show every one of the aircraft", ("aircraft",)),
        (
            "Find people, lorries, beaches, gas, grass, chimneys and sheep",
            ("person", "lorry", "beach", "gas", "grass", "chimney", "sheep"),
        ),
    ],
)
def test_what_a_question_names(text: str, targets: tuple[str, ...]) -> None:
    assert make_query(text, open_vocabulary=True).targets == targets


@pytest.mark.parametrize(
    ("text", "choices"),
    [
        ("Is this a harbour, an airport or a farm?", ("harbour", "airport", "farm")),
        ("Is it urban or rural?", ("urban", "rural")),
        ("Which is it: Forest, crops, or grass?", ("Forest", "crops", "grass")),
        ("Is this an airport?", ()),
        ("Is the field flooded or dry?", ()),
        ("Is there snow or not?", ()),
        ("Which is it: forest?", ()),
        ("or", ()),
        ("Please tell me, is it Urban or rural?", ("urban", "rural")),
        ("Note: it is this or that", ()),
    ],
)
def test_what_a_question_lets_choose_from(text: str, choices: tuple[str, ...]) -> None:
    assert choices_in(text) == choices


@pytest.mark.parametrize(
    ("text", "named", "shape"),
    [
        ("Draw oriented bounding boxes around the ships", "oriented_box", "oriented_box"),
        ("Point to the runway", "point", "point"),
        ("Outline the parking lots", "polygon", "polygon"),
        ("Mask the water", "mask", "mask"),
        ("Find the ships", None, "box"),
        ("Find the masks", "mask", "box"),
        ("Describe the polygon", "polygon", None),
    ],
)
def test_a_question_may_name_the_shape(text: str, named: str | None, shape: str | None) -> None:
    assert shape_in(text) == named
    assert make_query(text, open_vocabulary=True).shape == shape
    assert make_query(text, task="detect", shape="point", open_vocabulary=True).shape == "point"


PIECES = (
    "where", "is", "are", "the", "find", "how many", "what", "kind of", "change", "or", ":", ";", ",", "and", "between",
    "2019", "since", "water", "ships", "largest", "<|im_start|>", "{text}", "\\", "%", "box[1,2,3,4]", "covered by",
    "please", "describe", "track",
)  # fmt: skip


@given(st.one_of(st.text(max_size=300), st.lists(st.sampled_from(PIECES), max_size=30).map(" ".join)))
def test_any_text_is_understood_as_something_or_refused(text: str) -> None:
    try:
        query = make_query(text, open_vocabulary=True)
    except QueryError:
        return
    row = TASKS[query.task]
    assert row.id != "choose" or choices_in(text)
    assert len(query.targets) <= MAX_TARGETS
    assert len(query.choices) <= MAX_CHOICES
    assert bool(query.choices) == row.chooses
    assert bool(query.targets) or not row.needs_targets
    assert query.shape in (row.shapes or (None,))
    assert make_query(text, open_vocabulary=True).content_key() == query.content_key()


@pytest.mark.parametrize("open_vocabulary", [False, True])
@pytest.mark.parametrize("text", ["", "   ", "a" * 100_000, "what\x07?", "two\nlines", "what \ud800"])
def test_what_is_no_question_is_refused(text: str, *, open_vocabulary: bool) -> None:
    with pytest.raises(QueryError):
        make_query(text, open_vocabulary=open_vocabulary)


@pytest.mark.parametrize(
    "piece",
    [
        "between 2019 ",
        "describe ",
        "where is the ",
        "how do go ",
        "please ",
        "ship, ",
        "did a a a a a ",
        "which which ",
        "is it a or ",
        "what in the ",
        "all of the ",
        "of the is ",
    ],
)
def test_long_questions_take_no_time(piece: str) -> None:
    text = (piece * MAX_TEXT)[:MAX_TEXT].strip()
    start = time.perf_counter()
    for words in (text, "where did " + text[:9_000] + " appear", "what " + text[:9_000] + ": or"):
        with contextlib.suppress(QueryError):
            make_query(words, open_vocabulary=True)
    assert time.perf_counter() - start < 2.0


def test_special_marks_of_the_model_stay_letters_of_the_question() -> None:
    text = "What is <|im_end|> {choices} %s ?"
    query = make_query(text, open_vocabulary=True)
    assert (query.task, query.text) == ("vqa", text)


@pytest.mark.parametrize(
    ("text", "choices", "task"),
    [
        ("What ship is this?", ("cargo", "tanker"), "choose"),
        ("Is it calm?", ("calm", "rough"), "choose"),
        ("What kind of scene is this?", ("harbour", "farm"), "classify"),
        ("Which of these are there?", ("harbour", "farm"), "label"),
        ("What can be seen?", ("harbour",), "label"),
        ("What does this picture show?", ("harbour", "farm"), "classify"),
        ("Which of these things are there?", ("ship", "car"), "label"),
        ("What happened to the buildings?", ("no change", "demolition"), "change-type"),
        ("What happened?", ("fire", "flood"), "change-type"),
        ("What changed?", ("fire", "flood"), "change-type"),
    ],
)
def test_choices_say_which_task_it_is(text: str, choices: tuple[str, ...], task: str) -> None:
    query = make_query(text, open_vocabulary=True, choices=choices)
    assert (query.task, query.choices) == (task, choices)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"task": "no such"}, "not a task"),
        ({"task": "choose"}, "2 to 128"),
        ({"task": "choose", "choices": ["one"]}, "2 to 128"),
        ({"task": "choose", "choices": ["one", "One "]}, "twice"),
        ({"task": "choose", "choices": ["a; b", "c"]}, "a; b"),
        ({"task": "choose", "choices": ["", "c"]}, "1 to 200"),
        ({"task": "choose", "choices": ["a\x00", "c"]}, "plain text"),
        ({"task": "choose", "choices": ["x" * 201, "c"]}, "1 to 200"),
        ({"task": "label", "choices": [str(number) for number in range(129)]}, "1 to 128"),
        ({"task": "caption", "choices": ["a", "b"]}, "choose"),
        ({"task": "segment"}, "targets"),
        ({"task": "detect", "targets": []}, "target"),
        ({"task": "detect", "targets": ["ship", "[]"]}, "'[]'"),
        ({"task": "detect", "targets": [f"thing {number}" for number in range(65)]}, "at most 64"),
        ({"task": "detect", "shape": "mask"}, "oriented_box"),
        ({"task": "caption", "shape": "box"}, "not spatial"),
        ({"task": "count", "before": "2020"}, "one date"),
        ({"unseen": ["fog"]}, "fog"),
    ],
)
def test_what_a_task_cannot_have_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(QueryError) as caught:
        make_query("Hm", open_vocabulary=True, **options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_are_normalised() -> None:
    query = make_query("Hm", task="detect", targets=["Storage: TANK", "ship", "ship"], open_vocabulary=True)
    assert (query.targets, query.shape) == (("storage tank", "ship"), "box")
    assert make_query("Hm", task="detect", targets="ship", shape="point", open_vocabulary=True).shape == "point"
    assert make_query("Hm", task="label", choices=[" Sea \n port "], open_vocabulary=True).choices == ("Sea port",)


def test_land_cover_alone_is_asked_as_ever() -> None:
    for task in TASKS:
        if task not in PLAIN_TASKS:
            with pytest.raises(QueryError, match="vision-language model"):
                make_query("Where is water?", task=task)
    with pytest.raises(QueryError, match="choices"):
        make_query("Where is water?", choices=["a", "b"])
    assert make_query("Where is water?", shape="polygon").shape == "polygon"
    closed, opened = (make_query("Where is water?", open_vocabulary=way) for way in (False, True))
    assert closed == opened
