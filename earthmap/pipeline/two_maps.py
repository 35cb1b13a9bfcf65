"""Change between unlike sensors: a map of each date, and the two compared. Pure.

Pictures of unlike sensors are no pair to look at together; what each shows by itself is. What only one of them can tell
of a place counts as changed then, and every such answer says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from earthmap.tasks import UNSEEN, Answer, Query, mask_legend

if TYPE_CHECKING:
    from numpy.typing import NDArray

COMPARED = "maps of unlike sensors are compared: what only one of them can tell counts as changed"
"""Note of every such answer."""


def map_queries(query: Query) -> list[Query]:
    """The questions for each target's map, each by itself: what one date cannot tell is then known to be untold."""
    return [
        dataclasses.replace(query, task="segment", targets=(target,), before=None, after=None)
        for target in query.targets
    ]


def compare_maps(query: Query, first: Sequence[Answer], second: Sequence[Answer]) -> Answer:
    """The change that two dates' maps come to.

    Args:
        query: what was asked, a change with a mask.
        first: answers to `map_queries` of the first date, in their order.
        second: the same of the second.
    """
    pairs = list(zip(query.targets, first, second, strict=True))
    told = [pair for pair in pairs if all(answer.status == "answered" for answer in pair[1:])]
    failed = [answer for _, *answers in pairs for answer in answers if answer.status == "failed"]
    if failed or not told:
        untold = (answer for _, *answers in pairs for answer in answers if answer.status != "answered")
        return failed[0] if failed else next(untold)
    names = {name: code for code, name in mask_legend(query).items()}
    masks = [(target, _mask(before), _mask(after)) for target, before, after in told]
    seen = np.logical_and.reduce([(before != UNSEEN) & (after != UNSEEN) for _, before, after in masks])
    if not seen.any():
        return Answer(status="skipped", reason="nodata", message="no pixel of the core could be seen on both dates")
    codes = np.zeros(seen.shape, np.uint8)
    for target, before, after in reversed(masks):
        codes[(before != 0) & (after == 0)] = names[f"{target} lost"]
        codes[(before == 0) & (after != 0)] = names[f"{target} gained"]
    counts = np.bincount(codes[seen], minlength=UNSEEN + 1)[1:UNSEEN]
    largest = int(counts.argmax()) + 1  # of equal ones the first
    answered = [answer for _, *answers in told for answer in answers]
    sure = [answer.probability for answer in answered if answer.probability is not None]
    known = {target for target, *_ in told}
    left_out = [f"{target} not compared: a date cannot tell it" for target in query.targets if target not in known]
    return Answer(
        status="answered",
        value=mask_legend(query)[largest] if counts[largest - 1] else "none",
        probability=min(sure) if len(sure) == len(answered) else None,
        fraction=float(counts.sum() / seen.sum()),
        mask=np.where(seen, codes, np.uint8(UNSEEN)),
        legend=mask_legend(query),
        seen_px=int(seen.sum()),
        notes=tuple(dict.fromkeys((COMPARED, *left_out, *(note for answer in answered for note in answer.notes)))),
        orders_agree=1.0,  # each map is of one date
    )


def _mask(answer: Answer) -> NDArray[np.uint8]:
    return np.empty((0, 0), np.uint8) if answer.mask is None else answer.mask
