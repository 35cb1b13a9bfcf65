"""Job APIs that let everybody in are told from those that do not, and from what is none of Ray's."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from earthmap.cli import DONE, FAILED, main
from earthmap.errors import JobError
from earthmap.operate import job_api
from earthmap.operate.findings import Verdict
from earthmap.operate.job_api import (
    Guard,
    Place,
    check_doors,
    check_job_apis,
    find_places,
    head_places,
    probe,
    probe_head,
    refuse_open_doors,
)
from tests.servers import free_port

RAY = json.dumps({"version": "4", "ray_version": "2.60.0", "ray_commit": "0", "session_name": "s"})
Answers = Mapping[str, tuple[int, str]]

OPEN_DASHBOARD: Answers = {"/api/version": (200, RAY), "/api/jobs/": (200, "[]")}
BROKEN_DASHBOARD: Answers = {"/api/version": (200, RAY), "/api/jobs/": (500, "the head is gone")}
CLOSED_DASHBOARD: Answers = {"*": (401, "Unauthorized: Missing authentication token")}
FORBIDDING: Answers = {"*": (403, "no")}
JOBS_CLOSED: Answers = {"/api/version": (200, RAY), "/api/jobs/": (401, "")}
OPEN_AGENT: Answers = {"/api/local_raylet_healthz": (200, "success")}
CLOSED_AGENT: Answers = {"/api/local_raylet_healthz": (200, "success"), "*": (401, "")}
OTHER_PAGE: Answers = {"*": (200, "<html>everything</html>")}
OTHER_API: Answers = {"*": (200, '{"version": 1}')}
OTHER_LIST: Answers = {"*": (200, "[1]")}
LOGIN: Answers = {"*": (302, "")}


@contextlib.contextmanager
def answering(answers: Answers, asked: list[tuple[str, str]] | None = None) -> Iterator[Place]:
    """A server that answers paths from a table: `*` all others, which else are 404."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if asked is not None:
                asked.append((self.path, str(self.headers)))
            status, text = answers.get(self.path) or answers.get("*") or (404, "not here")
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "https://login.example.org")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield Place("127.0.0.1", server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def speaking(said: bytes | None) -> Iterator[Place]:
    """A server that says `said` to whoever connects, and ends; None: it says nothing, and stays."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        kept = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    kept.append(connection)
                    if said is not None:
                        connection.recv(1000)
                        connection.sendall(said)
                        connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield Place("127.0.0.1", listening.getsockname()[1])
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(2)
        for connection in kept:
            connection.close()


@pytest.mark.parametrize(
    ("answers", "guard"),
    [
        (OPEN_DASHBOARD, Guard.OPEN),
        (BROKEN_DASHBOARD, Guard.OPEN),
        (CLOSED_DASHBOARD, Guard.CLOSED),
        (FORBIDDING, Guard.CLOSED),
        (JOBS_CLOSED, Guard.CLOSED),
        (OPEN_AGENT, Guard.OPEN),
        (CLOSED_AGENT, Guard.CLOSED),
        (OTHER_PAGE, Guard.ABSENT),
        (OTHER_API, Guard.ABSENT),
        (OTHER_LIST, Guard.ABSENT),
        (LOGIN, Guard.ABSENT),
        ({}, Guard.ABSENT),
    ],
)
def test_each_answer(answers: Answers, guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")  # nobody is asked by way of others
    monkeypatch.setenv("RAY_AUTH_TOKEN", "s3cret")
    asked: list[tuple[str, str]] = []
    with answering(answers, asked) as place:
        assert probe(place) is guard
    assert asked
    assert not any("s3cret" in headers or "authorization" in headers.lower() for _, headers in asked)


def test_what_is_not_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_api, "ANSWER_S", 0.2)
    for said in (b"", b"\0\0\x12\4\0\0\0\0\0", b"SSH-2.0-x\r\n", b"HTTP/1.1 two hundred\r\n\r\n"):
        with speaking(said) as place:
            assert probe(place) is Guard.ABSENT, said
    with speaking(None) as place:
        assert probe(place) is Guard.SILENT
    assert probe(Place("127.0.0.1", free_port())) is Guard.ABSENT
    assert probe(Place("no-such-host.invalid", 8265)) is Guard.ABSENT


def test_what_is_told_and_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_api, "ANSWER_S", 0.2)
    nobody = Place("127.0.0.1", free_port())
    with answering(OPEN_DASHBOARD) as open_, answering(CLOSED_DASHBOARD) as closed, speaking(None) as silent:
        found = check_job_apis([nobody, closed, open_, silent])
        assert found.verdict is Verdict.WRONG
        assert str(open_) in found.found
        assert str(closed) not in found.found
        assert "RAY_AUTH_MODE=token" in (found.fix or "")
        found = check_job_apis([closed, silent])
        assert found.verdict is Verdict.WARNING
        assert str(silent) in found.found
        assert str(closed) in check_job_apis([nobody, closed]).found
    assert check_job_apis([]).verdict is check_job_apis([nobody]).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("guard", "verdict", "said"),
    [
        (Guard.OPEN, Verdict.WRONG, "10.0.0.1:6379 lets everybody who reaches it run code"),
        (Guard.SILENT, Verdict.WARNING, "nobody knows"),
        (Guard.CLOSED, Verdict.OK, "asks for a token"),
        (Guard.ABSENT, Verdict.OK, "not reached"),
    ],
)
def test_the_head_that_is_used(guard: Guard, verdict: Verdict, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_api, "find_places", lambda beside: [])
    monkeypatch.setattr(job_api, "probe_head", lambda address: guard)
    assert [found.check for found in check_doors(None)] == [found.check for found in check_doors("auto")] == ["job_api"]
    found = check_doors("10.0.0.1:6379")[1]
    assert found.verdict is verdict
    assert said in found.found
    if verdict is Verdict.WRONG:
        with pytest.raises(JobError, match="RAY_AUTH_MODE=token"):
            refuse_open_doors("10.0.0.1:6379")
    else:
        refuse_open_doors("10.0.0.1:6379")


def test_a_head_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_api, "_AS_STRANGER", "import sys; sys.exit(1)")
    assert probe_head("127.0.0.1:1") is Guard.SILENT
    monkeypatch.setattr(job_api, "_AS_STRANGER", "print('{}')")
    assert probe_head("127.0.0.1:1") is Guard.SILENT


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("answers", "verdict"), [(OPEN_DASHBOARD, "wrong"), (CLOSED_DASHBOARD, "ok")])
def test_the_doctor_tells(
    answers: Answers, verdict: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(answers) as place:
        monkeypatch.setattr(job_api, "head_places", lambda address: [place] if address == "10.0.0.1:6379" else [])
        status = main(["doctor", "--cluster", "10.0.0.1:6379", "--json"])
    lines = capsys.readouterr().out.splitlines()
    (found,) = (one for one in json.loads(lines[-1])["findings"] if one["check"] == "job_api")
    assert found["verdict"] == verdict
    assert str(place) in found["found"]
    assert status == (FAILED if verdict == "wrong" else DONE)
    assert any(line.startswith(verdict) and "job_api: " in line for line in lines)


def test_the_head_of_a_cluster() -> None:
    assert head_places("10.0.0.1:6379") == [Place("10.0.0.1", 8265), Place("10.0.0.1", 52365)]
    assert head_places("[fd00::1]:6379")[0] == Place("fd00::1", 8265)
    assert head_places("ray://head.example:10001")[0] == Place("head.example", 8265)
    assert head_places("auto") == head_places("head") == []
    assert str(Place("fd00::1", 8265)) == "[fd00::1]:8265"


LISTENS = "import socket, sys; s = socket.create_server((sys.argv[1], 0), family=int(sys.argv[2])); "
LISTENS += "print(s.getsockname()[1], flush=True); sys.stdin.read()"


@contextlib.contextmanager
def listening_process(host: str, *words: str) -> Iterator[int]:
    """A process that listens on `host`, with `words` in its command line; its port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    command = [sys.executable, "-c", LISTENS, host, str(int(family)), *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.kill()


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="processes are found by /proc, which Linux has")
def test_processes_of_ray_are_found_by_what_they_listen_on() -> None:
    before = find_places()
    assert {Place("127.0.0.1", 8265), Place("127.0.0.1", 52365)} <= set(before)
    dashboard, agent = "/lib/ray/dashboard/dashboard.py", "ray::DashboardAgent"
    with (
        listening_process("127.0.0.1", dashboard) as own,
        listening_process("0.0.0.0", agent) as everywhere,
        listening_process("::", dashboard) as six,
        listening_process("127.0.0.1", "/lib/another.py") as other,
    ):
        found = set(find_places(beside=[Place("10.0.0.1", 8265)]))
    assert {Place("127.0.0.1", own), Place("127.0.0.1", everywhere), Place("::1", six)} <= found
    assert Place("10.0.0.1", 8265) in found
    assert not {place for place in found if place.port == other}


HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def _row(local: str, inode: int, state: str = "0A") -> str:
    return (
        f"   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  1000        0 {inode} 1 0 100\n"
    )


def test_of_other_users_processes_the_command_line_tells(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    swap = sys.byteorder == "little"
    loopback, inner = ("0100007F", "0500000A") if swap else ("7F000001", "0A000005")
    rows = _row(f"{loopback}:2051", 1) + _row(f"{inner}:2049", 2) + _row(f"{inner}:2049", 3, state="01")
    (tmp_path / "net" / "tcp").write_text(HEADER + rows + _row(f"{loopback}:1F90", 4))
    (tmp_path / "12").mkdir()
    line = b"python\0/x/ray/dashboard/dashboard.py\0--host=10.0.0.5\0--port=8265\0--port-retries=0\0"
    (tmp_path / "12" / "cmdline").write_bytes(line)  # and no folder fd that could be read
    (tmp_path / "13").mkdir()
    (tmp_path / "net" / "tcp6").write_text("broken\n")
    found = find_places(proc=tmp_path)
    assert set(found) == {Place("10.0.0.5", 0x2049), Place("127.0.0.1", 8265), Place("127.0.0.1", 52365)}


def test_without_proc_the_usual_ports_are_asked(tmp_path: Path) -> None:
    assert find_places(proc=tmp_path / "none") == [Place("127.0.0.1", 8265), Place("127.0.0.1", 52365)]


def test_many_are_asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_api, "ANSWER_S", 0.3)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(speaking(None)) for _ in range(6)]
        began = time.monotonic()
        assert check_job_apis(silent).verdict is Verdict.WARNING
        assert time.monotonic() - began < 1.5
