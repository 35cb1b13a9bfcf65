"""An event's page: the latest pass first, the way to each page, nothing of the outside taken for HTML."""

from __future__ import annotations

from typing import Any

from earthmap.outputs import render_event

EVENT = {
    "time": "2024-06-01T00:00:00Z", "before": "2024-05", "after": "2024-06", "area_km2": 9.0,
    "questions": ["What is <b>flooded</b>?"], "notes": ["the dates before were cut & said"],
}  # fmt: skip


def run(day: int, **changes: Any) -> dict[str, Any]:
    plain = {
        "folder": f"202406{day:02d}T175031Z-abc", "datetime": f"2024-06-{day:02d}T17:50:31Z", "finished": "now",
        "answers": [f"answer of {day}"], "superseded_by": None,
    }  # fmt: skip
    return {**plain, **changes}


def test_the_latest_pass_comes_first_and_leads_to_its_page() -> None:
    page = render_event(EVENT, [run(3, superseded_by="other"), run(5), run(8, finished=None, answers=[])])
    assert "<b>flooded" not in page
    assert "cut &amp; said" in page
    places = [page.index(text) for text in ("20240608T175031Z", "answer of 5", "answer of 3")]
    assert places == sorted(places)
    assert 'href="./20240605T175031Z-abc/report.html"' in page
    assert 'href="./20240608T175031Z-abc/preview.png"' in page
    assert "being mapped" in page
    assert "more scenes" in page


def test_before_any_pass_it_says_so() -> None:
    assert "None yet" in render_event(EVENT, [])
