"""The oracle: answers read from the truth of a drawn world.

It proves everything around a predictor: what a run makes of the oracle's answers must be the truth itself, wherever
the pictures showed the ground.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from earthmap.content import content_key
from earthmap.errors import CatalogError
from earthmap.predict.grading import asks_each, grade_each
from earthmap.predict.protocol import Picture, TileInput
from earthmap.predict.standing import beyond_standing, find_any, find_things, find_tracks
from earthmap.predict.true_grades import true_gradings
from earthmap.predict.vectors import little_seen, vector_answer
from earthmap.sensors.masks import unseen
from earthmap.synthetic.truth import CLASSES, OUTSIDE, World, truth_on
from earthmap.tasks.answer import UNSEEN, Answer
from earthmap.tasks.query import Query, beyond_land_cover, mask_legend
from earthmap.tasks.registry import TASKS

if TYPE_CHECKING:
    from numpy.typing import NDArray

VERSION = "3"
"""Raised when anything but the world changes an answer."""


class OraclePredictor:
    """Answers from the truth of `world`, with probability 1. See `earthmap.predict.Predictor`.

    Only the pixels of the core that every picture shows are answered: where a query calls the reason of the mask
    unseen, where no band holds a number, and beyond the world's edge, the ground is unseen. Buildings and ships are
    found in the whole picture, as a model finds them: `earthmap.predict.standing`.
    """

    def __init__(self, world: World | str) -> None:
        """`world`: the drawn world behind the pictures, or its JSON."""
        self.world = World.from_json(world) if isinstance(world, str) else world

    @property
    def key(self) -> str:
        """Key of the world and of this module's version."""
        return content_key("oracle", VERSION, self.world.to_dict())

    def predict(self, inputs: Sequence[TileInput], queries: Sequence[Query]) -> list[list[Answer]]:
        """One list for each input, one answer for each query, in order; see `earthmap.predict.Predictor`."""
        return [self._tile(item, queries) for item in inputs]

    def _tile(self, item: TileInput, queries: Sequence[Query]) -> list[Answer]:
        if item.tile is None:
            return [_bad_input("the oracle knows the ground of tiles; the picture is on none")] * len(queries)
        dates = [picture.datetime for picture in item.pictures if picture.datetime is not None]
        wrong = item.fault if len(dates) == len(item.pictures) else "a picture has no date, which the oracle needs"
        if wrong:
            return [_bad_input(wrong)] * len(queries)
        try:
            truths = [truth_on(self.world, item.tile.core_geobox, date) for date in dates]
        except CatalogError as error:
            return [_bad_input(str(error))] * len(queries)
        return [self._answer(item, query, truths) for query in queries]

    def _answer(self, item: TileInput, query: Query, truths: Sequence[NDArray[np.uint8]]) -> Answer:
        """The answer to one query; `truths` are the core's class codes on the date of each picture."""
        if asks_each(item, query):
            return grade_each(item, query, partial(true_gradings, self.world, item))
        finds = TASKS[query.task].merge == "instances"
        if TASKS[query.task].is_vector and len(truths) == 1:
            seen = _seen(item, query, truths)
            return seen if isinstance(seen, Answer) else _vector(truths[0], seen)
        things = finds or (query.task == "presence" and beyond_standing(query) is None)
        beyond = beyond_standing(query) if things else beyond_land_cover(query)
        if beyond:
            return Answer(status="skipped", reason="not_supported", message=beyond)
        if len(truths) != query.dates if query.dates else len(truths) < 2:
            needs = query.dates or "at least 2"
            return _bad_input(f"{len(truths)} pictures are given; a {query.task} question needs {needs}")
        seen = _seen(item, query, truths)
        if isinstance(seen, Answer):
            return seen
        if finds and query.dates != 1:
            return find_tracks(self.world, item, query, seen)
        if things:
            return find_things(self.world, item, query, seen) if finds else find_any(self.world, item, query, seen)
        return _of_land_cover(query, truths, seen)


def _bad_input(message: str) -> Answer:
    return Answer(status="failed", stage="predict", reason="bad_input", message=message)


def _hidden(item: TileInput, picture: Picture, query: Query, truth: NDArray[np.uint8]) -> dict[str, NDArray[np.bool_]]:
    """By reason, the core's pixels that it hides: (core, core) each, `nodata` among them."""
    mask = picture.mask[item.core]
    hidden = {reason: unseen(mask, (reason,)) for reason in query.unseen}
    missing = ~np.isfinite(picture.data[(slice(None), *item.core)]).any(axis=0) | (truth == OUTSIDE)
    hidden["nodata"] = hidden.get("nodata", np.zeros_like(missing)) | missing
    return hidden


def _seen(item: TileInput, query: Query, truths: Sequence[NDArray[np.uint8]]) -> NDArray[np.bool_] | Answer:
    """The core's pixels that every picture shows, of a series two or more; where there are none, the answer that this
    is."""
    shown = np.zeros(truths[0].shape, int)
    counts: dict[str, int] = {}
    for picture, truth in zip(item.pictures, truths, strict=True):
        hidden = _hidden(item, picture, query, truth)
        for reason, pixels in hidden.items():
            counts[reason] = counts.get(reason, 0) + int(pixels.sum())
        shown += ~np.logical_or.reduce(list(hidden.values()))
    seen: NDArray[np.bool_] = shown >= (query.dates or 2)
    if not seen.any():
        reason = max(sorted(counts), key=lambda name: counts[name])
        message = f"no pixel of the core could be seen; {counts[reason]} pixels are {reason}"
        return Answer(status="skipped", reason=reason, message=message)
    return seen


def _vector(truth: NDArray[np.uint8], seen: NDArray[np.bool_]) -> Answer:
    """The square roots of the shares of the classes on the seen ground: two of them have the Bhattacharyya coefficient
    of their shares for their inner product."""
    counts = np.bincount(truth[seen], minlength=len(CLASSES) + 1)[1 : len(CLASSES) + 1]
    return little_seen(seen) or vector_answer(np.sqrt(counts / counts.sum()), seen)


def _of_land_cover(query: Query, truths: Sequence[NDArray[np.uint8]], seen: NDArray[np.bool_]) -> Answer:
    if query.task in ("segment", "change"):
        return _mask_answer(_codes(query, truths), seen, query)
    wanted = np.isin(truths[0], [CLASSES.index(target) + 1 for target in query.targets])
    fraction = float((wanted & seen).sum() / seen.sum())
    value = ("yes" if fraction > 0 else "no") if query.task == "presence" else f"{fraction:.4f}"
    mask = np.where(seen, np.uint8(0), np.uint8(UNSEEN))
    return Answer(
        status="answered", value=value, probability=1.0, fraction=fraction, mask=mask, seen_px=int(seen.sum())
    )


def _codes(query: Query, truths: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The core's codes of `mask_legend`. Where one target became another, the change of the one named first is drawn,
    whichever way it is."""
    names = {name: code for code, name in mask_legend(query).items()}
    codes = np.zeros(truths[0].shape, np.uint8)
    classes = {target: CLASSES.index(target) + 1 for target in query.targets}
    if query.task == "segment":
        for target, code in classes.items():
            codes[truths[0] == code] = names[target]
        return codes
    before, after = truths
    for target, code in reversed(classes.items()):
        codes[(before == code) & (after != code)] = names[f"{target} lost"]
        codes[(after == code) & (before != code)] = names[f"{target} gained"]
    return codes


def _mask_answer(codes: NDArray[np.uint8], seen: NDArray[np.bool_], query: Query) -> Answer:
    legend = mask_legend(query)
    counts = np.bincount(codes[seen], minlength=UNSEEN + 1)[1:UNSEEN]
    largest = int(counts.argmax()) + 1  # of equal ones the first
    return Answer(
        status="answered",
        value=legend[largest] if counts[largest - 1] else "none",
        probability=1.0,
        fraction=float(counts.sum() / seen.sum()),
        mask=np.where(seen, codes, np.uint8(UNSEEN)),
        legend=legend,
        seen_px=int(seen.sum()),
    )
