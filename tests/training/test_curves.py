"""Curves of a training: each step once whatever happened, and a picture of them."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from earthmap.storage import Storage
from earthmap.training import Learned
from earthmap.training.curves import CURVES, PICTURE, VALIDATION, Curves, _thinned, draw_curves, live_line
from earthmap.training.distributed import BUCKET, _buckets
from earthmap.training.validation import ValidationFigure

LEARNED = Learned(
    step=0, stage="one", loss=2.0, answers=1.5, alignment={"patch": 0.5}, right=0.25, tokens=100, gradient=1.0, rate=0.5
)
FIGURE = ValidationFigure(
    modality="sar", task="presence", metric="accuracy", score=0.9, low=0.8, high=0.95, constant=0.5, count=40
)


def _steps(folder: Path) -> list[int]:
    steps: list[int] = pyarrow.parquet.read_table(folder / CURVES)["step"].to_pylist()
    return steps


@settings(max_examples=20)  # each writes several files
@given(
    runs=st.lists(st.tuples(st.integers(1, 6), st.integers(0, 3), st.booleans()), min_size=1, max_size=5),
)
def test_each_step_is_there_once_however_often_it_was_stopped(
    runs: list[tuple[int, int, bool]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Of each run so many steps up to a checkpoint, and some more before it died; they may have been written."""
    folder = tmp_path_factory.mktemp("run")
    done = 0
    for kept, lost, written in runs:
        curves = Curves(Storage(folder), step=done)
        for step in range(done, done + kept):
            curves.add(replace(LEARNED, step=step))
        done += kept
        curves.add_figures(done, [FIGURE])
        curves.write()
        for step in range(done, done + lost):
            curves.add(replace(LEARNED, step=step, loss=9.0))
        if written:
            curves.add_figures(done + 1, [FIGURE])
            curves.write()
    curves = Curves(Storage(folder), step=done)
    curves.add(replace(LEARNED, step=done))
    curves.write()
    assert _steps(folder) == list(range(done + 1))
    table = pyarrow.parquet.read_table(folder / CURVES)
    assert set(table["loss"].to_pylist()) == {2.0}
    assert table["patch"].to_pylist() == [0.5] * (done + 1)
    assert table["scene"].null_count == done + 1
    figures = pyarrow.parquet.read_table(folder / VALIDATION)["step"].to_pylist()
    assert figures == sorted(set(figures))
    assert max(figures) <= done


def test_the_picture_is_drawn_in_the_end(tmp_path: Path) -> None:
    curves = Curves(Storage(tmp_path), step=0)
    curves.write(last=True)
    assert list(tmp_path.iterdir()) == []
    curves.add(LEARNED)
    curves.write()
    assert not (tmp_path / PICTURE).exists()
    curves.add_figures(1, [FIGURE, replace(FIGURE, modality="optical", score=0.85)])
    curves.write(last=True)
    with Image.open(tmp_path / PICTURE) as picture:
        assert picture.height > picture.width / 2


def test_long_runs_are_thinned_to_their_means() -> None:
    rows = [{"step": step, "loss": float(step), "patch": None} for step in range(4321)]
    places, values = _thinned(rows, "loss")
    assert len(places) <= 1000
    assert places == pytest.approx(values)
    assert _thinned(rows, "patch") == ([], [])


def test_two_stages_and_a_loss_of_nothing_are_drawn() -> None:
    rows = [
        {"step": step, "stage": "ab"[step % 2], "loss": 0.0, "answers": 0.0, "right": 1.0}
        | dict.fromkeys(("patch", "region", "scene"))
        for step in range(4)
    ]
    assert Image.open(io.BytesIO(draw_curves(rows))).format == "PNG"


def test_the_line_follows_the_steps() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, highlight=False, color_system=None)
    with live_line(console, steps=10) as (watch, say):
        watch(replace(LEARNED, step=4))
        say("going on from [somewhere]")
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "loss 2.000, 25% right" in shown
    assert "5/10" in shown
    assert "going on from [somewhere]" in shown


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from([torch.float32, torch.float64])), max_size=30))
def test_buckets_hold_every_tensor_once_in_order(sizes: list[tuple[int, torch.dtype]]) -> None:
    tensors = [torch.zeros(count, dtype=dtype) for count, dtype in sizes]
    found = list(_buckets(tensors))
    assert [id(tensor) for bucket in found for tensor in bucket] == [id(tensor) for tensor in tensors]
    assert all(len({tensor.dtype for tensor in bucket}) == 1 for bucket in found)
    big = [torch.empty(BUCKET // 2 + 1) for _ in range(3)]
    assert [len(bucket) for bucket in _buckets(big)] == [1, 1, 1]
