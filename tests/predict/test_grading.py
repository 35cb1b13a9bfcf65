"""Footprints one by one: which a picture shows, what hides the others, and the words that the model is asked in."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import shapely
import torch
from shapely.geometry.base import BaseGeometry

from earthmap.model import new_earth_onevision, train_words
from earthmap.predict import vlm
from earthmap.predict.grading import BEYOND, FEWEST_PX, answer_each, asks_each, grade_each
from earthmap.predict.protocol import TileInput
from earthmap.predict.vlm import VlmPredictor
from earthmap.sensors.masks import Reason
from earthmap.synthetic import quake_world
from earthmap.tasks import UNSEEN, Answer, Query, make_query
from earthmap.tasks.answer import Grading, gradings_text, parse_gradings
from earthmap.tasks.damage import GRADES, damage_question, footprint_phrase
from tests.model.conftest import of_others
from tests.worlds import clear_picture, middle_tile

WORLD = quake_world(5, resolution_m=0.5)
TILE = middle_tile(WORLD)
QUERY = make_query("Which buildings are damaged?", task="damage", targets=["building"], open_vocabulary=True)


def _item(*footprints: BaseGeometry) -> TileInput:
    pictures = tuple(clear_picture(TILE, date) for date in (WORLD.before, WORLD.after))
    return TileInput(tile=TILE, pictures=pictures, footprints=footprints)


def _graded(item: TileInput) -> Answer:
    return grade_each(item, QUERY, lambda outlines: [Grading(value=GRADES[3], probability=0.7) for _ in outlines])


def test_the_choices_are_the_scale_that_is_taught() -> None:
    assert QUERY.choices == GRADES == ("intact", "minor damage", "major damage", "destroyed")


def test_what_is_seen_is_asked_and_the_rest_says_why() -> None:
    item = _item(
        shapely.box(0.2, 0.2, 0.3, 0.3),
        shapely.box(0.6, 0.6, 0.7, 0.7),
        shapely.box(0.5, 0.5, 0.515, 0.515),
        shapely.Point(0.5, 0.5),
        shapely.box(1.2, 0.4, 1.3, 0.5),
        shapely.box(-0.2, 0.4, 0.4, 0.5),
    )
    item.pictures[1].mask[70:, 70:] = Reason.CLOUD
    answer = _graded(item)
    assert [one.reason for one in answer.gradings] == [None, "cloud", "too_small", None, "outside", None]
    assert answer.value == "3"
    assert answer.gradings[5].notes == (BEYOND,)
    assert "100%" in str(answer.gradings[1].message)
    assert f"{FEWEST_PX:g} or more" in str(answer.gradings[2].message)
    mask = answer.mask
    assert mask is not None
    assert answer.seen_px == int((mask != UNSEEN).sum()) < mask.size


@pytest.mark.parametrize(("share", "reason"), [(0.4, None), (0.6, "cloud")])
def test_half_of_a_footprint_must_be_seen_on_both_dates(share: float, reason: str | None) -> None:
    item = _item(shapely.box(0.25, 0.25, 0.75, 0.75))
    item.pictures[0].mask[:, : int(32 + 64 * share)] = Reason.CLOUD
    assert _graded(item).gradings[0].reason == reason


def test_missing_numbers_are_nodata_whatever_the_mask_says() -> None:
    item = _item(shapely.box(0.25, 0.25, 0.75, 0.75))
    item.pictures[0].data[:] = np.nan
    answer = _graded(item)
    assert answer.gradings[0].reason == "nodata"
    assert answer.seen_px == 0


def test_one_picture_is_not_enough() -> None:
    item = _item(shapely.box(0.2, 0.2, 0.3, 0.3))
    answer = _graded(dataclasses.replace(item, pictures=item.pictures[:1]))
    assert (answer.status, answer.reason) == ("failed", "bad_input")


class _Scribe:
    """A predictor of whole pictures that keeps what it was asked."""

    def __init__(self, refuses: bool = False) -> None:
        self.asked: list[str] = []
        self.refuses = refuses

    def predict(self, inputs: Sequence[TileInput], queries: Sequence[Query]) -> list[list[Answer]]:
        assert "damage" not in {query.task for query in queries} or not any(item.footprints for item in inputs)
        self.asked += [query.text for query in queries]
        if self.refuses:
            return [[Answer(status="skipped", reason="not_supported", message="no")] * len(queries) for _ in inputs]
        words = [GRADES[len(query.text) % 4] for query in queries]
        return [[Answer(status="answered", value=word, probability=0.5) for word in words] for _ in inputs]


def test_each_is_asked_once_in_the_words_of_training() -> None:
    scribe, box = _Scribe(), shapely.box(0.1, 0.2, 0.3, 0.4)
    item = _item(box, shapely.Point(0.5, 0.25), box)
    plain = make_query("Is there any water?")
    rows = answer_each(scribe.predict, [item, dataclasses.replace(item, footprints=())], [plain, QUERY])
    assert scribe.asked == [
        "Is there any water?",
        "How badly was the building at box[100,200,300,400] damaged between the dates?",
        "How badly was the building at point[500,250] damaged between the dates?",
        "Which buildings are damaged?",
    ]
    first = rows[0][1]
    assert first.gradings[0].value == first.gradings[2].value
    assert len(first.gradings) == 3
    assert not rows[1][1].gradings


def test_a_refusal_is_that_of_the_tile() -> None:
    (row,) = answer_each(_Scribe(refuses=True).predict, [_item(shapely.box(0.1, 0.2, 0.3, 0.4))], [QUERY])
    assert (row[0].status, row[0].reason) == ("skipped", "not_supported")


def test_a_query_about_the_whole_picture_is_not_asked_of_footprints() -> None:
    item = _item(shapely.box(0.1, 0.2, 0.3, 0.4))
    assert asks_each(item, QUERY)
    assert not asks_each(item, make_query("What changed?"))
    assert not asks_each(dataclasses.replace(item, footprints=()), QUERY)


def test_gradings_are_written_and_read() -> None:
    gradings = (
        Grading(value="intact", probability=0.0, scores={"intact": 0.25}, notes=("a", "b")),
        Grading(reason="cloud", message="hidden"),
    )
    text = gradings_text(gradings)
    assert parse_gradings(text) == gradings
    assert gradings_text(parse_gradings(text)) == text
    assert parse_gradings(None) == ()


# ── the model ────────────────────────────────────────────────────────────────────────────────────────────────


def _model() -> VlmPredictor:
    """Random weights, so large that every part of the picture matters."""
    torch.set_num_threads(1)
    torch.manual_seed(7)
    words = train_words(["How badly was the building at box[1,2] damaged? intact minor destroyed"] * 3, size=400)
    model = new_earth_onevision("tiny", words, seed=1)
    for weight in model.model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.2)
    return VlmPredictor(of_others(model), most=24)


def test_the_model_scores_every_footprint_as_it_scores_its_question() -> None:
    model = _model()
    boxes = [shapely.box(0.1 + 0.05 * number, 0.2, 0.2 + 0.05 * number, 0.5) for number in range(5)]
    item = _item(*boxes)
    (row,) = model.predict([item], [QUERY])
    answer = row[0]
    assert answer.status == "answered"
    assert len(answer.gradings) == len(boxes)
    for grading, box in zip(answer.gradings, boxes, strict=True):
        query = dataclasses.replace(QUERY, text=damage_question(footprint_phrase(box, "box")))
        ((alone,),) = model.predict([dataclasses.replace(item, footprints=())], [query])
        assert grading.value == alone.value
        assert set(grading.scores) == set(GRADES)
        assert sum(grading.scores.values()) == pytest.approx(1.0, abs=1e-3)
        assert grading.scores == pytest.approx(alone.scores, abs=1e-3)
    assert len({tuple(grading.scores.values()) for grading in answer.gradings}) > 1


def test_more_footprints_than_are_scored_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, item = _model(), _item(*(shapely.box(0.1, 0.1 * n, 0.3, 0.1 * n + 0.09) for n in range(1, 8)))
    (whole,) = model.predict([item], [QUERY])
    monkeypatch.setattr(vlm, "MOST_CLOSED", 3)
    (parts,) = model.predict([item], [QUERY])
    for one, other in zip(whole[0].gradings, parts[0].gradings, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-3)


def test_a_checkpoint_that_was_not_taught_refuses() -> None:
    (row,) = _model().predict([_item(shapely.box(0.1, 0.2, 0.3, 0.4))], [QUERY])
    assert row[0].status == "answered"
    torch.manual_seed(7)
    untaught = new_earth_onevision("tiny", train_words(["damaged"] * 3, size=400), seed=1)
    (row,) = VlmPredictor(untaught).predict([_item(shapely.box(0.1, 0.2, 0.3, 0.4))], [QUERY])
    assert (row[0].status, row[0].reason) == ("skipped", "not_supported")
    assert "not taught" in str(row[0].message)
