"""What a report says of where its figures come from: labelled samples, scenes, versions, the job to run again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from earthmap.model.evidence import Calibration
from earthmap.outputs.markup import escaped
from earthmap.outputs.numbers import format_km2

MAX_SCENES = 200
"""Scenes that are listed; scenes.parquet has all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What a run was made from."""

    job: Mapping[str, Any]
    """The job as JSON-ready values, as `job.json` can be run again."""
    versions: Mapping[str, Any] = field(default_factory=dict)
    """Name and version of what computed it."""
    scenes: Sequence[tuple[str, str, str]] = ()
    """Id, date and sensor of each scene that answers are about, by time."""
    estimates: Sequence[Mapping[str, Any]] = ()
    """What `earthmap estimate` wrote, each as its `estimate.json` holds it."""
    calibrations: Sequence[Calibration] = ()
    """Of the probabilities that answers state."""


def estimates_section(estimates: Sequence[Mapping[str, Any]]) -> str:
    """Mapped and adjusted areas and counts with their intervals; empty without a labelled sample."""
    tables = "".join(_estimate(one) for one in estimates)
    return f"<section><h2>From a labelled sample</h2>{tables}</section>" if tables else ""


def _estimate(one: Mapping[str, Any]) -> str:
    counted = "count" in one
    rows = _count(one) if counted else "".join(_class(row) for row in one.get("classes") or ())
    about = f"{one.get('question', '')} ({one.get('observation', '')})"
    whole = float(one.get("area_km2") or 0.0)
    unseen = whole - float(one.get("estimated_km2") or whole)
    said = (
        f"{int(one.get('labelled') or 0):,} labelled places, {int(one.get('unlabelled') or 0):,} without a label; "
        f"{str(one.get('method', '')).replace('_', '-')}, {one.get('interval', '')}. "
        f"No interval speaks of {format_km2(max(0.0, unseen))} of {format_km2(whole)}: not seen, or not labelled."
    )
    notes = "".join(f'<p class="note">{escaped(str(note))}</p>' for note in one.get("notes") or ())
    names = ("found", "there are") if counted else ("mapped", "adjusted")
    return (
        f'<div class="scroll"><table class="estimate"><caption>{escaped(about)}</caption><tr><th></th>'
        f'<th class="n">{names[0]}</th><th class="n">{names[1]}</th><th class="n">95 % interval</th><th></th>'
        f"<th>evidence</th></tr>{rows}</table></div><p class='quiet'>{escaped(said)}</p>{notes}"
    )


def _class(row: Mapping[str, Any]) -> str:
    values = [float(row.get(name) or 0.0) for name in ("mapped_km2", "km2")]
    values += [float(edge) for edge in row.get("interval_km2") or (0.0, 0.0)]
    return _line(str(row.get("class", "")), values, [format_km2(value) for value in values], str(row.get("answer", "")))


def _count(one: Mapping[str, Any]) -> str:
    values = [float(one.get(name) or 0.0) for name in ("found", "count")]
    values += [float(edge) for edge in one.get("interval_count") or (0.0, 0.0)]
    return _line("things", values, [f"{value:,.0f}" for value in values], str(one.get("answer", "")))


def _line(name: str, values: Sequence[float], texts: Sequence[str], answer: str) -> str:
    """One row: by the map, by the sample, and the interval's ends."""
    return (
        f"<tr><td>{escaped(name)}</td><td class='n'>{texts[0]}</td><td class='n'><b>{texts[1]}</b></td>"
        f"<td class='n'>{texts[2]} – {texts[3]}</td><td>{_whisker(values[0], values[1], (values[2], values[3]))}</td>"
        f"<td>{escaped(answer)}</td></tr>"
    )


def _whisker(mapped: float, adjusted: float, interval: tuple[float, float]) -> str:
    """The interval as a line, the adjusted area as a dot on it, the mapped one as a tick."""
    most = max(mapped, adjusted, *interval) * 1.05 or 1.0
    low, high, dot, tick = (4 + 152 * value / most for value in (*interval, adjusted, mapped))
    return (
        f'<svg width="160" height="18" aria-hidden="true"><line x1="4" x2="156" y1="9" y2="9" stroke="#e1e7e9"/>'
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="9" y2="9" stroke="#1d2b33" stroke-width="2"/>'
        f'<line x1="{tick:.1f}" x2="{tick:.1f}" y1="2" y2="16" stroke="#d8a03d" stroke-width="3"/>'
        f'<circle cx="{dot:.1f}" cy="9" r="4" fill="#1f6fb2"/><title>dot: adjusted; bar: mapped</title></svg>'
    )


def again_section(provenance: Provenance) -> str:
    """How to reproduce the run: job, scenes and versions."""
    content = json.dumps(provenance.job, indent=2, ensure_ascii=False, default=str)
    versions = "".join(
        f"<li>{escaped(str(name))} {escaped(str(version))}</li>" for name, version in provenance.versions.items()
    )
    return (
        "<section><h2>The same again</h2><p>Save the job below as <code>job.json</code> and run it; "
        "what is there already is not computed again.</p><pre>earthmap map job.json</pre>"
        f'<details id="job-file"><summary>job.json</summary><pre id="job">{escaped(content)}</pre></details>'
        f"{_scenes(provenance.scenes)}<details><summary>Versions</summary><ul>{versions}</ul></details></section>"
    )


def _scenes(scenes: Sequence[tuple[str, str, str]]) -> str:
    if not scenes:
        return ""
    rows = "".join(
        f"<tr><td>{escaped(date)}</td><td>{escaped(sensor)}</td><td><code>{escaped(name)}</code></td></tr>"
        for name, date, sensor in scenes[:MAX_SCENES]
    )
    more = len(scenes) - MAX_SCENES
    note = f'<p class="quiet">and {more:,} more; scenes.parquet has all</p>' if more > 0 else ""
    return (
        f'<details><summary>The scenes used ({len(scenes):,})</summary><div class="scroll"><table class="scenes"><tr>'
        f"<th>date</th><th>sensor</th><th>scene</th></tr>{rows}</table></div>{note}</details>"
    )
