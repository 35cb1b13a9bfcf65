"""Why a pixel may not show the ground."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from earthmap.errors import QueryError
from earthmap.sensors.masks import REASONS, Reason, unseen


def test_codes_are_fixed() -> None:
    # Stored in cubes: a change here makes every cube lie.
    assert REASONS == (
        "clear", "nodata", "cloud", "cirrus", "shadow", "dark", "snow", "saturated", "layover", "unknown",
    )  # fmt: skip
    assert [int(reason) for reason in Reason] == list(range(10))
    assert Reason.CLOUD.label == "cloud"


@given(arrays.arrays(np.uint8, (5, 5), elements=st.integers(0, 9)), st.sets(st.sampled_from(REASONS)))
def test_unseen_is_what_is_listed(mask: np.ndarray, reasons: set[str]) -> None:
    expected = [[REASONS[code] in reasons for code in row] for row in mask]
    assert unseen(mask, reasons).tolist() == expected


def test_unknown_words_are_refused() -> None:
    with pytest.raises(QueryError, match="'clouds'"):
        unseen(np.zeros((1, 1), np.uint8), ("clouds",))
