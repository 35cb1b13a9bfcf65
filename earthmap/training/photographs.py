"""Pictures of data sets as a row shows them: on a square of one side, none cut, none enlarged.

A smaller picture stands in the upper left corner before grey, as `earthmap ask` shows a photograph; a larger one is
shrunk to fit by the mean of what falls on a pixel, so that what is said of it stays true
(docs/decisions/0016-pictures-of-data-sets-are-padded-or-shrunk.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from earthmap.cube.photograph import decode_photograph
from earthmap.errors import ReadError
from earthmap.model.processing import UNIT_PX
from earthmap.sensors.views import NODATA_GREY
from earthmap.training.faults import Unfit

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from earthmap.training.conversations import Source

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
"""As Pillow calls what data sets keep pictures in."""

MOST_SHRUNK = 4.0
"""A picture that would have to shrink more is left out: what is asked about could no longer be seen."""

MAX_BYTES = 256 * 2**20
"""Of a picture's file."""

_CAUSES = {"too_large": "size", "unsupported": "unsupported"}
"""What a failed read is counted as; anything else is damage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A picture on its square."""

    levels: NDArray[np.uint8] = field(repr=False, compare=False)
    """(3, side, side)."""
    size_px: tuple[int, int]
    """Width and height that the file has."""
    scale: tuple[float, float]
    """How much of the square's width and height it fills."""
    seen_share: float
    """Share of the square that shows something."""


def open_picture(source: Source, folder: Path) -> tuple[bytes, str]:
    """The bytes of a picture's file, and its name for people.

    Raises:
        Unfit: for one that is not there, lies outside `folder`, or is no local file.
    """
    if isinstance(source, bytes):
        return source, "the picture"
    if "://" in source:
        raise Unfit("missing", f"{source[:120]} is an address; expected a file: download the pictures first")
    name = source[:200]
    try:
        file, top = (folder / source).resolve(), folder.resolve()
        if not file.is_relative_to(top):
            raise Unfit("outside", f"{name} lies outside {folder}; name the folder of the pictures with images=")
        if file.stat().st_size > MAX_BYTES:
            raise Unfit("size", f"{name} has {file.stat().st_size:,} bytes; expected at most {MAX_BYTES:,}")
        return file.read_bytes(), name
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Unfit("missing", f"there is no {name} in {folder}") from error
    except (OSError, ValueError) as error:
        raise Unfit("missing", f"{name} cannot be read: {error}") from error


def fit_picture(data: bytes, name: str, *, side_px: int) -> Fitted:
    """A picture on a square of `side_px`.

    Raises:
        Unfit: for one that is no whole picture of 8 bits a channel, or too small or too large.
    """
    from PIL import Image

    try:
        photograph = decode_photograph(data, name=name, formats=FORMATS)
    except ReadError as error:
        raise Unfit(_CAUSES.get(error.reason, "damaged"), str(error)) from error
    height, width = photograph.valid.shape
    shrink = max(1.0, max(height, width) / side_px)
    if min(height, width) < UNIT_PX or shrink > MOST_SHRUNK:
        raise Unfit(
            "size",
            f"{name} has {width} × {height} pixels; expected {UNIT_PX} to {round(MOST_SHRUNK * side_px)} a side",
        )
    rgb = np.where(photograph.valid[..., None], photograph.rgb, np.uint8(NODATA_GREY))
    columns, rows = max(1, round(width / shrink)), max(1, round(height / shrink))
    if shrink > 1.0:
        rgb = np.asarray(Image.fromarray(rgb).resize((columns, rows), Image.Resampling.BOX))
    levels = np.full((side_px, side_px, 3), NODATA_GREY, np.uint8)
    levels[:rows, :columns] = rgb
    return Fitted(
        levels=np.ascontiguousarray(np.moveaxis(levels, -1, 0)),
        size_px=(width, height),
        scale=(columns / side_px, rows / side_px),
        seen_share=float(photograph.valid.mean()) * columns * rows / side_px**2,
    )
