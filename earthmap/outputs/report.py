"""report.html: one self-contained page that a person can read without earthmap and without a network.

Everything that comes from outside (questions, ids, messages, the job) is escaped; the page's own policy forbids it to
load anything from anywhere.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from earthmap.outputs.backdrop import Backdrop, mosaic_backdrop, warp_backdrop
from earthmap.outputs.numbers import (
    Numbers,
    counts,
    format_answer,
    format_km2,
    format_share,
    format_tiles,
    headlines,
    is_of_tiles,
    read_numbers,
)
from earthmap.outputs.webmap import build_chart, build_map

if TYPE_CHECKING:
    import geopandas

__all__ = ["Backdrop", "headlines", "mosaic_backdrop", "render_report", "warp_backdrop"]

MAX_CARDS = 4

_POLICY = (
    "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; font-src data:; "
    "script-src 'unsafe-inline' 'unsafe-eval'"
)

_STYLE = """
:root { --ink: #1d2b33; --quiet: #5f6f78; --line: #e1e7e9; --accent: #1f6fb2; }
* { box-sizing: border-box; }
body { margin: 0; background: #f5f7f7; color: var(--ink); line-height: 1.5;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 36px 24px 64px; }
header { margin-bottom: 22px; }
h1 { font-size: 27px; line-height: 1.25; margin: 0 0 4px; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 0 0 12px; }
.quiet { color: var(--quiet); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(235px, 1fr)); gap: 14px; margin: 0 0 16px; }
.card, section { background: #fff; border: 1px solid var(--line); border-radius: 10px; }
.card { padding: 16px 18px; }
.card b { display: block; font-size: 27px; line-height: 1.2; font-weight: 650; letter-spacing: -0.015em;
  margin: 4px 0; }
.card p { margin: 0; overflow-wrap: anywhere; }
.card .also { font-size: 12.5px; margin-top: 6px; }
section { padding: 20px 22px; margin: 0 0 16px; }
section ul { margin: 0; padding-left: 20px; }
section li { margin: 3px 0; overflow-wrap: anywhere; }
.map { overflow-x: auto; }
.note { background: #fff8e8; border-left: 3px solid #d8a03d; padding: 8px 12px; margin: 12px 0 0; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: 7px 12px 7px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--quiet); font-size: 13px; }
td.n, th.n { text-align: right; padding-right: 0; font-variant-numeric: tabular-nums; }
td.g { width: 45%; padding-left: 16px; }
tr:last-child td { border-bottom: 0; }
.bar { display: block; height: 6px; margin-top: 9px; border-radius: 3px; background: #b9c4c9; min-width: 2px; }
.bar.answered { background: #2e8b57; } .bar.failed { background: #b5402f; }
code, pre { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: #f5f7f7; border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; overflow-x: auto;
  margin: 8px 0; }
summary { cursor: pointer; color: var(--accent); }
footer { color: var(--quiet); font-size: 13px; }
@media print { body { background: #fff; } section, .card { break-inside: avoid; } }
"""

_EMBED = """
for (const name of ["map", "series"]) {
  const data = document.getElementById(name + "-data");
  if (data) Bokeh.embed.embed_item(JSON.parse(data.textContent), name + "-view");
}
"""


def render_report(
    features: geopandas.GeoDataFrame,
    coverage: geopandas.GeoDataFrame,
    summary: Mapping[str, Any],
    *,
    backdrops: Sequence[Backdrop],
    job: Mapping[str, Any],
    versions: Mapping[str, Any],
    title: str,
    notes: Sequence[str] = (),
) -> str:
    """The page as HTML text, complete in itself.

    Args:
        features: What was found, EPSG:4326, the columns of features.parquet.
        coverage: What was seen, EPSG:4326, the columns of coverage.parquet.
        summary: What summary.json holds.
        backdrops: Pictures of observations; any number, none included.
        job: The job as JSON-ready values, as `job.json` can be run again.
        versions: Name and version of what computed it.
        title: Heading of the page.
        notes: What is not drawn as it is, for readers of the map.
    """
    numbers = read_numbers(summary)
    web_map = build_map(features, coverage, numbers, backdrops=backdrops) if len(features) + len(coverage) else None
    chart = build_chart(numbers)
    sections = [
        _header(title, summary, numbers),
        _cards(numbers),
        _map_section(web_map, features, notes),
        "" if chart is None else f"<section><h2>By date</h2>{_mount('series', chart)}</section>",
        _details(summary, numbers),
        _counts_section(summary),
        _trust(features, summary, numbers),
        _again(job, versions),
    ]
    return _page(title, sections, with_bokeh=web_map is not None or chart is not None)


def _text(value: Any) -> str:
    return html.escape(str(value), quote=True)


def _page(title: str, sections: Iterable[str], *, with_bokeh: bool) -> str:
    from bokeh.resources import Resources

    scripts = ""
    if with_bokeh:
        # mathjax is left out: it is large, and a formula in a label would be fetched from elsewhere.
        scripts = Resources(mode="inline", components=["bokeh", "bokeh-widgets"]).render()
    body = "\n".join(section for section in sections if section)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{_text(title)}</title><link rel="icon" href="data:,"><style>{_STYLE}</style></head>'
        f"<body><main>\n{body}\n</main>\n{scripts}\n"
        + (f"<script>{_EMBED}</script>" if with_bokeh else "")
        + "</body></html>\n"
    )


def _mount(name: str, model: Any) -> str:
    """A place for a bokeh model, and its data as JSON that no text in it can end early."""
    from bokeh.embed import json_item

    data = json.dumps(json_item(model), separators=(",", ":"))
    data = data.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return f'<div id="{name}-view"></div><script type="application/json" id="{name}-data">{data}</script>'


def _header(title: str, summary: Mapping[str, Any], numbers: Sequence[Numbers]) -> str:
    times = [time for row in numbers for time in (row.start, row.end) if time]
    span = f"{min(times):%Y-%m-%d} to {max(times):%Y-%m-%d}" if times else "no observation"
    span = span.split(" to ")[0] if times and f"{min(times):%F}" == f"{max(times):%F}" else span
    sensors = ", ".join(sorted({row.sensor for row in numbers} - {""}))
    facts = [f"{format_km2(float(summary.get('area_km2') or 0.0))} asked about", span, sensors]
    return (
        f'<header><h1>{_text(title)}</h1><div class="quiet">{_text(" · ".join(f for f in facts if f))}</div></header>'
    )


def _cards(numbers: Sequence[Numbers]) -> str:
    """The latest answer to each question, as large figures; of several sensors the one that saw most comes first."""
    asked = dict.fromkeys(row.query_key for row in numbers)
    latest = [latest_by_sensor([row for row in numbers if row.query_key == key]) for key in asked]
    cards = [_card(rows[0], rows[1:]) for rows in latest[:MAX_CARDS]]
    if not cards:
        said = "<b>No answer</b><p>Nothing could be asked of this ground.</p>"
        return f'<div class="cards"><div class="card">{said}</div></div>'
    return f'<div class="cards">{"".join(cards)}</div>'


def latest_by_sensor(rows: Sequence[Numbers]) -> list[Numbers]:
    """The last answered row of each sensor, that which saw most first; the last row of all where none was answered."""
    latest = {row.sensor: row for row in rows if row.answered}
    return sorted(latest.values(), key=lambda row: -row.seen_km2) or list(rows[-1:])


def _card(row: Numbers, others: Sequence[Numbers]) -> str:
    figure, rest = _big(row)
    also = "".join(
        f'<p class="quiet also">{_text(other.date)} · {_text(other.sensor)}: {_text(format_answer(other))}</p>'
        for other in others
    )
    where = " · ".join(part for part in (row.date if row.start else "", row.sensor) if part)
    return (
        f'<div class="card"><p class="quiet">{_text(row.text)}</p><b>{_text(figure)}</b>'
        f'<p>{_text(rest)}</p><p class="quiet">{_text(where)}</p>{also}</div>'
    )


def _big(row: Numbers) -> tuple[str, str]:
    """The figure to see first, and what it is of."""
    if not row.answered:
        return "not seen", f"none of {row.planned:,} tiles could be seen"
    if row.task == "presence":
        return f"{row.yes or 0:,} of {row.answered:,} tiles", "say yes"
    if is_of_tiles(row.task):
        first = next(iter(row.tiles), f"{row.answered:,} tiles")
        return first, format_tiles(row.tiles, row.answered) if row.tiles else "have an answer; the map shows them"
    if row.task == "fraction" and row.fraction is not None:
        return format_share(row.fraction), f"of {format_km2(row.seen_km2)} seen"
    if len(row.km2) > 1 or row.is_pair:
        if not sum(row.km2.values()):
            return "no change" if row.is_pair else "0 km²", f"in {format_km2(row.seen_km2)} seen"
        name, value = max(row.km2.items(), key=lambda answer: answer[1])
        others = ", ".join(f"{other} {format_km2(km2)}" for other, km2 in row.km2.items() if other != name)
        return format_km2(value), "; ".join(
            part for part in (name, others, f"of {format_km2(row.seen_km2)} seen") if part
        )
    share = f" ({format_share(row.fraction)})" if row.fraction is not None else ""
    return format_km2(sum(row.km2.values())), f"of {format_km2(row.seen_km2)} seen{share}"


def _map_section(web_map: Any, features: geopandas.GeoDataFrame, said: Sequence[str]) -> str:
    if web_map is None:
        return "<section><h2>Map</h2><p>There is no ground to draw: no tile was planned.</p></section>"
    notes = list(dict.fromkeys([*said, *web_map.notes]))
    if not len(features):
        notes.insert(0, "Nothing was found on the ground that was seen.")
    listed = "".join(f'<p class="note">{_text(note)}</p>' for note in notes)
    return (
        f'<section><h2>Map</h2><div class="map">{_mount("map", web_map.model)}</div>'
        '<p class="quiet">Drag to move, scroll to zoom, point at a shape for what is known of it, '
        f"click a line of the legend to hide it. Hatched ground was not seen.</p>{listed}</section>"
    )


def _details(summary: Mapping[str, Any], numbers: Sequence[Numbers]) -> str:
    lines = "".join(f"<li>{_text(line)}</li>" for line in headlines(summary))
    rows = "".join(
        f"<tr><td>{_text(row.date)}</td><td>{_text(row.sensor)}</td><td>{_text(row.text)}</td>"
        f'<td>{_text(format_answer(row))}</td><td class="n">{_text(_bounds(row))}</td></tr>'
        for row in numbers
    )
    table = (
        "<details><summary>Every observation</summary><table><tr><th>date</th><th>sensor</th><th>question</th>"
        f'<th>answer</th><th class="n">share of the area, at least – at most</th></tr>{rows}</table></details>'
    )
    return f"<section><h2>In words</h2><ul>{lines}</ul>{table if rows else ''}</section>"


def _bounds(row: Numbers) -> str:
    if row.bounds is None:
        return "–"
    return " – ".join(format_share(edge) for edge in row.bounds)


def _counts_section(summary: Mapping[str, Any]) -> str:
    planned = int(summary.get("planned") or 0)
    rows = "".join(
        f"<tr><td>{_text(status)}</td><td>{_text(reason.replace('_', ' ') or '–')}</td>"
        f'<td class="n">{number:,}</td><td class="g"><span class="bar {status}" '
        f'style="width:{100.0 * number / max(1, planned):.1f}%"></span></td></tr>'
        for status, reason, number in counts(summary)
    )
    return (
        f"<section><h2>What became of {planned:,} planned tile answers</h2><table><tr><th>status</th><th>reason</th>"
        f'<th class="n">tile answers</th><th class="g"></th></tr>{rows}</table></section>'
    )


def _trust(features: geopandas.GeoDataFrame, summary: Mapping[str, Any], numbers: Sequence[Numbers]) -> str:
    lines = ["No labelled sample of this ground was drawn, so the figures carry no confidence interval."]
    predictors = sorted(set(features["predictor"].astype(str))) if len(features) else []
    if features["probability"].isna().all():
        lines.append(
            "The answers come from thresholds on published indices, which give no probability."
            if "spectral" in predictors or not predictors
            else f"The predictor ({', '.join(predictors)}) gave no probability."
        )
    area, seen = float(summary.get("area_km2") or 0.0), summary.get("seen_km2")
    if seen is not None and area:
        lines.append(f"{format_km2(float(seen))} of {format_km2(area)} was seen at least once.")
    if bounded := [row for row in numbers if row.bounds is not None]:
        row = bounded[-1]
        lines.append(
            f"Whatever the unseen ground holds, the share of the whole area lies between {_bounds(row)} "
            f"({row.text} {row.date})."
        )
    if any(row.task == "presence" for row in numbers):
        lines.append("Tiles that say yes are counted as tiles; they are no measure of extent.")
    found = {str(note) for noted in features["notes"] if noted is not None for note in noted}
    notes = sorted(found.union(*(row.notes for row in numbers)))
    lines += [f"Noted by the predictor: {note}." for note in notes]
    listed = "".join(f"<li>{_text(line)}</li>" for line in lines)
    return f"<section><h2>How far to trust it</h2><ul>{listed}</ul></section>"


def _again(job: Mapping[str, Any], versions: Mapping[str, Any]) -> str:
    content = json.dumps(job, indent=2, ensure_ascii=False, default=str)
    listed = " · ".join(f"{name} {version}" for name, version in versions.items())
    return (
        "<section><h2>The same again</h2><p>Save the job below as <code>job.json</code> and run it; "
        "what is there already is not computed again.</p><pre>earthmap map job.json</pre>"
        f'<details><summary>job.json</summary><pre id="job">{_text(content)}</pre></details></section>'
        f"<footer>{_text(listed)}</footer>"
    )
