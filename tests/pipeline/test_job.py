"""A job file says what it means, or what is wrong with it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from earthmap.errors import AreaError, JobError, QueryError
from earthmap.pipeline import parse_job, read_job
from earthmap.pipeline.job import STORAGE

JOB: dict[str, Any] = {
    "area": [10.0, 45.0, 10.5, 45.5],
    "catalog": "catalog.json",
    "queries": ["Where is water?"],
    "out": "runs/one",
}


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    path = tmp_path / "jobs" / "valley.yaml"
    path.write_text(yaml.safe_dump({**JOB, "catalog": "data/catalog.json"}))
    job = read_job(path)
    assert job.spec.catalog == str(tmp_path / "jobs/data/catalog.json")
    assert job.spec.out == str(tmp_path / "jobs/runs/one")


def test_addresses_stay_as_they_are() -> None:
    job = parse_job({**JOB, "catalog": "https://example.org/v1", "out": "s3://bucket/run"}, base=Path("/somewhere"))
    assert (job.spec.catalog, job.spec.out, job.store) == (
        "https://example.org/v1",
        "s3://bucket/run",
        "s3://bucket/run/store",
    )


def test_a_job_survives_its_own_record() -> None:
    job = parse_job({**JOB, "queries": [{"text": "What changed?", "before": "2024-05"}], "datetime": 2024})
    again = parse_job(job.to_dict())
    assert again == job
    assert again.content_key() == job.content_key()


@pytest.mark.parametrize("change", [{"out": "elsewhere"}, {"store": "s"}, {"cluster": "auto"}, {"max_tiles": 5}])
def test_where_and_on_what_do_not_make_another_job(change: dict[str, Any]) -> None:
    assert parse_job({**JOB, **change}).content_key() == parse_job(JOB).content_key()


@pytest.mark.parametrize(
    "change",
    [
        {"queries": ["Where is snow?"]},
        {"queries": [{"text": "Where is water?", "shape": "polygon"}]},
        {"area": [10.0, 45.0, 10.5, 45.6]},
        {"datetime": "2024"},
        {"tile_size": 128},
        {"scenes": "all"},
        {"resolution": 20},
        {"queries": [{"text": "Where is water?", "sensors": ["sentinel-2-l2a"]}]},
    ],
)
def test_what_is_asked_makes_another_job(change: dict[str, Any]) -> None:
    assert parse_job({**JOB, **change}).content_key() != parse_job(JOB).content_key()


@pytest.mark.parametrize("root", ["s3://bucket/maps", "s3://bucket/maps/", "/mnt/shared"])
def test_relative_results_are_below_the_storage_of_the_environment(
    root: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(STORAGE, root)
    path = tmp_path / "valley.yaml"
    path.write_text(yaml.safe_dump({**JOB, "store": "./stores//2024"} | {"out": "runs/one"}))
    job = read_job(path)
    assert (job.spec.out, job.spec.store) == (f"{root.rstrip('/')}/runs/one", f"{root.rstrip('/')}/stores/2024")
    assert job.spec.catalog == str(tmp_path / "catalog.json"), "what is read stays where it is"
    assert parse_job(job.to_dict()) == job
    assert read_job(path, overrides={"out": "runs/two"}).spec.out == f"{root.rstrip('/')}/runs/two"
    assert job.content_key() == read_job(path, overrides={"out": str(tmp_path)}).content_key()
    path.write_text(yaml.safe_dump({name: value for name, value in JOB.items() if name != "out"}))
    assert read_job(path).spec.out == f"{root.rstrip('/')}/runs/valley"


@pytest.mark.parametrize("out", ["s3://other/place", "/home/me/runs"])
def test_whole_addresses_are_not_below_the_storage(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORAGE, "s3://bucket/maps")
    assert parse_job({**JOB, "out": out}).spec.out == out


@given(st.lists(st.sampled_from(["a", "b.c", "..", ".", "", "..."]), min_size=1, max_size=6))
def test_no_relative_result_leads_out_of_the_storage(parts: list[str]) -> None:
    steps = [0 if part in ("", ".") else -1 if part == ".." else 1 for part in parts]
    out = "./" + "/".join(parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(STORAGE, "s3://bucket/maps")
        if min(itertools.accumulate(steps)) < 0:
            with pytest.raises(JobError, match="leads out of"):
                parse_job({**JOB, "out": out})
            return
        found = parse_job({**JOB, "out": out}).spec.out
    assert found == "s3://bucket/maps" or found.startswith("s3://bucket/maps/")
    assert not {"..", "."} & set(found.split("/"))


@pytest.mark.parametrize("root", ["runs", "./shared", "../maps"])
def test_a_storage_that_depends_on_where_one_stands_is_refused(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORAGE, root)
    with pytest.raises(JobError, match="another place for each folder") as caught:
        parse_job(JOB)
    assert STORAGE in str(caught.value)


def test_flags_override_the_file(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(JOB))
    job = read_job(path, overrides={"tile_size": 224, "out": str(tmp_path / "other")})
    assert (job.spec.tile_size, job.spec.out) == (224, str(tmp_path / "other"))
    assert job.area == read_job(path).area


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tile_size": 300}, "tile_size"),
        ({"resolution": -1}, "resolution"),
        ({"queries": []}, "queries"),
        ({"queries": 7}, "queries"),
        ({"colour": "red"}, "colour"),
        ({"scenes": "best"}, "scenes"),
        ({"queries": ["Where is water?", "Where is water?"]}, "twice"),
        ({"max_tiles": 0}, "max_tiles"),
    ],
)
def test_what_a_job_cannot_say_is_named(change: dict[str, Any], says: str) -> None:
    with pytest.raises(JobError, match=says):
        parse_job({**JOB, **change})


def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(JobError, match=r"tile_size.*scenes|scenes.*tile_size"):
        parse_job({**JOB, "tile_size": 3, "scenes": "best"})


def test_areas_and_questions_keep_their_own_words() -> None:
    with pytest.raises(AreaError):
        parse_job({**JOB, "area": "no-such-file.geojson"})
    with pytest.raises(QueryError):
        parse_job({**JOB, "queries": ["Find the ships"]})


@pytest.mark.parametrize("content", ["", "- a\n- b\n", "area: [1, 2\n", "a: !!python/object:os.system x\n", "\x00"])
def test_a_file_that_holds_no_job(tmp_path: Path, content: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(content)
    with pytest.raises(JobError):
        read_job(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="there is no job file"):
        read_job(tmp_path / "job.yaml")
