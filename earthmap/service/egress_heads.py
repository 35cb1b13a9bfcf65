"""Heads of requests and answers at the egress proxy: where a request is meant to go, and which lines pass on.

Forms of a target: RFC 9112, 3.2; what a proxy forwards: RFC 9110, 7.6; how a proxy says what went wrong: RFC 9209.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import h11

from earthmap.errors import JobError
from earthmap.service.egress_rules import Refusal
from earthmap.service.numbers import Number, parse_host

Headers = Sequence[tuple[bytes, bytes]]

BODILESS = frozenset({b"GET", b"HEAD"})
"""Methods of plain requests; with POST, by which catalogues are searched, all that there are."""

MAX_BODY_BYTES = 2**20
"""Largest body of a POST in plain http: the area and the filters of a search."""

NAME = "earthmap-egress"
"""What the proxy calls itself in Via and Proxy-Status."""

_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization",
        b"proxy-authentication-info", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"http2-settings", b"expect",
    }
)  # fmt: skip
_FRAMING = frozenset({b"content-length", b"host"})
_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,255})(?::(?P<port>[0-9]{1,5}))?")
_ABSOLUTE = re.compile(r"(?i:http)://(?P<authority>[^/?#]*)(?P<path>[^#]*)")


class Refused(Exception):
    """A request that is not let through, and what the client is told."""

    def __init__(self, refusal: Refusal, what: str, *, address: str = "") -> None:
        self.refusal = refusal
        self.what = what
        """Names nothing but what the client sent."""
        self.address = address
        super().__init__(what)


class Telling(NamedTuple):
    """How a refusal is said in HTTP."""

    status: int
    kind: str
    """The error type of RFC 9209, 2.3."""
    fix: str


TELLINGS: dict[Refusal, Telling] = {
    Refusal.STRANGER: Telling(407, "http_request_denied", "use the proxy by its whole address, password included"),
    Refusal.MALFORMED: Telling(400, "http_request_error", "send a plain request of HTTP/1.1"),
    Refusal.METHOD: Telling(405, "http_request_denied", "use GET, HEAD, POST or CONNECT"),
    Refusal.TOO_LARGE: Telling(413, "http_request_error", "send less"),
    Refusal.TOO_SLOW: Telling(408, "http_request_error", "send the request at once"),
    Refusal.CONNECTIONS: Telling(503, "connection_limit_reached", "try again with fewer connections"),
    Refusal.PLAIN_HTTP: Telling(403, "http_request_denied", "use the https address, or ask the operator to allow http"),
    Refusal.PORT: Telling(403, "http_request_denied", "use port 443, or ask the operator to allow this one"),
    Refusal.KEY_SERVICE: Telling(403, "destination_ip_prohibited", "name a public address"),
    Refusal.NOT_PUBLIC: Telling(403, "destination_ip_prohibited", "name a public address, or ask the operator"),
    Refusal.NOT_LISTED: Telling(403, "http_request_denied", "ask the operator to allow this host"),
    Refusal.UNRESOLVED: Telling(502, "dns_error", "check the name"),
    Refusal.UNREACHABLE: Telling(502, "destination_unavailable", "try again later"),
    Refusal.BROKEN_ANSWER: Telling(502, "http_protocol_error", "try again later"),
}
"""One row for each refusal; the right of the operator to allow something is in `docs/egress.md`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a request is meant to go."""

    host: Number | str
    """What the written host stands for."""
    port: int
    shown: str
    """Host and port as the client wrote them."""
    path: bytes | None = None
    """What is asked of the host in plain http; None for a tunnel."""

    @property
    def is_plain(self) -> bool:
        """True for a request in plain http."""
        return self.path is not None


def parse_target(request: h11.Request) -> Target:
    """Where `request` is meant to go, from its first line alone. Raises Refused."""
    text = request.target.decode("ascii", errors="replace")
    if request.http_version not in (b"1.0", b"1.1"):
        raise Refused(Refusal.MALFORMED, "the request is not HTTP/1.1")
    if request.method == b"CONNECT":
        if _values(request.headers, b"content-length") or _values(request.headers, b"transfer-encoding"):
            raise Refused(Refusal.MALFORMED, "a CONNECT has no body")
        return _target(text, None, None)
    if request.method not in BODILESS | {b"POST"}:
        raise Refused(Refusal.METHOD, f"the method {request.method.decode('ascii')[:20]} is not forwarded")
    match = _ABSOLUTE.fullmatch(text)
    if match is None:
        raise Refused(Refusal.MALFORMED, "the target is no http address, and this is a proxy only")
    path = match["path"]
    return _target(match["authority"], 80, (path if path.startswith("/") else f"/{path}").encode("ascii"))


def _target(authority: str, usual: int | None, path: bytes | None) -> Target:
    match = _AUTHORITY.fullmatch(authority)
    if match is None or (match["port"] is None and usual is None):
        raise Refused(Refusal.MALFORMED, f"{authority[:100]!r} is not a host and port, without a user")
    port = int(match["port"]) if match["port"] is not None else usual or 0
    try:
        host = parse_host(match["host"])
    except JobError as error:
        raise Refused(Refusal.MALFORMED, error.what) from None
    if not 0 < port < 65536:
        raise Refused(Refusal.MALFORMED, f"{port} is not a port")
    return Target(host=host, port=port, shown=f"{match['host']}:{port}", path=path)


def body_bytes(request: h11.Request) -> int:
    """How long the body of a plain `request` is, as it says itself. Raises Refused for any but a short, counted one."""
    lengths = _values(request.headers, b"content-length")
    if _values(request.headers, b"transfer-encoding") or _values(request.headers, b"expect"):
        raise Refused(Refusal.MALFORMED, "a body must have a Content-Length, and be sent without asking")
    count = int(lengths[0]) if lengths else 0
    if request.method in BODILESS and count:
        raise Refused(Refusal.MALFORMED, f"a {request.method.decode('ascii')} has no body")
    if count > MAX_BODY_BYTES:
        raise Refused(Refusal.TOO_LARGE, f"a body is at most {MAX_BODY_BYTES} bytes")
    return count


def request_onward(request: h11.Request, target: Target, body: int) -> h11.Request:
    """`request` as the host is asked: origin form, the host from the target, one request a connection."""
    host = target.shown.removesuffix(":80").encode("ascii")
    length = [(b"content-length", str(body).encode())] if request.method == b"POST" else []
    headers = [(b"Host", host), *passed_on(request.headers), *length, (b"Via", _via(request.http_version))]
    return h11.Request(method=request.method, target=target.path or b"/", headers=[*headers, (b"Connection", b"close")])


def answer_onward(answer: h11.Response) -> h11.Response:
    """`answer` as the client gets it."""
    length = [(b"content-length", value) for value in _values(answer.headers, b"content-length")]
    if _values(answer.headers, b"transfer-encoding"):
        length = []  # it counts what came in chunks otherwise (RFC 9112, 6.3)
    headers = [*passed_on(answer.headers), *length, (b"Via", _via(answer.http_version))]
    return h11.Response(status_code=answer.status_code, reason=answer.reason, headers=headers)


def passed_on(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The lines that are for the other end: none of this hop, none that Connection names, none of framing."""
    named = {name.strip().lower() for value in _values(headers, b"connection") for name in value.split(b",")}
    return [(name, value) for name, value in headers if name.lower() not in _HOP | _FRAMING | named]


def refusal_answer(refused: Refused) -> tuple[h11.Response, bytes]:
    """What a client is told: status, Proxy-Status, and one line; the reason phrase is all that some clients show."""
    telling = TELLINGS[refused.refusal]
    text = f"{refused.what}; to fix: {telling.fix}\n".encode("ascii", errors="backslashreplace")
    status = f'{NAME}; error={telling.kind}; details="{refused.refusal.value}"'
    headers = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(text))),
        ("Proxy-Status", status),
        ("Connection", "close"),
        *([("Allow", "GET, HEAD, POST, CONNECT")] if telling.status == 405 else []),
        *([("Proxy-Authenticate", f'Basic realm="{NAME}"')] if telling.status == 407 else []),
    ]
    reason = f"Refused by the egress proxy: {refused.refusal.value}"
    return h11.Response(status_code=telling.status, reason=reason, headers=headers), text


def _values(headers: Headers, name: bytes) -> list[bytes]:
    return [value for key, value in headers if key.lower() == name]


def _via(version: bytes) -> bytes:
    return version + b" " + NAME.encode()
