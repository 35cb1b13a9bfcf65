"""Why a file could not be read, and what follows from it: one classifier, one table.

The exception alone does not tell. A refusal in the middle of a file reaches Python as a tile that is too short, which
is what a truncated file looks like; the status of the answer stands only in GDAL's debug log, and a sign-in page that
was answered with 200 only in its own bytes. So a cause is told from three witnesses: the exception and all that led
to it, the lines that GDAL logged in the reading thread, and the first bytes of the address asked for once more.

Nothing is skipped on a guess: what none of them tells is `unknown`, stays failed, and is tried again.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from earthmap.catalog.addresses import split_member
from earthmap.connection import Connection, retry_after_s
from earthmap.errors import ReadError


class Cause(StrEnum):
    """Why a file did not become pixels; the `reason` of a `ReadError` and of a ledger row."""

    CREDENTIALS = "credentials"
    """Access denied before anything was read from there: ours to put right."""
    EXPIRED = "expired_credentials"
    """The provider says that the key, token or clock is wrong: ours, whenever it happens."""
    DENIED = "denied"
    """Access denied to this file although others of the same place were read: the provider's."""
    REFUSED = "refused"
    """Too many requests, or busy (429, 503)."""
    UNAVAILABLE = "unavailable"
    """No answer, or half of one: time-outs, reset connections, 500, 502, 504."""
    NEVER_PUBLISHED = "never_published"
    """There is no such file (404, 410)."""
    DAMAGED = "damaged"
    """It is there, whole as far as the transfer goes, and no image that can be decoded."""
    UNSUPPORTED = "unsupported"
    """An image, but not of a kind that is read: a VRT, complex numbers, a band that is not there."""
    TOO_LARGE = "too_large"
    """Decoding it would take more memory or time than a file may."""
    NO_GEOREFERENCE = "no_georeference"
    """It does not say where it lies."""
    GROUND_CONTROL_POINTS = "ground_control_points"
    """Placed by control points where an affine transform is needed."""
    FORBIDDEN_ADDRESS = "forbidden_address"
    """An address that this catalogue may not name."""
    UNKNOWN = "unknown"
    """Nothing tells."""


class Decision(StrEnum):
    """What a cause decides."""

    STOP = "stop"
    """End the run with one clear error; all that is done is kept."""
    WAIT = "wait"
    """Ask again after growing pauses, as long as patience lasts; then leave it for the next execution."""
    REPLACE = "replace"
    """It will not change by asking: another copy, another scene, the next-best observation; only then skip it, with
    the evidence of several executions."""
    LEAVE = "leave"
    """Failed, and tried again by the next execution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What follows from a cause."""

    decision: Decision
    expected: str
    fix: str
    whole_file: bool = False
    """True where every part of the file fails alike: looking again tile by tile would only ask 16 times more."""


RULINGS: Mapping[Cause, Ruling] = {
    Cause.CREDENTIALS: Ruling(
        decision=Decision.STOP, expected="permission to read", fix="set the credentials of this host", whole_file=True
    ),
    Cause.EXPIRED: Ruling(
        decision=Decision.STOP,
        expected="credentials that are valid now",
        fix="renew the credentials of this host, check this machine's clock, and run again",
        whole_file=True,
    ),
    Cause.DENIED: Ruling(
        decision=Decision.LEAVE,
        expected="permission to read this file as others of the same place",
        fix="check its permissions, and that it exists: some services deny what is not there",
        whole_file=True,
    ),
    Cause.REFUSED: Ruling(
        decision=Decision.WAIT,
        expected="a provider that takes the request",
        fix="run again later, with less at once; check the quota",
        whole_file=True,
    ),
    Cause.UNAVAILABLE: Ruling(
        decision=Decision.WAIT,
        expected="a whole answer in time",
        fix="check network and proxy, and run again",
        whole_file=True,
    ),
    Cause.NEVER_PUBLISHED: Ruling(
        decision=Decision.REPLACE, expected="a file at this address", fix="check the catalogue's href", whole_file=True
    ),
    Cause.DAMAGED: Ruling(
        decision=Decision.REPLACE,
        expected="a whole image that GDAL can decode",
        fix="fetch the file again, or take another copy of the scene",
    ),
    Cause.UNSUPPORTED: Ruling(
        decision=Decision.REPLACE,
        expected="GeoTIFF, JPEG 2000, PNG or JPEG with the band that the item names",
        fix="look at the file with gdalinfo, and convert it to a Cloud Optimized GeoTIFF",
    ),
    Cause.TOO_LARGE: Ruling(
        decision=Decision.REPLACE,
        expected="a file that decodes within the limits",
        fix="rewrite it as a Cloud Optimized GeoTIFF",
    ),
    Cause.NO_GEOREFERENCE: Ruling(
        decision=Decision.REPLACE,
        expected="an affine transform and a CRS",
        fix="georeference it, for example with gdal_translate -a_srs … -a_ullr …",
        whole_file=True,
    ),
    Cause.GROUND_CONTROL_POINTS: Ruling(
        decision=Decision.REPLACE,
        expected="an affine transform and a CRS",
        fix="use a geocoded or terrain-corrected product",
        whole_file=True,
    ),
    Cause.FORBIDDEN_ADDRESS: Ruling(
        decision=Decision.REPLACE,
        expected="an http(s) or s3 address, or a path below a catalogue of local files",
        fix="use another catalogue",
        whole_file=True,
    ),
    Cause.UNKNOWN: Ruling(
        decision=Decision.LEAVE, expected="pixels", fix="run again; if it stays, look at the file with gdalinfo"
    ),
}
"""The one table of what each cause decides."""


_WORDS = frozenset(cause.value for cause in Cause)


def cause_of(reason: str) -> Cause:
    """The cause that a reason names; `unknown` for any other word, such as a subprocess's `crashed`."""
    return Cause(reason) if reason in _WORDS else Cause.UNKNOWN


def decision_of(reason: str) -> Decision:
    """What a reason decides."""
    return RULINGS[cause_of(reason)].decision


def is_lasting(reason: str) -> bool:
    """True where asking again will not help, so that something else may stand in its place."""
    return decision_of(reason) is Decision.REPLACE


def read_error(href: str, cause: Cause, what: str, *, retry_after_s: float | None = None) -> ReadError:
    """The error of `href`, with what its cause expects and how to fix it; secrets in either are not shown."""
    ruling = RULINGS[cause]
    return ReadError(
        redact(what),
        address=redact(href),
        reason=cause.value,
        expected=ruling.expected,
        fix=ruling.fix,
        retry_after_s=retry_after_s,
    )


# ── secrets ──────────────────────────────────────────────────────────────────────────────────────────────────

_SECRET = re.compile(
    r"(?i)([?&](?:sig|signature|token|access_token|api_?key|key|subscription-key|awsaccesskeyid|x-(?:amz|goog)-[\w-]+"
    r"|sv|se|st|sp|sr|spr|skoid|sktid|skt|ske|sks|skv)=)[^&\s'\"|)]+"
)
_USER = re.compile(r"(?i)(https?://)[^/@\s'\"]+@")


def redact(text: str) -> str:
    """`text` without the values of signatures, tokens and passwords in its addresses."""
    return _USER.sub(r"\1…@", _SECRET.sub(r"\1…", text))


# ── what GDAL logs ───────────────────────────────────────────────────────────────────────────────────────────

LOGGED: Mapping[str, str] = {
    "CPL_DEBUG": "VSICURL,S3",  # the status of each request, which is in no exception
    "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/:/vsis3/",  # else GDAL remembers a failure for the life of the process
}
"""GDAL's settings while a remote file is read; lines of other subsystems stay off."""

_LOGGERS = ("rasterio._env", "rasterio._err")  # where rasterio forwards GDAL's errors and debug lines
_KEPT_LINES = 200
_HEARD = threading.local()


class _Ear(logging.Filter):
    """Hears every line, and passes on those that its user would have seen without it, less their secrets."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__()
        self._logger, self._own = logger, logger.level

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        lines: deque[str] | None = getattr(_HEARD, "lines", None)
        if lines is not None:
            lines.append(text)
        parent = self._logger.parent
        if record.levelno < (self._own or (parent.getEffectiveLevel() if parent else logging.WARNING)):
            return False
        record.msg, record.args = redact(text), ()
        return True


@functools.cache
def _listen() -> None:
    """Once a process: both loggers speak of everything, and pass on no more than before."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.addFilter(_Ear(logger))
        logger.setLevel(logging.DEBUG)


@contextlib.contextmanager
def heard() -> Iterator[deque[str]]:
    """The last lines that GDAL logs in this thread inside the block."""
    _listen()
    before = getattr(_HEARD, "lines", None)
    _HEARD.lines = deque(maxlen=_KEPT_LINES)
    try:
        yield _HEARD.lines
    finally:
        _HEARD.lines = before


# ── what was read before ─────────────────────────────────────────────────────────────────────────────────────

_PLACES: set[str] = set()


def place_of(address: str) -> str:
    """What one set of credentials opens: `s3://bucket`, `https://host`, or `file` for local paths."""
    member = split_member(address)
    address = member.archive if member else address
    parts = urlsplit(address) if "://" in address else None
    if parts is None or parts.scheme.lower() == "file":
        return "file"
    host = parts.netloc.rpartition("@")[2].lower()
    return f"{parts.scheme.lower()}://{host}"


def note_read(address: str) -> None:
    """Remember that something was read from the place of `address` in this process."""
    _PLACES.add(place_of(address))


def was_read(address: str) -> bool:
    """True where something was read from the place of `address` in this process."""
    return place_of(address) in _PLACES


# ── asking once more ─────────────────────────────────────────────────────────────────────────────────────────

_PROBE_BYTES = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What an address answered when its first bytes were asked for."""

    status: int | None
    """HTTP status; None where no answer came."""
    start: bytes = b""
    """The first bytes of the body."""
    broken: bool = False
    """True where the body ended before its stated length."""
    retry_after_s: float | None = None
    """How long the provider asks to wait."""
    date: str | None = None
    """The provider's clock, as it writes it."""


def probe(address: str) -> Probe | None:
    """What the http(s) address (or its archive) answers to a request for its first bytes; None for any other kind."""
    import requests

    from earthmap.catalog.http import open_session

    member = split_member(address)
    address = member.archive if member else address
    if not address.lower().startswith(("http://", "https://")):
        return None
    headers = {"Range": f"bytes=0-{_PROBE_BYTES - 1}", "Accept-Encoding": "identity"}
    try:
        with (
            open_session(Connection.from_environment()) as session,
            session.get(address, headers=headers, stream=True) as answer,
        ):
            status, said = answer.status_code, answer.headers
            wait = retry_after_s(said.get("Retry-After"))
            try:
                start = next(answer.iter_content(_PROBE_BYTES), b"")
            except requests.exceptions.RequestException:
                return Probe(status=status, broken=True, retry_after_s=wait, date=said.get("Date"))
    except requests.exceptions.RequestException:
        return Probe(status=None)
    except ReadError:
        return None  # it redirects to where nothing is read: the address says no more
    stated = int(said["Content-Length"]) if said.get("Content-Length", "").isdigit() else 0
    broken = len(start) < min(stated, _PROBE_BYTES)
    return Probe(status=status, start=start, broken=broken, retry_after_s=wait, date=said.get("Date"))


# ── the classifier ───────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that is known of one failed read."""

    text: str
    """The texts of the exception and of all that led to it."""
    log: tuple[str, ...] = ()
    """GDAL's lines during the read."""
    read_before: bool = False
    """Something was read from the same place in this process before."""
    probe: Probe | None = None


_STATUS = re.compile(r"response[ _]code ?[:=]? ?(\d{1,3})|HTTP error code ?: (\d{3})", re.IGNORECASE)
_EXPIRED = (
    "expiredtoken", "tokenexpired", "invalidaccesskeyid", "signaturedoesnotmatch", "invalidtoken",
    "requesttimetooskewed", "invalidclienttokenid", "authenticationfailed", "novalidawscredentials",
    "invalidcredentials", "invalidsecurity",
)  # fmt: skip
_DENIED = ("accessdenied", "permissiondenied", "unauthorized")
_ABSENT = ("nosuchfile", "nosuchkey", "nosuchbucket", "specifiedkeydoesnotexist", "blobnotfound")
_BUSY = ("slowdown", "toomanyrequests", "throttl", "serverbusy", "requestlimitexceeded")
_BROKEN = (
    "curl error:", "timed out", "timeout", "connection reset", "could not resolve", "couldn't connect",
    "failed to connect", "bytes missing", "range downloading not supported", "recv failure", "ssl connect",
)  # fmt: skip
_UNDECODED = (
    "not recognized as being in a supported file format", "ireadblock failed", "tiff", "decod", "corrupt", "libpng",
    "jpeg", "openjpeg", "not a valid", "opj_",
)  # fmt: skip
_LARGE = ("out of memory", "cannot allocate", "too large", "memoryerror", "allocat", "exceeds")
_CONTENTS = (
    b"PK",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"\0\0\0\x0cjP",
    b"\xff\x4f\xff\x51",
)
_PAGES = (b"<!doctype html", b"<html")
_GATEWAYS = frozenset({408, 425, 429, 503})


def texts_of(error: BaseException | None) -> str:
    """The texts of an error and of all that led to it: GDAL's cause is often not in the last one."""
    texts: list[str] = []
    while error is not None and len(texts) < 16:
        texts.append(str(error) or type(error).__name__)
        error = error.__cause__ or error.__context__
    return " | ".join(texts)


def classify(evidence: Evidence) -> Cause:
    """The cause that the evidence tells, `unknown` where it does not."""
    text = " | ".join((evidence.text, *evidence.log))
    return (
        _by_words(text, evidence)
        or _by_status(_statuses(text), evidence)
        or _by_probe(evidence)
        or _by_content(text, evidence)
        or Cause.UNKNOWN
    )


def _statuses(text: str) -> list[int]:
    return [int(first or second) for first, second in _STATUS.findall(text)]


def _denied(evidence: Evidence) -> Cause:
    return Cause.DENIED if evidence.read_before else Cause.CREDENTIALS


def _by_words(text: str, evidence: Evidence) -> Cause | None:
    """What a service says in words of its own, which is more exact than its status."""
    said = re.sub(r"[\s_-]+", "", (text + _start(evidence)).lower())
    if any(mark in said for mark in _EXPIRED):
        return Cause.EXPIRED
    if any(mark in said for mark in _BUSY):
        return Cause.REFUSED
    if any(mark in said for mark in _DENIED):
        return _denied(evidence)
    return Cause.NEVER_PUBLISHED if any(mark in said for mark in _ABSENT) else None


def _start(evidence: Evidence) -> str:
    probe = evidence.probe
    return probe.start.decode("utf-8", errors="replace") if probe and not probe.start.startswith(_CONTENTS) else ""


def _by_status(statuses: list[int], evidence: Evidence) -> Cause | None:
    """The cause of an answer's status. A refusal counts although a later request went through: that errs on asking
    again, where the other way round would give up a file for a moment's trouble."""
    if {401, 403, 407, 511} & set(statuses):
        return _denied(evidence)
    if _GATEWAYS & set(statuses):
        return Cause.REFUSED
    if any(status >= 500 for status in statuses):
        return Cause.UNAVAILABLE
    return Cause.NEVER_PUBLISHED if {404, 410} & set(statuses) else None


def _by_probe(evidence: Evidence) -> Cause | None:
    probe = evidence.probe
    if probe is None:
        return None
    if probe.status is None or probe.broken:
        return Cause.UNAVAILABLE
    cause = _by_status([probe.status], evidence)
    if cause is not None:
        return cause
    start = probe.start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(_PAGES):
        return _denied(evidence)  # a sign-in page, most often
    if start.startswith(b"<vrtdataset"):
        return Cause.UNSUPPORTED
    if start.startswith((b"<", b"{")):
        return Cause.UNKNOWN  # a service that says something else than its status
    known = probe.start.startswith(_CONTENTS) or probe.start[257:262] == b"ustar"
    return None if known else Cause.DAMAGED


def _by_content(text: str, evidence: Evidence) -> Cause | None:
    low = text.lower()
    if any(mark in low for mark in _BROKEN):
        return Cause.UNAVAILABLE
    if 0 in _statuses(text):
        return Cause.UNAVAILABLE
    if any(mark in low for mark in _LARGE):
        return Cause.TOO_LARGE
    return Cause.DAMAGED if any(mark in low for mark in _UNDECODED) else None
