"""A question to a process of its own, which may crash, hang or start other processes, and leaves none behind.

`earthmap.pipeline.isolation` is for work that returns: it waits until all who hold its pipes are gone, and a Ray that
was started there holds them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from earthmap.errors import IsolatedError

_MARK = "EARTHMAP_CHECKUP"
"""Environment variable by which what a child started is known again."""

_PRELUDE = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG: ends when who asks is killed
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
del sys.argv[1]
"""

_END_S = 10.0
"""Longest wait until all that a child started is gone."""


class Child:
    """Python code in a fresh interpreter, whose last line on standard output is a JSON object.

    It starts on entry and is ended on leaving, with all that it started.

    Example:
        >>> with Child("import json; print(json.dumps({'sum': 1 + 2}))", seconds=30) as child:
        ...     child.answer()
        {'sum': 3}
    """

    def __init__(self, code: str, *arguments: str, seconds: float) -> None:
        self.code, self.arguments, self.seconds = code, arguments, seconds
        self._mark = uuid.uuid4().hex
        self._folder = tempfile.TemporaryDirectory(prefix="earthmap-")
        self._started = 0.0

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        command = [sys.executable, "-P", "-c", _PRELUDE + self.code, str(os.getpid()), *self.arguments]
        with self._path("out").open("wb") as out, self._path("err").open("wb") as err:  # a pipe would wait for heirs
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, _MARK: self._mark},
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end, until = {self._process.pid}, time.monotonic() + _END_S
        while end and time.monotonic() < until:
            self._end(end)
            self._process.poll()
            end = _marked(self._mark)
        self._process.wait()
        self._folder.cleanup()

    def answer(self) -> dict[str, Any]:
        """What the code wrote.

        Raises:
            IsolatedError: when it died, wrote nothing, or took longer than it may.
        """
        left = self.seconds - (time.monotonic() - self._started)
        try:
            status = self._process.wait(max(left, 0.01))
        except subprocess.TimeoutExpired:
            raise IsolatedError(f"no answer within {self.seconds:g} s", reason="timeout") from None
        lines = self._path("out").read_text(errors="replace").strip().splitlines()
        try:
            found = json.loads(lines[-1])
        except (IndexError, ValueError):
            said = self._path("err").read_text(errors="replace").strip().splitlines()
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
            last = f": {said[-1][:300]}" if said else ""
            raise IsolatedError(f"the process ended with {how}{last}", reason="crashed") from None
        if not isinstance(found, dict):
            raise IsolatedError(f"the process said {lines[-1][:100]}", reason="crashed")
        return found

    def _path(self, name: str) -> Path:
        return Path(self._folder.name) / name

    def _end(self, first: set[int]) -> None:
        own = os.getpid()
        for pid in (first if self._process.returncode is None else set()) | _marked(self._mark):
            if pid != own:
                try:
                    os.kill(pid, signal.SIGKILL)
                except (ProcessLookupError, PermissionError):
                    continue
        time.sleep(0.02)


def _marked(mark: str) -> set[int]:
    """The processes that run and carry the mark, and those that descend from them: some overwrite their environment."""
    wanted, parents, marked = f"{_MARK}={mark}".encode(), dict[int, int](), set[int]()
    for pid, parent in _running():
        parents[pid] = parent
        try:
            if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                marked.add(pid)
        except OSError:
            continue
    while heirs := {pid for pid, parent in parents.items() if parent in marked and pid not in marked}:
        marked |= heirs
    return marked


def _running() -> Iterator[tuple[int, int]]:
    """Ids of the processes that run, with that of their parent; none where there is no /proc."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(errors="replace").rsplit(")", 1)[1].split()
        except OSError:
            continue
        if fields[0] != "Z":
            yield int(path.parent.name), int(fields[1])
