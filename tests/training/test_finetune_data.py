"""`earthmap finetune` on data of one's own: what is wrong with them is counted, and files that change are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from earthmap.training.parameters import GROUPS
from tests.pipeline.commands import command
from tests.training.data_sets import picture, turns, write_records
from tests.training.learners import RATE

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(280)]


def _records(folder: Path) -> list[dict[str, Any]]:
    """Twelve good ones, one whose picture is missing, and one without an answer."""
    good = []
    for number in range(12):
        file = picture(folder, f"{number}.png", size=(64, 64), seed=number)
        good.append(
            {"image": file.name, "conversations": turns("<image>\nIs it bright?", "no" if number % 2 else "yes")}
        )
    lost = {"image": "none.png", "conversations": turns("<image>\nWhat is it?", "a field")}
    mute = {"image": "0.png", "conversations": turns("<image>\nWhat is it?")}
    return [*good, lost, mute]


def test_a_data_set_is_learned_from_and_what_is_wrong_is_told(tmp_path: Path) -> None:
    data = write_records(tmp_path / "train.json", _records(tmp_path))
    stage = {"name": "own", "modalities": ["optical"], "rates": dict.fromkeys(GROUPS, RATE), "steps": 4, "tokens": 500}
    stages = tmp_path / "stages.yaml"
    stages.write_text(yaml.safe_dump({"stages": [stage]}))
    flags = ["--data", str(data), "--preset", "tiny", "--stages", str(stages), "--out", str(tmp_path / "run")]
    env = {"OMP_NUM_THREADS": "1"}
    with command(*flags, "--steps", "2", env=env, verb="finetune") as running:
        status, out, err = running.finish()
    assert (status, "Traceback" in err) == (0, False), err
    assert "2 of 4 steps: loss" in out
    assert "12 questions about 12 places" in err
    assert "left out: " in err
    assert "1 missing" in err
    assert "1 answer" in err
    with command(*flags, "--quiet", env=env, verb="finetune") as running:
        assert running.finish() == (0, "", "")
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    write_records(data, _records(tmp_path)[:6])
    with command(*flags, "--quiet", env=env, verb="finetune") as running:
        status, out, err = running.finish()
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert "files that were changed since" in err
