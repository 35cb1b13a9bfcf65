"""What is joined into one map, and where what it says comes from."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, order=True)
class Layer:
    """What is joined into one map: one query, one sensor, and one observation where several are asked."""

    query: str
    """Content key of the query."""
    sensor: str
    """Empty where there was nothing to look at."""
    observation: str
    """Empty where each cell has the one observation that was chosen for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where what a cell says in one layer comes from."""

    scenes: tuple[str, ...]
    datetime_min: datetime.datetime
    datetime_max: datetime.datetime
    predictor: str
    notes: tuple[str, ...]

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> Source | None:
        """That of rows of answers (`answer_schema`); None where nothing was looked at."""
        seen = [row for row in rows if row["datetime_min"] is not None]
        if not seen:
            return None
        return cls(
            scenes=tuple(sorted({scene for row in seen for scene in row["scenes"]})),
            datetime_min=min(row["datetime_min"] for row in seen),
            datetime_max=max(row["datetime_max"] for row in seen),
            predictor=seen[0]["predictor"],
            notes=tuple(sorted({note for row in seen if row["status"] == "answered" for note in row["notes"]})),
        )

    @classmethod
    def united(cls, sources: Iterable[Source]) -> Source:
        """That of several together; the order does not matter."""
        members = set(sources)
        return cls(
            scenes=tuple(sorted({scene for source in members for scene in source.scenes})),
            datetime_min=min(source.datetime_min for source in members),
            datetime_max=max(source.datetime_max for source in members),
            predictor=min(source.predictor for source in members),
            notes=tuple(sorted({note for source in members for note in source.notes})),
        )

    def to_json(self) -> str:
        """Its one JSON form."""
        times = [self.datetime_min.isoformat(), self.datetime_max.isoformat()]
        return json.dumps([list(self.scenes), *times, self.predictor, list(self.notes)])

    @classmethod
    def from_json(cls, text: str) -> Source:
        """The inverse of `to_json`."""
        scenes, start, end, predictor, notes = json.loads(text)
        return cls(
            scenes=tuple(scenes),
            datetime_min=datetime.datetime.fromisoformat(start),
            datetime_max=datetime.datetime.fromisoformat(end),
            predictor=predictor,
            notes=tuple(notes),
        )


def tile_names(names: Sequence[str], bits: int) -> frozenset[str]:
    """The names whose bit is set."""
    return frozenset(name for bit, name in enumerate(names) if bits >> bit & 1)
