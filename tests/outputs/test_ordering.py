"""Rows come back in order, whatever order they came in, and no more of them are held than was said."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earthmap.outputs import Ordering
from earthmap.outputs import ordering as module

ROWS = st.lists(
    st.tuples(st.integers(0, 5), st.none() | st.sampled_from(["", "a", "é", "z"]), st.binary(max_size=3)), max_size=200
)


def table(rows: list[tuple[int, str | None, bytes]]) -> pa.Table:
    schema = pa.schema([("place", pa.uint32()), ("name", pa.string()), ("shape", pa.binary())])
    return pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema=schema)


@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(1, 40), st.integers(1, 500))
def test_any_pieces_and_any_memory_give_the_order_of_sorting(
    rows: list[tuple[int, str | None, bytes]], piece: int, run_bytes: int
) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(module, "BATCH_ROWS", 7)
        patch.setattr(module, "FAN", 3)
        ordering = Ordering(Path(folder), keys=("place", "name", "shape"), run_bytes=run_bytes)
        for start in range(0, len(rows), piece):
            ordering.add(table(rows[start : start + piece]))
        batches = list(ordering.in_order())
    found = [tuple(row.values()) for batch in batches for row in batch.to_pylist()]
    assert found == sorted(rows, key=lambda row: (row[0], row[1] is not None, (row[1] or "").encode(), row[2]))
    assert all(0 < len(batch) <= 7 for batch in batches)


def test_what_does_not_fit_waits_in_files(tmp_path: Path) -> None:
    ordering = Ordering(tmp_path, keys=("place",), run_bytes=2**20)
    draw = np.random.default_rng(1)
    sums = 0
    before = pa.total_allocated_bytes()
    for _ in range(64):
        places = draw.integers(0, 2**32, 40_000, dtype=np.uint32)
        sums += int(places.sum(dtype=np.int64))
        ordering.add(pa.table({"place": places}))
        assert pa.total_allocated_bytes() - before < 2 * 2**20
    last, total, most = -1, 0, 0
    for batch in ordering.in_order():
        found = batch["place"].to_numpy().astype(np.int64)
        assert last <= found[0]
        assert (np.diff(found) >= 0).all()
        last, total = int(found[-1]), total + int(found.sum())
        most = max(most, pa.total_allocated_bytes() - before)
    assert total == sums
    assert most < 3 * 2**20  # of 10 MB
