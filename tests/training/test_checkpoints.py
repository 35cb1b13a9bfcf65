"""Checkpoints of a training: exact to go on from, whole or not there, and refused along another table."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import Qwen3VLForConditionalGeneration

from earthmap.errors import ModelError, StorageError, TrainingError
from earthmap.model import read_card
from earthmap.training import Learner, load_learner, newest_checkpoint, save_checkpoint
from earthmap.training.rows import Row
from tests.training.learners import row, table


def _weights(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in learner.model.model.state_dict().items()}


def test_what_is_read_again_goes_on_to_the_same_bits(learner: Learner, tmp_path: Path) -> None:
    rows = [[row(i + 10 * step) for i in range(4)] for step in range(6)]
    for step in range(3):
        learner.learn(rows[step])
    place = save_checkpoint(learner, tmp_path)
    again = load_learner(place, table=table())
    assert again.step == 3
    for step in range(3, 6):
        one, other = learner.learn(rows[step]), again.learn(rows[step])
        assert one == other
    for name, tensor in _weights(learner).items():
        assert torch.equal(again.model.model.state_dict()[name], tensor), name
    for mine, theirs in zip(learner.heads.parameters(), again.heads.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_what_was_taught_is_noted_and_kept(learner: Learner, tmp_path: Path) -> None:
    assert learner.model.card.taught == ()
    told = [told_row(0, "presence"), told_row(1, "classify")]
    learner.learn(told[:1])
    assert learner.model.card.taught == ("fraction", "presence"), "its blocks were aligned with the shares"
    learner.learn(told)
    place = save_checkpoint(learner, tmp_path)
    assert read_card(place / "model").taught == ("classify", "fraction", "presence")
    again = load_learner(place, table=table())
    assert again.model.card.taught == ("classify", "fraction", "presence")
    again.learn([row(0)])
    assert again.model.card.taught is None, "these data do not tell what they ask"
    assert load_learner(save_checkpoint(again, tmp_path), table=table()).model.card.taught is None


def told_row(number: int, task: str) -> Row:
    """A row whose questions are of a known task."""
    plain = row(number)
    return replace(plain, asked=tuple(replace(one, task=task) for one in plain.asked))


def test_its_model_loads_in_stock_transformers(learner: Learner, tmp_path: Path) -> None:
    learner.learn([row(0), row(1)])
    place = save_checkpoint(learner, tmp_path)
    stock = Qwen3VLForConditionalGeneration.from_pretrained(place / "model", dtype=torch.float32)
    for name, tensor in _weights(learner).items():
        assert torch.equal(stock.state_dict()[name], tensor), name


def test_the_newest_whole_one_is_found_and_old_ones_go(learner: Learner, tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "none") is None
    places = []
    for _ in range(4):
        learner.learn([row(0)])
        places.append(save_checkpoint(learner, tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000004"]
    assert newest_checkpoint(tmp_path) == places[3]
    weights = places[3] / "model" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert newest_checkpoint(tmp_path) == places[2]
    (places[2] / "manifest.json").write_text("[1]")
    assert newest_checkpoint(tmp_path) is None


def test_another_table_is_refused_with_what_differs(learner: Learner, tmp_path: Path) -> None:
    learner.learn([row(0)])
    place = save_checkpoint(learner, tmp_path)
    with pytest.raises(TrainingError, match=r"a\.steps: 60 → 70"):
        load_learner(place, table=table(steps=70))
    with pytest.raises(ModelError, match="is no checkpoint of a training"):
        load_learner(tmp_path, table=table())


def test_a_full_disk_leaves_the_checkpoint_before(learner: Learner, tmp_path: Path) -> None:
    """A limit on the size of files stands in for a disk that is full in the middle of the weights."""
    learner.learn([row(0)])
    first = save_checkpoint(learner, tmp_path)
    learner.learn([row(1)])
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        with pytest.raises(StorageError, match=r"step-00000002 cannot be written.*go on from .*step-00000001"):
            save_checkpoint(learner, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert newest_checkpoint(tmp_path) == first
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert save_checkpoint(learner, tmp_path).name == "step-00000002"


_KILLED = """
import os, sys
from pathlib import Path
from earthmap.training import save_checkpoint
from earthmap.training import checkpoints
from tests.training.learners import few_words, make, row, table

learner = make(few_words(), table())
learner.learn([row(0)])
save_checkpoint(learner, Path(sys.argv[1]))
learner.learn([row(1)])
hashed = checkpoints._sha256
def die(path):
    if path.name == "optimiser.safetensors":
        os.kill(os.getpid(), 9)
    return hashed(path)
checkpoints._sha256 = die
save_checkpoint(learner, Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_writes_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _KILLED, str(tmp_path)], cwd=Path(__file__).parents[2], timeout=120, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert ended.returncode == -signal.SIGKILL
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.name == "step-00000001"
    again = load_learner(found, table=table())
    again.learn([row(1)])
    assert save_checkpoint(again, tmp_path).name == "step-00000002"
