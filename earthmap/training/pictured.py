"""Rows of data sets whose records name their pictures, or hold them: what a task reads, and how it becomes rows."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.model.config import MAX_TOKENS
from earthmap.model.processing import FRAMES, UNIT_PX
from earthmap.tasks import frame_name, picture_name
from earthmap.training.conversations import read_conversation
from earthmap.training.faults import Fault, Unfit
from earthmap.training.instructions import asked_of
from earthmap.training.photographs import Fitted, fit_picture, open_picture
from earthmap.training.row_files import DataRow, row_table
from earthmap.training.rows import Row

if TYPE_CHECKING:
    import pyarrow
    from numpy.typing import NDArray

    from earthmap.training.conversations import Conversation
    from earthmap.training.rows import Asked

MARKS = 32
"""Tokens of a conversation beside its pictures and words, at most."""

BATCH_ROWS = 64
"""Rows of a Parquet file that are held at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What the data set says of all its rows."""

    file: str
    folder: str
    """That pictures are named from."""
    modality: str
    """Empty where the number of pictures tells it."""
    view: str
    side_px: int


Told = tuple[str, "Conversation"]
"""A conversation, and where in its file it stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationUnit:
    """Conversations of one file, those about the same pictures together."""

    setting: Setting
    groups: tuple[tuple[Told, ...], ...]

    @property
    def where(self) -> tuple[str, str]:
        """Its file, and the places of its first and last conversation."""
        return self.setting.file, f"{self.groups[0][0][0]} to {self.groups[-1][-1][0]}"

    def tables(self) -> Iterator[pyarrow.Table]:
        """Rows and faults."""
        for told in self.groups:
            yield group_table(told, self.setting)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetUnit:
    """One row group of a Parquet file."""

    setting: Setting
    group: int
    first: int
    """Number of its first row in the file."""
    columns: tuple[str, ...]

    @property
    def where(self) -> tuple[str, str]:
        """Its file, and its first row."""
        return self.setting.file, f"row group {self.group}, from row {self.first}"

    def tables(self) -> Iterator[pyarrow.Table]:
        """Rows and faults; those of a damaged group end in a fault."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        number = self.first
        try:
            with pq.ParquetFile(self.setting.file) as file:
                for batch in file.iter_batches(BATCH_ROWS, row_groups=[self.group], columns=list(self.columns)):
                    records = [(f"row {number + place}", record) for place, record in enumerate(batch.to_pylist())]
                    number += len(records)
                    yield from record_tables(records, self.setting)
        except (OSError, pa.ArrowException, ValueError) as error:
            yield row_table(
                [], [Unfit("format", f"cannot be read from here on: {error}").at(self.setting.file, f"row {number}")]
            )


_PICTURES, _SAID = ("image", "images"), ("conversations", "messages", "conversation", "texts", "question")
_BESIDE = ("answer", "answers", "modality", "task", "category", "date", "dates", "width", "height")


def parquet_units(setting: Setting) -> list[ParquetUnit]:
    """The row groups of a file. Raises Unfit for a damaged one, and one without pictures and what is said of them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(setting.file)
    except (OSError, pa.ArrowException) as error:
        raise Unfit("format", f"no whole Parquet file: {error}") from error
    names = metadata.schema.to_arrow_schema().names
    if not set(names) & set(_SAID):
        raise Unfit("format", f"the columns {', '.join(names)[:120]}; expected one of {', '.join(_SAID)}")
    units, first = [], 0
    for group in range(metadata.num_row_groups):
        columns = tuple(name for name in names if name in (*_PICTURES, *_SAID, *_BESIDE))
        units.append(ParquetUnit(setting=setting, group=group, first=first, columns=columns))
        first += metadata.row_group(group).num_rows
    return units


def record_tables(records: Sequence[tuple[str, Any]], setting: Setting) -> Iterator[pyarrow.Table]:
    """Records as rows, those about the same pictures together."""
    groups, faults = grouped(records, setting.file)
    yield row_table([], faults)
    for told in groups:
        yield group_table(told, setting)


def grouped(
    records: Sequence[tuple[str, Any]] | Iterator[tuple[str, Any]], file: str
) -> tuple[list[tuple[Told, ...]], list[Fault]]:
    """Conversations about the same pictures together, in the order in which they come first; and what is none."""
    groups: dict[Hashable, list[Told]] = {}
    faults: list[Fault] = []
    for place, record in records:
        try:
            if isinstance(record, Unfit):
                raise record
            said = read_conversation(record)
        except Unfit as unfit:
            faults.append(unfit.at(file, place))
            continue
        faults += [unfit.at(file, place) for unfit in said.unfit]
        same = (tuple(map(_short, said.images)), said.modality, said.dates, said.seconds, said.size_px)
        groups.setdefault(same, []).append((place, said))
    return [tuple(told) for told in groups.values()], faults


def _short(source: str | bytes) -> str | bytes:
    return hashlib.sha256(source).digest() if isinstance(source, bytes) else source


# ── one group → one row ──────────────────────────────────────────────────────────────────────────────────────


def group_table(told: Sequence[Told], setting: Setting) -> pyarrow.Table:
    """Conversations about the same pictures as a table: their row, and what is wrong with them."""
    try:
        fitted = _fit(told[0][1], setting)
    except Unfit as unfit:
        return row_table([], [unfit.at(setting.file, place) for place, _ in told])
    asked, faults = _asked(told, fitted, setting)
    if not asked:
        return row_table([], faults)
    said = told[0][1]
    row = Row(
        id=told[0][0],
        modality=_modality(said, setting),
        names=_names(said, fitted, setting),
        pictures=_pictures(said, fitted, setting),
        asked=tuple(asked),
    )
    notes = [
        note
        for note, is_so in (
            ("pictures shrunk", _is_shrunk(fitted[0], setting)),
            ("pictures padded", min(fitted[0].scale) < 1),
        )
        if is_so
    ]
    return row_table([DataRow(row=row, source=setting.file, notes=tuple(notes))], faults)


def _modality(said: Conversation, setting: Setting) -> str:
    return said.modality or setting.modality or ("optical" if len(said.images) == 1 else "temporal")


def _pictures(said: Conversation, fitted: Sequence[Fitted], setting: Setting) -> NDArray[np.uint8]:
    """(view, 3, y, x) levels; of a video (pair, 2, 3, y, x), the last frame twice where their number is odd."""
    levels = [one.levels for one in fitted]
    if _modality(said, setting) != "video":
        return np.stack(levels)
    levels += levels[-1:] * (len(levels) % FRAMES)
    return np.stack(levels).reshape(-1, FRAMES, *levels[0].shape)


def _is_shrunk(fitted: Fitted, setting: Setting) -> bool:
    return max(fitted.size_px) > setting.side_px


def _fit(said: Conversation, setting: Setting) -> list[Fitted]:
    """The pictures on their squares. Raises Unfit."""
    found = []
    for source in said.images:
        data, name = open_picture(source, Path(setting.folder))
        found.append(fit_picture(data, name, side_px=setting.side_px))
        if said.size_px not in (None, found[-1].size_px):
            raise Unfit("size", f"{name} has {_by(found[-1].size_px)} pixels, and its row says {_by(said.size_px)}")
    sizes = list(dict.fromkeys(one.size_px for one in found))
    if len(sizes) > 1:
        raise Unfit("size", f"pictures of one row have {_by(sizes[0])} and {_by(sizes[1])} pixels")
    is_video = _modality(said, setting) == "video"
    if is_video and len(found) < FRAMES:
        raise Unfit("images", "one frame of a video; expected two or more")
    tokens = -(-len(found) // (FRAMES if is_video else 1)) * (setting.side_px // UNIT_PX) ** 2
    if tokens > MAX_TOKENS // 2:
        raise Unfit("long", f"{len(found)} pictures take {tokens:,} tokens; expected at most {MAX_TOKENS // 2:,}")
    return found


def _by(size: tuple[int, int] | None) -> str:
    return f"{size[0]} × {size[1]}" if size else "nothing"


def _names(said: Conversation, fitted: Sequence[Fitted], setting: Setting) -> tuple[str, ...]:
    if _modality(said, setting) == "video":
        seconds = list(said.seconds or map(float, range(len(fitted))))
        seconds += seconds[-1:] * (len(seconds) % FRAMES)
        firsts = range(0, len(seconds), FRAMES)
        return tuple(frame_name(sum(seconds[first : first + FRAMES]) / FRAMES) for first in firsts)
    dates = said.dates or (None,) * len(fitted)
    return tuple(
        picture_name(setting.view, datetime=date, seen_share=one.seen_share)
        for date, one in zip(dates, fitted, strict=True)
    )


def _asked(told: Sequence[Told], fitted: Sequence[Fitted], setting: Setting) -> tuple[list[Asked], list[Fault]]:
    """The questions of all conversations, each once, and what is wrong with others."""
    asked: dict[Asked, None] = {}
    faults: list[Fault] = []
    names, tokens = _names(told[0][1], fitted, setting), (setting.side_px // UNIT_PX) ** 2
    room = MAX_TOKENS - MARKS - sum(tokens + len(name.encode()) + 2 for name in names)
    for place, said in told:
        for exchange in said.exchanges:
            try:
                one = asked_of(exchange, task=said.task, pictures=len(fitted), scale=fitted[0].scale)
                if len((one.question + one.answer).encode()) > room:
                    raise Unfit("long", f"{one.question[:60]!r} and its answer have more than {room:,} bytes")
                if one in asked:
                    raise Unfit("repeated", f"{one.question[:60]!r} is asked of the same pictures again")
            except Unfit as unfit:
                faults.append(unfit.at(setting.file, place))
            else:
                asked[one] = None
    return list(asked), faults
