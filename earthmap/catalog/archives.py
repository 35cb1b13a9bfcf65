"""What is inside a zip or tar, without unpacking it: names, sizes and checksums, and the text of small members.

Everything in an archive is somebody else's word. Nothing is written to disk; members that leave the archive, lie in
another archive, are encrypted or packed in a way that GDAL cannot read in place, or expand beyond belief are left out
by name; an archive of too many members is refused before its directory is read.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from earthmap.catalog.addresses import archive_kind, is_safe_name, split_member
from earthmap.catalog.ranges import RangedFile
from earthmap.connection import Connection
from earthmap.errors import CatalogError

if TYPE_CHECKING:
    import requests

MAX_MEMBERS = 20_000
"""Members that an archive may have; a SAFE of Sentinel-2 has about 100."""

MAX_DIRECTORY_BYTES = 16 * 2**20
"""Largest directory of a zip that is read."""

MAX_TEXT_BYTES = 32 * 2**20
"""Largest metadata file that is read; Sentinel-1's noise annotation takes 5 MB."""

MAX_EXPANSION, EXPANDS_FROM_BYTES = 500, 2**30
"""A member of more than a gigabyte may be at most so many times what it takes in the archive."""

_END = b"PK\x05\x06"
_END_BYTES = 22 + 65_535
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# What the standard library raises of archives that are damaged, encrypted or packed in a way it does not know.
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveMember:
    """One file of an archive."""

    name: str
    size: int
    stamp: str
    """What tells this version from another: the zip's checksum; a tar's size, time and place."""
    refused: str | None = None
    """Why it is not read; None where it may be."""


def list_members(address: str) -> list[ArchiveMember]:
    """The files of the zip or tar at `address`, in its order.

    Raises:
        CatalogError: for an archive that is missing, broken, not what its name says, or of too many members.
    """
    try:
        with _opened(address) as stream:
            return list(_zip_members(stream, address) if archive_kind(address) == "zip" else _tar_members(stream))
    except _BROKEN as error:
        raise CatalogError(
            f"the archive {address} cannot be read: {error or type(error).__name__}",
            expected="a whole zip, or a tar that is not compressed as one",
            fix="fetch it again, or unpack it and give the folder",
        ) from error
    except OSError as error:
        raise CatalogError(f"the archive {address} cannot be read: {error.strerror or error}") from error


def read_text(address: str, *, limit: int = MAX_TEXT_BYTES) -> bytes:
    """The bytes of a metadata file: local, remote, or a member of an archive.

    Raises:
        CatalogError: where it is missing, broken or longer than `limit`.
    """
    try:
        data = _head(address, limit + 1)
    except _BROKEN as error:
        raise CatalogError(f"{address} cannot be read: {error or type(error).__name__}") from error
    except (OSError, KeyError) as error:
        raise CatalogError(f"{address} cannot be read: {error}") from error
    if len(data) > limit:
        raise CatalogError(f"{address} is longer than {limit // 2**20} MB", expected="metadata of an image")
    return data


def _head(address: str, count: int) -> bytes:
    with open_file(address) as stream:
        return stream.read(count)


@contextmanager
def open_file(address: str) -> Iterator[IO[bytes]]:
    """The file or member at `address` as a seekable stream; what is remote is read in ranges.

    Raises:
        OSError, KeyError, or what the archive modules raise: where it is missing, or its archive is damaged.
    """
    member = split_member(address)
    if member is None:
        with _opened(address) as stream:
            yield stream
        return
    with _opened(member.archive) as stream:
        if member.kind == "zip":
            with zipfile.ZipFile(stream) as archive, archive.open(member.name) as inner:
                yield inner
            return
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            opened = tar.extractfile(member.name)
            if opened is None:
                raise KeyError(member.name)
            with opened:
                yield opened


# -- zip


def _zip_members(stream: IO[bytes], address: str) -> Iterator[ArchiveMember]:
    _check_directory(stream, address)
    with zipfile.ZipFile(stream) as archive:
        entries = archive.infolist()
        _check_count(len(entries), address)
        names = [entry.filename for entry in entries]
        twice = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
        for entry in entries:
            if not entry.is_dir():
                yield ArchiveMember(
                    name=entry.filename,
                    size=entry.file_size,
                    stamp=f"{entry.file_size}:{entry.CRC:08x}",
                    refused="two members have this name" if entry.filename in twice else _zip_fault(entry),
                )


def _zip_fault(entry: zipfile.ZipInfo) -> str | None:
    if entry.flag_bits & 1:
        return "it is encrypted"
    if entry.compress_type not in _PACKED:
        return "it is packed in a way that cannot be read in place: unpack the archive and give the folder"
    if entry.file_size > max(EXPANDS_FROM_BYTES, MAX_EXPANSION * entry.compress_size):
        return f"it says that it expands to {entry.file_size:,} bytes"
    return _name_fault(entry.filename)


def _check_directory(stream: IO[bytes], address: str) -> None:
    """Refuse a zip by the size of its directory before it is read; zipfile reads all of it whatever it says."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(max(0, size - _END_BYTES))
    tail = stream.read(_END_BYTES)
    place = tail.rfind(_END)
    if place >= 0 and int.from_bytes(tail[place + 12 : place + 16], "little") > MAX_DIRECTORY_BYTES:
        raise CatalogError(
            f"the archive {address} has a directory of more than {MAX_DIRECTORY_BYTES // 2**20} MB",
            expected=f"at most {MAX_MEMBERS:,} files",
            fix="unpack it and give the folder",
        )
    stream.seek(0)


def _check_count(count: int, address: str) -> None:
    if count > MAX_MEMBERS:
        raise CatalogError(
            f"the archive {address} has more than {MAX_MEMBERS:,} files", fix="unpack it and give the folder"
        )


def _name_fault(name: str) -> str | None:
    if not is_safe_name(name):
        return "its name does not stay inside the archive"
    return "an archive in an archive is not read: unpack the outer one" if archive_kind(name) else None


# -- tar


def _tar_members(stream: IO[bytes]) -> Iterator[ArchiveMember]:
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        for count, entry in enumerate(archive, 1):
            _check_count(count, (archive.name and str(archive.name)) or "tar")
            if entry.isdir():
                continue
            plain = entry.isreg() and not entry.issparse()
            yield ArchiveMember(
                name=entry.name.removeprefix("./"),
                size=entry.size,
                stamp=f"{entry.size}:{entry.mtime}:{entry.offset}",
                refused=_name_fault(entry.name.removeprefix("./")) if plain else "it is a link or a device, not a file",
            )


# -- bytes


@contextmanager
def _opened(address: str) -> Iterator[IO[bytes]]:
    """`address` as a seekable stream; a remote one is read in ranges."""
    if address.startswith(("http://", "https://")):
        from earthmap.catalog.http import open_session

        with open_session(Connection.from_environment()) as session:
            yield io.BufferedReader(cast(io.FileIO, _RangeFile(session, address)), buffer_size=2**18)
        return
    if address.startswith("s3://"):
        import obstore
        from obstore.store import from_url

        bucket, _, key = address.removeprefix("s3://").partition("/")
        options = Connection.from_environment().obstore_options(address)
        yield cast(IO[bytes], obstore.open_reader(from_url(f"s3://{bucket}", **options), key))
        return
    path = Path(address.removeprefix("file://"))
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    with path.open("rb") as stream:
        yield stream


class _RangeFile(RangedFile):
    """A file behind http, read in ranges. Raises OSError where the server gives none."""

    def __init__(self, session: requests.Session, address: str) -> None:
        self._session = session
        self._address = address
        answer = self._get(0, 0)
        total = answer.headers.get("Content-Range", "").rpartition("/")[2]
        if answer.status_code != 206 or not total.isdigit():
            raise OSError(f"the server of {address} does not serve parts of files; fetch the archive first")
        super().__init__(int(total))

    def _get(self, first: int, last: int) -> requests.Response:
        import requests

        try:
            answer = self._session.get(self._address, headers={"Range": f"bytes={first}-{last}"}, stream=True)
        except requests.RequestException as error:
            raise OSError(f"{self._address} cannot be reached") from error
        if not answer.ok:
            raise OSError(f"{self._address} answered {answer.status_code} {answer.reason}")
        return answer

    def fetch(self, start: int, count: int) -> bytes:
        data: bytes = self._get(start, start + count - 1).raw.read(count)
        return data
