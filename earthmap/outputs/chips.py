"""Image chips: what the sensor saw around one pixel, near and from afar, for people who label it."""

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
    """(side, side, 3), the pixel in question in the middle; `side` is odd."""
    caption: str


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
    """A PNG of panels in rows, each with its caption, the pixel in question framed; equal input gives equal bytes."""
    from PIL import Image, ImageDraw

    columns = max(len(row) for row in rows)
    width = GAP_PX + columns * (PANEL_PX + GAP_PX)
    height = CAPTION_PX + GAP_PX + len(rows) * (PANEL_PX + CAPTION_PX + GAP_PX)
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP_PX, 6), title, fill=(20, 20, 20))
    for down, row in enumerate(rows):
        top = CAPTION_PX + GAP_PX + down * (PANEL_PX + CAPTION_PX + GAP_PX)
        for right, panel in enumerate(row):
            _paste(sheet, pen, panel, (GAP_PX + right * (PANEL_PX + GAP_PX), top))
    sink = io.BytesIO()
    sheet.save(sink, format="PNG")
    return sink.getvalue()


def _paste(sheet: object, pen: ImageDraw.ImageDraw, panel: ChipPanel, corner: tuple[int, int]) -> None:
    from PIL import Image

    side = panel.rgb.shape[0]
    left, top = corner
    picture = Image.fromarray(panel.rgb).resize((PANEL_PX, PANEL_PX), Image.Resampling.NEAREST)
    sheet.paste(picture, corner)  # type: ignore[attr-defined]
    scale = PANEL_PX / side
    near, far = side // 2 * scale, (side // 2 + 1) * scale
    for grow, colour in zip((2, 1), FRAME, strict=True):
        pen.rectangle(
            (left + near - grow, top + near - grow, left + far + grow - 1, top + far + grow - 1), outline=colour
        )
    pen.text((left, top + PANEL_PX + 5), panel.caption, fill=(60, 60, 60))
