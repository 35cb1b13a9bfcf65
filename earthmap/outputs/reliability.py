"""Reliability diagrams of a report: how often answers are right that call themselves so sure, before and after the
temperature. SVG without a script; every point says its numbers, and a table has them all.
"""

from __future__ import annotations

from collections.abc import Sequence

from earthmap.metrics.intervals import wilson
from earthmap.model.evidence import Bin, Calibration, Change
from earthmap.outputs.markup import escaped

SIDE, LEFT, RIGHT, TOP, BOTTOM = 240, 44, 20, 10, 40
"""Of one diagram, and beside its square."""

NUDGE = 3
"""How far the points of before and after are moved apart, so that both can be seen."""

BEFORE, AFTER = "#8a5a00", "#1f6fb2"


def reliability_section(calibrations: Sequence[Calibration]) -> str:
    """A diagram for each calibrated task and sensor; empty where there is none."""
    if not calibrations:
        return ""
    about = (
        '<p class="quiet">On held-out scenes: of the answers that state about the same probability, the share that is '
        "right, with its 95 % interval. On the dashed line probabilities are as often right as they say; below it the "
        "model is too sure. No answer changes by a temperature, only how sure it calls itself. The scenes are named "
        "below each diagram: elsewhere nothing is known of this.</p>"
    )
    key = (
        f'<ul class="key"><li><svg width="14" height="12" aria-hidden="true">{_mark(7, 6, after=False)}</svg> before'
        f'</li><li><svg width="14" height="12" aria-hidden="true">{_mark(7, 6, after=True)}</svg> after</li></ul>'
    )
    drawn = "".join(_figure(one) for one in calibrations)
    return (
        f'<section id="reliability"><h2>How sure it may call itself</h2>{about}{key}<div class="tiles">{drawn}</div>'
        "</section>"
    )


def _figure(one: Calibration) -> str:
    title = f"{one.task}, {one.sensor or 'all ways of seeing'}"
    rows = "".join(
        f"<tr><td>{name}</td><td class='n'>{row.stated:.2f}</td><td class='n'>{row.right / row.answers:.2f}</td>"
        f"<td class='n'>{row.right:,} of {row.answers:,}</td></tr>"
        for name, bins in (("before", one.before), ("after", one.after))
        for row in bins
    )
    said = (
        f"Temperature {one.temperature:.2f}, from {one.fitted:,} answers; here {one.tested:,} others about "
        f"{one.places:,} places. {_moved('Log loss', one.log_loss)}. {_moved('Calibration error', one.error)}. "
        f"Scenes: {one.domain}."
    )
    table = (
        '<details><summary>Numbers</summary><table><tr><th></th><th class="n">stated</th><th class="n">right</th>'
        f'<th class="n">answers</th></tr>{rows}</table></details>'
    )
    return (
        f'<figure class="reliability"><figcaption>{escaped(title)}</figcaption>{_svg(one, title)}'
        f'<p class="quiet">{escaped(said)}</p>{table}</figure>'
    )


def _moved(name: str, loss: Change) -> str:
    return f"{name} {loss.before:.3f} → {loss.after:.3f} (difference {loss.low:+.3f} to {loss.high:+.3f})"


def _x(share: float) -> float:
    return LEFT + SIDE * share


def _y(share: float) -> float:
    return TOP + SIDE * (1.0 - share)


def _svg(one: Calibration, title: str) -> str:
    wide, high = LEFT + SIDE + RIGHT, TOP + SIDE + BOTTOM
    ruled = "".join(
        f'<line x1="{_x(0):g}" x2="{_x(1):g}" y1="{_y(step):g}" y2="{_y(step):g}" class="rule"/>'
        f'<text x="{LEFT - 6}" y="{_y(step) + 4:g}" text-anchor="end">{step:.0%}</text>'
        f'<text x="{_x(step):g}" y="{_y(0) + 16:g}" text-anchor="middle">{step:.0%}</text>'
        for step in (0.0, 0.25, 0.5, 0.75, 1.0)
    )
    line = (
        f'<line x1="{_x(0):g}" y1="{_y(0):g}" x2="{_x(1):g}" y2="{_y(1):g}" stroke="#5f6f78" stroke-dasharray="5 4"/>'
    )
    named = f'<text x="{_x(0.5):g}" y="{high - 5}" text-anchor="middle">stated probability</text>'
    points = "".join(_point(row, after=False) for row in one.before) + "".join(
        _point(row, after=True) for row in one.after
    )
    return (
        f'<svg class="chart" viewBox="0 0 {wide} {high}" role="img" aria-label="{escaped(title)}: share that is right '
        f'by stated probability">{ruled}{line}{named}{points}</svg>'
    )


def _point(row: Bin, *, after: bool) -> str:
    low, high = wilson(row.right, row.answers)
    x, y = _x(row.stated) + (NUDGE if after else -NUDGE), _y(row.right / row.answers)
    when, colour = ("after", AFTER) if after else ("before", BEFORE)
    said = f"{when}: stated {row.stated:.2f}, right {row.right:,} of {row.answers:,}"
    return (
        f'<g class="dot"><line x1="{x:.1f}" x2="{x:.1f}" y1="{_y(low):.1f}" y2="{_y(high):.1f}" stroke="{colour}" '
        f'stroke-width="1.6"/>{_mark(x, y, after=after)}<title>{escaped(said)}</title></g>'
    )


def _mark(x: float, y: float, *, after: bool) -> str:
    if after:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{AFTER}" stroke="#fff"/>'
    return (
        f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" fill="#fff" stroke="{BEFORE}" stroke-width="2"/>'
    )
