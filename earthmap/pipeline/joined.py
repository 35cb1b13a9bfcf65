"""Cells joined into one map: their features and coverage on the way into order, read one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from earthmap.grid import Cell
from earthmap.merge import COVERAGE_ORDER, FEATURE_ORDER, CellMerge, Joining, Sums, coverage_schema, feature_schema
from earthmap.outputs import Ordering, write_geoparquet
from earthmap.pipeline.folder import COVERAGE_PATH, FEATURES_PATH
from earthmap.pipeline.job import Job
from earthmap.pipeline.merged import MergedCells

if TYPE_CHECKING:
    import pyarrow as pa

Each = Callable[[CellMerge, "pa.Table"], None]
"""Hears of each cell: what it came to, and its rows of the ledger."""


@dataclass(slots=True)
class Joined:
    """What joined cells come to."""

    features: Ordering
    coverage: Ordering
    sums: Sums = field(default_factory=Sums)

    @classmethod
    def in_folder(cls, scratch: Path) -> Joined:
        """Nothing yet; what does not fit into memory waits in new folders of `scratch`."""
        folders = [scratch / name for name in ("features", "coverage")]
        for folder in folders:
            folder.mkdir()
        features, coverage = (
            Ordering(folder, keys=keys) for folder, keys in zip(folders, (FEATURE_ORDER, COVERAGE_ORDER), strict=True)
        )
        return cls(features, coverage)

    def write(self, scratch: Path) -> None:
        """Write features.parquet and coverage.parquet to a folder of this machine."""
        write_geoparquet(scratch / FEATURES_PATH, self.features.in_order(), feature_schema())
        write_geoparquet(scratch / COVERAGE_PATH, self.coverage.in_order(), coverage_schema())


def join_cells(into: Joined, cells: Iterable[Cell], *, job: Job, merged: MergedCells, each: Each | None = None) -> None:
    """Join `cells` as if the job had no others.

    Raises:
        StorageError: where what a cell came to cannot be read.
    """
    ordered = list(cells)
    joining = Joining(set(ordered), job.area, {query.content_key(): query for query in job.queries})
    for merge, ledger in merged.read(ordered):
        if each is not None:
            each(merge, ledger)
        into.sums.update(merge.sums)
        into.features.add(merge.features)
        into.coverage.add(merge.coverage)
        for table in joining.add(merge):
            into.features.add(table)
    for table in joining.finish():
        into.features.add(table)
    into.sums.update(joining.sums)
