"""The coarse pass: is a target there at all? Asked of pictures with larger pixels, each of which shows several tiles.

The predictor is the run's own, and the question the cheapest that it answers about what is looked for: "Is there any
ship?". A picture's core is the cores of its tiles, and it is a tile of a lattice itself (that of pixels `scale` times
as large), so that predictors need to know nothing of this. It depends on the cell's pixels alone.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.cube import CellGroup
from earthmap.grid import CELL_TILES, Grid, Tile
from earthmap.pipeline.triage import Triage, Verdict, outside_answer, triage_answer
from earthmap.predict import Picture, TileInput
from earthmap.sensors.masks import Reason
from earthmap.tasks import UNSEEN, Answer, Query

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCALES = (2, 4)
"""Tiles along one side of a coarse picture: a fourth or a sixteenth as many pictures."""

Ask = Callable[[Sequence[TileInput], Sequence[Query]], list[list[Answer]]]
"""Answers tile by tile, one for each query, as `earthmap.predict.Predictor.predict`."""


def presence_query(query: Query) -> Query:
    """Whether there is any of what a query looks for; a question of presence itself stays as it is.

    Example:
        >>> from earthmap.tasks import make_query
        >>> presence_query(make_query("How many ships are there?", open_vocabulary=True)).text
        'Is there any ship?'
    """
    if query.task == "presence":
        return query
    text = f"Is there any {' or '.join(query.targets)}?"
    return dataclasses.replace(query, text=text, task="presence", choices=(), shape=None)


def coarse_tile(tile: Tile, scale: int) -> Tile:
    """The tile of larger pixels whose core holds the cores of `scale` × `scale` tiles, `tile` among them."""
    grid = tile.grid
    larger = Grid(resolution_m=grid.resolution_m * scale, picture_px=grid.picture_px, anchor_m=grid.anchor_m)
    return Tile(larger, tile.zone, tile.row // scale, tile.column // scale)


def coarse_cell(whole: Picture, scale: int) -> Picture:
    """A cell with its halo ring on pixels `scale` times as large.

    A pixel has the commonest reason of those that it is made of, the first of the reason mask of equally common ones,
    and their mean: linear power and reflectance are averaged as they are.
    """
    reasons, mixed = _commonest(whole.mask, scale)
    data = np.stack([_mean(band, whole.mask, reasons, mixed, scale) for band in whole.data])
    return dataclasses.replace(whole, data=data, mask=reasons)


def coarse_picture(coarse: Picture, tile: Tile, scale: int) -> Picture:
    """What `coarse_cell` shows of `coarse_tile(tile, scale)`; what the cell's halo ring does not reach is nodata."""
    grid = tile.grid
    blocks, reach = CELL_TILES // scale, grid.halo_px - grid.halo_px // scale
    down = (blocks - 1 - tile.row // scale % blocks) * grid.core_px - reach
    right = tile.column // scale % blocks * grid.core_px - reach
    side = grid.picture_px
    there, here = zip(*(_overlap(start, side, len(coarse.mask)) for start in (down, right)), strict=True)
    mask = np.full((side, side), Reason.NODATA, np.uint8)
    data = np.full((len(coarse.data), side, side), np.nan, np.float32)
    mask[here] = coarse.mask[there]
    data[(slice(None), *here)] = coarse.data[(slice(None), *there)]
    return dataclasses.replace(coarse, data=data, mask=mask)


def _overlap(start: int, length: int, size: int) -> tuple[slice, slice]:
    """Which part of `size` pixels lies within `length` pixels from `start` on, and where in those."""
    first, last = max(start, 0), min(start + length, size)
    return slice(first, last), slice(first - start, last - start)


def _pooled(values: NDArray[Any], scale: int) -> NDArray[Any]:
    """Sums over squares of `scale` pixels, in one fixed order."""
    rows = functools.reduce(np.add, [values[down::scale] for down in range(scale)])
    sums: NDArray[Any] = functools.reduce(np.add, [rows[:, right::scale] for right in range(scale)])
    return sums


def _commonest(mask: NDArray[np.uint8], scale: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The commonest code of each square, and where there are others too."""
    codes = np.unique(mask)
    counts = np.stack([_pooled((mask == code).view(np.uint8), scale) for code in codes.tolist()])
    best = counts.argmax(axis=0)
    mixed: NDArray[np.bool_] = counts.max(axis=0) < scale**2
    return codes[best], mixed


def _mean(
    band: NDArray[np.float32],
    mask: NDArray[np.uint8],
    reasons: NDArray[np.uint8],
    mixed: NDArray[np.bool_],
    scale: int,
) -> NDArray[np.float32]:
    """The mean of each square over its pixels that have its reason and a number; NaN where there are none."""
    mean = np.asarray(_pooled(band, scale) / scale**2, np.float32)
    odd = mixed | np.isnan(mean)
    rows, columns = np.nonzero(odd)
    if len(rows):
        values, codes = (_squares(image, scale)[rows, :, columns, :] for image in (band, mask))
        counted = (codes == reasons[odd][:, None, None]) & ~np.isnan(values)
        total, count = np.where(counted, values, np.float32(0)).sum(axis=(1, 2)), counted.sum(axis=(1, 2))
        mean[odd] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return mean


def _squares(image: NDArray[Any], scale: int) -> NDArray[Any]:
    """(rows, scale, columns, scale)"""
    side = len(image) // scale
    return image.reshape(side, scale, side, scale)


# ── what it decides ───────────────────────────────────────────────────────────────────────────────────────────


def look_first(
    rows: Sequence[list[Answer | None]],
    places: Sequence[tuple[Tile, CellGroup]],
    queries: Sequence[Query],
    *,
    triage: Triage,
    tiles: int,
    ask: Ask,
) -> dict[tuple[int, int], Verdict]:
    """What became of each tile that a triaged query asks about, by place and number of the query.

    Args:
        rows: for each tile and query why it is not asked; None where it is. What is decided here is put into it.
        places: the tiles of the cell, each with the group that it is asked about.
        queries: those of the rows.
        triage: of the run.
        tiles: which tiles belong to the job, as bits.
        ask: the predictor.
    """
    keys = [query.content_key() for query in queries]
    triaged = [number for number, key in enumerate(keys) if triage.coarse_for(key) is not None]
    coarse = triage.coarse
    if coarse is None or not triaged:
        return {}
    mine = [place for place in range(len(places)) if tiles >> place & 1]
    for number in triaged:
        for place in set(range(len(places))).difference(mine):
            rows[place][number] = outside_answer()
    wanted = {number: [places[place] for place in mine if rows[place][number] is None] for number in triaged}
    scores = coarse_scores(wanted, queries, scale=coarse.scale, ask=ask)
    verdicts = {}
    for number in triaged:
        for place in mine:
            tile = places[place][0]
            score = scores.get((tile.id, number)) if rows[place][number] is None else None
            verdict = Verdict(
                score=score,
                skips=score is not None and score < coarse.threshold,
                audited=triage.is_audited(keys[number], tile.id),
            )
            verdicts[place, number] = verdict
            if verdict.skips and not verdict.audited:
                resolution = tile.grid.resolution_m
                rows[place][number] = triage_answer(queries[number], verdict, resolution_m=resolution, coarse=coarse)
    return verdicts


# ── scores ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class _Block:
    """One coarse picture: what is asked of it, for which tiles."""

    coarse: Tile
    group: CellGroup
    tiles: dict[Tile, None] = field(default_factory=dict)
    queries: set[int] = field(default_factory=set)


def coarse_scores(
    wanted: Mapping[int, Sequence[tuple[Tile, CellGroup]]], queries: Sequence[Query], *, scale: int, ask: Ask
) -> dict[tuple[str, int], float]:
    """The score of a query's targets for each tile, 0 to 1, by tile id and number of the query.

    There is none of a tile that the coarse picture does not show, or about which the predictor says nothing.

    Args:
        wanted: by number of the query the tiles, each with the group that it is asked about.
        queries: all of them.
        scale: tiles along one side of a picture.
        ask: the predictor.
    """
    together: dict[tuple[int, ...], list[_Block]] = {}
    found = _blocks(wanted, scale)
    cells = {block.group.path: coarse_cell(block.group.whole(), scale) for block in found}
    for block in found:
        together.setdefault(tuple(sorted(block.queries)), []).append(block)
    scores: dict[tuple[str, int], float] = {}
    for numbers, blocks in together.items():
        shown = [coarse_picture(cells[block.group.path], next(iter(block.tiles)), scale) for block in blocks]
        inputs = [TileInput(tile=block.coarse, pictures=(one,)) for block, one in zip(blocks, shown, strict=True)]
        told = ask(inputs, [presence_query(queries[number]) for number in numbers])
        for block, answers in zip(blocks, told, strict=True):
            for number, answer in zip(numbers, answers, strict=True):
                of_tiles = {(tile.id, number): _score(answer, tile, scale) for tile in block.tiles}
                scores |= {place: score for place, score in of_tiles.items() if score is not None}
    return scores


def _blocks(wanted: Mapping[int, Sequence[tuple[Tile, CellGroup]]], scale: int) -> list[_Block]:
    """The coarse pictures that the tiles of all queries need, each once."""
    blocks: dict[tuple[str, str], _Block] = {}
    for number, tiles in wanted.items():
        for tile, group in tiles:
            coarse = coarse_tile(tile, scale)
            block = blocks.setdefault((group.path, coarse.id), _Block(coarse, group))
            block.tiles[tile] = None
            block.queries.add(number)
    return list(blocks.values())


def _score(answer: Answer, tile: Tile, scale: int) -> float | None:
    """What an answer about a coarse picture says of one of its tiles: probability of yes, or 1 for yes, 0 for no."""
    if answer.status != "answered" or answer.mask is None:
        return None
    side = tile.grid.core_px // scale
    down, right = (scale - 1 - tile.row % scale) * side, tile.column % scale * side
    if (answer.mask[down : down + side, right : right + side] == UNSEEN).all():
        return None
    return float(answer.scores.get("yes", answer.value == "yes"))
