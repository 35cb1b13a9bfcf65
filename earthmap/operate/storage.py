"""Whether a folder or an S3 prefix can hold runs: what `earthmap.storage` promises, tried there with small objects.

They lie below a prefix of their own. A process that outlives this one removes them, so that nothing stays behind even
where the check is killed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from earthmap.errors import EarthmapError
from earthmap.operate.findings import Finding, ok, size_text, warning, wrong
from earthmap.operate.machine import LEAST_INODES
from earthmap.storage import Storage

PREFIX = ".earthmap-checkup-"
"""How the names of what is written here begin."""

LEAST_ROOM_BYTES = 10**9
"""Free space of a folder below which no run should start; ten times as much is enough where nothing else is said."""

MAX_SKEW_S = 30.0
"""A lease of a run folder lasts that long by the clock; signed requests are refused some minutes later."""

WRITERS = 8
"""How many try at once to make the same object."""

_SAMPLE_BYTES = 4 * 2**20

_KEEPER = """
import sys
sys.stdin.read()
from earthmap.operate.storage import remove_traces
remove_traces(sys.argv[1], sys.argv[2], sys.argv[3:])
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A storage, and the prefix that may be written below it."""

    storage: Storage
    prefix: str

    def path(self, name: str) -> str:
        """Of an object of that name."""
        return f"{self.prefix}/{name}"


def check_storage(address: str, *, needs_bytes: int | None = None) -> list[Finding]:
    """What stands in the way of runs at `address`, one finding for each promise; after the first that fails for all,
    no other is tried. Nothing stays there.

    Args:
        address: a folder, which need not be there yet, or s3:// address.
        needs_bytes: what runs will write; `earthmap map --explain` tells it.
    """
    try:
        with _place(address) as place:
            first = _tried(check_writing, place)
            if first.expected is not None:
                return [first]
            found = [first, *(_tried(check, place) for check in (check_creating, check_replacing, check_removing))]
            if place.storage.is_local:
                found += [_tried(check_time, place), check_room(Path(place.storage.address), needs_bytes=needs_bytes)]
            return found
    except (EarthmapError, OSError) as error:
        return [_not_usable(error)]


def _tried(check: Callable[[Place], Finding], place: Place) -> Finding:
    try:
        return check(place)
    except (EarthmapError, OSError) as error:
        return _not_usable(error)


def _not_usable(error: EarthmapError | OSError) -> Finding:
    what = error.what if isinstance(error, EarthmapError) else str(error)
    fix = (error.fix if isinstance(error, EarthmapError) else None) or "check the address and its permissions"
    return wrong("storage", what, expected="a folder that can be written, or s3://bucket/prefix", fix=fix)


# ── one promise each ─────────────────────────────────────────────────────────────────────────────────────────


def check_writing(place: Place) -> Finding:
    """Whether what is written is read back, byte for byte, and is listed."""
    data, path = secrets.token_bytes(_SAMPLE_BYTES), place.path("sample")
    started = time.monotonic()
    place.storage.write(path, data)
    written = time.monotonic()
    back = place.storage.read(path)
    speeds = [_SAMPLE_BYTES / max(s, 1e-6) / 1e6 for s in (written - started, time.monotonic() - written)]
    name = "storage.write"
    if back != data:
        return wrong(
            name,
            f"{place.storage.address} gave back other bytes than were written",
            expected="the same",
            fix="do not use this storage: check the disk, or the service behind it",
        )
    if path not in place.storage.list(place.prefix):
        return wrong(
            name,
            f"{place.storage.address} does not list what was just written",
            expected="a listing that is current",
            fix="use a storage that is consistent, as Amazon's S3 and local disks are",
        )
    return ok(name, f"{place.storage.address} can be written ({speeds[0]:,.0f} MB/s) and read ({speeds[1]:,.0f} MB/s)")


def check_creating(place: Place) -> Finding:
    """Whether of several who create the same object one alone does: what leases and manifests rest on."""
    name, expected, path = "storage.create", "that one writer wins and the others are told", place.path("created")
    fix = "use a service that honours If-None-Match: * (Amazon's, recent MinIO, Ceph and R2)"
    if place.storage.is_local:
        fix = "use a disk with hard links: not exFAT, FAT, nor a folder shared by SMB"
        if (fault := _link_fault(place)) is not None:
            return wrong(name, fault, expected="hard links", fix=fix)
    with ThreadPoolExecutor(WRITERS) as pool:
        won = list(pool.map(lambda number: place.storage.create(path, b"%d" % number), range(WRITERS)))
    if won.count(True) != 1 or place.storage.read(path) != b"%d" % won.index(True):
        return wrong(
            name, f"of {WRITERS} writers {won.count(True)} were told that they won", expected=expected, fix=fix
        )
    return ok(name, f"of {WRITERS} writers of one object one won")


def _link_fault(place: Place) -> str | None:
    source = Path(place.storage.locate(place.path("sample")))
    try:
        os.link(source, source.with_name("linked"))
    except OSError as error:
        return f"{place.storage.address} makes no hard links: {error.strerror}"
    return None


def check_replacing(place: Place) -> Finding:
    """Whether an object that is replaced is the old one or the new one, whole, for those who read meanwhile."""
    path, versions = place.path("replaced"), [bytes([number]) * 65_536 for number in range(6)]
    place.storage.write(path, versions[0])

    def write_all() -> None:
        for version in versions:
            place.storage.write(path, version)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write_all)
        seen = {place.storage.read(path)}
        while not writing.done():
            seen.add(place.storage.read(path))
        writing.result()
    if not seen <= set(versions) or place.storage.read(path) != versions[-1]:
        return wrong(
            "storage.replace",
            f"a reader of {place.storage.address} saw half of an object",
            expected="the old one or the new one",
            fix="use a local disk, a file system that renames at once, or S3",
        )
    return ok("storage.replace", "readers see the old object or the new one")


def check_removing(place: Place) -> Finding:
    """Whether objects can be removed: what a run holds for a while goes at its end."""
    path = place.path("replaced")
    place.storage.delete(path)
    if place.storage.exists(path):
        return warning(
            "storage.remove",
            f"an object of {place.storage.address} is still there after it was removed",
            expected="that it is gone",
            fix="allow s3:DeleteObject below this prefix; versions of a bucket need not be removed",
        )
    return ok("storage.remove", "objects can be removed")


def check_time(place: Place) -> Finding:
    """How far this machine's clock is from that of the server of a shared folder, which dates what is written."""
    path = place.path("dated")
    before = time.time()
    place.storage.write(path, b"now")
    after = time.time()
    stated = Path(place.storage.locate(path)).stat().st_mtime
    return judge_skew("storage.clock", place.storage.address, stated - before, stated - after)


def judge_skew(name: str, whose: str, most: float, least: float) -> Finding:
    """The finding for another's clock of which its lead over this machine's lies in `least` to `most` seconds."""
    lead = 0.0 if least <= 0 <= most else min(least, most, key=abs)
    lead -= min(1.0, max(-1.0, lead))  # others tell whole seconds
    found = f"this machine's clock is {abs(lead):.0f} s {'behind' if lead > 0 else 'ahead of'} that of {whose}"
    if abs(lead) <= MAX_SKEW_S:
        return ok(name, f"clock as that of {whose}" if abs(lead) < 1 else found)
    return wrong(
        name,
        found,
        expected=f"{MAX_SKEW_S:.0f} s at most: else signed requests are refused, and leases end too early or too late",
        fix="let NTP set both clocks (`timedatectl set-ntp true`, or chrony)",
    )


def check_room(folder: Path, *, needs_bytes: int | None = None) -> Finding:
    """Whether a folder has room for what runs write, in bytes and in files."""
    name, stat = "storage.room", os.statvfs(_nearest(folder))
    free = stat.f_bavail * stat.f_frsize
    wanted = 10 * LEAST_ROOM_BYTES if needs_bytes is None else needs_bytes
    least = LEAST_ROOM_BYTES if needs_bytes is None else needs_bytes
    found, fix = f"{size_text(free)} free at {folder}", "free some space, or give another folder"
    if stat.f_files and stat.f_favail < LEAST_INODES:
        return wrong(
            name, f"{found}, but room for {stat.f_favail:,} files only", expected=f"{LEAST_INODES:,} files", fix=fix
        )
    if free >= wanted:
        return ok(name, found)
    return (wrong if free < least else warning)(name, found, expected=size_text(wanted), fix=fix)


# ── leaving nothing behind ───────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def _place(address: str) -> Iterator[Place]:
    """A prefix of its own, which is removed at the end: also where this process is killed, by the keeper."""
    storage, prefix = Storage(address), f"{PREFIX}{secrets.token_hex(6)}"
    made = _missing_folders(storage)
    command = [sys.executable, "-P", "-c", _KEEPER, storage.address, prefix, *map(str, made)]
    keeper = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a key that ends this process, or a signal to its group, does not reach it
    )
    try:
        yield Place(storage=storage, prefix=prefix)
    finally:
        remove_traces(storage.address, prefix, [str(folder) for folder in made])
        if keeper.stdin is not None:
            keeper.stdin.close()
        keeper.wait(timeout=60)


def remove_traces(address: str, prefix: str, made: list[str]) -> None:
    """Remove what was written below `prefix`, and of the folders that were `made` those that are empty."""
    if not prefix.startswith(PREFIX):
        return
    storage = Storage(address)
    if storage.is_local:
        shutil.rmtree(Path(storage.address) / prefix, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        return
    with contextlib.suppress(EarthmapError):
        storage.clear(prefix)


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next((path for path in (folder, *folder.parents) if path.exists()), Path("/"))


def _missing_folders(storage: Storage) -> list[Path]:
    """The folders that writing will make, the innermost first."""
    if not storage.is_local:
        return []
    folder = Path(storage.address)
    return [path for path in (folder, *folder.parents) if not path.exists()]


def service_address(storage: str) -> str | None:
    """The http(s) address of the service behind an s3:// address, without what it holds; None for a folder."""
    if urlsplit(storage).scheme != "s3":
        return None
    from earthmap.connection import Connection

    return Connection.from_environment().s3.endpoint or "https://s3.amazonaws.com"
