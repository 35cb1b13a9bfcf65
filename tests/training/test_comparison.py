"""What is compared differs in one thing alone, and what is said of it follows from the figures."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earthmap.errors import TrainingError
from earthmap.training import Row, StageTable, ValidationFigure, default_table
from earthmap.training.comparison import (
    ARMS,
    PRIMARY,
    Mixed,
    arm_source,
    arm_table,
    closed_accuracy,
    held_out,
    paired,
    result_table,
    scaled,
)
from earthmap.training.drawn import DrawnRows
from earthmap.training.validation import ACCURACY, EXACT
from tests.training.learners import row

JOB = Path(__file__).parents[2] / "jobs" / "compare_pcma.py"
STAGED = scaled(default_table(), steps=40, tokens=3000)


@dataclasses.dataclass(frozen=True)
class Numbered:
    """Three rows a step, named after it."""

    key: str = "numbered"

    def rows(self, table: StageTable, step: int, *, part: int = 0, parts: int = 1) -> list[Row]:
        table.at(step)
        return [dataclasses.replace(row(0), id=f"{step}/{number}") for number in range(3)][part::parts]


@given(steps=st.integers(5, 3000))
@settings(max_examples=25)
def test_a_scaled_table_keeps_order_and_proportions(steps: int) -> None:
    table = scaled(default_table(), steps=steps, tokens=100)
    whole = default_table()
    assert [stage.name for stage in table.stages] == [stage.name for stage in whole.stages]
    assert abs(table.steps - steps) <= len(table.stages)
    assert all(
        abs(one.steps / steps - other.steps / whole.steps) <= 1 / steps
        for one, other in zip(table.stages, whole.stages, strict=True)
    )
    assert len({(tuple(stage.rates.items()), stage.alignment_weight, stage.tokens) for stage in table.stages}) == 1


def test_arms_differ_in_one_thing() -> None:
    staged, mixed, unaligned = (arm_table(arm, STAGED) for arm in ARMS)
    assert staged == STAGED
    assert mixed.steps == unaligned.steps == staged.steps
    assert staged.differences(unaligned) == [f"{stage.name}.alignment_weight: 1.0 → 0.0" for stage in staged.stages]
    assert len(mixed.stages) == 1
    assert mixed.stages[0].rates == staged.stages[0].rates
    assert set(mixed.stages[0].modalities) == {name for stage in staged.stages for name in stage.modalities}
    assert arm_source(ARMS[2], STAGED, Numbered()) == Numbered()
    with pytest.raises(TrainingError, match="2 steps for 5 stages"):
        scaled(default_table(), steps=2, tokens=100)


def test_mixed_rows_are_the_staged_ones_each_once_out_of_order() -> None:
    source = Mixed(source=Numbered(), staged=STAGED)
    table = arm_table(ARMS[1], STAGED)
    mixed = [[one.id for one in source.rows(table, step)] for step in range(table.steps)]
    staged = [one.id for step in range(STAGED.steps) for one in Numbered().rows(STAGED, step)]
    assert Counter(one for step in mixed for one in step) == Counter(staged)
    assert all(mixed)
    early = [int(one.split("/")[0]) for step in mixed[:10] for one in step]
    assert min(early) < STAGED.steps / 4 < 3 * STAGED.steps / 4 < max(early)
    parts = [source.rows(table, 3, part=part, parts=2) for part in range(2)]
    assert sorted(one.id for part in parts for one in part) == sorted(mixed[3])
    assert source.key != Numbered().key
    with pytest.raises(TrainingError, match="expected one of"):
        source.rows(table, table.steps)


def test_held_out_rows_are_of_each_modality() -> None:
    rows = held_out(DrawnRows(seed=5, side_px=32), ("optical", "sar", "video"), count=5)
    assert Counter(one.modality for one in rows) == {"optical": 5, "sar": 5, "video": 5}
    assert len({(one.modality, one.id) for one in rows}) == 15


def _figure(modality: str, score: float, count: int, metric: str = ACCURACY) -> ValidationFigure:
    return ValidationFigure(
        modality=modality, task="t", metric=metric, score=score, low=0, high=1, constant=0, count=count
    )


def test_the_primary_figure_weighs_questions_within_and_modalities_alike() -> None:
    figures = [
        _figure("sar", 1.0, 3),
        _figure("sar", 0.0, 1),
        _figure("optical", 0.25, 100),
        _figure("video", 0.9, 9, EXACT),
    ]
    assert closed_accuracy(figures) == {"sar": 0.75, "optical": 0.25, PRIMARY: 0.5}
    with pytest.raises(TrainingError, match="no closed question"):
        closed_accuracy(figures[-1:])


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.floats(-0.5, 0.5))
def test_a_paired_difference_holds_its_mean_and_turns_with_its_arms(values: list[float], shift: float) -> None:
    other = [value + shift for value in values]
    one, two = paired(values, other), paired(other, values)
    assert one.low <= one.mean <= one.high
    assert one.mean == pytest.approx(-shift, abs=1e-9)
    assert one.low == pytest.approx(-two.high, abs=1e-12)
    assert one.high == pytest.approx(-two.low, abs=1e-12)


def test_intervals_over_seeds_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    found = [paired(list(rng.normal(0.1, 0.05, 3)), [0.0] * 3) for _ in range(400)]
    assert 0.92 < np.mean([one.low <= 0.1 <= one.high for one in found]) < 0.98
    assert paired([0.9], [0.1]).verdict == "not told apart"
    assert paired([0.1, 0.2, 0.15], [0.5, 0.61, 0.55]).verdict == "worse"


def test_the_table_says_what_the_figures_say() -> None:
    scores = {
        "staged": [{PRIMARY: 0.8, "sar": 0.7}, {PRIMARY: 0.82, "sar": 0.72}],
        "mixed": [{PRIMARY: 0.7, "sar": 0.7}, {PRIMARY: 0.72, "sar": 0.72}],
        "unaligned": [{PRIMARY: 0.9, "sar": 0.7}, {PRIMARY: 0.7, "sar": 0.72}],
    }
    table = result_table(scores)
    assert "| staged | 0.810 ± 0.014 | 0.710 ± 0.014 |" in table
    assert "| staged − mixed | +0.100 | +0.100 to +0.100 | +0.100, +0.100 | staged is better |" in table
    assert "staged is not told apart" in table


@pytest.fixture(scope="module")
def job() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compare_pcma", JOB)
    assert spec
    assert spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def page(tmp_path: Path) -> Path:
    place = tmp_path / "page.md"
    place.write_text("# Does it?\n\n<!-- table -->\nnot measured\n<!-- /table -->\nAfter.\n", encoding="utf-8")
    return place


@pytest.mark.slow
def test_the_job_goes_through_all_arms_to_the_table_however_often_it_is_stopped(
    job: ModuleType, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--preset", "tiny", "--steps", "6", "--tokens", "400", "--held-out", "3", "--side-px", "32"]
    options += ["--drawers", "0", "--page", str(page)]
    monkeypatch.setattr(job, "EVERY", 2)
    whole = tmp_path / "whole"
    assert job.main([*options, "--out", str(whole)]) == 0
    published = page.read_text(encoding="utf-8")
    assert published.startswith("# Does it?")
    assert published.endswith("<!-- /table -->\nAfter.\n")
    assert "not measured" not in published
    assert "| staged − mixed |" in published

    # Stopped again and again, it comes to the same figures.
    calls = iter(range(10**6))
    monkeypatch.setattr(job, "SEEDS", (1,))
    monkeypatch.setattr(job.time, "monotonic", lambda: float(next(calls)))
    parts = tmp_path / "parts"
    slices = 0
    while not (parts / "unaligned-1" / "figures.json").exists():
        assert job.main([*options, "--out", str(parts), "--minutes", "0.1"]) == 0
        slices += 1
        assert slices < 20
    assert slices > 2
    assert "time is up; run again to go on" in capsys.readouterr().out
    for arm in ARMS:
        place = Path(f"{arm.name}-1") / "figures.json"
        assert (parts / place).read_text(encoding="utf-8") == (whole / place).read_text(encoding="utf-8")

    assert job.main([*options, "--steps", "9", "--out", str(whole)]) == 1
    assert "is of a comparison with other stages, steps or rows" in capsys.readouterr().err
    figures = json.loads((whole / "mixed-2" / "figures.json").read_text())["figures"]
    assert {figure["modality"] for figure in figures} >= {"optical", "sar", "multispectral", "temporal", "fusion"}


def test_a_table_of_stages_that_is_none_ends_the_job_with_what_is_wrong(
    job: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.yaml").write_text("stages: [{name: a, modalities: radio}]", encoding="utf-8")
    assert job.main(["--out", str(tmp_path), "--stages", str(tmp_path / "t.yaml")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "'radio' is no modality" in error or "stages.0" in error
    assert "Traceback" not in error
