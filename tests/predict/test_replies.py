"""What a model said becomes an answer: scores of things, ground, overlaps, swapped dates."""

from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from earthmap.predict.replies import Found, Look, Reply, cover, make_answer, paint, read_instances, share_of, sureness
from earthmap.tasks import make_query
from earthmap.tasks.serialization import Instance, tokenize_spatial

SIDE, HALO = 128, 8
CORE = (slice(HALO, SIDE - HALO), slice(HALO, SIDE - HALO))
LOOK = Look(side_px=SIDE, core=CORE, seen=np.ones((112, 112), bool))
SEGMENT = make_query("Map water and snow", open_vocabulary=True)
CHANGE = make_query("Where did water appear?", open_vocabulary=True)


def said(text: str, *probabilities: float) -> Reply:
    """A text in SLIS' terminals; each instance, and the `;` behind it, of one probability, and the end of 1."""
    number, logs = 0, []
    for terminal in tokenize_spatial(text):
        logs.append(math.log(probabilities[number] if probabilities else 1.0))
        number += terminal == ";"
    return Reply(pieces=tuple(tokenize_spatial(text)), log_probabilities=(*logs, 0.0))


@given(st.lists(st.floats(-50.0, 0.0), max_size=30))
def test_sureness_is_a_probability(logs: list[float]) -> None:
    assert 0.0 <= sureness(logs) <= 1.0


def test_each_thing_has_the_score_of_its_own_tokens() -> None:
    found = read_instances(said("ship:box[0,0,9,9];ship:box[500,500,700,700];car:point[1,2]", 0.5, 0.9, 0.25))
    assert [instance.label for instance in found.instances] == ["ship", "ship", "car"]
    assert found.scores == (0.5, 0.9, 0.25)
    assert read_instances(said("none")).instances == ()


def test_what_makes_no_sense_is_counted() -> None:
    found = read_instances(said("ship:box[9,9,0,0];ship:box[1,2];ship:box[5,"))
    assert len(found.instances) == len(found.scores) == 1
    assert found.notes == ("1 instance repaired", "2 instances rejected: cut off, numbers")


@given(st.text(max_size=200))
def test_any_text_is_read(text: str) -> None:
    answer = make_answer(SEGMENT, Reply(pieces=tuple(text), log_probabilities=(-0.1,) * len(text)), LOOK)
    assert answer.status == "answered"


@given(*[st.integers(0, 16)] * 4)
def test_masks_and_outlines_cover_the_same_ground(left: int, top: int, right: int, bottom: int) -> None:
    mask = np.zeros((16, 16), bool)
    mask[top:bottom, left:right] = True
    outline = Instance(kind="polygon", geometry=shapely.box(left / 16, top / 16, right / 16, bottom / 16))
    expected = np.kron(mask, np.ones((8, 8), bool))[CORE]
    assert np.array_equal(cover(Instance(kind="mask", mask=mask), SIDE, CORE), expected)
    if left < right and top < bottom:
        assert np.array_equal(cover(outline, SIDE, CORE), expected)


def test_of_things_that_overlap_the_surer_is_drawn() -> None:
    whole = shapely.box(0, 0, 1, 1)
    water, snow = (Instance(kind="polygon", geometry=whole, label=label) for label in ("water", "snow"))
    assert (paint(Found((water, snow), (0.9, 0.3), ()), SEGMENT, LOOK) == 1).all()
    assert (paint(Found((water, snow), (0.3, 0.9), ()), SEGMENT, LOOK) == 2).all()
    assert (paint(Found((water, snow), (0.5, 0.5), ()), SEGMENT, LOOK) == 1).all()


def test_gained_is_lost_when_the_dates_are_swapped() -> None:
    gained, lost = (said(f"water {way}:mask[16|0:0+16|1:0+16|2:0+16]") for way in ("gained", "lost"))
    sure, unsure = (make_answer(CHANGE, gained, LOOK, swapped=other) for other in (lost, gained))
    assert (sure.value, sure.orders_agree, sure.notes) == ("water gained", 1.0, ())
    assert unsure.notes == ("swapped dates disagree",)
    assert unsure.orders_agree == pytest.approx(1.0 - unsure.fraction, abs=1e-4)
    assert make_answer(CHANGE, gained, LOOK).orders_agree is None


def test_a_share_counts_the_seen_core() -> None:
    patches = np.zeros((4, 4), np.float32)
    patches[:, :2] = 1.0
    assert share_of(patches, LOOK) == 0.5
    seen = LOOK.seen.copy()
    seen[:, 56:] = False
    assert share_of(patches, Look(side_px=SIDE, core=CORE, seen=seen)) == 1.0


@pytest.mark.parametrize("broken", [Reply(log_probabilities=(math.nan,)), Reply(scores=((math.inf, 0.0),))])
def test_what_is_no_number_is_no_answer(broken: Reply) -> None:
    assert make_answer(SEGMENT, broken, LOOK).reason == "not_finite"
