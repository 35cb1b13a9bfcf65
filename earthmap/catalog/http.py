"""One way to ask an http(s) address: which failures are asked again, after which pauses, and what is said in the end.

Every request of earthmap's own goes through `open_session`; those that a search depends on through `ask`, the only
place where requests are repeated. GDAL and obstore have loops of their own, set by the same `Connection`.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin, urlsplit, urlunsplit

import requests
from requests.adapters import HTTPAdapter

from earthmap.catalog.addresses import check_redirect
from earthmap.connection import Connection, retry_after_s
from earthmap.errors import CatalogError, ReadError

if TYPE_CHECKING:
    from requests import PreparedRequest, Request, Response, Session

BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses (RFC 9110, 15; RFC 6585, 4; RFC 8470, 5.2) that may be gone when the same is asked again."""

HEAVY = frozenset({408, 413, 502, 504})
"""Statuses by which services also say that an answer would be too large; 408 stands for a time-out."""

HEAVY_RETRIES = 2
"""Repeats of a request that can be made smaller instead."""

SILENT_RETRIES = 3
"""Repeats where no answer begins, or one breaks off: an address that is spelt wrong should be told soon."""

ODD_RETRIES = 2
"""Repeats after an answer of status 200 that is not what was asked for, such as a proxy's page."""

MAX_BYTES = 2**29
"""Largest answer that is taken."""

_LONGEST_ANSWER = 10
"""How many times the read time-out a whole answer may take."""

_QUOTED = 300
_SAID_FROM_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer of status 200 to 299."""

    address: str
    """Where it came from, after redirections."""
    content: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """The content as text; what is not UTF-8 becomes a sign of its own."""
        return self.content.decode("utf-8", errors="replace")


class _Adapter(HTTPAdapter):
    """Time-outs, proxy, certificates and extra headers of a `Connection`, for each host by itself."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        super().__init__(max_retries=0)

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> Response:
        """As `HTTPAdapter.send`."""
        connection, address = self._connection, str(request.url)
        proxy = connection.proxy_for(address)
        try:
            answer = super().send(
                request,
                stream=stream,
                timeout=timeout or (connection.connect_timeout_s, connection.read_timeout_s),
                verify=connection.ca_bundle or True,
                cert=cert,
                proxies={urlsplit(address).scheme: proxy} if proxy else {},
            )
        except requests.exceptions.ProxyError as error:
            _check_proxy(str(error), address)
            raise
        try:
            _check_proxy(f"{answer.status_code} {answer.reason}", address)
        except ReadError:
            answer.close()
            raise
        return answer

    def add_headers(self, request: PreparedRequest, **kwargs: Any) -> None:
        """As `HTTPAdapter.add_headers`: those for this host; behind a redirection the first host's are taken back."""
        allowed = self._connection.headers_for(str(request.url))
        for name, value in self._connection.headers:
            if name in allowed:
                request.headers[name] = value
            elif request.headers.get(name) == value:
                del request.headers[name]


_REFUSED = re.compile(r"403 Refused by the egress proxy: (\w+)")


def _check_proxy(said: str, address: str) -> None:
    """Raises ReadError (`forbidden_address`) where `said` is the no of the service's egress proxy (docs/egress.md)."""
    if word := _REFUSED.search(said):
        raise ReadError(
            f"the address {shown(address)} is not read: the egress proxy refuses it ({word[1].replace('_', ' ')})",
            address=shown(address),
            reason="forbidden_address",
            expected="a public address, or one that the operator of this service has allowed",
            fix="name the file or catalogue where it is public",
        )


def check_hop(target: str, *, origin: str, connection: Connection) -> None:
    """As `check_redirect`, with the names of hosts looked up where no proxy does that. Raises ReadError."""
    direct = connection.proxy_for(target) is None
    check_redirect(target, origin=origin, look_up=_look_up if direct else lambda host: ())


def _look_up(host: str) -> set[str]:
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return set()  # connecting to it says what is wrong


class _Session(requests.Session):
    """Follows redirections as requests does, but none that `check_hop` refuses."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection

    def get_redirect_target(self, resp: Response) -> str | None:
        """As `Session.get_redirect_target`, asked at every hop. Raises ReadError (`forbidden_address`)."""
        target = super().get_redirect_target(resp)
        if target is not None:
            try:
                origin = str(resp.url)
                check_hop(urljoin(origin, target), origin=origin, connection=self._connection)
            except ReadError:
                resp.close()
                raise
        return target


def open_session(connection: Connection) -> Session:
    """A session that reaches the network as `connection` says, repeats nothing by itself, and leads nowhere forbidden.

    What it sends raises ReadError (`forbidden_address`) for what the egress proxy refuses, and for a redirection that
    `check_hop` does.
    """
    session = _Session(connection)
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(connection))
    return session


@dataclass(slots=True, kw_only=True)
class _Tries:
    """What one request has cost so far."""

    connection: Connection
    say: Callable[[str], None]
    count: int = 0
    waited_s: float = 0.0

    def pause(self, error: CatalogError, limit: int, asked_s: float | None) -> None:
        """Wait before the next try; raises `error` when tries or patience are at their end."""
        self.count += 1
        pause = self.connection.pause_s(self.count, asked_s=asked_s)
        if self.count > limit:
            raise error
        if self.waited_s + pause > self.connection.patience_s:
            waits = f"{error.what}, and asks to wait {pause:.0f} s" if asked_s else error.what
            raise CatalogError(
                waits,
                expected=f"an answer within {self.connection.patience_s:g} s of waiting",
                fix="try again later, or wait longer with EARTHMAP_PATIENCE",
                status=error.status,
            ) from error
        if pause >= _SAID_FROM_S:
            self.say(f"waiting {pause:.0f} s: {error.what}")
        self.waited_s += pause
        time.sleep(pause)


T = TypeVar("T")


def ask(
    session: Session,
    request: Request,
    read: Callable[[Answer], T],
    *,
    connection: Connection,
    heavy_retries: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> T:
    """What `read` makes of the answer to `request`, asked again while what is wrong may pass.

    Args:
        read: raises CatalogError for an answer that cannot be meant; it is then asked for again `ODD_RETRIES` times.
        heavy_retries: repeats where the answer may be too large (`HEAVY`); None for as many as for anything else.
        say: hears of longer pauses.

    Raises:
        CatalogError: with its `status` where there is one (408 for a time-out); addresses in it hold no secrets.
    """
    tries = _Tries(connection=connection, say=say)
    while True:
        try:
            answer = _ask_once(session, request, connection)
        except _Passing as passing:
            limit = connection.retries
            if passing.error.status is None:
                limit = min(limit, SILENT_RETRIES)
            elif passing.error.status in HEAVY and heavy_retries is not None:
                limit = min(limit, heavy_retries)
            tries.pause(passing.error, limit, passing.asked_s)
            continue
        try:
            return read(answer)
        except CatalogError as error:
            tries.pause(error, min(ODD_RETRIES, connection.retries), None)


class _Passing(Exception):
    """A failure that may pass, and how long the service asks to wait."""

    def __init__(self, error: CatalogError, asked_s: float | None = None) -> None:
        self.error = error
        self.asked_s = asked_s
        super().__init__()


def _ask_once(session: Session, request: Request, connection: Connection) -> Answer:
    address = shown(str(request.url))
    try:
        prepared = session.prepare_request(request)
        with session.send(prepared, stream=True) as response:
            if not response.ok:
                error = _refused(address, response)
                if response.status_code in BUSY:
                    raise _Passing(error, retry_after_s(response.headers.get("Retry-After")))
                raise error
            content = _content(response, address, connection)
            return Answer(address=str(response.url), content=content)
    except ReadError as error:
        raise CatalogError(error.what, expected=error.expected, fix=error.fix) from error
    except requests.exceptions.RequestException as error:
        known = _unreachable(address, error, connection)
        if isinstance(error, _LASTING):
            raise known from error
        raise _Passing(known) from error


_LASTING = (
    requests.exceptions.SSLError,
    requests.exceptions.TooManyRedirects,
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
)
"""What asking again does not change."""


def _content(response: Response, address: str, connection: Connection) -> bytes:
    """The body, while it is not too large and does not take too long in all."""
    pieces, size = [], 0
    end = time.monotonic() + _LONGEST_ANSWER * connection.read_timeout_s
    for piece in response.iter_content(2**16):
        pieces.append(piece)
        size += len(piece)
        if size > MAX_BYTES:
            raise CatalogError(
                f"the answer of {address} is larger than {MAX_BYTES // 2**20} MB", fix="ask for a smaller area or time"
            )
        if time.monotonic() > end:
            raise requests.exceptions.ReadTimeout
    return b"".join(pieces)


def shown(address: str) -> str:
    """`address` for a message: without user, password, query and fragment, which may hold secrets."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return address
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _unreachable(address: str, error: requests.exceptions.RequestException, connection: Connection) -> CatalogError:
    host = urlsplit(address).netloc if "//" in address else address
    # A body that stops arriving is a ConnectionError to requests, with the timeout in its text only.
    if isinstance(error, requests.exceptions.Timeout) or "timed out" in str(error):
        return CatalogError(
            f"the catalogue {address} did not answer in time",
            expected=f"a connection within {connection.connect_timeout_s:g} s "
            f"and an answer within {connection.read_timeout_s:g} s",
            fix="try again, or ask for a smaller area or time",
            status=408,
        )
    if isinstance(error, requests.exceptions.SSLError):
        return CatalogError(
            f"the certificate of {host} is not accepted",
            fix="check the address and this machine's clock; for a company's own certificates set SSL_CERT_FILE",
        )
    if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema)):
        return CatalogError(f"{address!r} is not an address", expected="https://host/path", fix="check its spelling")
    if isinstance(error, requests.exceptions.TooManyRedirects):
        return CatalogError(f"the catalogue {address} redirects in a circle", fix="check the address")
    if isinstance(error, requests.exceptions.ProxyError):
        return CatalogError(
            f"the proxy on the way to {host} does not answer", fix="check HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
        )
    broken = (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError)
    if isinstance(error, broken) or "IncompleteRead" in str(error):
        return CatalogError(
            f"the answer of {address} broke off or is damaged", expected="a whole answer", fix="try again"
        )
    return CatalogError(
        f"the catalogue {address} cannot be reached",
        expected=f"a server that answers at {host}",
        fix="check the address, the network and the proxy",
    )


_STATUS_FIX = {
    401: "give the credentials that the service asks for",
    403: "give the credentials that the service asks for",
    404: "check the address; an API's address is that of its landing page",
    407: "give the proxy's name and password in HTTPS_PROXY",
    413: "ask for a smaller area or time",
    429: "wait a while: the service refuses more requests now",
}


def _refused(address: str, response: Response) -> CatalogError:
    try:
        text = next(response.iter_content(4 * _QUOTED), b"")
    except requests.exceptions.RequestException:
        text = b""  # the status says enough
    words = re.sub(r"<[^>]*>", " ", text.decode("utf-8", errors="replace")).split()
    said = " ".join(words)[:_QUOTED]
    status = response.status_code
    busy = "try again later: the service has trouble of its own"
    fix = _STATUS_FIX.get(status, busy if status >= 500 else "check the address and request")
    named = f"{status} {response.reason or ''}".strip()
    return CatalogError(
        f"the catalogue {address} answered {named}{f': {said}' if said else ''}",
        expected="200 OK",
        fix=fix,
        status=status,
    )
