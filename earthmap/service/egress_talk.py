"""One connection of a client to the egress proxy: its requests, one after the other, each checked by itself."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable

import h11

from earthmap.service.egress_counts import EgressCounter
from earthmap.service.egress_gate import Gate
from earthmap.service.egress_heads import (
    Refused,
    Target,
    answer_onward,
    body_bytes,
    parse_target,
    refusal_answer,
    request_onward,
)
from earthmap.service.egress_reach import PIECE, Reach, Streams
from earthmap.service.egress_rules import Refusal

_LINGER_S, _LINGER_BYTES = 0.5, 2**16
_LOG = logging.getLogger(__name__)


class Talk:
    """One connection of a client: its requests, one after the other, each checked by itself."""

    def __init__(self, way: Reach, counter: EgressCounter, streams: Streams, *, gate: Gate) -> None:
        self._reader, self._writer = streams
        self._way, self._limits, self._counter, self._gate = way, way.limits, counter, gate
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.head_bytes)
        self._is_head = False

    async def run(self) -> None:
        """All requests, until either side ends or one is refused."""
        try:
            while (request := await self._request()) is not None:
                self._is_head = request.method == b"HEAD"
                if not self._gate.lets_in(request.headers):
                    raise Refused(Refusal.STRANGER, "this proxy is for those who know its password")
                if (request.method, request.target) == (b"GET", b"/metrics"):
                    await self._tell_counts()
                    return
                target = parse_target(request)
                if not target.is_plain:
                    await self._tunnel(target)
                    return
                await self._forward(request, target)
                if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                    return
                self._http.start_next_cycle()
        except Refused as refused:
            await self.refuse(refused)

    async def _request(self) -> h11.Request | None:
        """The head of the next request; None where there is none. Raises Refused for one that is none."""
        try:
            async with asyncio.timeout(self._limits.head_s):
                event = await _next_event(self._http, self._reader, head_bytes=self._limits.head_bytes)
        except TimeoutError:
            if not self._http.trailing_data[0]:
                return None  # nothing was begun
            raise Refused(Refusal.TOO_SLOW, "the request did not come in time") from None
        except h11.RemoteProtocolError as error:
            large = error.error_status_hint == 431
            what = "the head of the request is too large" if large else "the request is not HTTP/1.1"
            raise Refused(Refusal.TOO_LARGE if large else Refusal.MALFORMED, what) from None
        return event if isinstance(event, h11.Request) else None

    async def _body(self, request: h11.Request) -> bytes:
        """The whole body, before anybody is asked. Raises Refused."""
        pieces: list[bytes] = []
        body_bytes(request)
        try:
            async with asyncio.timeout(self._limits.head_s):
                while isinstance(event := await _next_event(self._http, self._reader), h11.Data):
                    pieces.append(bytes(event.data))
        except TimeoutError:
            raise Refused(Refusal.TOO_SLOW, "the body did not come in time") from None
        except h11.RemoteProtocolError:
            raise Refused(Refusal.MALFORMED, "the body is not what its head says") from None
        return b"".join(pieces)

    async def refuse(self, refused: Refused) -> None:
        """Tell the client why, and end; nothing more that it sent is read as a request."""
        self._counter.refused(refused.refusal)
        _LOG.info("refused %s: %s%s", refused.refusal, refused.what, f" ({refused.address})" * bool(refused.address))
        answer, text = refusal_answer(refused)
        async with asyncio.timeout(self._limits.head_s):
            for event in (answer, h11.Data(data=b"" if self._is_head else text), h11.EndOfMessage()):
                self._writer.write(self._http.send(event) or b"")
            await self._writer.drain()
            with contextlib.suppress(TimeoutError):
                await self._linger()

    async def _tell_counts(self) -> None:
        """What Prometheus asks the proxy itself."""
        text = self._counter.read().metrics().encode()
        kind = ("Content-Type", "text/plain; version=0.0.4")
        answer = h11.Response(
            status_code=200, headers=[kind, ("Content-Length", str(len(text))), ("Connection", "close")]
        )
        async with asyncio.timeout(self._limits.head_s):
            for event in (answer, h11.Data(data=text), h11.EndOfMessage()):
                self._writer.write(self._http.send(event) or b"")
            await self._writer.drain()

    async def _linger(self) -> None:
        """Read on for a moment: a connection that is closed with unread bytes is reset, and its answer lost."""
        self._writer.write_eof()
        left = _LINGER_BYTES
        async with asyncio.timeout(_LINGER_S):
            while left > 0 and (piece := await self._reader.read(left)):
                left -= len(piece)

    async def _tunnel(self, target: Target) -> None:
        """Bytes both ways, unseen, until both sides have ended."""
        streams = await self._way.open(target)
        self._counter.allowed()
        try:
            self._writer.write(self._http.send(h11.Response(status_code=200, headers=[], reason="Connected")) or b"")
            early = self._http.trailing_data[0]
            streams[1].write(early)
            self._counter.carried(up=len(early))
            async with asyncio.timeout(self._limits.whole_s), asyncio.timeout(self._limits.idle_s) as idle:
                await _both(
                    self._pump(self._reader, streams[1], idle, up=True), self._pump(streams[0], self._writer, idle)
                )
        finally:
            streams[1].transport.abort()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, idle: asyncio.Timeout, *, up: bool = False
    ) -> None:
        """All bytes one way, and then its end, which leaves the other way open."""
        while piece := await source.read(PIECE):
            self._stir(idle)
            self._counter.carried(**{"up" if up else "down": len(piece)})
            sink.write(piece)
            await sink.drain()
        sink.write_eof()

    def _stir(self, idle: asyncio.Timeout) -> None:
        idle.reschedule(asyncio.get_running_loop().time() + self._limits.idle_s)

    async def _forward(self, request: h11.Request, target: Target) -> None:
        """One request in plain http over a connection of its own, and its answer."""
        body = await self._body(request)
        streams = await self._way.open(target)
        self._counter.allowed()
        try:
            async with asyncio.timeout(self._limits.whole_s), asyncio.timeout(self._limits.idle_s) as idle:
                upstream = await self._ask(streams[1], request_onward(request, target, len(body)), body)
                await self._answer(upstream, streams[0], idle)
        except TimeoutError:
            if self._http.our_state is not h11.SEND_RESPONSE:
                raise
            raise Refused(Refusal.UNREACHABLE, f"{target.shown} does not answer in time") from None
        finally:
            streams[1].transport.abort()

    async def _ask(self, writer: asyncio.StreamWriter, request: h11.Request, body: bytes) -> h11.Connection:
        upstream = h11.Connection(h11.CLIENT, max_incomplete_event_size=self._limits.head_bytes)
        for event in (request, *([h11.Data(data=body)] if body else []), h11.EndOfMessage()):
            writer.write(upstream.send(event) or b"")
        await writer.drain()
        self._counter.carried(up=len(body))
        return upstream

    async def _answer(self, upstream: h11.Connection, reader: asyncio.StreamReader, idle: asyncio.Timeout) -> None:
        """The answer, piece by piece. Raises Refused where its head is none; what breaks later is cut."""
        try:
            most = self._limits.head_bytes
            while isinstance(event := await _next_event(upstream, reader, head_bytes=most), h11.InformationalResponse):
                self._stir(idle)
            if not isinstance(event, h11.Response):
                raise h11.RemoteProtocolError("no answer")
            head = self._http.send(answer_onward(event))
        except (h11.ProtocolError, OSError):
            raise Refused(Refusal.BROKEN_ANSWER, "the host gives no answer of HTTP/1.1") from None
        self._writer.write(head or b"")
        while not isinstance(event := await _next_event(upstream, reader), h11.EndOfMessage):
            if not isinstance(event, h11.Data):
                raise h11.RemoteProtocolError("broken off")
            self._stir(idle)
            self._counter.carried(down=len(event.data))
            self._writer.write(self._http.send(event) or b"")
            await self._writer.drain()
        self._writer.write(self._http.send(h11.EndOfMessage()) or b"")
        await self._writer.drain()


_Event = h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]


async def _next_event(http: h11.Connection, reader: asyncio.StreamReader, *, head_bytes: int | None = None) -> _Event:
    """The next event of a connection, with as many bytes as it needs. Raises RemoteProtocolError for what is none."""
    while (event := http.next_event()) is h11.NEED_DATA:
        # h11 limits only what is still incomplete: a head that comes at once is limited by reading no more than that.
        most = PIECE if head_bytes is None else head_bytes + 1 - len(http.trailing_data[0])
        http.receive_data(await reader.read(most))
    return event


async def _both(one: Awaitable[None], other: Awaitable[None]) -> None:
    """Both, or neither: where one fails the other is ended too."""
    tasks = [asyncio.ensure_future(one), asyncio.ensure_future(other)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
