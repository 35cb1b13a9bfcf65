"""Rows as one batch: pictures first, then all questions of a row side by side, each of which sees the pictures and
itself only, so that a place is encoded once and asked many things.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from earthmap.errors import TrainingError
from earthmap.model.config import MAX_TOKENS
from earthmap.model.engine import lay_out_stem
from earthmap.model.processing import patch_grid

if TYPE_CHECKING:
    from torch import Tensor

    from earthmap.model.words import Words
    from earthmap.training.rows import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows of one layout, ready for the model."""

    pixels: Tensor
    """(B, V, 3, H, W) uint8, or (B, V, 2, 3, H, W) pairs of a video's frames."""
    stem: Tensor
    """(B, S) ids of the words and places before the questions."""
    stem_positions: Tensor
    """(3, S) in time, height and width."""
    pictured: Tensor
    """(N,) places of the pictures' tokens."""
    after: int
    """Position of the first token behind the stem."""
    branches: Tensor
    """(B, L) ids of the questions with their answers, one after the other, padded at the end."""
    question: Tensor
    """(B, L) number of the question that a token belongs to; −1 for padding."""
    depth: Tensor
    """(B, L) tokens between the stem's end and each token on its own way."""
    target: Tensor
    """(B, L) True for the tokens of the answers, their ends included: what is learned."""
    classes: tuple[tuple[int, ...], ...]
    """Ids of the words of each class that `shares` are shares of."""
    shares: Tensor | None
    """(B, V · N, class) of each merged block, NaN for a class that cannot be told; None where no row knows them."""
    captions: tuple[tuple[int, ...], ...]
    """Ids of what each row's picture is said to show; empty for a row without a caption."""

    @property
    def tokens(self) -> int:
        """Tokens that the decoder reads, padding included."""
        return self.stem.numel() + self.branches.numel()

    def visible(self) -> Tensor:
        """(B, 1, S + L, S + L) True where a token may look; padding sees itself, so that no row is empty."""
        import torch

        batch, stems = self.stem.shape
        count = self.branches.shape[1]
        device = self.stem.device
        whole = torch.zeros(batch, stems + count, stems + count, dtype=torch.bool, device=device)
        whole[:, :stems, :stems] = torch.ones(stems, stems, dtype=torch.bool, device=device).tril()
        whole[:, stems:, :stems] = True
        same = self.question[:, :, None] == self.question[:, None, :]
        whole[:, stems:, stems:] = same & torch.ones(count, count, dtype=torch.bool, device=device).tril()
        return whole[:, None]

    def positions(self) -> Tensor:
        """(3, B, S + L)."""
        import torch

        batch = self.stem.shape[0]
        stems = self.stem_positions[:, None].expand(-1, batch, -1)
        return torch.cat([stems, (self.depth + self.after).expand(3, -1, -1)], dim=2)


def layout_of(row: Row, words: Words) -> tuple[object, ...]:
    """What rows must share to be one batch: their pictures' size and place among the words, and their classes."""
    told = row.classes if row.shares is not None else None
    return (row.pictures.shape, tuple(len(words.encode(name)) for name in row.names), row.modality == "video", told)


def pack(rows: Sequence[Row], words: Words, *, device: Any = None) -> Batch:
    """Rows of one layout as a batch.

    Raises:
        TrainingError: for no rows, rows of several layouts, and a row that is longer than the model reads.
    """
    import numpy as np
    import torch

    layouts = {layout_of(row, words) for row in rows}
    if len(layouts) != 1:
        raise TrainingError(f"{len(rows)} rows of {len(layouts)} layouts", expected="one or more rows of one layout")
    grid = patch_grid(*rows[0].pictures.shape[-2:])
    video = rows[0].modality == "video"
    stems = [lay_out_stem(words.opening([(name, grid) for name in row.names], video=video)) for row in rows]
    asked = [_asked(row, words) for row in rows]
    longest = max(sum(len(prompt) + len(answer) for prompt, answer in one) for one in asked)
    for row, one in zip(rows, asked, strict=True):
        deepest = max(len(prompt) + len(answer) for prompt, answer in one)
        if len(stems[0].tokens) + deepest > MAX_TOKENS:
            raise TrainingError(
                f"the row {row.id!r} has {len(stems[0].tokens) + deepest} tokens",
                expected=f"at most {MAX_TOKENS}",
                fix="use fewer pictures, or shorter answers",
            )
    columns = [_columns(one, longest, pad=words.marks["<|endoftext|>"]) for one in asked]
    branches, question, depth, target = (torch.tensor([row[i] for row in columns]) for i in range(4))
    return Batch(
        pixels=torch.from_numpy(np.stack([row.pictures for row in rows])).to(device),
        stem=torch.stack([stem.tokens for stem in stems]).to(device),
        stem_positions=stems[0].positions.to(device),
        pictured=stems[0].pictured.to(device),
        after=stems[0].after,
        branches=branches.to(device),
        question=question.to(device),
        depth=depth.to(device),
        target=target.bool().to(device),
        classes=tuple(words.encode(name) for name in rows[0].classes),
        shares=_shares(rows, device),
        captions=tuple(caption_of(row, words) for row in rows),
    )


def _shares(rows: Sequence[Row], device: Any) -> Tensor | None:
    import numpy as np
    import torch

    known = [row.shares.reshape(-1, len(row.classes)) for row in rows if row.shares is not None]
    return torch.from_numpy(np.stack(known)).to(device) if known else None


def caption_of(row: Row, words: Words) -> tuple[int, ...]:
    """The ids of what its picture is said to show; empty for a row without a caption."""
    texts = (one.answer for one in row.asked if one.category == "caption")
    return words.encode(next(texts, ""))


def _asked(row: Row, words: Words) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return [(words.asking(one.question), words.answering(one.answer, spatial=one.spatial)) for one in row.asked]


def _columns(
    asked: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], longest: int, *, pad: int
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Ids, number of the question, depth, and 1 for the answer's tokens, of one row."""
    tokens: list[int] = []
    question: list[int] = []
    depth: list[int] = []
    target: list[int] = []
    for number, (prompt, answer) in enumerate(asked):
        count = len(prompt) + len(answer)
        tokens += [*prompt, *answer]
        question += [number] * count
        depth += range(count)
        target += [0] * len(prompt) + [1] * len(answer)
    rest = longest - len(tokens)
    return tokens + [pad] * rest, question + [-1] * rest, depth + [0] * rest, target + [0] * rest
