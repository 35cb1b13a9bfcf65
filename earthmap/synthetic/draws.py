"""Random numbers and smooth fields for batches of tiles, each tile's from its own seed alone.

What a tile is must not depend on the tiles beside it. So draws are hashes of (seed, name, number), and tensors go
through additions, multiplications, divisions, roots, floors, comparisons and look-ups only: those round alike wherever
a number stands in an array, which sines, exponentials, means and matrix products do not.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.synthetic.fields import hash64, uniform

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_POOL = 1 << 22
"""Numbers in a pool of noise; a tile reads a run of them from a place of its own."""

_TURNS = 720
"""Angles there are: a look-up rounds alike everywhere, a sine does not."""

_SMALLEST = 5
"""Points along one side of the coarsest lattice of a field: one cell for the whole tile."""


def draw(seeds: NDArray[np.int64], name: str, *shape: int) -> NDArray[np.float32]:
    """(tile, *shape) float32 in [0, 1) that belong to `name`; another name gives independent numbers."""
    count = int(np.prod(shape)) if shape else 1
    hashed = hash64(seeds[:, None], zlib.crc32(name.encode()), np.arange(count)[None, :])
    return uniform(hashed).reshape(len(seeds), *shape)


def between(share: NDArray[np.float32], low: Any, high: Any) -> NDArray[np.float32]:
    """`share` of 0 to 1 as a number from `low` to `high`."""
    numbers: NDArray[np.float32] = (low + share * (np.asarray(high) - low)).astype(np.float32)
    return numbers


def between_scales(share: NDArray[np.float32], low: Any, high: Any) -> NDArray[np.float32]:
    """`share` as a number from `low` to `high`, its logarithm evenly spread."""
    ratio = each(math.log2, np.asarray(high, np.float64) / low)
    numbers = np.asarray(low, np.float64) * each(math.exp2, np.asarray(share, np.float64) * ratio)
    return numbers.astype(np.float32)


def each(function: Callable[[float], float], values: NDArray[Any]) -> NDArray[np.float64]:
    """A function of each number by itself: numpy's own may round by the place in an array."""
    flat = [function(value) for value in np.asarray(values, np.float64).ravel().tolist()]
    return np.array(flat, np.float64).reshape(np.shape(values))


@functools.lru_cache(maxsize=1)
def _circle() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    angles = np.arange(_TURNS) * (2.0 * np.pi / _TURNS)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def directions(share: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosine and sine of `share` of a full turn, to half a degree."""
    index = np.floor(share * np.float32(_TURNS)).astype(np.int64) % _TURNS
    cosine, sine = _circle()
    return cosine[index], sine[index]


@functools.lru_cache(maxsize=8)
def _pool(kind: str, device: str) -> Tensor:
    import torch

    source = np.random.Generator(np.random.PCG64(20_241_121))
    if kind == "normal":
        numbers = source.standard_normal(2 * _POOL, np.float32)
    else:
        numbers = source.standard_exponential(2 * _POOL, np.float32)
    return torch.from_numpy(numbers).to(device)


def noise(seeds: NDArray[np.int64], name: str, *shape: int, device: str, kind: str = "normal") -> Tensor:
    """(tile, *shape) noise: `normal` (mean 0, deviation 1) or `exponential` (mean 1).

    A tile reads a run of one pool of four million numbers: cheap, and never twice the same from a place of its own.
    """
    import torch

    count = int(np.prod(shape))
    pool = _pool(kind, device)
    starts = (hash64(seeds, zlib.crc32(name.encode())) & np.uint64(_POOL - 1)).tolist()
    return torch.stack([pool[start : start + count] for start in starts]).reshape(len(starts), *shape)


def _doubled(lattice: Tensor) -> Tensor:
    """Quadratic B-spline subdivision of the last two axes: n points become 2 n − 4 (Chaikin's corner cutting)."""
    for axis in (-2, -1):
        points = lattice.shape[axis] - 2
        side = lattice * 0.25
        middle = lattice.narrow(axis, 1, points) * 0.75
        shape = list(lattice.shape)
        shape[axis] = 2 * points
        wide = lattice.new_empty(shape)
        for first in (0, 1):
            half = wide[..., first::2, :] if axis == -2 else wide[..., first::2]
            half.copy_(middle).add_(side.narrow(axis, 2 * first, points))
        lattice = wide
    return lattice


def smooth_fields(
    seeds: NDArray[np.int64],
    name: str,
    roughness: NDArray[np.float32],
    *,
    side: int,
    device: str,
    finest: int = 2,
) -> Tensor:
    """(tile, field, side, side) fields with detail at every scale from the tile down to `finest` pixels.

    Args:
        seeds: One a tile.
        name: What they are for.
        roughness: (tile, field): strength of each octave as a share of the one before, 0.3 smooth to 0.9 ragged.
        side: Pixels along one side.
        device: Where.
        finest: Pixels of the finest detail; below, only smoothness.
    """
    import torch

    count = roughness.shape[1]
    share = torch.from_numpy(roughness).to(device)[:, :, None, None]
    strength = torch.ones_like(share)
    points = _SMALLEST
    field = noise(seeds, f"{name} 0", count, points, points, device=device)
    octave = 0
    while points - 4 < side:
        field = _doubled(field)
        points = 2 * points - 4
        octave += 1
        strength = strength * share
        if (points - 4) * finest <= side:
            field += noise(seeds, f"{name} {octave}", count, points, points, device=device).mul_(strength)
    return field[..., :side, :side].contiguous()


def levels(field: Tensor, shares: Sequence[float] | NDArray[np.float32]) -> Tensor:
    """The values above which `shares` of each tile's field lie, read from a coarse sample of it.

    Args:
        field: (tile, y, x).
        shares: (tile, n) in 0 to 1; 0 gives a level that nothing reaches, 1 one that everything does.

    Returns:
        (tile, n).
    """
    import torch

    wanted = torch.as_tensor(np.asarray(shares, np.float32), device=field.device)
    step = max(1, field.shape[-1] // 32)
    ordered = field[:, ::step, ::step].flatten(1).sort(dim=1).values
    last = ordered.shape[1] - 1
    place = ((1.0 - wanted) * last).round().long().clamp(0, last)
    level = ordered.gather(1, place)
    level = level + (wanted <= 0) * 1e6
    return level - (wanted >= 1) * 2e6
