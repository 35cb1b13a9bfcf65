"""A reliability diagram shows what a temperature does: points, whiskers and numbers; nothing where none is fitted."""

from __future__ import annotations

import dataclasses
import re
from xml.etree import ElementTree

from earthmap.metrics.intervals import wilson
from earthmap.model.evidence import Bin, Calibration, Change
from earthmap.outputs.reliability import LEFT, NUDGE, SIDE, TOP, reliability_section

CALIBRATION = Calibration(
    task="presence", sensor="sentinel-2-l2a", temperature=1.4, domain="256 drawn tiles, <b>here</b>", fitted=210,
    tested=130, places=90,
    log_loss=Change(before=0.5, after=0.4, low=-0.15, high=-0.05),
    error=Change(before=0.1, after=0.05, low=-0.09, high=0.01),
    before=(Bin(stated=0.55, right=12, answers=30), Bin(stated=0.95, right=80, answers=100)),
    after=(Bin(stated=0.52, right=12, answers=30), Bin(stated=0.82, right=80, answers=100)),
)  # fmt: skip


def _svgs(html: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(svg) for svg in re.findall(r'<svg class="chart".*?</svg>', html, re.DOTALL)]


def test_each_point_stands_where_its_numbers_say() -> None:
    (svg,) = _svgs(reliability_section([CALIBRATION]))
    dots = [group for group in svg.iter("g") if group.get("class") == "dot"]
    assert len(dots) == 4
    last = dots[-1]
    mark, line = last.find("circle"), last.find("line")
    assert mark is not None
    assert line is not None
    assert float(mark.get("cx", 0)) == LEFT + round(SIDE * 0.82, 1) + NUDGE
    assert float(mark.get("cy", 0)) == TOP + round(SIDE * 0.2, 1)
    low, high = wilson(80, 100)
    assert float(line.get("y1", 0)) == round(TOP + SIDE * (1 - low), 1)
    assert float(line.get("y2", 0)) == round(TOP + SIDE * (1 - high), 1)
    title = last.find("title")
    assert title is not None
    assert title.text == "after: stated 0.82, right 80 of 100"


def test_it_is_said_what_was_fitted_on_what_and_nothing_becomes_markup() -> None:
    html = reliability_section([CALIBRATION, dataclasses.replace(CALIBRATION, sensor=None)])
    assert "Temperature 1.40, from 210 answers; here 130 others about 90 places" in html
    assert "Log loss 0.500 → 0.400 (difference -0.150 to -0.050)" in html
    assert "presence, all ways of seeing" in html
    assert "<b>here" not in html
    assert html.count("<table>") == 2
    assert html.count("80 of 100") == 2 * (2 + 2)


def test_nothing_is_drawn_where_nothing_is_calibrated() -> None:
    assert reliability_section([]) == ""
