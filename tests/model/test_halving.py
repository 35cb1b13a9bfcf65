"""Where memory runs out: fewer at once, the others' answers kept, and what never fits named alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from earthmap.errors import ModelError
from earthmap.model.engine import halving


def _limited(limit: int, seen: list[int], error: type[Exception] = torch.OutOfMemoryError):  # type: ignore[no-untyped-def]
    def work(chunk: Sequence[int]) -> list[int]:
        seen.append(len(chunk))
        if sum(chunk) > limit:
            raise error("CUDA out of memory. Tried to allocate 20.00 MiB")
        return [-size for size in chunk]

    return work


@settings(max_examples=12)
@given(st.lists(st.integers(1, 9), max_size=20), st.integers(1, 40))
def test_every_input_that_fits_alone_has_its_output(inputs: list[int], limit: int) -> None:
    seen: list[int] = []
    outputs, sizes = halving(_limited(limit, seen), inputs)
    assert len(outputs) == len(inputs)
    for size, output in zip(inputs, outputs, strict=True):
        assert isinstance(output, ModelError) if size > limit else output == -size
    assert list(sizes) == sorted(set(sizes), reverse=True), "each halving at least halves"
    assert len(seen) <= len(inputs) + len(sizes), "nothing that was done is done again"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RuntimeError, "CUDA error: out of memory"),
        (RuntimeError, "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried"),
        (RuntimeError, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        (MemoryError, ""),
    ],
)
def test_all_allocators_are_understood(error: type[Exception], text: str) -> None:
    def work(chunk: Sequence[int]) -> list[int]:
        if len(chunk) > 2:
            raise error(text)
        return list(chunk)

    assert halving(work, range(5)) == ([0, 1, 2, 3, 4], (2,))


def test_other_errors_and_lost_outputs_are_not_hidden() -> None:
    def broken(chunk: Sequence[int]) -> list[int]:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        halving(broken, [1, 2])
    with pytest.raises(ModelError, match="0 outputs of 2 inputs"):
        halving(lambda chunk: [], [1, 2])
    assert halving(broken, []) == ([], ())


_REAL = """
import resource, torch
from earthmap.model.engine import halving
torch.set_num_threads(1)

def work(chunk):
    whole = torch.ones(len(chunk), 64 * 2**20, dtype=torch.uint8)  # 64 MiB an input
    return [int(row[0]) + int(number) for number, row in zip(chunk, whole)]

work([0])
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 448 * 2**20, -1))
outputs, sizes = halving(work, list(range(16)))
assert outputs == list(range(1, 17)), outputs
assert sizes == (8, 4), sizes
def huge(chunk):
    return [torch.ones(2**40, dtype=torch.uint8)[0] if number == 1 else number for number in chunk]
outputs, sizes = halving(huge, [0, 1, 2])
assert outputs[0] == 0 and outputs[2] == 2 and sizes == (1,)
print(outputs[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space of a process")
def test_a_real_allocator_that_refuses() -> None:
    done = subprocess.run([sys.executable, "-c", _REAL], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "one input does not fit into memory" in done.stdout
    assert "to fix: use fewer views" in done.stdout
