"""Which pixels are too coarse for what."""

from __future__ import annotations

import pytest

from earthmap.tasks import make_query
from earthmap.tasks.sizes import coarsest_m, too_coarse


@pytest.mark.parametrize(
    ("target", "limit"),
    [
        ("ship", 10.0), ("ships", 10.0), ("large tanker", 10.0), ("building", 2.5), ("damaged buildings", 0.8),
        ("collapsed houses", 0.8), ("car", 0.5), ("parked vehicles", 0.5), ("buses", 0.5), ("storage tank", 4.0),
        ("wind turbines", 10.0), ("aircraft", 6.0), ("gizmo", None), ("", None), ("airports", 60.0),
    ],
)  # fmt: skip
def test_things_have_a_coarsest_pixel(target: str, limit: float | None) -> None:
    assert coarsest_m(target, single=True) == limit


def test_ground_that_things_cover_is_asked_of_any_pixels_but_damage_and_vehicles() -> None:
    assert coarsest_m("building", single=False) is None
    assert coarsest_m("destroyed buildings", single=False) == 0.8
    assert coarsest_m("cars", single=False) == 0.5


def test_a_question_says_why_it_is_refused() -> None:
    query = make_query("How many ships are there?", open_vocabulary=True)
    assert too_coarse(query, 10.0) is None
    assert too_coarse(query, 10.1) == "pixels of 10.1 m do not show ship; expected 10 m at most"
    assert too_coarse(make_query("Where is water?"), 1000.0) is None
    assert too_coarse(make_query("Segment the damaged buildings", open_vocabulary=True), 10.0) is not None
