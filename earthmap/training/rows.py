"""One row of instruction data: what is seen of one place, and several questions with their answers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from earthmap.errors import TrainingError
from earthmap.model.processing import UNIT_PX
from earthmap.tasks import CATEGORIES
from earthmap.training.stages import MODALITIES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question and what the model should say."""

    question: str
    answer: str
    category: str
    """One of `earthmap.tasks.CATEGORIES`."""
    spatial: bool = False
    """The answer is SLIS, which is spelt terminal by terminal."""
    choices: tuple[str, ...] = ()
    """The texts one of which is the answer; empty for an answer that is written."""
    task: str = ""
    """Id in `earthmap.tasks.TASKS`; empty where the data do not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is seen of one place, and what is asked about it. Raises TrainingError where it makes no sense."""

    id: str
    modality: str
    """One of `MODALITIES`."""
    names: tuple[str, ...]
    """The words before each picture (`earthmap.tasks.picture_name`)."""
    pictures: NDArray[np.uint8] = field(repr=False, compare=False)
    """(view, 3, y, x) uint8; of a video (pair, 2, 3, y, x), the frames two by two."""
    asked: tuple[Asked, ...]
    classes: tuple[str, ...] = ()
    """What `shares` are shares of, as words."""
    shares: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)
    """(view, blocks, class) share of each merged 32-pixel block, 0 to 1, in the order in which the decoder sees them;
    NaN for a class that cannot be told there. None where only answers are known."""

    def __post_init__(self) -> None:
        faults = self._faults() or self._size_faults() or self._share_faults()
        if faults:
            raise TrainingError(f"the row {self.id!r} {faults[0]}", fix="mend or leave out the row")

    def _faults(self) -> list[str]:
        shape = self.pictures.shape
        faults = []
        if self.modality not in MODALITIES:
            faults.append(f"has the modality {self.modality!r}, not one of {', '.join(MODALITIES)}")
        wanted, expected = ((2, 3), "(pair, 2, 3, y, x)") if self.modality == "video" else ((3,), "(view, 3, y, x)")
        if len(shape) != len(wanted) + 3 or shape[1:-2] != wanted or self.pictures.dtype.name != "uint8":
            faults.append(f"has pictures of shape {shape} and type {self.pictures.dtype}, not {expected} uint8")
        elif shape[0] != len(self.names) or not self.names:
            faults.append(f"has {shape[0]} pictures and {len(self.names)} names")
        if not self.asked:
            faults.append("asks nothing")
        if any(not one.question.strip() or not one.answer.strip() for one in self.asked):
            faults.append("has a question or an answer without text")
        lost = [one.answer for one in self.asked if one.choices and one.answer not in one.choices]
        if lost:
            faults.append(f"has the answer {lost[0]!r}, which is not among its choices")
        unknown = [one.category for one in self.asked if one.category not in CATEGORIES]
        if unknown:
            faults.append(f"has a question of the category {unknown[0]!r}, not one of {', '.join(CATEGORIES)}")
        return faults

    def _size_faults(self) -> list[str]:
        sides = self.pictures.shape[-2:]
        if all(side > 0 and side % UNIT_PX == 0 for side in sides):
            return []
        return [f"has pictures of {' × '.join(map(str, sides))} pixels, not of multiples of {UNIT_PX}"]

    def _share_faults(self) -> list[str]:
        if self.shares is None:
            return []
        wanted = (len(self.names), math.prod(self.pictures.shape[-2:]) // UNIT_PX**2, len(self.classes))
        if self.shares.shape != wanted or not self.classes:
            return [f"has shares of shape {self.shares.shape} for {len(self.classes)} classes, not {wanted}"]
        if self.shares.dtype.kind != "f" or bool(((self.shares < 0) | (self.shares > 1 + 1e-5)).any()):
            return ["has shares that are not numbers from 0 to 1"]
        return []
