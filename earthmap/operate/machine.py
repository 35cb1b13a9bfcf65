"""What a run needs of the machine that it works on: packages, disk, shared memory, memory, processors, clock."""

from __future__ import annotations

import importlib.metadata
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from earthmap.operate.findings import Finding, ok, size_text, warning, wrong
from earthmap.pipeline.cluster import OBJECT_STORE_BYTES

LEAST_DISK_BYTES = 10**9
"""Free space of a temporary folder below which runs fail; ten times as much is enough."""

LEAST_INODES = 10_000
"""Files that a temporary folder must still take."""

LEAST_MEMORY_BYTES = 2 * 10**9
"""What Ray's own processes take; twice as much is enough for small runs."""

_N = TypeVar("_N", int, float)

FIX_DISK = "remove what is not needed there, or set TMPDIR to a folder with more room"


# ── packages ─────────────────────────────────────────────────────────────────────────────────────────────────


def requirements() -> list[str]:
    """What the installed earthmap says that it needs."""
    return importlib.metadata.requires("earthmap") or []


def check_packages(needed: Iterable[str], installed: Callable[[str], str] = importlib.metadata.version) -> Finding:
    """Whether each package of `needed` (as in pyproject.toml) is there in a version that fits."""
    from packaging.requirements import Requirement

    missing, other, count = [], [], 0
    for text in needed:
        one = Requirement(text)
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        count += 1
        try:
            version = installed(one.name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(one)
            continue
        if not one.specifier.contains(version, prereleases=True):
            other.append(f"{one.name} {version} (needs {one.specifier})")
            missing.append(one)
    if not missing:
        return ok("packages", f"{count} packages in versions that fit")
    lacking = [one.name for one in missing if not any(text.startswith(f"{one.name} ") for text in other)]
    said = [f"missing: {', '.join(lacking)}"] * bool(lacking) + [f"other versions: {', '.join(other)}"] * bool(other)
    wanted = " ".join(f"'{one.name}{one.specifier}'" for one in missing)
    return wrong(
        "packages", "; ".join(said), expected="what earthmap's pyproject.toml names", fix=f"pip install {wanted}"
    )


# ── disk ─────────────────────────────────────────────────────────────────────────────────────────────────────


def check_disk(folder: Path | None = None) -> Finding:
    """Whether the temporary folder can be written and has room, in bytes and in files."""
    name, folder = "disk.temporary", folder or _temporary()
    if folder is None:
        return wrong(
            name,
            "no temporary folder can be written: not TMPDIR, /tmp, /var/tmp, /usr/tmp nor the working folder",
            expected="one that can be",
            fix=FIX_DISK,
        )
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 65_536)
            file.flush()
        stat = os.statvfs(folder)
    except OSError as error:
        return wrong(name, f"{folder} cannot be written: {error.strerror}", expected="room for files", fix=FIX_DISK)
    free, files = stat.f_bavail * stat.f_frsize, stat.f_favail if stat.f_files else None
    found = f"{folder} has {size_text(free)} free" + ("" if files is None else f", and room for {files:,} files")
    expected = f"{size_text(10 * LEAST_DISK_BYTES)} and {10 * LEAST_INODES:,} files"
    short = min(free / LEAST_DISK_BYTES, math.inf if files is None else files / LEAST_INODES)
    if short >= 10:
        return ok(name, found)
    return (wrong if short < 1 else warning)(name, found, expected=expected, fix=FIX_DISK)


def _temporary() -> Path | None:
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        return None


def check_shared_memory(folder: Path = Path("/dev/shm")) -> Finding:
    """Whether Ray's object store fits where it belongs; Ray takes the temporary folder otherwise, which is slow."""
    name, expected = "disk.shared_memory", f"{size_text(OBJECT_STORE_BYTES)} free in {folder}"
    fix = "start the container with --shm-size=2g (in Kubernetes: mount an emptyDir of medium Memory there)"
    if not folder.is_dir():
        return warning(name, f"there is no {folder}: Ray keeps its objects on disk", expected=expected, fix=fix)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")
            file.flush()
    except OSError as error:
        return warning(name, f"{folder} cannot be written: {error.strerror}", expected=expected, fix=fix)
    free = shutil.disk_usage(folder).free
    found = f"{size_text(free)} free in {folder}"
    if free < OBJECT_STORE_BYTES:
        return warning(name, f"{found}: Ray keeps its objects on disk", expected=expected, fix=fix)
    return ok(name, found)


# ── memory and processors ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a process may use by its control groups; None where nothing limits it."""

    memory_bytes: int | None
    cpus: float | None


def read_limits(root: Path = Path("/")) -> tuple[Limits, Limits]:
    """The limits that hold for this process, and those that Ray takes note of: of the outermost group only."""
    groups = [_cgroup_folders(root, kind) for kind in ("", "memory", "cpu")]
    unified, memory, cpu = groups
    bytes_each = [_number(folder / "memory.max") for folder in unified]
    bytes_each += [_number(folder / "memory.limit_in_bytes") for folder in memory]
    cpus_each = [_quota(folder / "cpu.max") for folder in unified]
    cpus_each += [_old_quota(folder) for folder in cpu]
    told_bytes = (_number(unified[0] / "memory.max"), _number(memory[0] / "memory.limit_in_bytes"))
    told_cpus = (_quota(unified[0] / "cpu.max"), _old_quota(cpu[0]))
    return (
        Limits(memory_bytes=_smallest(bytes_each), cpus=_smallest(cpus_each)),
        Limits(memory_bytes=_smallest(told_bytes), cpus=_smallest(told_cpus)),
    )


def check_memory(root: Path = Path("/")) -> Finding:
    """Whether there is memory enough, and no limit that Ray does not know of: the kernel would end its workers."""
    name, stated = "memory", _meminfo(root)
    if stated is None:
        return ok(name, "this system does not say how much memory it has")
    total, available = stated
    real, told = read_limits(root)
    may = min(total, real.memory_bytes or total)
    ray = min(total, told.memory_bytes or total)
    if may < 0.95 * ray:
        return wrong(
            name,
            f"this process may use {size_text(may)}, and Ray believes in {size_text(ray)}",
            expected="a limit that Ray knows of",
            fix=f"start Ray with `ray start --memory={int(may * 0.7)}`, or raise the limit of the group",
        )
    free = min(available, may)
    found = f"{size_text(free)} available of {size_text(may)}"
    if free >= 2 * LEAST_MEMORY_BYTES:
        return ok(name, found)
    judge = wrong if free < LEAST_MEMORY_BYTES else warning
    return judge(
        name, found, expected=size_text(2 * LEAST_MEMORY_BYTES), fix="end other programs, or take a larger machine"
    )


def check_processors(root: Path = Path("/"), *, count: int | None = None) -> Finding:
    """How many processors there are, and whether Ray will start more workers than may compute."""
    name, count = "processors", count or os.cpu_count() or 1
    real, told = read_limits(root)
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else count
    may = min(count, allowed, real.cpus or count)
    ray = min(count, told.cpus or count)
    if may < 0.95 * ray:
        return warning(
            name,
            f"this process may use {may:g} of them, and Ray believes in {ray:g}",
            expected="as many workers as may compute",
            fix=f"start Ray with `ray start --head --num-cpus={max(1, int(may))}` and give its address to --cluster",
        )
    return ok(name, f"{may:g} for computing")


def read_available(root: Path = Path("/")) -> int | None:
    """Bytes of memory that this process could still take; None where nothing says."""
    stated = _meminfo(root)
    return None if stated is None else min(stated[1], read_limits(root)[0].memory_bytes or stated[1])


def _meminfo(root: Path) -> tuple[int, int] | None:
    """Bytes of memory in all, and available."""
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    values = {line.partition(":")[0]: line.partition(":")[2].split() for line in lines}
    try:
        return int(values["MemTotal"][0]) * 1024, int(values["MemAvailable"][0]) * 1024
    except (KeyError, IndexError, ValueError):
        return None


def _cgroup_folders(root: Path, controller: str) -> list[Path]:
    """The folders of the groups that this process is in, the outermost first; `controller` "" is version 2's one."""
    base = root / "sys/fs/cgroup" / controller
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return [base]
    for line in lines:
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if controller in names.split(",") and ".." not in path:
            parts = [part for part in path.split("/") if part]
            return [base.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
    return [base]


def _number(path: Path) -> int | None:
    try:
        value = int(path.read_text())
    except (OSError, ValueError):
        return None
    return value if 0 < value < 2**60 else None  # version 1 writes "no limit" as nearly 2**63


def _quota(path: Path) -> float | None:
    try:
        quota, period = (int(part) for part in path.read_text().split())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 and period > 0 else None


def _old_quota(folder: Path) -> float | None:
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return quota / period if quota and period else None


def _smallest(values: Iterable[_N | None]) -> _N | None:
    return min((value for value in values if value is not None), default=None)


# ── clock ────────────────────────────────────────────────────────────────────────────────────────────────────


def check_clock(
    *,
    clock: Callable[[], float] = time.time,
    steady: Callable[[], float] = time.monotonic,
    installed: float | None = None,
    pause_s: float = 0.2,
) -> Finding:
    """Whether the clock runs evenly, and is not before the time at which this package was installed."""
    name, fix = (
        "clock",
        "let NTP set the clock (`timedatectl set-ntp true`, or chrony); in a virtual machine on its host",
    )
    installed = Path(__file__).stat().st_mtime if installed is None else installed
    if clock() < installed - 86_400:
        day = time.strftime("%Y-%m-%d", time.gmtime(clock()))
        return wrong(name, f"it is {day} by this clock, before earthmap was installed", expected="the time", fix=fix)
    wall, ticks = clock(), steady()
    time.sleep(pause_s)
    jump = (clock() - wall) - (steady() - ticks)
    if abs(jump) > 0.5:
        return wrong(name, f"it jumped by {jump:+.1f} s while it was looked at", expected="a steady clock", fix=fix)
    return ok(name, time.strftime("%Y-%m-%dT%H:%M:%SZ, steady", time.gmtime(clock())))


# ── connection ───────────────────────────────────────────────────────────────────────────────────────────────


def check_connection(environment: Mapping[str, str] | None = None) -> Finding:
    """Whether proxy and certificates that the environment names can be used. No password of a proxy is repeated."""
    from earthmap.connection import Connection
    from earthmap.errors import JobError

    name = "connection"
    try:
        connection = Connection.from_environment(environment)
    except JobError as error:
        return wrong(name, error.what, expected=error.expected or "values that can be followed", fix=error.fix or "")
    if (fault := _certificate_fault(connection.ca_bundle)) is not None:
        return wrong(
            name,
            fault,
            expected="certificates in PEM form",
            fix="correct REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE or SSL_CERT_FILE, or unset it",
        )
    proxies = sorted({proxy for proxy in (connection.http_proxy, connection.https_proxy) if proxy})
    for proxy in proxies:
        if (fault := _proxy_fault(proxy)) is not None:
            fix = "correct http_proxy, https_proxy or all_proxy, or name the hosts that need none in no_proxy"
            return wrong(name, fault, expected="a proxy that listens", fix=fix)
    through = " and ".join(_host_of(proxy) for proxy in proxies)
    trusted = f"certificates of {connection.ca_bundle}" if connection.ca_bundle else "the usual certificates"
    return ok(name, f"{f'through {through}' if proxies else 'no proxy'}, {trusted}")


def _certificate_fault(bundle: str | None) -> str | None:
    import ssl

    if bundle is None:
        return None
    try:
        ssl.create_default_context(cafile=bundle)
    except (ssl.SSLError, OSError) as error:
        return f"{bundle} cannot be used: {error}"
    return None


def _host_of(proxy: str) -> str:
    return proxy.rpartition("//")[2].rpartition("@")[2].rstrip("/")


def _proxy_fault(proxy: str) -> str | None:
    """Why nothing can be sent through the proxy, without its password."""
    import socket
    from urllib.parse import urlsplit

    place = _host_of(proxy)
    try:
        parts = urlsplit(f"//{place}")
        port = parts.port or (443 if proxy.lower().startswith("https://") else 80)
        socket.create_connection((parts.hostname or "", port), timeout=5).close()
    except (OSError, ValueError) as error:
        return f"the proxy {place} does not listen: {error}"
    return None
