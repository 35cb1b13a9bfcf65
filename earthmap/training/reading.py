"""The decoder over a batch of rows, with gradients: what an answer's tokens are predicted from, and no more than that.

Stems and questions lie one behind the other in one row of tokens, so that layers compute nothing for padding but what
questions of about one length differ by. Attention alone looks at them stem by stem and question by question.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from earthmap.model.language import PLAIN, attend, rotary

if TYPE_CHECKING:
    from torch import Tensor

    from earthmap.model.vision import VisualFeatures
    from earthmap.training.packing import Batch


def predicting_states(decoder: Any, batch: Batch, features: VisualFeatures) -> Tensor:
    """(M, D) final states from which each of `batch.target` is predicted: of the token before it."""
    rows, stems = batch.stem.shape
    device = batch.stem.device
    pictured = (torch.arange(rows, device=device)[:, None] * stems + batch.pictured).flatten()
    before = batch.target + rows * stems - 1
    x = decoder.embed_tokens(torch.cat([batch.stem.flatten(), batch.branches]))  # (B · S + T, D)
    x = x.index_copy(0, pictured, features.last.flatten(0, 1).to(x.dtype))
    turns = rotary(decoder, batch.positions())
    masks = _masks(batch, decoder.config.num_attention_heads // decoder.config.num_key_value_heads)
    for number, layer in enumerate(decoder.layers[:-1]):
        x = PLAIN.answer(layer, x, _attended(PLAIN.ask(layer, x, *turns), batch, masks))
        if number < len(features.levels):
            x = x.index_add(0, pictured, features.levels[number].flatten(0, 1).to(x.dtype))
    last = decoder.layers[-1]
    seen = _attended(PLAIN.ask(last, x, *turns), batch, masks)
    states: Tensor = decoder.norm(PLAIN.answer(last, x[before], seen[before]))
    return states


def _masks(batch: Batch, shared: int) -> list[Tensor]:
    """(shared · L, S + L) of each group, True where a token may look: at its row's stem, before itself, and at itself.

    Padding stands at the end, where nothing but padding looks.
    """
    device = batch.stem.device
    found = []
    for _, length in batch.groups:
        stems = torch.ones(length, batch.stem.shape[1], dtype=torch.bool, device=device)
        own = torch.ones(length, length, dtype=torch.bool, device=device).tril()
        found.append(torch.cat([stems, own], dim=1).repeat(shared, 1))
    return found


def _attended(asked: tuple[Tensor, Tensor, Tensor], batch: Batch, masks: list[Tensor]) -> Tensor:
    """(B · S + T, heads · head width) of what tokens look for and offer, (B · S + T, heads, head width) each."""
    shapes = [(batch.stem.shape[0], batch.stem.shape[1]), *batch.groups]
    q, k, v = (_by_run(part, shapes) for part in asked)
    counts = [count for count, _ in batch.groups]
    k_stems, v_stems = (torch.split_with_sizes(part[0].index_select(0, batch.row), counts) for part in (k, v))
    found = [attend(q[0], k[0], v[0], None)]
    for number, mask in enumerate(masks, 1):
        keys = torch.cat([k_stems[number - 1], k[number]], dim=2)
        values = torch.cat([v_stems[number - 1], v[number]], dim=2)
        found.append(attend(q[number], keys, values, mask))
    return torch.cat(found)


def _by_run(tokens: Tensor, shapes: list[tuple[int, int]]) -> list[Tensor]:
    """(Σ C · L, heads, head width) as (C, heads, L, head width) of each shape (C, L)."""
    runs = torch.split_with_sizes(tokens, [count * length for count, length in shapes])
    return [run.view(*shape, *run.shape[1:]).transpose(1, 2) for run, shape in zip(runs, shapes, strict=True)]
