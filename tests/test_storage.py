"""One suite for every kind of run storage: a local folder and an S3 prefix behave alike."""

from __future__ import annotations

import concurrent.futures
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from earthmap.errors import StorageError
from earthmap.storage import Storage
from tests.servers import S3Server, s3_server


class StorageTests:
    """What any storage must do; a subclass gives the fixture `storage`, empty and its own for each test."""

    def test_what_is_created_is_read_back_and_a_second_writer_loses(self, storage: Storage) -> None:
        assert storage.create("done/a.json", b"first")
        assert not storage.create("done/a.json", b"second")
        assert storage.read("done/a.json") == b"first"

    def test_of_many_writers_one_wins(self, storage: Storage) -> None:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda writer: storage.create("manifest", b"%d" % writer), range(8)))
        assert won.count(True) == 1
        assert storage.read("manifest") == b"%d" % won.index(True)

    def test_write_replaces(self, storage: Storage) -> None:
        storage.write("a", b"first")
        storage.write("a", b"")
        assert storage.read("a") == b""

    def test_a_file_is_written_whole_over_what_was_there(self, storage: Storage, tmp_path: Path) -> None:
        local = tmp_path / "large.bin"
        local.write_bytes(os.urandom(12 * 2**20 + 7))
        storage.write("a/large.bin", b"before")
        storage.write_file("a/large.bin", local)
        assert storage.read("a/large.bin") == local.read_bytes()
        assert storage.list() == ["a/large.bin"]
        with pytest.raises((StorageError, FileNotFoundError)):
            storage.write_file("b", tmp_path / "none")

    def test_clearing_leaves_nothing_below_and_everything_beside(self, storage: Storage) -> None:
        for path in ("merged/run/1/a", "merged/run/1/b", "merged/run/2/c", "merged/other/1/d", "merged/runs"):
            storage.write(path, b"x")
        storage.clear("merged/run")
        assert storage.list() == ["merged/other/1/d", "merged/runs"]
        storage.clear("merged/run")
        storage.clear("merged")
        assert storage.list() == []
        storage.write("merged/run/3/e", b"x")
        assert storage.list() == ["merged/run/3/e"]

    def test_list_is_sorted_and_of_the_prefix_only(self, storage: Storage) -> None:
        for path in ("p/b", "p/a/z", "p/a/b", "pp/c", "q"):
            storage.write(path, b"x")
        assert storage.list("p") == ["p/a/b", "p/a/z", "p/b"]
        assert storage.list() == ["p/a/b", "p/a/z", "p/b", "pp/c", "q"]
        assert storage.sub("p/a").list() == ["b", "z"]

    def test_what_is_missing(self, storage: Storage) -> None:
        with pytest.raises(FileNotFoundError):
            storage.read("nothing/here")
        assert not storage.exists("nothing/here")
        assert storage.list("nothing") == []
        assert storage.sub("deep/below").list() == []
        assert not storage.sub("deep/below").exists("a")
        storage.delete("nothing/here")

    def test_delete(self, storage: Storage) -> None:
        storage.write("a/b", b"x")
        assert storage.exists("a/b")
        storage.delete("a/b")
        assert not storage.exists("a/b")
        assert storage.create("a/b", b"again")

    def test_names_with_odd_letters(self, storage: Storage) -> None:
        path = "cells/utm0_0.6m_384_31N_c-3_14/query=a b+c/é.parquet"
        storage.write(path, b"x")
        assert storage.list() == [path]
        assert storage.read(path) == b"x"

    def test_it_travels_to_other_processes(self, storage: Storage) -> None:
        storage.write("a", b"x")
        assert pickle.loads(pickle.dumps(storage)).read("a") == b"x"

    def test_zarr(self, storage: Storage) -> None:
        import zarr

        values = np.arange(64, dtype=np.uint8).reshape(8, 8)
        group = zarr.open_group(storage.zarr("cubes/one.zarr"), mode="w")
        group.create_array("red", data=values, chunks=(4, 4), shards=(8, 8))
        assert "cubes/one.zarr/zarr.json" in storage.list("cubes")
        again = zarr.open_group(storage.zarr("cubes/one.zarr", read_only=True), mode="r")
        assert np.array_equal(np.asarray(again["red"]), values)

    def test_zarr_where_nothing_is(self, storage: Storage) -> None:
        import zarr

        with pytest.raises(FileNotFoundError):
            zarr.open_group(storage.zarr("cubes/none.zarr", read_only=True), mode="r")


class TestLocalFolder(StorageTests):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        return Storage(tmp_path / "runs" / "one")

    def test_reading_makes_no_folder(self, tmp_path: Path) -> None:
        storage = Storage(tmp_path / "none")
        self.test_what_is_missing(storage)
        self.test_zarr_where_nothing_is(storage)
        assert not (tmp_path / "none").exists()

    def test_a_folder_removed_meanwhile_is_made_again(self, tmp_path: Path) -> None:
        import shutil

        storage = Storage(tmp_path / "run")
        storage.write("a", b"x")
        shutil.rmtree(tmp_path / "run")
        assert storage.list() == []
        assert storage.create("a", b"y")
        assert storage.read("a") == b"y"

    def test_a_file_in_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "run").write_text("not a folder")
        with pytest.raises(StorageError, match="run"):
            Storage(tmp_path / "run").write("a", b"x")

    def test_file_addresses_and_relative_paths_are_one(self, tmp_path: Path) -> None:
        assert Storage(f"file://{tmp_path}/x").address == Storage(tmp_path / "y" / ".." / "x/").address

    def test_a_full_disk(self, tmp_path: Path) -> None:
        """A limit on the size of files stands for the disk: writing beyond either fails in the same call."""
        code = (
            "import resource, signal, sys\n"
            "from earthmap.errors import StorageError\n"
            "from earthmap.storage import Storage\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "storage = Storage(sys.argv[1])\n"
            "storage.write('before', b'x')\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
            "for action in (storage.write, storage.create):\n"
            "    try:\n"
            "        action('big', bytes(100_000))\n"
            "    except StorageError as error:\n"
            "        print(error)\n"
            "print(storage.list())\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path / "run"], capture_output=True, text=True, check=True
        )
        first, second, listed = done.stdout.strip().splitlines()
        assert "no space left" in first, first
        assert "free some space" in first
        assert "no space left" in second, second
        assert listed == "['before']"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("moto")) as server:
        yield server


class TestS3(StorageTests):
    @pytest.fixture
    def storage(self, s3: S3Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Storage:
        for name, value in s3.env.items():
            monkeypatch.setenv(name, value)
        return Storage(f"{s3.address}/{os.getpid()}/{request.node.name}")

    def test_no_such_bucket(self, s3: S3Server, storage: Storage) -> None:
        with pytest.raises(StorageError, match="other-bucket"):
            Storage("s3://other-bucket/run").write("a", b"x")


def test_an_address_of_no_known_kind() -> None:
    with pytest.raises(StorageError, match=r"expected a folder .* or s3://"):
        Storage("nowhere://bucket/run").write("a", b"x")
