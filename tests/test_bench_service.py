"""The benchmark of the service: what is neither answered nor refused ends it; percentiles are of what was answered."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "jobs" / "bench_service.py"


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    spec = importlib.util.spec_from_file_location("bench_service", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_service"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["bench_service"]


def test_everything_that_was_sent_is_counted(bench: Any) -> None:
    told = [(200, 0.001 * number) for number in range(1, 101)] + [(429, 0.002)] * 7
    row = bench.row_of(told, seconds=2.0)
    assert (row["sent"], row["answered"], row["refused"], row["per_second"]) == (107, 100, 7, 50.0)
    assert (row["p50_ms"], row["p99_ms"], row["slowest_ms"]) == (50, 99, 100)


@pytest.mark.parametrize("status", [500, 503, 504, 400])
def test_what_is_dropped_ends_it(bench: Any, status: int) -> None:
    with pytest.raises(SystemExit, match=str(status)):
        bench.row_of([(200, 0.1), (status, 0.1)], seconds=1.0)


def test_processor_time_is_of_the_replicas_of_this_process_only(bench: Any) -> None:
    assert bench.processor_ms() == {"model": 0.0, "workers": 0.0}
