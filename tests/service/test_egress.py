"""The proxy connects to what it has checked, says no in one way, and is not confused, exhausted or held up."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import struct
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from earthmap.connection import handed_on
from earthmap.errors import JobError
from earthmap.service.addresses import Nameable
from earthmap.service.egress import Egress, egress_thread, proxied_environment, serve_egress, try_address
from earthmap.service.egress_gate import Gate
from earthmap.service.egress_reach import EgressLimits
from earthmap.service.egress_rules import make_rules
from tests.service.egress_servers import Names, Origin, origin, raw_origin

QUICK = EgressLimits(head_s=0.3, resolve_s=0.3, connect_s=0.5, idle_s=0.5, grace_s=0.2, connections=3, head_bytes=4096)


@pytest.fixture(scope="module")
def site() -> Iterator[Origin]:
    with origin() as state:
        state.files["/a"] = b"imagery"
        yield state


@pytest.fixture(scope="module")
def proxy(site: Origin) -> Iterator[Egress]:
    names = Names({"stac.example": [["127.0.0.1"]], "inner.example": [["127.0.0.1"]]})
    with egress_thread(make_rules([f"stac.example:{site.port}"]), resolve=names) as egress:
        yield egress


def connect(egress: Egress) -> socket.socket:
    parts = urlsplit(egress.address)
    return socket.create_connection((parts.hostname or "", parts.port or 0), timeout=5)


def say(egress: Egress, data: bytes, *, end: bool = True) -> bytes:
    """All that the proxy answers to `data`."""
    with connect(egress) as client:
        with contextlib.suppress(OSError):  # it may hang up before all is sent
            client.sendall(data)
            if end:
                client.shutdown(socket.SHUT_WR)
        return everything(client)


def everything(client: socket.socket) -> bytes:
    pieces = []
    with contextlib.suppress(ConnectionResetError):
        while piece := client.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


def get(target: str, *lines: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: x", *lines, "", ""]).encode()


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


# -- what passes


def test_a_plain_request_passes_without_the_lines_of_its_hop(proxy: Egress, site: Origin) -> None:
    lines = ["Connection: close, X-Secret", "X-Secret: 1", "Proxy-Authorization: Basic eA==", "TE: trailers",
             "X-Kept: 2", "Upgrade: h2c", "HTTP2-Settings: AAM"]  # fmt: skip
    answer = say(proxy, get(f"http://stac.example:{site.port}/a?b=1", *lines))
    assert status(answer) == 200
    assert answer.endswith(b"\r\n\r\nimagery")
    method, path, seen = site.heads[-1]
    assert (method, path) == ("GET", "/a?b=1")
    assert seen == {
        "host": f"stac.example:{site.port}", "x-kept": "2", "connection": "close", "via": "1.1 earthmap-egress",
    }  # fmt: skip


def test_head_post_and_a_second_request_on_one_connection(proxy: Egress, site: Origin) -> None:
    where = f"http://stac.example:{site.port}"
    post = get(f"{where}/search", "Content-Length: 2", method="POST") + b"{}"
    answer = say(proxy, get(f"{where}/a", method="HEAD") + post + get(f"{where}/a"))
    assert answer.count(b"HTTP/1.1 200") == 3
    assert site.bodies[-1] == b"{}"


def test_a_second_request_is_checked_as_the_first(proxy: Egress, site: Origin) -> None:
    before = site.connections
    good, bad = f"http://stac.example:{site.port}/a", f"http://inner.example:{site.port}/a"
    answer = say(proxy, get(good) + get(bad) + get(good))
    assert answer.count(b"HTTP/1.1 200") == 1
    assert answer.count(b"HTTP/1.1 403") == 1
    assert site.connections == before + 1


def test_a_tunnel_passes_bytes_and_each_end_by_itself(proxy: Egress, site: Origin) -> None:
    inner = b"GET /a HTTP/1.0\r\n\r\n"  # in the same piece as its CONNECT: nothing may be lost
    answer = say(proxy, get(f"stac.example:{site.port}", method="CONNECT") + inner)
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"imagery")


# -- what does not


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1.", "[::1]", "[::ffff:127.0.0.1]",
     "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "inner.example", "INNER.example.", "0", "10.0.0.1",
     "[fd00::1]", "169.254.169.254", "[fd00:ec2::254]", "100.100.100.200", "100.64.0.1", "224.0.0.1",
     "255.255.255.255", "168.63.129.16"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["CONNECT", "GET"])
def test_no_inner_address_is_reached(proxy: Egress, site: Origin, host: str, method: str) -> None:
    before = site.connections
    target = f"{host}:{site.port}" if method == "CONNECT" else f"http://{host}:{site.port}/a"
    answer = say(proxy, get(target, method=method))
    assert status(answer) == 403
    assert site.connections == before
    assert f"{host}:{site.port} may not be reached".encode() in answer


@pytest.mark.parametrize("method", ["CONNECT", "GET"])
def test_a_refusal_names_no_number_that_was_not_sent(site: Origin, method: str) -> None:
    names = Names({"inner.example": [["10.1.2.3"]], "odd.example": [["169.254.169.254"]]})
    with egress_thread(make_rules(plain_http=True), resolve=names) as egress:
        for host in ("inner.example", "odd.example"):
            port = 443 if method == "CONNECT" else 80
            answer = say(egress, get(f"{host}:{port}" if method == "CONNECT" else f"http://{host}/", method=method))
            assert status(answer) == 403
            assert b"Proxy-Status: earthmap-egress; error=destination_ip_prohibited" in answer
            assert b"10.1.2.3" not in answer
            assert b"169.254" not in answer
        assert egress.counts.refused == {"key_service": 1, "not_public": 1}


MALFORMED = [
    get("/a"), get("http:///a"), get("http://user@stac.example/"), get("http://user:pw@stac.example:80/"),
    get("http://stac.example:80@evil.example/"), get("http://stac.example#@evil.example/"), get("http://a%2eb/"),
    get("http://stac.example\\@evil.example/"), get("https://stac.example/"), get("ftp://stac.example/"),
    get("file:///etc/passwd"), get("http://[::1%25lo]/"), get("http://[::1/"), get("http://a..b/"),
    get("http://1.2.3.256/"),
    get("http://stac.example:0/"), get("http://stac.example:99999/"), get("http://stac.example:+80/"), get("*"),
    get("stac.example", method="CONNECT"), get("http://stac.example:443", method="CONNECT"),
    get("stac.example:443/a", method="CONNECT"), get("a@stac.example:443", method="CONNECT"),
    get(":443", method="CONNECT"), get("stac.example:443", "Content-Length: 5", method="CONNECT"),
    get("http://stac.example/", "Content-Length: 5"), get("http://stac.example/", "Transfer-Encoding: chunked"),
    get("http://stac.example/", "Transfer-Encoding: chunked", "Content-Length: 5", method="POST"),
    get("http://stac.example/", "Content-Length: 5", "Content-Length: 6", method="POST"),
    get("http://stac.example/", "Content-Length: 5, 6", method="POST"),
    get("http://stac.example/", "Content-Length: +5", method="POST"),
    get("http://stac.example/", "Content-Length : 5", method="POST"),
    get("http://stac.example/", "Expect: 100-continue", "Content-Length: 5", method="POST"),
    get("http://stac.example/", "Host: y"), get("http://stac.example/", "X: a\rb"),
    get("http://stac.example/", "X: \x00"),
    b"GET http://stac.example/\r\n\r\n", b"GET  http://stac.example/ HTTP/1.1\r\n\r\n",
    b"GET http://stac.example/ HTTP/2.0\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01",
    b"\x05\x01\x00", get("http://st\u00e4c.example/"),
    "GET http://\u2460\u2461\u2466.\u24ea.\u24ea.\u2460/ HTTP/1.1\r\n\r\n".encode(),
]  # fmt: skip


@pytest.mark.parametrize("data", MALFORMED, ids=range(len(MALFORMED)))
def test_what_is_malformed_is_refused(proxy: Egress, site: Origin, data: bytes) -> None:
    before = site.connections
    answer = say(proxy, data + b"x" * 5)
    assert answer == b"" or status(answer) == 400
    assert answer.count(b"HTTP/1.1 ") <= 1
    assert site.connections == before


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "get"])
def test_other_methods(proxy: Egress, site: Origin, method: str) -> None:
    answer = say(proxy, get(f"http://stac.example:{site.port}/a", method=method))
    assert status(answer) == 405
    assert b"Allow: GET, HEAD, POST, CONNECT" in answer


def test_a_body_is_small_and_counted(proxy: Egress, site: Origin) -> None:
    where = f"http://stac.example:{site.port}/search"
    assert status(say(proxy, get(where, "Content-Length: 1048577", method="POST"))) == 413
    assert status(say(proxy, get(where, "Content-Length: 5", method="POST") + b"x")) == 400


PIECES = [b"GET ", b"http://", b"stac.example", b"127.0.0.1", b":80", b":443", b"/", b"@", b" HTTP/1.1\r\n",
          b"CONNECT ", b"\r\n", b"\n", b"\r", b"Host: a\r\n", b"\x00", b"[::1]", b"\xff", b" ", b"#",
          b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=12))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_break_it(proxy: Egress, site: Origin, pieces: list[bytes]) -> None:
    before = site.connections
    answer = say(proxy, b"".join(pieces))
    assert answer == b"" or 400 <= status(answer) < 503
    assert site.connections == before


# -- names that change


def test_the_number_that_was_checked_is_the_one_that_is_connected_to(site: Origin) -> None:
    with origin(host="127.0.0.1") as victim:
        names = Names({"turns.example": [["127.0.0.1"], ["127.0.0.2"]]})
        rules = make_rules([f"127.0.0.1:{site.port}"])
        with egress_thread(rules, resolve=names) as egress:
            before = site.connections
            first = say(egress, get(f"http://turns.example:{site.port}/a"))
            assert status(first) == 200
            assert names.asked == ["turns.example"]  # once: there is no second answer to fall for
            assert site.connections == before + 1
            assert status(say(egress, get(f"http://turns.example:{site.port}/a"))) == 403
            assert site.connections == before + 1
        assert victim.connections == 0


def test_one_inner_number_among_public_ones_refuses_all(site: Origin) -> None:
    names = Names({"mixed.example": [["8.8.8.8", "127.0.0.1"]], "none.example": [[]], "odd.example": [["nonsense"]]})
    with egress_thread(make_rules(ports=[443, site.port]), resolve=names) as egress:
        assert status(say(egress, get(f"mixed.example:{site.port}", method="CONNECT"))) == 403
        assert status(say(egress, get("none.example:443", method="CONNECT"))) == 502
        assert status(say(egress, get("odd.example:443", method="CONNECT"))) == 502
        assert status(say(egress, get("unknown.example:443", method="CONNECT"))) == 502
        assert egress.counts.refused == {"not_public": 1, "unresolved": 3}


def test_a_port_that_cannot_be_right_is_refused_before_its_name_is_looked_up() -> None:
    names = Names({})
    with egress_thread(make_rules(), resolve=names) as egress:
        assert status(say(egress, get("a.example:22", method="CONNECT"))) == 403
        assert status(say(egress, get("8.8.8.8:22", method="CONNECT"))) == 403
    assert names.asked == []


def test_the_public_number_of_this_machine_itself_is_not_public(site: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("earthmap.service.egress_rules.is_public", lambda number: True)
    with egress_thread(make_rules(ports=[site.port])) as egress:
        heads = len(site.heads)
        answer = say(egress, get(f"127.0.0.1:{site.port}", method="CONNECT") + b"GET /a HTTP/1.0\r\n\r\n")
        assert status(answer) == 403
        assert egress.counts.refused == {"not_public": 1}
        assert len(site.heads) == heads
    with egress_thread(make_rules([f"127.0.0.1:{site.port}"])) as egress:
        assert status(say(egress, get(f"http://127.0.0.1:{site.port}/a"))) == 200


def test_a_mapped_number_is_the_plain_one(site: Origin) -> None:
    names = Names({"mapped.example": [["::ffff:127.0.0.1"]]})
    with egress_thread(make_rules([f"127.0.0.1:{site.port}"]), resolve=names) as egress:
        assert status(say(egress, get(f"http://mapped.example:{site.port}/a"))) == 200


# -- limits


def test_slow_and_silent_clients_are_let_go(site: Origin) -> None:
    with egress_thread(make_rules(), limits=QUICK) as egress:
        start = time.monotonic()
        with connect(egress) as silent, connect(egress) as slow:
            slow.sendall(b"GET http://stac.example/ HT")
            assert everything(silent) == b""
            assert status(everything(slow)) == 408
        assert time.monotonic() - start < 2
        assert status(say(egress, get("http://stac.example/", "X: " + "x" * 5000))) == 413
        assert egress.counts.refused == {"too_large": 1, "too_slow": 1}


def test_too_many_connections_are_told_so() -> None:
    with (
        egress_thread(make_rules(), limits=EgressLimits(connections=2, head_s=5)) as egress,
        contextlib.ExitStack() as open_,
    ):
        for _ in range(2):
            open_.enter_context(connect(egress)).sendall(b"G")
        deadline = time.monotonic() + 5
        while egress.counts.open < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        answer = say(egress, get("a.example:443", method="CONNECT"))
        assert status(answer) == 503
        assert b"connection_limit_reached" in answer


def test_a_name_or_host_that_does_not_answer_takes_its_time_only() -> None:
    async def never(host: str, port: int) -> list[str]:
        await asyncio.sleep(60)
        return []

    with egress_thread(make_rules(), limits=QUICK, resolve=never) as egress:
        assert status(say(egress, get("a.example:443", method="CONNECT"))) == 502
        assert egress.counts.refused == {"unresolved": 1}


def test_a_tunnel_in_which_nothing_passes_ends(site: Origin) -> None:
    with egress_thread(make_rules([f"127.0.0.1:{site.port}"]), limits=QUICK) as egress, connect(egress) as client:
        client.sendall(get(f"127.0.0.1:{site.port}", method="CONNECT"))
        start = time.monotonic()
        assert everything(client).startswith(b"HTTP/1.1 200")
        assert 0.3 < time.monotonic() - start < 3


def _answering(data: bytes, *, reset: bool = False) -> contextlib.AbstractContextManager[int]:
    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(data)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return raw_origin(answer)


@pytest.mark.parametrize(
    "data",
    [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 9000, b"HTTP/1.1 101 Switching\r\n\r\n",
     b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", b"HTTP/1.1 200 OK\r\nA\x00: b\r\n\r\n"],
)  # fmt: skip
def test_an_answer_that_is_none(data: bytes) -> None:
    with _answering(data) as port, egress_thread(make_rules([f"127.0.0.1:{port}"]), limits=QUICK) as egress:
        assert status(say(egress, get(f"http://127.0.0.1:{port}/"))) == 502
        assert egress.counts.refused == {"broken_answer": 1}


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf",
    ],
)
def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one(data: bytes) -> None:
    with _answering(data) as port, egress_thread(make_rules([f"127.0.0.1:{port}"])) as egress:
        answer = say(egress, get(f"http://127.0.0.1:{port}/"))
        assert not answer.endswith(b"0\r\n\r\n")
        assert answer.count(b"HTTP/1.1 ") == (1 if answer else 0)


def test_chunks_count_and_not_a_length_beside_them() -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n"
    with _answering(data) as port, egress_thread(make_rules([f"127.0.0.1:{port}"])) as egress:
        answer = say(egress, get(f"http://127.0.0.1:{port}/"))
    assert b"content-length" not in answer.lower()
    assert answer.endswith(b"5\r\nwhole\r\n0\r\n\r\n")


def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    data = b"HTTP/1.0 200 OK\r\nKeep-Alive: 5\r\nConnection: X-Hop\r\nX-Hop: 1\r\nX-End: 2\r\n\r\nwhole"
    with _answering(data) as port, egress_thread(make_rules([f"127.0.0.1:{port}"])) as egress:
        answer = say(egress, get(f"http://127.0.0.1:{port}/"))
    assert b"5\r\nwhole\r\n0\r\n\r\n" in answer
    assert b"x-end" in answer
    assert b"x-hop" not in answer
    assert b"keep-alive" not in answer


def test_a_host_that_keeps_silent_is_told_of() -> None:
    with (
        raw_origin(lambda connection: time.sleep(1)) as port,
        egress_thread(make_rules([f"127.0.0.1:{port}"]), limits=QUICK) as egress,
    ):
        assert status(say(egress, get(f"http://127.0.0.1:{port}/"), end=False)) == 502


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with egress_thread(make_rules([f"127.0.0.1:{port}"]), limits=QUICK) as egress:
        assert status(say(egress, get(f"127.0.0.1:{port}", method="CONNECT"))) == 502


# -- running it


def test_counts(site: Origin) -> None:
    with egress_thread(make_rules([f"127.0.0.1:{site.port}"])) as egress:
        say(egress, get(f"http://127.0.0.1:{site.port}/a"))
        say(egress, get(f"127.0.0.1:{site.port}", method="CONNECT") + b"GET /a HTTP/1.0\r\n\r\n")
        say(egress, get("127.0.0.1:443", method="CONNECT"))
        counts = egress.counts
    assert (counts.allowed, counts.refused, counts.bytes_up) == (2, {"not_public": 1}, len(b"GET /a HTTP/1.0\r\n\r\n"))
    assert counts.bytes_down > 2 * len(b"imagery")
    assert egress.counts.open == 0


def test_the_proxy_itself_tells_its_counts(site: Origin) -> None:
    with egress_thread(make_rules()) as egress:
        say(egress, get("127.0.0.1:443", method="CONNECT"))
        say(egress, get("a.example:22", method="CONNECT"))
        answer = say(egress, get("/metrics"))
        assert status(say(egress, get(f"{egress.address}/metrics"))) == 403  # through itself it is an inner address
    rows = answer.decode().partition("\r\n\r\n")[2].splitlines()
    assert 'earthmap_egress_refused_total{reason="not_public"} 1' in rows
    assert 'earthmap_egress_refused_total{reason="port"} 1' in rows
    assert "earthmap_egress_allowed_total 0" in rows
    assert "earthmap_egress_connections 1" in rows


def test_an_address_is_tried_without_being_reached(site: Origin) -> None:
    names = Names({"good.example": [["8.8.8.8"]], "turned.example": [["10.0.0.1"]], "stac.example": [["127.0.0.1"]]})
    nameable = Nameable(rules=make_rules([f"stac.example:{site.port}"]), buckets=("open-bucket",))
    before = site.connections
    for address in ("https://good.example/a", f"http://stac.example:{site.port}/a", "s3://open-bucket/a.tif"):
        try_address(nameable, address, resolve=names)
    with pytest.raises(JobError, match=r"turned\.example:443 may not be reached: not_public"):
        try_address(nameable, "zip+https://turned.example/a.zip!/b.tif", resolve=names)
    with pytest.raises(JobError, match="unresolved"):
        try_address(nameable, "https://unknown.example/a", resolve=names)
    with pytest.raises(JobError, match="cannot be named"):
        try_address(nameable, "file:///etc/passwd", resolve=names)
    assert site.connections == before


def test_it_ends_with_open_connections_and_frees_its_port(site: Origin) -> None:
    rules = make_rules([f"127.0.0.1:{site.port}"])
    with egress_thread(rules, limits=QUICK) as egress:
        client = connect(egress)
        client.sendall(get(f"127.0.0.1:{site.port}", method="CONNECT"))
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        gate = Gate(port=urlsplit(egress.address).port or 0)
        start = time.monotonic()
    assert time.monotonic() - start < 3
    with client:
        everything(client)
    with (
        egress_thread(rules, gate=gate) as again,
        pytest.raises(JobError, match="the egress proxy cannot listen on"),
        egress_thread(rules, gate=gate),
    ):
        pytest.fail("two listen on one port")
    assert again.address.endswith(f":{gate.port}")


def test_it_serves_until_it_is_cancelled() -> None:
    async def work() -> None:
        addresses: list[str] = []
        task = asyncio.create_task(serve_egress(make_rules(), ready=addresses.append))
        while not addresses:
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(addresses[0]).port)
        writer.write(get("127.0.0.1:443", method="CONNECT"))
        assert status(await reader.read()) == 403
        writer.close()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(work())


def test_the_environment_exempts_no_host() -> None:
    variables = proxied_environment("http://127.0.0.1:3128")
    assert {name for name, value in variables.items() if value.startswith("http")} == {
        "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy",
    }  # fmt: skip
    assert variables["AWS_NO_SIGN_REQUEST"] == "YES"
    assert variables["no_grpc_proxy"] == "localhost,0.0.0.0/0,::/0"
    assert handed_on(variables) == variables
    assert "AWS_NO_SIGN_REQUEST" not in proxied_environment("http://127.0.0.1:3128", keys=True)
    assert variables["NO_PROXY"] == variables["no_proxy"] == variables["all_proxy"] == ""


def _basic(text: str, *, scheme: str = "Basic") -> bytes:
    return f"Proxy-Authorization: {scheme} {base64.b64encode(text.encode()).decode()}\r\n".encode()


@pytest.mark.parametrize(
    ("lines", "let_in"),
    [
        (_basic("earthmap:s3cret"), True),
        (_basic("earthmap:s3cret", scheme="bASIC"), True),
        (b"", False),
        (_basic("earthmap:wrong"), False),
        (_basic("earthmap:"), False),
        (_basic("s3cret"), False),
        (_basic("other:s3cret"), False),
        (_basic("earthmap:s3cret", scheme="Bearer"), False),
        (_basic("earthmap:s3cret") * 2, False),
        (b"Proxy-Authorization: Basic \xff\xfe\r\n", False),
        (_basic("earthmap:s3cret").replace(b"Proxy-", b""), False),
    ],
)
def test_a_proxy_with_a_secret_is_for_those_who_know_it(site: Origin, lines: bytes, let_in: bool) -> None:
    before = site.connections
    with egress_thread(make_rules([f"127.0.0.1:{site.port}"]), gate=Gate(secret="s3cret")) as egress:
        assert urlsplit(egress.address).password == "s3cret"
        assert "s3cret" not in repr(egress) + repr(Gate(secret="s3cret"))
        host = f"127.0.0.1:{site.port}".encode()
        plain = say(egress, b"GET http://%b/a HTTP/1.1\r\nHost: x\r\n%b\r\n" % (host, lines))
        tunnel = say(egress, b"CONNECT %b HTTP/1.1\r\nHost: x\r\n%b\r\n" % (host, lines))
        counts = say(egress, b"GET /metrics HTTP/1.1\r\nHost: x\r\n%b\r\n" % lines)
        refused = egress.counts.refused
    if let_in:
        assert [status(answer) for answer in (plain, tunnel, counts)] == [200, 200, 200]
        assert not any("proxy-authorization" in headers for _, _, headers in site.heads[-1:])
        assert refused == {}
    else:
        assert [status(answer) for answer in (plain, tunnel, counts)] == [407, 407, 407]
        assert b'Proxy-Authenticate: Basic realm="earthmap-egress"' in plain
        assert b"s3cret" not in plain + tunnel + counts
        assert site.connections == before
        assert refused == {"stranger": 3}


def test_each_request_of_a_connection_needs_the_secret(site: Origin) -> None:
    host, knows = f"127.0.0.1:{site.port}".encode(), _basic("earthmap:s3cret")
    first = b"GET http://%b/a HTTP/1.1\r\nHost: x\r\n%b\r\n" % (host, knows)
    with egress_thread(make_rules([f"127.0.0.1:{site.port}"]), gate=Gate(secret="s3cret")) as egress:
        told = say(egress, first + first.replace(knows, b""))
    assert told.count(b"imagery") == 1
    assert b"HTTP/1.1 407" in told
