"""Files over HTTP in parts: what comes is what a slice of the file is, on this machine and from S3."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from earthmap.service import parts
from earthmap.service.database import JOBS
from earthmap.service.parts import part_of
from earthmap.storage import Storage
from tests.servers import s3_server
from tests.service.finished_jobs import finish_job, found
from tests.service.serving import serve

CONTENT = bytes(range(256)) * 3


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A service of one file, a hundred bytes at once."""
    folder = tmp_path_factory.mktemp("parts")
    (folder / "file.bin").write_bytes(CONTENT)
    (folder / "empty.bin").write_bytes(b"")

    def given_(request: Request) -> Response:
        return part_of(request, Storage(folder), request.path_params["name"], media_type="text/html", tag='"v1"')

    with pytest.MonkeyPatch.context() as patch, TestClient(Starlette(routes=[Route("/{name}", given_)])) as client:
        patch.setattr(parts, "PIECE_BYTES", 100)
        yield client


@given(start=st.integers(0, 767), length=st.integers(1, 1000))
def test_a_part_is_a_slice(client: TestClient, start: int, length: int) -> None:
    answer = client.get("/file.bin", headers={"Range": f"bytes={start}-{start + length - 1}"})
    assert (answer.status_code, answer.content) == (206, CONTENT[start : start + length])
    assert answer.headers["content-range"] == f"bytes {start}-{min(start + length, 768) - 1}/768"
    assert client.get("/file.bin", headers={"Range": f"bytes={start}-"}).content == CONTENT[start:]
    assert client.get("/file.bin", headers={"Range": f"bytes=-{length}"}).content == CONTENT[-length:]


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "bytes=-", "bytes=9-3", "rows=0-1", "bytes=a-b", ""])
def test_what_is_no_part_is_the_whole(client: TestClient, asked: str) -> None:
    answer = client.get("/file.bin", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["content-length"] == "768"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_another_version_is_given_whole(client: TestClient) -> None:
    for tag, status in (('"v1"', 206), ('"v2"', 200)):
        answer = client.get("/file.bin", headers={"Range": "bytes=0-1", "If-Range": tag})
        assert answer.status_code == status


def test_a_file_of_nothing_and_its_head(client: TestClient) -> None:
    assert client.get("/empty.bin").content == b""
    head = client.head("/file.bin")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "768")


@pytest.mark.slow
def test_results_on_s3_are_features_items_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server(tmp_path) as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        for served in serve(tmp_path / "house"):
            squares = [found(shapely.box(4 + number, 45, 4.5 + number, 46)) for number in range(30)]
            job = finish_job(served.jobs, tmp_path / "runs", squares)
            large = bytes(range(256)) * 12_000
            (tmp_path / "runs" / job / "classes/1_water.tif").write_bytes(large)
            storage = Storage(f"{server.address}/runs/{job}")
            for path in Storage(tmp_path / "runs" / job).list():
                storage.write_file(path, tmp_path / "runs" / job / path)
            shutil.rmtree(tmp_path / "runs")
            with served.jobs.database.write() as connection:
                connection.execute(JOBS.update().values(result=storage.address))
            with served.client() as client:
                page = client.get(f"/collections/{job}-features/items?bbox=6,45,8.1,46&limit=1").json()
                assert (page["numberMatched"], page["features"][0]["id"]) == (3, 3)
                assert client.get(f"/collections/{job}-features/items/30").json()["id"] == 30
                item = client.get("/stac/search").json()["features"][0]
                asset = item["assets"]["classes_1"]["href"]
                assert client.get(asset).content == large
                assert (
                    client.get(asset, headers={"Range": "bytes=1000000-2999999"}).content == large[1_000_000:3_000_000]
                )
                assert client.get(item["assets"]["features"]["href"]).content[:4] == b"PAR1"
