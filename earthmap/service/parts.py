"""Files over HTTP in parts (RFC 9110, 14), on this machine or S3: never a whole one in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from earthmap.service.errors import ProblemError, problem
from earthmap.storage import Storage

PIECE_BYTES = 2**20
"""What is read at once."""

UNTRUSTED = {"Content-Security-Policy": "sandbox allow-scripts"}
"""A page of results shows what strangers wrote: it must not act as a page of this service."""

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


def part_of(
    request: Request,
    storage: Storage,
    path: str,
    *,
    media_type: str,
    tag: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The file at `path`, or the part of it that is asked for; `tag` is that of what never changes.

    Raises:
        FileNotFoundError: where there is none.
        ProblemError: 416 for a part beyond its end.
        StorageError: where it cannot be read.
    """
    size = storage.size(path)
    asked = _asked(request, size, tag)
    start, end = asked or (0, size)
    told = {
        "Accept-Ranges": "bytes",
        "Content-Length": str(end - start),
        "X-Content-Type-Options": "nosniff",
        **({} if tag is None else {"ETag": tag}),
        **({} if asked is None else {"Content-Range": f"bytes {start}-{end - 1}/{size}"}),
        **(headers or {}),
    }
    status = 200 if asked is None else 206
    if request.method == "HEAD" or end <= start:
        return Response(b"", status, told, media_type)
    first = storage.read_part(path, start=start, end=min(end, start + PIECE_BYTES))
    if end - start <= PIECE_BYTES:
        return Response(first, status, told, media_type)
    return StreamingResponse(_pieces(first, storage, path, start=start, end=end), status, told, media_type)


def _pieces(first: bytes, storage: Storage, path: str, *, start: int, end: int) -> Iterator[bytes]:
    yield first
    for place in range(start + PIECE_BYTES, end, PIECE_BYTES):
        yield storage.read_part(path, start=place, end=min(end, place + PIECE_BYTES))


def _asked(request: Request, size: int, tag: str | None) -> tuple[int, int] | None:
    """From where to before where; None for all of it: several ranges, and those of another version, are not given."""
    match = _RANGE.fullmatch(request.headers.get("range", "").strip())
    if match is None or match[0] == "bytes=-" or request.headers.get("if-range", tag) != tag:
        return None
    if not match[1]:
        start, end = max(0, size - int(match[2])), size
    else:
        start, end = int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
        if match[2] and int(match[2]) < start:
            return None
    if start >= size:
        told = problem(416, "Not in the object", f"it has {size} bytes", kind="range")
        raise ProblemError(told, {"Content-Range": f"bytes */{size}"})
    return start, end
