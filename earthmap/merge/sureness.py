"""How sure the answers of a cell's tiles are of each pixel, as one raster on the cell's core."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.grid import Cell, Tile
from earthmap.predict.replies import cover
from earthmap.tasks import UNSEEN
from earthmap.tasks.serialization import parse, plain_label

if TYPE_CHECKING:
    from numpy.typing import NDArray


def cell_percent(
    cell: Cell, codes: NDArray[np.uint8], rows: Iterable[Mapping[str, Any]]
) -> NDArray[np.uint8] | None:  # fmt: skip
    """(cell_core_px, cell_core_px) stated probability in percent of what `codes` say; None where no answer states any.

    Where a shape that the model wrote covers a pixel of its class it is the shape's, else that of the whole answer
    about the tile. 255 where the ground is unseen and where no probability is stated.

    Args:
        cell: the cell.
        codes: (cell_core_px, cell_core_px) of `earthmap.merge.cell_codes`.
        rows: answers about its tiles (`answer_schema`).
    """
    percent = np.full(codes.shape, UNSEEN, np.uint8)
    for row in rows:
        if row["status"] == "answered" and (row["probability"] is not None or row["instance_scores"]):
            place = Tile.parse(row["tile_id"]).core_slices
            percent[place] = _tile_percent(row, codes[place])
    percent[codes == UNSEEN] = UNSEEN
    return percent if (percent != UNSEEN).any() else None


def _tile_percent(row: Mapping[str, Any], codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(core, core) of one answer; where shapes overlap the surest tells."""
    grid = Tile.parse(row["tile_id"]).grid
    whole = UNSEEN if row["probability"] is None else _percent(row["probability"])
    percent = np.full(codes.shape, whole, np.uint8)
    if not row["instance_scores"]:
        return percent
    inner = slice(grid.halo_px, grid.halo_px + grid.core_px)
    named = {plain_label(name): int(code) for code, name in json.loads(row["legend"]).items()}
    shapes = zip(row["instance_scores"], parse(row["instances"]).instances, strict=False)
    for score, shape in sorted(shapes, key=lambda pair: float(pair[0])):
        code = next(iter(named.values())) if len(named) == 1 else named.get(shape.label)
        percent[cover(shape, grid.picture_px, (inner, inner)) & (codes == code)] = _percent(score)
    return percent


def _percent(probability: float) -> int:
    return round(100.0 * probability)
