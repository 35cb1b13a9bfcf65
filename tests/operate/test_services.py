"""Clocks of services that are off, wrong or silent."""

from __future__ import annotations

import contextlib
import email.utils
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from earthmap.operate.findings import Verdict
from earthmap.operate.services import check_service_clock
from tests.servers import free_port


@contextlib.contextmanager
def _dated(date: str | None) -> Iterator[str]:
    """A server that says it is `date`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(403)
            if date is not None:
                self.send_header("Date", date)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARTHMAP_RETRIES", "0")


@pytest.mark.parametrize(
    ("seconds", "verdict"), [(0, Verdict.OK), (10, Verdict.OK), (60, Verdict.WRONG), (-7200, Verdict.WRONG)]
)
def test_a_service_whose_clock_differs(seconds: float, verdict: Verdict) -> None:
    with _dated(email.utils.formatdate(time.time() + seconds, usegmt=True)) as address:
        found = check_service_clock(address)
    assert found.verdict is verdict
    if seconds:
        assert ("behind" if seconds > 0 else "ahead") in found.found


@pytest.mark.parametrize("date", [None, "soon", "32 Foo 2024"])
def test_a_service_that_does_not_say_the_time(date: str | None) -> None:
    with _dated(date) as address:
        found = check_service_clock(address)
    assert found.verdict is Verdict.OK
    assert "does not say" in found.found


def test_a_service_that_does_not_answer() -> None:
    found = check_service_clock(f"http://127.0.0.1:{free_port()}")
    assert found.verdict is Verdict.WARNING
    assert found.fix
