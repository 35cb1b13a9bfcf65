"""What each cell came to, from the worker that merged it to the driver that publishes: one file in the store.

The files of an execution are written anew by it, whatever an earlier one left, and removed before the run counts as
finished. They stand in the store and not in the run folder, because every worker can write there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from earthmap.content import content_key
from earthmap.errors import StorageError
from earthmap.grid import Cell
from earthmap.merge import CellMerge, Sums
from earthmap.storage import Storage

if TYPE_CHECKING:
    import pyarrow as pa

AHEAD = 8
"""Files that are fetched at the same time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedCells:
    """The files of one execution of a run. Small and picklable."""

    store: Storage
    run: str
    """Key of the run folder: a store may be that of many runs."""
    execution: int

    @classmethod
    def of(cls, store: Storage, out: Storage, *, execution: int) -> MergedCells:
        """Those of an execution that writes the run folder `out`."""
        return cls(store=store, run=content_key(out.address)[:24], execution=execution)

    def path(self, cell_id: str) -> str:
        """Where a cell's file stands in the store."""
        return f"merged/{self.run}/{self.execution}/{cell_id}.arrow"

    def write(self, merge: CellMerge, ledger: pa.Table) -> None:
        """Write a cell's file; a second writer writes the same bytes."""
        self.store.write(self.path(merge.cell_id), _pack(merge, ledger))

    def read(self, cells: Iterable[Cell]) -> Iterator[tuple[CellMerge, pa.Table]]:
        """What `cells` came to in their order, and their rows of the ledger (`ledger_schema`).

        Raises StorageError where a file is not there.
        """
        for data in self._files(cells):
            classes, features, regions, views, coverage, ledger = _tables(data)
            about = {name.decode(): value.decode() for name, value in classes.schema.metadata.items()}
            merge = CellMerge(
                cell_id=about["cell_id"],
                tiles=int(about["tiles"]),
                features=features,
                regions=regions,
                views=views,
                coverage=coverage,
                sums=Sums.from_json(about["sums"]),
                classes=_rasters(classes, "codes"),
                percent=_rasters(classes, "percent"),
            )
            yield merge, ledger

    def read_classes(self, cells: Iterable[Cell]) -> Iterator[Mapping[tuple[str, str], bytes]]:
        """`CellMerge.classes` of `cells` in their order. Raises StorageError where a file is not there."""
        for data in self._files(cells):
            yield _rasters(next(_tables(data)), "codes")

    def read_percent(self, cells: Iterable[Cell]) -> Iterator[Mapping[tuple[str, str], bytes]]:
        """`CellMerge.percent` of `cells` in their order. Raises StorageError where a file is not there."""
        for data in self._files(cells):
            yield _rasters(next(_tables(data)), "percent")

    def _files(self, cells: Iterable[Cell]) -> Iterator[bytes]:
        """Their bytes, a few fetched ahead."""
        waiting: deque[Future[bytes]] = deque()
        with ThreadPoolExecutor(AHEAD) as pool:
            for cell in cells:
                waiting.append(pool.submit(self._fetch, self.path(cell.id)))
                if len(waiting) == AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _fetch(self, path: str) -> bytes:
        try:
            return self.store.read(path)
        except FileNotFoundError as error:
            raise StorageError(
                f"{self.store.locate(path)} is gone, which this execution wrote", fix="run the same job again"
            ) from error

    def remove(self) -> None:
        """Remove the files of this and of earlier executions."""
        self.store.clear(f"merged/{self.run}")


def _pack(merge: CellMerge, ledger: pa.Table) -> bytes:
    """The tables as Arrow streams one after the other, the rest as metadata of the first."""
    import pyarrow as pa

    rows = [
        {"query": key[0], "observation": key[1], "codes": codes, "percent": merge.percent.get(key)}
        for key, codes in merge.classes.items()
    ]
    kinds = {"query": pa.string(), "observation": pa.string(), "codes": pa.binary(), "percent": pa.binary()}
    schema = pa.schema(list(kinds.items()))
    about = {"cell_id": merge.cell_id, "tiles": str(merge.tiles), "sums": merge.sums.to_json()}
    classes = pa.Table.from_pylist(rows, schema=schema.with_metadata(about))
    sink = pa.BufferOutputStream()
    # Buffers of a few kilobytes: handing them to threads, or packing them tighter, costs more than it saves.
    options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
    for table in (classes, merge.features, merge.regions, merge.views, merge.coverage, ledger):
        with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
            writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def _tables(data: bytes) -> Iterator[pa.Table]:
    import pyarrow as pa

    source, options = pa.BufferReader(data), pa.ipc.IpcReadOptions(use_threads=False)
    while source.tell() < len(data):
        with pa.ipc.open_stream(source, options=options) as stream:
            yield stream.read_all()


def _rasters(table: pa.Table, kind: str) -> dict[tuple[str, str], bytes]:
    """Those of one kind; nothing where there is none."""
    rows = table.select(["query", "observation", kind]).to_pylist()
    return {(row["query"], row["observation"]): row[kind] for row in rows if row[kind] is not None}
