"""A disk so small that it fills up, for tests that may mount one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def _mount(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["mount", *words], capture_output=True, text=True, timeout=20, check=False)


@contextmanager
def mounted(folder: Path, *, size: str) -> Iterator[Path]:
    """`folder`, made here, as a disk of `size` (of tmpfs: 4500k, 1m); skips the test where nothing may be mounted."""
    folder.mkdir()
    done = _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], timeout=20, check=True)


def enlarge(disk: Path, *, size: str) -> None:
    """Make room on a mounted disk."""
    done = _mount("-o", f"remount,size={size}", str(disk))
    assert done.returncode == 0, done.stderr
