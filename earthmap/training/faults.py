"""What is wrong with rows of a data set: each is left out, counted, and named with its place and cause."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

CAUSES: Mapping[str, str] = MappingProxyType(
    {
        "format": "text that is not JSON, a damaged file, or columns that are not understood",
        "conversation": "turns that are no questions and answers",
        "answer": "a question without an answer",
        "question": "an answer without a question",
        "unknown": "a modality, task or date that there is not",
        "images": "more or fewer pictures than the text has places for",
        "missing": "a picture that is not there",
        "outside": "a picture that lies outside the folder of the pictures",
        "damaged": "a picture that is truncated, or no picture",
        "unsupported": "a picture of more than 8 bits a channel, or a video file",
        "size": "a picture too small or too large, of another size than its row says, or than the others of its row",
        "coordinates": "shapes that cannot be read or stand among words, and coordinates of another convention",
        "long": "more than the model can read at once",
        "repeated": "the same pictures with the same questions as in an earlier row",
        "label": "a shape without the name of its class",
        "geometry": "a label without a polygon, or with none that can be mended",
        "cell": "pixels of a cube that cannot be read",
        "crash": "rows of which one killed who read them, every time",
    }
)
"""Every cause for which a row, or one question of it, is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One row, or one question of it, that was left out."""

    file: str
    place: str
    """Where in the file: `line 12`, `row 5`, `feature 3`; empty for all of it."""
    cause: str
    """One of CAUSES."""
    message: str


class Unfit(Exception):
    """A row is given up: its cause, one of CAUSES, and a message."""

    def __init__(self, cause: str, message: str) -> None:
        self.cause = cause
        self.message = " ".join(message.encode("utf-8", "replace").decode().split())[:300]
        super().__init__(cause, message)

    def at(self, file: str, place: str) -> Fault:
        """The fault, where it was found."""
        return Fault(file=file, place=place, cause=self.cause, message=self.message)
