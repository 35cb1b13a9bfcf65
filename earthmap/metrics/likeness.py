"""Whether what is alike by its vector is alike in truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def precision_at(vectors: NDArray[np.floating], kinds: NDArray[np.integer], k: int) -> NDArray[np.float64]:
    """(n,) of the `k` others that are most like each, the share of its own kind; equally alike ones by their place.

    Args:
        vectors: (n, D), not zero, n more than `k`.
        kinds: (n,) what each is in truth.
        k: how many others are looked at.
    """
    wide = vectors.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    likeness = np.round(wide @ wide.T, 9)
    np.fill_diagonal(likeness, -np.inf)
    nearest = np.argsort(-likeness, axis=1, kind="stable")[:, :k]
    shares: NDArray[np.float64] = (kinds[nearest] == kinds[:, None]).mean(axis=1)
    return shares


def chance(kinds: NDArray[np.integer]) -> float:
    """What `precision_at` is for vectors that tell nothing: the mean share of others of the own kind."""
    counts = np.bincount(kinds)
    return float((counts * (counts - 1)).sum() / (len(kinds) * (len(kinds) - 1)))
