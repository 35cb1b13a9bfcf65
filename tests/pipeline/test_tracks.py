"""What is followed through time over an area, from the catalogue to the run folder, without Ray."""

from __future__ import annotations

import datetime
import io
import json
from pathlib import Path
from typing import Any

import geopandas
import pytest

from earthmap.errors import JobError
from earthmap.metrics import score_identities
from earthmap.pipeline import Run, make_plan, parse_job
from earthmap.pipeline.class_maps import choose_layer
from earthmap.pipeline.export import export_run
from earthmap.pipeline.folder import COVERAGE_PATH, FEATURES_PATH, LEDGER_PATH
from earthmap.pipeline.plan import MAX_DATES, Plan, ledger_name, plan_again, read_plan
from earthmap.synthetic import World, sea_world, write_world
from tests.merge.tracks import found_tracks, true_tracks
from tests.pipeline.cells import run_here

TRACK = "Track the ships"


@pytest.fixture(scope="module")
def world() -> World:
    """Open sea over the border of two zones, on four dates."""
    return sea_world(4, place=(6.0, 45.7), size_m=2400.0, dates=4, ships=0.4)


@pytest.fixture(scope="module")
def catalog(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(world, tmp_path_factory.mktemp("sea"), sensors=("sentinel-2",), columns=1)


def job_of(world: World, catalog: Path, out: Path, **changes: Any) -> Any:
    values = {
        "area": world.area, "catalog": str(catalog), "queries": [TRACK], "predictor": "oracle", "tile_size": 224,
        "out": str(out),
    }  # fmt: skip
    return parse_job({**values, **changes})


@pytest.fixture(scope="module")
def run(world: World, catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_here(job_of(world, catalog, tmp_path_factory.mktemp("run") / "run"))


def features_of(run: Run) -> geopandas.GeoDataFrame:
    return geopandas.read_parquet(io.BytesIO(run.storage.read(FEATURES_PATH)))


@pytest.mark.slow
def test_each_ship_has_its_track(run: Run, world: World) -> None:
    features = features_of(run)
    found, true = found_tracks(features, world), true_tracks(world, world.area)
    score = score_identities(found, true)
    assert len(found) == len(true) > 15
    assert score.f1 == 1.0
    assert {"LineString", "Point"} == set(features.geometry.geom_type)
    assert (features["probability"] == 1.0).all()


@pytest.mark.slow
def test_the_ledger_names_a_series_and_the_plan_knows_its_dates(run: Run) -> None:
    plan = read_plan(run.storage)
    assert isinstance(plan, Plan)
    names = {tuple(question.observations) for work in plan.work() for question in work.questions}
    assert {len(of) for of in names} == {4}
    ledger = geopandas.pd.read_parquet(io.BytesIO(run.storage.read(LEDGER_PATH)))
    (name,) = {ledger_name(of) for of in names}
    assert set(ledger["observation"]) == {name}
    assert name.endswith(" of 4")
    assert plan.named(name) == tuple(sorted(next(iter(names))))
    (single, *_) = plan.observations
    assert plan.named(single) == (single,)


@pytest.mark.slow
def test_the_summary_and_the_page_say_how_many_moved(run: Run) -> None:
    (query,) = run.summary["queries"]
    (layer,) = query["observations"]
    features = features_of(run)
    moved = int((features["length_m"] > 0).sum())
    assert layer["tracks"]["ship"]["moved"] == moved > 0
    assert sum(layer["tracks"]["ship"].values()) == layer["total"] == len(features)
    page = run.storage.read("report.html").decode()
    assert f"{moved} moved" in page
    assert "seen on 4 dates" in page
    assert run.storage.read("preview.png").startswith(b"\x89PNG")
    item = json.loads(run.storage.read("item.json"))
    assert item["properties"]["start_datetime"] < item["properties"]["end_datetime"]


@pytest.mark.slow
def test_tracks_are_not_sampled(run: Run) -> None:
    with pytest.raises(JobError, match="counted over many dates, and people label one"):
        choose_layer(run)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["geojson", "kml", "gpkg", "fgb"])
def test_other_programs_get_times_as_text(run: Run, form: str, tmp_path: Path) -> None:
    path = export_run(run, to=form, out=str(tmp_path / f"tracks.{form}"))
    if form == "geojson":
        (first, *_) = json.loads((tmp_path / "tracks.geojson").read_text())["features"]
        assert first["properties"]["times"][0].endswith("Z")
    assert path


@pytest.mark.slow
def test_a_date_that_is_damaged_is_left_out_and_named(tmp_path: Path) -> None:
    world = sea_world(4, size_m=1200.0, dates=3, ships=0.6)
    catalog = write_world(world, tmp_path / "sea", sensors=("sentinel-2",), columns=1)
    (_, second, *_) = sorted((tmp_path / "sea" / "drawn-sentinel-2-l2a").glob("drawn*"))
    for file in second.glob("*.tif"):
        file.write_bytes(b"II*\0 nothing of a picture")
    run = run_here(job_of(world, catalog, tmp_path / "run"))
    true = true_tracks(world, world.area, hidden=(1,))
    assert score_identities(found_tracks(features_of(run), world), true).f1 == 1.0
    (layer,) = run.summary["queries"][0]["observations"]
    assert any(note.startswith("1 of 3 dates are left out") for note in layer["notes"])
    coverage = geopandas.read_parquet(io.BytesIO(run.storage.read(COVERAGE_PATH)))
    assert set(coverage["status"]) <= {"answered", "skipped"}  # slivers at the world's edge show nothing
    assert coverage["message"][coverage["status"] == "answered"].notna().all()


# ── what is planned ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def pond() -> World:
    """A little water on more dates than are looked at; an aircraft passes every hour."""
    return sea_world(1, size_m=240.0, dates=24, gap=datetime.timedelta(hours=1), ships=0.0)


@pytest.fixture(scope="module")
def passes(pond: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(pond, tmp_path_factory.mktemp("pond"), sensors=("rgb",), columns=1)


def test_one_date_is_refused_before_anything_is_read(pond: World, passes: Path, tmp_path: Path) -> None:
    day = f"{pond.dates[5]:%Y-%m-%dT%H:%M:%SZ}/{pond.dates[5]:%Y-%m-%dT%H:59:59Z}"
    with pytest.raises(JobError, match="asked along a series, and no ground of the area has two dates"):
        make_plan(job_of(pond, passes, tmp_path / "run", datetime=day))
    assert not (tmp_path / "run").exists()


def test_of_many_dates_some_at_even_steps_are_looked_at(pond: World, passes: Path, tmp_path: Path) -> None:
    plan = make_plan(job_of(pond, passes, tmp_path / "run"))
    (row,) = plan.table.to_pylist()
    assert (len(row["observations"]), row["passed_over"]) == (MAX_DATES, 24 - MAX_DATES)
    assert row["observations"] == sorted(row["observations"])
    whole = make_plan(job_of(pond, passes, tmp_path / "run", queries=["Find the ships"], scenes="all"))
    names = sorted(name for one in whole.table.to_pylist() for name in one["observations"])
    assert (row["observations"][0], row["observations"][-1]) == (names[0], names[-1])


def test_two_dates_are_a_series_and_named_as_a_pair(pond: World, passes: Path, tmp_path: Path) -> None:
    span = f"{pond.dates[5]:%Y-%m-%dT%H:%M:%SZ}/{pond.dates[6]:%Y-%m-%dT%H:%M:%SZ}"
    plan = make_plan(job_of(pond, passes, tmp_path / "run", datetime=span, queries=[TRACK]))
    (work,) = plan.work()
    (question,) = work.questions
    assert question.observation == "..".join(question.observations)
    assert plan.named(question.observation) == question.observations
    assert len(question.observations) == 2


def test_a_question_names_the_time_of_its_series(pond: World, passes: Path, tmp_path: Path) -> None:
    first, last = (f"{pond.dates[number]:%Y-%m-%dT%H:%M:%SZ}" for number in (3, 10))
    asked = [{"text": TRACK, "before": f"{first}/..", "after": f"../{last}"}]
    (row,) = make_plan(job_of(pond, passes, tmp_path / "run", queries=asked)).table.to_pylist()
    assert (len(row["observations"]), row["passed_over"]) == (8, 0)


def test_another_question_looks_at_the_same_dates(pond: World, passes: Path, tmp_path: Path) -> None:
    earlier = make_plan(job_of(pond, passes, tmp_path / "run"))
    again = plan_again(job_of(pond, passes, tmp_path / "more", queries=["Track all ships"]), earlier)
    same = ("observations", "passed_over")
    assert again.table.select(same).to_pylist() == earlier.table.select(same).to_pylist()
    (found,) = plan_again(
        job_of(pond, passes, tmp_path / "more", queries=["Find the ships"]), earlier
    ).table.to_pylist()
    assert len(found["observations"]) == 1
    single = make_plan(job_of(pond, passes, tmp_path / "one", queries=["Find the ships"]))
    with pytest.raises(JobError, match="looks at two dates of one sensor"):
        plan_again(job_of(pond, passes, tmp_path / "more"), single)
