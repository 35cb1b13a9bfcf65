"""Every cause of a failed read, from a real server or a real broken file, through the reader itself."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.enums

from earthmap.connection import retry_after_s
from earthmap.cube import RasterioReader, failures, limits, rasters
from earthmap.cube.failures import (
    RULINGS,
    Cause,
    Decision,
    Evidence,
    Probe,
    cause_of,
    classify,
    decision_of,
    heard,
    is_lasting,
    place_of,
    redact,
)
from earthmap.errors import ReadError
from earthmap.grid.tiling import Cell
from tests.cube.conftest import around, source

Write = Callable[..., str]


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was read before, and a server that does not answer is given up soon."""
    monkeypatch.setattr(failures, "_PLACES", set())
    for name, value in {"CONNECT_TIMEOUT": "1", "READ_TIMEOUT": "1", "READ_RETRIES": "0"}.items():
        monkeypatch.setenv(f"EARTHMAP_{name}", value)


@dataclass
class Faulty:
    """One file over HTTP, behind a fault."""

    data: bytes
    address: str = ""
    fault: str = "none"
    """A status, or one of the words of `_Handler`; with `late ` before it, only beyond the first 32 KiB."""
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *args: Any, state: Faulty, **kwargs: Any) -> None:
        self.state = state
        super().__init__(*args, **kwargs)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        data = self.state.data
        self.state.requests.append(self.path)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, end = (int(wanted[1]), int(wanted[2] or len(data))) if wanted else (0, len(data))
        end = min(end + 1, len(data))
        fault = self.state.fault
        if fault.startswith("late "):
            fault = fault[5:] if start >= 2**14 else "none"
        if fault == "none":
            self._send(206 if wanted else 200, data[start:end], content_range=f"bytes {start}-{end - 1}/{len(data)}")
        elif fault == "cut":
            part = f"bytes {start}-{end - 1}/{len(data)}"
            self._send(206, data[start:end], content_range=part, cut=True)
        elif fault == "zeros":
            self._send(206, bytes(end - start), content_range=f"bytes {start}-{end - 1}/{len(data)}")
        elif fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif fault == "hang":
            time.sleep(1.2)
            self.close_connection = True
        elif fault.isdigit():
            self._send(int(fault), b"no")
        else:
            self._send(200, fault.encode())

    def do_HEAD(self) -> None:
        self.do_GET()

    def _send(self, status: int, body: bytes, *, content_range: str | None = None, cut: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in self.state.headers.items():
            self.send_header(name, value)
        if content_range and status == 206:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        self.close_connection = self.close_connection or cut


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that a test breaks is no news."""


@pytest.fixture
def image(cell: Cell, write: Write) -> Path:
    values = np.random.default_rng(5).integers(1, 9999, (480, 480), np.uint16)
    return Path(write("good.tif", values, around(cell.geobox, size=10)))


@pytest.fixture
def server(image: Path) -> Iterator[Faulty]:
    state = Faulty(image.read_bytes())
    http = _Server(("127.0.0.1", 0), partial(_Handler, state=state))
    state.address = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield state
    http.shutdown()
    http.server_close()
    thread.join()
    rasters.close_files()


def failed(href: str, cell: Cell, reader: RasterioReader | None = None) -> ReadError:
    with pytest.raises(ReadError) as caught:
        (reader or RasterioReader()).read(source(href), cell.geobox)
    return caught.value


# ── over HTTP ────────────────────────────────────────────────────────────────────────────────────────────────

_PAGE = "<!DOCTYPE html><html><body>Please sign in</body></html>"
_ANSWERS = [
    ("401", "credentials", "denied"),
    ("403", "credentials", "denied"),
    ("404", "never_published", "never_published"),
    ("410", "never_published", "never_published"),
    ("429", "refused", "refused"),
    ("500", "unavailable", "unavailable"),
    ("502", "unavailable", "unavailable"),
    ("503", "refused", "refused"),
    ("504", "unavailable", "unavailable"),
    ("reset", "unavailable", "unavailable"),
    ("hang", "unavailable", "unavailable"),
    (_PAGE, "credentials", "denied"),
    ("<Error><Code>ExpiredToken</Code></Error>", "expired_credentials", "expired_credentials"),
    ("<Error><Code>SlowDown</Code></Error>", "refused", "refused"),
    ("<VRTDataset rasterXSize='8'/>", "unsupported", "unsupported"),
    ("", "damaged", "damaged"),
    ("just text", "damaged", "damaged"),
    ("zeros", "damaged", "damaged"),
    ("cut", "unavailable", "unavailable"),
]


@pytest.mark.parametrize(("fault", "before", "after"), _ANSWERS)
def test_what_a_server_answers(fault: str, before: str, after: str, cell: Cell, server: Faulty) -> None:
    """The same answer means another thing once something was read from there."""
    server.fault = fault
    error = failed(f"{server.address}/a.tif", cell)
    assert error.reason == before, error
    failures.note_read(server.address)
    assert failed(f"{server.address}/b.tif", cell).reason == after


_MIDDLES = ["401", "403", "429", "500", "503", "reset", "hang", "cut", _PAGE]


@pytest.mark.parametrize("fault", _MIDDLES)
def test_trouble_in_the_middle_of_a_file_is_not_damage(fault: str, cell: Cell, server: Faulty) -> None:
    """GDAL's exception says only that a tile is too short, as for a truncated file; its log says why."""
    failures.note_read(server.address)
    server.fault = f"late {fault}"
    reason = failed(f"{server.address}/a.tif", cell).reason
    assert reason == {"401": "denied", "403": "denied", "429": "refused", "503": "refused"}.get(fault, "unavailable")


def test_damage_in_the_middle_is_damage(cell: Cell, server: Faulty) -> None:
    server.fault = "late zeros"
    assert failed(f"{server.address}/a.tif", cell).reason == "damaged"


@pytest.mark.parametrize("fault", ["404", "403", "429", "503", "reset", "cut", _PAGE, "", "late 503", "late reset"])
def test_a_failure_is_not_remembered(fault: str, cell: Cell, server: Faulty) -> None:
    """GDAL keeps what it knows of an address for the life of a process, a failure too, unless told otherwise."""
    server.fault = fault
    failed(f"{server.address}/a.tif", cell)
    server.fault = "none"
    assert np.isfinite(RasterioReader().read(source(f"{server.address}/a.tif"), cell.geobox)).all()


@pytest.mark.parametrize(("value", "expected"), [("7", 7.0), ("soon", None), ("a date", 60.0)])
def test_the_provider_says_how_long_to_wait(value: str, expected: float | None, cell: Cell, server: Faulty) -> None:
    value = formatdate(time.time() + 60, usegmt=True) if value == "a date" else value
    server.fault, server.headers = "429", {"Retry-After": value}
    asked = failed(f"{server.address}/a.tif", cell).retry_after_s
    assert asked == (None if expected is None else pytest.approx(expected, abs=3))


def test_a_server_that_is_not_there(cell: Cell) -> None:
    assert failed("http://127.0.0.1:1/a.tif", cell).reason == "unavailable"


def test_words_of_a_files_own_name_are_no_evidence(cell: Cell, server: Faulty) -> None:
    server.fault = "404"
    assert failed(f"{server.address}/AccessDenied-ExpiredToken.tif", cell).reason == "never_published"


# ── broken files ─────────────────────────────────────────────────────────────────────────────────────────────


def _ifd(entries: list[tuple[int, int, int, int]], following: int) -> bytes:
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<H", len(entries)) + packed + struct.pack("<I", following)


def _tiny(side: int = 16) -> list[tuple[int, int, int, int]]:
    """The tags of an 8-bit image of `side`², all of whose pixels are at offset 8."""
    return [
        (256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8),
        (277, 3, 1, 1), (278, 4, 1, side), (279, 4, 1, side * side),
    ]  # fmt: skip


def _chain(path: Path, count: int, *, loop: bool) -> None:
    """A TIFF of `count` directories, the last of which names the first where it is a loop."""
    start, size = 8 + 256, 2 + 9 * 12 + 4
    offsets = [start + number * size for number in range(count)]
    following = [*offsets[1:], offsets[0] if loop else 0]
    directories = b"".join(_ifd(_tiny(), after) for after in following)
    path.write_bytes(struct.pack("<2sHI", b"II", 42, start) + bytes(256) + directories)


def _truncated(path: Path, data: bytes, cell: Cell) -> None:
    path.write_bytes(data[: len(data) // 2])


def _header(path: Path, data: bytes, cell: Cell) -> None:
    path.write_bytes(bytes(512) + data[512:])


def _block(path: Path, data: bytes, cell: Cell) -> None:
    middle = len(data) // 2
    path.write_bytes(data[:middle] + b"\x55" * 3000 + data[middle + 3000 :])


def _empty(path: Path, data: bytes, cell: Cell) -> None:
    path.write_bytes(b"")


def _text(path: Path, data: bytes, cell: Cell) -> None:
    path.write_text("this is text")


def _vrt(path: Path, data: bytes, cell: Cell) -> None:
    path.write_text(
        '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1"/></VRTDataset>'
    )


def _pipeline(path: Path, data: bytes, cell: Cell) -> None:
    path.write_text('{"type": "gdal_streamed_alg", "command_line": "gdal raster pipeline ! read x.tif ! write"}')


def _huge(path: Path, data: bytes, cell: Cell) -> None:
    """A header that claims four billion pixels in one strip, and nothing behind it."""
    path.write_bytes(struct.pack("<2sHI", b"II", 42, 8) + _ifd([*_tiny(2**31 - 1)[:8], (279, 4, 1, 256)], 0))


def _bomb(path: Path, data: bytes, cell: Cell) -> None:
    """A few kilobytes whose tiles decode to half a gigabyte each."""
    box = cell.geobox
    with rasterio.open(
        path, "w", driver="GTiff", width=2**15, height=2**15, count=1, dtype="uint16", crs=str(box.crs),
        transform=box.affine, tiled=True, blockxsize=2**14, blockysize=2**14, sparse_ok=True, compress="deflate",
    ):  # fmt: skip
        pass


_FILES: list[tuple[Callable[[Path, bytes, Cell], None], set[str]]] = [
    (_truncated, {"damaged"}),
    (_header, {"damaged"}),
    (_block, {"damaged"}),
    (_empty, {"damaged"}),
    (_text, {"damaged"}),
    (_vrt, {"damaged", "unsupported"}),
    (_pipeline, {"damaged", "unsupported"}),
    (_huge, {"too_large", "damaged", "no_georeference"}),
    (_bomb, {"too_large"}),
    (lambda path, data, cell: _chain(path, 3, loop=True), {"damaged"}),
    (lambda path, data, cell: _chain(path, 20_000, loop=False), {"too_large"}),
]


@pytest.mark.parametrize(("make", "causes"), _FILES, ids=[str(number) for number in range(len(_FILES))])
def test_what_is_wrong_with_a_file(
    make: Callable[[Path, bytes, Cell], None], causes: set[str], cell: Cell, image: Path, tmp_path: Path
) -> None:
    path = tmp_path / "broken.tif"
    make(path, image.read_bytes(), cell)
    started = time.monotonic()
    error = failed(str(path), cell)
    assert error.reason in causes, error
    assert is_lasting(error.reason)
    assert time.monotonic() - started < 5


def test_a_file_without_permission(cell: Cell, image: Path) -> None:
    evidence = Evidence(text=f"{image}: Permission denied")
    assert classify(evidence) is Cause.CREDENTIALS
    assert classify(Evidence(text=evidence.text, read_before=True)) is Cause.DENIED


# ── secrets ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fault", ["404", "403", "503", "reset", "late 503", _PAGE, "zeros"])
def test_no_error_and_no_log_shows_a_signature(
    fault: str, cell: Cell, server: Faulty, caplog: pytest.LogCaptureFixture
) -> None:
    server.fault = fault
    reader = RasterioReader(sign=lambda href, renew=False: f"{href}?st=2024&se=2025&sig=s3cret%2Bs3cret%3D&sp=r")
    with caplog.at_level(logging.DEBUG):
        error = failed(f"{server.address}/a.tif", cell, reader)
    records = [record.getMessage() for record in caplog.records if record.name in ("rasterio._env", "rasterio._err")]
    said = "".join((str(error), repr(error), error.address, *records))
    assert "s3cret" not in said
    assert error.__cause__ is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://h/a.tif?sig=abc&x=1", "https://h/a.tif?sig=…&x=1"),
        ("https://h/a?X-Amz-Signature=1f&X-Amz-Date=2", "https://h/a?X-Amz-Signature=…&X-Amz-Date=…"),
        ("(https://me:pass@h/a.tif)", "(https://…@h/a.tif)"),
        ("https://h/a.tif?band=2", "https://h/a.tif?band=2"),
    ],
)
def test_secrets_are_not_shown(text: str, shown: str) -> None:
    assert redact(text) == shown


# ── the log ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_users_see_no_more_of_gdals_log_than_before(
    cell: Cell, server: Faulty, caplog: pytest.LogCaptureFixture
) -> None:
    server.fault = "late 403"
    with caplog.at_level(logging.INFO):  # the root's; rasterio's loggers say nothing of their own
        failed(f"{server.address}/a.tif", cell)
    mine = [record for record in caplog.records if record.name.startswith("rasterio")]
    assert mine  # what rasterio says at INFO comes through
    assert not [record for record in mine if record.levelno < logging.INFO]


def test_each_thread_hears_its_own(cell: Cell, server: Faulty) -> None:
    logger = logging.getLogger("rasterio._err")
    both = threading.Barrier(2)

    def speak(word: str) -> list[str]:
        with heard() as lines:
            both.wait()
            for _ in range(50):
                logger.debug("%s", word)
            both.wait()
            return sorted(set(lines))

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(speak, ["one", "two"])) == [["one"], ["two"]]


# ── the table ────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_cause_has_a_ruling() -> None:
    assert set(RULINGS) == set(Cause)


def test_nothing_is_given_up_on_a_guess() -> None:
    for text in ("", "something new", "CPLE_AppDefined in ???", "HTTP response code: 418"):
        assert classify(Evidence(text=text)) is Cause.UNKNOWN
    assert decision_of("unknown") is decision_of("crashed") is Decision.LEAVE
    assert cause_of("a word of another module") is Cause.UNKNOWN


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("CPLE_AWSAccessDenied: Access Denied", Cause.CREDENTIALS),
        ("InvalidAccessKeyId: The AWS Access Key Id you provided does not exist", Cause.EXPIRED),
        ("RequestTimeTooSkewed", Cause.EXPIRED),
        ("The specified key does not exist.", Cause.NEVER_PUBLISHED),
        ("SlowDown: Please reduce your request rate.", Cause.REFUSED),
        ("CURL error: Could not resolve host: nowhere.invalid", Cause.UNAVAILABLE),
        ("ZIPDecode:Decoding error at scanline 256", Cause.DAMAGED),
        ("Cannot allocate 99999999999 bytes", Cause.TOO_LARGE),
    ],
)
def test_what_services_say(text: str, cause: Cause) -> None:
    assert classify(Evidence(text=text)) is cause


def test_a_refusal_outweighs_the_damage_that_it_looks_like() -> None:
    log = ("VSICURL: Got response_code=206", "VSICURL: Got response_code=503", "VSICURL: Got response_code=206")
    assert classify(Evidence(text="TIFFFillTile:Read error; got 2136 bytes", log=log)) is Cause.REFUSED


def test_a_probe_that_finds_nothing_wrong_changes_nothing() -> None:
    whole = Probe(status=206, start=b"II*\0\x08\0\0\0")
    assert classify(Evidence(text="ireadblock failed", probe=whole)) is Cause.DAMAGED
    assert classify(Evidence(text="who knows", probe=whole)) is Cause.UNKNOWN


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("s3://bucket/a/b.tif", "s3://bucket"),
        ("https://me:pw@Host/a.tif", "https://host"),
        ("/data/a.tif", "file"),
        ("file:///data/a.tif", "file"),
        ("zip+https://host/a.zip!/b.tif", "https://host"),
    ],
)
def test_what_one_set_of_credentials_opens(address: str, place: str) -> None:
    assert place_of(address) == place


def test_a_header_that_is_no_time() -> None:
    assert retry_after_s(None) is None
    assert retry_after_s("Fri, 99 Foo") is None
    with contextlib.suppress(OverflowError):
        assert retry_after_s("Mon, 01 Jan 0001 00:00:00 GMT") in (None, 0.0)


# ── files that name other files ──────────────────────────────────────────────────────────────────────────────


def _secret(image: Path, tmp_path: Path) -> str:
    (tmp_path / "secret.tif").write_bytes(image.read_bytes())
    return str(tmp_path / "secret.tif")


def test_overviews_that_stand_elsewhere_are_not_opened(cell: Cell, write: Write, image: Path, tmp_path: Path) -> None:
    """GDAL opens what a TIFF's own metadata name as its overviews: any address, any driver."""
    secret = _secret(image, tmp_path)
    href = write("trap.tif", np.ones((480, 480), np.uint8), around(cell.geobox, size=10))
    with rasterio.open(href, "r+") as file:
        file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=secret)
    assert failed(href, cell).reason == "unsupported"


def test_sidecar_metadata_that_name_overviews_elsewhere(cell: Cell, image: Path, tmp_path: Path) -> None:
    secret = _secret(image, tmp_path)
    text = f'<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{secret}</MDI></Metadata>'
    Path(f"{image}.aux.xml").write_text(f"<PAMDataset>{text}</PAMDataset>")
    assert failed(str(image), cell).reason == "unsupported"


@pytest.mark.parametrize("ending", [".ovr", ".msk", ".ovr.ovr"])
def test_a_virtual_file_beside_an_image(ending: str, cell: Cell, image: Path, tmp_path: Path) -> None:
    secret = _secret(image, tmp_path)
    if ending == ".ovr.ovr":
        Path(f"{image}.ovr").write_bytes(image.read_bytes())
    Path(f"{image}{ending}").write_text(
        f'<VRTDataset rasterXSize="240" rasterYSize="240"><VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
        f"<SourceFilename>{secret}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    assert failed(str(image), cell).reason == "unsupported"


def test_plain_overviews_beside_an_image_are_used(cell: Cell, write: Write) -> None:
    href = write("plain.tif", np.full((480, 480), 7, np.uint8), around(cell.geobox, size=10))
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(href, "r+") as file:
        file.build_overviews([2, 4], rasterio.enums.Resampling.average)
    assert Path(f"{href}.ovr").is_file()
    assert (RasterioReader().read(source(href), cell.geobox) == 7).all()


def test_an_overview_of_huge_blocks(cell: Cell, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    href = write("fine.tif", np.ones((1920, 1920), np.uint8), around(cell.geobox, size=2.5), overviews=(2, 4))
    assert np.isfinite(RasterioReader().read(source(href), cell.geobox)).all()
    rasters.close_files()
    sizes: list[int] = []

    def refuse(dataset: rasterio.DatasetReader, address: str) -> None:
        sizes.append(dataset.width)

    monkeypatch.setattr(rasters, "check_size", refuse)
    RasterioReader().read(source(href), cell.geobox)
    assert len(sizes) == 2  # the file, and the level that is read
    assert sizes[1] < sizes[0]


def test_more_blocks_than_an_index_may_have(cell: Cell, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_BLOCKS", 10)
    assert failed(str(image), cell).reason == "too_large"


def test_more_overviews_than_an_image_has(cell: Cell, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_LEVELS", 1)
    href = write("deep.tif", np.ones((480, 480), np.uint8), around(cell.geobox, size=10), overviews=(2, 4))
    assert failed(href, cell).reason == "too_large"
