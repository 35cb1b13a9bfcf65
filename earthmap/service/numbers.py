"""The numbers behind hosts: which one an operating system reads a text as, and whether it is on the public network.

IPv6 gives many numbers a second meaning (RFC 4291, 2.5.5; RFC 3056; RFC 4380; RFC 6052; RFC 5214): a number that
carries another one is judged by both, so that no tunnel or translator leads where the plain number may not go.
"""

from __future__ import annotations

import ipaddress
import re
import socket

from earthmap.errors import JobError

Number = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

KEY_SERVICES: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "169.254.0.0/16",  # link-local, where Amazon, Google, Azure, Oracle and others answer their machines
        "fe80::/10",
        "fd00:ec2::/32",  # Amazon over IPv6: metadata, and keys of containers
        "fd20:ce::254/128",  # Google over IPv6
        "100.100.100.200/32",  # Alibaba
        "192.0.0.192/32",  # Oracle's older one
        "168.63.129.16/32",  # Azure's host, which has a public number
    )
)
"""Where machines in a cloud get their keys; nothing can list these as allowed."""

_NOT_PUBLIC: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "100.64.0.0/10",  # shared by carriers (RFC 6598)
        "192.0.0.0/24",  # protocol assignments
        "192.88.99.0/24",  # relays of 6to4
        "198.18.0.0/15",
        "224.0.0.0/3",  # multicast, reserved, broadcast
        "2001::/23",  # protocol assignments: Teredo, ORCHID and others
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation (RFC 9637)
    )
)
"""Kept here and not left to Python alone, whose table differs from one release to the next."""

_PUBLIC_6 = ipaddress.IPv6Network("2000::/3")  # the only unicast numbers that are given out (RFC 4291, 2.4)
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")  # NAT64's own prefix: how networks of IPv6 alone reach IPv4
_ENDS_AS_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)", re.IGNORECASE)
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")


def parse_host(text: str) -> Number | str:
    """What a host of an address stands for: the number that it is read as, or its name in lower case.

    Decimal, octal, hexadecimal and short numbers are read as C libraries read them (RFC 3986, 7.4), an IPv6 number only
    in brackets, and one final dot of a name is taken off. Names of other scripts come in their `xn--` form.

    Raises:
        JobError: for what is neither.

    Example:
        >>> parse_host("0x7f.1"), parse_host("[::ffff:10.0.0.1]"), parse_host("STAC.example.org.")
        (IPv4Address('127.0.0.1'), IPv4Address('10.0.0.1'), 'stac.example.org')
    """
    if text.startswith("[") and text.endswith("]"):
        return _bracketed(text)
    host = text[:-1] if text.endswith(".") else text
    if _NAME.fullmatch(host.lower()) is None:
        raise _no_host(text)
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        pass
    if _ENDS_AS_NUMBER.fullmatch(host):  # 1.2.3.256 or 09.1: a number to some readers, and no name to any
        raise _no_host(text)
    return host.lower()


def _bracketed(text: str) -> Number:
    try:
        number = ipaddress.IPv6Address(text[1:-1])
    except ValueError:
        raise _no_host(text) from None
    if number.scope_id:
        raise _no_host(text)
    return plain_number(number)


def _no_host(text: str) -> JobError:
    return JobError(
        f"{text[:100]!r} is not a host",
        expected="a name in plain letters, or an IPv4 number, or an IPv6 number in brackets",
        fix="write names of other scripts in their xn-- form",
    )


def plain_number(number: Number) -> Number:
    """`number`, or the IPv4 number that it maps (::ffff:0:0/96): an operating system connects to that one."""
    mapped = number.ipv4_mapped if isinstance(number, ipaddress.IPv6Address) else None
    return mapped or number


def carried(number: Number) -> tuple[Number, ...]:
    """The IPv4 numbers inside an IPv6 number, by each of the forms that carry one; none for most."""
    if isinstance(number, ipaddress.IPv4Address):
        return ()
    bits = int(number)
    found: list[Number] = [each for each in (number.ipv4_mapped, number.sixtofour) if each is not None]
    found += number.teredo or ()
    last = ipaddress.IPv4Address(bits & 0xFFFF_FFFF)
    compatible = bits >> 32 in (0, 0xFFFF_0000) and bits > 0xFFFF  # ::a.b.c.d (RFC 4291), ::ffff:0:a.b.c.d (RFC 2765)
    tunnelled = (bits >> 32) & 0xFDFF_FFFF == 0x5EFE  # ISATAP
    if compatible or tunnelled or number in _TRANSLATED:
        found.append(last)
    return tuple(found)


def is_key_service(number: Number) -> bool:
    """True where clouds hand out keys, however the number is written."""
    return any(each in network for each in (number, *carried(number)) for network in KEY_SERVICES)


def is_public(number: Number) -> bool:
    """True for a number of one host on the public network.

    Example:
        >>> is_public(ipaddress.ip_address("93.184.215.14")), is_public(ipaddress.ip_address("64:ff9b::10.0.0.1"))
        (True, False)
    """
    inside = carried(number)
    if not all(is_public(each) for each in inside) or is_key_service(number):
        return False
    if number in _TRANSLATED:
        return True
    if isinstance(number, ipaddress.IPv6Address) and (number not in _PUBLIC_6 or inside):
        return False
    return number.is_global and not any(number in network for network in _NOT_PUBLIC)
