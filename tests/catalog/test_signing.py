"""Signatures from a real token server on this machine, through Planetary Computer's own package."""

from __future__ import annotations

import datetime
import json
import pickle
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from earthmap.catalog import signing
from earthmap.catalog.signing import HostSigner, needs_signature
from earthmap.errors import ReadError

HREF = "https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/31/U/B04.tif"


@dataclass
class TokenServer:
    """Hands out numbered signatures."""

    seconds: float = 3600.0
    """How long they are good."""
    status: int = 200
    asked: list[str] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, *args: Any, state: TokenServer, **kwargs: Any) -> None:
        self.state = state
        super().__init__(*args, **kwargs)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.state.asked.append(self.path)
        until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=self.state.seconds)
        token = f"st=2024&se=2025&sp=rl&sig=s3cret{len(self.state.asked)}"
        body = json.dumps({"msft:expiry": until.isoformat(), "token": token}).encode()
        self.send_response(self.state.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenServer]:
    pytest.importorskip("planetary_computer", reason="the extra planetary-computer is not installed")
    from planetary_computer.sas import TOKEN_CACHE  # type: ignore[import-untyped]
    from planetary_computer.settings import Settings  # type: ignore[import-untyped]

    state = TokenServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, state=state))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    monkeypatch.setenv("PC_SDK_SAS_URL", f"http://127.0.0.1:{server.server_address[1]}/token")
    monkeypatch.setattr(signing, "_ASKED", {})
    monkeypatch.setattr(signing, "TRIES", 0)
    Settings.get.cache_clear()
    TOKEN_CACHE.clear()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()
    Settings.get.cache_clear()
    TOKEN_CACHE.clear()


def test_an_address_is_signed_for_its_container(tokens: TokenServer) -> None:
    assert HostSigner()(HREF) == f"{HREF}?st=2024&se=2025&sp=rl&sig=s3cret1"
    assert tokens.asked == ["/token/sentinel2l2a01/sentinel2-l2"]


def test_a_member_of_an_archive_is_signed_at_its_archive(tokens: TokenServer) -> None:
    archive = HREF.replace(".tif", ".zip")
    signed = HostSigner()(f"zip+{archive}!/a/b.tif")
    assert signed == f"zip+{archive}?st=2024&se=2025&sp=rl&sig=s3cret1!/a/b.tif"


@pytest.mark.parametrize(
    "href",
    [
        "/data/a.tif", "s3://bucket/a.tif", "https://example.org/a.tif", "https://blob.core.windows.net.evil.org/c/a",
        f"{HREF}?se=2020&sig=old", "zip:///data/a.zip!/b.tif",
    ],
)  # fmt: skip
def test_what_needs_none_stays_as_it_is(href: str, tokens: TokenServer) -> None:
    assert HostSigner()(href) == href
    assert tokens.asked == []


def test_threads_share_one_signature(tokens: TokenServer) -> None:
    with ThreadPoolExecutor(8) as pool:
        signed = set(pool.map(lambda _: HostSigner()(HREF), range(64)))
    assert len(signed) == len(tokens.asked) == 1


def test_a_signature_is_renewed_before_it_ends(tokens: TokenServer, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens.seconds = signing.RENEW_BEFORE_S - 60  # good for minutes: the package itself would keep it
    first = HostSigner()(HREF)
    assert HostSigner()(HREF).endswith("s3cret2")
    assert HostSigner()(HREF).endswith("s3cret2")  # not with every read, where a service gives short ones only
    monkeypatch.setattr(signing, "_ASKED", {})
    tokens.seconds = 3600.0
    assert HostSigner()(HREF).endswith("s3cret3")
    assert HostSigner()(HREF).endswith("s3cret3")
    assert first.endswith("s3cret1")


def test_a_refused_signature_is_replaced_once_for_all_threads(tokens: TokenServer) -> None:
    HostSigner()(HREF)
    with ThreadPoolExecutor(8) as pool:
        renewed = set(pool.map(lambda _: HostSigner()(HREF, renew=True), range(16)))
    assert {href.rpartition("=")[2] for href in renewed} == {"s3cret2"}
    assert len(tokens.asked) == 2


@pytest.mark.parametrize(("status", "reason"), [(401, "credentials"), (403, "credentials"), (404, "unavailable")])
def test_what_the_token_server_says(status: int, reason: str, tokens: TokenServer) -> None:
    tokens.status = status
    with pytest.raises(ReadError) as caught:
        HostSigner()(HREF)
    assert caught.value.reason == reason
    assert caught.value.address == HREF


def test_a_token_server_that_is_busy(tokens: TokenServer) -> None:
    tokens.status = 503
    with pytest.raises(ReadError) as caught:
        HostSigner()(HREF)
    assert caught.value.reason in ("refused", "unavailable")


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "planetary_computer", None)
    with pytest.raises(ReadError, match=r"pip install 'earthmap\[planetary-computer\]'") as caught:
        HostSigner()(HREF)
    assert caught.value.reason == "credentials"


def test_signers_cross_processes() -> None:
    assert pickle.loads(pickle.dumps(HostSigner())) == HostSigner()


def test_only_whole_host_names_count() -> None:
    assert needs_signature(HREF)
    assert not needs_signature("https://example.org/blob.core.windows.net/a.tif")
    assert not needs_signature("ftp://a.blob.core.windows.net/c/a.tif")
