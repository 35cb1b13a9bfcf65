"""What is shown of an answer about one place: what was asked and answered, and no coordinates."""

from __future__ import annotations

from typing import Any

from earthmap.client.replies import PlaceReply


def reply(**changes: Any) -> PlaceReply:
    ring = [[4.0 + step / 1e6, 45.0] for step in range(5_000)]
    found = [{"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}]
    document = {
        "question": "Where is <water>?",
        "status": "answered",
        "fraction": 0.254,
        "found": {"type": "FeatureCollection", "features": found},
    }
    return PlaceReply({**document, **changes})


def test_it_is_shown_in_a_line() -> None:
    assert repr(reply()) == "<PlaceReply 'Where is <water>?' answered, of the seen ground: 25.4%, found: 1>"
    skipped = reply(status="skipped", fraction=None, message="a cloud", found={"features": []})
    assert repr(skipped) == "<PlaceReply 'Where is <water>?' skipped, why: a cloud>"


def test_a_notebook_shows_the_same() -> None:
    assert reply(answer="<b>")._repr_html_() == (
        "<b>Where is &lt;water&gt;?</b> answered<br>answer: &lt;b&gt;<br>of the seen ground: 25.4%<br>found: 1"
    )
