"""The one way by which addresses of users' runs leave: an HTTP proxy that connects only to what it has checked itself.

Clients (requests, GDAL, obstore) ask it for each address, also for each that a redirection leads to. It looks the
name up once, judges every number that the name stands for, and connects to one of those very numbers: a name that means
something else a moment later changes nothing. https passes as a tunnel, unseen; http as single requests.
What it guards against, and what not, is in `docs/egress.md`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import h11

from earthmap.catalog.addresses import split_member
from earthmap.connection import HANDED_ON
from earthmap.errors import JobError
from earthmap.service.addresses import Nameable
from earthmap.service.egress_counts import EgressCounter, EgressCounts
from earthmap.service.egress_gate import Gate
from earthmap.service.egress_heads import TELLINGS, Refused, Target
from earthmap.service.egress_reach import PIECE, EgressLimits, Reach, Resolve, look_up
from earthmap.service.egress_rules import EgressRules, Refusal
from earthmap.service.egress_talk import Talk
from earthmap.service.numbers import parse_host

_LOOK_UPS = 32


async def serve_egress(
    rules: EgressRules,
    *,
    gate: Gate | None = None,
    limits: EgressLimits | None = None,
    resolve: Resolve = look_up,
    counter: EgressCounter | None = None,
    ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve until cancelled; open connections then have `limits.grace_s` to end.

    Args:
        gate: where it listens, and who is let in; None for whoever is on this machine, on any port that is free.
        ready: hears the proxy's address when it listens.

    Raises:
        JobError: where nothing can listen there.
    """
    way = Reach(rules=rules, limits=limits or EgressLimits(), resolve=resolve)
    gate = gate or Gate()
    proxy = _Proxy(way, counter or EgressCounter(), gate)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_LOOK_UPS, thread_name_prefix="egress-names"))
    try:
        server = await asyncio.start_server(proxy.accept, gate.host, gate.port, limit=PIECE)
    except OSError as error:
        raise JobError(
            f"the egress proxy cannot listen on {gate.host}:{gate.port}: {error.strerror or error}",
            fix="choose another port, or end what listens there",
        ) from error
    ready(gate.address(*server.sockets[0].getsockname()[:2]))
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        server.close()
        await proxy.end()


@dataclass(frozen=True, slots=True, kw_only=True)
class Egress:
    """A proxy that runs in a thread of this process."""

    address: str = field(repr=False)
    """For HTTP_PROXY and HTTPS_PROXY; it may hold the proxy's secret."""
    counter: EgressCounter

    @property
    def counts(self) -> EgressCounts:
        """What passed and what did not, so far."""
        return self.counter.read()

    def environment(self, *, keys: bool = False) -> dict[str, str]:
        """As `proxied_environment`, for this proxy."""
        return proxied_environment(self.address, keys=keys)


def run_egress(rules: EgressRules, *, gate: Gate, ready: Callable[[str], None] = lambda address: None) -> EgressCounts:
    """Serve until this process is asked to end (SIGINT, SIGTERM); what was counted. For the main thread.

    Raises:
        JobError: where nothing can listen there.
    """
    counter = EgressCounter()

    async def work() -> None:
        task = asyncio.current_task()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, lambda: task and task.cancel())
        with contextlib.suppress(asyncio.CancelledError):
            await serve_egress(rules, gate=gate, counter=counter, ready=ready)

    asyncio.run(work())
    return counter.read()


def try_address(nameable: Nameable, address: str, *, resolve: Resolve = look_up) -> None:
    """Nothing, where a request may name `address` and a run may reach it; looks its name up, and connects to nothing.

    Raises:
        JobError: with what a user would be told.
    """
    nameable.check(address)
    member = split_member(address)
    parts = urlsplit(member.archive if member else address)
    if parts.scheme.lower() == "s3":
        return
    plain = parts.scheme.lower() == "http"
    port = parts.port or (80 if plain else 443)
    written = re.sub(r":\d*\Z", "", parts.netloc)
    target = Target(host=parse_host(written), port=port, shown=f"{written}:{port}", path=b"/" if plain else None)
    way = Reach(rules=nameable.rules, limits=EgressLimits(), resolve=resolve)
    try:
        asyncio.run(way.judge(target))
    except Refused as refused:
        raise JobError(
            f"{refused.what}: {refused.refusal}",
            expected="a name that stands for public numbers alone",
            fix=TELLINGS[refused.refusal].fix,
        ) from None


def proxied_environment(address: str, *, keys: bool = False) -> dict[str, str]:
    """The variables that lead `Connection.from_environment`, and any other client, through the proxy at `address`.

    No host is exempt. Who connects to a cluster with them hands them on to its workers.

    Args:
        keys: True where buckets are read with the keys of the service, so that each user may see all that they open.
    """
    proxied = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), address)
    direct = dict.fromkeys(("ALL_PROXY", "NO_PROXY"), "")
    both = proxied | direct
    others = {} if keys else {"AWS_NO_SIGN_REQUEST": "YES"}
    others["no_grpc_proxy"] = "localhost,0.0.0.0/0,::/0"  # Ray's own parts; no client of addresses speaks gRPC
    found = both | {name.lower(): value for name, value in both.items()} | others
    return found | {HANDED_ON: ",".join(sorted(found))}


@contextlib.contextmanager
def egress_thread(
    rules: EgressRules,
    *,
    gate: Gate | None = None,
    limits: EgressLimits | None = None,
    resolve: Resolve = look_up,
) -> Iterator[Egress]:
    """The proxy in a thread of its own, ready when the context is entered, ended when it is left.

    Raises:
        JobError: where nothing can listen there.
    """
    counter, ready = EgressCounter(), threading.Event()
    addresses: list[str] = []
    loop = asyncio.new_event_loop()

    def began(address: str) -> None:
        addresses.append(address)
        ready.set()

    serving = serve_egress(rules, gate=gate, limits=limits, resolve=resolve, counter=counter, ready=began)
    task = loop.create_task(serving)

    def work() -> None:
        loop.run_until_complete(asyncio.wait([task]))
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        ready.set()

    thread = threading.Thread(target=work, name="egress", daemon=True)
    thread.start()
    ready.wait()
    try:
        if task.done():
            task.result()
        yield Egress(address=addresses[0], counter=counter)
    finally:
        if not loop.is_closed():
            loop.call_soon_threadsafe(task.cancel)
        thread.join()


class _Proxy:
    """The connections of all clients."""

    def __init__(self, way: Reach, counter: EgressCounter, gate: Gate) -> None:
        self._way, self._counter, self._gate = way, counter, gate
        self._open: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one connection; those beyond the limit are told so, those far beyond it are dropped."""
        if len(self._open) >= 2 * self._way.limits.connections:
            self._counter.refused(Refusal.CONNECTIONS)
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._talk(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = Talk(self._way, self._counter, (reader, writer), gate=self._gate)
        try:
            if self._counter.connection(1) > self._way.limits.connections:
                await talk.refuse(Refused(Refusal.CONNECTIONS, "too many connections are open"))
            else:
                await talk.run()
        except (OSError, h11.ProtocolError):
            writer.transport.abort()  # cut short, so that nobody takes a part for the whole
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        finally:
            self._counter.connection(-1)
            writer.close()

    async def end(self) -> None:
        """Let open connections end by themselves for a while, then end them."""
        if self._open:
            await asyncio.wait(self._open, timeout=self._way.limits.grace_s)
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
