"""Data sets as prepared rows: read and decoded on Ray Data, what is wrong with them left out, counted and named.

One of the two modules of `earthmap.training` that import Ray. What comes out is read without it
(`earthmap.training.DataRows`).
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from earthmap.content import content_key
from earthmap.errors import EarthmapError, StorageError, TrainingError
from earthmap.model.processing import UNIT_PX
from earthmap.training.conversations import split_records
from earthmap.training.faults import Unfit
from earthmap.training.row_files import MANIFEST, VERSION, Prepared, RowWriter, read_prepared, row_table
from earthmap.training.stages import MODALITIES

if TYPE_CHECKING:
    import pyarrow

    from earthmap.grid import Cell
    from earthmap.storage import Storage
    from earthmap.training.labelled_tiles import CellUnit
    from earthmap.training.pictured import Setting

KINDS = ("conversations", "parquet", "cube")
"""What a data set may be: JSON with pictures beside it, Hugging Face's Parquet, a cube with labels."""

SIDE_PX = 448
"""Side of a picture, unless it is said otherwise."""

UNIT_ROWS = 64
"""Places that one task reads at once."""

MAX_BLOCKS = 2_000
"""Blocks that Ray Data cuts the work into at most."""

MOST_ATTEMPTS = 3
"""How often a unit is tried that kills who reads it; Ray's own default is for ever."""

ATTEMPTS = "attempts"
"""Folder beside the rows in which attempts are counted while they are read."""

BLOCK_BYTES = 16 * 2**20
"""Of the rows that wait between reading and writing."""


class Unit(Protocol):
    """What one task reads. Small and picklable."""

    @property
    def where(self) -> tuple[str, str]:
        """Its file, and where in it, for people."""
        ...

    def tables(self) -> Iterator[pyarrow.Table]:
        """Rows and faults (`earthmap.training.row_files.row_schema`), in an order of their own."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSpec:
    """One data set. Raises TrainingError where it makes no sense."""

    path: str
    """A file of JSON or JSON lines, a Parquet file or a folder of such, or a store or run folder with a cube."""
    kind: str = ""
    """One of KINDS; told from the path where it is empty."""
    images: str = ""
    """The folder that pictures are named from; where `path` lies when empty."""
    modality: str = ""
    """One of `MODALITIES` for rows that do not tell; empty for `optical`, and `temporal` for several pictures."""
    view: str = "rgb-8bit"
    """What the pictures are called in the words before them: as `earthmap ask` calls such files."""
    labels: str = ""
    """Of a cube: a file of labelled polygons."""
    column: str = ""
    """Of the labels: the column that holds the name of the class."""
    label: str = ""
    """Of the labels: the class that all of them are, where no column tells."""
    within: str = ""
    """Of the labels: a file of the area in which all there is is labelled; the rectangle around them when empty."""
    things: str = ""
    """Of the labels: the classes whose polygons are things one by one, joined by `+`, or `none`; told by their size
    where it is empty."""

    def __post_init__(self) -> None:
        fault = self._fault()
        if fault:
            raise TrainingError(f"the data set {self.path!r} {fault}", fix="see docs/training-data.md")

    def _fault(self) -> str | None:
        if self.kind and self.kind not in KINDS:
            return f"is of the kind {self.kind!r}, not one of {', '.join(KINDS)}"
        if self.modality and self.modality not in MODALITIES:
            return f"has the modality {self.modality!r}, not one of {', '.join(MODALITIES)}"
        if not self.path:
            return "has no path"
        if (self.labels != "") != (self.resolved_kind == "cube"):
            return "has labels, but is no cube" if self.labels else "is a cube without labels"
        if (self.column or self.label or self.within or self.things) and not self.labels:
            return "has column=, label=, within= or things=, but no labels"
        return None

    @property
    def resolved_kind(self) -> str:
        """The kind that is named, or told from the path."""
        if self.kind:
            return self.kind
        suffix = Path(self.path).suffix.lower()
        if suffix in (".json", ".jsonl", ".ndjson"):
            return "conversations"
        return "cube" if self.labels else "parquet"

    @classmethod
    def parse(cls, text: str) -> DataSpec:
        """The data set of `PATH[,KEY=VALUE…]`. Raises TrainingError.

        Example:
            >>> DataSpec.parse("train.json,images=pictures").images
            'pictures'
        """
        path, *pairs = text.split(",")
        options = dict(pair.partition("=")[::2] for pair in pairs)
        known = [name for name in cls.__dataclass_fields__ if name != "path"]
        unknown = [name for name in options if name not in known]
        if unknown or len(options) != len(pairs):
            raise TrainingError(
                f"the data set {text!r} has {'the setting ' + repr(unknown[0]) if unknown else 'a setting twice'}",
                expected=f"PATH and settings such as images=FOLDER: {', '.join(known)}",
            )
        return cls(path=path, **options)


def prepare(sources: Sequence[DataSpec], out: Path, *, side_px: int = SIDE_PX, address: str | None = None) -> Prepared:
    """Read data sets into a folder of prepared rows; one that holds just these is left as it is.

    Args:
        sources: The data sets. All nodes of a cluster must see their files.
        out: The folder; new, or one that a preparation was interrupted in.
        side_px: Side of every picture, a multiple of 32; tiles of a cube keep their own.
        address: Of a Ray cluster; None for one of this machine.

    Raises:
        AreaError: for a file of an area that is none.
        TrainingError: for data sets that are not there, a folder that holds other rows, and data without a single row
            that can be learned from.
        JobError: where there is no cluster at `address`.
        StorageError: where `out` cannot be written.
    """
    if side_px < UNIT_PX or side_px % UNIT_PX:
        raise TrainingError(f"pictures of {side_px} pixels a side", expected=f"a multiple of {UNIT_PX}")
    if not sources:
        raise TrainingError("no data set is given", expected="one or more")
    from earthmap.pipeline.cluster import cluster

    asked_for = _asked_for(sources, side_px)
    found = read_prepared(out)
    if found is not None:
        if found.asked_for == asked_for:
            return found
        raise TrainingError(
            f"{out} holds rows of other data sets, or of files that were changed since",
            expected="a new folder",
            fix=f"name another, or delete {out / MANIFEST}",
        )
    writer = RowWriter(folder=out, asked_for=asked_for)
    units = plan_units(sources, side_px, writer)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{out} cannot be made: {error}", expected="a folder that can be written") from error
    if units:
        with cluster(address):
            for table in read_units(units, out / ATTEMPTS):
                writer.add(table)
    return writer.finish()


def _asked_for(sources: Sequence[DataSpec], side_px: int) -> str:
    """Key of the data sets as their files are now; of pictures beside them nothing is known."""
    return content_key(VERSION, side_px, [(spec, _state(spec)) for spec in sources])


def _state(spec: DataSpec) -> list[object]:
    if spec.resolved_kind == "cube":  # whose groups never change, and bear the key of what they hold in their names
        return [
            *_stamps([Path(name).expanduser() for name in (spec.labels, spec.within)]),
            *sorted(path for _, path in _cube(spec)[1]),
        ]
    return _stamps(_files(spec))


def _stamps(files: Sequence[Path]) -> list[object]:
    return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]


# ── what there is to read ────────────────────────────────────────────────────────────────────────────────────


def plan_units(sources: Sequence[DataSpec], side_px: int, writer: RowWriter) -> list[Unit]:
    """The units of all data sets, in their order; what cannot be read at all is a fault at once."""
    units: list[Unit] = []
    for spec in sources:
        if spec.resolved_kind == "conversations":
            units += _plan_conversations(spec, side_px, writer)
        elif spec.resolved_kind == "cube":
            units += _plan_cube(spec, writer)
        else:
            units += _plan_parquet(spec, side_px, writer)
    return units


def _setting(spec: DataSpec, file: Path, side_px: int) -> Setting:
    from earthmap.training.pictured import Setting

    return Setting(
        file=str(file),
        folder=str(Path(spec.images).expanduser().resolve() if spec.images else file.parent),
        modality=spec.modality,
        view=spec.view,
        side_px=side_px,
    )


_PATTERNS = {"conversations": ("*.json", "*.jsonl", "*.ndjson"), "parquet": ("*.parquet",)}


def _files(spec: DataSpec) -> list[Path]:
    """The files of a data set. Raises TrainingError where there are none."""
    path, patterns = Path(spec.path).expanduser().resolve(), _PATTERNS[spec.resolved_kind]
    if path.is_file():
        return [path]
    found = sorted({file for pattern in patterns for file in path.rglob(pattern) if file.is_file()})
    if not found:
        raise TrainingError(
            f"there is no data set {spec.path}",
            expected=f"a file of this machine, or a folder with {' or '.join(patterns)}",
            fix="check the path; a folder of another kind is named with kind=",
        )
    return found


def _plan_conversations(spec: DataSpec, side_px: int, writer: RowWriter) -> Iterator[Unit]:
    from earthmap.training.pictured import ConversationUnit, grouped

    for file in _files(spec):
        try:
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            writer.faults.append(Unfit("format", f"cannot be read: {error}").at(str(file), ""))
            continue
        groups, faults = grouped(split_records(text), str(file))
        writer.faults += faults
        setting = _setting(spec, file, side_px)
        for first in range(0, len(groups), UNIT_ROWS):
            yield ConversationUnit(setting=setting, groups=tuple(groups[first : first + UNIT_ROWS]))


def _plan_parquet(spec: DataSpec, side_px: int, writer: RowWriter) -> Iterator[Unit]:
    from earthmap.training.pictured import parquet_units

    files = _files(spec)
    learned = [file for file in files if file.name.startswith("train")] or files
    if len(learned) < len(files):
        writer.notes["files of other splits left alone"] += len(files) - len(learned)
    for file in learned:
        try:
            yield from parquet_units(_setting(spec, file, side_px))
        except Unfit as unfit:
            writer.faults.append(unfit.at(str(file), ""))


def _cube(spec: DataSpec) -> tuple[Storage, list[tuple[Cell, str]]]:
    """The store of a cube and its cells, an observation each: all of a store, or what a run looked at, wherever its
    store is and whatever else that holds. Raises StorageError for what cannot be read."""
    from earthmap.cube import find_cell, stored_groups
    from earthmap.pipeline.folder import RUN_PATH, Run
    from earthmap.pipeline.groups import run_groups
    from earthmap.pipeline.plan import read_plan
    from earthmap.storage import Storage

    storage = Storage(spec.path)
    plan = read_plan(storage) if storage.exists(RUN_PATH) else None
    if plan is not None:
        store = Storage(Run(storage.address).job.store)
        return store, [(group.manifest.cell, group.path) for group in run_groups(store, plan)]
    store = next((one for one in (storage, storage.sub("store")) if one.list("cube")), storage)
    return store, [(cell, path) for cell, path in stored_groups(store) if find_cell(store, path) is not None]


def _plan_cube(spec: DataSpec, writer: RowWriter) -> list[CellUnit]:
    from earthmap.grid import AreaOfInterest
    from earthmap.tasks.serialization import plain_label
    from earthmap.training.labelled_tiles import cell_units
    from earthmap.training.labels import read_labels

    file = Path(spec.labels).expanduser()
    area = AreaOfInterest.from_file(Path(spec.within).expanduser()) if spec.within else None
    labels = read_labels(file, column=spec.column, label=spec.label, area=area)
    things = None if not spec.things else tuple(plain_label(name) or name for name in spec.things.split("+"))
    things = () if things == ("none",) else things
    store, groups = _cube(spec)
    units, reprojected = cell_units(labels, file=file, store=store, groups=groups, things=things)
    writer.faults += labels.faults
    writer.notes += Counter({"labels repaired": labels.repaired, "labels reprojected": reprojected})
    return units


# ── Ray ──────────────────────────────────────────────────────────────────────────────────────────────────────


def read_units(units: Sequence[Unit], attempts: Path) -> Iterator[pyarrow.Table]:
    """The tables of all units, in their order, whoever reads them when; one that kills its readers is a fault.

    `attempts` is a folder to count in, which workers see and nobody else uses.
    """
    import pyarrow as pa
    import ray.data
    import ray.exceptions

    from earthmap.pipeline.cluster import Watch, watched_rows

    blocks = _blocks(units, attempts)
    try:
        with _in_order():
            read = ray.data.from_arrow(blocks).map_batches(_unit_tables, batch_size=1, batch_format="pyarrow")
            for row in watched_rows(_Once(read), Watch(lambda said: None)):
                if row["error"] is not None:
                    raise pickle.loads(row["error"])
                with pa.ipc.open_stream(row["table"]) as stream:
                    yield stream.read_all()
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        raise TrainingError(
            f"a worker that read training data failed: {type(cause).__name__}: {str(cause).strip()[:200]}",
            expected="files that can be read, and memory for them",
        ) from error
    finally:
        shutil.rmtree(attempts, ignore_errors=True)


@dataclass(slots=True)
class _Once:
    """The one dataset whose rows are waited for (`earthmap.pipeline.cluster.Datasets`)."""

    dataset: Any
    is_over: bool = False

    def begin(self, came: int) -> Any:
        """The dataset, the first time."""
        if self.is_over:
            return None
        self.is_over = True
        return self.dataset


def _blocks(units: Sequence[Unit], attempts: Path) -> list[pyarrow.Table]:
    """Units as they travel, a row each with the place where its attempts are counted."""
    import pyarrow as pa

    shutil.rmtree(attempts, ignore_errors=True)  # of a preparation that was interrupted
    rows = [pickle.dumps((unit, str(attempts / str(number)))) for number, unit in enumerate(units)]
    size = -(-len(rows) // MAX_BLOCKS)
    return [pa.table({"unit": rows[first : first + size]}) for first in range(0, len(rows), size)]


@contextlib.contextmanager
def _in_order() -> Iterator[None]:
    """Ray Data keeps the order of blocks, holds small ones, and says nothing."""
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # it raises what it also logs
    settings = ray.data.DataContext.get_current()
    before = settings.target_max_block_size, settings.execution_options.preserve_order
    settings.enable_progress_bars = settings.enable_operator_progress_bars = False
    settings.target_max_block_size, settings.execution_options.preserve_order = BLOCK_BYTES, True
    try:
        yield
    finally:
        settings.target_max_block_size, settings.execution_options.preserve_order = before


def _unit_tables(batch: pyarrow.Table) -> Iterator[pyarrow.Table]:
    """Each table of each unit as one row; an error of ours in its stead, so that it keeps its words."""
    import pyarrow as pa

    schema = pa.schema({"table": pa.large_binary(), "error": pa.binary()})
    for data in batch["unit"].to_pylist():
        try:
            unit, attempts = pickle.loads(data)
            for table in _attempt(unit, Path(attempts)):
                if table.num_rows:
                    sink = pa.BufferOutputStream()
                    with pa.ipc.new_stream(sink, table.schema) as stream:
                        stream.write_table(table)
                    written = sink.getvalue().to_pybytes()
                    yield pa.Table.from_pylist([{"table": written, "error": None}], schema=schema)
        except EarthmapError as error:
            yield pa.Table.from_pylist([{"table": None, "error": pickle.dumps(error)}], schema=schema)
    yield schema.empty_table()


def _attempt(unit: Unit, attempts: Path) -> Iterator[pyarrow.Table]:
    """The tables of a unit; a fault where it was begun MOST_ATTEMPTS times and never came to its end."""
    for number in range(MOST_ATTEMPTS):
        try:
            attempts.with_name(f"{attempts.name}-{number}").mkdir(parents=True)
        except FileExistsError:
            continue
        return unit.tables()
    message = f"reading it killed a process {MOST_ATTEMPTS} times; prepare smaller files to find the row"
    return iter([row_table([], [Unfit("crash", message).at(*unit.where)])])
