"""Checkpoints on S3: copies of those of this machine, manifest last, and fetched again whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from earthmap.errors import StorageError
from earthmap.training.checkpoints import KEPT, MANIFEST, newest_checkpoint

if TYPE_CHECKING:
    from earthmap.storage import Storage


def upload_folder(folder: Path, storage: Storage, *, last: str | None = None) -> None:
    """Write all files of `folder`, `last` after all others. Raises StorageError where one cannot be written."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in sorted(files, key=lambda path: path.name == last and path.parent == folder):
        storage.write_file(path.relative_to(folder).as_posix(), path)


def upload_checkpoint(place: Path, storage: Storage) -> str:
    """Write the checkpoint at `place` below `storage`, under its own name; returns its address.

    Older ones than KEPT go when it is whole.

    Raises:
        StorageError: where it cannot be written; those before it stay.
    """
    storage.clear(place.name)
    upload_folder(place, storage.sub(place.name), last=MANIFEST)
    for older in _names(storage)[:-KEPT]:
        storage.clear(older)
    return storage.locate(place.name)


def fetch_newest(storage: Storage, folder: Path) -> Path | None:
    """A copy in `folder` of the newest whole checkpoint below `storage`; None where there is none.

    Raises:
        StorageError: where the storage cannot be read.
    """
    for name in reversed(_names(storage)):
        copy = folder / name
        if not storage.exists(f"{name}/{MANIFEST}"):
            continue
        try:
            for path in storage.list(name):
                file = folder / path
                file.parent.mkdir(parents=True, exist_ok=True)
                storage.read_file(path, file)
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            raise StorageError(f"{storage.locate(name)} cannot be copied to {folder}: {error}") from error
        if newest_checkpoint(folder) == copy:
            return copy
        shutil.rmtree(copy)
    return None


def _names(storage: Storage) -> list[str]:
    """The checkpoints below `storage`, whole or not, by step."""
    return sorted({path.partition("/")[0] for path in storage.list() if path.startswith("step-")})
