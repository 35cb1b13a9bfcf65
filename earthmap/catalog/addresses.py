"""Addresses of files: local, http(s), s3, and members of a zip or tar at any of these; and GDAL's names for them.

A member is written as rasterio writes it: `zip:///data/scene.zip!/band.jp2`, `tar:///data/scene.tar!/band.TIF`,
`zip+https://host/scene.zip!/band.jp2`. One archive deep: what lies in an archive inside an archive has no address.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from earthmap.errors import ReadError

REMOTE = ("http://", "https://", "s3://")
"""How the address of a file elsewhere starts."""

_ARCHIVES = {".zip": "zip", ".tar": "tar"}
_MEMBER = re.compile(r"(zip|tar)(?:\+(https?|s3|file))?://(.+)", re.DOTALL | re.IGNORECASE)
_HOSTILE = re.compile(r"[\x00-\x1f\\{}]|!/|//|(?:^|/)\.{1,2}(?:/|$)|^/|/$")
_EXPECTED = "a local path, http(s), s3, or a member of a zip or tar at one of these"


class Member(NamedTuple):
    """A file inside an archive."""

    kind: str
    """`zip` or `tar`."""
    archive: str
    """Address of the archive."""
    name: str
    """Path inside it, with slashes."""


def archive_kind(address: str) -> str | None:
    """`zip` or `tar` where `address` is that of an archive by its ending; None for anything else."""
    path = re.split(r"[?#]", address)[0] if address.startswith(REMOTE) else address
    return next((kind for ending, kind in _ARCHIVES.items() if path.lower().endswith(ending)), None)


def is_safe_name(name: str) -> bool:
    """False for the name of a member that leaves its archive, or that GDAL would read as something else.

    Example:
        >>> is_safe_name("S2A.SAFE/GRANULE/B04.jp2"), is_safe_name("../../etc/passwd"), is_safe_name("/etc/passwd")
        (True, False, False)
    """
    return bool(name) and _HOSTILE.search(name) is None


def member_address(archive: str, name: str) -> str:
    """The address of the member `name` of the zip or tar at `archive`.

    Example:
        >>> member_address("https://host/a.zip", "b/c.tif")
        'zip+https://host/a.zip!/b/c.tif'
    """
    kind = archive_kind(archive) or "zip"
    return f"{kind}+{archive}!/{name}" if "://" in archive else f"{kind}://{archive}!/{name}"


def split_member(address: str) -> Member | None:
    """The archive and the member that `address` names; None where it names no archive.

    Raises:
        ReadError: for an address of an archive's kind that names no member, or one outside the archive.
    """
    match = _MEMBER.fullmatch(address)
    if match is None:
        return None
    path, found, name = match[3].rpartition("!/")
    archive = path if match[2] in (None, "file") else f"{match[2]}://{path}"
    if not found or not path or not is_safe_name(name) or re.search(r"[{}\x00-\x1f]", archive):
        raise _unreadable(address)
    return Member(match[1].lower(), archive, name)


def gdal_path(address: str) -> str:
    """What GDAL calls `address`: a local path as it is, http(s) below /vsicurl/, s3 below /vsis3/, members in archives.

    Raises:
        ReadError: for any other scheme, and for GDAL's own file systems, which an address may not name.
    """
    member = split_member(address)
    if member is None:
        return _file_path(address, address)
    return f"/vsi{member.kind}/{{{_file_path(member.archive, address)}}}/{member.name}"


def _file_path(address: str, asked: str) -> str:
    scheme = address.split("://", 1)[0].lower() if "://" in address else ""
    if scheme in ("http", "https"):
        return f"/vsicurl/{address}"
    if scheme == "s3":
        return f"/vsis3/{address.split('://', 1)[1]}"
    if scheme not in ("", "file") or address.startswith("/vsi"):
        raise _unreadable(asked)
    path = address.removeprefix("file://")
    if path.startswith("/vsi"):
        raise _unreadable(asked)
    return path


def _unreadable(address: str) -> ReadError:
    return ReadError(
        f"the address {address} cannot be read", address=address, reason="forbidden_address", expected=_EXPECTED
    )
