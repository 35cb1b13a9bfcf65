"""Tracks on page, map and picture: lines with a head, their way where one points, and how many moved."""

from __future__ import annotations

import datetime as dt
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely

from earthmap.outputs.drawing import in_one_piece
from earthmap.outputs.hover import said_of
from earthmap.outputs.numbers import date_label, format_answer, headlines, read_numbers

START = dt.datetime(2024, 5, 4, 10, 50, tzinfo=dt.UTC)
TIMES = [START + number * dt.timedelta(minutes=2) for number in range(4)]


def tracks() -> geopandas.GeoDataFrame:
    common = {
        "query": "Track the ships", "query_key": "q", "task": "track", "answer": "ship", "probability": 1.0,
        "fraction": None, "area_m2": np.nan, "sensor": "sentinel-2-l2a", "scenes": ["a"], "notes": [],
        "datetime_min": TIMES[0], "datetime_max": TIMES[-1],
    }  # fmt: skip
    ways = [
        (shapely.LineString([(6.0, 45.0), (6.01, 45.0), (6.02, 45.01)]), TIMES[:3], 1912.0, 7.97),
        (shapely.Point(6.01, 45.02), TIMES, 0.0, 0.0),
        (shapely.Point(6.03, 45.02), TIMES[:1], np.nan, np.nan),
    ]
    rows = [
        {**common, "geometry": shape, "times": times, "length_m": length, "speed_m_s": speed}
        for shape, times, length, speed in ways
    ]
    return geopandas.GeoDataFrame(rows, geometry="geometry", crs="EPSG:4326")


def summary(counts: dict[str, int]) -> dict[str, Any]:
    seen = {
        "observation": "a..d of 4", "sensor": "sentinel-2-l2a", "datetime_min": TIMES[0].isoformat(),
        "datetime_max": TIMES[-1].isoformat(), "answered": 4, "planned": 4, "area_km2": 9.0, "seen_km2": 9.0,
        "count": {"ship": sum(counts.values())}, "tracks": {"ship": counts}, "notes": [],
    }  # fmt: skip
    query = {"query_key": "q", "text": "Track the ships", "task": "track", "targets": ["ship"]}
    return {"planned": 4, "answered": 4, "queries": [{**query, "observations": [seen]}]}


def test_pointing_at_a_track_says_its_dates_its_way_and_its_speed() -> None:
    said = said_of(tracks())
    assert said["answer"] == [
        "ship, seen on 3 dates, 1,912 m, 7.97 m/s", "ship, seen on 4 dates, not moved", "ship, seen once",
    ]  # fmt: skip
    assert said["date"][0] == "2024-05-04 10:50 → 10:56 UTC"


def test_the_sentence_says_how_many_moved() -> None:
    told = summary({"moved": 2, "stood": 1, "seen_once": 0})
    (row,) = read_numbers(told)
    assert format_answer(row) == "3 × ship (2 moved, 1 stood, 0 seen once), in 9.00 km² seen"
    assert "10:50 → 10:56 UTC" in headlines(told)[0]
    (none,) = read_numbers(summary({"moved": 0, "stood": 0, "seen_once": 0}))
    assert format_answer(none) == "0 × ship, in 9.00 km² seen"


def test_lines_are_strips_that_end_in_a_head() -> None:
    features = tracks()
    coverage = geopandas.GeoDataFrame(geometry=[shapely.box(5.99, 44.99, 6.04, 45.03)], crs="EPSG:4326")
    drawn, *_ = in_one_piece(features, coverage, [])
    assert {shape.geom_type for shape in drawn} == {"Polygon"}
    line = drawn[0]
    start, end = (shapely.Point(line_end).buffer(1e-4) for line_end in ((6.0, 45.0), (6.02, 45.01)))
    reach = [shapely.intersection(line, place.buffer(6e-4)).area for place in (start, end)]
    assert reach[1] > 1.5 * reach[0]


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (START + dt.timedelta(minutes=6), "2024-05-04 10:50 → 10:56 UTC"),
        (START + dt.timedelta(days=35), "2024-05-04 → 2024-06-08"),
        (None, "2024-05-04"),
    ],
)
def test_several_dates_of_one_day_have_their_hours(end: dt.datetime | None, expected: str) -> None:
    assert date_label(START, end, pair=True) == expected
