"""Groups of vectors: k-means, how well the groups are told apart, and whether two groupings agree.

k-means finds k groups in anything. What its numbers are worth shows beside those of shuffled vectors, in which each
number keeps its spread and loses its company.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from earthmap.errors import BadRequestError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Labels = NDArray[np.int64]

STARTS = 6
"""Times that k-means begins anew; the best is kept."""

ROUNDS = 100
"""Most rounds of one start."""

GAIN = 1e-4
"""A round that brings the vectors nearer to their centres by less than this share is the last."""

FITTED = 10_000
"""Vectors that centres are fitted to, at most; the others join the nearest."""

COMPARED = 2_000
"""Vectors that the silhouette is the mean of, at most: it compares each with each."""

CHUNK = 8_192
"""Vectors that are compared with centres at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """What k-means found."""

    labels: Labels = field(repr=False)
    """(n,) the group of each vector, 0 the largest; of equal ones that with the first vector."""
    centres: Floats = field(repr=False)
    """(k, D)"""
    distances: Floats = field(repr=False)
    """(n,) squared distance to the centre of its group."""
    explained: float
    """Share of the vectors' variance that lies between the groups, 0 to 1."""


def kmeans(vectors: NDArray[np.floating], k: int, *, seed: int = 0, starts: int = STARTS) -> Groups:
    """The best of several runs of k-means (Lloyd 1982) from k-means++ (Arthur and Vassilvitskii 2007).

    The same vectors in the same order with the same seed give the same groups.

    Args:
        vectors: (n, D), finite.
        k: how many groups; at least 2.
        seed: of the starts.
        starts: how many there are.

    Raises:
        BadRequestError: for fewer than 2 groups, and for fewer different vectors than groups.
    """
    _check(vectors, k)
    dice = np.random.default_rng(seed)
    rows = np.arange(len(vectors))
    if len(vectors) > FITTED:
        rows = np.sort(dice.choice(len(vectors), FITTED, replace=False))
    sample = vectors[rows].astype(np.float64)
    best: tuple[float, Floats] | None = None
    for _ in range(starts):
        centres = _settled(sample, _begun(sample, k, dice))
        inertia = float(_nearest(sample, centres)[1].sum())
        if best is None or inertia < best[0]:
            best = (inertia, centres)
    assert best is not None  # noqa: S101 - there is one start at least
    return _numbered(vectors, best[1])


def _check(vectors: NDArray[np.floating], k: int) -> None:
    if k < 2:
        raise BadRequestError(f"{k} clusters", expected="2 or more")
    different = len({row.tobytes() for row in vectors})
    if different == 1 < len(vectors):
        raise BadRequestError(f"all {len(vectors)} vectors are equal", expected="ground that differs", fix="map more")
    if different < k:
        raise BadRequestError(f"{k} clusters of {different} different vectors", expected=f"at most {different}")


def _begun(sample: Floats, k: int, dice: np.random.Generator) -> Floats:
    """(k, D) first centres: each next one is drawn with the squared distance to those before."""
    centres = [sample[int(dice.integers(len(sample)))]]
    nearest = _squares(sample, centres[0])
    for _ in range(k - 1):
        total = float(nearest.sum())
        # Where all that is left is a copy of a centre, any will do: a round gives an empty group another.
        chosen = int(np.searchsorted(np.cumsum(nearest), dice.random() * total)) if total > 0 else 0
        centres.append(sample[min(chosen, len(sample) - 1)])
        nearest = np.minimum(nearest, _squares(sample, centres[-1]))
    return np.stack(centres)


def _squares(sample: Floats, centre: Floats) -> Floats:
    return np.asarray(((sample - centre) ** 2).sum(axis=1))


def _settled(sample: Floats, centres: Floats) -> Floats:
    """Centres that are the means of what is nearest to them, nearly."""
    before = np.inf
    for _ in range(ROUNDS):
        labels, distances = _nearest(sample, centres)
        inertia = float(distances.sum())
        if before - inertia <= GAIN * inertia:
            break
        before = inertia
        counts = np.bincount(labels, minlength=len(centres))
        for empty in np.flatnonzero(counts == 0).tolist():
            farthest = int(distances.argmax())
            labels[farthest], distances[farthest] = empty, 0.0
            counts = np.bincount(labels, minlength=len(centres))
        centres = _sums(sample, labels, len(centres)) / np.maximum(counts, 1)[:, None]
    return centres


def _sums(sample: Floats, labels: Labels, k: int) -> Floats:
    return np.asarray((labels == np.arange(k)[:, None]).astype(np.float64) @ sample)


def _nearest(vectors: NDArray[np.floating], centres: Floats) -> tuple[Labels, Floats]:
    """(n,) the nearest centre of each vector, of equally near ones the first, and the squared distance to it."""
    lengths = (centres**2).sum(axis=1)
    labels, distances = np.empty(len(vectors), np.int64), np.empty(len(vectors))
    for start in range(0, len(vectors), CHUNK):
        part = np.asarray(vectors[start : start + CHUNK], np.float64)
        squares = np.einsum("ij,ij->i", part, part)[:, None] - 2.0 * part @ centres.T + lengths
        squares = np.maximum(squares, 0.0)
        own = squares.argmin(axis=1)
        labels[start : start + CHUNK] = own
        distances[start : start + CHUNK] = squares[np.arange(len(part)), own]
    return labels, distances


def _numbered(vectors: NDArray[np.floating], centres: Floats) -> Groups:
    labels, distances = _nearest(vectors, centres)
    counts = np.bincount(labels, minlength=len(centres))
    first = np.full(len(centres), len(labels))
    np.minimum.at(first, labels, np.arange(len(labels)))
    order = np.lexsort((first, -counts))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    mean = vectors.mean(axis=0, dtype=np.float64)
    whole = sum(
        float(((vectors[start : start + CHUNK] - mean) ** 2).sum()) for start in range(0, len(vectors), CHUNK)
    )  # fmt: skip
    return Groups(rank[labels], centres[order], distances, 1.0 - float(distances.sum()) / whole)


def shuffled(vectors: NDArray[np.floating], *, seed: int = 0) -> NDArray[np.floating]:
    """The same numbers, each column in an order of its own: what would be there without groups.

    Source: the reference of Friedman and Tibshirani's gap statistic (2001), drawn from the vectors themselves.
    """
    dice = np.random.default_rng(seed)
    mixed = vectors.copy()
    for column in mixed.T:
        dice.shuffle(column)
    return mixed


def silhouette(vectors: NDArray[np.floating], labels: Labels, *, seed: int = 0) -> float:
    """The mean silhouette (Rousseeuw 1987), -1 to 1, of at most COMPARED vectors among themselves; 0 where one is
    alone in its group. NaN where all that are compared are of one group."""
    rows = np.arange(len(vectors))
    if len(rows) > COMPARED:
        rows = np.sort(np.random.default_rng(seed).choice(len(rows), COMPARED, replace=False))
    part, own = vectors[rows].astype(np.float64), labels[rows]
    groups, own = np.unique(own, return_inverse=True)
    if len(groups) < 2:
        return float("nan")
    lengths = (part**2).sum(axis=1)
    apart = np.sqrt(np.maximum(lengths[:, None] - 2.0 * part @ part.T + lengths, 0.0))
    np.fill_diagonal(apart, 0.0)
    sums = np.stack([apart[:, own == group].sum(axis=1) for group in range(len(groups))], axis=1)
    counts = np.bincount(own)
    here = np.arange(len(own))
    inside = sums[here, own] / np.maximum(counts[own] - 1, 1)
    others = sums / counts
    others[here, own] = np.inf
    outside = others.min(axis=1)
    with np.errstate(invalid="ignore"):
        each = (outside - inside) / np.maximum(outside, inside)
    return float(np.where(counts[own] > 1, np.nan_to_num(each), 0.0).mean())


def adjusted_rand(one: NDArray[np.integer], other: NDArray[np.integer]) -> float:
    """How far two groupings of the same things agree: 1 the same, 0 as by chance (Hubert and Arabie 1985).

    Example:
        >>> adjusted_rand(np.array([0, 0, 1, 1]), np.array([5, 5, 2, 2]))
        1.0
    """
    _, first = np.unique(one, return_inverse=True)
    _, second = np.unique(other, return_inverse=True)
    table = np.zeros((int(first.max()) + 1, int(second.max()) + 1))
    np.add.at(table, (first, second), 1)
    pairs = [float((counts * (counts - 1) / 2).sum()) for counts in (table, table.sum(axis=1), table.sum(axis=0))]
    whole = len(first) * (len(first) - 1) / 2
    expected = pairs[1] * pairs[2] / whole if whole else 0.0
    highest = (pairs[1] + pairs[2]) / 2
    return 1.0 if highest == expected else (pairs[0] - expected) / (highest - expected)
