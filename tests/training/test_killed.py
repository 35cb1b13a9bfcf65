"""Fine-tunings that are killed, or whose disk fills up: what was whole stays, and the end is that of any other run."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file

from earthmap.training import newest_checkpoint
from tests.disks import enlarge, mounted
from tests.pipeline.commands import Command, command, wait_until
from tests.training.test_finetune import write_stages

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]

ENV = {"OMP_NUM_THREADS": "1"}
EVERY, STEPS = 3, 7


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two stages of STEPS steps, each of two groups of tiles, so that two workers both have some."""
    return write_stages(tmp_path_factory.mktemp("stages") / "stages.yaml", steps=STEPS, tokens=4000)


def _flags(stages: Path, run: Path, *more: str) -> list[str]:
    flags = [
        "--drawn",
        "--preset",
        "tiny",
        "--stages",
        str(stages),
        "--every",
        str(EVERY),
        "--validate",
        "0",
        "--out",
        str(run),
    ]
    return [*flags, "--quiet", *more]


@pytest.fixture(scope="module")
def undisturbed(stages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in one process."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    with command(*_flags(stages, run), env=ENV, verb="finetune") as running:
        assert running.finish() == (0, "", "")
    return run


def _weights(run: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(run / "model" / "model.safetensors")
    return found


def _has(run: Path, step: int) -> Callable[[], bool]:
    """Whether there is a checkpoint of `step`, and something was done since."""
    return lambda: (run / f"step-{step:08d}" / "manifest.json").is_file()


def _steps(run: Path) -> list[int]:
    steps: list[int] = pyarrow.parquet.read_table(run / "curves.parquet")["step"].to_pylist()
    return steps


def test_a_killed_process_goes_on_to_the_same_bytes(stages: Path, undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for step in (EVERY, 3 * EVERY):
        with command(*_flags(stages, run), env=ENV, verb="finetune") as running:
            assert wait_until(_has(run, step), running)
            left = running.kill()
        assert left == {}
        found = newest_checkpoint(run)
        assert found is not None
        assert int(found.name.removeprefix("step-")) >= step
    with command(*_flags(stages, run), env=ENV, verb="finetune") as running:
        assert running.finish() == (0, "", "")
    assert (run / "model/model.safetensors").read_bytes() == (undisturbed / "model/model.safetensors").read_bytes()
    assert (run / "model/alignment.safetensors").read_bytes() == (
        undisturbed / "model/alignment.safetensors"
    ).read_bytes()
    assert _steps(run) == list(range(2 * STEPS))
    assert sorted(path.name for path in run.iterdir() if path.name.startswith(".")) == []


def _worker(running: Command) -> int:
    """Process id of the last worker of Ray Train."""
    found = [pid for pid, line in running.processes().items() if line.startswith("ray::RayTrainWorker")]
    assert len(found) == 2, running.processes()
    return max(found)


@pytest.mark.ray
def test_a_killed_worker_costs_one_interval_at_most(stages: Path, undisturbed: Path, tmp_path: Path) -> None:
    """The run goes on by itself, and ends with the weights of one process, but for rounding."""
    run = tmp_path / "run"
    loud = [flag for flag in _flags(stages, run, "--workers", "2") if flag != "--quiet"]
    with command(*loud, env=ENV, verb="finetune") as running:
        assert wait_until(_has(run, EVERY), running)
        os.kill(_worker(running), signal.SIGKILL)
        status, out, err = running.finish()
    assert (status, "Traceback" in err) == (0, False), err
    assert f"{2 * STEPS} of {2 * STEPS} steps" in out
    resumed = [line for line in err.splitlines() if line.startswith("going on from")]
    assert len(resumed) == 1
    assert int(resumed[0].rpartition("-")[2]) >= EVERY
    assert _steps(run) == list(range(2 * STEPS))
    expected = _weights(undisturbed)
    for name, weight in _weights(run).items():
        torch.testing.assert_close(weight, expected[name], atol=2e-4, rtol=1e-3)


@pytest.mark.ray
def test_a_killed_driver_is_taken_up_by_one_process(stages: Path, undisturbed: Path, tmp_path: Path) -> None:
    """How many share the steps may change from one command to the next."""
    run = tmp_path / "run"
    with command(*_flags(stages, run, "--workers", "2"), env=ENV, verb="finetune") as running:
        assert wait_until(_has(run, EVERY), running)
        assert running.kill() == {}
    with command(*_flags(stages, run), env=ENV, verb="finetune") as running:
        assert running.finish() == (0, "", "")
    assert _steps(run) == list(range(2 * STEPS))
    expected = _weights(undisturbed)
    for name, weight in _weights(run).items():
        torch.testing.assert_close(weight, expected[name], atol=2e-4, rtol=1e-3)


@pytest.mark.ray
def test_what_a_worker_cannot_do_is_said_in_a_line(stages: Path, undisturbed: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(undisturbed / "model", model)
    (model / "tokenizer.json").write_text("{}")
    flags = ["--drawn", "--model", str(model), "--stages", str(stages), "--out", str(tmp_path / "run"), "--quiet"]
    for count, fault in (("2", "the tokenizer of"), ("999", "999 workers on")):
        with command(*flags, "--workers", count, env=ENV, verb="finetune") as running:
            status, out, err = running.finish()
        assert (status, out, len(err.splitlines())) == (2, "", 1), err
        assert fault in err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with room for one checkpoint."""
    with mounted(tmp_path / "disk", size="4500k") as disk:
        yield disk


def test_a_full_disk_leaves_the_checkpoint_before(stages: Path, undisturbed: Path, small_disk: Path) -> None:
    run = small_disk / "run"
    with command(*_flags(stages, run), env=ENV, verb="finetune") as running:
        status, out, err = running.finish()
    assert (status, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert "cannot be written" in err
    found = newest_checkpoint(run)
    assert found is not None
    assert f"go on from {found}" in err
    enlarge(small_disk, size="64m")
    with command(*_flags(stages, run), env=ENV, verb="finetune") as running:
        assert running.finish() == (0, "", "")
    assert (run / "model/model.safetensors").read_bytes() == (undisturbed / "model/model.safetensors").read_bytes()
