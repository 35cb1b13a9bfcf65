"""The files behind what a user named: single files, folders, archives, addresses; with what tells their versions apart.

A scan looks at names, sizes and times only. Links to folders are followed once, so that a circle of them ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from earthmap.catalog.addresses import REMOTE, archive_kind, member_address
from earthmap.catalog.archives import list_members
from earthmap.connection import Connection
from earthmap.content import content_key
from earthmap.errors import CatalogError, ReadError

RASTERS = (".tif", ".tiff", ".jp2", ".png", ".jpg", ".jpeg")
"""Endings of files that may be images."""

SERIES = (".nc", ".nc4")
"""Endings of files that may be time series."""

METADATA = re.compile(
    r"(?:^|/)(?:MTD_\w+\.xml|manifest\.safe|[^/]*_MTL\.(?:json|txt|xml)|(?:annotation|calibration)/.+\.xml)$", re.I
)
"""Files that say what images are: Sentinel's and Landsat's metadata."""

_OTHER_IMAGES = (
    ".h5",
    ".hdf",
    ".vrt",
    ".img",
    ".ecw",
    ".sid",
    ".grib",
    ".grb2",
    ".zarr",
    ".gz",
    ".tgz",
    ".tbz",
    ".tbz2",
    ".txz",
    ".bz2",
    ".xz",
    ".zst",
    ".7z",
    ".rar",
)
"""Endings that people expect to be read here and that are not."""

_COMPRESSED = re.compile(r"\.(?:tgz|tbz2?|txz|tar\.(?:gz|bz2|xz|zst|z))$", re.IGNORECASE)
_UNPACK = "a compressed tar has no index to read parts of it by: unpack it (tar -xf) and give the folder"

MAX_FILES = 200_000
"""Files that a scan looks at."""

MAX_DEPTH = 32
_HASHED = 65_536
_APPENDED = (".aux.xml", ".ovr", ".msk")
_REPORTED = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFile:
    """One file that may be an image, or say what images are."""

    address: str
    """Absolute path, address, or a member of an archive."""
    name: str
    """Its path from above the folder or archive that was named, with slashes."""
    stamp: str
    """What tells this version of the file from another."""
    named: bool
    """True where the user named this very file."""
    date: str | None = None
    """When it was taken, where the user says so."""

    @property
    def folder(self) -> str:
        """The part of `name` before the last slash."""
        return self.name.rpartition("/")[0]

    @property
    def stem(self) -> str:
        """The file's own name without its ending."""
        return self.name.rpartition("/")[2].rpartition(".")[0]

    @property
    def is_raster(self) -> bool:
        """True where its ending is that of an image."""
        return self.name.lower().endswith(RASTERS)

    @property
    def is_series(self) -> bool:
        """True where its ending is that of a time series."""
        return self.name.lower().endswith(SERIES)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A file that becomes no image, and why."""

    address: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """All files behind what was named."""

    files: tuple[FoundFile, ...] = field(repr=False)
    left_out: tuple[LeftOut, ...] = ()

    def content_key(self) -> str:
        """Depends on where the files are and on their versions."""
        return content_key([(file.address, file.stamp, file.date) for file in self.files])


def list_images(paths: Sequence[str], *, say: Callable[[str], None] | None = None) -> Listing:
    """Every file behind `paths`: files, folders, zips, tars, http(s) and s3 addresses, with `@DATE` behind or not.

    `say` hears of scans that take long.

    Raises:
        CatalogError: for a path where there is nothing, an archive that cannot be read, and a folder without end.
    """
    scan = _Scan(say or (lambda text: None))
    for text in paths:
        scan.add(*split_date(text))
    once = {file.address: file for file in reversed(scan.files)}
    files = sorted(once.values(), key=lambda file: file.address)
    return Listing(files=tuple(files), left_out=tuple(sorted(scan.left_out, key=lambda one: one.address)))


def split_date(text: str) -> tuple[str, str | None]:
    """What is before and behind the last `@` where a date or time is behind it.

    Example:
        >>> split_date("after.tif@2011-05-24"), split_date("me@home.tif")
        (('after.tif', '2011-05-24'), ('me@home.tif', None))
    """
    match = re.fullmatch(r"(.+)@(\d{4}(?:-\d\d){0,2}(?:T[\d:.]+(?:Z|[+-]\d\d:\d\d)?)?)", text, re.DOTALL)
    return (match[1], match[2]) if match else (text, None)


class _Scan:
    """What was found so far."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.files: list[FoundFile] = []
        self.left_out: list[LeftOut] = []
        self._say = say
        self._seen: set[tuple[int, int]] = set()
        self._count = 0

    def add(self, text: str, date: str | None) -> None:
        """Look at one path or address that the user named."""
        if text.startswith(REMOTE):
            self._add_remote(text, date)
            return
        path = Path(text.removeprefix("file://")).expanduser().absolute()
        if path.is_file() and METADATA.search(path.name):
            path = path.parent  # a product is named by its metadata
        if path.is_dir():
            self._add_folder(path, path.name, date)
        elif path.is_file():
            self._add_file(path, f"{path.parent.name}/{path.name}", date, named=True)
        else:
            raise CatalogError(
                f"there is no image {text}",
                expected="a file, a folder, a zip or tar, or an http(s) or s3 address",
                fix="check the path; a date is written behind it as image.tif@2024-05-04",
            )

    def _add_remote(self, address: str, date: str | None) -> None:
        if archive_kind(address):
            self._add_archive(address, re.split(r"[?#]", address)[0].rpartition("/")[2], date)
            return
        clean = re.split(r"[?#]", address)[0].split("://", 1)[1]
        if _COMPRESSED.search(clean):
            raise CatalogError(
                f"{address} cannot be read: {_UNPACK}", expected="a zip, or a tar that is not compressed"
            )
        self.files.append(FoundFile(address=address, name=clean, stamp=_remote_stamp(address), named=True, date=date))

    def _add_folder(self, folder: Path, name: str, date: str | None) -> None:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in self._seen:
            return
        self._seen.add((status.st_dev, status.st_ino))
        if name.count("/") > MAX_DEPTH:
            self.left_out.append(LeftOut(address=str(folder), why=f"it lies more than {MAX_DEPTH} folders deep"))
            return
        for entry in self._entries(folder):
            self._count_one(folder)
            below = f"{name}/{entry.name}"
            if not entry.name.isprintable():
                self.left_out.append(LeftOut(address=ascii(entry.path), why="its name cannot be printed"))
            elif Path(entry.path).is_dir():  # unlike the entry, quiet about a link to itself
                self._add_folder(Path(entry.path), below, date)
            elif Path(entry.path).is_file():
                self._add_file(Path(entry.path), below, date, named=False)
            elif entry.is_symlink() and below.lower().endswith(RASTERS):
                self.left_out.append(LeftOut(address=entry.path, why="it links to a file that is not there"))

    def _entries(self, folder: Path) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                yield from sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            self.left_out.append(LeftOut(address=str(folder), why=f"the folder cannot be read: {error.strerror}"))

    def _count_one(self, folder: Path) -> None:
        self._count += 1
        if self._count % _REPORTED == 0:
            self._say(f"{self._count:,} files looked at")
        if self._count > MAX_FILES:
            raise CatalogError(
                f"there are more than {MAX_FILES:,} files below {folder}",
                fix="name the folders that hold the images, or make a catalogue of them",
            )

    def _add_file(self, path: Path, name: str, date: str | None, *, named: bool) -> None:
        low = name.lower()
        if archive_kind(low):
            self._add_archive(str(path), name, date)
        elif low.endswith((*RASTERS, *SERIES)) or METADATA.search(name):
            try:
                stamp = _stamp(path)
            except OSError as error:
                self.left_out.append(LeftOut(address=str(path), why=f"it cannot be read: {error.strerror}"))
                return
            self.files.append(FoundFile(address=str(path), name=name, stamp=stamp, named=named, date=date))
        elif named or low.endswith(_OTHER_IMAGES):
            why = f"files ending in {Path(low).suffix or 'nothing'} are not read as images"
            self.left_out.append(LeftOut(address=str(path), why=_UNPACK if _COMPRESSED.search(low) else why))

    def _add_archive(self, address: str, name: str, date: str | None) -> None:
        top = name.rpartition(".")[0]
        for member in list_members(address):
            self._count_one(Path(address))
            where = member_address(address, member.name)
            relevant = member.name.lower().endswith(RASTERS) or METADATA.search(member.name)
            if member.refused and (relevant or archive_kind(member.name)):
                self.left_out.append(LeftOut(address=ascii(where)[1:-1], why=member.refused))
            elif _COMPRESSED.search(member.name):
                self.left_out.append(LeftOut(address=ascii(where)[1:-1], why=_UNPACK))
            elif member.name.lower().endswith(SERIES):
                why = "a time series is read from a folder, not from an archive"
                self.left_out.append(LeftOut(address=ascii(where)[1:-1], why=why))
            elif relevant:
                stamp = member.stamp
                found = FoundFile(address=where, name=f"{top}/{member.name}", stamp=stamp, named=False, date=date)
                self.files.append(found)


def _stamp(path: Path) -> str:
    """Size, time of change, and a hash of the first and last 64 KB: a whole hash would read every pixel of a folder.

    Whatever edits a file moves its time; the hash catches files replaced by ones of the same size with a time kept.
    Files beside it that say where it lies or what is valid count as part of it.
    """
    status = path.stat()
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        digest.update(stream.read(_HASHED))
        if status.st_size > _HASHED:
            stream.seek(max(_HASHED, status.st_size - _HASHED))
            digest.update(stream.read(_HASHED))
    beside = "".join(_beside(path)) if path.suffix.lower() in RASTERS else ""
    return f"{status.st_size}:{status.st_mtime_ns}:{digest.hexdigest()[:16]}{beside}"


def _beside(path: Path) -> Iterator[str]:
    """What tells the versions of a raster's world file, .prj, .aux.xml, overviews and mask."""
    suffix = path.suffix
    world = (f"{suffix[:2]}{suffix[-1]}w", f"{suffix}w", ".wld", ".prj", ".PRJ")
    for other in (*(path.with_suffix(ending) for ending in world), *(Path(f"{path}{end}") for end in _APPENDED)):
        with contextlib.suppress(OSError):
            status = other.stat()
            yield f":{status.st_size}:{status.st_mtime_ns}"


def _s3_stamp(address: str) -> str:
    """ETag, time and size of an object; empty where it cannot be asked for, which reading it will explain."""
    import obstore
    from obstore.store import from_url

    bucket, _, key = address.removeprefix("s3://").partition("/")
    try:
        store = from_url(f"s3://{bucket}", **Connection.from_environment().obstore_options(address))
        found = obstore.head(store, key)
    except Exception:  # noqa: BLE001 - obstore raises errors of no common base
        return ""
    return f"{found['e_tag'] or ''}:{found['last_modified'].isoformat()}:{found['size']}"


def _remote_stamp(address: str) -> str:
    """What the server says of the file's version; empty where it says nothing."""
    if address.startswith("s3://"):
        return _s3_stamp(address)
    import requests

    from earthmap.catalog.http import open_session

    try:
        with open_session(Connection.from_environment()) as session:
            answer = session.head(address, allow_redirects=True)
    except (requests.RequestException, ReadError):
        return ""  # reading it says what is wrong
    return ":".join(answer.headers.get(name, "") for name in ("ETag", "Last-Modified", "Content-Length"))
