from __future__ import annotations

import dataclasses
import datetime as dt
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap.outputs.charts import (
    MAX_BARS,
    MAX_DATES,
    MAX_ROWS,
    _steps,
    answers_table,
    coverage_bars,
    dates_charts,
    measured,
)
from earthmap.outputs.numbers import Numbers, format_answer, read_numbers
from tests.outputs import drawn_results as drawn

HOSTILE = "</svg><script>window.owned = 1</script>"


def parsed(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(f"<div>{text}</div>")


def water(dates: int) -> list[Numbers]:
    return read_numbers(drawn.water_results(dates)[2])


def test_bars_are_as_long_as_their_numbers() -> None:
    row = dataclasses.replace(water(1)[0], km2={"water": 2.0, "bare": 8.0, "snow": 0.0})
    tree = parsed(answers_table([row]))
    names = [node.text for node in tree.iter("th")]
    styles = [node.get("style", "") for node in tree.iter("span") if node.get("class") == "bar"]
    widths = [float(style.removeprefix("width:").partition("%")[0]) for style in styles]
    assert names == ["bare", "water", "snow"]
    assert widths == [100.0, 25.0, 0.0]


def test_of_very_many_answers_the_rest_is_one_bar() -> None:
    row = dataclasses.replace(water(1)[0], km2={f"class {number}": float(number) for number in range(40)})
    names = [node.text for node in parsed(answers_table([row])).iter("th")]
    assert len(names) == MAX_BARS
    assert names[-1] == "33 more"


def test_a_chart_for_each_question_of_several_dates() -> None:
    assert dates_charts(water(1)) == ""
    rows = water(5)
    tree = parsed(dates_charts(rows))
    said = [node.text or "" for node in tree.iter("title")]
    assert [text[:10] for text in said] == [f"{row.start:%Y-%m-%d}" for row in rows if row.start]
    points = [float(place.split(",")[1]) for place in next(tree.iter("polyline")).get("points", "").split()]
    assert points == sorted(points)  # downwards: the drawn lake shrinks
    assert points[0] < points[-1]


def test_sensors_are_lines_of_their_own_with_other_marks_and_dashes() -> None:
    rows = water(2)
    later = [row.start + dt.timedelta(hours=1) for row in rows if row.start]
    radar = [
        dataclasses.replace(row, sensor="sentinel-1-db", start=start) for row, start in zip(rows, later, strict=True)
    ]
    tree = parsed(dates_charts([*rows, *radar]))
    lines = list(tree.iter("polyline"))
    assert len(lines) == 2
    marks = [next(iter(dot)).tag for dot in tree.iter("g")]
    assert marks == ["circle", "circle", "rect", "rect"]
    names = [("".join(node.itertext())).strip() for node in tree.iter("li")]
    assert names == ["water, sentinel-2-l2a", "water, sentinel-1-db"]


def test_a_long_series_is_thinned_and_keeps_its_ends() -> None:
    first = water(1)[0]
    assert first.start is not None
    rows = [dataclasses.replace(first, start=first.start + dt.timedelta(days=day)) for day in range(1000)]
    said = [node.text or "" for node in parsed(dates_charts(rows)).iter("title")]
    assert len(said) == MAX_DATES
    assert said[0].startswith("2024-05-04")
    assert said[-1].startswith(f"{rows[-1].start:%Y-%m-%d}")


def test_tiles_and_shares_are_measured_as_what_they_are() -> None:
    snow, vegetation = read_numbers(drawn.presence_results()[2])
    unit, found = measured(snow)
    assert unit == "tiles"
    assert [(one.answer, one.value) for one in found] == [("yes", 25.0), ("no", 72.0)]
    unit, found = measured(vegetation)
    assert unit == "share of the seen ground"
    assert found[0].value == pytest.approx(vegetation.fraction)


def test_things_are_counted_and_shown_as_such() -> None:
    summary = drawn.water_results(1)[2]
    summary["queries"][0]["task"] = "detect"
    seen = summary["queries"][0]["observations"][0]
    del seen["km2"]
    seen.update(count={"car": 3, "ship": 12, "<b>": 0}, total=15)
    row = read_numbers(summary)[0]
    assert format_answer(row) == "12 × ship, 3 × car, 0 × <b>, in 34.9 km² seen"
    unit, found = measured(row)
    assert (unit, [(one.answer, one.text) for one in found]) == ("things", [("ship", "12"), ("car", "3"), ("<b>", "0")])
    assert format_answer(dataclasses.replace(row, things={})) == "nothing, in 34.9 km² seen"


def test_coverage_adds_up_and_stays_short() -> None:
    row = water(1)[0]
    styles = [node.get("style", "") for node in parsed(coverage_bars([row])).iter("span") if node.get("style")]
    shares = [float(style.removeprefix("width:").removesuffix("%")) for style in styles]
    assert shares == pytest.approx([97.0, 2.0, 1.0])
    tree = parsed(coverage_bars([row] * 500))
    assert len(list(tree.iter("tr"))) == MAX_ROWS
    assert "460 more" in "".join(tree.itertext())


def test_no_text_becomes_markup() -> None:
    rows = [dataclasses.replace(row, text=HOSTILE, sensor=HOSTILE, km2={HOSTILE: 1.0}) for row in water(3)]
    for made in (answers_table(rows), dates_charts(rows), coverage_bars(rows)):
        assert HOSTILE in "".join(parsed(made).itertext())
        assert not list(parsed(made).iter("script"))


@given(st.floats(1e-6, 1e9))
def test_ticks_are_few_and_reach_the_largest_value(most: float) -> None:
    steps = _steps(most)
    assert 2 <= len(steps) <= 6
    assert steps[0] == 0.0
    assert most * 0.999 <= steps[-1] <= most * 2.6
