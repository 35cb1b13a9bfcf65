"""What is learned: the answers' tokens, and FGVLA's alignment of picture blocks with words.

The forward is the engine's own, with gradients: dense pictures, one pass for all questions of a row.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from earthmap.model.alignment import Pairs, pool_regions, text_vectors
from earthmap.model.processing import patch_grid, patchify
from earthmap.model.vision import VisualFeatures, encode, grid_positions
from earthmap.training.reading import predicting_states

if TYPE_CHECKING:
    from torch import Tensor

    from earthmap.model.alignment import AlignmentHeads
    from earthmap.training.packing import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerLosses:
    """The loss of each token of the answers, (M,), and where it comes from."""

    loss: Tensor
    """−log probability."""
    right: Tensor
    """True where the likeliest token is the one that was wanted."""
    row: Tensor
    question: Tensor
    """Row, and number in the row of the question that it answers."""

    def mean(self) -> Tensor:
        """Over all answers, each the mean of its tokens: a long outline weighs no more than a word."""
        answer = self.row * (self.question.max() + 1) + self.question
        count = torch.bincount(answer)
        mean: Tensor = (self.loss / count[answer]).sum() / (count > 0).sum()
        return mean


def look(model: Any, batch: Batch) -> VisualFeatures:
    """The tower's features (B, V · N, D) of a batch's pictures, with gradients."""
    views = batch.pixels.shape[1]
    tower = model.model.visual
    places = grid_positions(tower, patch_grid(*batch.pixels.shape[-2:]))
    found = encode(tower, patchify(batch.pixels.flatten(0, 1)), places)
    count = found.last.shape[1]

    def by_row(features: Tensor) -> Tensor:
        return features.view(-1, views * count, features.shape[-1])

    return VisualFeatures(last=by_row(found.last), levels=tuple(by_row(level) for level in found.levels))


def answer_losses(model: Any, batch: Batch, features: VisualFeatures) -> AnswerLosses:
    """The loss of every token of every answer, all questions of a row in one pass."""
    states = predicting_states(model.model.language_model, batch, features)
    logits = model.lm_head(states).float()
    wanted = batch.branches[batch.target]
    return AnswerLosses(
        loss=functional.cross_entropy(logits, wanted, reduction="none"),
        right=logits.argmax(dim=1) == wanted,
        row=batch.row[batch.answer],
        question=batch.question[batch.answer],
    )


def alignment_losses(
    model: Any,
    heads: AlignmentHeads,
    batch: Batch,
    features: VisualFeatures,
    *,
    captions: Collection[tuple[int, ...]] = (),
) -> dict[str, Tensor]:
    """FGVLA's loss at each granularity that the batch has truth for, each the mean over the levels it belongs to.

    `patch`: each block with the words of the classes, by their shares of it, at every level. `region`: the blocks
    that one class fills for more than half, together, with its words. `scene`: all blocks together with the caption,
    told from those of the batch and from `captions`.
    """
    decoder = model.model.language_model
    levels = [*features.levels, features.last]
    found: dict[str, list[Tensor]] = {}
    if batch.shares is not None:
        text = text_vectors(decoder, batch.classes)
        for level, granularity in enumerate(heads.granularities):
            found.setdefault("patch", []).append(block_loss(heads, levels[level], batch.shares, text, level=level))
            if granularity == "region":
                pairs = _regions(levels[level], batch.shares, text)
                if len(pairs.visual):
                    found.setdefault("region", []).append(heads.loss(level, pairs))
    captioned = [row for row, caption in enumerate(batch.captions) if caption]
    if captioned:
        texts = sorted({*captions, *(batch.captions[row] for row in captioned)})
        same = [[batch.captions[row] == text for text in texts] for row in captioned]
        pairs = Pairs(
            visual=features.last[captioned].mean(dim=1),
            text=text_vectors(decoder, texts),
            same=torch.tensor(same, device=features.last.device),
        )
        found["scene"] = [heads.loss(heads.levels - 1, pairs)]
    return {granularity: torch.stack(losses).mean() for granularity, losses in found.items()}


def _regions(features: Tensor, shares: Tensor, text: Tensor) -> Pairs:
    """Each class of each row that fills a block for more than half, as one region."""
    masks = (shares.nan_to_num(0.0) > 0.5).transpose(1, 2)  # (B, M, V · N)
    there = masks.any(dim=2)
    pooled = pool_regions(features, masks)
    which = there.nonzero()[:, 1]
    same = which[:, None] == torch.arange(len(text), device=text.device)[None]
    return Pairs(visual=pooled[there], text=text, same=same)


def block_loss(heads: AlignmentHeads, features: Tensor, shares: Tensor, text: Tensor, *, level: int) -> Tensor:
    """FGVLA's finest granularity: each block against each class, by its share of the block.

    The sigmoid loss of `AlignmentHeads.loss` with a share for a truth: binary cross-entropy, summed over the classes,
    averaged over the blocks of which some share is known; zero where none is.

    Args:
        heads: the alignment heads.
        features: (B, V · N, D) of the pictures at `level`.
        shares: (B, V · N, M) of each block, NaN for a class that cannot be told there.
        text: (M, D) vectors of the classes' words.
        level: number of the level.
    """
    logits = heads.logits(level, features, text)
    known = ~shares.isnan()
    truth = shares.nan_to_num(0.0).to(logits.dtype)
    each = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none") * known
    blocks = known.any(dim=-1).sum().clamp(min=1)
    loss: Tensor = each.sum() / blocks
    return loss
