"""A process that is asked to end does so in order."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from earthmap.operate.stopping import ending_in_order

HOLD = """
import sys, time
from earthmap.operate.stopping import ending_in_order
from earthmap.pipeline.lease import Lease
from earthmap.storage import Storage
try:
    with ending_in_order(), Lease(Storage(sys.argv[1])):
        print("held", flush=True)
        time.sleep(60)
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_a_lease_is_given_back(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, cwd=tmp_path
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 130
    process.stdout.close()
    assert time.monotonic() - started < 10
    assert (tmp_path / "run/lease/000001.released").exists()


def test_the_handler_of_another_is_put_back() -> None:
    former = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), ending_in_order():
        signal.raise_signal(signal.SIGTERM)
    with ending_in_order():
        pass
    assert signal.getsignal(signal.SIGTERM) == former


def test_it_is_what_ctrl_c_would_be() -> None:
    heard: list[int] = []
    former = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        with pytest.raises(KeyboardInterrupt), ending_in_order():
            signal.raise_signal(signal.SIGTERM)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with pytest.raises(KeyboardInterrupt), ending_in_order():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGINT, former)
    assert heard == [signal.SIGINT]


def test_what_ray_makes_of_it_is_the_same() -> None:
    with pytest.raises(KeyboardInterrupt), ending_in_order():
        sys.exit(signal.SIGTERM)


def test_other_ends_pass() -> None:
    with pytest.raises(SystemExit, match="3"), ending_in_order():
        sys.exit(3)


def test_in_another_thread_signals_are_left_alone() -> None:
    seen: list[object] = []

    def work() -> None:
        with ending_in_order():
            seen.append(signal.getsignal(signal.SIGTERM))

    former = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [former]
