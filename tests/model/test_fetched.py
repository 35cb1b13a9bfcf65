"""Checkpoints on S3, as what a service trained on a cluster with shared storage."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from earthmap.errors import ModelError
from earthmap.model.checkpoint import checkpoint_key, find_checkpoint, load_model, save_model
from earthmap.storage import Storage
from tests.disks import enlarge, mounted
from tests.servers import S3Server, s3_server


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def storage(s3: S3Server, tmp_path: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """A checkpoint, and beside it what nobody fetches."""
    for name, value in {**s3.env, "XDG_CACHE_HOME": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    save_model(tiny, tmp_path / "here")
    storage = Storage(f"{s3.address}/{tmp_path.name}/model")
    for file in (tmp_path / "here").iterdir():
        storage.write_file(file.name, file)
    for name in ("training_args.bin", "modeling_mine.py", "step-1/model.safetensors"):
        storage.write(name, b"not ours")
    return storage


def test_it_is_the_same_checkpoint_and_is_fetched_once(storage: Storage, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        (folder,) = set(pool.map(find_checkpoint, [storage.address] * 4))
    assert list((tmp_path / "cache" / "earthmap" / "checkpoints").iterdir()) == [folder]
    assert {path.name for path in folder.iterdir()} == {path.name for path in (tmp_path / "here").iterdir()}
    assert checkpoint_key(folder) == checkpoint_key(tmp_path / "here")
    load_model(folder, dtype=torch.float32)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert find_checkpoint(storage.address) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_what_changed_there_is_fetched_again(storage: Storage) -> None:
    first = find_checkpoint(storage.address)
    data = bytearray(storage.read("model.safetensors"))
    data[-1] ^= 1
    storage.write("model.safetensors", bytes(data))
    second = find_checkpoint(storage.address)
    assert second != first
    assert checkpoint_key(second) != checkpoint_key(first)


def test_what_is_not_there_or_cannot_be_read_is_told(storage: Storage, s3: S3Server) -> None:
    with pytest.raises(ModelError, match="there is no checkpoint at"):
        find_checkpoint(f"{storage.address}/elsewhere")
    with pytest.raises(ModelError, match="cannot be fetched"):
        find_checkpoint("s3://no-such-bucket-of-ours/model")


def test_without_room_for_the_copy_it_is_told_and_nothing_is_left(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mounted(tmp_path / "small", size="100k") as disk:
        monkeypatch.setenv("XDG_CACHE_HOME", str(disk))
        with pytest.raises(ModelError, match=r"cannot be copied.*No space left"):
            find_checkpoint(storage.address)
        assert [path for path in disk.rglob("*") if path.is_file()] == []
        enlarge(disk, size="100m")
        assert find_checkpoint(storage.address).is_relative_to(disk)
