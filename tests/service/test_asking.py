"""One question about one place, over HTTP: the command line's own answer, who may ask, and what too many get."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import httpx
import pytest

from earthmap.cli import main
from earthmap.errors import JobError
from earthmap.grid import owned_ground, tile_to_lonlat
from earthmap.predict import SpectralPredictor
from earthmap.service.asking import SPECTRAL, Asked, Asking, BusyError
from earthmap.service.errors import ProblemError
from earthmap.service.state import JobStore
from earthmap.service.tokens import Role
from earthmap.synthetic import World
from tests.pipeline.cubes import read_run
from tests.service.answering import AnsweringHere
from tests.service.serving import Served, serve
from tests.service.standard import Standard
from tests.worlds import middle_tile

PATH = "/processes/ask/execution"


@dataclasses.dataclass(frozen=True)
class Place:
    """A finished run, and a point of its ground."""

    run: Path
    lon: float
    lat: float


@pytest.fixture(scope="module")
def place(drawn_catalog: Path, drawn_world: World, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder, tile = tmp_path_factory.mktemp("asked"), middle_tile(drawn_world)
    area = list(owned_ground(tile).buffer(-1e-4).bounds)
    run = read_run(
        folder / "run",
        store=folder / "store",
        catalog=drawn_catalog,
        area=area,
        scenes="all",
        sensor="sentinel-2-l2a",
        tile_size=128,
    )
    lon, lat = (float(part) for part in tile_to_lonlat(tile, 0.5, 0.5))
    return Place(run, lon, lat)


@pytest.fixture(scope="module")
def open_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    yield from serve(tmp_path_factory.mktemp("open"))


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Served]:
    yield from serve(tmp_path, secured=True)


def finished(jobs: JobStore, place: Place, *, owner: str = "local", **inputs: Any) -> str:
    """The id of a job of `owner` that has come to the run of `place`."""
    job = jobs.submit("map", inputs, owner=owner)
    assert job is not None
    claimed = jobs.claim(f"worker-{job.id}", lease_s=60)
    assert claimed is not None
    assert claimed.id == job.id
    assert jobs.finish(job.id, f"worker-{job.id}", result=str(place.run))
    return job.id


def inputs_at(place: Place, job: str, query: Any = "Where is water?", **more: Any) -> dict[str, Any]:
    return {"inputs": {"job": job, "at": [place.lon, place.lat], "query": query, **more}}


def problem_of(answer: httpx.Response, status: int = 400) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told: dict[str, Any] = answer.json()
    return told


# ── the answer ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("question", "date"),
    [("Where is water?", None), ("Where is water?", "2024-05"), ("How much of this is vegetation?", "2024-06-08")],
)
def test_the_answer_is_that_of_the_command_line(
    open_house: Served,
    place: Place,
    standard: Standard,
    capsys: pytest.CaptureFixture[str],
    question: str,
    date: str | None,
) -> None:
    job = finished(open_house.jobs, place, predictor="spectral")
    with open_house.client() as client:
        answer = client.post(PATH, json=inputs_at(place, job, question, **({"date": date} if date else {})))
        assert answer.status_code == 200, answer.text
        standard.check("results", answer.json())
    words = ["ask", str(place.run), question, f"--at={place.lon:.9f},{place.lat:.9f}", "--predictor=spectral"]
    assert main([*words, *([f"--date={date}"] if date else []), "--json"]) == 0
    reply = answer.json()["reply"]
    assert reply["mediaType"] == "application/json"
    assert reply["value"] == json.loads(capsys.readouterr().out)
    assert reply["value"]["status"] == "answered"
    assert str(place.run) not in answer.text


def test_a_change_is_asked_between_the_dates_of_the_query(open_house: Served, place: Place) -> None:
    job = finished(open_house.jobs, place)
    change = {"text": "Where did water appear or disappear?"}
    with open_house.client() as client:
        for query in (change, {**change, "before": "2024-05", "after": "2024-06"}):
            answer = client.post(PATH, json=inputs_at(place, job, query, model="spectral"))
            assert answer.status_code == 200, answer.text
            days = [one["datetime"][:7] for one in answer.json()["reply"]["value"]["pictures"]]
            assert days == ["2024-05", "2024-06"]


def test_it_is_answered_at_once_whatever_is_preferred(open_house: Served, place: Place) -> None:
    """A process that makes no jobs is executed synchronously, `respond-async` or not (18-062r2, 7.11)."""
    job = finished(open_house.jobs, place)
    with open_house.client() as client:
        told = client.get("/processes/ask").json()
        assert told["jobControlOptions"] == ["sync-execute"]
        answer = client.post(PATH, json=inputs_at(place, job), headers={"Prefer": "respond-async, wait=20"})
        assert answer.status_code == 200, answer.text
        assert "preference-applied" not in answer.headers
        assert "location" not in answer.headers
        assert not [one for one in client.get("/jobs").json()["jobs"] if one["processID"] == "ask"]


# ── what cannot be answered ──────────────────────────────────────────────────────────────────────────────────

CHANGE = {"text": "Where did water appear or disappear?"}


@pytest.mark.parametrize(
    ("more", "detail", "expected"),
    [
        ({"at": [100.0, 10.0]}, "has read no ground at", "a point between"),
        ({"at": [200.0, 10.0]}, "-180 to 180", None),
        ({"at": [3.5]}, "at", None),
        ({"at": ["3.5", 45.7]}, "at", None),
        ({"date": "1999"}, "nothing was measured on 1999", "one of 2024-05"),
        ({"date": "yesterday"}, "yesterday", None),
        ({"query": CHANGE, "date": "2024-05"}, "looks at two dates, and the request names date", "before and after"),
        ({"query": {**CHANGE, "after": "2024-06"}}, "the request names after", "before and after"),
        (
            {"query": {"text": "Where is water?", "before": "2024-05", "after": "2024-06"}, "model": "spectral"},
            "looks at one date",
            "date, or none for the latest",
        ),
        ({"query": {"text": "Where is water?", "sensors": ["modis"]}}, "no observation of the sensor", "sentinel-2"),
        ({"query": {"text": "Where is water?", "sensors": ["a", "b"]}}, "2 sensors", "one"),
        ({"query": "", "model": "spectral"}, "question", None),
        ({"query": "Find the ships", "model": "spectral"}, "ship", None),
        ({"model": "gpt"}, "model", None),
        ({"job": "nonsense"}, "job", None),
        ({"job": "00000000-0000-0000-0000-000000000000"}, "there is no such job, or it is not yours", "a job"),
        ({"run": "/etc"}, "run", None),
    ],
)
def test_what_cannot_be_answered_says_why(
    open_house: Served, place: Place, more: dict[str, Any], detail: str, expected: str | None
) -> None:
    body = inputs_at(place, finished(open_house.jobs, place, predictor="spectral"))
    with open_house.client() as client:
        told = problem_of(client.post(PATH, json={"inputs": {**body["inputs"], **more}}))
    assert detail in told["detail"]
    assert str(place.run.parent) not in json.dumps(told)
    if expected is not None:
        assert expected in told["expected"]


def test_a_job_of_others_looks_like_none_and_one_that_works_is_not_ready(secured: Served, place: Place) -> None:
    assert secured.tokens is not None
    ada, bob, eve = (
        secured.tokens.make(owner, role=role)
        for owner, role in (("ada", Role.SUBMITTER), ("bob", Role.SUBMITTER), ("ada", Role.VIEWER))
    )
    own = finished(secured.jobs, place, owner="ada", predictor="spectral")
    working = secured.jobs.submit("map", {}, owner="ada")
    assert working is not None
    with secured.client(ada) as client:
        assert client.post(PATH, json=inputs_at(place, own)).status_code == 200
        assert "accepted" in problem_of(client.post(PATH, json=inputs_at(place, working.id)))["detail"]
    with secured.client(bob) as client:
        hidden = problem_of(client.post(PATH, json=inputs_at(place, own)))
        none = problem_of(client.post(PATH, json=inputs_at(place, own[:-4] + "0000")))
        assert {**hidden, "detail": hidden["detail"].replace(own, "")} == {
            **none,
            "detail": none["detail"].replace(own[:-4] + "0000", ""),
        }
    with secured.client(eve) as client:
        problem_of(client.post(PATH, json=inputs_at(place, own)), 403)
    with secured.client() as client:
        problem_of(client.post(PATH, json=inputs_at(place, own)), 401)


def test_a_model_that_is_no_longer_offered_is_not_replaced_by_another(open_house: Served, place: Place) -> None:
    job = finished(open_house.jobs, place, model="gone")
    with open_house.client() as client:
        told = problem_of(client.post(PATH, json=inputs_at(place, job)))
        assert "no longer offered" in told["detail"]
        assert "spectral" in told["expected"]
        assert client.post(PATH, json=inputs_at(place, job, model="spectral")).status_code == 200


# ── too many ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_too_many_at_once_are_told_so_and_all_others_are_answered(tmp_path: Path, place: Place) -> None:
    """Twelve clients ask six times, and there is room for two: who is let in has the right answer, nobody hangs."""
    heard: list[str] = []
    asking = Asking(
        answering=AnsweringHere({SPECTRAL: SpectralPredictor()}),
        at_once=2,
        heard=lambda outcome, seconds: heard.append(outcome),
    )
    for served in serve(tmp_path, asking=asking):
        job = finished(served.jobs, place, predictor="spectral")
        together = Barrier(12)

        def ask(number: int, served: Served = served, job: str = job, together: Barrier = together) -> list[Any]:
            with served.client() as client:
                client.get("/")
                together.wait()
                return [client.post(PATH, json=inputs_at(place, job)) for _ in range(6)]

        with ThreadPoolExecutor(12) as pool:
            answers = [answer for own in pool.map(ask, range(12)) for answer in own]
        replies = [answer.json()["reply"]["value"]["answer"] for answer in answers if answer.status_code == 200]
        refused = [answer for answer in answers if answer.status_code != 200]
        assert len(replies) + len(refused) == 72
        assert len(set(replies)) == 1
        assert len(replies) >= 2
        assert len(refused) >= 10
        for answer in refused:
            problem_of(answer, 429)
            assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert heard.count("answered") == len(replies)
        assert heard.count("refused") == len(refused)
        with served.client() as client:
            assert client.post(PATH, json=inputs_at(place, job)).status_code == 200


def test_an_answer_that_takes_too_long_is_not_waited_for(tmp_path: Path, place: Place) -> None:
    asking = Asking(answering=AnsweringHere({SPECTRAL: SpectralPredictor()}), limit_s=0.003)
    for served in serve(tmp_path, asking=asking):
        job = finished(served.jobs, place, predictor="spectral")
        with served.client() as client:
            answer = client.post(PATH, json=inputs_at(place, job))
            problem_of(answer, 504)
            assert answer.headers["retry-after"] == "1"
            assert client.get("/").status_code == 200


class Gone:
    """Nobody is there to answer."""

    async def answer(self, asked: Asked) -> dict[str, Any]:
        raise BusyError("the workers are gone")

    async def close(self) -> None: ...


class Stuck:
    """Answers nobody, ever."""

    async def answer(self, asked: Asked) -> dict[str, Any]:
        await asyncio.sleep(3600)
        raise AssertionError

    async def close(self) -> None: ...


def test_nobody_there_and_nobody_who_comes_back() -> None:
    asked = Asked(run="run", at=(0.0, 0.0), question={"text": "Where is water?"})

    async def ask(asking: Asking, within_s: float = 60.0) -> tuple[int, int]:
        with pytest.raises(ProblemError) as caught:
            await asking.ask(lambda: asked, within_s=within_s)
        return caught.value.document["status"], int(caught.value.headers["Retry-After"])

    async def all_of() -> None:
        assert await ask(Asking(answering=Gone())) == (503, 1)
        stuck = Asking(answering=Stuck(), at_once=3)
        started = time.monotonic()
        found = await asyncio.gather(*(ask(stuck, within_s=0.2) for _ in range(8)))
        assert time.monotonic() - started < 5
        assert sorted(status for status, _ in found) == [429] * 5 + [504] * 3
        assert (await ask(stuck, within_s=0.01))[0] == 504, "places are given back"

    asyncio.run(all_of())


def test_one_owner_leaves_room_for_another() -> None:
    asked = Asked(run="run", at=(0.0, 0.0), question={"text": "Where is water?"})
    asking = Asking(answering=Stuck(), at_once=4)

    async def status(owner: str | None) -> int:
        with pytest.raises(ProblemError) as caught:
            await asking.ask(lambda: asked, within_s=0.2, owner=owner)
        if caught.value.document["status"] == 429:
            told.append(caught.value.document["detail"])
        return int(caught.value.document["status"])

    async def all_of(owners: Sequence[str | None]) -> list[int]:
        return await asyncio.gather(*map(status, owners))

    told: list[str] = []
    assert asyncio.run(all_of(["ada"] * 5 + ["bob"] * 2)) == [504] * 3 + [429] * 2 + [504, 429]
    assert [text.split(" are")[0] for text in told] == ["3 questions of ada"] * 2 + ["4 questions"]
    assert asyncio.run(all_of([None] * 5)) == [504] * 4 + [429], "where nobody is told apart, all places are anybody's"
    assert asyncio.run(all_of(["bob"] * 4)) == [504] * 3 + [429], "places are given back"
    assert asyncio.run(all_of(["ada"])) == [504]


def test_who_asks_may_be_less_patient_than_the_service(tmp_path: Path, place: Place) -> None:
    for served in serve(tmp_path, asking=Asking(answering=Stuck())):
        job = finished(served.jobs, place, predictor="spectral")
        with served.client() as client:
            started = time.monotonic()
            answer = client.post(PATH, json=inputs_at(place, job), headers={"Prefer": "handling=lenient; wait=1"})
            problem_of(answer, 504)
            assert 0.9 < time.monotonic() - started < 10


@pytest.mark.parametrize(("at_once", "limit_s"), [(0, 10.0), (1, 0.0), (1, -1.0), (1, float("inf")), (1, float("nan"))])
def test_a_door_that_lets_nobody_in_is_refused(at_once: int, limit_s: float) -> None:
    with pytest.raises(JobError, match="one or more"):
        Asking(answering=Gone(), at_once=at_once, limit_s=limit_s)
