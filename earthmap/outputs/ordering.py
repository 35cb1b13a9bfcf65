"""Tables of any number of rows brought into order: what does not fit into memory waits in files."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

RUN_BYTES = 4 * 2**20
"""Rows that are put into order in memory at once."""

BATCH_ROWS = 500
"""Rows that are read back at once from each file; a batch is what `in_order` gives at most."""

FAN = 16
"""Files that become one longer one, so that never many are read at once."""

_END = "end_of_run"


class Ordering:
    """Rows that come in any order and go out in that of their keys; equal rows in equal order, whatever came first.

    Example:
        >>> import tempfile, pyarrow as pa
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ordering = Ordering(Path(folder), keys=("a",))
        ...     ordering.add(pa.table({"a": [2, 3]}))
        ...     ordering.add(pa.table({"a": [1]}))
        ...     [batch["a"].to_pylist() for batch in ordering.in_order()]
        [[1, 2, 3]]
    """

    def __init__(self, folder: Path, *, keys: Sequence[str], run_bytes: int = RUN_BYTES) -> None:
        """Keep what does not fit in files of `folder`, which is the caller's to remove; nothing sorts before anything.

        Args:
            folder: an empty folder.
            keys: names of columns; the first decides first.
            run_bytes: rows of more than this leave memory.
        """
        self._folder, self._keys, self._run_bytes = folder, keys, run_bytes
        self._held: list[pa.Table] = []
        self._bytes = self._files = 0
        self._levels: list[list[Path]] = []
        """Files in order: those of level n are FAN to the n as long as those of level 0."""

    def add(self, table: pa.Table) -> None:
        """Take more rows; all tables have one schema."""
        if len(table):
            self._held.append(table)
            self._bytes += table.nbytes
        if self._bytes >= self._run_bytes:
            self._spill()

    def in_order(self) -> Iterator[pa.Table]:
        """All rows, a few at a time; once."""
        if self._held and self._levels:
            self._spill()
        if self._held:
            yield from _batches(self._sorted())
        elif self._levels:
            yield from self._merged([path for level in self._levels for path in level])

    def _sorted(self) -> pa.Table:
        import pyarrow as pa

        table, self._held, self._bytes = pa.concat_tables(self._held), [], 0
        return _sorted(table, self._keys)

    def _spill(self) -> None:
        self._keep(_batches(self._sorted()), 0)

    def _keep(self, batches: Iterator[pa.Table], level: int) -> None:
        """Write rows in order to a file of a level; FAN files of one level become one of the next."""
        import pyarrow as pa

        path = self._folder / f"{self._files:06d}.arrow"
        self._files += 1
        first = next(batches)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, first.schema) as writer:
            for table in itertools.chain([first], batches):
                writer.write_table(table.combine_chunks())
        if len(self._levels) == level:
            self._levels.append([])
        self._levels[level].append(path)
        if len(self._levels[level]) == FAN:
            full, self._levels[level] = self._levels[level], []
            self._keep(self._merged(full), level + 1)
            for old in full:
                old.unlink()

    def _merged(self, paths: Sequence[Path]) -> Iterator[pa.Table]:
        """Files in order as one: nothing can come in before the first row that is the last known of its file."""
        import pyarrow as pa
        import pyarrow.compute as pc

        runs = [_marked(path, number) for number, path in enumerate(paths)]
        held = pa.concat_tables([next(run) for run in runs])
        while len(held):
            held = _sorted(held, self._keys)
            ends = pc.indices_nonzero(pc.greater_equal(held[_END], 0))
            last = ends[0].as_py() if len(ends) else len(held) - 1
            run = held[_END][last].as_py()
            yield from _batches(held.slice(0, last + 1).drop_columns([_END]))
            held = held.slice(last + 1)
            if run >= 0:
                held = pa.concat_tables([held, next(runs[run])])


def _marked(path: Path, number: int) -> Iterator[pa.Table]:
    """The batches of a run; the last row of each that others follow carries the run's number, other rows -1."""
    import numpy as np
    import pyarrow as pa

    with pa.OSFile(str(path)) as source:
        file = pa.ipc.open_file(source)
        for index in range(file.num_record_batches):
            table = pa.Table.from_batches([file.get_batch(index)])
            ends = np.full(len(table), -1, np.int32)
            if index + 1 < file.num_record_batches:
                ends[-1] = number
            yield table.append_column(_END, pa.array(ends))


def _sorted(table: pa.Table, keys: Sequence[str]) -> pa.Table:
    import pyarrow.compute as pc

    order = pc.sort_indices(table, sort_keys=[(name, "ascending", "at_start") for name in keys])
    return table.take(order)


def _batches(table: pa.Table) -> Iterator[pa.Table]:
    for start in range(0, len(table), BATCH_ROWS):
        yield table.slice(start, BATCH_ROWS)
