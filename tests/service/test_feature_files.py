"""Features by page from a GeoParquet file: the truth is a loop over all of them."""

from __future__ import annotations

import datetime
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from earthmap.catalog import Interval
from earthmap.outputs import geoparquet
from earthmap.pipeline import Run
from earthmap.service import feature_files
from earthmap.service.feature_files import FeatureFile, Wanted, open_features
from earthmap.service.parameters import Box
from earthmap.storage import Storage
from tests.pipeline.finished import finished_run
from tests.service.finished_jobs import DATE, SUMMARY, found, frame, seen

ROWS = 230
DAY = datetime.timedelta(days=1)


def _drawn() -> list[dict[str, Any]]:
    """Triangles on both sides of the antimeridian, some across it, some nowhere, some at no time."""
    draw, rows = np.random.default_rng(5), []
    for number in range(ROWS):
        x, y = draw.uniform(178, 182), draw.uniform(-2, 2)
        corners = np.array([(x, y), (x + draw.uniform(0, 0.3), y), (x, y + draw.uniform(0, 0.3))])
        shape = shapely.Polygon(corners)
        parts = [shape.intersection(shapely.box(0, -90, 180, 90))]
        parts.append(shapely.transform(shape.intersection(shapely.box(180, -90, 200, 90)), lambda at: at - (360, 0)))
        kept = [part for part in parts if part.area > 0]
        geometry = kept[0] if len(kept) == 1 else shapely.MultiPolygon(kept)
        date = None if number % 17 == 3 else DATE + (number % 10) * DAY
        answer = ("water", "ship", "snow ☃")[number % 3]
        rows.append(
            found(
                None if number % 23 == 7 else geometry, answer=answer, datetime_min=date, datetime_max=date,
                footprint=number % 5 if number % 2 else None, probability=number / ROWS,
            )
        )  # fmt: skip
    return rows


DRAWN = _drawn()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose features lie in several row groups."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(geoparquet, "ROW_GROUP_ROWS", 50)
        folder = tmp_path_factory.mktemp("run")
        return finished_run(folder, frame(DRAWN), frame([seen(shapely.box(178, -2, 180, 2))]), SUMMARY)


def _open(run: Run, path: str = "features.parquet") -> Any:
    return open_features(Storage(run.address), path, "summary.json")


def _truth(wanted: Wanted) -> list[int]:
    """Ids of the features that are meant, one after the other."""
    found = []
    for number, row in enumerate(DRAWN, 1):
        shape, date = row["geometry"], row["datetime_min"]
        near = not wanted.boxes or shape is None or any(shape.intersects(shapely.box(*box)) for box in wanted.boxes)
        then = wanted.interval is None or date is None or wanted.interval.overlaps(Interval(start=date, end=date))
        if near and then and all(str(row[name]) == text for name, text in wanted.equal):
            found.append(number)
    return found


def _ids(file: FeatureFile, wanted: Wanted, *, limit: int) -> list[int]:
    """Ids of all pages."""
    found, after = [], 0
    while True:
        page = file.page(wanted, limit=limit, after=after)
        assert len(page.features) <= limit
        found += [json.loads(text)["id"] for text in page.features]
        assert page.matched == len(_truth(wanted))
        if page.is_last:
            return found
        assert page.last == found[-1]
        after = page.last


_LON, _LAT = st.floats(178, 180) | st.floats(-180, -178) | st.just(180.0), st.floats(-2, 2)
_BOX = st.tuples(_LON, _LON, _LAT, _LAT).map(lambda b: (min(b[:2]), min(b[2:]), max(b[:2]), max(b[2:])))
_TIME = st.none() | st.integers(-2, 12).map(lambda day: DATE + day * DAY)


@st.composite
def _wanted(draw: st.DrawFn) -> Wanted:
    boxes: Sequence[Box] = draw(st.lists(_BOX, max_size=2))
    start, end = draw(_TIME), draw(_TIME)
    ordered = start is None or end is None or start <= end
    both = (("answer", "snow ☃"), ("footprint", "3"))
    equal = draw(st.sampled_from([(), (("answer", "ship"),), both, (("task", "nothing"),)]))
    return Wanted(boxes=tuple(boxes), interval=Interval(start=start, end=end) if ordered else None, equal=equal)


@settings(max_examples=50)
@given(wanted=_wanted(), limit=st.integers(3, 100))
def test_pages_are_what_a_loop_finds(run: Run, wanted: Wanted, limit: int) -> None:
    with _open(run) as file:
        assert _ids(file, wanted, limit=limit) == _truth(wanted)


def test_row_groups_elsewhere_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geoparquet, "ROW_GROUP_ROWS", 10)
    rows = [found(shapely.box(x, 10, x + 0.5, 10.5)) for x in range(60)]
    run = finished_run(tmp_path, frame(rows), frame([seen(shapely.box(0, 10, 60, 10.5))]), SUMMARY)
    with _open(run) as file:
        tables: list[int] = []
        monkeypatch.setattr(FeatureFile, "_meets", lambda self, group, *_: tables.append(group) or np.ones(10, bool))
        assert file.page(Wanted(boxes=((19.7, 10.0, 20.2, 11.0),)), limit=50).matched == 10
        assert tables == [2]
        assert file.page(Wanted(boxes=((-180.0, 10.6, 180.0, 90.0),)), limit=5).matched == 0
        assert tables == [2]


def test_a_feature_is_found_by_its_id(run: Run) -> None:
    with _open(run) as file:
        for number in (1, 50, 51, ROWS):
            feature = json.loads(file.one(number) or "")
            assert feature["id"] == number
            assert feature["properties"]["probability"] == DRAWN[number - 1]["probability"]
        assert file.one(0) is None
        assert file.one(ROWS + 1) is None
        assert file.page(Wanted(), limit=5, after=10**15).features == ()


def test_geojson_is_as_rfc_7946_says(run: Run) -> None:
    with _open(run) as file:
        texts = file.page(Wanted(), limit=ROWS).features
    for text, row in zip(texts, DRAWN, strict=True):
        feature = json.loads(text)
        assert set(feature) == {"type", "id", "geometry", "properties"}
        if row["geometry"] is None:
            assert feature["geometry"] is None
            continue
        shape = shapely.geometry.shape(feature["geometry"])
        places = shapely.get_coordinates(shape)
        assert np.array_equal(places, np.round(places, 7))
        assert np.abs(places[:, 0]).max() <= 180
        assert all(part.exterior.is_ccw for part in shapely.get_parts(shape))
        assert all(part.bounds[2] - part.bounds[0] < 1 for part in shapely.get_parts(shape))  # cut at the antimeridian
        assert shapely.hausdorff_distance(shape, row["geometry"]) < 1e-7


def test_properties_are_json_and_say_nothing_of_what_is_never_there(run: Run) -> None:
    with _open(run) as file:
        first, late = json.loads(file.one(1) or "")["properties"], json.loads(file.one(4) or "")["properties"]
    assert first["datetime_min"] == "2024-06-01T10:30:00Z"
    assert first["footprint"] is None
    assert late["datetime_min"] is None
    assert first["date_and_sensor"] == "2024-06-01, sentinel-2-l2a"
    assert not {"embedding", "bbox", "grade_xbd", "speed_m_s"} & set(first)


def test_coverage_says_which_question_it_is_about(run: Run) -> None:
    with _open(run, "coverage.parquet") as file:
        assert json.loads(file.one(1) or "")["properties"]["query"] == "Where is water?"
        assert {"status", "reason", "audited", "tile_id"} <= set(file.filters)
        assert "seen_share" not in file.filters


def test_a_page_is_bounded_in_bytes_and_the_next_goes_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_files, "PAGE_BYTES", 2_000)
    with _open(run) as file:
        page = file.page(Wanted(), limit=ROWS)
        assert 1 < len(page.features) < 10
        assert not page.is_last
        assert _ids(file, Wanted(), limit=ROWS) == list(range(1, ROWS + 1))


def test_a_text_that_is_no_value_of_a_column_matches_nothing(run: Run) -> None:
    with _open(run) as file:
        for name, text in (("footprint", "three"), ("footprint", "9" * 40), ("answer", "ship\0"), ("footprint", "")):
            assert file.page(Wanted(equal=((name, text),)), limit=5).matched == 0


def test_a_file_elsewhere_is_read_by_parts(run: Run) -> None:
    storage = Storage(run.address)
    remote = feature_files._Remote(storage, "features.parquet")
    whole = storage.read("features.parquet")
    assert remote.seek(-4, io.SEEK_END) == len(whole) - 4
    assert remote.read() == b"PAR1"
    assert remote.read(1) == b""
    buffered = io.BufferedReader(feature_files._Remote(storage, "features.parquet"), 1000)
    assert pq.read_table(buffered).equals(pq.read_table(Path(run.address) / "features.parquet"))


def test_no_file_is_told(run: Run) -> None:
    with pytest.raises(FileNotFoundError), _open(run, "nothing.parquet"):
        pass


def test_counts_are_kept_within_bounds() -> None:
    counts = feature_files._Counts(3)
    for number in range(10):
        counts.put(number, number)
    assert [counts.get(number) for number in range(10)] == [None] * 7 + [7, 8, 9]
