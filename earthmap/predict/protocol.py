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
    from shapely.geometry.base import BaseGeometry


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What one observation shows of one tile: physical values and why some are missing."""

    sensor: str
    """Id of the sensor's row."""
    observation: str
    datetime: datetime.datetime | None
    """When it was measured (UTC); None where nobody says, as of a plain photograph."""
    bands: tuple[str, ...]
    """Canonical names of the bands, along axis 0 of `data`."""
    data: NDArray[np.float32] = field(repr=False, compare=False)
    """(band, y, x) over the picture (core and halo), in the sensor's unit (SAR: linear power); NaN where nodata."""
    mask: NDArray[np.uint8] = field(repr=False, compare=False)
    """(y, x) codes of the reason mask (`earthmap.sensors.masks.Reason`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TileInput:
    """One tile to ask about: one picture for a question about one date, two in order of time for a change."""

    tile: Tile | None
    """None where the pictures stand for themselves (`earthmap ask`): their core is all of them, without a halo."""
    pictures: tuple[Picture, ...]
    footprints: tuple[BaseGeometry, ...] = field(default=(), repr=False)
    """What a question of task damage is asked of, one by one: valid polygons or points in coordinates 0–1 of the
    picture (x right, y down); the centroid of each lies in the core."""

    @property
    def side_px(self) -> int:
        """Side of its pictures in pixels, as the tile says, else as the first of them has it."""
        if self.tile is not None:
            return self.tile.grid.picture_px
        return len(self.pictures[0].mask) if self.pictures else 0

    @property
    def core(self) -> tuple[slice, slice]:
        """The rows and columns of a picture that are answered."""
        halo = 0 if self.tile is None else self.tile.grid.halo_px
        inner = slice(halo, self.side_px - halo)
        return inner, inner

    @property
    def fault(self) -> str | None:
        """What is wrong with the arrays of its pictures, for people; None where nothing is."""
        side = self.side_px
        for picture in self.pictures:
            if picture.data.shape != (len(picture.bands), side, side) or picture.mask.shape != (side, side):
                shapes = f"data {picture.data.shape}, mask {picture.mask.shape}"
                return f"the picture has {shapes}; expected {(len(picture.bands), side, side)} and {(side, side)}"
            if np.isinf(picture.data).any():
                return "the picture holds infinite values; expected finite numbers or NaN for nodata"
        return None


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
