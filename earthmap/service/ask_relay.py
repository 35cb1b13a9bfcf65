"""The service's end of the process that passes questions on to the workers of a cluster.

It starts with the first question. When it ends, because the cluster was lost or anything else, who waits is told to ask
again, and the next question starts it anew.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import itertools
import json
import logging
import os
import pickle
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from earthmap.errors import EarthmapError
from earthmap.service.asking import AT_ONCE, Asked, BusyError

if TYPE_CHECKING:
    from earthmap.service.replicas import ReplicaOptions

COMMAND = (sys.executable, "-m", "earthmap.service.ask_workers")

WORKERS = 2
"""Where the operator does not say."""

GRACE_S = 10.0
"""What the process may take to end before it is killed."""

MAX_LINE = 64_000_000
"""Bytes of a reply."""

_TAIL_BYTES = 2_000

_log = logging.getLogger("earthmap.service")


class DefectError(Exception):
    """What a worker raised and should not have."""


@dataclass(slots=True)
class _Child:
    """The process, and who waits for what it tells."""

    process: asyncio.subprocess.Process
    errors: IO[bytes]
    ready: asyncio.Future[None]
    waiting: dict[int, asyncio.Future[dict[str, Any]]] = field(default_factory=dict)
    is_over: bool = False

    def say(self, line: Mapping[str, Any]) -> None:
        """Tell it; nothing where it is gone."""
        if self.process.stdin is not None and not self.process.stdin.is_closing():
            self.process.stdin.write(json.dumps(line).encode() + b"\n")

    async def listen(self) -> None:
        """Take in what it tells until it ends; then nobody waits any longer."""
        told = self.process.stdout
        try:
            while told is not None and (line := await told.readline()):
                self._take(json.loads(line))
        finally:
            self.is_over = True
            gone = BusyError("the process that passes questions on has ended")
            waiting: list[asyncio.Future[Any]] = [self.ready, *self.waiting.values()]
            for future in waiting:
                if not future.done():
                    future.set_exception(gone)
            self.waiting.clear()

    def _take(self, told: Mapping[str, Any]) -> None:
        if "ready" in told:
            if not self.ready.done():  # else the service has ended meanwhile
                self.ready.set_result(None)
            return
        future = self.waiting.pop(told["number"], None)
        if future is None or future.done():
            return  # nobody waits for it
        if "reply" in told:
            future.set_result(told["reply"])
        elif "error" in told:
            future.set_exception(pickle.loads(base64.b64decode(told["error"])))
        else:
            future.set_exception(BusyError(told["busy"]) if "busy" in told else DefectError(told["defect"]))


class Relay:
    """Answers by workers of a cluster (`earthmap.service.asking.Answering`)."""

    def __init__(
        self,
        address: Callable[[], str],
        *,
        workers: int = WORKERS,
        queued: int = AT_ONCE,
        replicas: ReplicaOptions | None = None,
        command: Sequence[str] = COMMAND,
    ) -> None:
        """`address` is asked, in a thread, where the cluster is; `replicas` are those of a model that a job trained;
        `command` starts the process."""
        self._address, self._command = address, tuple(command)
        options = dataclasses.asdict(replicas) if replicas is not None else {}
        self._settings = {"workers": workers, "queued": queued, "replicas": options}
        self._numbers = itertools.count(1)
        self._starting: asyncio.Task[_Child] | None = None
        self._listening: list[asyncio.Task[None]] = []

    async def answer(self, asked: Asked) -> dict[str, Any]:
        """The reply. Raises EarthmapError, and BusyError where the workers are gone, or have too much to do."""
        child = await self._there()
        number = next(self._numbers)
        future = asyncio.get_running_loop().create_future()
        child.waiting[number] = future
        child.say({"number": number, "asked": dataclasses.asdict(asked)})
        try:
            reply: dict[str, Any] = await future
            return reply
        finally:
            if child.waiting.pop(number, None) is not None:
                child.say({"number": number})  # nobody waits any longer

    async def close(self) -> None:
        """End the process, and wait until it has ended."""
        if self._starting is None:
            return
        self._starting.cancel()
        with contextlib.suppress(asyncio.CancelledError, BusyError):
            await _end((await self._starting).process)
        await asyncio.gather(*self._listening)

    async def _there(self) -> _Child:
        """The process, started where there is none; who no longer waits for that does not stop it."""
        over = self._starting is not None and self._starting.done()
        if over and self._starting is not None:
            over = self._starting.exception() is not None or self._starting.result().is_over
        if self._starting is None or over:
            self._starting = asyncio.create_task(self._start())
        return await asyncio.shield(self._starting)

    async def _start(self) -> _Child:
        try:
            address = await asyncio.to_thread(self._address)
        except EarthmapError as error:
            raise BusyError(str(error)) from error
        spawning = asyncio.create_task(self._spawn())
        try:
            child = await asyncio.shield(spawning)
            child.say({"address": address, **self._settings})
            await child.ready
        except asyncio.CancelledError:
            await _end((await spawning).process)
            raise
        return child

    async def _spawn(self) -> _Child:
        errors = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the process)
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *self._command, stdin=pipe, stdout=pipe, stderr=errors, limit=MAX_LINE, start_new_session=True
        )
        child = _Child(process, errors, asyncio.get_running_loop().create_future())
        self._listening = [one for one in self._listening if not one.done()]
        self._listening.append(asyncio.create_task(_look_after(child)))
        return child


async def _look_after(child: _Child) -> None:
    """Hear the process until it has ended, and say so in the log where it should not have."""
    await child.listen()
    code = await child.process.wait()
    if code != 0:
        size = child.errors.seek(0, os.SEEK_END)
        child.errors.seek(max(0, size - _TAIL_BYTES))
        tail = child.errors.read().decode("utf-8", errors="replace")
        _log.error("the process that passes questions on ended with code %s: %s", code, tail)
    child.errors.close()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Let it end by the end of its input; kill it where it does not."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), GRACE_S)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
