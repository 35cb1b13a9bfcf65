"""Evidence: small pictures of single tiles beside what was said of them, chosen by a rule that the page states."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.outputs.markup import escaped

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE_PX = 176
"""Of a small picture; about 8 kB each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One tile as the predictor saw it, and what became of it."""

    group: str
    """Why it is shown: `The most certain`."""
    title: str
    """What was said of it."""
    lines: tuple[str, ...] = ()
    rgb: tuple[NDArray[np.uint8], ...] = field(default=(), repr=False, compare=False)
    """Pictures (y, x, 3) of each date; none where there is nothing to see."""
    outlines: tuple[NDArray[np.float64], ...] = field(default=(), repr=False, compare=False)
    """Rings of what was found (n, 2): columns and rows of the last picture."""


def evidence_section(evidence: Sequence[Evidence]) -> str:
    """The pictures by group, as HTML; empty without any."""
    if not evidence:
        return ""
    drawn = any(one.outlines for one in evidence)
    groups = "".join(
        f"<h3>{escaped(name)}</h3><div class='tiles'>{''.join(_tile(one) for one in own)}</div>"
        for name, own in groupby(evidence, lambda one: one.group)
    )
    return (
        f'<section><h2>Evidence</h2>{groups}<p class="quiet">What the predictor saw, by a rule: of each kind at '
        f"most four tiles, or the worst, of different answers where there are.{_LINES if drawn else ''}</p></section>"
    )


_LINES = " Yellow lines are what it found."


def _tile(one: Evidence) -> str:
    last = len(one.rgb) - 1
    images = "".join(
        f'<img src="{thumbnail(rgb, one.outlines if number == last else ())}" width="{SIDE_PX}" height="{SIDE_PX}" '
        f'alt="tile: {escaped(one.title)}">'
        for number, rgb in enumerate(one.rgb)
    )
    shown = images or '<span class="none">no picture</span>'
    lines = "".join(f'<span class="quiet">{escaped(line)}</span>' for line in one.lines)
    return (
        f'<figure class="tile"><div>{shown}</div><figcaption><b>{escaped(one.title)}</b>{lines}</figcaption></figure>'
    )


def crop_png(one: Evidence) -> bytes:
    """The pictures of one piece of evidence side by side as a PNG, the outlines on the last."""
    from PIL import Image

    sheet = Image.new("RGB", (len(one.rgb) * (SIDE_PX + 4) - 4, SIDE_PX), "white")
    for number, rgb in enumerate(one.rgb):
        last = number == len(one.rgb) - 1
        sheet.paste(_drawn(rgb, one.outlines if last else ()), (number * (SIDE_PX + 4), 0))
    sink = io.BytesIO()
    sheet.save(sink, "PNG", optimize=True)
    return sink.getvalue()


def thumbnail(rgb: NDArray[np.uint8], outlines: Sequence[NDArray[np.float64]] = ()) -> str:
    """A picture (y, x, 3) with rings drawn on it as a `data:` address of a JPEG of SIDE_PX a side."""
    sink = io.BytesIO()
    _drawn(rgb, outlines).save(sink, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(sink.getvalue()).decode()


def _drawn(rgb: NDArray[np.uint8], outlines: Sequence[NDArray[np.float64]]) -> Any:
    """A picture of SIDE_PX a side with rings drawn on it; a small one is enlarged smoothly."""
    from PIL import Image, ImageDraw

    how = Image.Resampling.BOX if min(rgb.shape[:2]) >= SIDE_PX else Image.Resampling.BICUBIC
    image: Any = Image.fromarray(rgb).resize((SIDE_PX, SIDE_PX), how)
    pen = ImageDraw.Draw(image)
    scale = np.array([SIDE_PX / rgb.shape[1], SIDE_PX / rgb.shape[0]])
    for ring in outlines:
        places = [tuple(place) for place in (ring * scale).tolist()]
        for colour, width in (("#1d2b33", 3), ("#ffe14d", 1)):
            pen.line(places, fill=colour, width=width)
    return image
