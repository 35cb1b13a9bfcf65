"""Addresses of files: local, http(s), s3, and members of a zip or tar at any of these; and GDAL's names for them.

A member is written as rasterio writes it: `zip:///data/scene.zip!/band.jp2`, `tar:///data/scene.tar!/band.TIF`,
`zip+https://host/scene.zip!/band.jp2`. One archive deep: what lies in an archive inside an archive has no address.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

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


def check_href(href: str, *, catalogue: str) -> None:
    """Nothing, where the catalogue at the address `catalogue` may name `href`.

    A catalogue elsewhere names no file of this machine, and one on the public network no machine of the network that
    this one stands in; none names the address at which clouds hand out keys. Host names are taken as they are written.

    Raises:
        ReadError: with the reason `forbidden_address`.

    Example:
        >>> check_href("https://example.org/a.tif", catalogue="https://example.org/stac")
    """
    member = split_member(href)
    address = member.archive if member else href
    gdal_path(href)
    here = not address.lower().startswith(REMOTE)
    if catalogue.lower().startswith(REMOTE) and here:
        raise _forbidden(href, "a catalogue elsewhere names a file of this machine")
    host = _host_number(address)
    if host is None:
        return
    if host.is_link_local or host in _KEY_SERVICES:
        raise _forbidden(href, "it is where machines in a cloud get their keys")
    theirs = _host_number(catalogue)
    public = catalogue.lower().startswith(REMOTE) and (theirs is None or theirs.is_global)
    if public and not host.is_global:
        raise _forbidden(href, "a catalogue on the public network names a machine of this one")


LookUp = Callable[[str], Iterable[str]]
"""From a host's name to the numbers that it stands for; none where nobody knows."""


def check_redirect(target: str, *, origin: str, look_up: LookUp = lambda host: ()) -> None:
    """Nothing, where a server at the http(s) address `origin` may send its reader on to `target`.

    An address on the public network leads to no machine of the network that this one stands in, and none to the place
    where clouds hand out keys, or to anything but http(s). A name that `look_up` does not know is public.

    Raises:
        ReadError: with the reason `forbidden_address`; it shows neither query nor user, which may hold secrets.

    Example:
        >>> check_redirect("http://10.0.0.2/a.tif", origin="http://10.0.0.1/a.tif")
    """
    why = None
    if not target.lower().startswith(("http://", "https://")):
        why = "is no http(s) address"
    else:
        numbers = _numbers(target, look_up)
        if any(number.is_link_local or number in _KEY_SERVICES for number in numbers):
            why = "is where machines in a cloud get their keys"
        elif not all(number.is_global for number in numbers):
            inside = any(not number.is_global for number in _numbers(origin, look_up))
            why = None if inside else "is a machine of this network"
    if why:
        raise ReadError(
            f"the address {_plain(origin)} is not read: it redirects to {_plain(target)}, which {why}",
            address=_plain(origin),
            reason="forbidden_address",
            expected="a redirection to a public address, or inside the network that the address names itself",
            fix="name the file where it really stands",
        )


def _numbers(address: str, look_up: LookUp) -> list[_Number]:
    """The number that the host of an http(s) address is written as, or those that its name stands for."""
    written = _host_number(address)
    if written is not None:
        return [written]
    found = [ipaddress.ip_address(text.partition("%")[0]) for text in look_up(urlsplit(address).hostname or "")]
    return [getattr(number, "ipv4_mapped", None) or number for number in found]


def _plain(address: str) -> str:
    return re.sub(r"(?<=//)[^/@]*@", "", re.split(r"[?#]", address)[0])[:300]


_Number = ipaddress.IPv4Address | ipaddress.IPv6Address

_KEY_SERVICES = frozenset(map(ipaddress.ip_address, ("169.254.169.254", "fd00:ec2::254", "100.100.100.200")))
_NAMED = {
    "localhost": ipaddress.ip_address("127.0.0.1"),
    "metadata.google.internal": ipaddress.ip_address("169.254.169.254"),
    "metadata": ipaddress.ip_address("169.254.169.254"),
    "instance-data": ipaddress.ip_address("169.254.169.254"),
}


def _host_number(address: str) -> _Number | None:
    """The number that the host of an http(s) address is written as, in any of the ways that C libraries read (RFC 3986,
    7.4); None for a name."""
    if not address.lower().startswith(("http://", "https://")):
        return None
    try:
        host = (urlsplit(address).hostname or "").rstrip(".")
    except ValueError:
        raise _forbidden(address, "its host cannot be read") from None
    if host in _NAMED or host.endswith(".localhost"):
        return _NAMED.get(host, _NAMED["localhost"])
    try:
        number: _Number = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))  # 2852039166, 0xa9.254.0251.254, 127.1
        except OSError:
            return None
    mapped = number.ipv4_mapped if isinstance(number, ipaddress.IPv6Address) else None
    return mapped or number


def _forbidden(href: str, why: str) -> ReadError:
    return ReadError(
        f"the address {href} is not read: {why}",
        address=href,
        reason="forbidden_address",
        expected=_EXPECTED,
        fix="use a catalogue that names files where it may",
    )


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
