"""Footprints asked about one by one: which of them a picture shows, and what a predictor says of those.

The same for every predictor: what lies under cloud, outside the picture or on too few pixels is not asked about, and
its reason is the answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import shapely

from earthmap.predict.protocol import TileInput
from earthmap.sensors.masks import unseen
from earthmap.tasks.answer import UNSEEN, Answer, Grading
from earthmap.tasks.damage import damage_question, footprint_phrase
from earthmap.tasks.query import Query
from earthmap.tasks.registry import TASKS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

SEEN_SHARE = 0.5
"""Share of a footprint's pixels that both dates must show."""

FEWEST_PX = 9.0
"""A footprint of fewer square pixels is too small to be graded: three a side."""

BEYOND = "goes beyond the picture of its tile: graded by the part that it shows"
"""Note of a footprint that the picture does not show whole."""

_FRAME = shapely.box(0.0, 0.0, 1.0, 1.0)

_Replies = Sequence[Grading] | Answer

_Predict = Callable[[Sequence[TileInput], Sequence[Query]], list[list[Answer]]]


def asks_each(item: TileInput, query: Query) -> bool:
    """Whether a query is asked of each footprint of a tile, and not of its whole picture."""
    return TASKS[query.task].merge == "footprints" and bool(item.footprints)


def grade_each(item: TileInput, query: Query, ask: Callable[[Sequence[BaseGeometry]], _Replies]) -> Answer:
    """The answer of a tile with a grading for each of its footprints.

    Args:
        item: The tile, its two pictures and its footprints.
        query: Of task damage.
        ask: The gradings of footprints that can be seen, in tile coordinates and cut at the picture's edge; or, where
            the predictor refuses or fails, the answer of the whole tile.
    """
    if len(item.pictures) != query.dates:
        message = f"{len(item.pictures)} pictures are given; a {query.task} question needs {query.dates}"
        return Answer(status="failed", stage="predict", reason="bad_input", message=message)
    hidden = _hidden(item, query)
    gradings = [_unanalysed(outline, item, hidden) for outline in item.footprints]
    shown = [index for index, grading in enumerate(gradings) if grading is None]
    replies = ask([_in_frame(item.footprints[index]) for index in shown]) if shown else []
    if isinstance(replies, Answer):
        return replies
    for index, reply in zip(shown, replies, strict=True):
        cut = not _FRAME.covers(item.footprints[index])
        gradings[index] = replace(reply, notes=(*reply.notes, BEYOND)) if cut else reply
    seen = ~np.logical_or.reduce(list(hidden.values()))[item.core]
    return Answer(
        status="answered",
        value=str(len(shown)),
        mask=np.where(seen, np.uint8(0), np.uint8(UNSEEN)),
        seen_px=int(seen.sum()),
        gradings=tuple(grading for grading in gradings if grading is not None),
    )


def answer_each(predict: _Predict, inputs: Sequence[TileInput], queries: Sequence[Query]) -> list[list[Answer]]:
    """What `predict` says of tiles and queries, those about footprints asked of each footprint by itself.

    `predict` is asked one question for each footprint, all of a tile at once, in the words that it was taught; it is
    never given footprints.
    """
    plain = [index for index, query in enumerate(queries) if not any(asks_each(item, query) for item in inputs)]
    together = predict(inputs, [queries[index] for index in plain]) if plain else [[] for _ in inputs]
    found = []
    for item, row in zip(inputs, together, strict=True):
        known = dict(zip(plain, row, strict=True))
        found.append([known.get(index) or _alone(predict, item, query) for index, query in enumerate(queries)])
    return found


def _alone(predict: _Predict, item: TileInput, query: Query) -> Answer:
    """The answer to one query about one tile."""
    plain = replace(item, footprints=())
    if not asks_each(item, query):
        return predict([plain], [query])[0][0]

    def ask(outlines: Sequence[BaseGeometry]) -> _Replies:
        texts = [damage_question(footprint_phrase(*_named(outline))) for outline in outlines]
        different = list(dict.fromkeys(texts))
        (answers,) = predict([plain], [replace(query, text=text) for text in different])
        refused = next((answer for answer in answers if answer.status != "answered"), None)
        if refused is not None:
            return refused
        known = dict(zip(different, answers, strict=True))
        return [_grading(known[text]) for text in texts]

    return grade_each(item, query, ask)


def _named(outline: BaseGeometry) -> tuple[BaseGeometry, str]:
    """What names a footprint, and its kind."""
    return (outline, "point") if outline.geom_type == "Point" else (shapely.box(*outline.bounds), "box")


def _grading(answer: Answer) -> Grading:
    return Grading(value=answer.value, probability=answer.probability, scores=answer.scores, notes=answer.notes)


def _in_frame(outline: BaseGeometry) -> BaseGeometry:
    return shapely.intersection(outline, _FRAME)


# ── what the pictures show ───────────────────────────────────────────────────────────────────────────────────


def _hidden(item: TileInput, query: Query) -> dict[str, NDArray[np.bool_]]:
    """By reason, the pixels of the whole picture (y, x) that one date or the other hides."""
    hidden: dict[str, NDArray[np.bool_]] = {}
    for picture in item.pictures:
        masks = {reason: unseen(picture.mask, (reason,)) for reason in query.unseen}
        missing = ~np.isfinite(picture.data).any(axis=0)
        masks["nodata"] = masks.get("nodata", np.zeros_like(missing)) | missing
        for reason, pixels in masks.items():
            hidden[reason] = hidden.get(reason, np.zeros_like(pixels)) | pixels
    return hidden


def _unanalysed(
    outline: BaseGeometry, item: TileInput, hidden: dict[str, NDArray[np.bool_]]
) -> Grading | None:  # fmt: skip
    """Why a footprint is not asked about; None where it is."""
    inside = _pixels(outline, item.side_px)
    if not inside[0].size:
        return Grading(reason="outside", message="the footprint lies outside its tile's picture")
    size = outline.area * item.side_px**2
    if outline.geom_type != "Point" and size < FEWEST_PX:
        message = f"the footprint covers {size:.1f} pixels; expected {FEWEST_PX:g} or more"
        return Grading(reason="too_small", message=message)
    counts = Counter({reason: int(pixels[inside].sum()) for reason, pixels in sorted(hidden.items())})
    lost = np.logical_or.reduce([pixels[inside] for pixels in hidden.values()])
    if lost.mean() <= 1.0 - SEEN_SHARE:
        return None
    reason = counts.most_common(1)[0][0]
    message = f"{lost.mean():.0%} of the footprint cannot be seen on both dates, most of it for {reason}"
    return Grading(reason=reason, message=message)


def _pixels(outline: BaseGeometry, side: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the picture whose centres lie in an outline; of a small one the pixel that it is in."""
    left, top, right, bottom = (float(edge) * side for edge in outline.bounds)
    rows, columns = (
        np.arange(max(int(np.floor(low)), 0), min(int(np.ceil(high)) + 1, side))
        for low, high in ((top, bottom), (left, right))
    )
    shapely.prepare(outline)
    x, y = np.meshgrid((columns + 0.5) / side, (rows + 0.5) / side)
    found = np.nonzero(shapely.contains_xy(outline, x, y))
    if found[0].size:
        return rows[found[0]], columns[found[1]]
    place = outline.representative_point()
    row, column = int(np.floor(place.y * side)), int(np.floor(place.x * side))
    is_inside = 0 <= row < side and 0 <= column < side
    return np.array([row] * is_inside, np.int64), np.array([column] * is_inside, np.int64)
