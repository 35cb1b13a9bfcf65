"""What GDAL may open: chains and circles of directories are refused before it does, and redirections are bounded."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap.catalog.addresses import check_redirect
from earthmap.catalog.admission import (
    HEAD_BYTES,
    MAX_DIRECTORIES,
    MAX_FETCHES,
    admit,
    check_directories,
    forget_addresses,
)
from earthmap.catalog.http import check_hop, open_session
from earthmap.catalog.raster_facts import read_facts
from earthmap.connection import Connection
from earthmap.cube import RasterioReader, failures, rasters
from earthmap.errors import ReadError
from tests.catalog.image_files import drawn, write_raster
from tests.cube.conftest import source
from tests.servers import s3_server


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    forget_addresses()
    monkeypatch.setattr(failures, "_PLACES", set())
    for name, value in {"CONNECT_TIMEOUT": "2", "READ_TIMEOUT": "2", "READ_RETRIES": "0"}.items():
        monkeypatch.setenv(f"EARTHMAP_{name}", value)
    yield
    rasters.close_files()


def chain(count: int, *, order: str = "<", big: bool = False, to: int | None = None, gap: int = 0) -> bytes:
    """A TIFF of `count` empty directories, `gap` bytes between them; the last points at number `to`, or nowhere."""
    kinds, head = ("Q", "Q") if big else ("H", "I"), 16 if big else 8
    size = struct.calcsize(f"{order}{kinds[0]}{kinds[1]}") + gap
    version = struct.pack(f"{order}HHHQ", 43, 8, 0, head) if big else struct.pack(f"{order}HI", 42, head)
    parts = [(b"II" if order == "<" else b"MM") + version]
    for number in range(count):
        following = number + 1 if number + 1 < count else to
        place = 0 if following is None else head + following * size
        parts.append(struct.pack(f"{order}{kinds[0]}{kinds[1]}", 0, place) + bytes(gap))
    return b"".join(parts)


class Counted:
    """A file in memory that counts how often it is asked."""

    def __init__(self, data: bytes) -> None:
        self.data, self.asked = data, 0

    def __call__(self, start: int, count: int) -> bytes:
        self.asked += 1
        return self.data[start : start + count]


FORMS = st.tuples(st.sampled_from("<>"), st.booleans())


@given(form=FORMS, count=st.integers(0, 3 * MAX_DIRECTORIES), gap=st.sampled_from([0, 6, 240]))
def test_a_chain_is_refused_by_its_length_alone(form: tuple[str, bool], count: int, gap: int) -> None:
    data = Counted(chain(count, order=form[0], big=form[1], gap=gap))
    if count <= MAX_DIRECTORIES:
        check_directories(data, "a.tif")
        return
    with pytest.raises(ReadError, match=r"more than 128 TIFF directories.*at most 128.*gdal_translate") as caught:
        check_directories(data, "a.tif")
    assert caught.value.reason == "too_large"


@given(form=FORMS, count=st.integers(1, MAX_DIRECTORIES), data=st.data())
def test_a_circle_is_refused_wherever_it_closes(form: tuple[str, bool], count: int, data: st.DataObject) -> None:
    to = data.draw(st.integers(0, count - 1))
    with pytest.raises(ReadError, match="lead in a circle") as caught:
        check_directories(Counted(chain(count, order=form[0], big=form[1], to=to)), "a.tif")
    assert caught.value.reason == "damaged"


def test_a_hundred_thousand_directories_cost_one_look() -> None:
    data = Counted(chain(100_000, big=True))
    with pytest.raises(ReadError):
        check_directories(data, "a.tif")
    assert data.asked == 1


def test_scattered_directories_cost_a_bounded_number() -> None:
    data = Counted(chain(MAX_DIRECTORIES, gap=2 * HEAD_BYTES))
    with pytest.raises(ReadError, match="scattered") as caught:
        check_directories(data, "a.tif")
    assert caught.value.reason == "too_large"
    assert data.asked <= MAX_FETCHES + 2
    check_directories(Counted(chain(30, gap=2 * HEAD_BYTES)), "a.tif")  # as an image of many overviews may be


@given(data=st.binary(max_size=64), start=st.sampled_from([b"", b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b"MM\0+"]))
def test_what_is_no_tiff_or_breaks_off_is_left_to_gdal(data: bytes, start: bytes) -> None:
    with contextlib.suppress(ReadError):  # a few bytes may well lead to themselves
        check_directories(Counted(start + data), "a.tif")


@pytest.mark.parametrize("kind", ["plain", "big", "overviews", "mask", "packed"])
def test_real_files_pass(kind: str, tmp_path: Path) -> None:
    import rasterio

    path = write_raster(
        tmp_path / "a.tif", drawn(10, 1), tiled=True, blockxsize=64, blockysize=64, BIGTIFF=kind == "big"
    )
    with rasterio.open(path, "r+") as file:
        if kind == "overviews":
            file.build_overviews([2, 4, 8])
        if kind == "mask":
            with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
                file.write_mask(np.ones(file.shape, bool))
    address = str(path)
    if kind == "packed":
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(path, "b/a.tif")
        address = f"zip://{tmp_path}/a.zip!/b/a.tif"
    assert admit(address, href=address) == address
    assert read_facts(address).shape == (240, 240)


# -- files of every place


@dataclass
class Site:
    """Files over HTTP, and where paths redirect; every request is noted. It answers as a proxy too."""

    files: dict[str, bytes] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    only_gdal: bool = False
    """Redirects what is no request of Python's own."""
    denied: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    address: str = ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *args: Any, site: Site, **kwargs: Any) -> None:
        self.site = site
        super().__init__(*args, **kwargs)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        site, path = self.site, self.path
        site.requests.append(path)
        ours = "python-requests" in self.headers.get("User-Agent", "")
        body, status, more = b"", 200, {}
        if path in site.denied:
            status = 403
        elif path in site.moved and not (ours and site.only_gdal):
            status, more = 302, {"Location": site.moved[path]}
        elif path not in site.files:
            status = 404
        else:
            body, wanted = site.files[path], re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if wanted:
                start, end = int(wanted[1]), min(int(wanted[2]), len(body) - 1)
                more = {"Content-Range": f"bytes {start}-{end}/{len(body)}"}
                body, status = body[start : end + 1], 206
        self.send_response(status)
        for name, value in {**more, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that GDAL closes early is no news."""


@pytest.fixture
def serve() -> Iterator[Callable[[], Site]]:
    servers = []

    def start() -> Site:
        site = Site()
        server = _Server(("127.0.0.1", 0), partial(_Handler, site=site))
        site.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        servers.append((server, thread))
        return site

    yield start
    rasters.close_files()
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def image(tmp_path: Path) -> bytes:
    return write_raster(tmp_path / "image.tif", drawn(10, 1), tiled=True, blockxsize=64, blockysize=64).read_bytes()


def read(href: str) -> np.ndarray:
    from affine import Affine
    from odc.geo.geobox import GeoBox

    box = GeoBox((64, 64), Affine(10, 0, 600_000, 0, -10, 4_900_020), "EPSG:32631")
    return RasterioReader().read(source(href), box)


def refused(href: str) -> ReadError:
    with pytest.raises(ReadError) as caught:
        read(href)
    return caught.value


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_a_long_chain_is_refused_wherever_it_stands(
    order: str, big: bool, tmp_path: Path, serve: Callable[[], Site]
) -> None:
    data = chain(100_000, order=order, big=big)
    (tmp_path / "bomb.tif").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "bomb.tif", "bomb.tif")
    site = serve()
    site.files = {"/bomb.tif": data, "/bomb.zip": (tmp_path / "bomb.zip").read_bytes()}
    places = [str(tmp_path / "bomb.tif"), f"zip://{tmp_path}/bomb.zip!/bomb.tif"]
    places += [f"{site.address}/bomb.tif", f"zip+{site.address}/bomb.zip!/bomb.tif"]
    for place in places:
        error = refused(place)
        assert (error.reason, error.address) == ("too_large", place)
        with pytest.raises(ReadError, match="more than 128 TIFF directories"):
            read_facts(place)
    assert site.requests.count("/bomb.tif") == 1  # remembered


def test_a_chain_in_the_overviews_beside_an_image(tmp_path: Path, image: bytes) -> None:
    (tmp_path / "image.tif.ovr").write_bytes(chain(1_000))
    assert refused(str(tmp_path / "image.tif")).reason == "too_large"


def test_a_file_that_is_replaced_is_looked_at_again(tmp_path: Path, image: bytes) -> None:
    path = tmp_path / "image.tif"
    path.write_bytes(chain(1_000))
    assert refused(str(path)).reason == "too_large"
    path.write_bytes(image)
    assert np.isfinite(read(str(path))).all()


@pytest.mark.slow
def test_a_long_chain_on_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3  # type: ignore[import-untyped]

    with s3_server(tmp_path) as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        boto3.client("s3", endpoint_url=server.endpoint).put_object(
            Bucket=server.bucket, Key="bomb.tif", Body=chain(100_000)
        )
        assert refused(f"{server.address}/bomb.tif").reason == "too_large"


# -- redirections


def test_gdal_is_given_the_address_at_the_end(serve: Callable[[], Site], image: bytes) -> None:
    """Redirections between machines of one network are followed, by us and once; GDAL never sees the first address."""
    first, second = serve(), serve()
    first.moved = {"/a.tif": f"{first.address}/b.tif", "/b.tif": f"{second.address}/c.tif?sig=1"}
    second.files = {"/c.tif?sig=1": image}
    for _ in range(3):
        assert np.isfinite(read(f"{first.address}/a.tif")).all()
    assert first.requests == ["/a.tif", "/b.tif"]
    assert read_facts(f"{first.address}/a.tif").shape == (240, 240)


def test_a_redirection_that_is_refused_later_is_asked_for_anew(serve: Callable[[], Site], image: bytes) -> None:
    """A signed address behind a redirection ends before what is remembered of it."""
    site = serve()
    site.moved, site.files = {"/a.tif": "/c.tif?sig=1"}, {"/c.tif?sig=1": image, "/c.tif?sig=2": image}
    read(f"{site.address}/a.tif")
    rasters.close_files()
    site.moved, site.denied = {"/a.tif": "/c.tif?sig=2"}, {"/c.tif?sig=1"}
    assert np.isfinite(read(f"{site.address}/a.tif")).all()


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data/a.tif",
        "http://[fe80::1]/a.tif",
        "http://metadata.google.internal/a.tif",
        "http://2852039166/a.tif",
        "//169.254.169.254/a.tif",
        "ftp://example.org/a.tif",
        "file:///etc/passwd",
    ],
)
def test_nothing_is_redirected_to_where_keys_are(target: str, serve: Callable[[], Site]) -> None:
    site = serve()
    site.moved = {"/a.tif": target, "/a.zip": target}
    for href in (f"{site.address}/a.tif", f"zip+{site.address}/a.zip!/a.tif"):
        error = refused(href)
        assert error.reason == "forbidden_address"
        assert "redirects to" in str(error)
    with pytest.raises(ReadError, match="redirects to"):
        open_session(Connection.from_environment()).get(f"{site.address}/a.tif")


def test_a_public_address_is_not_redirected_into_this_network(
    serve: Callable[[], Site], image: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy stands for the public network; the machine behind the redirection is never asked."""
    proxy, inside = serve(), serve()
    monkeypatch.setenv("HTTP_PROXY", proxy.address)
    monkeypatch.setenv("http_proxy", proxy.address)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    inside.files = {"/a.tif": image}
    public = "http://public.example"
    proxy.moved = {f"{public}/a.tif": f"{inside.address}/a.tif?sig=s3cret", f"{public}/b.tif": f"{public}/c.tif"}
    proxy.files = {f"{public}/c.tif": image}
    error = refused(f"{public}/a.tif")
    assert error.reason == "forbidden_address"
    assert "is a machine of this network" in str(error)
    assert "s3cret" not in str(error)
    assert inside.requests == []
    assert np.isfinite(read(f"{public}/b.tif")).all()  # from public to public
    assert np.isfinite(read(f"{inside.address}/a.tif")).all()  # named as it is


def test_what_only_gdal_is_redirected_to_is_not_used(
    serve: Callable[[], Site], image: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GDAL cannot be kept from following a server that answers it otherwise than us; its pixels are not taken."""
    proxy, inside = serve(), serve()
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, proxy.address)
    proxy.only_gdal = True
    proxy.moved = {"http://public.example/a.tif": f"{inside.address}/a.tif"}
    proxy.files = {"http://public.example/a.tif": image, f"{inside.address}/a.tif": image}
    assert refused("http://public.example/a.tif").reason == "forbidden_address"


@pytest.mark.parametrize(
    ("target", "origin"),
    [
        ("http://10.0.0.2/a", "http://10.0.0.1/a"),
        ("http://127.0.0.1:2/a", "http://localhost:1/a"),
        ("https://1.1.1.1/a", "http://example.org/a"),
        ("https://cdn.example.org/a", "http://10.0.0.1/a"),
    ],
)
def test_redirections_that_are_followed(target: str, origin: str) -> None:
    check_redirect(target, origin=origin)


NAMES = {
    "data.corp": ["10.0.0.5"],
    "store.corp": ["10.0.0.6", "fd12::6"],
    "cdn.example": ["93.184.215.14"],
    "trap.example": ["93.184.215.14", "169.254.169.254"],
    "inner.example": ["::ffff:192.168.0.7"],
    "link.example": ["fe80::1%eth0"],
}


@pytest.mark.parametrize(
    ("target", "origin", "followed"),
    [
        ("http://store.corp/a", "http://data.corp/a", True),
        ("http://10.0.0.9/a", "http://data.corp/a", True),
        ("http://cdn.example/a", "http://data.corp/a", True),
        ("http://nobody.example/a", "http://cdn.example/a", True),
        ("http://store.corp/a", "http://cdn.example/a", False),
        ("http://inner.example/a", "http://cdn.example/a", False),
        ("http://trap.example/a", "http://cdn.example/a", False),
        ("http://trap.example/a", "http://data.corp/a", False),
        ("http://link.example/a", "http://data.corp/a", False),
        ("http://store.corp/a", "http://nobody.example/a", False),
    ],
)
def test_names_are_looked_up(target: str, origin: str, followed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def numbers(host: str, port: object) -> list[Any]:
        if host not in NAMES:
            raise socket.gaierror
        return [(0, 0, 0, "", (number, 0)) for number in NAMES[host]]

    monkeypatch.setattr(socket, "getaddrinfo", numbers)
    if followed:
        check_hop(target, origin=origin, connection=Connection())
    else:
        with pytest.raises(ReadError, match="redirects to"):
            check_hop(target, origin=origin, connection=Connection())
    proxied = Connection(http_proxy="http://proxy:3128")
    check_hop("http://store.corp/a", origin="http://cdn.example/a", connection=proxied)  # the proxy knows, not we


def test_a_name_of_this_network_redirects_inside_it(
    serve: Callable[[], Site], image: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *more, **named: look_up("127.0.0.1" if host == "data.corp" else host, *more, **named),
    )
    first, second = serve(), serve()
    first.moved, second.files = {"/a.tif": f"{second.address}/b.tif"}, {"/b.tif": image}
    port = first.address.rpartition(":")[2]
    assert np.isfinite(read(f"http://data.corp:{port}/a.tif")).all()
