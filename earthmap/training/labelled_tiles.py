"""Tiles of a cube with labelled ground as rows: what a user's tile shows, asked about what the labels say of it.

On the labelled ground, what no label covers belongs to none of the classes; beyond it nothing is known and nothing
shown. What is not seen is not asked about.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from earthmap.cube import CellGroup, open_cell
from earthmap.errors import StorageError, TrainingError
from earthmap.model.processing import UNIT_PX
from earthmap.sensors.bands import THERMAL_BANDS
from earthmap.sensors.masks import Reason, unseen
from earthmap.sensors.registry import get_sensor
from earthmap.sensors.views import VIEWS, make_view, sensor_views
from earthmap.storage import Storage
from earthmap.tasks import picture_name
from earthmap.tasks.query import DEFAULT_UNSEEN
from earthmap.training.faults import Unfit
from earthmap.training.label_questions import Ground, Thing, ask_ground
from earthmap.training.labels import Labels
from earthmap.training.row_files import DataRow, row_table
from earthmap.training.rows import Row

if TYPE_CHECKING:
    import pyarrow
    from numpy.typing import NDArray

    from earthmap.cube import CellManifest
    from earthmap.grid.tiling import Cell, Tile
    from earthmap.predict.protocol import Picture

FEWEST_SEEN = 0.3
"""Share of a picture that must be seen and labelled."""

ALL_SEEN = 0.85
"""Share from which things can be counted."""

SMALLEST_PX = 9.0
"""Pixels of a thing that can be told."""

THING_SHARE, MOST_COVERED = 0.2, 0.6
"""Unless it is said which classes are things one by one: those of which the middle polygon fills at most such a share
of a picture, where all labels together cover at most such a share of their ground. Parcels that lie side by side are
not seen apart."""

_PLAIN_BANDS = {"red", "green", "blue", "nir", "pan"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Legend:
    """The classes of a file of labels."""

    names: tuple[str, ...]
    things: tuple[bool, ...]
    """Which of them are things one by one."""
    often: tuple[float, ...]
    """Share of the tiles that show each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellUnit:
    """One cell of a cube at one observation, and the labels that touch it."""

    file: str
    """Of the labels."""
    store: str
    path: str
    """Of the group in the store."""
    legend: Legend
    codes: tuple[int, ...]
    shapes: tuple[bytes, ...] = field(repr=False)
    """Class and WKB of each label, in the CRS of the zone."""
    ground: bytes = field(repr=False)
    """WKB of the labelled ground."""

    @property
    def where(self) -> tuple[str, str]:
        """The store, and the group in it."""
        return self.store, self.path

    def tables(self) -> Iterator[pyarrow.Table]:
        """Rows of its tiles; a cell that cannot be read is a fault."""
        try:
            group = open_cell(Storage(self.store), self.path)
            group.read()
        except (StorageError, FileNotFoundError) as error:
            yield row_table([], [Unfit("cell", str(error)).at(*self.where)])
            return
        shapes, ground = shapely.from_wkb(np.array(self.shapes, object)), shapely.from_wkb(self.ground)
        lost = {failure.tile_id for failure in group.manifest.failures}
        for tile in group.manifest.cell.tiles():
            if tile.id not in lost:
                row = self._row(group, tile, shapes, ground)
                yield row_table([row] if row is not None else [])

    def _row(self, group: CellGroup, tile: Tile, shapes: NDArray[np.object_], ground: Any) -> DataRow | None:
        manifest, picture = group.manifest, group.picture(tile)
        frame = shapely.box(*tile.geobox.extent.boundingbox.bbox)
        inside = _rastered([ground], tile) if not ground.covers(frame) else np.ones(tile.geobox.shape, np.bool_)
        # What nobody labelled is not shown either: a class that is there would be told not to be.
        picture = replace(picture, mask=np.where(inside, picture.mask, np.uint8(Reason.NODATA)))
        names, levels, shown = _look(picture)
        seen = shown & ~unseen(picture.mask, DEFAULT_UNSEEN)
        if seen.mean() < FEWEST_SEEN:
            return None
        told = self._ground(tile, shapes, frame, seen=seen, whole=bool(inside.all()))
        asked = ask_ground(told, random.Random(f"{tile.id}/{manifest.observation}"))
        if not asked:
            return None
        shares = _block_shares(told.masks, seen)
        row = Row(
            id=f"{tile.id}/{manifest.observation}",
            modality=_modality(manifest),
            names=names,
            pictures=levels,
            asked=tuple(asked),
            classes=self.legend.names,
            shares=np.repeat(shares[None], len(levels), axis=0),
        )
        return DataRow(row=row, source=self.file, ground=manifest.cell.id)

    def _ground(
        self, tile: Tile, shapes: NDArray[np.object_], frame: Any, *, seen: NDArray[np.bool_], whole: bool
    ) -> Ground:
        """What the labels say of a tile's picture."""
        touch = np.flatnonzero(shapely.intersects(shapes, frame)) if len(shapes) else np.array([], np.int64)
        codes = np.array(self.codes, np.int64)[touch]
        inside = shapely.intersection(shapes[touch], frame)
        masks = (
            np.stack([_rastered(list(inside[codes == code]), tile) for code in range(len(self.legend.names))]) & seen
        )
        is_counted = whole and seen.mean() >= ALL_SEEN
        return Ground(
            names=self.legend.names,
            often=self.legend.often,
            masks=masks,
            seen=seen,
            things={
                name: _things(inside[codes == code], tile, seen)
                for code, name in enumerate(self.legend.names)
                if self.legend.things[code] and is_counted
            },
        )


# ── what is seen ─────────────────────────────────────────────────────────────────────────────────────────────


def _look(picture: Picture) -> tuple[tuple[str, ...], NDArray[np.uint8], NDArray[np.bool_]]:
    """Names and (view, 3, y, x) levels as the predictor has them, and where any view shows something."""
    names, levels, seen = [], [], []
    for view in sensor_views(picture.sensor, picture.bands):
        planes = picture.data[[picture.bands.index(band) for band in VIEWS[view].bands]]
        shown = np.isfinite(planes).all(axis=0) & (picture.mask != Reason.NODATA)
        names.append(picture_name(view, datetime=picture.datetime, seen_share=float(shown.mean())))
        levels.append(np.moveaxis(make_view(view, picture.bands, picture.data, picture.mask), -1, 0))
        seen.append(shown)
    return tuple(names), np.stack(levels), np.logical_or.reduce(seen)


def _modality(manifest: CellManifest) -> str:
    if get_sensor(manifest.sensor).is_sar:
        return "sar"
    if set(manifest.bands) <= set(THERMAL_BANDS):
        return "infrared"
    return "optical" if set(manifest.bands) <= _PLAIN_BANDS else "multispectral"


def _rastered(shapes: list[Any], tile: Tile) -> NDArray[np.bool_]:
    """(y, x) True where the middle of a pixel of the tile's picture lies in one of the shapes."""
    import rasterio.features

    whole = [shape for shape in shapes if not shape.is_empty and shape.area > 0]
    if not whole:
        return np.zeros(tile.geobox.shape, np.bool_)
    burnt = rasterio.features.rasterize(whole, out_shape=tile.geobox.shape, transform=tile.geobox.affine, dtype="uint8")
    return np.asarray(burnt, np.bool_)


def _things(shapes: NDArray[np.object_], tile: Tile, seen: NDArray[np.bool_]) -> tuple[Thing, ...] | None:
    """The things of a class from the top down, then from the left, in coordinates of the picture; None where one of
    them cannot be told."""
    side = tile.geobox.shape[0]
    affine = tile.geobox.affine

    def placed(corners: NDArray[np.float64]) -> NDArray[np.float64]:
        placed: NDArray[np.float64] = (corners - (affine.c, affine.f)) / (affine.a * side, affine.e * side)
        return placed

    found = []
    for shape in shapely.transform(shapes, placed) if len(shapes) else []:
        left, top, right, bottom = (float(value) for value in shape.bounds) if not shape.is_empty else (0.0,) * 4
        rows = slice(int(top * side), max(int(top * side) + 1, round(bottom * side)))
        columns = slice(int(left * side), max(int(left * side) + 1, round(right * side)))
        if shape.area * side**2 < SMALLEST_PX or seen[rows, columns].mean() < ALL_SEEN:
            return None
        found.append(Thing(outline=shape, box=(left, top, right, bottom)))
    return tuple(sorted(found, key=lambda thing: (round(thing.box[1], 3), thing.box[0])))


def _block_shares(masks: NDArray[np.bool_], seen: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(block, class) share of what is seen of each merged block, row by row; NaN where less than half is."""
    blocks = seen.shape[0] // UNIT_PX
    cut = (blocks, UNIT_PX, blocks, UNIT_PX)
    whole = seen.reshape(cut).mean(axis=(1, 3))
    parts = masks.reshape(len(masks), *cut).mean(axis=(2, 4))
    shares = np.where(whole >= 0.5, parts / np.maximum(whole, 1e-6), np.nan)
    return np.ascontiguousarray(shares.reshape(len(masks), -1).T, np.float32)


# ── what there is to read ────────────────────────────────────────────────────────────────────────────────────


def cell_units(
    labels: Labels,
    *,
    file: Path,
    store: Storage,
    groups: Sequence[tuple[Cell, str]],
    things: tuple[str, ...] | None = None,
) -> tuple[list[CellUnit], int]:
    """The cells of a cube that labels lie on, an observation each, and how many labels came from another CRS.

    Args:
        labels: What `file` says.
        file: Where they were read.
        store: Of the cube.
        groups: Its cells, an observation each, by the paths of their groups.
        things: The classes whose polygons are things one by one; None to tell by their size.

    Raises:
        TrainingError: for a cube without cells on labelled ground, and things that are no class.
    """
    unknown = [name for name in things or () if name not in labels.classes]
    if unknown:
        raise TrainingError(
            f"{unknown[0]!r} is no class of {file}", expected=f"one of {', '.join(labels.classes)}, or none"
        )
    zones = {cell.zone: labels.within(cell.zone.epsg) for cell, _ in groups}
    chosen = [(cell, path) for cell, path in groups if zones[cell.zone][1].intersects(_extent(cell))]
    if not chosen:
        raise TrainingError(
            f"no cell of the cube {store.address} lies on the ground of {file}",
            expected="a cube of the labelled area",
            fix="map that area first, or name other labels",
        )
    trees = {zone: shapely.STRtree(shapes) for zone, (shapes, _, _) in zones.items()}
    legend = _legend(labels, {cell for cell, _ in chosen}, trees, things=things)
    units = []
    for cell, path in chosen:
        shapes, ground, _ = zones[cell.zone]
        touch = np.sort(trees[cell.zone].query(_extent(cell), predicate="intersects"))
        units.append(
            CellUnit(
                file=str(file),
                store=store.address,
                path=path,
                legend=legend,
                codes=tuple(labels.codes[touch].tolist()),
                shapes=tuple(shapely.to_wkb(shapes[touch]).tolist()),
                ground=shapely.to_wkb(ground),
            )
        )
    moved = len(labels.geometries) if any(zones[cell.zone][2] for cell, _ in chosen) else 0
    return units, moved


def _extent(cell: Cell) -> Any:
    return shapely.box(*cell.geobox.extent.boundingbox.bbox)


def _legend(
    labels: Labels, cells: set[Cell], trees: dict[Any, shapely.STRtree], *, things: tuple[str, ...] | None
) -> Legend:
    """How often each class is on a tile, and which are things."""
    counts, tiles = np.zeros(len(labels.classes)), 0
    areas: list[tuple[int, float]] = []
    for cell in sorted(cells, key=lambda cell: cell.id):
        tree = trees[cell.zone]
        picture_m2 = (cell.grid.picture_px * cell.grid.resolution_m) ** 2
        touch = tree.query(_extent(cell))
        areas += zip(
            labels.codes[touch].tolist(), (shapely.area(tree.geometries[touch]) / picture_m2).tolist(), strict=True
        )
        for tile in cell.tiles():
            found = tree.query(shapely.box(*tile.geobox.extent.boundingbox.bbox), predicate="intersects")
            counts[np.unique(labels.codes[found])] += 1
            tiles += 1
    if things is None:
        is_sparse = shapely.area(labels.geometries).sum() <= MOST_COVERED * labels.ground.area
        parts = [[area for code, area in areas if code == number] for number in range(len(counts))]
        told = tuple(bool(is_sparse and part and np.median(part) <= THING_SHARE) for part in parts)
    else:
        told = tuple(name in things for name in labels.classes)
    return Legend(
        names=labels.classes,
        things=told,
        often=tuple((counts / tiles).tolist()),
    )
