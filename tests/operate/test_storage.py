"""Storages that keep their promises and storages that break them; and that nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from earthmap.operate import storage as module
from earthmap.operate.findings import Finding, Verdict
from earthmap.operate.storage import check_room, check_storage, judge_skew, remove_traces, service_address
from earthmap.storage import Storage
from tests.disks import mounted
from tests.servers import S3Server, s3_server


def _by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


def test_a_folder_keeps_all_promises_and_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    found = _by_name(check_storage(str(tmp_path), needs_bytes=1))
    assert {one.verdict for one in found.values()} == {Verdict.OK}
    assert set(found) == {f"storage.{name}" for name in ("write", "create", "replace", "remove", "clock", "room")}
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    assert _by_name(check_storage(str(tmp_path / "a/b/c")))["storage.write"].verdict is Verdict.OK
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", size="1m") as disk:
        (only,) = check_storage(str(disk))
        assert only.verdict is Verdict.WRONG
        assert "no space left" in only.found
        assert list(disk.iterdir()) == []


def test_a_small_disk_is_judged_by_what_a_run_needs(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", size="64m") as disk:
        assert check_room(disk, needs_bytes=10**7).verdict is Verdict.OK
        assert check_room(disk, needs_bytes=10**9).verdict is Verdict.WRONG
        assert check_room(disk / "not/there/yet").verdict is Verdict.WRONG
    with mounted(tmp_path / "files", size="64m,nr_inodes=100") as disk:
        assert "files only" in check_room(disk, needs_bytes=1).found


def test_a_folder_that_may_only_be_read(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", size="16m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True, timeout=20)
        for address in (disk, disk / "new"):
            (only,) = check_storage(str(address))
            assert only.verdict is Verdict.WRONG
            assert only.fix


def test_a_file_in_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (only,) = check_storage(str(tmp_path / "file"))
    assert only.verdict is Verdict.WRONG
    assert (tmp_path / "file").read_text() == "x"


def test_a_disk_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")  # as exFAT answers

    monkeypatch.setattr(module.os, "link", refuse)
    found = _by_name(check_storage(str(tmp_path), needs_bytes=1))
    assert found["storage.create"].verdict is Verdict.WRONG
    assert "hard links" in found["storage.create"].found
    assert found["storage.replace"].verdict is Verdict.OK


class Careless(Storage):
    """As a service that does not know If-None-Match."""

    def create(self, path: str, data: bytes) -> bool:
        self.write(path, data)
        return True


class Rotten(Storage):
    """As a disk that gives back other bytes."""

    def read(self, path: str) -> bytes:
        return super().read(path)[:-1] + b"?"


class Clinging(Storage):
    """As a bucket whose objects may not be removed."""

    def delete(self, path: str) -> None:
        return


@pytest.mark.parametrize(
    ("kind", "check", "verdict"),
    [
        (Careless, "storage.create", Verdict.WRONG),
        (Rotten, "storage.write", Verdict.WRONG),
        (Clinging, "storage.remove", Verdict.WARNING),
    ],
)
def test_a_storage_that_breaks_a_promise(
    kind: type[Storage], check: str, verdict: Verdict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "Storage", kind)
    found = _by_name(check_storage(str(tmp_path), needs_bytes=1))
    assert found[check].verdict is verdict
    assert list(tmp_path.iterdir()) == []


def test_nothing_stays_where_the_check_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "runs"
    code = (
        "import sys, time\nfrom earthmap.operate import storage\n"
        "def stay(place):\n    place.storage.write(place.path('half'), b'x' * 1000)\n    print('there', flush=True)\n"
        "    time.sleep(60)\n"
        "storage.check_writing = stay\nstorage.check_storage(sys.argv[1])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, cwd=tmp_path, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"there\n"
    assert len(list(folder.iterdir())) == 1
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    until = time.monotonic() + 20
    while (tmp_path / "new").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert list(tmp_path.iterdir()) == []


def test_only_what_was_written_here_is_ever_removed(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/features.parquet").write_text("x")
    remove_traces(str(tmp_path), "runs", [str(tmp_path)])
    remove_traces(str(tmp_path), "", [])
    assert (tmp_path / "runs/features.parquet").exists()


@pytest.mark.parametrize(
    ("lead", "verdict"), [(0.0, "ok"), (-20.0, "ok"), (29.0, "ok"), (40.0, "wrong"), (-3600.0, "wrong")]
)
def test_clocks_that_differ(lead: float, verdict: str) -> None:
    found = judge_skew("storage.clock", "the server", lead + 0.2, lead - 0.2)
    assert found.verdict.value == verdict
    if verdict == "wrong":
        assert ("39 s behind" if lead > 0 else "3599 s ahead") in found.found
        assert found.expected
        assert "signed requests" in found.expected


def test_a_folder_on_a_server_whose_clock_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr(module.time, "time", lambda: real() - 90)
    found = _by_name(check_storage(str(tmp_path), needs_bytes=1))["storage.clock"]
    assert found.verdict is Verdict.WRONG
    assert "s behind" in found.found


def test_the_service_behind_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    assert service_address("s3://bucket/runs") == "http://127.0.0.1:9000"
    assert service_address("/data/runs") is None


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with s3_server(tmp_path) as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.mark.slow
def test_a_bucket_keeps_all_promises_and_is_left_empty(bucket: S3Server) -> None:
    found = check_storage("s3://earthmap/runs")
    assert [one.verdict for one in found] == [Verdict.OK] * 4
    assert Storage("s3://earthmap/runs").list() == []


@pytest.mark.slow
def test_a_bucket_that_is_not_there(bucket: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARTHMAP_RETRIES", "0")
    (only,) = check_storage("s3://nowhere/runs")
    assert only.verdict is Verdict.WRONG
