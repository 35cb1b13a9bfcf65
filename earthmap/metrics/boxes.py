"""How well shapes lie on true ones: boxes, oriented boxes and outlines alike, in any coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

HALF = 0.5
"""Overlap from which a shape counts as found."""


def overlap(one: BaseGeometry, other: BaseGeometry) -> float:
    """Intersection over union of two areas, 0 to 1; 0 where either has none. Invalid rings are mended first.

    Example:
        >>> import shapely
        >>> overlap(shapely.box(0, 0, 2, 1), shapely.box(1, 0, 3, 1))
        0.3333333333333333
    """
    import shapely

    first, second = (shape if shape.is_valid else shapely.make_valid(shape) for shape in (one, other))
    union = first.union(second).area
    return float(first.intersection(second).area / union) if union > 0 else 0.0


def f1_at_half(found: Sequence[BaseGeometry], true: Sequence[BaseGeometry]) -> float:
    """F1 of shapes found, each true one by one of them at most, the best overlaps first; nothing against nothing is 1.

    Example:
        >>> import shapely
        >>> f1_at_half([shapely.box(0, 0, 1, 1)], [shapely.box(0, 0, 1, 1), shapely.box(5, 5, 6, 6)])
        0.6666666666666666
    """
    if not found and not true:
        return 1.0
    pairs = sorted(
        ((overlap(one, other), left, right) for left, one in enumerate(found) for right, other in enumerate(true)),
        reverse=True,
    )
    used: set[tuple[str, int]] = set()
    hits = 0
    for share, left, right in pairs:
        if share >= HALF and not {("found", left), ("true", right)} & used:
            used |= {("found", left), ("true", right)}
            hits += 1
    return 2.0 * hits / (len(found) + len(true))
