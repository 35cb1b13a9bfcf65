"""A client of a real service on loopback: jobs to their end, refusals in their words, lines that break."""

from __future__ import annotations

import http.server
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import xarray

import earthmap
from earthmap.client import Client, connect
from earthmap.client.talking import Line
from earthmap.errors import AreaError, CatalogError, JobError, RunFolderError, ServiceError
from earthmap.pipeline import Run, open_run
from earthmap.service.tokens import Quotas, Role
from earthmap.synthetic import World
from tests.service.cubed import finish_read_job
from tests.service.programs import FAILS, WAITS, program
from tests.service.serving import Served, serve

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")

AREA = (4.0, 45.0, 4.1, 45.1)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses as short as tests have patience for."""
    monkeypatch.setenv("EARTHMAP_BACKOFF", "0.02")


@pytest.fixture(scope="module")
def finished(drawn_world: World, drawn_catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A whole run folder with a cube."""
    folder = tmp_path_factory.mktemp("finished")
    for served in serve(folder / "of"):
        run = finish_read_job(served.jobs, folder / "runs", drawn_world, drawn_catalog)[1]
    for name, content in (
        ("report.html", b"<b>report</b>"),
        ("preview.png", b"\x89PNG"),
        ("run.json", b'{"groups": 1}'),
    ):
        (Path(run.address) / name).write_bytes(content)
    return run


@pytest.fixture
def service(finished: Run, tmp_path: Path) -> Iterator[Served]:
    """Every job comes to that very run."""
    copies = f"""
import shutil
tell(message="copying <b>")
shutil.copytree({finished.address!r}, out, dirs_exist_ok=True)
tell(done=True, progress=100)
"""
    yield from serve(tmp_path / "service", command=program(copies), secured=True)


def token_of(served: Served, owner: str = "ada", role: Role = Role.SUBMITTER, **quotas: Any) -> str:
    assert served.tokens is not None
    return served.tokens.make(owner, role=role, quotas=Quotas(**quotas))


def test_a_map_of_a_service_is_a_run(service: Served, finished: Run, tmp_path: Path) -> None:
    client = earthmap.connect(f"{service.url}/", token=token_of(service), folder=tmp_path / "here")
    assert client.address == service.url
    job = client.map(AREA, "Where is water?", datetime="2024-06", options={"scenes": "all"})
    run = job.result(30, quiet=True)
    assert isinstance(run, Run)
    assert (job.status, job.progress, job.messages) == ("successful", 100, ("copying <b>",))
    assert run.features.equals(finished.features)
    assert run.coverage.equals(finished.coverage)
    assert (run.summary, run.record) == (finished.summary, {"groups": 1})
    assert (run.report, run.preview) == ("<b>report</b>", b"\x89PNG")
    assert "&lt;b&gt;report" in run.explore()._repr_html_()
    ours, theirs = (one.cube["31N"][["red"]].isel(x=slice(9)) for one in (run, finished))
    xarray.testing.assert_identical(ours.compute(), theirs.compute())
    assert run.address == str(tmp_path / "here" / job.id)
    assert open_run(run.address).summary == finished.summary  # and needs no service any more
    with pytest.raises(RunFolderError, match="does not say which job"):
        run.job  # noqa: B018 (asking for it is what fails)
    again = client.job(job.id)
    assert [one.id for one in client.jobs()] == [job.id]
    assert again.result(quiet=True).summary == run.summary
    kept = service.jobs.get(job.id)
    assert kept is not None
    assert kept.inputs["datetime"] == "2024-06"
    assert kept.inputs["area"]["type"] in ("Polygon", "MultiPolygon")


def test_tokens_that_open_nothing_are_said_to(service: Served) -> None:
    with pytest.raises(ServiceError, match="asks for a token") as absent:
        connect(service.url)
    assert absent.value.status == 401
    assert "EARTHMAP_TOKEN" in str(absent.value)
    with pytest.raises(ServiceError, match="does not know this token"):
        connect(service.url, token="em_0123456789abcdef_" + "x" * 43)
    with pytest.raises(JobError, match="cannot be sent"):
        connect(service.url, token="two words")
    with pytest.raises(JobError, match="without a service"):
        connect(token="em_0")
    viewer = connect(service.url, token=token_of(service, role=Role.VIEWER))
    with pytest.raises(ServiceError, match="viewer may not ask"):
        viewer.map(AREA, "Where is water?")


def test_the_token_of_the_environment_is_sent_to_its_host_only(
    service: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EARTHMAP_TOKEN", token_of(service))
    monkeypatch.setenv("EARTHMAP_HEADER_HOSTS", "127.0.0.1")
    assert connect(service.url).jobs() == []
    with pytest.raises(ServiceError, match="asks for a token"):
        connect(service.url.replace("127.0.0.1", "localhost"))


def test_no_message_and_no_form_shows_the_token(service: Served, tmp_path: Path) -> None:
    token = token_of(service)
    client = connect(service.url, token=token, folder=tmp_path)
    run = client.map(AREA, "Where is water?").result(30, quiet=True)
    assert token not in repr(client) + repr(run) + repr(run.served) + repr(client.jobs()) + run._repr_html_()
    assert token not in repr(client.answering)


def test_refusals_are_errors_of_earthmap(service: Served) -> None:
    client = connect(service.url, token=token_of(service, area_km2=10.0))
    with pytest.raises(AreaError):
        client.map((190, 95, 200, 96), "Where is water?")
    with pytest.raises(JobError, match=r"this token allows 10\.0 km²"):
        client.map(AREA, "Where is water?")
    with pytest.raises(JobError, match="out"):
        client.map((4.0, 45.0, 4.01, 45.01), "Where is water?", options={"out": "/etc"})
    with pytest.raises(JobError, match="catalog"):
        client.map((4.0, 45.0, 4.01, 45.01), "Where is water?", catalog="https://example.org/stac")
    with pytest.raises(JobError, match="no such job"):
        client.job("01234567-0123-0123-0123-0123456789ab")
    with pytest.raises(JobError, match="no id of a job"):
        client.job("../../processes")


def test_why_a_job_failed_is_told_where_it_is_waited_for(tmp_path: Path) -> None:
    for served in serve(tmp_path, command=FAILS):
        with pytest.raises(CatalogError, match="nothing in run"):
            connect(served.url).map(AREA, "Where is water?").wait(30, quiet=True)


def test_a_job_is_dismissed(tmp_path: Path) -> None:
    for served in serve(tmp_path, command=WAITS):
        job = connect(served.url).map(AREA, "Where is water?")
        while job.progress != 10:
            time.sleep(0.02)
        job.cancel()
        job.cancel()  # it is, already
        with pytest.raises(JobError, match="was dismissed"):
            job.result(30, quiet=True)


# ── lines that break ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Shaky:
    """A server that answers each request as the next line of its script says, and the last for ever."""

    script: list[Callable[[http.server.BaseHTTPRequestHandler], None]]
    asked: list[str] = field(default_factory=list)
    url: str = ""


def says(status: int, content: Any, **headers: str) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def hangs_up(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def breaks_off(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"jobs": ')
    hangs_up(handler)


@pytest.fixture
def shaky() -> Iterator[Shaky]:
    state = Shaky([])

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if length := int(self.headers.get("Content-Length") or 0):
                self.rfile.read(length)
            state.asked.append(f"{self.command} {self.path}")
            (state.script.pop(0) if len(state.script) > 1 else state.script[0])(self)

        do_POST = do_DELETE = do_GET  # noqa: N815 (names of the base class)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield state
        server.shutdown()


ACCEPTED = {"jobID": "one", "processID": "map", "status": "accepted"}
FULL = {"type": "urn:earthmap:problem:quota", "detail": "two jobs are open", "status": 429}


def client_of(shaky: Shaky, *script: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Client:
    shaky.script[:] = [says(200, {"processes": []}), *script]
    return connect(shaky.url)


def test_reads_are_repeated(shaky: Shaky) -> None:
    busy = says(503, {"detail": "not now"}, Retry_After="0")
    client = client_of(shaky, hangs_up, busy, breaks_off, says(502, b"<html>"), says(200, {"jobs": [ACCEPTED]}))
    assert [job.id for job in client.jobs()] == ["one"]
    assert len(shaky.asked) == 6


def test_a_job_is_not_asked_for_twice(shaky: Shaky) -> None:
    for way in (hangs_up, breaks_off):
        client = client_of(shaky, way)
        with pytest.raises(ServiceError, match=r"may have been accepted.*jobs\(\)"):
            client.map(AREA, "Where is water?")
        assert shaky.asked.count("POST /processes/map/execution") == 1
        shaky.asked.clear()
    client = client_of(shaky, says(503, {"detail": "not now"}, Retry_After="0"))
    with pytest.raises(ServiceError, match="not now"):
        client.map(AREA, "Where is water?")
    assert shaky.asked.count("POST /processes/map/execution") == 1


def test_a_service_that_is_full_says_when_to_come_again(shaky: Shaky, monkeypatch: pytest.MonkeyPatch) -> None:
    client = client_of(shaky, says(429, FULL, Retry_After="1"), says(201, ACCEPTED))
    began = time.monotonic()
    assert client.map(AREA, "Where is water?").id == "one"
    assert 0.9 < time.monotonic() - began < 5
    monkeypatch.setenv("EARTHMAP_PATIENCE", "5")
    client = client_of(shaky, says(429, FULL, Retry_After="3600"))
    with pytest.raises(JobError, match="two jobs are open"):
        client.map(AREA, "Where is water?")


def test_what_is_no_service_is_said_to(shaky: Shaky, tmp_path: Path) -> None:
    shaky.script[:] = [says(200, b"<html>Please sign in</html>", Content_Type="text/html")]
    with pytest.raises(ServiceError, match="something else than a service"):
        connect(shaky.url)
    shaky.script[:] = [says(302, b"", Location="http://elsewhere.example.org/?token=secret")]
    with pytest.raises(ServiceError, match=r"go to http://elsewhere\.example\.org/;") as moved:
        connect(shaky.url, token="secret-of-mine")
    assert "secret" not in str(moved.value)
    shaky.script[:] = [says(404, b"nothing here")]
    with pytest.raises(ServiceError, match="answers 404"):
        connect(shaky.url)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(ServiceError, match="does not answer"):
            connect(f"http://127.0.0.1:{closed.getsockname()[1]}")


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://", "http://ada:pw@host", "http://h/?a=b"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(JobError) as refused:
        connect(url)
    assert "pw" not in str(refused.value)


def test_outputs_stay_in_their_folder(shaky: Shaky, tmp_path: Path) -> None:
    shaky.script[:] = [says(200, {"processes": []})]
    client = connect(shaky.url, folder=tmp_path / "here")
    shaky.script[:] = [
        says(200, {**ACCEPTED, "status": "successful"}),
        says(200, {**ACCEPTED, "status": "successful"}),
        says(200, {**ACCEPTED, "status": "successful"}),
        says(200, {**ACCEPTED, "status": "successful"}),
        says(200, {"../../evil": {"value": {}}}),
    ]
    with pytest.raises(ServiceError, match="names an output"):
        client.job("one").result(quiet=True)
    assert not (tmp_path / "evil").exists()


def test_a_file_is_fetched_whole_or_not_at_all(shaky: Shaky, tmp_path: Path) -> None:
    shaky.script[:] = [breaks_off]
    with pytest.raises(ServiceError):
        Line.to(shaky.url).fetch("/jobs/one/results/features", tmp_path / "features.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_place_is_asked_about(service: Served, drawn_world: World) -> None:
    client = connect(service.url, token=token_of(service))
    job = client.map(AREA, "Where is water?")
    point = drawn_world.area.geometry.representative_point()
    middle = (point.x, point.y)
    job.wait(30, quiet=True)
    reply = client.ask(job.id, "Where is water?", at=middle, model="spectral")
    assert reply.status == "answered"
    assert reply.features.crs == "EPSG:4326"
    assert reply.document["question"] == "Where is water?"
    with pytest.raises(AreaError, match="read no ground"):
        client.ask(job, "Where is water?", at=(0.0, 0.0))
    with pytest.raises(JobError, match="expected"):
        client.ask(job, "Where is water?", at=middle, model="another")
