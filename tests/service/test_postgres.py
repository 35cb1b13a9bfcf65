"""The state of jobs in Postgres: the same rules where many write at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from earthmap.errors import StorageError
from earthmap.service.database import open_database
from earthmap.service.state import JobStore, Selection, Status
from earthmap.service.tokens import Role, TokenStore
from tests.servers import postgres, postgres_missing

pytestmark = pytest.mark.slow


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


def test_one_that_does_not_answer_is_told_without_its_password(address: str) -> None:
    gone = address.rpartition(":")[0] + ":1/postgres"
    with pytest.raises(StorageError) as caught:
        open_database(gone)
    assert "geheim" not in str(caught.value)
