"""One execution at a time holds a run folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from earthmap.errors import RunFolderError
from earthmap.pipeline import lease as lease_module
from earthmap.pipeline.lease import Lease
from earthmap.storage import Storage


def test_executions_are_numbered(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    for expected in (1, 2, 3):
        with Lease(storage) as lease:
            assert lease.execution == expected


def test_a_held_folder_is_refused_and_says_by_whom(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    with (
        Lease(storage),
        pytest.raises(RunFolderError, match=f"process {os.getpid()} .*to fix: wait for it"),
        Lease(storage),
    ):
        pass


def test_an_error_releases(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    with pytest.raises(ZeroDivisionError), Lease(storage):
        raise ZeroDivisionError
    with Lease(storage) as lease:
        assert lease.execution == 2


def test_of_many_at_once_one_wins(tmp_path: Path) -> None:
    storage = Storage(tmp_path)

    def take(_: int) -> int:
        try:
            with Lease(storage) as lease:
                time.sleep(0.3)
                return lease.execution
        except RunFolderError:
            return 0

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(take, range(8))) == [0] * 7 + [1]


_HOLD = """
import sys, time
from earthmap.pipeline.lease import Lease
from earthmap.storage import Storage
with Lease(Storage(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_holder_frees_the_folder_at_once(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(RunFolderError), Lease(Storage(tmp_path)):
            pass
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        with Lease(Storage(tmp_path)) as lease:
            assert lease.execution == 2
    finally:
        holder.kill()
        holder.wait()
        assert holder.stdout is not None
        holder.stdout.close()


def _leave_foreign_lease(folder: Path, age_s: float) -> None:
    holder = {"host": "another-machine", "pid": 1, "process_start": "1", "since": time.time() - age_s}
    storage = Storage(folder)
    storage.write("lease/000001.json", json.dumps(holder).encode())
    storage.write("lease/000001.beat", repr(time.time() - age_s).encode())


def test_a_holder_elsewhere_counts_until_its_lease_expires(tmp_path: Path) -> None:
    _leave_foreign_lease(tmp_path, age_s=1)
    with pytest.raises(RunFolderError, match="another-machine"), Lease(Storage(tmp_path)):
        pass
    _leave_foreign_lease(tmp_path, age_s=lease_module.EXPIRY_S + 1)
    with Lease(Storage(tmp_path)) as lease:
        assert lease.execution == 2


def test_the_lease_is_renewed_while_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "RENEW_S", 0.05)
    storage = Storage(tmp_path)
    with Lease(storage):
        first = float(storage.read("lease/000001.beat"))
        deadline = time.monotonic() + 5
        while float(storage.read("lease/000001.beat")) == first and time.monotonic() < deadline:
            time.sleep(0.02)
        assert float(storage.read("lease/000001.beat")) > first
