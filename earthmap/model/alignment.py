"""FGVLA (full-granularity vision-language alignment): what each level of the vision tower says in the words' own space.

The levels enter the first decoder layers in every forward (`earthmap.model.language.read`). In training they are also
aligned with language, each at its granularity: the first with words, patch by patch; those between with phrases, the
mean over a region; the last with the caption of the scene. Where the truth of every block is known, all levels are
aligned with words as well (docs/decisions/0020). The loss is SigLIP's (Zhai et al. 2023, arXiv 2303.15343). The heads
are not part of the model: they are kept in a file of their own and make per-patch class maps.

The paper (Cai et al., arXiv 2606.10819) names the three granularities; everything beyond its abstract is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from earthmap.errors import ModelError
from earthmap.model.language import Cache, Node, lay_out, read

if TYPE_CHECKING:
    from typing import Any

    from torch import Tensor

    from earthmap.model.vision import VisualFeatures

ALIGNMENT_FILE = "alignment.safetensors"

GRANULARITIES = ("patch", "region", "scene")
"""From fine to coarse."""

FIRST_SCALE, FIRST_BIAS = 10.0, -10.0
"""SigLIP's start: nearly all pairs are negative."""


def granularities(levels: int) -> tuple[str, ...]:
    """The granularity of each of `levels` levels, the last one counted: patch, regions between, scene.

    Example:
        >>> granularities(4)
        ('patch', 'region', 'region', 'scene')
    """
    return ("patch", *["region"] * (levels - 2), "scene")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Vectors of one level beside texts: which belong together."""

    visual: Tensor
    """(N, D) patches, regions or scenes."""
    text: Tensor
    """(M, D), each text once."""
    same: Tensor
    """(N, M) True where the text says what is there; equal texts are one column, so that both are positive."""


class AlignmentHeads(nn.Module):
    """Projections of each level and of texts into one space, with SigLIP's scale and bias."""

    def __init__(self, *, width: int, levels: int, shared_width: int = 256) -> None:
        super().__init__()
        self.granularities = granularities(levels)
        self.visual = nn.ModuleList(nn.Linear(width, shared_width) for _ in range(levels))
        self.text = nn.ModuleList(nn.Linear(width, shared_width) for _ in range(levels))
        self.scale = nn.Parameter(torch.full((levels,), FIRST_SCALE).log())
        self.bias = nn.Parameter(torch.full((levels,), FIRST_BIAS))

    @property
    def levels(self) -> int:
        """Levels of the tower, the last one counted."""
        return len(self.visual)

    def logits(self, level: int, visual: Tensor, text: Tensor) -> Tensor:
        """(…, D) vectors of a level and (M, D) texts → (…, M) logits of belonging together."""
        seen = functional.normalize(self.visual[level](visual), dim=-1)
        said = functional.normalize(self.text[level](text), dim=-1)
        return seen @ said.T * self.scale[level].exp() + self.bias[level]

    def loss(self, level: int, pairs: Pairs) -> Tensor:
        """Mean over what was seen of the sum over texts of −log sigmoid(± logit) (arXiv 2303.15343, algorithm 1)."""
        logits = self.logits(level, pairs.visual, pairs.text)
        signs = pairs.same.to(logits.dtype) * 2 - 1
        return -functional.logsigmoid(signs * logits).sum(dim=-1).mean()

    def retrieval(self, level: int, pairs: Pairs) -> float:
        """Share of what was seen whose likeliest text belongs to it."""
        best = self.logits(level, pairs.visual, pairs.text).argmax(dim=-1)
        return float(pairs.same[torch.arange(len(best), device=best.device), best].float().mean())


def pool_regions(features: Tensor, masks: Tensor) -> Tensor:
    """The mean of (B, N, D) blocks over (B, R, N) shares of regions → (B, R, D); zero for a region of nothing."""
    weights = masks.to(features.dtype)
    return weights @ features / weights.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(features.dtype).tiny)


def text_vectors(decoder: Any, texts: Sequence[Sequence[int]]) -> Tensor:
    """(M, D): the mean final state of the decoder over each text, read alone, without picture or prompt."""
    tree = lay_out([Node(tokens=tuple(text), parent=-1) for text in texts], decoder.embed_tokens.weight.device)
    states = read(
        decoder,
        decoder.embed_tokens(tree.tokens)[None],
        tree.depth.expand(3, 1, -1),
        memory=Cache(),
        mask=tree.visible[None, None],
    )[0]
    return torch.stack([states[start:end].mean(dim=0) for start, end in tree.spans])


def class_map(heads: AlignmentHeads, features: VisualFeatures, text: Tensor) -> Tensor:
    """(B, N, M) probability that a merged block shows what each of (M, D) texts says, by the last level."""
    return heads.logits(heads.levels - 1, features.last, text).sigmoid()


def scene_vectors(heads: AlignmentHeads | None, features: VisualFeatures, seen: Tensor) -> Tensor:
    """(B, S) what each tile looks like: the mean direction of its blocks at the last level, where it is seen.

    With heads the directions are those of the words' space, which `class_map` compares with texts, so that the inner
    product with a text is the mean of its blocks'; without any they are the tower's own.

    Args:
        heads: of the model, or None where it has none.
        features: of B tiles with V views each.
        seen: (B, N) how much each of the N blocks of a view counts.
    """
    blocks = features.last if heads is None else heads.visual[heads.levels - 1](features.last)
    views = blocks.shape[1] // seen.shape[1]
    return pool_regions(functional.normalize(blocks, dim=-1), seen.repeat(1, views)[:, None])[:, 0]


def save_heads(heads: AlignmentHeads, folder: Path) -> None:
    """Write the heads beside a checkpoint."""
    from safetensors.torch import save_file

    state = {name: value.detach().contiguous().cpu() for name, value in heads.state_dict().items()}
    save_file(state, folder / ALIGNMENT_FILE)


def load_heads(folder: Path, *, width: int, levels: int) -> AlignmentHeads:
    """The heads beside a checkpoint. Raises ModelError where there are none, or of another shape."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / ALIGNMENT_FILE
    if not path.is_file():
        raise ModelError(
            f"{folder} holds no {ALIGNMENT_FILE}",
            expected="the alignment heads, which class maps are made with",
            fix="use a checkpoint that was trained with alignment, or ask a question instead of a map of patches",
        )
    try:
        state = load_file(path)
        heads = AlignmentHeads(width=width, levels=levels, shared_width=state["visual.0.weight"].shape[0])
        heads.load_state_dict(state)
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"{path} is not the alignment of this model: {error}", expected=f"{levels} levels of width {width}"
        ) from error
    return heads.eval()
