"""What is asked of a file before GDAL opens it: where its address leads, and how many directories a TIFF holds.

GDAL follows redirections by itself and has no setting against it (`GDAL_HTTP_FOLLOWLOCATION=NO` does nothing in 3.10),
and it walks the whole chain of a TIFF's directories before anything can be counted: 100,000 of them took four seconds
and 400 MB. So one ranged request of our own goes first: each of its redirections is checked, GDAL is given the address
at their end, and the directories are counted in the bytes that came. What was found is kept for a while in the process.
"""

from __future__ import annotations

import functools
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from earthmap.catalog.addresses import member_address, split_member
from earthmap.catalog.archives import open_file
from earthmap.catalog.http import BUSY, open_session
from earthmap.connection import Connection
from earthmap.errors import ReadError

if TYPE_CHECKING:
    from requests import Response, Session

HEAD_BYTES = 32_768
"""Fetched at once; the directories of a COG lie in the first of these."""

MAX_DIRECTORIES = 128
"""Most directories of a TIFF: its image, overviews, masks and pages. An image of 32 overviews with masks has 66."""

MAX_FETCHES = 64
"""Most places of a file that are looked at for its directories."""

REMEMBERED_S = 300.0
"""How long an address keeps what was found of it: signed addresses behind redirections live longer, most often."""

_REMEMBERED = 4096
_PARTIAL, _RANGE_NOT_SATISFIABLE = 206, 416
_SAID = 300

Fetch = Callable[[int, int], bytes]
"""From a start and a count to the bytes there; fewer at the end of the file, none behind it."""


class UnansweredError(OSError):
    """An address whose first bytes could not be had; its text holds the status, and what the server says."""


def admit(address: str, *, href: str, renew: bool = False) -> str:
    """The address that GDAL may open for the readable `address`: itself, or where its redirections end.

    Args:
        address: local, http(s), s3, or a member of an archive at one of these; signed where it must be.
        href: the unsigned address, which messages name.
        renew: ask again, because what was found before was refused.

    Raises:
        ReadError: `forbidden_address` for a redirection that `check_redirect` refuses, `too_large` for a TIFF of more
            than `MAX_DIRECTORIES`, `damaged` for one whose directories lead in a circle.
        UnansweredError: where a server does not give the first bytes.
    """
    key = address, _stamp(address)
    found = None if renew else _KEPT.get(key)
    if found is None:
        try:
            found = _Verdict(address=_admitted(address, href))
        except ReadError as error:
            found = _Verdict(error=error)
        _KEPT.put(key, found)
    if found.error is not None:
        raise found.error.with_traceback(None)
    return found.address


def _admitted(address: str, href: str) -> str:
    member = split_member(address)
    reached = member.archive if member else address
    if reached.lower().startswith(("http://", "https://")):
        connection = Connection.from_environment()
        reached, head = _ask(reached, 0, HEAD_BYTES, connection)
        if member is None:
            ask = lambda start, count: _ask(reached, start, count, connection)[1] if start else head  # noqa: E731
            check_directories(ask, href)
            return reached
        address = member_address(reached, member.name)
    try:
        with open_file(address) as stream:

            def fetch(start: int, count: int) -> bytes:
                stream.seek(start)
                return stream.read(count)

            check_directories(fetch, href)
    except ReadError:
        raise
    except Exception:  # noqa: BLE001 - obstore raises errors of no common base; GDAL, which opens it next, tells why
        return address
    return address


# -- what was found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    address: str = ""
    error: ReadError | None = None


class _Verdicts:
    """What was found of addresses, for `REMEMBERED_S`; those asked for longest ago are dropped first."""

    def __init__(self) -> None:
        self._found: OrderedDict[tuple[str, str], tuple[float, _Verdict]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[str, str]) -> _Verdict | None:
        with self._lock:
            until, verdict = self._found.get(key, (0.0, None))
            return verdict if time.monotonic() < until else None

    def put(self, key: tuple[str, str], verdict: _Verdict) -> None:
        with self._lock:
            self._found[key] = time.monotonic() + REMEMBERED_S, verdict
            self._found.move_to_end(key)
            while len(self._found) > _REMEMBERED:
                self._found.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._found.clear()


_KEPT = _Verdicts()


def is_redirected(address: str) -> bool:
    """True where `address` was found to lead elsewhere."""
    found = _KEPT.get((address, _stamp(address)))
    return found is not None and found.address not in ("", address)


def forget_addresses() -> None:
    """Forget what was found of all addresses in this process."""
    _KEPT.clear()


def _stamp(address: str) -> str:
    """Size and time of a local file or archive: one that is replaced is looked at again."""
    member = split_member(address)
    try:
        status = Path((member.archive if member else address).removeprefix("file://")).stat()
    except (OSError, ValueError):
        return ""
    return f"{status.st_size}:{status.st_mtime_ns}"


# -- over http


@functools.lru_cache(maxsize=8)
def _session(connection: Connection) -> Session:
    """One for each way to reach the network: connections are used again, by any number of threads."""
    return open_session(connection)


def _ask(address: str, start: int, count: int, connection: Connection) -> tuple[str, bytes]:
    """The bytes of a range, and the address behind all redirections; busy servers are asked again, as GDAL does.

    Raises:
        ReadError: `forbidden_address` for a redirection that is refused.
        UnansweredError: for any other answer than the bytes.
    """
    import requests
    import urllib3

    wanted = {"Range": f"bytes={start}-{start + count - 1}", "Accept-Encoding": "identity"}
    for tries in range(1, connection.read_retries + 2):
        last = tries > connection.read_retries
        try:
            with _session(connection).get(address, headers=wanted, stream=True) as answer:
                if last or answer.status_code not in BUSY:
                    return str(answer.url), _content(answer, start, count, connection.read_timeout_s)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            if last:
                raise UnansweredError(f"connection reset, or timed out: {type(error).__name__}") from None
        time.sleep(0.3 * connection.pause_s(tries))
    raise UnansweredError("connection reset, or timed out")


def _content(answer: Response, start: int, count: int, patience_s: float) -> bytes:
    """At most `count` bytes of an answer. One that ignores the range is all of the file, from its start on."""
    if answer.status_code == _RANGE_NOT_SATISFIABLE:
        return b""
    end, data = time.monotonic() + patience_s, b""
    while len(data) < count and (piece := answer.raw.read1(count - len(data))):
        data += piece
        if time.monotonic() > end:
            raise UnansweredError("timed out")
    if not answer.ok:
        raise UnansweredError(f"response code {answer.status_code}: {data[:_SAID].decode('utf-8', errors='replace')}")
    return data if answer.status_code == _PARTIAL or start == 0 else b""


# -- the directories of a TIFF


def check_directories(fetch: Fetch, href: str) -> None:
    """Raises ReadError for a TIFF of too many directories, or whose directories lead in a circle.

    Only the chain is followed, both byte orders, classic and BigTIFF (TIFF 6.0, section 2; Aldus/Adobe 1992; BigTIFF
    as libtiff defines it); what is no TIFF, or breaks off, is for GDAL to refuse.
    """
    look = _Look(fetch)
    form = _form(look.at(0, 16))
    if form is None:
        return
    order, count_size, entry_size, pointer = form
    seen: set[int] = set()
    offset = _number(look.at(8 if entry_size == 20 else 4, pointer), order)
    while offset:
        if offset in seen:
            raise _refusal(href, "damaged", "has directories that lead in a circle", "a whole TIFF")
        seen.add(offset)
        if len(seen) > MAX_DIRECTORIES or look.fetches > MAX_FETCHES:
            many = f"more than {MAX_DIRECTORIES}" if len(seen) > MAX_DIRECTORIES else f"{len(seen)} or more scattered"
            expected = f"at most {MAX_DIRECTORIES}, for an image, its overviews and masks"
            raise _refusal(href, "too_large", f"holds {many} TIFF directories", expected)
        entries = _number(look.at(offset, count_size), order)
        if entries is None or entries > 0xFFFF:
            return
        offset = _number(look.at(offset + count_size + entries * entry_size, pointer), order)


def _form(head: bytes) -> tuple[str, int, int, int] | None:
    """Byte order, and the sizes of a directory's count, of its entries, and of an offset; None for what is no TIFF."""
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 8:
        return None
    (version,) = struct.unpack(f"{order}H", head[2:4])
    return {42: (order, 2, 12, 4), 43: (order, 8, 20, 8)}.get(version)


def _number(data: bytes, order: str) -> int | None:
    kind = {2: "H", 4: "I", 8: "Q"}.get(len(data))
    return int(struct.unpack(order + kind, data)[0]) if kind else None


class _Look:
    """The bytes of a file, fetched in pieces of `HEAD_BYTES`."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch, self._start, self._data = fetch, 0, b""
        self.fetches = 0

    def at(self, start: int, count: int) -> bytes:
        """The bytes of a range; fewer, or none, where the file ends before."""
        inside = start - self._start
        if inside < 0 or inside + count > len(self._data):
            if start >= 2**63 - HEAD_BYTES:
                return b""
            self._start, self._data, inside = start, self._fetch(start, HEAD_BYTES), 0
            self.fetches += 1
        return self._data[inside : inside + count]


def _refusal(href: str, reason: str, what: str, expected: str) -> ReadError:
    return ReadError(
        f"{href} {what}",
        address=href,
        reason=reason,
        expected=expected,
        fix="write the image that is meant to a file of its own, for example with gdal_translate -of COG",
    )
