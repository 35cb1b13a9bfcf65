"""The model's benchmark: its arithmetic is what torch counts, its bars are the right ones, and it runs."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

SCRIPT = Path(__file__).parents[1] / "jobs" / "bench_model.py"


@pytest.fixture(scope="module")
def bench() -> Any:
    spec = importlib.util.spec_from_file_location("bench_model", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_model"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["bench_model"]


def _counted(work: Callable[[], None]) -> float:
    """Multiply-adds, with attention written out so that they are seen; all of a causal one, of which half is needed."""
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 2


@pytest.mark.slow
def test_multiply_adds_are_those_that_torch_counts(bench: Any) -> None:
    preset, pixels = bench.SMALL, 128
    sides = bench.build_sides(preset, torch.device("cpu"), torch.float32, plain=True)
    tiles = bench.drawn_tiles(1, pixels, torch.device("cpu"))
    assert _counted(lambda: sides.see(tiles)) == bench.vision_products(preset, pixels)
    for questions in (1, 8):
        found = _counted(lambda questions=questions: sides.score(tiles, questions))
        assert bench.closed_products(preset, pixels, questions) == pytest.approx(found, rel=0.1)
    plain = bench.plain_products(preset, pixels, 1)
    assert plain == pytest.approx(_counted(lambda: sides.stock_score(tiles, 1)), rel=0.02)
    assert bench.plain_products(preset, pixels, 4) == pytest.approx(_counted(lambda: sides.write(tiles, 4)), rel=0.02)


def test_bars_are_those_of_the_machine(bench: Any) -> None:
    row = bench.Figures("", 448, 64, 0.0, 0.0, 3.0, 0.6, 0.3, 1.0, 1e9)
    found = [
        dataclasses.replace(row, work="closed question"),
        dataclasses.replace(row, work="eight questions", step=1.6, products=1.45e9),
        dataclasses.replace(row, work="16 tokens"),
    ]
    gpu = bench.bars_of(found, 0.01, preset="2b", device="cuda")
    assert [bar.held for bar in gpu] == [True, True, True, False, True], "1.6 is more than 1.1 × 1.45"
    assert "eight questions against one, over 1.450 by multiply-adds 1.103, at most 1.1" in gpu[3].line
    assert [bar.held for bar in bench.bars_of(found, 0.06, preset="small", device="cpu")] == [False, True]
    assert len(bench.bars_of(found, 0.01, preset="tiny", device="cpu")) == 1, "only the grammar's"
    assert len(bench.bars_of(found, 0.01, preset="2b", device="cpu")) == 1


@pytest.mark.slow
def test_the_benchmark_runs() -> None:
    options = ["--preset", "tiny", "--pixels", "64", "--rounds", "1", "--batch", "2", "--threads", "1"]
    done = subprocess.run([sys.executable, SCRIPT, *options], capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == bool(found["missed"])
    assert [row["work"] for row in found["rows"]] == [
        "vision", "closed question", "eight questions", "16 tokens", "64 tokens",
    ]  # fmt: skip
    assert all(row["ours"] > 0 and row["stock"] > 0 for row in found["rows"])
