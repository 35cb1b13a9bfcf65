"""The state of jobs in Postgres: the same rules where many write at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import shapely

from earthmap.errors import StorageError
from earthmap.service.database import open_database
from earthmap.service.finished import FinishedRuns, Page, Sought
from earthmap.service.state import JobStore, Selection, Status
from earthmap.service.tokens import Role, TokenStore
from tests.servers import postgres, postgres_missing
from tests.service.finished_jobs import finish_job, found

pytestmark = pytest.mark.slow

ACROSS = shapely.MultiPolygon([shapely.box(179.0, 10, 180, 11), shapely.box(-180, 10, -179.0, 11)])


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if why := postgres_missing():
        pytest.skip(why)
    with postgres(tmp_path_factory.mktemp("postgres")) as env:
        yield f"postgresql+psycopg://{env['PGUSER']}:geheim@{env['PGHOST']}:{env['PGPORT']}/{env['PGDATABASE']}"


def _at_once(work: Callable[[int], object], count: int) -> list[object]:
    """What `work` gives in `count` threads that begin together."""
    start = threading.Barrier(count)

    def begin(number: int) -> object:
        start.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


def test_many_make_it_count_and_claim_at_once(address: str) -> None:
    stores = [store for store in _at_once(lambda _: JobStore(open_database(address)), 6) if isinstance(store, JobStore)]
    made = _at_once(lambda number: stores[number].submit("map", {"n": number}, owner="ada", most_open=3), 6)
    assert sum(job is not None for job in made) == 3
    others = [stores[0].submit("map", {}, owner=f"owner-{number}") for number in range(20)]
    got: list[str] = []

    def work(number: int) -> None:
        turn = 0
        while (job := stores[number].claim(f"w{number}-{turn}", lease_s=60)) is not None:
            assert stores[number].beat(job.id, f"w{number}-{turn}", lease_s=60, progress=50, messages=["half\0\ud800"])
            got.append(job.id)
            assert stores[number].finish(job.id, f"w{number}-{turn}", result="runs/1")
            turn += 1

    _at_once(work, 6)
    assert len(got) == len(set(got)) == len(others) + 3
    done = stores[0].page(Selection(limit=100))
    assert {job.status for job in done} == {Status.SUCCESSFUL}
    assert [text for _, text in stores[0].messages(done[0].id)] == ["half??"]
    assert stores[0].page(Selection(limit=100, after=done[9].id)) == done[10:]
    assert _at_once(lambda number: stores[number].dismiss(done[0].id), 6).count(True) == 1
    for store in stores:
        store.database.close()


def test_tokens_are_kept_there_too(address: str) -> None:
    tokens = TokenStore(open_database(address))
    holder = tokens.check(tokens.make("ada", role=Role.VIEWER))
    assert holder is not None
    assert tokens.revoke(holder.id)
    tokens.database.close()


def test_finished_runs_are_found_there_too(address: str, tmp_path: Path) -> None:
    jobs = JobStore(open_database(address))
    areas = [*(shapely.box(4 + number, 45, 4.5 + number, 46) for number in range(30)), ACROSS]
    made = [finish_job(jobs, tmp_path, [found(area.centroid)], owner="eva", area=area) for area in areas]
    item = tmp_path / made[0] / "item.json"
    item.write_text(item.read_text().replace("Where are ships?", "Where\\u0000 are ships?"))
    runs, everything = FinishedRuns(jobs.database), Sought(owner="eva")
    pages = [page for page in _at_once(lambda _: runs.page(everything, limit=40), 6) if isinstance(page, Page)]
    assert [page.matched for page in pages] == [31] * 6
    assert [run.job for run in pages[0].runs] == made[::-1]
    assert pages[0].runs[-1].title == "Where is water?; Where? are ships?"
    first = runs.page(everything, limit=10)
    assert [run.job for run in runs.page(everything, limit=30, after=first.next).runs] == made[20::-1]
    here = Sought(owner="eva", boxes=((4.0, 45.0, 5.2, 46.0),), shape=shapely.Point(5.1, 45.5))
    assert [run.job for run in runs.page(here, limit=10).runs] == [made[1]]
    east = Sought(owner="eva", boxes=((-179.9, 10.2, -179.8, 10.3),))
    assert [run.job for run in runs.page(east, limit=9).runs] == made[30:]
    extent = runs.extent(everything)
    assert extent is not None
    assert extent[0] == (-180.0, 10.0, 180.0, 46.0)
    jobs.database.close()


def test_one_that_does_not_answer_is_told_without_its_password(address: str) -> None:
    gone = address.rpartition(":")[0] + ":1/postgres"
    with pytest.raises(StorageError) as caught:
        open_database(gone)
    assert "geheim" not in str(caught.value)
