"""How the egress proxy gets to a host: its name looked up once, each number judged, one of those connected to."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from earthmap.service.egress_heads import Refused, Target
from earthmap.service.egress_rules import EgressRules, Refusal
from earthmap.service.numbers import Number, plain_number

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""From a host's name and a port to the numbers that it stands for, as texts. Raises OSError where nobody knows."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

PIECE = 2**16
"""Bytes that are read at once."""

_TRIED = 4
"""Numbers of one host that are tried, each for its share of the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressLimits:
    """How much and how long; what is over a limit is refused, or cut."""

    connections: int = 512
    """Open at once."""
    head_bytes: int = 32_768
    """Largest head of a request or an answer."""
    head_s: float = 10.0
    """Longest time for a whole request to come, and for which an idle connection is kept."""
    resolve_s: float = 10.0
    """Longest time for a name to be looked up."""
    connect_s: float = 10.0
    """Longest time for a connection to a host, by all of its numbers that are tried."""
    idle_s: float = 120.0
    """Longest time in which nothing passes either way."""
    whole_s: float = 6 * 3600.0
    """Longest time of one tunnel or answer."""
    grace_s: float = 5.0
    """How long open connections may go on when the proxy is asked to end."""


async def look_up(host: str, port: int) -> Sequence[str]:
    """The numbers of `host` by this machine's own resolver, in its order. Raises OSError where there are none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """The way to hosts: what may be reached, how long it may take, and who knows names."""

    rules: EgressRules
    limits: EgressLimits
    resolve: Resolve

    async def open(self, target: Target) -> Streams:
        """A connection to one of the numbers that `target` stands for, all of which may be reached. Raises Refused."""
        tried = (await self.judge(target))[:_TRIED]
        for number in tried:
            with contextlib.suppress(OSError):  # TimeoutError too
                async with asyncio.timeout(self.limits.connect_s / len(tried)):
                    sock = await self._connect(number, target.port)
                if _is_own(sock) and not self.rules.lists(target.host, number, port=target.port):
                    sock.close()
                    raise Refused(Refusal.NOT_PUBLIC, f"{target.shown} may not be reached", address=str(number))
                return await asyncio.open_connection(sock=sock, limit=PIECE)
        raise Refused(Refusal.UNREACHABLE, f"{target.shown} does not answer")

    async def judge(self, target: Target) -> list[Number]:
        """The numbers that `target` stands for. Raises Refused where one of them may not be reached."""
        numbers = await self._numbers(target)
        for number in numbers:
            refusal = self.rules.refusal(target.host, number, port=target.port, plain=target.is_plain)
            if refusal is not None:
                raise Refused(refusal, f"{target.shown} may not be reached", address=str(number))
        return numbers

    async def _numbers(self, target: Target) -> list[Number]:
        """The numbers of the host: looked up here, once, and nowhere else."""
        if not isinstance(target.host, str):
            return [target.host]
        refusal = self.rules.outlook(target.host, port=target.port, plain=target.is_plain)
        if refusal is not None:
            raise Refused(refusal, f"{target.shown} may not be reached")
        try:
            async with asyncio.timeout(self.limits.resolve_s):
                texts = await self.resolve(target.host, target.port)
            found = [plain_number(ipaddress.ip_address(text.partition("%")[0])) for text in texts]
        except (OSError, ValueError):  # TimeoutError and gaierror, UnicodeError
            found = []
        if not found:
            raise Refused(Refusal.UNRESOLVED, f"the name in {target.shown} is not known")
        return list(dict.fromkeys(found))

    async def _connect(self, number: Number, port: int) -> socket.socket:
        family = socket.AF_INET if number.version == 4 else socket.AF_INET6
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, (str(number), port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            sock.close()
            raise
        return sock


def _is_own(sock: socket.socket) -> bool:
    """True for a connection to this machine itself, which may have a public number: both ends are the same then."""
    return bool(sock.getsockname()[0] == sock.getpeername()[0])
