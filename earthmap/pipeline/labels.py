"""Labels as people hand them back: a GeoPackage, GeoJSON or a table, checked against the sample that they are of."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from earthmap.errors import BadRequestError
from earthmap.metrics.area import NOTHING, LabelledSample
from earthmap.outputs.labelling import SAMPLE_LAYER
from earthmap.pipeline.design import CANNOT_TELL, Design, Unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

_COUNT = re.compile(r"[0-9]{1,9}(\.0+)?")
"""A number of things; some programs write 3.0 for 3."""

NAMED = 5
"""Things that an error names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What was handed back."""

    key: str
    """Of the sample: the first part of every id."""
    by_unit: dict[str, str]
    """Label by unit; those that are empty are left out."""
    empty: int
    """Units that are listed without a label."""


def read_labels(path: str) -> Labels:
    """The labels in a file: GeoPackage (its layer `sample`, or its only one), GeoJSON or any other vector file, or CSV.

    Columns `id` and `label` are read and all others left alone; an empty label is none.

    Raises:
        BadRequestError: for a file that is not there or cannot be read, without these columns, with an id twice or
            empty, or with ids of several samples.
    """
    table = _table(path)
    missing = [name for name in ("id", "label") if name not in table]
    if missing:
        raise BadRequestError(
            f"{path} has no column {' and no column '.join(missing)}", expected="the columns id and label of the sample"
        )
    return matched_labels(table["id"], table["label"], source=path)


def matched_labels(ids: Sequence[str], labels: Sequence[str], *, source: str) -> Labels:
    """The labels of units by their ids, two lists of one length; empty for none. `source` is what messages call them.

    Raises:
        BadRequestError: for an id twice or empty, and for ids of several samples.
    """
    if "" in ids:
        raise BadRequestError(f"{source} has {ids.count('')} rows without an id", expected="the ids of the sample")
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise BadRequestError(f"{source} has {_listed(twice)} more than once", expected="one row for each unit")
    keys = sorted({name.rpartition("-")[0] for name in ids})
    if len(keys) != 1 or not keys[0]:
        raise BadRequestError(
            f"{source} has ids of {len(keys)} samples" if len(keys) > 1 else f"{source} has no rows of a sample",
            expected=f"ids of one, such as 1a2b3c4d-0001{', not ' + _listed(ids) if ids else ''}",
        )
    told = {name: text for name, text in zip(ids, labels, strict=True) if text}
    return Labels(key=keys[0], by_unit=told, empty=len(ids) - len(told))


def _table(path: str) -> dict[str, list[str]]:
    """The words of each column; empty for a cell that has none."""
    if "://" not in path and not Path(path).is_file():
        raise BadRequestError(f"there is no file {path}", expected="the sample with its labels")
    try:
        return _rows(path) if path.lower().endswith((".csv", ".tsv", ".txt")) else _layer(path)
    except (OSError, ValueError, RuntimeError, csv.Error) as error:
        raise BadRequestError(
            f"{path} cannot be read: {error}", expected="a GeoPackage, GeoJSON or CSV with the columns id and label"
        ) from error


def _rows(path: str) -> dict[str, list[str]]:
    text = Path(path).read_text(encoding="utf-8-sig")
    head = text.partition("\n")[0]
    rows = list(csv.reader(text.splitlines(), delimiter=max(",;\t", key=head.count)))
    if not rows:
        return {}
    return {
        name.strip(): [_plain(row[place]) if place < len(row) else "" for row in rows[1:] if row]
        for place, name in enumerate(rows[0])
    }


def _layer(path: str) -> dict[str, list[str]]:
    import pyogrio  # type: ignore[import-untyped]

    layers = [str(name) for name, _ in pyogrio.list_layers(path)]
    layer = SAMPLE_LAYER if SAMPLE_LAYER in layers else layers[0]
    frame = pyogrio.read_dataframe(path, layer=layer, read_geometry=False)
    cells = {name: zip(frame[name].tolist(), frame[name].isna().tolist(), strict=True) for name in frame.columns}
    return {name: ["" if none else _plain(str(value)) for value, none in column] for name, column in cells.items()}


def _plain(text: str) -> str:
    return " ".join(text.split())


def _listed(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedTiles:
    """The tiles in which people counted."""

    stratum: NDArray[np.int64]
    """(tile,) position in the design's strata."""
    found: NDArray[np.float64]
    """(tile,) things that the map has there."""
    counted: NDArray[np.float64]
    """(tile,)"""
    cannot_tell: tuple[int, ...]
    """Tiles of each stratum that the pictures do not decide."""


def counted_tiles(design: Design, labels: Labels) -> CountedTiles:
    """The sample's tiles that have a count, as the estimators take them.

    Raises:
        BadRequestError: for ids that the sample does not have, labels that are no counts, and no count at all.
    """
    units = _units(design, labels)
    strata = {stratum.name: place for place, stratum in enumerate(design.strata)}
    told = {unit.id: labels.by_unit[unit.id] for unit in units if _folded(labels.by_unit[unit.id]) != CANNOT_TELL}
    wrong = sorted({label for label in told.values() if not _COUNT.fullmatch(label)})
    if wrong:
        raise BadRequestError(
            f"labels that are no counts: {_listed(wrong)}", expected=f"0, 1, 2 and so on, or {CANNOT_TELL}"
        )
    if not told:
        raise BadRequestError("no unit has a count", expected="one at least; more are better")
    mine = [unit for unit in units if unit.id in told]
    unsure = Counter(strata[unit.stratum] for unit in units if unit.id not in told)
    return CountedTiles(
        stratum=np.array([strata[unit.stratum] for unit in mine], np.int64),
        found=np.array([unit.found for unit in mine], np.float64),
        counted=np.array([float(told[unit.id]) for unit in mine], np.float64),
        cannot_tell=tuple(unsure[place] for place in range(len(strata))),
    )


def _units(design: Design, labels: Labels) -> list[Unit]:
    """The units that have a label, by id. Raises BadRequestError for others' ids."""
    units = {unit.id: unit for unit in design.units}
    strange = sorted(set(labels.by_unit) - set(units))
    if strange:
        raise BadRequestError(f"the sample has no unit {_listed(strange)}", expected="the ids that it was drawn with")
    return [units[name] for name in sorted(labels.by_unit)]


def labelled_sample(design: Design, labels: Labels) -> LabelledSample:
    """The sample's units that have a label, as the estimators take them.

    Raises:
        BadRequestError: for ids that the sample does not have, labels that it does not offer, and no label at all.
    """
    mine = _units(design, labels)
    positions = {_folded(name): place for place, name in enumerate(design.classes)} | {_folded(CANNOT_TELL): NOTHING}
    wrong = sorted({label for label in labels.by_unit.values() if _folded(label) not in positions})
    if wrong:
        choices = ", ".join((*design.classes, CANNOT_TELL))
        raise BadRequestError(f"labels that there are not: {_listed(wrong)}", expected=f"one of {choices}")
    if all(_folded(label) == _folded(CANNOT_TELL) for label in labels.by_unit.values()):
        raise BadRequestError("no unit has a label that tells a class", expected="one at least; more are better")
    strata = {stratum.name: place for place, stratum in enumerate(design.strata)}
    return LabelledSample(
        classes=design.classes,
        strata=design.strata,
        stratum=np.array([strata[unit.stratum] for unit in mine], np.int64),
        mapped=np.array([positions[_folded(unit.mapped)] if unit.mapped else NOTHING for unit in mine], np.int64),
        label=np.array([positions[_folded(labels.by_unit[unit.id])] for unit in mine], np.int64),
        weight=np.array([unit.area_m2 / unit.inclusion for unit in mine], np.float64),
    )


def _folded(label: str) -> str:
    return _plain(label.replace("_", " ")).casefold()
