"""How a service is talked to: what is asked again, what is not, and what is said when it goes wrong.

Reads are repeated while what is wrong may pass. A new job is asked for once: where the answer was lost nobody knows
whether it was accepted, and asked twice it would be run twice. Only a service that is full (429, RFC 6585) has surely
not taken it; it says when to come again. Addresses are made here and none is followed, so that no document of a
service leads the token elsewhere.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import NewConnectionError

from earthmap.catalog.http import open_session, shown
from earthmap.client.problems import error_of
from earthmap.connection import Connection, retry_after_s
from earthmap.errors import EarthmapError, JobError, ReadError, ServiceError

if TYPE_CHECKING:
    from requests import Response, Session

FULL = 429

PASSING = frozenset({408, 425, FULL, 502, 503, 504})
"""Statuses that may be gone when the same is asked again."""

LOST_RETRIES = 3
"""Repeats where no answer comes: an address that is spelt wrong should be told soon."""

_SAID_FROM_S = 2.0

_MOST_SHOWN = 300

_PIECE = 2**20
"""Bytes of a file that are held at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A service by its address, and how it is reached."""

    url: str
    """Without a slash at its end."""
    connection: Connection
    session: Session
    say: Callable[[str], None] = lambda text: None
    """Hears of longer pauses."""

    @classmethod
    def to(cls, url: str, *, token: str | None = None, say: Callable[[str], None] | None = None) -> Line:
        """The line to the service at `url`, with this token or what the environment has for its host (EARTHMAP_TOKEN).

        Raises:
            JobError: for what is no address of a service, or no token.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise JobError(
                f"{url[:200]!r} is no address of a service", expected="https://host or http://localhost:8000"
            )
        if parts.username or parts.password:
            raise JobError("the address of the service names a user", fix="leave it out, and give the token as token=")
        connection = Connection.from_environment()
        if token is not None:
            connection = _with_token(connection, token, parts.hostname)
        told = say or (lambda text: None)
        return cls(url=url.rstrip("/"), connection=connection, session=open_session(connection), say=told)

    def read(self, path: str) -> dict[str, Any]:
        """The JSON object at `path`, asked for again while what is wrong may pass. Raises EarthmapError."""
        return self._object(self._send("GET", path, again=_may_pass).content, path)

    def ask(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON object that answers `body` where asking twice does no harm. Raises EarthmapError."""
        return self._object(self._send("POST", path, body=body, again=_may_pass).content, path)

    def submit(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON object that answers `body`, which is sent once. Raises EarthmapError."""
        return self._object(self._send("POST", path, body=body, again=_surely_refused).content, path)

    def delete(self, path: str) -> None:
        """Dismiss what is at `path`; nothing where it is dismissed already. Raises EarthmapError."""
        try:
            self._send("DELETE", path, again=_may_pass)
        except ServiceError as error:
            if error.status != requests.codes.gone:
                raise

    def fetch(self, path: str, to: Path) -> None:
        """The file at `path`, whole or not at all. Raises EarthmapError."""
        part = to.with_name(f"{to.name}.part-{os.getpid()}")
        try:
            self._send("GET", path, again=_may_pass, to=part)
            part.replace(to)
        finally:
            part.unlink(missing_ok=True)

    # ── one request ──────────────────────────────────────────────────────────────────────────────────────────

    def _send(
        self,
        method: str,
        path: str,
        *,
        again: Callable[[_Failed], bool],
        body: Mapping[str, Any] | None = None,
        to: Path | None = None,
    ) -> Response:
        tries, waited = 0, 0.0
        while True:
            try:
                return self._send_once(method, path, body, to)
            except _Failed as failed:
                tries += 1
                pause = self.connection.pause_s(tries, asked_s=failed.asked_s)
                most = self.connection.retries if failed.status else min(LOST_RETRIES, self.connection.retries)
                if not again(failed) or tries > most or waited + pause > self.connection.patience_s:
                    raise failed.error from failed.__cause__
                if pause >= _SAID_FROM_S:
                    self.say(f"waiting {pause:.0f} s: {failed.error.what}")
                waited += pause
                time.sleep(pause)

    def _send_once(self, method: str, path: str, body: Mapping[str, Any] | None, to: Path | None) -> Response:
        request = requests.Request(method, f"{self.url}{path}", json=body, headers={"Accept": "application/json, */*"})
        try:
            prepared = self.session.prepare_request(request)
            response = self.session.send(prepared, allow_redirects=False, stream=to is not None)
            if to is not None and response.ok:
                with response, to.open("wb") as file:
                    file.writelines(response.iter_content(_PIECE))
        except (requests.exceptions.RequestException, ReadError) as error:
            lasting = isinstance(error, (ReadError, requests.exceptions.SSLError))
            sent = not isinstance(error, requests.exceptions.ConnectTimeout) and not _was_refused(error)
            raise _Failed(self._lost(error, method, sent=sent), sent=sent, lasting=lasting) from error
        if 200 <= response.status_code < 300:
            return response
        asked_s = retry_after_s(response.headers.get("Retry-After"))
        raise _Failed(self._refused(response), status=response.status_code, asked_s=asked_s)

    def _object(self, content: bytes, path: str) -> dict[str, Any]:
        """JSON that is an object. Raises ServiceError for anything else, as another program's page."""
        try:
            found = json.loads(content)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ServiceError(
                f"{self.url}{path} answers with something else than a service does",
                expected="an OGC API – Processes service",
                fix="check the address",
            )
        return found

    def _lost(self, error: Exception, method: str, *, sent: bool) -> EarthmapError:
        """What to say where no answer came."""
        if isinstance(error, ReadError):
            return ServiceError(error.what, expected=error.expected, fix=error.fix)
        if isinstance(error, requests.exceptions.SSLError):
            return ServiceError(
                f"the certificate of {self.url} is not accepted",
                fix="check the address and this machine's clock; for a company's own certificates set SSL_CERT_FILE",
            )
        if method == "POST" and sent:
            return ServiceError(
                f"the connection to {self.url} was lost while something was asked for: it may have been accepted",
                fix="see jobs() before you ask again",
            )
        late = isinstance(error, requests.exceptions.Timeout)
        return ServiceError(
            f"{self.url} does not answer" + (" in time" if late else ""),
            expected="a service that runs there",
            fix="check the address, the network and proxies (docs/connection.md), and that `earthmap serve` runs",
        )

    def _refused(self, response: Response) -> EarthmapError:
        """What a status and its document say."""
        status = response.status_code
        if status == requests.codes.unauthorized:
            sent = "Authorization" in response.request.headers
            return ServiceError(
                f"{self.url} does not know this token" if sent else f"{self.url} asks for a token",
                expected="a token that is valid there",
                fix="earthmap.connect(url, token=…), or EARTHMAP_TOKEN and EARTHMAP_HEADER_HOSTS (docs/client.md)",
                status=status,
            )
        if 300 <= status < 400:
            there = shown(response.headers.get("Location", "elsewhere"))[:_MOST_SHOWN]
            return ServiceError(f"{self.url} says to go to {there}", fix="connect to the service's own address")
        try:
            document = response.json()
        except ValueError:
            document = {}
        return error_of(document if isinstance(document, dict) else {}, status=status)


class _Failed(Exception):
    """A request that failed, and what is known of why."""

    def __init__(
        self,
        error: EarthmapError,
        *,
        status: int | None = None,
        asked_s: float | None = None,
        sent: bool = True,
        lasting: bool = False,
    ) -> None:
        self.error, self.status, self.asked_s, self.sent, self.lasting = error, status, asked_s, sent, lasting
        super().__init__()


def _may_pass(failed: _Failed) -> bool:
    return not failed.lasting and (failed.status is None or failed.status in PASSING)


def _surely_refused(failed: _Failed) -> bool:
    """True where nothing was accepted: the service is full, or no connection came about."""
    return failed.status == FULL or (failed.status is None and not failed.sent and not failed.lasting)


def _was_refused(error: Exception) -> bool:
    """Whether the connection never came about, so that nothing was sent."""
    inner = error.args[0] if error.args else None
    return isinstance(getattr(inner, "reason", None), NewConnectionError)


def _with_token(connection: Connection, token: str, host: str) -> Connection:
    """The connection with a token for this host, and for no other. Raises JobError for what is no token."""
    if not token.isascii() or not token.isprintable() or not token.strip() or " " in token.strip():
        raise JobError("the token cannot be sent as it is", expected="what `earthmap token make` printed")
    return replace(connection, headers=(("Authorization", f"Bearer {token.strip()}"),), header_hosts=(host.lower(),))
