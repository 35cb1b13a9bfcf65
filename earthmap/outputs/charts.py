"""Charts of a report as HTML and SVG: they need no script, print as they are seen, and are read aloud as tables.

Lines are told apart by colour, dash and marker together, bars by their labels, shares by lightness and hatching, so
that nothing hangs on hue alone.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from earthmap.outputs.drawing import OTHER, Look, look_of
from earthmap.outputs.markup import escaped
from earthmap.outputs.numbers import Numbers, format_km2, format_share, is_of_tiles
from earthmap.tasks.damage import NOT_ANALYSED

MAX_BARS = 8
"""Answers of one question that have a bar; the rest are one."""

MAX_DATES = 120
"""Of a line; of more the first, the last and those between at even steps."""

MAX_LINES = 6
"""Of a chart by date: the answers with most ground."""

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 820, 230, 62, 16, 14, 30

DATE_WIDTH = 110
"""Between dates below a chart."""

DASHES = ("", "7 4", "2 3", "9 3 2 3", "12 3", "1 4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one answer came to at one observation."""

    answer: str
    value: float
    text: str
    look: Look


def measured(row: Numbers) -> tuple[str, list[Measured]]:
    """The unit, and each answer with its ground in km², its tiles, or its share of the seen ground."""
    if row.task == "presence":
        said = {"yes": row.yes or 0, "no": row.answered - (row.yes or 0)}
        return "tiles", [_tiles(row, answer, count) for answer, count in said.items()]
    if is_of_tiles(row.task):
        return "tiles", [_tiles(row, answer, count) for answer, count in row.tiles.items()]
    if row.task == "fraction":
        share = row.fraction or 0.0
        name = " or ".join(row.targets) or "share"
        look = look_of("", task="fraction", targets=row.targets)
        return "share of the seen ground", [
            Measured(answer=name, value=share, text=f"{format_share(share)} of {format_km2(row.seen_km2)}", look=look)
        ]
    if row.grades is not None:
        counted = {**row.grades, NOT_ANALYSED: sum(row.ungraded.values())}
        return "footprints", [
            Measured(answer=name, value=float(count), text=f"{count:,}", look=look_of(name, task=row.task))
            for name, count in counted.items()
        ]
    if row.things is not None:
        return "things", [
            Measured(
                answer=name,
                value=float(count),
                text=f"{count:,}",
                look=look_of(name, task=row.task, targets=row.targets),
            )
            for name, count in row.things.items()
        ]
    return "km²", [
        Measured(answer=name, value=km2, text=format_km2(km2), look=look_of(name, task=row.task, targets=row.targets))
        for name, km2 in row.km2.items()
    ]


def _tiles(row: Numbers, answer: str, count: int) -> Measured:
    look = look_of(answer, task=row.task, targets=row.targets)
    return Measured(answer=answer, value=float(count), text=f"{count:,} of {row.answered:,} tiles", look=look)


def _colour(one: Measured) -> str:
    if one.answer == "no":
        return "#8a979d"
    return one.look.line if one.look.lost else one.look.fill


# ── by answer ────────────────────────────────────────────────────────────────────────────────────────────────


def answers_table(rows: Sequence[Numbers]) -> str:
    """Bars of each answer at one observation of each question; empty where nothing was answered."""
    return "".join(_bars(row) for row in rows if row.answered)


def _bars(row: Numbers) -> str:
    unit, found = measured(row)
    shown = found if row.grades is not None else sorted(found, key=lambda one: -one.value)
    if len(shown) > MAX_BARS:
        rest = shown[MAX_BARS - 1 :]
        value = sum(one.value for one in rest)
        text = format_km2(value) if unit == "km²" else f"{value:,.0f} {unit}"
        look = Look(fill=OTHER, line=OTHER, alpha=1.0)
        shown = [*shown[: MAX_BARS - 1], Measured(answer=f"{len(rest)} more", value=value, text=text, look=look)]
    whole = 1.0 if row.task == "fraction" else max((one.value for one in shown), default=0.0) or 1.0
    lines = "".join(
        f'<tr><th scope="row">{escaped(one.answer)}</th><td class="n">{escaped(one.text)}</td><td class="g">'
        f'<span class="bar" style="width:{100 * one.value / whole:.1f}%;background:{_colour(one)}"></span>'
        "</td></tr>"
        for number, one in enumerate(shown)
    )
    about = " · ".join(part for part in (row.date if row.start else "", row.sensor) if part)
    if not lines:
        lines = '<tr><td colspan="3">nothing found</td></tr>'
    return (
        f'<table class="bars"><caption>{escaped(row.text)} <span class="quiet">{escaped(about)}</span></caption>'
        f"{lines}</table>"
    )


# ── by date ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    name: str
    colour: str
    dash: str
    points: tuple[tuple[dt.datetime, float, str], ...]
    """Time, value, and what is said of it."""


def dates_charts(numbers: Sequence[Numbers]) -> str:
    """A chart for each question that was answered on two dates or more by one sensor; empty where none was."""
    return "".join(_chart(list(rows)) for _, rows in groupby(numbers, lambda row: row.query_key))


def series(rows: Sequence[Numbers]) -> list[list[Numbers]]:
    """Answered single observations by sensor, only of sensors with two times or more."""
    own = [row for row in rows if row.start and row.answered and not row.is_pair]
    sensors = dict.fromkeys(row.sensor for row in own)
    found = [[row for row in own if row.sensor == sensor] for sensor in sensors]
    return [_thinned(mine) for mine in found if len({row.start for row in mine}) > 1]


def _thinned(rows: list[Numbers]) -> list[Numbers]:
    if len(rows) <= MAX_DATES:
        return rows
    return [rows[round(step * (len(rows) - 1) / (MAX_DATES - 1))] for step in range(MAX_DATES)]


def _chart(rows: Sequence[Numbers]) -> str:
    found = series(rows)
    lines = [line for mine in found for line in _lines(mine, several=len(found) > 1)]
    lines = sorted(lines, key=lambda line: -max(value for _, value, _ in line.points))[:MAX_LINES]
    if not lines:
        return ""
    unit = measured(found[0][0])[0]
    key = "".join(
        f'<li><svg width="34" height="12" aria-hidden="true"><line x1="1" x2="33" y1="6" y2="6" stroke="{line.colour}" '
        f'stroke-width="2.5" stroke-dasharray="{line.dash}"/>{_marker(17, 6, number, line.colour)}</svg> '
        f"{escaped(line.name)}</li>"
        for number, line in enumerate(lines)
    )
    return (
        f"<figure><figcaption>{escaped(rows[0].text)} <span class='quiet'>{escaped(unit)}</span></figcaption>"
        f"{_svg(lines, unit, rows[0].text)}<ul class='key'>{key}</ul></figure>"
    )


def _lines(rows: Sequence[Numbers], *, several: bool) -> list[_Line]:
    at = [(row, {one.answer: one for one in measured(row)[1]}) for row in rows]
    names = list(
        dict.fromkeys(name for row, values in at for name in values if row.task != "presence" or name == "yes")
    )
    result = []
    for name in names:
        points = tuple(
            (row.start, values[name].value if name in values else 0.0, f"{row.date}: {_said(values, name)}")
            for row, values in at
            if row.start
        )
        one = next(values[name] for _, values in at if name in values)
        label = f"{name}, {rows[0].sensor}" if several else name
        result.append(_Line(name=label, colour=_colour(one), dash="", points=points))
    return [
        _Line(name=line.name, colour=line.colour, dash=DASHES[number % len(DASHES)], points=line.points)
        for number, line in enumerate(result)
    ]


def _said(values: dict[str, Measured], name: str) -> str:
    return f"{name} {values[name].text}" if name in values else f"no {name}"


def _svg(lines: Sequence[_Line], unit: str, text: str) -> str:
    times = [time.timestamp() for line in lines for time, _, _ in line.points]
    first, last = min(times), max(times)
    most = max(value for line in lines for _, value, _ in line.points) or 1.0
    steps = _steps(1.0 if unit.startswith("share") and most > 0.5 else most)
    top = max(steps[-1], most)

    def x(time: dt.datetime) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (time.timestamp() - first) / ((last - first) or 1.0)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - value / top)

    ruled = "".join(
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(step):.1f}" y2="{y(step):.1f}" class="rule"/>'
        f'<text x="{LEFT - 8}" y="{y(step) + 4:.1f}" text-anchor="end">{_tick(step, unit)}</text>'
        for step in steps
    )
    parts = []
    for number, line in enumerate(lines):
        places = [(x(time), y(value), said) for time, value, said in line.points]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b, _ in places)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{line.colour}" stroke-width="2.2" '
            f'stroke-dasharray="{line.dash}"/>'
        )
        parts += [
            f"<g class='dot'>{_marker(a, b, number, line.colour)}<title>{escaped(said)}</title></g>"
            for a, b, said in places
        ]
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escaped(text)}: by date">{ruled}'
        f"{_dates(lines, x)}{''.join(parts)}</svg>"
    )


def _dates(lines: Sequence[_Line], x: Callable[[dt.datetime], float]) -> str:
    days = {f"{time:%Y-%m-%d}": time for line in lines for time, _, _ in line.points}
    times, shown = sorted(days.values()), list[dt.datetime]()
    for time in (times[0], times[-1], *times[1:-1]):
        if all(abs(x(time) - x(other)) > DATE_WIDTH for other in shown):
            shown.append(time)
    ends = {times[0]: "start", times[-1]: "end"}
    return "".join(
        f'<text x="{x(time):.1f}" y="{HEIGHT - 8}" text-anchor="{ends.get(time, "middle")}">{time:%Y-%m-%d}</text>'
        for time in shown
    )


def _steps(most: float) -> list[float]:
    """Nought and round numbers up to `most` or just above it: five or fewer steps."""
    power = 10.0 ** math.floor(math.log10(most / 4))
    step = next(power * factor for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if power * factor >= most / 4 * 0.999)
    return [step * number for number in range(math.ceil(most / step - 1e-9) + 1)]


def _tick(value: float, unit: str) -> str:
    return f"{100 * value:g} %" if unit.startswith("share") else f"{value:,g}"


def _marker(x: float, y: float, number: int, colour: str) -> str:
    style = f'fill="{colour}" stroke="#fff" stroke-width="1"'
    shape = number % 3
    if shape == 1:
        return f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" {style}/>'
    if shape == 2:
        return f'<path d="M{x:.1f} {y - 5:.1f}l5 9h-10z" {style}/>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" {style}/>'


# ── what was seen ────────────────────────────────────────────────────────────────────────────────────────────

MAX_ROWS = 40
"""Observations whose coverage is drawn; the table of every observation has all."""


def coverage_bars(numbers: Sequence[Numbers]) -> str:
    """For each question and observation how many tiles were answered, skipped and failed, and how much was seen."""
    shown = numbers if len(numbers) <= MAX_ROWS else [*numbers[: MAX_ROWS // 2], *numbers[-MAX_ROWS // 2 :]]
    lines = "".join(_coverage_line(row) for row in shown)
    left_out = len(numbers) - len(shown)
    note = f'<p class="quiet">{left_out:,} more are in the table of every observation.</p>' if left_out else ""
    key = "".join(f'<li><span class="share {kind}"></span> {kind}</li>' for kind in ("answered", "skipped", "failed"))
    return f'<table class="bars shares">{lines}</table><ul class="key">{key}</ul>{note}'


def _coverage_line(row: Numbers) -> str:
    counts = {"answered": row.answered, "skipped": row.skipped, "failed": row.failed}
    whole = max(1, sum(counts.values()))
    said = ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)
    bars = "".join(
        f'<span class="share {kind}" style="width:{100 * count / whole:.2f}%"></span>' for kind, count in counts.items()
    )
    share = f" ({format_share(row.seen_km2 / row.area_km2)})" if row.area_km2 else ""
    about = " · ".join(part for part in (row.date if row.start else "", row.sensor) if part)
    return (
        f'<tr><th scope="row">{escaped(row.text)}<br/><span class="quiet">{escaped(about)}</span></th>'
        f'<td class="g"><span class="stack" role="img" aria-label="{said}" title="{said}">{bars}</span>'
        f'<span class="quiet">{said}; {format_km2(row.seen_km2)} of {format_km2(row.area_km2)} seen{share}</span>'
        "</td></tr>"
    )
