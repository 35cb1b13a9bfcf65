"""Prepared rows on the disk: Arrow files that are mapped into memory, so that any row is read without its neighbours.

A folder holds `rows-00000.arrow` …, `faults.parquet` with all that was left out, and `data.json`, written last.
Pictures are PNG, which loses nothing; those of one place are stored once, however many rows ask about it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.content import content_key
from earthmap.errors import StorageError, TrainingError
from earthmap.model.processing import FRAMES, UNIT_PX
from earthmap.training.faults import Fault
from earthmap.training.rows import Asked, Row

if TYPE_CHECKING:
    import pyarrow
    from numpy.typing import NDArray

VERSION = "1"
"""Raised when prepared rows are stored otherwise, or the same data give others."""

MANIFEST, FAULTS = "data.json", "faults.parquet"

PART_BYTES = 128 * 2**20
"""About the size of a file of rows."""

_ON_PATCHES = ("mask[", "poly[")
"""Shapes that an answer draws by pixels."""


def granularity_of(asked: Asked) -> str:
    """The finest of `earthmap.model.alignment.GRANULARITIES` that an answer is about: ground drawn, things, or all.

    Example:
        >>> granularity_of(Asked(question="Find the ships.", answer="box[1,2,3,4]", category="detect", spatial=True))
        'region'
    """
    if not asked.spatial:
        return "scene"
    drawn = any(word in asked.answer for word in _ON_PATCHES) or asked.category in ("segment", "change")
    return "patch" if drawn else "region"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRow:
    """A row and where it is from."""

    row: Row
    source: str
    """What its data set is called."""
    ground: str | None = None
    """Rows of one ground are held out together; None where nobody else shows the same."""
    notes: tuple[str, ...] = ()
    """What was mended, as it is counted."""


# ── rows → tables ────────────────────────────────────────────────────────────────────────────────────────────


def row_schema() -> pyarrow.Schema:
    """Columns of rows as they come from tasks. A fault fills the column `fault` and no other."""
    import pyarrow as pa

    text, texts = pa.string(), pa.list_(pa.string())
    asked = dict.fromkeys(("question", "answer", "category", "task", "granularity"), text)
    fault = dict.fromkeys(("file", "place", "cause", "message"), text)
    return pa.schema(
        {
            "id": text,
            "place": text,
            "ground": text,
            "source": text,
            "modality": text,
            "names": texts,
            "side": pa.int32(),
            "pictures": pa.list_(pa.large_binary()),
            "asked": pa.list_(pa.struct({**asked, "spatial": pa.bool_(), "choices": texts})),
            "classes": texts,
            "shares": pa.large_binary(),
            "notes": texts,
            "fault": pa.struct(fault),
        }
    )


def row_table(rows: Sequence[DataRow], faults: Sequence[Fault] = ()) -> pyarrow.Table:
    """Rows and faults as a table of `row_schema`."""
    import pyarrow as pa

    schema = row_schema()
    nothing = dict.fromkeys(schema.names)
    content = [_columns(one) for one in rows] + [{"fault": asdict(fault)} for fault in faults]
    return pa.Table.from_pylist([nothing | one for one in content], schema=schema)


def _columns(one: DataRow) -> dict[str, Any]:
    row = one.row
    place = hashlib.sha256(np.ascontiguousarray(row.pictures).tobytes())
    place.update(json.dumps([row.names, row.modality, row.pictures.shape]).encode())
    shares = None if row.shares is None else np.ascontiguousarray(row.shares, "<f4").tobytes()
    where = place.hexdigest()[:32]
    return {
        "id": content_key(where, row.asked, row.classes, shares),
        "place": where,
        "ground": where if one.ground is None else content_key(one.ground),
        "source": one.source,
        "modality": row.modality,
        "names": row.names,
        "side": row.pictures.shape[-1],
        "pictures": [_png(picture) for picture in row.pictures.reshape(-1, *row.pictures.shape[-3:])],
        "asked": [asdict(asked) | {"granularity": granularity_of(asked)} for asked in row.asked],
        "classes": row.classes,
        "shares": shares,
        "notes": one.notes,
    }


def _png(picture: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    written = BytesIO()
    Image.fromarray(np.moveaxis(picture, 0, -1)).save(written, "PNG", compress_level=3)
    return written.getvalue()


def _levels(data: bytes) -> NDArray[np.uint8]:
    """(3, y, x)."""
    from PIL import Image

    with Image.open(BytesIO(data), formats=("PNG",)) as image:
        return np.ascontiguousarray(np.moveaxis(np.asarray(image), -1, 0))


def read_row(seen: Mapping[str, Any], asked: Sequence[Mapping[str, Any]], *, id: str) -> Row:
    """The row of a place (columns of a record that holds its pictures) with some of the questions asked about it."""
    classes = tuple(seen["classes"] or ())
    shares = None
    if seen["shares"] is not None:
        blocks = (seen["side"] // UNIT_PX) ** 2
        shares = np.frombuffer(seen["shares"], "<f4").reshape(-1, blocks, len(classes)).astype(np.float32)
    pictures = np.stack([_levels(data) for data in seen["pictures"]])
    if seen["modality"] == "video":
        pictures = pictures.reshape(-1, FRAMES, *pictures.shape[1:])
    fields = ("question", "answer", "category", "task", "spatial")
    return Row(
        id=id,
        modality=seen["modality"],
        names=tuple(seen["names"]),
        pictures=pictures,
        asked=tuple(Asked(choices=tuple(one["choices"]), **{name: one[name] for name in fields}) for one in asked),
        classes=classes,
        shares=shares,
    )


# ── tables → files ───────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a folder of prepared rows holds."""

    folder: Path
    key: str
    """Content key of all its rows, whatever their order and files."""
    asked_for: str
    """Content key of what was asked to be prepared, and of the state of its files then."""
    parts: tuple[str, ...]
    """Names of its files of rows."""
    rows: int
    places: int
    """Of different pictures: rows about the same ones are learned together."""
    questions: int
    counts: Mapping[str, Mapping[str, int]]
    """Questions by `source`, `modality`, `category` and `granularity`."""
    faults: Mapping[str, int]
    """Rows and questions that were left out, by cause (`earthmap.training.faults.CAUSES`)."""
    notes: Mapping[str, int]
    """What was mended on the way: `reprojected` and `repaired` labels, `shrunk` and `padded` pictures …"""

    def lines(self) -> list[str]:
        """What it holds, for people, a line each."""
        said = [f"{self.questions:,} questions about {self.places:,} places in {self.folder}"]
        said += [f"{axis}: {_counted(counts)}" for axis, counts in self.counts.items()]
        said += [f"mended: {_counted(self.notes)}"] if self.notes else []
        said += [f"left out: {_counted(self.faults)} (all in {self.folder / FAULTS})"] if self.faults else []
        return said


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def read_prepared(folder: Path) -> Prepared | None:
    """What a folder holds; None where nothing was prepared there. Raises TrainingError for what cannot be read."""
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        version = content.pop("version")
        if version == VERSION:
            return Prepared(folder=folder, parts=tuple(content.pop("parts")), **content)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise TrainingError(
            f"{folder / MANIFEST} cannot be read: {error}", expected="prepared training data", fix="prepare it again"
        ) from error
    raise TrainingError(
        f"{folder} holds training data of version {version}", expected=f"version {VERSION}", fix="prepare it again"
    )


@dataclass(slots=True, kw_only=True)
class RowWriter:
    """Writes tables of `row_schema` to a folder, in the order in which they come."""

    folder: Path
    asked_for: str
    """See `Prepared`."""
    notes: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)
    _ids: list[str] = field(default_factory=list)
    _known: set[str] = field(default_factory=set)
    """Ids and places that were written."""
    _counts: dict[str, Counter[str]] = field(default_factory=dict)
    _places: int = 0
    _waiting: list[pyarrow.Table] = field(default_factory=list)
    _parts: list[str] = field(default_factory=list)

    def add(self, table: pyarrow.Table) -> None:
        """Take rows and faults; what was there before is not stored again. Raises StorageError."""
        import pyarrow as pa

        kept = []
        for record in table.to_pylist():
            if record["fault"] is not None:
                self.faults.append(Fault(**record["fault"]))
            elif record["id"] in self._known:
                message = "the same pictures with the same questions as in an earlier row"
                self.faults.append(Fault(file=record["source"], place="", cause="repeated", message=message))
            else:
                kept.append(self._noted(record))
        if kept:
            self._waiting.append(pa.Table.from_pylist(kept, schema=_stored_schema()))
        if sum(waiting.nbytes for waiting in self._waiting) > PART_BYTES:
            self._flush()

    def _noted(self, record: dict[str, Any]) -> dict[str, Any]:
        """The record as it is stored, counted."""
        self.notes.update(record.pop("notes"))
        record.pop("fault")
        self._ids.append(record["id"])
        if record["place"] in self._known:
            record["pictures"] = []
        self._places += record["place"] not in self._known
        self._known |= {record["id"], record["place"]}
        for axis in ("source", "modality"):
            self._counts.setdefault(axis, Counter())[record[axis]] += len(record["asked"])
        for axis in ("category", "granularity"):
            self._counts.setdefault(axis, Counter()).update(one[axis] for one in record["asked"])
        return record

    def _flush(self) -> None:
        import pyarrow as pa

        if not self._waiting:
            return
        whole = pa.concat_tables(self._waiting).combine_chunks()
        name = f"rows-{len(self._parts):05}.arrow"
        try:
            with pa.OSFile(f"{self.folder / name}.part", "wb") as file, pa.ipc.new_file(file, whole.schema) as writer:
                writer.write_table(whole)
            Path(f"{self.folder / name}.part").replace(self.folder / name)
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        self._parts.append(name)
        self._waiting.clear()

    def finish(self) -> Prepared:
        """Write what waits and the manifest.

        Raises:
            TrainingError: where no row is left, with what was wrong most often.
            StorageError: where the folder cannot be written.
        """
        self._flush()
        self._write_faults()
        if not self._ids:
            raise _nothing(self.faults, self.folder)
        content = self._manifest()
        try:
            part = self.folder / f"{MANIFEST}.part"
            part.write_text(json.dumps({"version": VERSION, **content}, indent=1), encoding="utf-8")
            part.replace(self.folder / MANIFEST)
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        return Prepared(folder=self.folder, **content | {"parts": tuple(self._parts)})

    def _write_faults(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = [asdict(fault) for fault in self.faults]
        try:
            pq.write_table(pa.Table.from_pylist(columns, schema=_fault_schema()), self.folder / FAULTS)
        except OSError as error:
            raise _unwritable(self.folder, error) from error

    def _manifest(self) -> dict[str, Any]:
        return {
            "key": content_key(VERSION, sorted(self._ids)),
            "asked_for": self.asked_for,
            "parts": self._parts,
            "rows": len(self._ids),
            "places": self._places,
            "questions": self._counts["source"].total(),
            "counts": {axis: dict(sorted(counts.items())) for axis, counts in self._counts.items()},
            "faults": dict(sorted(Counter(fault.cause for fault in self.faults).items())),
            "notes": dict(sorted(self.notes.items())),
        }


def _stored_schema() -> pyarrow.Schema:
    import pyarrow as pa

    return pa.schema([field for field in row_schema() if field.name not in ("notes", "fault")])


def _fault_schema() -> pyarrow.Schema:
    import pyarrow as pa

    return pa.schema(list(row_schema().field("fault").type))


def _nothing(faults: Sequence[Fault], folder: Path) -> TrainingError:
    first = faults[0] if faults else None
    where = f"{first.file} {first.place}: {first.message}" if first else "no rows in any of the files"
    return TrainingError(
        f"nothing can be learned from these data: {len(faults):,} rows are left out; the first is {where}",
        expected="pictures with questions and answers",
        fix=f"see {folder / FAULTS} and docs/training-data.md",
    )


def _unwritable(folder: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{folder} cannot be written: {error}", expected="a folder with room", fix="free some space, or name another"
    )
