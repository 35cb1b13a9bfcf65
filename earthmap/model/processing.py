"""From views to patches, on whatever device the pixels are: Qwen3-VL's input without torchvision and without loops.

A patch is 16 × 16 pixels of two frames (a still picture twice), channel by channel. Patches of one picture come in the
order in which the tower merges them: 2 × 2 blocks row by row, and inside a block row by row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from earthmap.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

PATCH_PX, MERGE, FRAMES = 16, 2, 2
"""Pixels along a patch, patches along a merged block, frames in a patch."""

UNIT_PX = PATCH_PX * MERGE
"""Sides of a picture are whole multiples of this."""

_FULL = {"uint8": 255.0, "uint16": 65_535.0}


@dataclass(frozen=True, slots=True)
class PatchGrid:
    """Patches down and across one picture."""

    rows: int
    columns: int

    @property
    def patches(self) -> int:
        """Patches of the picture: what the tower looks at."""
        return self.rows * self.columns

    @property
    def tokens(self) -> int:
        """Merged blocks of the picture: what the decoder sees of it."""
        return self.patches // MERGE**2


def patch_grid(height_px: int, width_px: int) -> PatchGrid:
    """The grid of a picture. Raises ModelError for sides that are no multiples of 32."""
    if min(height_px, width_px) < UNIT_PX or height_px % UNIT_PX or width_px % UNIT_PX:
        raise ModelError(
            f"a picture of {height_px} × {width_px} pixels",
            expected=f"sides that are multiples of {UNIT_PX}",
            fix="choose a tile size of 128, 224 or 448",
        )
    return PatchGrid(height_px // PATCH_PX, width_px // PATCH_PX)


def normalize(pixels: Tensor) -> Tensor:
    """(…) uint8, uint16, or float in 0–1 → float32 in −1–1, as the public checkpoints were trained.

    Raises ModelError for other types, and for floats that are not finite.
    """
    import torch

    full = _FULL.get(str(pixels.dtype).removeprefix("torch."))
    if full is None and not pixels.dtype.is_floating_point:
        raise ModelError(f"pixels of type {pixels.dtype}", expected="uint8, uint16 or floats from 0 to 1")
    values = pixels.to(torch.float32)
    if full is None and not bool(torch.isfinite(values).all()):
        raise ModelError("pixels that are NaN or infinite", expected="floats from 0 to 1", fix="make views of the tile")
    return values.mul_(2.0 / full).sub_(1.0) if full else values.mul(2.0).sub_(1.0)


def patchify(pixels: Tensor) -> Tensor:
    """(B, 3, H, W) pictures, or (B, 2, 3, H, W) pairs of video frames → (B, P, 3 · 2 · 16 · 16) float32 patches.

    Raises ModelError for other shapes and sizes.
    """
    if pixels.ndim == 4:
        pixels = pixels.unsqueeze(1).expand(-1, FRAMES, -1, -1, -1)
    if pixels.ndim != 5 or pixels.shape[1] != FRAMES or pixels.shape[2] != 3:
        raise ModelError(f"pixels of shape {tuple(pixels.shape)}", expected="(B, 3, H, W) or (B, 2, 3, H, W)")
    batch, _, channels, height, width = pixels.shape
    grid = patch_grid(height, width)
    blocks = normalize(pixels).reshape(
        batch, FRAMES, channels,
        grid.rows // MERGE, MERGE, PATCH_PX,
        grid.columns // MERGE, MERGE, PATCH_PX,
    )  # fmt: skip
    ordered = blocks.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)  # (B, block rows, block columns, 2, 2, C, frames, 16, 16)
    return ordered.reshape(batch, grid.patches, channels * FRAMES * PATCH_PX**2)
