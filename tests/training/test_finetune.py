"""`earthmap finetune` in one process: a run from nothing to a model, taken up again, refused, stopped and survived."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from earthmap import cli
from earthmap.errors import RunFolderError, StorageError, TrainingError
from earthmap.model.earth_onevision import load_earth_onevision
from earthmap.pipeline.lease import Lease
from earthmap.storage import Storage
from earthmap.training import Row, StageTable, newest_checkpoint, parse_table, step, working
from earthmap.training.drawn import DrawnRows
from earthmap.training.finetune import FinetuneSpec, finetune
from earthmap.training.parameters import GROUPS
from tests.training.learners import RATE


def write_stages(path: Path, *, steps: int = 4, **change: object) -> Path:
    """Two stages of optical and radar, `steps` each, small ones."""
    rates = dict.fromkeys(GROUPS, RATE)
    first = {"name": "one", "modalities": ["optical"], "rates": rates, "steps": steps, "tokens": 500}
    second = {**first, "name": "two", "modalities": ["sar"], "replay": 0.3, "alignment_weight": 0.3}
    path.write_text(yaml.safe_dump({"stages": [{**first, **change}, second]}))
    return path


@pytest.fixture
def stages(tmp_path: Path) -> Path:
    return write_stages(tmp_path / "stages.yaml")


FEW = 3
_drawn: dict[object, list[Row]] = {}


@pytest.fixture(autouse=True)
def drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are drawn where they are learned, FEW of a step, once for all tests: they depend on seed, table and step."""
    rows = DrawnRows.rows

    def kept(self: DrawnRows, table: StageTable, step: int, *, part: int = 0, parts: int = 1) -> list[Row]:
        place = (self.key, table.content_key(), step, part, parts)
        if place not in _drawn:
            _drawn[place] = rows(self, table, step, part=part, parts=parts)[:FEW]
        return _drawn[place]

    monkeypatch.setattr(DrawnRows, "rows", kept)
    monkeypatch.setattr(working, "ahead", contextlib.nullcontext)


def finetune_spec(tmp_path: Path, stages: Path, **change: Any) -> FinetuneSpec:
    """A run of `tiny` on drawn tiles."""
    values = {
        "out": str(tmp_path / "run"),
        "preset": "tiny",
        "stages": str(stages),
        "every": 3,
        "validate": 0,
        **change,
    }
    return FinetuneSpec(**values)


def run_weights(run: Path) -> bytes:
    """The file of the model that a run ended with."""
    return (run / "model" / "model.safetensors").read_bytes()


def _curves(run: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(run / "curves.parquet").to_pylist()
    return rows


def test_a_model_is_trained_and_says_how_it_went(
    tmp_path: Path, stages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    flags = ["--preset", "tiny", "--stages", str(stages), "--out", str(run), "--every", "3", "--validate", "12"]
    assert cli.main(["finetune", "--drawn", *flags, "--json"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out.splitlines()[-1])
    assert (told["step"], told["steps"], told["model"]) == (8, 8, str(run / "model"))
    assert "8 of 8 steps: loss" in out
    assert "Traceback" not in err
    curves = _curves(run)
    assert [row["step"] for row in curves] == list(range(8))
    assert [row["stage"] for row in curves] == ["one"] * 4 + ["two"] * 4
    assert all(row["loss"] > 0 and row["seconds"] > 0 and row["tokens"] > 0 for row in curves)
    assert curves[0]["patch"] is None
    assert curves[5]["patch"] > 0
    assert told["last"]["loss"] == curves[-1]["loss"]
    figures = pyarrow.parquet.read_table(run / "validation.parquet").to_pylist()
    assert {row["step"] for row in figures} == {3, 6, 8}
    assert {row["modality"] for row in figures} == {"optical", "sar"}
    assert all(0 <= row["low"] <= row["score"] <= row["high"] <= 1 for row in figures)
    assert "after 8 steps, sar: " in err
    with Image.open(run / "curves.png") as picture:
        assert picture.width > 600
    assert newest_checkpoint(run) == run / "step-00000008"
    model = load_earth_onevision(run / "model")
    assert model.heads().levels == 3
    assert model.card.preset == "tiny"


def test_a_run_in_slices_is_the_run_in_one(tmp_path: Path, stages: Path) -> None:
    """Weights byte by byte, and each step once in its curves."""
    whole = finetune(finetune_spec(tmp_path, stages, out=str(tmp_path / "whole")))
    heard: list[str] = []
    for count in (2, 5, 5, 8):
        part = finetune(finetune_spec(tmp_path, stages, steps=count), say=heard.append)
        assert part.step == count
        assert (part.model is None) == (count < 8)
    assert whole.last is not None
    assert part.last == whole.last
    assert run_weights(tmp_path / "run") == run_weights(tmp_path / "whole")
    slices, at_once = (_curves(tmp_path / name) for name in ("run", "whole"))
    assert [row["step"] for row in slices] == list(range(8))
    for mine, theirs in zip(slices, at_once, strict=True):
        assert {**mine, "seconds": 0} == {**theirs, "seconds": 0}
    assert [text.rpartition("-")[2] for text in heard] == ["00000002", "00000005", "00000005"]


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, stages: Path) -> None:
    whole = finetune(finetune_spec(tmp_path, stages))
    expected = run_weights(tmp_path / "run")
    run = tmp_path / "run"
    (run / "finetuned.json").unlink()
    weights = run / "step-00000008" / "optimiser.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    (run / "step-00000009").mkdir()
    heard: list[str] = []
    again = finetune(finetune_spec(tmp_path, stages), say=heard.append)
    assert heard == [f"going on from {run / 'step-00000006'}"]
    assert again == whole
    assert run_weights(run) == expected
    assert [row["step"] for row in _curves(run)] == list(range(8))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 1}, r"seed: 0 → 1"),
        ({"preset": "nano"}, r"model: a new tiny → a new nano"),
        ({"data": ("a.json",)}, r"data: drawn → \['a\.json'\]"),
    ],
)
def test_another_training_is_refused_with_what_differs(
    tmp_path: Path, stages: Path, change: dict[str, Any], told: str
) -> None:
    finetune(finetune_spec(tmp_path, stages, steps=1))
    with pytest.raises(TrainingError, match=f"holds another training: {told}"):
        finetune(finetune_spec(tmp_path, stages, **change))


def test_a_changed_table_is_refused_by_the_command(
    tmp_path: Path, stages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finetune(finetune_spec(tmp_path, stages, steps=1))
    write_stages(stages, steps=5, alignment_weight=0.1)
    flags = ["--preset", "tiny", "--stages", str(stages), "--out", str(tmp_path / "run"), "--quiet"]
    assert cli.main(["finetune", "--drawn", *flags]) == 2
    _, err = capsys.readouterr()
    assert "one.alignment_weight: 0.0 → 0.1; one.steps: 4 → 5; two.steps: 4 → 5" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--preset", "tiny"], "--data and --drawn are neither given"),
        (["--drawn", "--data", "a.json", "--preset", "tiny"], "--data and --drawn are both given"),
        (["--drawn"], "nothing says --preset or --model"),
        (["--drawn", "--preset", "tiny", "--model", "x"], "both given"),
        (["--drawn", "--preset", "huge"], "there is no preset 'huge'"),
        (["--drawn", "--preset", "tiny", "--lora", "4"], "--lora is given without --model"),
        (["--drawn", "--preset", "tiny", "--every", "0"], "--every 0 is given"),
        (["--drawn", "--preset", "tiny", "--steps", "0"], "--steps 0 is given"),
        (["--drawn", "--preset", "tiny", "--workers", "-1"], "--workers -1 is given"),
        (["--drawn", "--preset", "tiny", "--every", "often"], "invalid int value"),
        (["--drawn", "--preset", "tiny", "--stages", "none.yaml"], "none.yaml cannot be read"),
        (["--drawn", "--model", "nowhere"], "nowhere"),
        (["--data", "nowhere.json", "--preset", "tiny"], "nowhere.json"),
        (["--drawn", "--preset", "tiny", "--own", "3"], "--own needs --data and --model"),
        (["--data", "a.json", "--model", "nano", "--own", "3", "--stages", "s.yaml"], "takes no --stages"),
        (["--data", "a.json", "--model", "nano", "--own", "0"], "--own 0 is given"),
        (["--data", "a.json", "--model", "nano", "--own", "3", "--rate", "7"], "at the rate 7"),
        (["--drawn", "--preset", "tiny", "--rate", "0.1"], "--rate is given without --own"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    tmp_path: Path, flags: list[str], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["finetune", *flags, "--out", str(tmp_path / "run"), "--quiet"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
    assert len(err.splitlines()) == 1


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path, stages: Path) -> None:
    with Lease(Storage(tmp_path / "run")), pytest.raises(RunFolderError, match="being written by another run"):
        finetune(finetune_spec(tmp_path, stages))


def _spoil(learner: step.Learner) -> None:
    with torch.no_grad():
        learner.model.model.lm_head.weight.fill_(float("nan"))


def _leap(learner: step.Learner) -> None:
    learner.losses.extend([1e-3] * step.REMEMBERED)


@pytest.mark.parametrize(("harm", "told"), [(_spoil, "is not a number"), (_leap, r"0\.001 before")])
def test_a_loss_that_is_no_number_or_leaps_names_the_last_good_checkpoint(
    tmp_path: Path,
    stages: Path,
    harm: Callable[[step.Learner], None],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learn = step.Learner.learn

    def harmed(self: step.Learner, rows: Any) -> step.Learned:
        if self.step == 5:
            harm(self)
        return learn(self, rows)

    monkeypatch.setattr(step.Learner, "learn", harmed)
    with pytest.raises(TrainingError, match=rf"the loss of step 5 .*{told}.*go on from .*step-00000003"):
        finetune(finetune_spec(tmp_path, stages))
    assert [row["step"] for row in _curves(tmp_path / "run")] == list(range(5))
    assert newest_checkpoint(tmp_path / "run") == tmp_path / "run" / "step-00000003"
    monkeypatch.setattr(step.Learner, "learn", learn)
    assert finetune(finetune_spec(tmp_path, stages, steps=6)).step == 6


def test_a_checkpoint_is_trained_on_and_its_figures_are_not_inherited(tmp_path: Path, stages: Path) -> None:
    finetune(finetune_spec(tmp_path, stages))
    first = tmp_path / "run" / "model"
    more = finetune(finetune_spec(tmp_path, stages, out=str(tmp_path / "more"), preset=None, model=str(first), steps=1))
    assert more.step == 1
    before, after = (load_file(path / "model.safetensors") for path in (first, tmp_path / "more/step-00000001/model"))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert load_earth_onevision(tmp_path / "more/step-00000001/model").card.drawn == ()
    (first / "model.safetensors").write_bytes((tmp_path / "more/step-00000001/model/model.safetensors").read_bytes())
    with pytest.raises(TrainingError, match="holds another training: model: "):
        finetune(finetune_spec(tmp_path, stages, out=str(tmp_path / "more"), preset=None, model=str(first)))


def test_adapters_are_kept_on_the_way_and_merged_at_the_end(tmp_path: Path) -> None:
    stages = write_stages(tmp_path / "stages.yaml", steps=2)
    finetune(finetune_spec(tmp_path, stages))
    base = tmp_path / "run" / "model"
    for out, counts in (("whole", (4,)), ("slices", (1, 3, 4))):
        change = {"out": str(tmp_path / out), "preset": None, "model": str(base), "lora": 2}
        for count in counts:
            done = finetune(finetune_spec(tmp_path, stages, **change, steps=count))
    assert done.model == str(tmp_path / "slices" / "model")
    assert not (tmp_path / "slices/step-00000004/model").exists()
    assert (tmp_path / "slices/step-00000004/adapters/adapter_config.json").is_file()
    assert run_weights(tmp_path / "slices") == run_weights(tmp_path / "whole")
    before, after = (load_file(path / "model.safetensors") for path in (base, tmp_path / "slices/model"))
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("self_attn.q_proj.weight" in name for name in moved)
    assert not any("norm" in name or "embed" in name or name.endswith("bias") for name in moved)


def test_what_is_left_of_a_full_disk_at_the_end_is_mended(
    tmp_path: Path, stages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(learner: step.Learner, storage: Storage, folder: Path) -> None:
        raise OSError(28, "No space left on device")

    write = working._write_model
    monkeypatch.setattr(working, "_write_model", full)
    with pytest.raises(StorageError, match=r"the model cannot be written to .*No space left.*same command again"):
        finetune(finetune_spec(tmp_path, stages))
    monkeypatch.setattr(working, "_write_model", write)
    (tmp_path / "run" / "curves.parquet").write_bytes(b"PAR1 damaged")
    with pytest.raises(StorageError, match=r"curves.parquet is damaged.*delete it"):
        finetune(finetune_spec(tmp_path, stages))
    (tmp_path / "run" / "curves.parquet").unlink()
    assert finetune(finetune_spec(tmp_path, stages)).model == str(tmp_path / "run" / "model")


def test_a_gpu_without_room_is_told(tmp_path: Path, stages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(self: step.Learner, *rows: Any, **options: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(step.Learner, "_loss", no_room)
    with pytest.raises(TrainingError, match=r"no room for 64 rows at once.*fewer at once, and go on from the start"):
        finetune(finetune_spec(tmp_path, stages))


def test_a_run_folder_that_cannot_be_written_is_told(tmp_path: Path, stages: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot"):
        finetune(finetune_spec(tmp_path, stages, out=str(tmp_path / "file" / "run")))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "finetune.json").write_text("[]")
    with pytest.raises(RunFolderError, match="is not what earthmap wrote"):
        finetune(finetune_spec(tmp_path, stages))


DOCUMENTED = Path(__file__).parents[2] / "docs" / "finetune.md"


def test_every_flag_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["finetune", "--help"])
    flags = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out)) - {"--help", "--json", "--quiet"}
    page = DOCUMENTED.read_text(encoding="utf-8")
    assert sorted(flag for flag in flags if f"`{flag}" not in page) == []


def test_the_table_in_the_documentation_is_understood() -> None:
    block = re.search(r"```yaml\n(.*?)```", DOCUMENTED.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    assert [stage.replay for stage in parse_table(block[1], source="docs").stages] == [0.0, 0.3]
