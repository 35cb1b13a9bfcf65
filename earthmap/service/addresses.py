"""What a user's request may name as a catalogue or an image: https addresses, and what an operator opens beyond them.

Nothing that GDAL or a reader would take for something else than a file behind https passes: no path, no `file:`, no
`data:`, none of GDAL's own file systems (`/vsi…`), connection strings (`WMS:`, `<GDAL_WMS>`, `{"type": …}`) or prefixes
of parts (`HDF5:"…"`). What passes here is checked again when it is reached, by the egress proxy at every hop. What the
items of a catalogue name is `earthmap.catalog.addresses.check_href`'s to judge.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from earthmap.catalog import split_date
from earthmap.catalog.addresses import gdal_path, split_member
from earthmap.catalog.http import shown
from earthmap.errors import JobError, ReadError
from earthmap.service.egress_rules import EgressRules, Refusal
from earthmap.service.numbers import parse_host

MAX_CHARACTERS = 2048
"""Longest address."""

_PLAIN = re.compile(r"[!-~]+")
_NEVER = frozenset('"<>\\^`{|}#')  # RFC 3986 has them in no address, but GDAL has uses for them; a fragment asks nobody
_BUCKET = re.compile(r"[a-z0-9](?:[a-z0-9.-]{1,61})[a-z0-9]")
_OPENED = {
    Refusal.PLAIN_HTTP: "plain http is not open here",
    Refusal.PORT: "its port is not open here",
    Refusal.NOT_PUBLIC: "it is not a public address",
    Refusal.KEY_SERVICE: "it is not a public address",
    Refusal.NOT_LISTED: "its host is not open here",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Nameable:
    """What requests may name.

    Example:
        >>> Nameable(buckets=("sentinel-cogs",)).check("s3://sentinel-cogs/2024/a.tif")
        >>> Nameable().check("https://stac.example.org/v1")
    """

    rules: EgressRules = field(default_factory=EgressRules)
    """Of the proxy through which the addresses leave."""
    buckets: tuple[str, ...] = ()
    """Buckets on S3, or `bucket/prefix`, that every user may read with whatever keys the service has."""

    def __post_init__(self) -> None:
        for bucket in self.buckets:
            if not _BUCKET.fullmatch(bucket.partition("/")[0]):
                raise JobError(f"{bucket!r} is no bucket", expected="bucket or bucket/prefix", fix="leave out s3://")

    def check(self, address: str) -> None:
        """Nothing, where a request may name `address`. Raises JobError, which shows neither user nor query."""
        if not address.isascii() or not _PLAIN.fullmatch(address) or _NEVER & set(address):
            raise _refused(address, "it holds signs that no address has")
        if len(address) > MAX_CHARACTERS:
            raise _refused(address[:100], f"it is longer than {MAX_CHARACTERS} signs")
        try:
            member = split_member(address)
            gdal_path(address)
        except ReadError:
            raise _refused(address, "it is no https address") from None
        reached = member.archive if member else address
        scheme = reached.partition("://")[0].lower() if "://" in reached else ""
        if scheme in ("http", "https"):
            self._check_web(reached, plain=scheme == "http")
        elif scheme == "s3":
            self._check_bucket(reached)
        else:
            raise _refused(address, "it is no https address")

    def check_image(self, text: str) -> None:
        """As `check`, for an image with or without `@DATE` behind it."""
        self.check(split_date(text)[0])

    def _check_web(self, address: str, *, plain: bool) -> None:
        try:
            parts = urlsplit(address)
            authority, port = parts.netloc, parts.port or (80 if plain else 443)
            host = parse_host(re.sub(r":\d*\Z", "", authority))
        except (ValueError, JobError):
            raise _refused(address, "it has no host, or names a user") from None
        refusal = self.rules.outlook(host, port=port, plain=plain)
        if refusal is not None:
            raise _refused(address, _OPENED[refusal])

    def _check_bucket(self, address: str) -> None:
        path = unquote(address.partition("://")[2])
        bucket, _, key = path.partition("/")
        if not _BUCKET.fullmatch(bucket) or {".", ".."} & set(key.split("/")) or "?" in path:
            raise _refused(address, "it is no place in a bucket")
        if not any(path == opened or path.startswith(f"{opened.rstrip('/')}/") for opened in self.buckets):
            raise _refused(address, "its bucket is not open here")


def _refused(address: str, why: str) -> JobError:
    plain = re.sub(r"[^ -~]", "?", shown(re.sub(r"//[^/]*@", "//", address)))
    return JobError(
        f"the address {plain[:200]!r} cannot be named: {why}",
        expected="an https address on the public network",
        fix="publish the file or catalogue there, or ask the operator of this service to open what is meant",
    )
