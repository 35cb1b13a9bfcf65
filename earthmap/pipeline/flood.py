"""Flood: water that is not there otherwise. What the observation shows as water, less what is always under water: as a
file says, or as two observations before show. Pure.

docs/decisions/0025-flood-is-water-less-permanent-water.md says why so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from earthmap.tasks import UNSEEN, Answer, Query, mask_legend

if TYPE_CHECKING:
    from numpy.typing import NDArray

WATER = "Where is water?"
"""What the observation and those before it are asked."""

ENOUGH = 2
"""Observations before that must show a pixel as water, or at least show it, before it counts as known."""

BY_FILE = "permanent water is what the file of reference water says"
BY_DATES = f"permanent water is what was water in at least {ENOUGH} observations before"
INCLUDED = f"includes permanent water where fewer than {ENOUGH} observations before show the ground"
INCLUDED_BY_FILE = "includes permanent water where the file of reference water says nothing"
UNDETECTABLE = "flood between buildings and under trees is not detectable, and counts as dry"
MOMENT = "the extent is that of the picture's time, not of the flood's peak"


def water_query(query: Query) -> Query:
    """What is asked of each observation for a question about flood: the same as a map of water alone."""
    return dataclasses.replace(query, text=WATER, targets=("water",), sensors=(), before=None, after=None)


def compare_water(
    query: Query, now: Answer, before: Sequence[Answer], *, known: NDArray[np.uint8] | None = None
) -> Answer:
    """The flood of one tile.

    Args:
        query: what was asked, a question about flood.
        now: answer to `water_query` of the observation.
        before: the same of observations before; those that are not answered tell nothing.
        known: (core, core) codes of a file: 0 land, 1 permanent water, UNSEEN where it says nothing. It is asked in
            place of `before` where it is given.
    """
    if now.status != "answered" or now.mask is None:
        return now
    water, seen = now.mask == 1, now.mask != UNSEEN
    permanent, told = _permanent(seen, before) if known is None else (known == 1, known != UNSEEN)
    names = mask_legend(query)
    codes = np.zeros(seen.shape, np.uint8)
    codes[water & told & ~permanent] = 1
    codes[water & ~told] = 2
    counts = np.bincount(codes[seen], minlength=3)
    counted = (told & seen).any()
    legend = {code: names[code] for code, there in ((1, counted), (2, counts[2] or not counted)) if there}
    notes = [MOMENT, UNDETECTABLE]
    if counted:
        notes.append(BY_DATES if known is None else BY_FILE)
    if counts[2]:
        notes.append(INCLUDED if known is None else INCLUDED_BY_FILE)
    largest = 1 if counts[1] >= counts[2] else 2
    return dataclasses.replace(
        now,
        value=names[largest] if counts[largest] else "none",
        fraction=float(counts[1:].sum() / counts.sum()),
        mask=np.where(seen, codes, np.uint8(UNSEEN)),
        legend=legend,
        notes=tuple(dict.fromkeys((*notes, *now.notes))),
    )


def _permanent(
    seen: NDArray[np.bool_], before: Sequence[Answer]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:  # fmt: skip
    """Pixels that enough of the observations show as water, and those that enough of them show."""
    masks = [answer.mask for answer in before if answer.status == "answered" and answer.mask is not None]
    wet = sum((mask == 1 for mask in masks), np.zeros(seen.shape, np.uint8))
    told = sum((mask != UNSEEN for mask in masks), np.zeros(seen.shape, np.uint8))
    return wet >= ENOUGH, told >= ENOUGH
