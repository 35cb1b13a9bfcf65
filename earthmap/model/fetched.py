"""Checkpoints on S3: copied to this machine once, and again when they have changed there."""

from __future__ import annotations

import fnmatch
import os
import tempfile
from pathlib import Path

from earthmap.content import content_key
from earthmap.errors import ModelError, StorageError
from earthmap.model.inspection import FIX
from earthmap.storage import Storage

FETCHED = ("*.json", "*.safetensors", "*.txt", "*.jinja")
"""What is fetched of a checkpoint that is elsewhere: no pickle, and no code."""


def fetch_checkpoint(address: str) -> Path:
    """The folder of a copy of the checkpoint at an `s3://` address.

    Copies stay in `earthmap/checkpoints` of the user's cache (XDG_CACHE_HOME), named by names, sizes and entity tags of
    the objects; they may be removed whenever no process loads one.

    Raises:
        ModelError: where there is none, it cannot be read, or there is no room for the copy.
    """
    storage = Storage(address)
    try:
        objects = [found for found in storage.entries() if _is_of_checkpoint(found[0])]
        if not objects:
            raise ModelError(f"there is no checkpoint at {address}", fix=FIX)
        folder = _copies() / content_key(objects)
        if not folder.is_dir():
            _copy(storage, [name for name, _, _ in objects], folder)
    except StorageError as error:
        raise ModelError(f"the checkpoint at {address} cannot be fetched: {error}", fix=FIX) from error
    except OSError as error:
        raise ModelError(
            f"the checkpoint at {address} cannot be copied: {error}",
            fix=f"make room in {_copies()}, or name another cache with XDG_CACHE_HOME",
        ) from error
    return folder


def _is_of_checkpoint(path: str) -> bool:
    return "/" not in path and any(fnmatch.fnmatchcase(path, pattern) for pattern in FETCHED)


def _copies() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "earthmap" / "checkpoints"


def _copy(storage: Storage, names: list[str], folder: Path) -> None:
    """Whole or not at all; who comes second leaves the copy of the first. Raises OSError, StorageError."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetching-", ignore_cleanup_errors=True) as scratch:
        for name in names:
            storage.read_file(name, Path(scratch) / name)
        try:
            Path(scratch).rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
