"""How a sample was drawn: kept in the run folder, where who labels need not look and `earthmap estimate` does."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from earthmap.errors import BadRequestError, StorageError
from earthmap.metrics.area import Stratum
from earthmap.storage import Storage

SAMPLES_PATH = "samples"
DESIGN_NAME = "design.json"
FORMAT = 1

CANNOT_TELL = "cannot tell"
"""The label of a unit that the pictures do not decide."""

UNMAPPED = ""
"""What the map says where it says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One pixel, or tile, of a sample."""

    id: str
    stratum: str
    mapped: str
    """Class of the map; UNMAPPED where it says nothing."""
    area_m2: float
    inclusion: float
    """Probability with which it was drawn."""
    cell_id: str
    tile_id: str
    row: int
    """In the cell's core, 0 in the north; the upper left one of a tile."""
    column: int
    lon: float
    """Of its centre, in degrees."""
    lat: float
    date: str
    """When its pictures were measured, to the day: two of a change; empty where there is none."""
    found: int = 0
    """Things that the map has in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """A sample before it is labelled."""

    key: str
    """First part of every unit's id."""
    question: int
    text: str
    query_key: str
    observation: str
    dates: tuple[str, ...]
    """When the pictures were measured."""
    seed: int
    classes: tuple[str, ...]
    """What a label may say, `none` among them; empty where it is a count."""
    files: dict[str, str]
    """SHA-256 of what was sampled, by path in the run folder."""
    strata: tuple[Stratum, ...]
    """Ground that units were drawn from, in m²."""
    unsampled: tuple[Stratum, ...]
    """Ground of the area that no unit was drawn from, in m²."""
    units: tuple[Unit, ...]
    found: dict[str, int] = field(default_factory=dict)
    """Things that the map has in each stratum, where they are counted."""

    @property
    def counts(self) -> bool:
        """True where units are tiles, and labels say how many things there are."""
        return not self.classes

    @property
    def folder(self) -> str:
        """Where it stands in the run folder."""
        return f"{SAMPLES_PATH}/{self.key}"

    def write(self, storage: Storage) -> None:
        """Keep it in the run folder."""
        content = {"format": FORMAT, **dataclasses.asdict(self)}
        storage.write(f"{self.folder}/{DESIGN_NAME}", json.dumps(content, indent=1, sort_keys=True).encode())


def unit_name(key: str, place: int) -> str:
    """Id of the unit at a place, from 1, of the sample `key`."""
    return f"{key}-{place:04d}"


def read_design(storage: Storage, key: str) -> Design:
    """The sample whose units' ids begin with `key`.

    Raises:
        BadRequestError: where the run has no such sample.
        StorageError: for one that cannot be read.
    """
    path = f"{SAMPLES_PATH}/{key}/{DESIGN_NAME}"
    try:
        plain: dict[str, Any] = json.loads(storage.read(path))
        if plain.pop("format") != FORMAT:
            raise ValueError("another version of earthmap wrote it")
        for name, kind in (("strata", Stratum), ("unsampled", Stratum)):
            plain[name] = tuple(kind(**one) for one in plain[name])
        plain["units"] = tuple(Unit(**one) for one in plain["units"])
        return Design(**{**plain, "classes": tuple(plain["classes"]), "dates": tuple(plain["dates"])})
    except FileNotFoundError:
        known = sorted({path.split("/")[1] for path in storage.list(SAMPLES_PATH)})
        raise BadRequestError(
            f"{storage.address} has no sample {key!r}",
            expected=f"labels of a sample of this run: {', '.join(known)}" if known else "a sample of this run",
            fix="give the run that the sample was drawn from" if known else f"earthmap sample {storage.address}",
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{storage.locate(path)} is damaged: {error}", fix="draw the sample again") from error
