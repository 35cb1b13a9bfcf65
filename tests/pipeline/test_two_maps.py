"""Maps of two dates compared: what one has and the other not, where both see, of what both can tell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from earthmap.pipeline.two_maps import COMPARED, compare_maps, map_queries
from earthmap.tasks import UNSEEN, Answer, make_query

QUERY = make_query("What changed?", targets=["water", "vegetation"])
MASKS = arrays(np.uint8, (2, 6, 6), elements=st.sampled_from([0, 1, UNSEEN]))


def told(masks: NDArray[np.uint8]) -> list[Answer]:
    return [
        Answer(status="answered", mask=mask, legend={1: target}, notes=(f"rule of {target}",))
        for mask, target in zip(masks, QUERY.targets, strict=True)
    ]


def test_each_target_is_asked_by_itself_of_one_date() -> None:
    asked = map_queries(make_query("What changed?", targets=["snow", "water"], before="2024-05", after="2024-06"))
    assert [(query.task, query.targets, query.before, query.after) for query in asked] == [
        ("segment", (target,), None, None) for target in ("water", "snow")
    ]


@given(first=MASKS, second=MASKS)
def test_swapped_dates_give_the_same_ground(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> None:
    there, back = compare_maps(QUERY, told(first), told(second)), compare_maps(QUERY, told(second), told(first))
    unseen = (first == UNSEEN).any(axis=0) | (second == UNSEEN).any(axis=0)
    if unseen.all():
        assert there.status == back.status == "skipped"
        return
    assert there.mask is not None
    assert back.mask is not None
    np.testing.assert_array_equal(there.mask == UNSEEN, unseen)
    np.testing.assert_array_equal(there.mask == 1, (first[0] != 1) & (second[0] == 1) & ~unseen)
    turned = np.array([0, 2, 1, 4, 3], np.uint8)
    np.testing.assert_array_equal(np.where(unseen, 0, back.mask), turned[np.where(unseen, 0, there.mask)])
    assert there.notes[0] == COMPARED
    assert there.fraction == pytest.approx((there.mask[~unseen] > 0).mean())


def test_what_a_date_cannot_tell_is_left_out_and_said() -> None:
    masks = np.zeros((2, 6, 6), np.uint8)
    masks[:, :3] = 1
    untold = Answer(status="skipped", reason="missing_band", message="no red band")
    answer = compare_maps(QUERY, told(masks), [untold, told(np.zeros_like(masks))[1]])
    assert answer.value == "vegetation lost"
    assert "water not compared: a date cannot tell it" in answer.notes
    assert compare_maps(QUERY, told(masks), [untold, untold]).reason == "missing_band"
    broken = Answer(status="failed", stage="predict", reason="model", message="out of memory")
    assert compare_maps(QUERY, [untold, broken], told(masks)).status == "failed"
