"""index.html of an event: its passes, what each came to, and the way to each one's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from earthmap.outputs.markup import escaped
from earthmap.outputs.page import render_page


def render_event(event: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> str:
    """The page as HTML text, complete in itself but for the pages that it leads to.

    Args:
        event: what event.json says of the event: `time`, `before`, `after`, `area_km2`, `questions`, `notes`.
        runs: its `runs`, by time.
    """
    title = "; ".join(str(text) for text in event["questions"])
    facts = [f"event of {event['time']}", f"before: {event['before']}", f"after: {event['after']}"]
    notes = "".join(f'<p class="note">{escaped(str(note))}</p>' for note in event["notes"])
    rows = "".join(_row(run) for run in reversed(runs))
    table = f"<table><tr><th>picture of</th><th>what it shows</th><th></th></tr>{rows}</table>"
    content = table if runs else "<p>None yet.</p>"
    sections = [
        f'<header><h1>{escaped(title)}</h1><div class="quiet">{escaped(" · ".join(facts))}</div></header>',
        f"<section><h2>Each picture by itself, the latest first</h2>{content}{notes}</section>",
    ]
    return render_page(title, sections, pictures=[], with_bokeh=False)


def _row(run: Mapping[str, Any]) -> str:
    said = "".join(f"<p>{escaped(str(line))}</p>" for line in run["answers"])
    folder = escaped(str(run["folder"]))
    state = "being mapped"
    if run["finished"]:
        state = "there are more scenes of it" if run["superseded_by"] else ""
    name, text = ("report.html", "map") if run["finished"] else ("preview.png", "so far")
    way = f'<a href="./{folder}/{name}">{text}</a>'
    return (
        f"<tr><td>{escaped(str(run['datetime']))}</td><td>{said}"
        f'<p class="quiet">{escaped(state)}</p></td><td>{way}</td></tr>'
    )
