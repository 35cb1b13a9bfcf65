"""The decoder, over trees of tokens: a shared stem, and branches that see the stem and themselves only.

The weights are those of transformers' `Qwen3VLTextModel`. One forward serves every question about a tile, and every
choice of a question, because the pictures are the stem of one tree; where a tree is one branch it is a plain sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from earthmap.model.fusing import Parts

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A run of tokens that continues its parent."""

    tokens: tuple[int, ...]
    parent: int
    """Index of an earlier node; −1 where it continues the stem."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeLayout:
    """Where the nodes of a tree lie in one row of tokens, after the stem; the same for every tile of a batch."""

    tokens: Tensor
    """(S,) ids."""
    depth: Tensor
    """(S,) how many tokens stand between the stem's end and each token on its own path."""
    visible: Tensor
    """(S, S) True where row may see column: itself, what precedes it in its node, and its ancestors."""
    spans: tuple[tuple[int, int], ...]
    """First and one past the last place of each node."""
    before: tuple[int, ...]
    """Place whose output predicts a node's first token; −1 for the stem's last."""


def lay_out(nodes: Sequence[Node], device: Any = None) -> TreeLayout:
    """The tree as one row: nodes in their order."""
    import torch

    count = sum(len(node.tokens) for node in nodes)
    visible = torch.zeros(count, count, dtype=torch.bool)
    depth = torch.zeros(count, dtype=torch.long)
    spans: list[tuple[int, int]] = []
    before: list[int] = []
    for node in nodes:
        start = spans[-1][1] if spans else 0
        end = start + len(node.tokens)
        if node.parent >= 0:
            last = spans[node.parent][1] - 1
            visible[start:end] = visible[last]
            depth[start:end] = depth[last] + 1
            before.append(last)
        else:
            before.append(-1)
        visible[start:end, start:end] = torch.ones(end - start, end - start, dtype=torch.bool).tril()
        depth[start:end] += torch.arange(end - start)
        spans.append((start, end))
    tokens = torch.tensor([token for node in nodes for token in node.tokens], dtype=torch.long)
    return TreeLayout(
        tokens=tokens.to(device), depth=depth.to(device), visible=visible.to(device), spans=tuple(spans),
        before=tuple(before),
    )  # fmt: skip


class Memory(Protocol):
    """Keys and values that a token may look at, layer by layer."""

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Take (B, key heads, S, head width) of new tokens; returns all that these may look at, old ones first."""
        ...


@dataclass(slots=True)
class Cache:
    """What was read, after what another cache holds, which is shared and never changed."""

    stem: Cache | None = None
    keys: list[Tensor] = field(default_factory=list)
    """(B, key heads, S, head width) of each layer, without the stem's."""
    values: list[Tensor] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Tokens it holds itself."""
        return int(self.keys[0].shape[2])

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """As `Memory.extend`; once for each layer."""
        import torch

        self.keys.append(keys)
        self.values.append(values)
        if self.stem is None:
            return keys, values
        return torch.cat([self.stem.keys[layer], keys], dim=2), torch.cat([self.stem.values[layer], values], dim=2)


@dataclass(slots=True)
class StaticCache:
    """Rows of a fixed length that are written token by token: what answers are decoded with."""

    keys: list[Tensor]
    """(R, key heads, longest, head width) of each layer."""
    values: list[Tensor]
    lengths: Tensor
    """(R,) tokens that each row holds: where its next one goes."""

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """As `Memory.extend`, for one new token a row; whoever reads it moves `lengths` on."""
        import torch

        row = torch.arange(len(self.lengths), device=self.lengths.device)
        self.keys[layer][row, :, self.lengths] = keys[:, :, 0]
        self.values[layer][row, :, self.lengths] = values[:, :, 0]
        return self.keys[layer], self.values[layer]

    def mask(self) -> Tensor:
        """(R, 1, 1, longest) True where the token that is written now may look: before itself, and at itself."""
        import torch

        place = torch.arange(self.keys[0].shape[2], device=self.lengths.device)
        return (place[None] <= self.lengths[:, None])[:, None, None]

    def first(self, rows: int) -> StaticCache:
        """The first rows, in the same memory."""
        return StaticCache([k[:rows] for k in self.keys], [v[:rows] for v in self.values], self.lengths[:rows])

    def gather(self, rows: Tensor) -> None:
        """Move some rows to the front."""
        for tensor in (*self.keys, *self.values, self.lengths):
            tensor[: len(rows)] = tensor[rows]


def rotary(decoder: Any, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine, (B · S, 1, head width) each, of (3, B, S) positions in time, height and width, interleaved."""
    frequencies = decoder.rotary_emb.inv_freq.float()
    sections = decoder.config.rope_parameters["mrope_section"]
    angles = positions.flatten(1)[..., None].float() * frequencies  # (3, B · S, head width / 2)
    mixed = angles[0].clone()
    for axis in (1, 2):
        where = slice(axis, sections[axis] * 3, 3)
        mixed[..., where] = angles[axis][..., where]
    whole = mixed.repeat(1, 2)[:, None]
    dtype = decoder.embed_tokens.weight.dtype
    return whole.cos().to(dtype), whole.sin().to(dtype)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    import torch

    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def _ask(layer: Any, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(T, D) tokens → what they look for, (T, heads, head width), and what they offer, (T, key heads, …) twice."""
    attention = layer.self_attn
    x = layer.input_layernorm(x)
    heads = (x.shape[0], -1, attention.head_dim)
    q = _turn(attention.q_norm(attention.q_proj(x).view(heads)), cos, sin)
    k = _turn(attention.k_norm(attention.k_proj(x).view(heads)), cos, sin)
    return q, k, attention.v_proj(x).view(heads)


def _answer(layer: Any, x: Tensor, seen: Tensor) -> Tensor:
    """(T, D) with what was seen, (T, heads · head width), and the layer's feed-forward added."""
    x = x + layer.self_attn.o_proj(seen)
    out: Tensor = x + layer.mlp(layer.post_attention_layernorm(x))
    return out


PLAIN = Parts(ask=_ask, answer=_answer)
"""The halves of a layer, not compiled."""


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """(B · S, heads · head width) of (B, heads, S, …) over its share of (B, key heads, T, …); causal without a mask.

    With a mask, query heads that share keys lie one behind the other as further queries: kernels that take a mask do
    not share keys among heads, and torch would fall back to the one that writes out all weights.
    """
    from torch.nn import functional

    batch, heads, count, width = q.shape
    shared = heads // k.shape[1]
    if mask is None:
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=shared > 1)
    else:
        folded = q.reshape(batch, k.shape[1], shared * count, width)
        seen = functional.scaled_dot_product_attention(folded, k, v, attn_mask=mask).reshape(q.shape)
    return seen.transpose(1, 2).reshape(batch * count, heads * width)


def read(
    decoder: Any,
    embedded: Tensor,
    positions: Tensor,
    *,
    memory: Memory,
    mask: Tensor | None = None,
    visual: tuple[Tensor, Sequence[Tensor]] | None = None,
    parts: Parts = PLAIN,
) -> Tensor:
    """The decoder's final states, (B, S, D), of tokens that follow what is in `memory`, which takes them in.

    Args:
        decoder: `model.language_model`.
        embedded: (B, S, D) embeddings.
        positions: (3, B, S) in time, height and width.
        memory: what was read before, T tokens.
        mask: (1 or B, 1, S, T + S) True where a token may look; None for a plain sequence after nothing.
        visual: (N,) places of the pictures' tokens, the same in each row, and (B, N, D) of each level, which are added
            behind the first decoder layers.
        parts: the halves of a layer, plain or compiled.
    """
    batch, count, width = embedded.shape
    turns = rotary(decoder, positions)
    if mask is not None and count > 1:
        mask = mask.repeat(1, 1, decoder.config.num_attention_heads // decoder.config.num_key_value_heads, 1)
    x = embedded.reshape(-1, width)  # (B · S, D)
    for number, layer in enumerate(decoder.layers):
        q, k, v = (part.view(batch, count, *part.shape[1:]).transpose(1, 2) for part in parts.ask(layer, x, *turns))
        k, v = memory.extend(number, k, v)
        x = parts.answer(layer, x, attend(q, k, v, mask))
        if visual is not None and number < len(visual[1]):
            x = x.view(embedded.shape).index_add(1, visual[0], visual[1][number].to(x.dtype)).flatten(0, 1)
    states: Tensor = decoder.norm(x)
    return states.view(embedded.shape)
