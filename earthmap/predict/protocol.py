"""The seam between pixels and answers: one class for batch runs, serving and evaluation."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from earthmap.grid.tiling import Tile
from earthmap.tasks.answer import Answer
from earthmap.tasks.query import Query

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What one observation shows of one tile: physical values and why some are missing."""

    sensor: str
    """Id of the sensor's row."""
    observation: str
    datetime: datetime.datetime
    bands: tuple[str, ...]
    """Canonical names of the bands, along axis 0 of `data`."""
    data: NDArray[np.float32] = field(repr=False, compare=False)
    """(band, y, x) over the picture (core and halo), in the sensor's unit (SAR: linear power); NaN where nodata."""
    mask: NDArray[np.uint8] = field(repr=False, compare=False)
    """(y, x) codes of the reason mask (`earthmap.sensors.masks.Reason`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TileInput:
    """One tile to ask about: one picture for a question about one date, two in order of time for a change."""

    tile: Tile
    pictures: tuple[Picture, ...]


class Predictor(Protocol):
    """Tiles and queries in, answers out. An instance is used by one thread at a time, in one process."""

    @property
    def key(self) -> str:
        """Content key of everything that can change an answer: weights or rules, views, version."""
        ...

    def predict(self, inputs: Sequence[TileInput], queries: Sequence[Query]) -> list[list[Answer]]:
        """One list for each input, with one answer for each query, in order.

        What is wrong with one tile becomes that tile's `skipped` or `failed` answer and never an exception.
        """
        ...
