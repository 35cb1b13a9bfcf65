"""report.html: one self-contained page that a person can read without earthmap and without a network.

Everything that comes from outside (questions, ids, messages, the job) is escaped; the page's own policy forbids it to
load anything from anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from earthmap.outputs.backdrop import Backdrop
from earthmap.outputs.charts import answers_table, coverage_bars, dates_charts
from earthmap.outputs.drawing import in_one_piece, list_moments, look_of, moments_of, pole_in
from earthmap.outputs.evidence import Evidence, evidence_section
from earthmap.outputs.markup import escaped
from earthmap.outputs.numbers import (
    NOT_ENOUGH,
    Numbers,
    counts,
    format_answer,
    format_grades,
    format_intervals,
    format_km2,
    format_known,
    format_share,
    format_tiles,
    format_ways,
    headlines,
    is_of_tiles,
    read_numbers,
    skipped_label,
)
from earthmap.outputs.page import mount, render_page
from earthmap.outputs.provenance import Provenance, again_section, estimates_section
from earthmap.outputs.reliability import reliability_section
from earthmap.outputs.swipe import find_swipes, swipe_html
from earthmap.outputs.triage import triage_section
from earthmap.outputs.webmap import WebMap, build_map
from earthmap.tasks.vocabulary import PERMANENT

if TYPE_CHECKING:
    import geopandas

MAX_CARDS = 4


def render_report(
    features: geopandas.GeoDataFrame,
    coverage: geopandas.GeoDataFrame,
    summary: Mapping[str, Any],
    *,
    backdrops: Sequence[Backdrop],
    title: str,
    provenance: Provenance,
    evidence: Sequence[Evidence] = (),
    notes: Sequence[str] = (),
) -> str:
    """The page as HTML text, complete in itself.

    Args:
        features: What was found, EPSG:4326, the columns of features.parquet.
        coverage: What was seen, EPSG:4326, the columns of coverage.parquet.
        summary: What summary.json holds; `unseen` of a query says which reasons it counts as unseen.
        backdrops: Pictures of observations; any number, none included.
        title: Heading of the page.
        provenance: What the run was made from.
        evidence: Small pictures of tiles.
        notes: What is not drawn as it is, for readers of the map.
    """
    numbers = read_numbers(summary)
    there = len(features) + len(coverage) > 0
    web_map = build_map(features, coverage, numbers, backdrops=backdrops) if there else None
    asked = dict.fromkeys(row.query_key for row in numbers)
    latest = [latest_by_sensor([row for row in numbers if row.query_key == key])[0] for key in asked]
    by_date = dates_charts(numbers)
    sections = [
        _header(title, summary, numbers),
        _cards(numbers),
        _map_section(web_map, features, notes, skipped=skipped_label(numbers)),
        _swipe_section(features, coverage, numbers, backdrops) if there else "",
        _section("How much", answers_table(latest)),
        _section("By date", by_date),
        estimates_section(provenance.estimates),
        _details(summary, numbers),
        evidence_section(evidence),
        reliability_section(provenance.calibrations),
        _counts_section(summary, numbers),
        triage_section(numbers),
        _trust(features, summary, numbers, sampled=bool(provenance.estimates)),
        again_section(provenance),
    ]
    pictures = web_map.pictures if web_map is not None else []
    return render_page(title, sections, pictures=pictures, with_bokeh=web_map is not None)


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>" if content else ""


def _swipe_section(
    features: geopandas.GeoDataFrame,
    coverage: geopandas.GeoDataFrame,
    numbers: Sequence[Numbers],
    backdrops: Sequence[Backdrop],
) -> str:
    swipes = find_swipes(list_moments(numbers), backdrops)
    if not swipes:
        return ""
    drawn, _, edges, frame = in_one_piece(features, coverage, backdrops)
    moments = moments_of(features, numbers)
    content = ""
    for swipe in swipes:
        mine = [row for row, moment in enumerate(moments) if moment == swipe.moment]
        tasks, answers = features["task"].to_numpy(object), features["answer"].to_numpy(object)
        looks: dict[Any, list[int]] = {}
        for row in mine:
            looks.setdefault(look_of(str(answers[row]), task=str(tasks[row])), []).append(row)
        shapes = [(drawn[rows], look) for look, rows in looks.items()]
        content += swipe_html(swipe, backdrops, edges, frame=frame, pole=pole_in(coverage), shapes=shapes)
    how = '<p class="quiet noprint">Drag the divider, or move it with the arrow keys.</p>'
    return _section("Before and after", content + how)


def _header(title: str, summary: Mapping[str, Any], numbers: Sequence[Numbers]) -> str:
    times = [time for row in numbers for time in (row.start, row.end) if time]
    span = f"{min(times):%Y-%m-%d} to {max(times):%Y-%m-%d}" if times else "no observation"
    span = span.split(" to ")[0] if times and f"{min(times):%F}" == f"{max(times):%F}" else span
    sensors = ", ".join(sorted({row.sensor for row in numbers} - {""}))
    facts = [f"{format_km2(float(summary.get('area_km2') or 0.0))} asked about", span, sensors]
    about = " · ".join(fact for fact in facts if fact)
    return f'<header><h1>{escaped(title)}</h1><div class="quiet">{escaped(about)}</div></header>'


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
    if row.lacking:
        figure, rest = NOT_ENOUGH, f"{row.lacking}; {format_answer(row)}" if row.answered else row.lacking
    also = "".join(
        f'<p class="quiet also">{escaped(other.date)} · {escaped(other.sensor)}: {escaped(format_known(other))}</p>'
        for other in others
    )
    where = " · ".join(part for part in (row.date if row.start else "", row.sensor) if part)
    return (
        f'<div class="card"><p class="quiet">{escaped(row.text)}</p><b>{escaped(figure)}</b>'
        f'<p>{escaped(rest)}</p><p class="quiet">{escaped(where)}</p>{also}</div>'
    )


def _big(row: Numbers) -> tuple[str, str]:
    """The figure to see first, and what it is of."""
    if row.grades is not None:
        return f"{row.grades['destroyed']:,} destroyed", format_grades(row.grades, row.ungraded)
    if not row.answered:
        return "not seen", f"none of {row.planned:,} tiles could be seen"
    if row.task == "presence":
        return f"{row.yes or 0:,} of {row.answered:,} tiles", "say yes"
    if is_of_tiles(row.task):
        first = next(iter(row.tiles), f"{row.answered:,} tiles")
        return first, format_tiles(row.tiles, row.answered) if row.tiles else "have an answer; the map shows them"
    if row.task == "fraction" and row.fraction is not None:
        return format_share(row.fraction), f"of {format_km2(row.seen_km2)} seen"
    if row.things is not None:
        name, number = next(iter(row.things.items()), ("nothing", 0))
        first = f"{number:,} × {name}" if row.things else name
        rest = ", ".join(f"{other:,} × {kind}" for kind, other in list(row.things.items())[1:4])
        return first, "; ".join(
            part for part in (rest, format_ways(row), f"in {format_km2(row.seen_km2)} seen") if part
        )
    if len(row.km2) > 1 or PERMANENT in row.km2 or row.is_pair:
        if not sum(row.km2.values()):
            return "no change" if row.is_pair else "0 km²", f"in {format_km2(row.seen_km2)} seen"
        name, value = max(row.km2.items(), key=lambda answer: answer[1])
        others = ", ".join(f"{other} {format_km2(km2)}" for other, km2 in row.km2.items() if other != name)
        return format_km2(value), "; ".join(
            part for part in (name, others, f"of {format_km2(row.seen_km2)} seen") if part
        )
    share = f" ({format_share(row.fraction)})" if row.fraction is not None else ""
    return format_km2(sum(row.km2.values())), f"of {format_km2(row.seen_km2)} seen{share}"


def _map_section(web_map: WebMap | None, features: geopandas.GeoDataFrame, said: Sequence[str], *, skipped: str) -> str:
    if web_map is None:
        return "<section><h2>Map</h2><p>There is no ground to draw: no tile was planned.</p></section>"
    notes = list(dict.fromkeys([*said, *web_map.notes]))
    if not len(features):
        notes.insert(0, "Nothing was found on the ground that was seen.")
    listed = "".join(f'<p class="note">{escaped(note)}</p>' for note in notes)
    return (
        f'<section><h2>Map</h2><div class="map">{mount("map", web_map.model)}</div>'
        '<p class="quiet">Drag to move, scroll to zoom, point at a shape for what is known of it, '
        f"click a line of the legend to hide it. Hatched ground was {skipped}: tiles that were skipped, and in "
        f"others what clouds and the like covered.</p>{listed}</section>"
    )


def _details(summary: Mapping[str, Any], numbers: Sequence[Numbers]) -> str:
    lines = "".join(f"<li>{escaped(line)}</li>" for line in headlines(summary))
    rows = "".join(
        f"<tr><td>{escaped(row.date)}</td><td>{escaped(row.sensor)}</td><td>{escaped(row.text)}</td>"
        f'<td>{escaped(format_known(row))}</td><td class="n">{escaped(_bounds(row))}</td></tr>'
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


def _counts_section(summary: Mapping[str, Any], numbers: Sequence[Numbers]) -> str:
    planned = int(summary.get("planned") or 0)
    rows = "".join(
        f"<tr><td>{escaped(status)}</td><td>{escaped(reason.replace('_', ' ') or '–')}</td>"
        f'<td class="n">{number:,}</td></tr>'
        for status, reason, number in counts(summary)
    )
    table = f'<table><tr><th>status</th><th>reason</th><th class="n">tile answers</th></tr>{rows}</table>'
    bars = coverage_bars(numbers) if numbers else ""
    return _section(f"What became of {planned:,} planned tile answers", bars + table)


def _without_labels(numbers: Sequence[Numbers]) -> list[str]:
    """Intervals from held-out scenes, or why there are none; where evidence lacks; where probabilities come from."""
    lines = [
        f"{row.text} ({row.date}, {row.sensor}), model_based 90 % interval, if this ground is like the held-out "
        f"scenes: {format_intervals(row)}."
        for row in numbers
        if row.intervals
    ]
    absent = {
        f"There is no model_based interval of {name} ({row.sensor or 'no sensor'}): {why}."
        for row in numbers
        for name, why in row.no_interval.items()
    }
    said = {
        f"Probabilities of {row.task} answers ({row.sensor}) are not calibrated."
        for row in numbers
        if row.probabilities == "not calibrated"  # of what is calibrated the predictor's notes say it
    }
    lacking = [f"{row.text} ({row.date}): {NOT_ENOUGH}: {row.lacking}." for row in numbers if row.lacking]
    return [*lines, *sorted(absent), *lacking, *sorted(said)]


def _trust(
    features: geopandas.GeoDataFrame, summary: Mapping[str, Any], numbers: Sequence[Numbers], *, sampled: bool
) -> str:
    lines = ["No labelled sample of this ground was drawn, so no figure carries an interval from labels."]
    if sampled:
        lines = ["Areas from a labelled sample stand above with their intervals; no other figure has one from labels."]
    lines += _without_labels(numbers)
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
    listed = "".join(f"<li>{escaped(line)}</li>" for line in lines)
    return f"<section><h2>How far to trust it</h2><ul>{listed}</ul></section>"
