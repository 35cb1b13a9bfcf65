"""Another question about the ground of a run: it looks at what the run looked at, reads nothing, and is kept beside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import shapely

from earthmap import cli
from earthmap.errors import JobError, QueryError
from earthmap.grid import AreaOfInterest
from earthmap.pipeline import Run, ask_run, is_run, make_plan, parse_job, run_job
from earthmap.pipeline.follow_up import follow_up_job
from earthmap.pipeline.plan import plan_again
from earthmap.synthetic import World

DETECTED = {"text": "Where is vegetation?"}


def job_of(world: World, catalog: Path, out: Path, **changes: Any) -> Any:
    west, south, east, north = world.bounds
    area = AreaOfInterest.from_geometry(shapely.box(west, south, east, north).buffer(-900), f"EPSG:{world.epsg}")
    values = {
        "area": area, "catalog": str(catalog), "collections": ["drawn-sentinel-2-l2a"], "predictor": "oracle",
        "tile_size": 128, "queries": ["Where is water?"], "out": str(out),
    }  # fmt: skip
    return parse_job({**values, **changes})


# ── what is looked at ────────────────────────────────────────────────────────────────────────────────────────


def looks(plan: Any) -> dict[str, set[tuple[str, ...]]]:
    return {row["query"]: {tuple(row["observations"])} for row in plan.table.to_pylist()}


def test_one_date_looks_at_what_one_date_looked_at(drawn_world: World, drawn_catalog: Path, tmp_path: Path) -> None:
    job = job_of(drawn_world, drawn_catalog, tmp_path, scenes="latest")
    earlier = make_plan(job)
    again = plan_again(parse_job({**job.to_dict(), "queries": [DETECTED]}), earlier)
    names = ("cell_id", "tiles", "observations", "fallbacks")
    assert again.table.select(names).to_pylist() == earlier.table.select(names).to_pylist()
    assert again.grid == earlier.grid


def test_what_a_run_did_not_look_at_is_not_compared(drawn_world: World, drawn_catalog: Path, tmp_path: Path) -> None:
    job = job_of(drawn_world, drawn_catalog, tmp_path)
    change = parse_job({**job.to_dict(), "queries": ["Where did water appear?"]})
    with pytest.raises(JobError, match="two dates of one sensor"):
        plan_again(change, make_plan(job))
    both = make_plan(job_of(drawn_world, drawn_catalog, tmp_path, scenes="all"))
    table = plan_again(change, both).table.to_pylist()
    assert {len(row["observations"]) for row in table} == {2}
    asked = plan_again(parse_job({**job.to_dict(), "queries": [DETECTED]}), make_plan(change))
    assert {len(row["observations"]) for row in asked.table.to_pylist()} == {1}
    assert {name for row in asked.table.to_pylist() for name in row["observations"]} <= set(both.observations)
    with pytest.raises(JobError, match="none such"):
        plan_again(parse_job({**job.to_dict(), "queries": [{**DETECTED, "sensors": ["sentinel-1-db"]}]}), both)


def test_what_pixels_cannot_show_is_refused_as_by_the_map(
    drawn_world: World, drawn_catalog: Path, tmp_path: Path
) -> None:
    job = job_of(drawn_world, drawn_catalog, tmp_path)
    cars = parse_job({**job.to_dict(), "queries": [{"text": "Find the cars", "task": "detect", "targets": ["car"]}]})
    with pytest.raises(JobError, match="do not show car"):
        plan_again(cars, make_plan(job))


# ── bad input of a change ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ({"before": "2024-08", "after": "2024-06"}, "later than the second"),
        ({"before": "the day before"}, "datetime"),
        ({"before": "2024-05", "task": "segment"}, "looks at one date"),
    ],
    ids=["turned round", "no date", "one date is enough"],
)
def test_dates_of_a_change_are_refused_before_anything_is_searched(
    drawn_world: World, tmp_path: Path, question: dict[str, str], says: str
) -> None:
    nowhere = tmp_path / "no catalogue" / "catalog.json"
    with pytest.raises((QueryError, JobError), match=says):
        job_of(
            drawn_world,
            nowhere,
            tmp_path / "run",
            queries=[{"text": "What changed?", "targets": ["water"], **question}],
        )


@pytest.mark.parametrize(
    ("dates", "reason"),
    [
        ({"before": "2019", "after": "2024-06"}, "one_date"),
        ({"before": "2024-05", "after": "2030"}, "one_date"),
        ({"before": "2024-06", "after": "2024-06"}, "one_date"),
        ({"before": "2024-05/2024-06", "after": "2024-05/2024-06"}, ""),
    ],
    ids=["nothing before", "nothing after", "one date twice", "overlapping"],
)
def test_dates_without_scenes_and_overlapping_dates_are_planned(
    drawn_world: World, drawn_catalog: Path, tmp_path: Path, dates: dict[str, str], reason: str
) -> None:
    plan = make_plan(
        job_of(drawn_world, drawn_catalog, tmp_path, queries=[{"text": "Where did water appear?", **dates}])
    )  # fmt: skip
    rows = plan.table.to_pylist()
    assert {row["unfound"] for row in rows} == {reason}
    for row in rows:
        times = [plan.observations[name].datetime for name in row["observations"]]
        assert times == sorted(set(times))


# ── a run ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def run(drawn_world: World, drawn_catalog: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Run:
    """A run of two dates."""
    return run_job(job_of(drawn_world, drawn_catalog, tmp_path_factory.mktemp("first") / "run", scenes="all"))


def ledger_of(run: Run) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(pa.BufferReader(run.storage.read("ledger.parquet"))).to_pylist()
    return rows


def counted(run: Run) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(run.storage.read("run.json"))
    return {"groups": content["groups"], "parts": content["parts"]}


@pytest.mark.ray
@pytest.mark.timeout(280)
def test_a_follow_up_reads_nothing_and_computes_no_other_answer(run: Run) -> None:
    first = {name: run.storage.read(name) for name in ("run.json", "features.parquet", "ledger.parquet")}
    cells = len(set(run.coverage["tile_id"]))
    again = ask_run(run, [{"text": "Where did water appear?"}, {"text": "Where is water?"}])
    record = counted(again)
    assert record["groups"]["read"] == 0 < record["groups"]["reused"]
    assert record["parts"]["reused"] == counted(run)["parts"]["computed"]
    assert record["parts"]["computed"] * 2 == record["parts"]["reused"]  # a pair where there were two dates
    assert len(again.coverage) == 3 * cells
    assert Path(again.address).parent == Path(run.address) / "asked"
    assert again.summary["queries"][1]["observations"] == run.summary["queries"][0]["observations"]
    assert {name: run.storage.read(name) for name in first} == first
    pairs = {row["pair"] is not None for row in ledger_of(again) if ".." in row["observation"]}
    assert pairs == {True}
    assert set(again.coverage["alignment"].dropna()) <= {"moved", "in place", "unknown"}
    assert again.coverage["alignment"].notna().sum() == cells
    same = ask_run(run, [{"text": "Where did water appear?"}, {"text": "Where is water?"}])
    assert same.address == again.address
    assert counted(same)["parts"]["computed"] == 0


@pytest.mark.ray
@pytest.mark.timeout(280)
def test_the_command_tells_a_run_from_a_tile_of_it(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert is_run(run.address)
    assert not is_run(f"{run.address}/store")
    assert not is_run(str(tmp_path / "nowhere"))
    assert cli.main(["ask", run.address, "Where is vegetation?", "--out", str(tmp_path / "out"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["run"] == str(tmp_path / "out")
    assert said["summary"]["queries"][0]["targets"] == ["vegetation"]
    tile = run.coverage["tile_id"].iloc[0]
    assert cli.main(["ask", run.address, "Where is water?", "--at", tile, "--predictor", "spectral", "--json"]) == 0
    assert "answer" in json.loads(capsys.readouterr().out.splitlines()[-1])
    assert cli.main(["ask", run.address, "Where did water appear?", "--date", "2024-05"]) == 2
    assert "two, between which a change is asked for" in capsys.readouterr().err


def test_who_answers_may_be_another(drawn_world: World, drawn_catalog: Path, tmp_path: Path) -> None:
    class Finished:
        address, job = str(tmp_path / "run"), job_of(drawn_world, drawn_catalog, tmp_path / "run")

    plain = follow_up_job(Finished, [DETECTED], answering={})  # type: ignore[arg-type]
    other = follow_up_job(Finished, [DETECTED], answering={"predictor": "spectral", "out": None})  # type: ignore[arg-type]
    assert (plain.spec.predictor, other.spec.predictor) == ("oracle", "spectral")
    assert plain.store == other.store == str(tmp_path / "run" / "store")
    assert plain.spec.out.startswith(str(tmp_path / "run" / "asked" / "where-is-vegetation-"))
    assert plain.spec.out != other.spec.out
