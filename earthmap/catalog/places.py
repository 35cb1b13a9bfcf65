"""The files behind the address of a catalogue: one document, or the stac-geoparquet files of a folder or pattern."""

from __future__ import annotations

import fnmatch
import glob
import re
from pathlib import Path
from typing import TYPE_CHECKING

from earthmap.catalog.documents import PARQUET, is_remote, local_path
from earthmap.errors import CatalogError

if TYPE_CHECKING:
    from earthmap.catalog.transport import CatalogIO

STARTS = ("catalog.json", "collection.json")
"""Documents that a static catalogue starts with."""

_PATTERN = re.compile(r"[*?\[]")


def documents_at(io: CatalogIO, address: str) -> list[str]:
    """The absolute path or address of each file that `address` stands for, sorted; never none.

    Raises:
        CatalogError: for a folder or pattern that holds no catalogue.
    """
    if address.startswith("s3://"):
        return _in_bucket(io, address)
    if is_remote(address):
        return [address]
    path = local_path(address)
    if path.is_dir():
        return _in_folder(path.resolve(), address)
    if not path.exists() and _PATTERN.search(str(path)):
        found = sorted(str(Path(name).resolve()) for name in glob.iglob(str(path), recursive=True))  # noqa: PTH207 (a pattern may be absolute)
        return found or _none(address)
    return [str(path.resolve())]


def _in_folder(folder: Path, address: str) -> list[str]:
    for name in STARTS:
        if (folder / name).is_file():
            return [str(folder / name)]
    return sorted(str(path) for path in folder.rglob("*") if path.suffix.lower() in PARQUET) or _none(address)


def _in_bucket(io: CatalogIO, address: str) -> list[str]:
    pattern = _PATTERN.search(address)
    if pattern:
        start = address[: pattern.start()].rpartition("/")[0]
        return [name for name in io.list_files(start) if fnmatch.fnmatchcase(name, address)] or _none(address)
    if not address.endswith("/"):
        return [address]
    names = io.list_files(address)
    starts = [address + name for name in STARTS if address + name in names][:1]
    return starts or [name for name in names if name.lower().endswith(PARQUET)] or _none(address)


def _none(address: str) -> list[str]:
    raise CatalogError(
        f"{address} holds no catalogue",
        expected="a catalog.json, a collection.json or stac-geoparquet files",
        fix="give the catalogue's file itself",
    )
