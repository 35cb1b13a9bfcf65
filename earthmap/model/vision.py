"""The vision tower, dense: pictures of one size as one batch, positions computed once for each size.

The weights are those of transformers' `Qwen3VLVisionModel`; its own forward packs pictures of any size into one row and
loops over them in Python where flash-attention is absent, in every layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from earthmap.model.fusing import Parts
from earthmap.model.processing import MERGE, PatchGrid

if TYPE_CHECKING:
    from torch import Tensor

_THETA = 10_000.0
"""Base of the tower's rotary frequencies (Qwen3-VL)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VisualFeatures:
    """What the tower says of a batch of pictures."""

    last: Tensor
    """(B, N, D) after the last layer and its merger, D the decoder's width."""
    levels: tuple[Tensor, ...]
    """(B, N, D) of each level from shallow to deep, for the first decoder layers."""


def join_features(parts: Sequence[VisualFeatures]) -> VisualFeatures:
    """The pictures of several sizes as one sequence, in the order given."""
    import torch

    return VisualFeatures(
        last=torch.cat([part.last for part in parts], dim=1),
        levels=tuple(torch.cat(level, dim=1) for level in zip(*(part.levels for part in parts), strict=True)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GridPositions:
    """Where the patches of one picture size are, for one tower."""

    learned: Tensor
    """(P, width) learned positions, interpolated."""
    cos: Tensor
    """(P, 1, head width) float32."""
    sin: Tensor
    """(P, 1, head width) float32."""


def _rows_and_columns(grid: PatchGrid, device: Any) -> tuple[Tensor, Tensor]:
    """Row and column of each patch, in the order of the merged blocks: two (P,) tensors."""
    import torch

    index = torch.arange(grid.patches, device=device)
    inner, block = index % MERGE**2, index // MERGE**2
    across = grid.columns // MERGE
    return block // across * MERGE + inner // MERGE, block % across * MERGE + inner % MERGE


def _taps(at: Tensor, count: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of `count` positions stretched over `side` learned ones: the two beside each, and the weight of the second."""
    import torch

    place = torch.linspace(0, side - 1, count, device=at.device, dtype=torch.float32)[at]
    low = place.floor().long()
    return low, (low + 1).clamp(max=side - 1), place - low


def _learned(tower: Any, rows: Tensor, columns: Tensor, grid: PatchGrid) -> Tensor:
    """(P, width): the square table of learned positions, bilinear with aligned corners."""
    table: Tensor = tower.pos_embed.weight
    side = round(table.shape[0] ** 0.5)
    top, bottom, down = _taps(rows, grid.rows, side)
    left, right, over = _taps(columns, grid.columns, side)
    down, over = down[:, None].to(table.dtype), over[:, None].to(table.dtype)
    upper = table[top * side + left] * (1 - over) + table[top * side + right] * over
    lower = table[bottom * side + left] * (1 - over) + table[bottom * side + right] * over
    return upper * (1 - down) + lower * down


def grid_positions(tower: Any, grid: PatchGrid) -> GridPositions:
    """The positions of a picture's patches. Compute once for each grid: weights do not change in inference."""
    import torch

    width = tower.blocks[0].attn.head_dim
    device = tower.pos_embed.weight.device
    rows, columns = _rows_and_columns(grid, device)
    steps = torch.arange(0, width // 2, 2, dtype=torch.float32, device=device) / (width // 2)
    angles = torch.stack([rows, columns], dim=1)[:, :, None] / _THETA**steps  # (P, 2, width / 4)
    whole = angles.flatten(1).repeat(1, 2)[:, None]  # (P, 1, width)
    return GridPositions(learned=_learned(tower, rows, columns, grid), cos=whole.cos(), sin=whole.sin())


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(B, P, heads, width) turned by their position, in float32."""
    import torch

    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (x.float() * cos + turned * sin).to(x.dtype)


def _ask(block: Any, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, P, width) patches → what they look for, offer, and give: (B, P, heads, head width) three times."""
    attention = block.attn
    q, k, v = attention.qkv(block.norm1(x)).view(*x.shape[:2], 3, attention.num_heads, -1).unbind(2)
    return _rotate(q, cos, sin), _rotate(k, cos, sin), v


def _answer(block: Any, x: Tensor, seen: Tensor) -> Tensor:
    """(B, P, width) with what was seen, of the same shape, and the block's feed-forward added."""
    x = x + block.attn.proj(seen)
    out: Tensor = x + block.mlp(block.norm2(x))
    return out


PLAIN = Parts(ask=_ask, answer=_answer)
"""The halves of a layer, not compiled."""


def encode(tower: Any, patches: Tensor, at: GridPositions, parts: Parts = PLAIN) -> VisualFeatures:
    """What `tower` (transformers' `Qwen3VLVisionModel`) makes of pictures of one size, as its own forward would.

    Args:
        tower: `model.visual`.
        patches: (B, P, C) as `patchify` gives them; any float type.
        at: the positions of their grid.
        parts: the halves of a block, plain or compiled.
    """
    from torch.nn import functional

    kernel = tower.patch_embed.proj
    x = functional.linear(patches.to(kernel.weight.dtype), kernel.weight.flatten(1), kernel.bias)  # (B, P, width)
    x = x + at.learned
    deep = list(tower.deepstack_visual_indexes)
    levels: dict[int, Tensor] = {}
    for number, block in enumerate(tower.blocks):
        q, k, v = (part.transpose(1, 2) for part in parts.ask(block, x, at.cos, at.sin))  # (B, heads, P, head width)
        seen = functional.scaled_dot_product_attention(q, k, v)
        x = parts.answer(block, x, seen.transpose(1, 2).reshape(x.shape))
        if number in deep:
            levels[number] = _merged(tower.deepstack_merger_list[deep.index(number)], x)
    return VisualFeatures(last=_merged(tower.merger, x), levels=tuple(levels[number] for number in deep))


def _merged(merger: Any, x: Tensor) -> Tensor:
    """(B, P, width) → (B, P / 4, decoder's width)."""
    merged: Tensor = merger(x.reshape(-1, x.shape[-1]))
    return merged.view(x.shape[0], -1, merged.shape[-1])
