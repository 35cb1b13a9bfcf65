"""The two halves of a transformer layer around its attention: plain functions, or compiled ones.

Attention and what it remembers stay outside: what a compiler gains lies in the many small operations between the
matrix products, and a half that only computes compiles whatever the batch, the cache and the mask are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a layer does before its attention, and behind it."""

    ask: Callable[..., Any]
    """(layer, x, positions …) → queries, keys, values."""
    answer: Callable[..., Any]
    """(layer, x, what was seen) → x."""

    def fused(self, *, backend: str = "inductor") -> Parts:
        """The same, compiled once for all layers, whose weights are arguments. The first use takes seconds."""
        import torch

        return Parts(
            ask=torch.compile(self.ask, backend=backend, fullgraph=True),
            answer=torch.compile(self.answer, backend=backend, fullgraph=True),
        )
