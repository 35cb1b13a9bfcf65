"""The calls without a service: jobs in a thread, over one store, on one Ray."""

from __future__ import annotations

import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas
import pytest
import shapely

from earthmap.client import Client, connect
from earthmap.client.here import _Threaded, _told_by_worker
from earthmap.errors import AreaError, BadRequestError, IsolatedError, JobError, QueryError
from earthmap.synthetic import World

OPTIONS = {"tile_size": 128, "collections": ["drawn-sentinel-2-l2a"], "predictor": "spectral", "scenes": "all"}


def test_what_cannot_be_run_is_refused_at_once(tmp_path: Path) -> None:
    here = connect(folder=tmp_path)
    with pytest.raises(AreaError):
        here.map((190, 95, 200, 96), "Where is water?", catalog="x.json")
    with pytest.raises(JobError, match="catalog"):
        here.map((4, 45, 4.1, 45.1), "Where is water?")
    with pytest.raises(QueryError):
        here.map((4, 45, 4.1, 45.1), "", catalog="x.json")
    with pytest.raises(JobError, match="expected"):
        here.respond((4, 45, 4.1, 45.1), "Where is water?", event_time="yesterday", options={"catalog": "x.json"})
    with pytest.raises(JobError, match="there is no job"):
        here.job("that")
    with pytest.raises(JobError, match="job"):
        here.sample("that")
    with pytest.raises(JobError, match="no CRS"):
        here.estimate("that", geopandas.GeoDataFrame(geometry=[shapely.Point(4, 45)]))
    with pytest.raises(JobError, match="no job"):
        here.map((4, 45, 4.1, 45.1), "Where is water?", catalog="x.json", options={"model": f"job:{uuid.uuid4()}"})
    assert here.jobs() == []


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        ('print(\'{"fault": {"type": "urn:earthmap:problem:job", "detail": "so"}}\')', JobError, "so"),
        ("raise SystemExit(3)", IsolatedError, "code 3"),
        ("import os; os.kill(os.getpid(), 9)", IsolatedError, "signal 9"),
    ],
)
def test_a_worker_that_gives_no_result_says_why(
    code: str, error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("earthmap.service.jobs.WORKER", (sys.executable, "-c", f"input()\n{code}"))
    with pytest.raises(error, match=said):
        list(_told_by_worker({"process": "sample"}))


def test_a_worker_ends_when_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import json, sys\nprint(json.dumps({'message': 'on it'}), flush=True)\nsys.stdin.read()\nopen('over', 'w')"
    monkeypatch.setattr("earthmap.service.jobs.WORKER", (sys.executable, "-c", code))
    monkeypatch.chdir(tmp_path)
    told = _told_by_worker({"process": "sample"})
    assert next(told) == {"message": "on it"}
    told.close()  # type: ignore[attr-defined]
    assert (tmp_path / "over").exists()


def test_a_job_that_waits_or_runs_is_cancelled() -> None:
    from concurrent.futures import ThreadPoolExecutor

    began, go_on = threading.Event(), threading.Event()

    def works(report: Any, say: Any) -> None:
        say("first")
        began.set()
        go_on.wait(20)
        say("second")

    with ThreadPoolExecutor(1) as pool:
        first, second = _Threaded(works), _Threaded(works)
        first.begin(pool)
        second.begin(pool)
        assert began.wait(20)
        assert (first.look().status, second.look().status) == ("running", "accepted")
        second.cancel()
        first.cancel()
        go_on.set()
    assert (first.look().status, second.look().status) == ("dismissed", "dismissed")
    assert first.look().messages == ("first",)


def test_a_defect_is_raised_as_it_is() -> None:
    from concurrent.futures import ThreadPoolExecutor

    def breaks(report: Any, say: Any) -> None:
        raise ZeroDivisionError("one by none")

    with ThreadPoolExecutor(1) as pool:
        work = _Threaded(breaks)
        work.begin(pool)
    assert work.look().status == "failed"
    assert isinstance(work.look().fault, ZeroDivisionError)


# ── with Ray ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client whose Ray ends with the module."""
    from earthmap.client import here as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "IDLE_S", 0.5)
        yield connect(folder=tmp_path_factory.mktemp("here"))
        import ray

        end = time.monotonic() + 30
        while ray.is_initialized() and time.monotonic() < end:
            time.sleep(0.1)
        assert not ray.is_initialized()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(240)
def test_maps_questions_and_places(here: Client, drawn_world: World, drawn_catalog: Path) -> None:
    first = here.map(drawn_world.area, "Where is water?", catalog=drawn_catalog, options=OPTIONS)
    again = here.map(drawn_world.area, ["Where is water?", "Where is snow?"], catalog=drawn_catalog, options=OPTIONS)
    assert again.status == "accepted"  # one at a time
    run = first.result(quiet=True)
    assert run.record["groups"]["read"] > 0
    assert len(run.features) > 0
    assert first.progress == 100
    assert "searching the catalogue" in first.messages
    record = again.result(quiet=True).record
    assert (record["groups"]["read"], record["parts"]["reused"]) == (0, run.record["parts"]["computed"])
    assert [job.id for job in here.jobs()] == [again.id, first.id]
    place = run.features.geometry.union_all().representative_point()
    reply = here.ask(first, "Where is water?", at=(place.x, place.y))
    assert reply.status == "answered"
    assert reply.features.union_all().buffer(1e-4).contains(place)
    assert "<b>Where is water?</b>" in reply._repr_html_()
    with pytest.raises(AreaError, match="read no ground"):
        here.ask(first, "Where is water?", at=(0.0, 0.0))
    drawn = here.sample(first, units=60, seed=1).result(quiet=True)
    units = geopandas.read_file(drawn["units"])
    assert len(units) == drawn["drawn"]["units"] >= 60
    truth = units.assign(label=["water" if number % 2 else "none" for number in range(len(units))])
    told = here.estimate(first, truth).result(quiet=True)["estimate"]
    assert any("water" in line for line in told["lines"])
    with pytest.raises(BadRequestError, match="label"):
        here.estimate(first, units.assign(label="")).result(quiet=True)
