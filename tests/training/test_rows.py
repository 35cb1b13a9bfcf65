"""A row that cannot be learned from is refused where it is made, with what is wrong, and never later by a traceback."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from earthmap.errors import TrainingError
from earthmap.model.words import Words
from earthmap.training import MODALITIES, Asked, Learner, Row, pack
from tests.training.learners import row

ASKED = (Asked(question="Is it bright?", answer="yes", category="vqa"),)
PICTURES = np.zeros((2, 3, 64, 96), np.uint8)
SHARES = np.zeros((2, 6, 2), np.float32)


def _row(**changes: Any) -> Row:
    good = {"id": "r", "modality": "optical", "names": ("a", "b"), "pictures": PICTURES, "asked": ASKED}
    return Row(**{**good, **changes})


def test_pictures_need_not_be_square() -> None:
    assert _row(classes=("snow", "water"), shares=SHARES).shares is SHARES


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"pictures": PICTURES[:, :, :63]}, "has pictures of 63 × 96 pixels, not of multiples of 32"),
        ({"pictures": PICTURES[:, :, :0]}, "has pictures of 0 × 96 pixels"),
        ({"pictures": PICTURES.astype(np.int8)}, "type int8, not"),
        ({"pictures": PICTURES.astype(np.uint16)}, "type uint16, not"),
        ({"pictures": PICTURES / 255.0}, "type float64, not"),
        ({"pictures": np.moveaxis(PICTURES, 1, -1)}, r"shape \(2, 64, 96, 3\)"),
        ({"pictures": PICTURES[0]}, r"shape \(3, 64, 96\)"),
        ({"pictures": np.uint8(3) * np.ones((), np.uint8)}, r"shape \(\)"),
        ({"modality": "video"}, r"not \(pair, 2, 3, y, x\) uint8"),
        ({"shares": SHARES}, r"shares of shape \(2, 6, 2\) for 0 classes"),
        ({"shares": SHARES[:, :4], "classes": ("a", "b")}, r"shape \(2, 4, 2\) for 2 classes, not \(2, 6, 2\)"),
        ({"shares": SHARES[:1], "classes": ("a", "b")}, r"not \(2, 6, 2\)"),
        ({"shares": SHARES - 0.5, "classes": ("a", "b")}, "not numbers from 0 to 1"),
        ({"shares": SHARES + 50.0, "classes": ("a", "b")}, "not numbers from 0 to 1"),
        ({"shares": SHARES.astype(np.int64), "classes": ("a", "b")}, "not numbers from 0 to 1"),
    ],
)
def test_pictures_and_shares_that_do_not_fit_are_refused(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(TrainingError, match=fault) as caught:
        _row(**changes)
    assert "\n" not in str(caught.value)


_SIDES = st.sampled_from([0, 1, 3, 31, 32, 33, 64])


@given(
    modality=st.sampled_from([*MODALITIES, "radio", ""]),
    pictures=st.tuples(
        st.sampled_from([np.uint8, np.uint8, np.float32, np.bool_]),
        st.one_of(
            st.tuples(st.integers(0, 3), st.just(3), _SIDES, _SIDES),
            st.tuples(st.integers(0, 2), st.just(2), st.just(3), _SIDES, _SIDES),
            arrays.array_shapes(min_dims=0, max_dims=6, max_side=3),
        ),
    ),
    shares=st.none() | arrays.arrays(np.float32, st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 3))),
    names=st.lists(st.text(max_size=3), max_size=3),
)
def test_whatever_a_row_is_made_of_it_is_refused_or_can_be_learned_from(
    words: Words, modality: str, pictures: tuple[Any, tuple[int, ...]], shares: Any, names: list[str]
) -> None:
    kind, shape = pictures
    classes = tuple("abc"[: shares.shape[2]]) if shares is not None else ()
    try:
        made = Row(
            id="r",
            modality=modality,
            names=tuple(names),
            pictures=np.zeros(shape, kind),
            asked=ASKED,
            classes=classes,
            shares=shares,
        )
    except TrainingError:
        return
    batch = pack([made], words)
    assert len(batch.pictured) == made.pictures.shape[0] * (made.pictures.shape[-1] // 32) * (
        made.pictures.shape[-2] // 32
    )
    if batch.shares is not None:
        assert batch.shares.shape[:2] == (1, len(batch.pictured))


def test_rows_that_were_refused_leave_the_learner_as_it_was(learner: Learner) -> None:
    """Beside good rows of other layouts, and of classes that others do not know."""
    bare = Row(id="b", modality="sar", names=("x",), pictures=PICTURES[:1], asked=ASKED)
    assert np.isfinite(learner.learn([row(0), bare, row(1)]).loss)
    with pytest.raises(TrainingError, match="without rows"):
        learner.learn([])
    assert learner.step == 1
