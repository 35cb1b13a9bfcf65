"""Who holds a run folder: one execution at a time, by a lease that is renewed while it works.

Executions are numbered from 1 by files created only if absent, `lease/000001.json`, so two that start together can
not both have a number. The holder renews `lease/000001.beat`; a lease is over when its holder says so, when its
process is gone from this machine, or when it was not renewed for `EXPIRY_S`.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from earthmap.errors import RunFolderError, StorageError
from earthmap.storage import Storage

RENEW_S = 5.0
EXPIRY_S = 30.0


def _process_start() -> str:
    """When this process started, in the kernel's ticks: tells it from a later process with the same id."""
    try:
        return Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""


def _is_gone(holder: dict[str, Any]) -> bool:
    """True where the holder was a process of this machine that is no more."""
    if holder.get("host") != socket.gethostname():
        return False
    try:
        stat = Path(f"/proc/{int(holder['pid'])}/stat").read_text()
    except FileNotFoundError:
        return Path("/proc/self/stat").exists()
    except (OSError, KeyError, ValueError):
        return False
    fields = stat.rsplit(")", 1)[1].split()
    return fields[0] == "Z" or fields[19] != holder.get("process_start")


@dataclass(slots=True)
class Lease:
    """The right to write a run folder, as a context manager; `execution` is its number.

    Raises:
        RunFolderError: on entry, while another execution holds the folder.
    """

    storage: Storage
    execution: int = 0
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)
    _thread: threading.Thread | None = field(default=None, repr=False)

    def __enter__(self) -> Self:
        held = self._last()
        if held is not None and self._is_live(held):
            raise self._refusal(held)
        self.execution = (held or 0) + 1
        holder = {"host": socket.gethostname(), "pid": os.getpid(), "process_start": _process_start()}
        if not self.storage.create(self._path("json"), json.dumps({**holder, "since": time.time()}).encode()):
            raise self._refusal(self.execution)
        self._beat()
        self._thread = threading.Thread(target=self._renew, name="earthmap-lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        try:
            self.storage.write(self._path("released"), b"")
        except StorageError:
            if error is None:
                raise  # else the error under way matters more, and the lease runs out by itself

    def _path(self, suffix: str, execution: int | None = None) -> str:
        return f"lease/{execution or self.execution:06d}.{suffix}"

    def _last(self) -> int | None:
        numbers = [re.fullmatch(r"lease/(\d+)\.json", path) for path in self.storage.list("lease")]
        return max((int(match[1]) for match in numbers if match), default=None)

    def _is_live(self, execution: int) -> bool:
        if self.storage.exists(self._path("released", execution)):
            return False
        if _is_gone(json.loads(self.storage.read(self._path("json", execution)))):
            return False
        try:
            beat = float(self.storage.read(self._path("beat", execution)))
        except (FileNotFoundError, ValueError):
            beat = json.loads(self.storage.read(self._path("json", execution)))["since"]
        return time.time() - beat < EXPIRY_S

    def _refusal(self, execution: int) -> RunFolderError:
        holder = json.loads(self.storage.read(self._path("json", execution)))
        return RunFolderError(
            f"{self.storage.address} is being written by another run (process {holder['pid']} on {holder['host']})",
            fix=f"wait for it, stop it, or give another --out; if it died, its hold ends within {EXPIRY_S:g} s",
        )

    def _beat(self) -> None:
        self.storage.write(self._path("beat"), repr(time.time()).encode())

    def _renew(self) -> None:
        while not self._stop.wait(RENEW_S):
            try:
                self._beat()
            except StorageError:
                continue  # a full disk shows where results are written; the next beat may pass
