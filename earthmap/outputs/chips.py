"""Image chips: what the sensor saw of a pixel or a tile, for people who label it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from earthmap.sensors.views import NODATA_GREY

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import ImageDraw

    Bytes = NDArray[np.uint8]

PANEL_PX = 330
"""Side of a panel on the chip, about."""

GAP_PX, CAPTION_PX = 8, 22
FRAME = ((0, 0, 0), (255, 255, 0))
"""Colours of the square around the pixel: dark outside, bright inside, so that it shows on any ground."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipPanel:
    """One picture of a chip."""

    rgb: Bytes = field(repr=False, compare=False)
    """(side, side, 3)."""
    caption: str
    frame: tuple[int, int] | None = None
    """First and last but one row, and column, of the ground in question; None for the pixel in the middle."""
    side_px: int = PANEL_PX
    """Side that it is drawn with."""


def cut_around(rgb: Bytes, row: int, column: int, reach: int) -> Bytes:
    """(2 × reach + 1, 2 × reach + 1, 3) around a pixel of (y, x, 3); grey beyond the edge."""
    side = 2 * reach + 1
    cut = np.full((side, side, 3), NODATA_GREY, np.uint8)
    top, left = row - reach, column - reach
    inner = rgb[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)]
    down, right = max(-top, 0), max(-left, 0)
    cut[down : down + inner.shape[0], right : right + inner.shape[1]] = inner
    return cut


def render_chip(rows: Sequence[Sequence[ChipPanel]], *, title: str) -> bytes:
    """A PNG of panels in rows, each with its caption and what is in question framed; equal input gives equal bytes."""
    from PIL import Image, ImageDraw

    side = max(panel.side_px for row in rows for panel in row)
    columns = max(len(row) for row in rows)
    width = GAP_PX + columns * (side + GAP_PX)
    height = CAPTION_PX + GAP_PX + len(rows) * (side + CAPTION_PX + GAP_PX)
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP_PX, 6), title, fill=(20, 20, 20))
    for down, row in enumerate(rows):
        top = CAPTION_PX + GAP_PX + down * (side + CAPTION_PX + GAP_PX)
        for right, panel in enumerate(row):
            _paste(sheet, pen, panel, (GAP_PX + right * (side + GAP_PX), top))
    sink = io.BytesIO()
    sheet.save(sink, format="PNG")
    return sink.getvalue()


def _paste(sheet: object, pen: ImageDraw.ImageDraw, panel: ChipPanel, corner: tuple[int, int]) -> None:
    from PIL import Image

    side = panel.rgb.shape[0]
    left, top = corner
    picture = Image.fromarray(panel.rgb).resize((panel.side_px, panel.side_px), Image.Resampling.NEAREST)
    sheet.paste(picture, corner)  # type: ignore[attr-defined]
    scale = panel.side_px / side
    near, far = (edge * scale for edge in panel.frame or (side // 2, side // 2 + 1))
    for grow, colour in zip((2, 1), FRAME, strict=True):
        pen.rectangle(
            (left + near - grow, top + near - grow, left + far + grow - 1, top + far + grow - 1), outline=colour
        )
    pen.text((left, top + panel.side_px + 5), panel.caption, fill=(60, 60, 60))
