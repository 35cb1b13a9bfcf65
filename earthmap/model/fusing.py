"""The two halves of a transformer layer around its attention: plain functions, or compiled ones.

Attention and what it remembers stay outside: what a compiler gains lies in the many small operations between the
matrix products. A half takes contiguous rows of tokens, so that it is compiled once for any number of them: torch gives
up on a function that it had to compile eight times, and every other stride, or batch beside a length, would be one.
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

        return Parts(ask=torch.compile(self.ask, backend=backend), answer=torch.compile(self.answer, backend=backend))
