"""Work in a process of its own costs nothing but itself."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from earthmap.errors import IsolatedError, ReadError
from earthmap.pipeline.isolation import Limits, isolated

LIMITS = Limits(seconds=30)


def _fail() -> None:
    raise ReadError("the file is damaged", address="a.tif", reason="damaged")


def _grab() -> int:
    return len(bytearray(6 * 2**30))


def test_the_value_comes_back() -> None:
    value = isolated(partial(np.full, (3, 2), 7.0, np.float32), LIMITS)
    np.testing.assert_array_equal(value, np.full((3, 2), 7.0, np.float32))


def test_it_is_another_process() -> None:
    assert isolated(os.getpid, LIMITS) != os.getpid()


def test_its_errors_come_back_whole() -> None:
    with pytest.raises(ReadError, match="the file is damaged") as caught:
        isolated(_fail, LIMITS)
    assert (caught.value.address, caught.value.reason) == ("a.tif", "damaged")


def test_an_abort_is_an_error_here() -> None:
    with pytest.raises(IsolatedError, match="signal 6") as caught:
        isolated(os.abort, LIMITS)
    assert caught.value.reason == "crashed"


def test_what_never_ends_is_ended() -> None:
    started = time.monotonic()
    with pytest.raises(IsolatedError) as caught:
        isolated(partial(time.sleep, 600), Limits(seconds=3))
    assert caught.value.reason == "timeout"
    assert time.monotonic() - started < 20


def test_what_takes_too_much_memory_is_ended() -> None:
    with pytest.raises(IsolatedError) as caught:
        isolated(_grab, Limits(memory_bytes=4 * 2**30))
    assert caught.value.reason == "memory"


def test_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    isolated(os.getpid, LIMITS)
    with pytest.raises(IsolatedError):
        isolated(os.abort, LIMITS)
    assert list(tmp_path.iterdir()) == []
