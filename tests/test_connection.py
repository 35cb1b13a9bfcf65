"""One record for all clients: the environment reaches requests, GDAL and obstore alike, and secrets stay hidden."""

from __future__ import annotations

import email.utils
import pickle
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from earthmap.catalog.http import open_session
from earthmap.connection import S3, Connection, retry_after_s
from earthmap.errors import JobError
from tests.servers import s3_server

SECRET = "s3cr3t-t0ken"


class Echo:
    """A server, and proxy, that notes each request line and its headers."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.redirect: str | None = None


@pytest.fixture
def echo() -> Iterator[Echo]:
    state = Echo("")

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            state.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            moved = state.redirect if self.path == "/moved" else None
            self.send_response(302 if moved else 200)
            if moved:
                self.send_header("Location", moved)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def test_usual_variables() -> None:
    connection = Connection.from_environment(
        {
            "HTTPS_PROXY": "http://user:pw@proxy:3128",
            "NO_PROXY": "localhost,.inside.example",
            "AWS_ENDPOINT_URL": "http://127.0.0.1:9000",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_REQUEST_PAYER": "requester",
            "AWS_NO_SIGN_REQUEST": "YES",
            "EARTHMAP_RETRIES": "0",
        }
    )
    assert connection.proxy_for("https://far.example/a") == "http://user:pw@proxy:3128"
    assert connection.proxy_for("https://a.inside.example:8443/a") is None
    assert connection.proxy_for("http://far.example/a") is None
    assert connection.retries == 0
    assert connection.s3 == S3(
        endpoint="http://127.0.0.1:9000",
        region="eu-central-1",
        requester_pays=True,
        anonymous=True,
        virtual_hosting=False,
    )
    assert not connection.signed().s3.anonymous
    assert Connection.from_environment({}) == Connection()


@pytest.mark.parametrize(
    ("environment", "endpoint"),
    [
        ({"AWS_S3_ENDPOINT": "minio:9000", "AWS_HTTPS": "NO"}, "http://minio:9000"),
        ({"AWS_S3_ENDPOINT": "minio.example"}, "https://minio.example"),
        ({"AWS_ENDPOINT": "http://a"}, "http://a"),
        ({"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_S3": "http://b"}, "http://b"),
    ],
)
def test_names_of_an_endpoint(environment: dict[str, str], endpoint: str) -> None:
    assert Connection.from_environment(environment).s3.endpoint == endpoint


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"EARTHMAP_READ_TIMEOUT": "soon"}, "EARTHMAP_READ_TIMEOUT is 'soon'.*number of seconds"),
        ({"EARTHMAP_READ_TIMEOUT": "0"}, "EARTHMAP_READ_TIMEOUT"),
        ({"EARTHMAP_PATIENCE": "nan"}, "EARTHMAP_PATIENCE"),
        ({"EARTHMAP_RETRIES": "-1"}, "whole number"),
        ({"AWS_NO_SIGN_REQUEST": "perhaps"}, "YES or NO"),
        ({"SSL_CERT_FILE": "/no/such.pem"}, "SSL_CERT_FILE names /no/such.pem"),
        ({"EARTHMAP_TOKEN": SECRET}, "EARTHMAP_HEADER_HOSTS"),
        ({"EARTHMAP_HEADERS": f"X-Key {SECRET}", "EARTHMAP_HEADER_HOSTS": "a"}, "Name: value"),
        ({"EARTHMAP_TOKEN": f"{SECRET}\nX-Other: 1", "EARTHMAP_HEADER_HOSTS": "a"}, "plain characters"),
    ],
)
def test_values_that_cannot_be_followed(environment: dict[str, str], message: str) -> None:
    with pytest.raises(JobError, match=message) as caught:
        Connection.from_environment(environment)
    assert SECRET not in str(caught.value)


def test_secrets_stay_hidden_and_travel() -> None:
    connection = Connection.from_environment(
        {
            "HTTPS_PROXY": f"http://user:{SECRET}@proxy",
            "EARTHMAP_TOKEN": SECRET,
            "EARTHMAP_HEADER_HOSTS": "stac.example.org",
        }
    )
    assert SECRET not in repr(connection)
    again = pickle.loads(pickle.dumps(connection))
    assert again == connection
    assert again.headers_for("https://STAC.example.org/a") == {"Authorization": f"Bearer {SECRET}"}


@pytest.mark.parametrize(
    ("address", "own"),
    [
        ("https://stac.example.org/a", True),
        ("https://b.data.example.org/a", True),
        ("https://data.example.org/a", False),
        ("https://stac.example.org.evil.example/a", False),
        ("https://evil.example/stac.example.org", False),
        ("https://stac.example.org@evil.example/", False),
    ],
)
def test_headers_are_for_own_hosts_only(address: str, own: bool) -> None:
    hosts = ("stac.example.org", ".data.example.org")
    connection = Connection(headers=(("X-Key", SECRET),), header_hosts=hosts)
    assert bool(connection.headers_for(address)) == own
    assert (SECRET in str(connection.gdal_options(f"/vsicurl/{address}"))) == own
    assert (SECRET in str(connection.obstore_options(address))) == own


def test_a_local_path_needs_nothing() -> None:
    connection = Connection(http_proxy="http://proxy", s3=S3(endpoint="http://x"))
    assert connection.gdal_options("/data/a.tif") == {}
    assert connection.gdal_options("/vsizip/{/data/a.zip}/b.tif") == {}


def test_gdal_options_of_s3() -> None:
    options = Connection(
        read_timeout_s=0.2, s3=S3(endpoint="https://minio:9000", virtual_hosting=False, requester_pays=True)
    ).gdal_options("/vsizip/{/vsis3/bucket/a.zip}/b.tif")
    assert options["AWS_S3_ENDPOINT"] == "minio:9000"
    assert options["AWS_HTTPS"] == "YES"
    assert options["AWS_VIRTUAL_HOSTING"] == "FALSE"
    assert options["AWS_REQUEST_PAYER"] == "requester"
    assert options["GDAL_HTTP_TIMEOUT"] == "1"


def test_requests_headers_end_at_a_redirection(echo: Echo) -> None:
    host = echo.address.removeprefix("http://")
    other = echo.address.replace("127.0.0.1", "localhost")
    echo.redirect = f"{other}/there"
    connection = Connection(headers=(("X-Key", SECRET),), header_hosts=("127.0.0.1",))
    with open_session(connection) as session:
        assert session.get(f"{echo.address}/moved").ok
    (_, first), (_, second) = echo.seen
    assert first["x-key"] == SECRET
    assert first["host"] == host
    assert "x-key" not in second


def test_requests_go_through_the_proxy(echo: Echo) -> None:
    connection = Connection(http_proxy=echo.address, no_proxy="127.0.0.1")
    with open_session(connection) as session:
        session.get("http://far.example/a")
        session.get(f"{echo.address}/near")
    assert [path for path, _ in echo.seen] == ["http://far.example/a", "/near"]


def test_gdal_sends_headers_and_uses_the_proxy(echo: Echo) -> None:
    import rasterio
    from rasterio.errors import RasterioIOError

    awkward = 'a,b "c" d'
    connection = Connection(
        http_proxy=echo.address,
        no_proxy="127.0.0.1",
        read_retries=0,
        headers=(("X-Key", awkward), ("X-More", "2")),
        header_hosts=("127.0.0.1",),
    )
    for number, address in enumerate((echo.address, "http://far.example")):
        path = f"/vsicurl/{address}/{number}.tif"
        with rasterio.Env(**connection.gdal_options(path)), pytest.raises(RasterioIOError):
            rasterio.open(path)
    near = [headers for path, headers in echo.seen if path.endswith("/0.tif")]
    far = [headers for path, headers in echo.seen if path.startswith("http://far.example")]
    assert near[0]["x-key"] == awkward
    assert near[0]["x-more"] == "2"
    assert far
    assert not any("x-key" in headers for headers in far)


def test_obstore_sends_headers_and_uses_the_proxy(echo: Echo) -> None:
    import obstore
    from obstore.store import from_url

    connection = Connection(
        http_proxy=echo.address,
        no_proxy="127.0.0.1",
        retries=0,
        headers=(("X-Key", SECRET),),
        header_hosts=("127.0.0.1",),
    )
    for address in (echo.address, "http://far.example"):
        obstore.get(from_url(address, **connection.obstore_options(address)), "a.bin")
    (near, sent), (far, plain) = echo.seen
    assert (near, far) == ("/a.bin", "http://far.example/a.bin")
    assert sent["x-key"] == SECRET
    assert "x-key" not in plain


def test_gdal_and_obstore_read_the_same_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np
    import obstore
    import rasterio
    from obstore.store import from_url

    path = tmp_path / "a.tif"
    shape = {"width": 8, "height": 8, "count": 1, "dtype": "uint8"}
    place = {"crs": "EPSG:32632", "transform": rasterio.Affine(10, 0, 500000, 0, -10, 5000000)}
    with rasterio.open(path, "w", driver="GTiff", **shape, **place) as dataset:
        dataset.write(np.arange(64, dtype=np.uint8).reshape(1, 8, 8))
    with s3_server(tmp_path) as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        connection = Connection.from_environment()
        store = from_url(server.address, **connection.obstore_options(server.address))
        obstore.put(store, "deep/a.tif", path.read_bytes())
        name = f"/vsis3/{server.bucket}/deep/a.tif"
        for one in (connection, replace(connection, s3=replace(connection.s3, anonymous=True))):
            with rasterio.Env(**one.gdal_options(name)), rasterio.open(name) as dataset:
                assert dataset.read(1).ravel().tolist() == list(range(64))


def test_a_time_out_ends_a_request(tmp_path: Path) -> None:
    with open_session(Connection(connect_timeout_s=0.3, read_timeout_s=0.3)) as session:
        began = time.monotonic()
        with pytest.raises(requests.exceptions.RequestException):
            session.get("http://127.0.0.1:9/")
        assert time.monotonic() - began < 3


def test_an_unknown_profile_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(JobError, match="profile 'nobody' cannot be used"):
        Connection(s3=S3(profile="nobody")).obstore_options("s3://bucket")


@given(st.integers(1, 20), st.one_of(st.none(), st.floats(0, 1000)))
def test_pauses(tries: int, asked_s: float | None) -> None:
    connection = Connection()
    pause = connection.pause_s(tries, asked_s=asked_s)
    assert pause >= (asked_s or 0.0)
    assert pause <= max(asked_s or 0.0, connection.longest_backoff_s)
    assert connection.pause_s(tries + 1, asked_s=asked_s) >= pause


def test_retry_after() -> None:
    assert retry_after_s("7") == 7.0
    assert retry_after_s("soon") is None
    assert retry_after_s(None) is None
    wait = retry_after_s(email.utils.formatdate(time.time() + 30, usegmt=True))
    assert wait is not None
    assert 27 < wait <= 30
    assert retry_after_s(email.utils.formatdate(time.time() - 30, usegmt=True)) == 0.0
