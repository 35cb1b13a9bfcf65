"""Checkpoints on S3: a run goes on from them wherever it is started, past what is damaged or half written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from earthmap.errors import StorageError
from earthmap.model import checkpoint_key, find_checkpoint
from earthmap.storage import Storage
from earthmap.training import Learner, load_learner, newest_checkpoint, save_checkpoint
from earthmap.training.finetune import finetune
from earthmap.training.remote import fetch_newest, upload_checkpoint
from tests.servers import S3Server, s3_server
from tests.training.learners import row, table
from tests.training.test_finetune import drawn_once, finetune_spec, run_weights, write_stages

__all__ = ["drawn_once"]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def storage(s3: S3Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Storage:
    """A prefix of its own."""
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    return Storage(f"{s3.address}/{request.node.name.partition('[')[0]}")


def _saved(learner: Learner, folder: Path, storage: Storage, *, count: int) -> list[Path]:
    places = []
    for _ in range(count):
        learner.learn([row(0), row(1)])
        places.append(save_checkpoint(learner, folder))
        upload_checkpoint(places[-1], storage)
    return places


def test_the_newest_comes_back_whole_and_old_ones_go(learner: Learner, tmp_path: Path, storage: Storage) -> None:
    assert fetch_newest(storage, tmp_path / "none") is None
    places = _saved(learner, tmp_path / "here", storage, count=3)
    assert {path.partition("/")[0] for path in storage.list()} == {"step-00000002", "step-00000003"}
    copy = fetch_newest(storage, tmp_path / "there")
    assert copy == tmp_path / "there" / "step-00000003"
    files = [path.relative_to(places[-1]) for path in places[-1].rglob("*") if path.is_file()]
    assert all((copy / file).read_bytes() == (places[-1] / file).read_bytes() for file in files)
    again = load_learner(copy, table=table())
    assert again.learn([row(2)]) == learner.learn([row(2)])


def _flip(storage: Storage) -> None:
    path = "step-00000003/model/model.safetensors"
    data = bytearray(storage.read(path))
    data[-1] ^= 1
    storage.write(path, bytes(data))


@pytest.mark.parametrize(
    "harm",
    [
        _flip,
        lambda storage: storage.delete("step-00000003/manifest.json"),
        lambda storage: storage.delete("step-00000003/optimiser.safetensors"),
        lambda storage: storage.write("step-00000003/manifest.json", b"[]"),
        lambda storage: storage.write("step-00000004/model/config.json", b"{}"),
    ],
    ids=["flipped", "unfinished", "lost", "no manifest", "begun"],
)
def test_what_is_not_whole_is_passed_over(learner: Learner, tmp_path: Path, storage: Storage, harm: Any) -> None:
    storage.clear("")
    _saved(learner, tmp_path / "here", storage, count=3)
    harm(storage)
    copy = fetch_newest(storage, tmp_path / "there")
    assert copy is not None
    begun = storage.exists("step-00000004/model/config.json")
    assert copy.name == ("step-00000003" if begun else "step-00000002")
    assert [path.name for path in (tmp_path / "there").iterdir()] == [copy.name]
    assert upload_checkpoint(tmp_path / "here" / "step-00000003", storage).endswith("/step-00000003")
    assert fetch_newest(storage, tmp_path / "again") == tmp_path / "again" / "step-00000003"


def test_a_run_on_s3_is_that_of_a_folder(tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    stages = write_stages(tmp_path / "stages.yaml", steps=2)
    finetune(finetune_spec(tmp_path, stages, every=1))
    heard: list[str] = []
    for count in (2, 4):
        done = finetune(finetune_spec(tmp_path, stages, out=storage.address, steps=count, every=1), say=heard.append)
    assert heard == [f"going on from {storage.locate('step-00000002')}"]
    assert done.model == storage.locate("model")
    assert storage.read("model/model.safetensors") == run_weights(tmp_path / "run")
    assert {"curves.parquet", "curves.png", "finetune.json", "finetuned.json"} <= set(storage.list())
    assert checkpoint_key(find_checkpoint(done.model)) == checkpoint_key(tmp_path / "run" / "model")


def test_a_bucket_that_is_not_there_is_told(learner: Learner, tmp_path: Path, s3: S3Server, storage: Storage) -> None:
    learner.learn([row(0)])
    place = save_checkpoint(learner, tmp_path)
    with pytest.raises(StorageError, match="cannot"):
        upload_checkpoint(place, Storage("s3://nowhere/run"))
    assert newest_checkpoint(tmp_path) == place
