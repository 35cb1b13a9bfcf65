"""Real servers on this machine, for tests: files over HTTP with faults, S3 (moto), STAC APIs, and a proxy with faults.

Each is a context manager: it listens on a free port of the loopback, is ready when the context is entered, and is
ended by its own process id (or thread) when it is left.
"""

from __future__ import annotations

import contextlib
import email.utils
import gzip
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlencode

import shapely
import shapely.geometry

PGSTAC_PYTHON = "EARTHMAP_PGSTAC_PYTHON"
"""Names the Python that has pypgstac, stac-fastapi.pgstac and uvicorn, where it is not in its usual place."""

_USUAL_PYTHON = Path("~/.cache/earthmap/pgstac/bin/python")
"""Where `.ci/install_servers` puts it."""

_READY_S = 60.0
_MOTO = "import sys\nfrom moto.server import main\nmain(['-H', '127.0.0.1', '-p', sys.argv[1]])"


def free_port() -> int:
    """A port of the loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class FileServer:
    """A folder over HTTP."""

    address: str
    """Without a slash at the end."""
    faults: dict[str, str] = field(default_factory=dict)
    """By path (`/catalog.json`): `html`, `missing`, `truncated`, `busy` (503), `hang`, `list`."""
    requests: list[str] = field(default_factory=list)
    """`METHOD path` of each request, in order."""


class _Handler(SimpleHTTPRequestHandler):
    """Static files with single byte ranges and the faults that a test asks for."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *args: Any, state: FileServer, **kwargs: Any) -> None:
        self.state = state
        super().__init__(*args, **kwargs)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.state.requests.append(f"{self.command} {path}")
        fault = self.state.faults.get(path)
        file = Path(self.translate_path(path))
        if fault == "hang":
            time.sleep(3.0)
            self.close_connection = True
        elif fault == "busy":
            self._answer(503, b"try later", "text/plain")
        elif fault == "html":
            self._answer(200, b"<!DOCTYPE html><html><body>Please sign in</body></html>", "text/html")
        elif fault == "list":
            self._answer(200, b"[1, 2]", "application/json")
        elif fault == "missing" or not file.is_file():
            self._answer(404, b"<html><body><h1>Not here</h1></body></html>", "text/html")
        else:
            self._file(file, truncated=fault == "truncated")

    def do_HEAD(self) -> None:
        self.do_GET()

    def _file(self, file: Path, *, truncated: bool) -> None:
        data = file.read_bytes()
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not wanted or not any(wanted.groups()):
            self._answer(200, data, self.guess_type(str(file)), truncated=truncated)
            return
        start = int(wanted[1]) if wanted[1] else max(0, len(data) - int(wanted[2]))
        end = min(int(wanted[2]), len(data) - 1) if wanted[1] and wanted[2] else len(data) - 1
        if start > end:
            self._answer(416, b"", "text/plain", content_range=f"bytes */{len(data)}")
            return
        self._answer(
            206,
            data[start : end + 1],
            self.guess_type(str(file)),
            truncated=truncated,
            content_range=f"bytes {start}-{end}/{len(data)}",
        )

    def _answer(
        self, status: int, body: bytes, kind: str, *, truncated: bool = False, content_range: str | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Accept-Ranges", "bytes")
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if truncated else body)
        self.close_connection = truncated


@contextlib.contextmanager
def file_server(folder: Path) -> Iterator[FileServer]:
    """`folder` over HTTP with byte ranges; faults may be set while it runs."""
    state = FileServer(address="")
    with _served(partial(_Handler, state=state, directory=str(folder))) as state.address:
        yield state


@contextlib.contextmanager
def process(
    command: list[str], *, log: Path, env: Mapping[str, str] | None = None, user: int | None = None
) -> Iterator[int]:
    """A server process whose output goes to `log`; its process id. Asked to end (SIGINT), then made to."""
    with log.open("ab") as stream:
        running = subprocess.Popen(
            command, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL, env=dict(env or os.environ), user=user
        )
    try:
        yield running.pid
    finally:
        running.send_signal(signal.SIGINT)
        try:
            running.wait(20)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def wait_for(address: str, *, pid: int, log: Path) -> None:
    """Return when `address` answers; RuntimeError with the end of the log when its process dies or takes too long."""
    until = time.monotonic() + _READY_S
    while time.monotonic() < until:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except urllib.error.HTTPError as error:
            error.close()
            return
        except OSError:
            time.sleep(0.1)
        state = Path(f"/proc/{pid}/stat")
        if state.parent.parent.is_dir() and (not state.exists() or ") Z " in state.read_text()):
            break
    raise RuntimeError(f"{address} is not up:\n{log.read_text()[-2000:]}")


@dataclass(frozen=True)
class S3Server:
    """An S3 service with one bucket."""

    endpoint: str
    bucket: str
    env: Mapping[str, str]
    """The variables by which obstore, boto3 and GDAL find the service."""

    @property
    def address(self) -> str:
        """The bucket as run storage."""
        return f"s3://{self.bucket}"


@contextlib.contextmanager
def s3_server(folder: Path, *, bucket: str = "earthmap") -> Iterator[S3Server]:
    """Moto's S3 server in a process of its own, with an empty bucket; logs go to `folder`."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    env = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ALLOW_HTTP": "true",
    }
    log = folder / "moto.log"
    with process([sys.executable, "-c", _MOTO, str(port)], log=log, env={**os.environ, **env}) as pid:
        wait_for(endpoint, pid=pid, log=log)
        _make_bucket(endpoint, bucket)
        yield S3Server(endpoint, bucket, env)


def _make_bucket(endpoint: str, bucket: str) -> None:
    import boto3  # type: ignore[import-untyped]

    boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    ).create_bucket(Bucket=bucket)


def _pgstac_python() -> Path:
    return Path(os.environ.get(PGSTAC_PYTHON) or _USUAL_PYTHON).expanduser()


def pgstac_missing() -> str | None:
    """Why the STAC API cannot be started here; None where it can."""
    if not _pgstac_python().is_file():
        return (
            f"no Python with stac-fastapi.pgstac at {_pgstac_python()}; run .ci/install_servers or set {PGSTAC_PYTHON}"
        )
    return postgres_missing()


def postgres_missing() -> str | None:
    """Why a PostgreSQL server cannot be started here; None where it can."""
    if postgres_bin() is None:
        return "no PostgreSQL server with PostGIS; .ci/install_servers installs Debian's"
    if os.geteuid() == 0 and not _postgres_user():
        return "PostgreSQL does not run as root and there is no user postgres"
    return None


def postgres_bin() -> Path | None:
    """The folder of the newest PostgreSQL server programs."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if folders and (folders[-1] / "initdb").is_file():
        return folders[-1]
    found = shutil.which("initdb")
    return Path(found).parent if found else None


def _postgres_user() -> int | None:
    import pwd

    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres").pw_uid
    return None


@contextlib.contextmanager
def stac_api(
    folder: Path, *, collections: Iterable[Mapping[str, Any]], items: Iterable[Mapping[str, Any]]
) -> Iterator[str]:
    """A STAC API (stac-fastapi.pgstac) over `collections` and `items`; its address. Check `pgstac_missing` first."""
    with postgres(folder) as env:
        _load(folder, env, collections=collections, items=items)
        port = free_port()
        address = f"http://127.0.0.1:{port}"
        log = folder / "stac_api.log"
        app = ["-m", "uvicorn", "--factory", "stac_fastapi.pgstac.app:create_app"]
        command = [str(_pgstac_python()), *app, "--host", "127.0.0.1", "--port", str(port)]
        with process(command, log=log, env=env) as pid:
            wait_for(f"{address}/_mgmt/ping", pid=pid, log=log)
            yield address


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[dict[str, str]]:
    """A PostgreSQL cluster of its own with pgstac's tables; the variables that reach it."""
    programs, user = postgres_bin(), _postgres_user() if os.geteuid() == 0 else None
    if programs is None:
        raise RuntimeError(pgstac_missing())
    # The server refuses to run as root, and pytest's folders are closed to others: a short path of its own.
    home = Path(tempfile.gettempdir(), f"earthmap-pg-{os.getpid()}-{free_port()}")
    home.mkdir(mode=0o700)
    if user is not None:
        os.chown(home, user, -1)
    port, log = free_port(), folder / "postgres.log"
    env = {
        **os.environ,
        "PGHOST": "127.0.0.1",
        "PGPORT": str(port),
        "PGUSER": "postgres",
        "PGPASSWORD": "postgres",
        "PGDATABASE": "postgres",
        "LC_ALL": "C.UTF-8",
    }
    try:
        _done([programs / "initdb", "-D", home / "data", "-U", "postgres", "-A", "trust"], env=env, user=user)
        settings = ["-c", "fsync=off", "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={home}"]
        command = [str(programs / "postgres"), "-D", str(home / "data"), "-p", str(port), *settings]
        with process(command, log=log, env=env, user=user):
            _wait_for_port(port, log)
            yield env
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _load(
    folder: Path,
    env: Mapping[str, str],
    *,
    collections: Iterable[Mapping[str, Any]],
    items: Iterable[Mapping[str, Any]],
) -> None:
    pypgstac = _pgstac_python().parent / "pypgstac"
    _done([pypgstac, "migrate"], env=env)
    for kind, rows in (("collections", collections), ("items", items)):
        lines = folder / f"{kind}.ndjson"
        lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
        _done([pypgstac, "load", kind, lines, "--method", "upsert"], env=env)


def _done(command: list[str | Path], *, env: Mapping[str, str], user: int | None = None) -> None:
    arguments = [str(part) for part in command]
    done = subprocess.run(
        arguments, env=dict(env), user=user, cwd="/", capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"[-3000:])


def _wait_for_port(port: int, log: Path) -> None:
    until = time.monotonic() + _READY_S
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise RuntimeError(f"PostgreSQL is not up:\n{log.read_text()[-2000:]}")


@dataclass
class SmallApi:
    """A STAC API in this process, with the habits of one service or another."""

    address: str = ""
    items: list[Mapping[str, Any]] = field(default_factory=list)
    links: str = "token"
    """The next link: `token` (POST with its whole body), `merge` (POST with what changes), `relative` (GET)."""
    methods: tuple[str, ...] = ("GET", "POST")
    """Others are answered with 405."""
    offered: tuple[str, ...] = ("GET", "POST")
    """Methods of the search links on the landing page."""
    largest: int | None = None
    """Pages of more items are answered with `too_large`."""
    most: int | None = None
    """Searches with more matches are answered with `too_large`, however small the page."""
    too_large: int = 502
    count: bool = False
    """Whether `numberMatched` is given."""
    doubled: bool = False
    """Whether each page begins with the last item of the page before."""
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Method and parameters of each search."""


class _ApiHandler(BaseHTTPRequestHandler):
    """Landing page, collections and search, with paging by offset."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, *args: Any, state: SmallApi, **kwargs: Any) -> None:
        self.state = state
        super().__init__(*args, **kwargs)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        values = {name: entries[0] for name, entries in parse_qs(query).items()}
        if path == "/search":
            self._search("GET", values)
        elif path == "/collections":
            names = sorted({str(item["collection"]) for item in self.state.items})
            self._answer(200, {"collections": [{"type": "Collection", "id": name, "links": []} for name in names]})
        else:
            links = [{"rel": "search", "href": "./search", "method": name} for name in self.state.offered]
            self._answer(200, {"type": "Catalog", "id": "small", "stac_version": "1.0.0", "links": links})

    def do_POST(self) -> None:
        self._search("POST", json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _search(self, method: str, values: dict[str, Any]) -> None:
        state = self.state
        state.requests.append((method, values))
        limit, start = int(values.get("limit", 10)), int(values.get("token", 0))
        found = [item for item in state.items if _wanted(item, values)]
        too_large = (state.largest and limit > state.largest) or (state.most and len(found) > state.most)
        if method not in state.methods:
            self._answer(405, {"code": "MethodNotAllowed"})
        elif too_large:
            self._answer(state.too_large, {"message": "the answer is too large"})
        else:
            first = start - 1 if state.doubled and start else start
            page: dict[str, Any] = {"type": "FeatureCollection", "features": found[first : start + limit], "links": []}
            if state.count:
                page["numberMatched"] = len(found)
            if start + limit < len(found):
                page["links"] = [self._next(values, str(start + limit))]
            self._answer(200, page)

    def _next(self, values: dict[str, Any], token: str) -> dict[str, Any]:
        if self.state.links == "relative":
            return {"rel": "next", "href": "search?" + urlencode(_as_query({**values, "token": token}))}
        body = {"token": token} if self.state.links == "merge" else {**values, "token": token}
        link = {"rel": "next", "href": f"{self.state.address}/search", "method": "POST", "body": body}
        return {**link, "merge": True} if self.state.links == "merge" else link

    def _answer(self, status: int, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _wanted(item: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    """Whether an item is in the searched collections, time and ground, as a GET or a POST states them."""
    names = values.get("collections")
    names = names.split(",") if isinstance(names, str) else names
    if names and item["collection"] not in names:
        return False
    if values.get("datetime"):
        start, _, end = str(values["datetime"]).partition("/")
        if not start[:19] <= item["properties"]["datetime"][:19] <= (end or start)[:19]:
            return False
    ground = values.get("intersects")
    if not ground:
        return True
    asked = shapely.geometry.shape(json.loads(ground) if isinstance(ground, str) else ground)
    return bool(shapely.intersects(asked, shapely.geometry.shape(item["geometry"])))


def _as_query(values: Mapping[str, Any]) -> dict[str, str]:
    """The parameters of a POST as those of a GET."""
    texts = {}
    for name, value in values.items():
        value = ",".join(value) if isinstance(value, list) else value
        texts[name] = json.dumps(value) if isinstance(value, dict) else str(value)
    return texts


@contextlib.contextmanager
def small_api(items: Iterable[Mapping[str, Any]]) -> Iterator[SmallApi]:
    """A STAC API over `items` in this process; its habits may be changed while it runs."""
    state = SmallApi(items=list(items))
    with _served(partial(_ApiHandler, state=state)) as state.address:
        yield state


@dataclass
class FaultProxy:
    """A proxy in front of a service, with a script of what goes wrong."""

    address: str = ""
    upstream: str = ""
    script: list[str] = field(default_factory=list)
    """One fault for each coming search request, in order; `` passes it on."""
    always: str = ""
    """The fault of each search request beyond the script."""
    passed: int = 0
    """Search requests that were answered as upstream did."""
    last: bytes = b""
    """The page that was answered last."""

    def next_fault(self) -> str:
        """The fault of this request."""
        return self.script.pop(0) if self.script else self.always


class _FaultHandler(BaseHTTPRequestHandler):
    """Passes requests on, with addresses in the answers made its own."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    _STATUS: ClassVar = {"429": "0", "429 date": "date", "503": "0", "429 long": "86400"}

    def __init__(self, *args: Any, state: FaultProxy, **kwargs: Any) -> None:
        self.state = state
        super().__init__(*args, **kwargs)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._forward(None)

    def do_POST(self) -> None:
        self._forward(self.rfile.read(int(self.headers["Content-Length"])))

    def _forward(self, body: bytes | None) -> None:
        is_search = self.path.partition("?")[0].endswith("/search")
        fault = self.state.next_fault() if is_search else ""
        if fault[:3].isdigit():
            self._refuse(fault)
        elif fault == "html":
            self._send(200, b"<!DOCTYPE html><html><body>Maintenance</body></html>")
        elif fault == "other json":
            self._send(200, b'{"code": "Oops", "description": "try again"}')
        elif fault == "hang":
            time.sleep(1.0)
            self.close_connection = True
        elif fault == "reset":
            self.close_connection = True
        elif fault == "repeat" and self.state.last:
            self._send(200, self.state.last)
        else:
            self._pass_on(body, fault, is_search=is_search)

    def _refuse(self, fault: str) -> None:
        wait = self._STATUS.get(fault)
        soon = email.utils.formatdate(time.time() + 1, usegmt=True)
        said = {} if wait is None else {"Retry-After": soon if wait == "date" else wait}
        self._send(int(fault[:3]), b"busy", said)

    def _pass_on(self, body: bytes | None, fault: str, *, is_search: bool) -> None:
        request = urllib.request.Request(self.state.upstream + self.path, data=body, method=self.command)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                data = answer.read().replace(self.state.upstream.encode(), self.state.address.encode())
                status = answer.status
        except urllib.error.HTTPError as error:
            with error:
                data, status = error.read(), error.code
        if is_search and not fault:
            self.state.passed += 1
            self.state.last = data
        if fault == "gzip":
            self._send(status, gzip.compress(data)[:-20] + b"x" * 20, {"Content-Encoding": "gzip"})
        elif fault == "half":  # whole by its length, and half a document
            self._send(status, data[: len(data) // 2])
        elif fault == "compressed":
            self._send(status, gzip.compress(data), {"Content-Encoding": "gzip"})
        else:
            self._send(status, data, cut=fault == "truncated")

    def _send(self, status: int, body: bytes, said: Mapping[str, str] | None = None, *, cut: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (said or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        self.close_connection = self.close_connection or cut


@contextlib.contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    """A proxy in front of the STAC API at `upstream`; its script may be written while it runs."""
    state = FaultProxy(upstream=upstream)
    with _served(partial(_FaultHandler, state=state)) as state.address:
        yield state


@contextlib.contextmanager
def _served(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """`handler` on a free port of the loopback; its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
