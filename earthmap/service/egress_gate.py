"""Where the egress proxy takes requests, and from whom: this machine alone, or the nodes of a cluster by a secret."""

from __future__ import annotations

import base64
import hmac
import re
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from earthmap.errors import JobError
from earthmap.service.numbers import parse_host

USER = "earthmap"
"""A name without a meaning: the scheme Basic wants one."""

_PLACE = re.compile(r"(?P<host>\[[^\[\]]+\]|[^:\[\]]+)(?::(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Where a proxy listens, and what its clients must know.

    Example:
        >>> Gate(secret="s3cret").address("10.0.0.5", 3128)
        'http://earthmap:s3cret@10.0.0.5:3128'
    """

    host: str = "127.0.0.1"
    """On which it listens, and by which its clients reach it."""
    port: int = 0
    """0 for any that is free."""
    secret: str | None = field(default=None, repr=False)
    """In characters that an address may hold; None for a proxy of whoever reaches it."""

    def address(self, host: str, port: int) -> str:
        """For HTTP_PROXY and HTTPS_PROXY, where it listens on `host` and `port`."""
        who = f"{USER}:{self.secret}@" if self.secret else ""
        return f"http://{who}[{host}]:{port}" if ":" in host else f"http://{who}{host}:{port}"

    def lets_in(self, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        """Whether a request with these headers knows the secret (RFC 9110, 11.7.2; RFC 7617)."""
        if self.secret is None:
            return True
        told = [value for name, value in headers if name.lower() == b"proxy-authorization"]
        scheme, _, credentials = b" ".join(told).partition(b" ")
        expected = base64.b64encode(f"{USER}:{self.secret}".encode())
        return scheme.lower() == b"basic" and hmac.compare_digest(credentials.strip(), expected)


def make_gate(told: str | None, *, cluster: str | None) -> Gate:
    """The gate of a service's proxy, with a new secret.

    Args:
        told: `HOST` or `HOST:PORT` that the operator chose; None for the number of this machine that leads to the
            head of the cluster, or without a cluster for this machine alone.
        cluster: address of the cluster whose nodes read, `host:port`.

    Raises:
        JobError: for what is no host and port, and for a cluster whose address does not tell where it is.
    """
    host, port = ("127.0.0.1", 0) if told is None else _parsed(told)
    if told is None and cluster is not None:
        host = _own_towards(cluster)
    return Gate(host=host, port=port, secret=secrets.token_urlsafe(32))


def _parsed(told: str) -> tuple[str, int]:
    match = _PLACE.fullmatch(told.strip())
    port = int((match and match["port"]) or 0)
    try:
        host = None if match is None else str(parse_host(match["host"]))
    except JobError:
        host = None
    if host is None or port > 65_535 or host in ("0.0.0.0", "::"):
        raise JobError(
            f"the egress proxy cannot be reached at {told[:100]!r}",
            expected="a number of this machine by which the nodes of the cluster reach it, with or without :PORT",
            fix="for example --egress 10.0.0.5:3128",
        )
    return host, port


def _own_towards(cluster: str) -> str:
    """The number of this machine on its way to the head; nothing is sent."""
    host, _, port = cluster.removeprefix("ray://").rpartition(":")
    try:
        where = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)[0]
        with socket.socket(where[0], socket.SOCK_DGRAM) as way:
            way.connect(where[4])
            return str(way.getsockname()[0])
    except (OSError, ValueError) as error:
        raise JobError(
            f"nothing tells by which number the nodes of the cluster at {cluster[:100]} reach this machine",
            expected="the host:port of its head",
            fix="name that number with --egress",
        ) from error
