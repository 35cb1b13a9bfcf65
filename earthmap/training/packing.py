"""Rows as one batch: pictures first, then all questions, each of which sees the pictures of its row and itself only, so
that a place is encoded once and asked many things.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
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
    """(T,) ids of the questions with their answers: group by group, padded at the end to the longest of the group."""
    depth: Tensor
    """(T,) tokens between the stem's end and each token on its own way."""
    groups: tuple[tuple[int, int], ...]
    """Of each group how many questions it has, and how many tokens each; of about one length, so that little is padded.
    """
    row: Tensor
    """(Q,) row of each question, in the order of `branches`."""
    question: Tensor
    """(Q,) its number in the row."""
    target: Tensor
    """(M,) places in `branches` of the tokens of the answers, their ends included: what is learned."""
    answer: Tensor
    """(M,) number in `row` of the question that each of them answers."""
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

    def positions(self) -> Tensor:
        """(3, 1, B · S + T) of the stems and what follows them, one behind the other."""
        import torch

        stems = self.stem_positions.repeat(1, self.stem.shape[0])
        return torch.cat([stems, (self.depth + self.after).expand(3, -1)], dim=1)[:, None]


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
    for row, one in zip(rows, asked, strict=True):
        deepest = max(len(prompt) + len(answer) for prompt, answer in one)
        if len(stems[0].tokens) + deepest > MAX_TOKENS:
            raise TrainingError(
                f"the row {row.id!r} has {len(stems[0].tokens) + deepest} tokens",
                expected=f"at most {MAX_TOKENS}",
                fix="use fewer pictures, or shorter answers",
            )
    branches = _laid_out(asked, pad=words.marks["<|endoftext|>"])
    return Batch(
        pixels=torch.from_numpy(np.stack([row.pictures for row in rows])).to(device),
        stem=torch.stack([stem.tokens for stem in stems]).to(device),
        stem_positions=stems[0].positions.to(device),
        pictured=stems[0].pictured.to(device),
        after=stems[0].after,
        groups=branches.groups,
        branches=torch.tensor(branches.tokens, device=device),
        depth=torch.tensor(branches.depth, device=device),
        row=torch.tensor(branches.row, device=device),
        question=torch.tensor(branches.question, device=device),
        target=torch.tensor(branches.target, device=device),
        answer=torch.tensor(branches.answer, device=device),
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


LEAST_FILLED = 0.8
"""A question of a group has at least this share of the tokens of its longest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Branches:
    """The fields of a `Batch` that say what its questions are, as lists."""

    groups: tuple[tuple[int, int], ...]
    tokens: list[int]
    depth: list[int]
    row: list[int]
    question: list[int]
    target: list[int]
    answer: list[int]


def _laid_out(asked: Sequence[Sequence[tuple[tuple[int, ...], tuple[int, ...]]]], *, pad: int) -> _Branches:
    """The questions of all rows from the longest on, in groups of about one length."""
    every = [(row, number, *one) for row, questions in enumerate(asked) for number, one in enumerate(questions)]
    every.sort(key=lambda one: -len(one[2]) - len(one[3]))
    lengths = _group_lengths([len(prompt) + len(answer) for _, _, prompt, answer in every])
    tokens: list[int] = []
    depth: list[int] = []
    target: list[int] = []
    answers: list[int] = []
    for number, ((_, _, prompt, answer), length) in enumerate(zip(every, lengths, strict=True)):
        count = len(prompt) + len(answer)
        target += range(len(tokens) + len(prompt), len(tokens) + count)
        answers += [number] * len(answer)
        tokens += [*prompt, *answer, *[pad] * (length - count)]
        depth += [*range(count), *[0] * (length - count)]
    return _Branches(
        groups=tuple((len(list(members)), length) for length, members in groupby(lengths)),
        tokens=tokens,
        depth=depth,
        row=[row for row, _, _, _ in every],
        question=[number for _, number, _, _ in every],
        target=target,
        answer=answers,
    )


def _group_lengths(falling: Sequence[int]) -> list[int]:
    """Lengths from the longest on → the longest of the group that each falls into."""
    found: list[int] = []
    for length in falling:
        found.append(found[-1] if found and length >= LEAST_FILLED * found[-1] else length)
    return found
