"""The backdrops of a page as small files inside it, and hatching for what they show but nobody could see."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.outputs.backdrop import Backdrop, shrink
from earthmap.outputs.drawing import UNSEEN
from earthmap.sensors.masks import Reason, unseen

if TYPE_CHECKING:
    from numpy.typing import NDArray

PICTURE_PIXELS = 16_000_000
"""Of all backdrops of a page together; above it each is made smaller."""

PICTURE_BYTES = 6_000_000
"""Of all backdrops of a page together, before base64; above it each is made smaller."""

SMALLEST_PX = 200
"""No backdrop is made smaller than this."""

VEIL_PX = 700
"""Longer side of a hatching."""

STRIPE_PX = 9


def encode_pictures(backdrops: Sequence[Backdrop]) -> list[str]:
    """Each backdrop as a WebP file in a `data:` address, all together at most PICTURE_BYTES (or SMALLEST_PX a side)."""
    side = int((PICTURE_PIXELS / max(1, len(backdrops))) ** 0.5)
    while True:
        files = [_webp(shrink(backdrop, side)) for backdrop in backdrops]
        size = sum(map(len, files))
        if size <= PICTURE_BYTES or side <= SMALLEST_PX:
            return ["data:image/webp;base64," + base64.b64encode(file).decode() for file in files]
        largest = min(side, max(max(backdrop.alpha.shape) for backdrop in backdrops))
        side = max(SMALLEST_PX, int(largest * 0.95 * (PICTURE_BYTES / size) ** 0.5))


def _webp(backdrop: Backdrop) -> bytes:
    from PIL import Image

    sink = io.BytesIO()
    Image.fromarray(np.dstack([backdrop.rgb, backdrop.alpha])).save(sink, "WEBP", quality=86, method=4)
    return sink.getvalue()


def hidden(backdrop: Backdrop, reasons: Sequence[str]) -> NDArray[np.bool_]:
    """(y, x) True where the picture shows something that counts as unseen for `reasons`, as clouds do."""
    there: NDArray[np.bool_] = backdrop.reasons != Reason.NODATA
    return there & unseen(backdrop.reasons, [reason for reason in reasons if reason != "nodata"])


def veil(backdrop: Backdrop, reasons: Sequence[str]) -> str | None:
    """Hatching over what is `hidden`, as a PNG file in a `data:` address; None where nothing is."""
    from PIL import Image

    mask = hidden(shrink(backdrop, VEIL_PX), reasons)
    if not mask.any():
        return None
    down, across = np.indices(mask.shape)
    line: NDArray[np.bool_] = np.less((across - down) % STRIPE_PX, 1)
    dark = [int(UNSEEN[index : index + 2], 16) for index in (1, 3, 5)]
    rgba = np.where(line[:, :, None], np.array([*dark, 215], np.uint8), np.array([255, 255, 255, 105], np.uint8))
    rgba[~mask] = 0
    sink = io.BytesIO()
    image: Any = Image.fromarray(rgba.astype(np.uint8))
    image.save(sink, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(sink.getvalue()).decode()
