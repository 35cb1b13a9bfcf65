"""What is said of machines that lack something: packages, room, shared memory, memory, a clock, a proxy."""

from __future__ import annotations

import importlib.metadata
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from earthmap.operate.findings import Verdict
from earthmap.operate.machine import (
    check_clock,
    check_connection,
    check_disk,
    check_memory,
    check_packages,
    check_processors,
    check_shared_memory,
    read_limits,
    requirements,
)
from tests.disks import mounted
from tests.servers import free_port

GIB = 2**30


def test_the_packages_of_this_installation_fit() -> None:
    assert check_packages(requirements()).verdict is Verdict.OK


def test_a_missing_package_and_an_old_one_are_named_with_what_to_install() -> None:
    def installed(name: str) -> str:
        if name == "zarr":
            raise importlib.metadata.PackageNotFoundError(name)
        return {"numpy": "1.26.4", "torch": "2.13.0+cpu"}[name]

    needed = ["numpy>=2.0", "zarr>=3.1", "torch>=2.13,<2.14", "boto3>=1; extra == 'test'", "x>=1; python_version<'3'"]
    found = check_packages(needed, installed)
    assert found.verdict is Verdict.WRONG
    assert found.found == "missing: zarr; other versions: numpy 1.26.4 (needs >=2.0)"
    assert found.fix == "pip install 'numpy>=2.0' 'zarr>=3.1'"


# ── disk ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_full_temporary_folder_is_wrong(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", size="64k") as disk:
        with (disk / "full").open("wb") as file:
            written = 0
            while written < 65_536:
                written += file.write(b"\0" * 4096)
        found = check_disk(disk)
        assert found.verdict is Verdict.WRONG
        assert "No space left" in found.found


def test_a_temporary_folder_without_room_for_files_is_wrong(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", size="64m,nr_inodes=20") as disk:
        found = check_disk(disk)
        assert found.verdict is Verdict.WRONG
        assert "files" in found.found


def test_a_folder_that_may_only_be_read_is_wrong(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", size="1m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True, timeout=20)
        found = check_disk(disk)
        assert found.verdict is Verdict.WRONG
        assert "Read-only" in found.found


def test_no_temporary_folder_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", none)
    assert check_disk().verdict is Verdict.WRONG


def test_shared_memory_that_is_not_there_or_too_small(tmp_path: Path) -> None:
    gone = check_shared_memory(tmp_path / "shm")
    assert gone.verdict is Verdict.WARNING
    with mounted(tmp_path / "small", size="64m") as disk:  # what Docker gives
        small = check_shared_memory(disk)
    assert small.verdict is Verdict.WARNING
    assert small.fix
    assert "--shm-size" in small.fix
    assert list(tmp_path.glob("small/*")) == []


# ── memory and processors ────────────────────────────────────────────────────────────────────────────────────


def _system(root: Path, *, cgroup: str, total: int, available: int, files: dict[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    meminfo = f"MemTotal: {total // 1024} kB\nMemFree: 1 kB\nMemAvailable: {available // 1024} kB\n"
    (root / "proc/meminfo").write_text(meminfo)
    for path, text in files.items():
        (root / "sys/fs/cgroup" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "sys/fs/cgroup" / path).write_text(text)
    return root


def test_a_container_whose_limit_ray_sees_is_well(tmp_path: Path) -> None:
    files = {"memory.max": f"{8 * GIB}\n", "cpu.max": "200000 100000\n"}
    root = _system(tmp_path, cgroup="0::/\n", total=64 * GIB, available=60 * GIB, files=files)
    real, told = read_limits(root)
    assert real == told
    assert (real.memory_bytes, real.cpus) == (8 * GIB, 2.0)
    assert check_memory(root).verdict is Verdict.OK
    assert check_processors(root, count=64).verdict is Verdict.OK


def test_a_limit_of_an_inner_group_that_ray_does_not_see_is_wrong(tmp_path: Path) -> None:
    files = {
        "memory.max": "max\n",
        "user.slice/memory.max": f"{4 * GIB}\n",
        "user.slice/run.scope/memory.max": "max\n",
        "user.slice/cpu.max": "50000 100000\n",
    }
    cgroup = "0::/user.slice/run.scope\n"
    root = _system(tmp_path, cgroup=cgroup, total=64 * GIB, available=60 * GIB, files=files)
    found = check_memory(root)
    assert found.verdict is Verdict.WRONG
    assert "4.3 GB" in found.found
    assert found.fix
    assert "--memory=" in found.fix
    cpus = check_processors(root, count=64)
    assert cpus.verdict is Verdict.WARNING
    assert cpus.fix
    assert "--num-cpus=1" in cpus.fix


def test_control_groups_of_version_1(tmp_path: Path) -> None:
    files = {
        "memory/docker/abc/memory.limit_in_bytes": f"{4 * GIB}\n",
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
        "cpu/docker/abc/cpu.cfs_quota_us": "-1\n",
        "cpu/docker/abc/cpu.cfs_period_us": "100000\n",
    }
    cgroup = "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n"
    root = _system(tmp_path, cgroup=cgroup, total=64 * GIB, available=60 * GIB, files=files)
    real, told = read_limits(root)
    assert (real.memory_bytes, real.cpus) == (4 * GIB, None)
    assert told.memory_bytes is None


@pytest.mark.parametrize(("free", "verdict"), [(1, Verdict.WRONG), (3, Verdict.WARNING), (6, Verdict.OK)])
def test_little_memory(free: int, verdict: Verdict, tmp_path: Path) -> None:
    root = _system(tmp_path, cgroup="0::/\n", total=8 * GIB, available=free * GIB, files={})
    assert check_memory(root).verdict is verdict


def test_a_system_that_says_nothing(tmp_path: Path) -> None:
    assert check_memory(tmp_path).verdict is Verdict.OK
    assert check_processors(tmp_path).verdict is Verdict.OK


# ── clock ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_clock_that_was_reset_or_jumps_is_wrong() -> None:
    assert check_clock().verdict is Verdict.OK
    assert check_clock(clock=lambda: 0.0).verdict is Verdict.WRONG
    times = iter([time.time(), time.time(), time.time() + 60, time.time() + 60])
    jumped = check_clock(clock=lambda: next(times), pause_s=0.0)
    assert jumped.verdict is Verdict.WRONG
    assert "+60.0 s" in jumped.found


# ── connection ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_proxy_that_does_not_listen_is_named_without_its_password() -> None:
    found = check_connection({"https_proxy": f"http://anna:s3cret@127.0.0.1:{free_port()}"})
    assert found.verdict is Verdict.WRONG
    assert "127.0.0.1" in found.found
    assert "s3cret" not in str(found)
    assert "anna" not in str(found)


def test_a_proxy_that_listens_is_well() -> None:
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        found = check_connection({"http_proxy": f"http://u:p4ss@127.0.0.1:{server.server_port}/"})
    finally:
        server.shutdown()
        server.server_close()
    assert found.verdict is Verdict.OK
    assert "p4ss" not in found.found


def test_certificates_that_are_none(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("no certificate")
    assert check_connection({"SSL_CERT_FILE": str(bundle)}).verdict is Verdict.WRONG
    assert check_connection({"SSL_CERT_FILE": str(tmp_path / "none")}).verdict is Verdict.WRONG
    assert check_connection({"EARTHMAP_READ_TIMEOUT": "soon"}).verdict is Verdict.WRONG
    assert check_connection({}).verdict is Verdict.OK
