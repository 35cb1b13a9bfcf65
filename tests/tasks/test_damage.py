"""The scales of damage are joined in one table, and the words that ask for a grade read as they are meant."""

from __future__ import annotations

import pytest
import shapely

from earthmap.tasks.damage import (
    EMS_GRADES,
    GRADES,
    NOT_ANALYSED,
    SCALE,
    damage_question,
    footprint_phrase,
    grade_of,
    speaks_of_damage,
)
from earthmap.tasks.registry import TASKS
from earthmap.tasks.serialization import parse


def test_every_grade_has_one_name_in_each_scale() -> None:
    for names in zip(*((grade.word, grade.xbd, grade.ems) for grade in SCALE), strict=True):
        assert len(set(names)) == len(SCALE) == 4
    assert EMS_GRADES == ("destroyed", "damaged", "possibly damaged", "no visible damage", NOT_ANALYSED)
    assert [grade_of(word).xbd for word in GRADES] == ["no-damage", "minor-damage", "major-damage", "destroyed"]
    assert TASKS["damage"].choices == GRADES


@pytest.mark.parametrize(
    ("text", "speaks"),
    [
        ("Which buildings are damaged?", True),
        ("Grade the damage.", True),
        ("How many houses were destroyed?", True),
        ("What has collapsed", True),
        ("Where is rubble?", True),
        ("Where is water?", False),
        ("Find the ruined castle", True),
        ("Is there a dam?", False),
        ("Which buildings are there?", False),
    ],
)
def test_words_of_damage(text: str, speaks: bool) -> None:
    assert speaks_of_damage(text) is speaks


def test_the_phrase_names_the_place_in_the_grammar_of_answers() -> None:
    text = damage_question(footprint_phrase(shapely.box(0.2, 0.1, 0.4, 0.5), "box"))
    assert text == "How badly was the building at box[200,100,400,500] damaged between the dates?"
    place = text.partition("at ")[2].partition(" damaged")[0]
    (instance,) = parse(place).instances
    assert instance.geometry is not None
    assert instance.geometry.equals(shapely.box(0.2, 0.1, 0.4, 0.5))
