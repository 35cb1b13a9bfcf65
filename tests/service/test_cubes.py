"""The cube of a job over HTTP: equal to the run's own, fetched by window, and nothing else of the store."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st

from earthmap.client.fetched import ServedRun
from earthmap.client.talking import Line
from earthmap.errors import ServiceError, StorageError
from earthmap.pipeline import Run
from earthmap.service.tokens import Role
from earthmap.storage import Storage
from earthmap.synthetic import World
from tests.service.cubed import finish_read_job
from tests.service.finished_jobs import finish_job, found
from tests.service.serving import Served, serve

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")


@dataclass(frozen=True, slots=True)
class House:
    """A service with two finished jobs over one store: ada's of the first date, bob's of the second."""

    served: Served
    ada: str
    bob: str
    jobs: dict[str, tuple[str, Run]]

    def run_of(self, name: str, token: str) -> ServedRun:
        """A job as its client has it."""
        job_id, run = self.jobs[name]
        line = Line.to(self.served.url, token=token)
        return ServedRun(run.address, Storage(f"{self.served.url}/jobs/{job_id}", connection=line.connection))


@pytest.fixture(scope="module")
def house(drawn_world: World, drawn_catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    for served in serve(folder, secured=True):
        assert served.tokens is not None
        jobs = {
            name: finish_read_job(
                served.jobs, folder / "runs", drawn_world, drawn_catalog, owner=name, datetime=f"{date:%Y-%m-%d}"
            )
            for name, date in (("ada", drawn_world.before), ("bob", drawn_world.after))
        }
        ada, bob = (served.tokens.make(name, role=Role.VIEWER) for name in ("ada", "bob"))
        yield House(served, ada, bob, jobs)


@pytest.fixture(scope="module")
def client(house: House) -> Iterator[httpx.Client]:
    with house.served.client(house.ada) as client:
        yield client


def groups(client: httpx.Client, job_id: str) -> list[dict[str, Any]]:
    answer = client.get(f"/jobs/{job_id}/cube")
    assert answer.status_code == 200
    return list(answer.json()["groups"])


def test_it_is_the_cube_of_the_run(house: House) -> None:
    for name, token in (("ada", house.ada), ("bob", house.bob)):
        own, served = house.jobs[name][1].cube, house.run_of(name, token).cube
        assert set(served) == set(own) == {"31N"}
        xarray.testing.assert_identical(served["31N"].compute(), own["31N"].compute())
        assert served["31N"].sizes["time"] == 1  # and not what the other job put into the same store
        assert np.isfinite(served["31N"]["red"].values).any()


def test_only_what_is_touched_is_fetched(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []
    read, size = Storage.read_part, Storage.size

    def heard(self: Storage, path: str, *, start: int, end: int) -> bytes:
        asked.append((path, end - start))
        return read(self, path, start=start, end=end)

    monkeypatch.setattr(Storage, "read_part", heard)
    cube = house.run_of("ada", house.ada).cube["31N"]
    assert asked == []  # the list of groups is all that opening takes
    cube["red"].isel(time=0, y=slice(0, 5), x=slice(0, 5)).compute()
    assert len({path for path, _ in asked if "/data/c/" in path}) == 1  # one band of one cell
    store = Storage(house.jobs["ada"][1].job.store)
    whole = sum(size(store, path) for path in store.list("cube"))
    assert sum(count for _, count in asked) < whole / 4


def test_others_do_not_see_it(house: House) -> None:
    job_id = house.jobs["bob"][0]
    with house.served.client(house.bob) as theirs:
        path = groups(theirs, job_id)[0]["path"]
        assert theirs.get(f"/jobs/{job_id}/{path}/zarr.json").status_code == 200
    with house.served.client(house.ada) as client:
        assert client.get(f"/jobs/{job_id}/cube").status_code == 404
        assert client.get(f"/jobs/{job_id}/{path}/zarr.json").status_code == 404
        mine = house.jobs["ada"][0]
        assert client.get(f"/jobs/{mine}/{path}/zarr.json").status_code == 404  # a group of the other job, by one's own
    with house.served.client() as nobody:
        assert nobody.get(f"/jobs/{job_id}/cube").status_code == 401
        assert nobody.get(f"/jobs/{job_id}/{path}/zarr.json").status_code == 401
    with pytest.raises(ServiceError, match="no pixels"):
        house.run_of("bob", house.ada).cube  # noqa: B018 (asking for it is what fails)
    with pytest.raises(StorageError):
        house.run_of("bob", "em_0123456789abcdef_" + "x" * 43).cube  # noqa: B018


def raw(url: str, target: bytes, token: str) -> tuple[int, bytes]:
    """What a request is answered whose target no client has tidied up."""
    where = urlsplit(url)
    with socket.create_connection((str(where.hostname), int(where.port or 80)), timeout=20) as line:
        head = b"GET %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nConnection: close\r\n\r\n"
        line.sendall(head % (target, where.netloc.encode(), token.encode()))
        answer = b"".join(iter(lambda: line.recv(65536), b""))
    return int(answer.split(b" ", 2)[1]), answer.partition(b"\r\n\r\n")[2]


def test_no_other_path_exists(house: House) -> None:
    mine, path = house.jobs["ada"][0], None
    with house.served.client(house.ada) as client:
        path = groups(client, mine)[0]["path"]
    deep = f"/jobs/{mine}/{path}"
    attacks = [
        f"/jobs/{mine}/cube/../job.json", f"/jobs/{mine}/cube/..%2fjob.json", f"/jobs/{mine}/cube/%2e%2e/job.json",
        f"{deep}/../../../../{mine}/job.json", f"{deep}/..%2f..%2f..%2f..%2fstate.sqlite", f"{deep}/manifest.json",
        f"{deep}/%2e%2e/%2e%2e/%2e%2e/%2e%2e/state.sqlite", f"{deep}//zarr.json", f"{deep}/./zarr.json",
        f"{deep}/zarr.json%00", f"{deep}/zarr.json/", f"{deep}~x1/zarr.json", f"{deep}~x/zarr.json", deep, f"{deep}/",
        f"/jobs/{mine}/cube//etc/passwd", f"/jobs/{mine}/cube/%2fetc%2fpasswd", f"/jobs/{mine}/cube/", f"{deep}/data",
        f"{deep}/..%5c..%5cjob.json", f"{deep}/%252e%252e/zarr.json", f"/jobs/{mine}/cube/cube/{path}/zarr.json",
        f"{deep}/c%2f..%2fzarr.json",
    ]  # fmt: skip
    for target in attacks:
        status, body = raw(house.served.url, target.encode(), house.ada)
        assert status == 404, target
        assert b"sqlite" not in body
    assert raw(house.served.url, f"{deep}/zarr.json".encode(), house.ada)[0] == 200
    assert raw(house.served.url, f"{deep}/zarr%2ejson".encode(), house.ada)[0] == 200  # the same path, spelt otherwise


def test_manifests_tell_nothing_of_the_store(house: House, client: httpx.Client) -> None:
    text = client.get(f"/jobs/{house.jobs['ada'][0]}/cube").text
    assert 'checksums": {}' in text.replace(":{", ": {")
    assert str(Path(house.jobs["ada"][1].job.store).parent) not in text


@settings(max_examples=40)
@given(first=st.integers(0, 12_000), last=st.none() | st.integers(0, 12_000), suffix=st.booleans())
def test_ranges_are_slices(house: House, client: httpx.Client, first: int, last: int | None, suffix: bool) -> None:
    job_id = house.jobs["ada"][0]
    address = f"/jobs/{job_id}/{groups(client, job_id)[0]['path']}/zarr.json"
    whole = client.get(address).content
    text = f"bytes=-{first}" if suffix else f"bytes={first}-{'' if last is None else last}"
    expected = whole[max(0, len(whole) - first) :] if suffix else whole[first : None if last is None else last + 1]
    answer = client.get(address, headers={"Range": text})
    if not suffix and last is not None and last < first:
        assert (answer.status_code, answer.content) == (200, whole)
    elif not expected:
        assert answer.status_code == 416
        assert answer.headers["content-range"] == f"bytes */{len(whole)}"
    else:
        assert (answer.status_code, answer.content) == (206, expected)
        start = len(whole) - len(expected) if suffix else first
        assert answer.headers["content-range"] == f"bytes {start}-{start + len(expected) - 1}/{len(whole)}"


@pytest.mark.parametrize("header", ["bytes=0-1,3-4", "bytes=-", "items=0-4", "bytes=a-b", "bytes=" + "9" * 40 + "-"])
def test_other_ranges_are_not_heeded(house: House, client: httpx.Client, header: str) -> None:
    job_id = house.jobs["ada"][0]
    address = f"/jobs/{job_id}/{groups(client, job_id)[0]['path']}/zarr.json"
    whole = client.get(address)
    assert client.get(address, headers={"Range": header}).content == whole.content
    other = client.get(address, headers={"Range": "bytes=0-1", "If-Range": '"another"'})
    assert (other.status_code, other.content) == (200, whole.content)
    same = client.get(address, headers={"Range": "bytes=0-1", "If-Range": whole.headers["etag"]})
    assert (same.status_code, same.content) == (206, whole.content[:2])
    head = client.head(address)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.content))


def test_jobs_without_pixels_say_so(house: House, tmp_path: Path, drawn_world: World) -> None:
    job_id = finish_job(house.served.jobs, tmp_path, [found(drawn_world.area.geometry)], owner="ada")
    with house.served.client(house.ada) as client:
        answer = client.get(f"/jobs/{job_id}/cube")
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:earthmap:problem:cube")
        assert client.get(f"/jobs/{job_id}/cube/a/b/zarr.json").status_code == 404
