"""Reading a cell whole: masks first, then bands in parallel, scenes mosaicked, and failures kept to their tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from earthmap.catalog.scene import BandSource, Scene
from earthmap.cube.failures import RULINGS, cause_of, is_lasting
from earthmap.cube.plan import CellRead
from earthmap.cube.reader import Reader
from earthmap.errors import GridError, ReadError
from earthmap.grid.projection import to_lonlat
from earthmap.grid.tiling import Tile

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox


@dataclass(frozen=True, slots=True, kw_only=True)
class TileFailure:
    """Why a tile has no pixels."""

    tile_id: str
    stage: str = "read"
    reason: str
    """A short stable word, such as `damaged` or `crashed`."""
    message: str
    address: str | None = None
    """The file that it is about, unsigned."""
    settled: bool = False
    """True where several executions found the same, so that the tile counts as skipped and is not tried again."""

    @property
    def lasting(self) -> bool:
        """True where asking for the same file again will not help."""
        return is_lasting(self.reason)

    @classmethod
    def of(cls, tile: Tile, error: ReadError) -> TileFailure:
        """The failure of `tile` that `error` caused."""
        return cls(tile_id=tile.id, reason=error.reason, message=str(error), address=error.address)


@dataclass(frozen=True, slots=True, kw_only=True)
class CellPixels:
    """The pixels of a cell with its halo ring."""

    bands: tuple[str, ...]
    data: NDArray[np.float32] = field(repr=False, compare=False)
    """(band, cell_px, cell_px) physical values, NaN where nodata; row 0 in the north."""
    mask: NDArray[np.uint8] = field(repr=False, compare=False)
    """(cell_px, cell_px) codes of `earthmap.sensors.masks.Reason`."""
    failures: tuple[TileFailure, ...] = ()
    """At most one for each tile; its core is nodata."""
    replaced: tuple[TileFailure, ...] = ()
    """Why a tile was read from other scenes of the pass, or from an older copy, than from the one to be preferred."""
    looks: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)
    """(cell_px, cell_px) of a median composite: how many observations show each pixel clear."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TilePixels:
    """The pixels of one tile's picture (core and halo)."""

    tile_id: str
    bands: tuple[str, ...]
    data: NDArray[np.float32] = field(repr=False, compare=False)
    """(band, picture_px, picture_px)."""
    mask: NDArray[np.uint8] = field(repr=False, compare=False)
    """(picture_px, picture_px)."""
    replaced: TileFailure | None = None
    """As `CellPixels.replaced`."""


class _Mosaic:
    """The pixels that scenes have filled so far. The first scene's arrays are taken as they are, not copied."""

    def __init__(self, read: CellRead, geobox: GeoBox) -> None:
        from earthmap.sensors.masks import Reason

        self.shape = (len(read.bands), *geobox.shape)
        self.holes = np.ones(geobox.shape, np.bool_)
        self._data: NDArray[np.float32] | None = None
        self.mask = np.full(geobox.shape, int(Reason.NODATA), np.uint8)

    @property
    def data(self) -> NDArray[np.float32]:
        """(band, y, x), NaN where no scene has filled it."""
        if self._data is None:
            self._data = np.full(self.shape, np.nan, np.float32)
        return self._data

    def fill(self, data: NDArray[np.float32], mask: NDArray[np.uint8]) -> None:
        """Take every pixel that is still missing and that this scene has: a pixel comes from one scene."""
        from earthmap.sensors.masks import Reason

        valid = mask != int(Reason.NODATA)
        taken = self.holes & valid
        if self._data is None:
            self._data, self.mask = data, mask
            _erase(data, ~valid)
        else:
            for into, band in zip(self._data, data, strict=True):
                np.copyto(into, band, where=taken)
            np.copyto(self.mask, mask, where=taken)
        self.holes &= ~taken


def _erase(data: NDArray[np.float32], where: NDArray[np.bool_]) -> None:
    if where.any():
        for band in data:
            band[where] = np.nan


def _reasons(
    read: CellRead, data: NDArray[np.float32], layers: Mapping[str, NDArray[np.float32]]
) -> NDArray[np.uint8]:  # fmt: skip
    from earthmap.sensors.quality import reason_mask
    from earthmap.sensors.registry import SENSORS

    return reason_mask(data, layers, SENSORS[read.observation.sensor])


def _shows_nothing(layers: Mapping[str, NDArray[np.float32]], holes: NDArray[np.bool_]) -> bool:
    """True where a layer that outlines its scene says that it has nothing for the holes."""
    from earthmap.sensors.quality import QUALITY_LAYERS

    return any(
        QUALITY_LAYERS[kind].outlines and not (np.isfinite(layer) & holes).any() for kind, layer in layers.items()
    )


Load = Callable[["list[tuple[BandSource, NDArray[np.float32]]]"], None]
"""Reads each source into the (y, x) array beside it."""


def _add_scene(read: CellRead, scene: Scene, mosaic: _Mosaic, load: Load, *, hidden: NDArray[np.bool_]) -> None:
    """Read one scene into the holes of `mosaic`: its quality layers first, its bands where these show some.

    `hidden` (y, x) is True where nothing is taken from this scene; `load` adds where it could not be read, so that a
    pixel never lacks a band that its scene has.
    """
    from earthmap.sensors.masks import Reason

    layers = {source.band: np.empty(mosaic.mask.shape, np.float32) for source in scene.mask_sources}
    load([(source, layers[source.band]) for source in scene.mask_sources])
    if _shows_nothing(layers, mosaic.holes):
        return
    sources = {source.band: source for source in scene.sources}
    data = np.empty(mosaic.shape, np.float32)
    pairs = []
    for band, into in zip(read.bands, data, strict=True):
        if band in sources:
            pairs.append((sources[band], into))
        else:
            into[:] = np.nan
    load(pairs)
    reasons = _reasons(read, data, layers)
    for source, into in pairs:
        into[np.isposinf(into)] = source.ceiling
    reasons[hidden] = int(Reason.NODATA)
    mosaic.fill(data, reasons)


# ── whole cells ──────────────────────────────────────────────────────────────────────────────────────────────


class _Losses:
    """The tiles in which some scene could not be read, and what that means for them."""

    def __init__(self, read: CellRead) -> None:
        self.read = read
        self.final: dict[str, TileFailure] = {}
        """What may be different tomorrow: it stands, whatever else shows the ground, or a result would depend on it."""
        self.lasting: dict[str, TileFailure] = {}
        """What will not: another scene may fill the ground."""

        self._scenes: dict[str, list[Scene]] = {}

    def add(self, tile: Tile, scene: Scene, error: ReadError) -> None:
        """Note that `scene`, which shows ground of `tile` that no other has filled, cannot be read there."""
        of = self.lasting if is_lasting(error.reason) else self.final
        of.setdefault(tile.id, TileFailure.of(tile, error))
        self._scenes.setdefault(tile.id, []).append(scene)

    def ground(self) -> NDArray[np.bool_]:
        """(cell_px, cell_px), True on the ground of the tiles that lack a scene for good."""
        ground = np.zeros(self.read.cell.geobox.shape, np.bool_)
        for tile in self.read.cell.tiles():
            if tile.id in self.lasting:
                ground[_own(tile)] = True
        return ground

    def settle(self, holes: NDArray[np.bool_]) -> tuple[dict[str, TileFailure], tuple[TileFailure, ...]]:
        """The failures that stand, and those whose ground other scenes have filled."""
        halo = self.read.cell.grid.halo_px
        core = holes[halo:-halo, halo:-halo]
        failures, replaced = dict(self.final), list[TileFailure]()
        for tile in self.read.cell.tiles():
            failure = self.lasting.get(tile.id)
            if failure is None or tile.id in failures:
                continue
            if _show_any(self._scenes[tile.id], tile, core[tile.core_slices]):
                failures[tile.id] = failure
            else:
                replaced.append(failure)
        return failures, tuple(replaced)


def _own(tile: Tile) -> tuple[slice, slice]:
    """The part of the cell's arrays that falls to a tile: its core, and the halo ring beside it."""
    halo, last = tile.grid.halo_px, tile.grid.cell_px - tile.grid.halo_px

    def widened(part: slice) -> slice:
        start, stop = part.start + halo, part.stop + halo
        return slice(0 if start == halo else start, last + halo if stop == last else stop)

    rows, columns = tile.core_slices
    return widened(rows), widened(columns)


def read_cell(reader: Reader, read: CellRead, *, pool: Executor) -> CellPixels:
    """The cell's pixels; a source that cannot be read costs the tiles where it cannot, and no others.

    Scenes are taken in their order, each only into pixels that no earlier one filled. Where one cannot be read, for a
    cause that will not pass, the other scenes of the pass fill its ground, and then older copies of it: only a tile
    that still has holes has failed. A cause that may pass is a failure in any case, or the pixels would depend on the
    weather of the network. A failure counts only for tiles that still had holes and that the scene's footprint touches.
    """
    mosaic, losses = _Mosaic(read, read.cell.geobox), _Losses(read)
    for scene in read.observation.scenes:
        if not mosaic.holes.any():
            break
        hidden = np.zeros(mosaic.mask.shape, np.bool_)
        _add_scene(read, scene, mosaic, _loader(reader, losses, scene, mosaic, hidden, pool), hidden=hidden)
    for copy in read.observation.copies:
        hidden = ~losses.ground()
        if not (mosaic.holes & ~hidden).any():
            break
        _add_scene(read, copy, mosaic, _loader(reader, losses, copy, mosaic, hidden, pool), hidden=hidden)
    failures, replaced = losses.settle(mosaic.holes)
    _blank(read, mosaic.data, mosaic.mask, failures)
    return CellPixels(
        bands=read.bands, data=mosaic.data, mask=mosaic.mask, failures=_ordered(read, failures), replaced=replaced
    )


def _loader(
    reader: Reader, losses: _Losses, scene: Scene, mosaic: _Mosaic, hidden: NDArray[np.bool_], pool: Executor
) -> Load:
    """Reads the sources of a scene at the same time; what cannot be read is noted in `losses` and hidden."""
    geobox = losses.read.cell.geobox

    def load(pairs: list[tuple[BandSource, NDArray[np.float32]]]) -> None:
        futures = [pool.submit(_read_into, reader, source, geobox, into) for source, into in pairs]
        for (source, into), future in zip(pairs, futures, strict=True):
            error = future.result()
            if error is not None:
                into[:] = _salvage(reader, losses, scene, source, error, holes=mosaic.holes, hidden=hidden)

    return load


def _read_into(
    reader: Reader, source: BandSource, geobox: GeoBox, into: NDArray[np.float32]
) -> ReadError | None:  # fmt: skip
    result = _read_or_error(reader, source, geobox)
    if isinstance(result, ReadError):
        return result
    into[:] = result
    return None


def _read_or_error(
    reader: Reader, source: BandSource, geobox: GeoBox, *, frame: GeoBox | None = None
) -> NDArray[np.float32] | ReadError:
    try:
        return reader.read(source, geobox, frame=frame)
    except ReadError as error:
        return error


def _salvage(
    reader: Reader,
    losses: _Losses,
    scene: Scene,
    source: BandSource,
    error: ReadError,
    *,
    holes: NDArray[np.bool_],
    hidden: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """What can be read of `source` tile by tile; tiles that cannot are noted and hidden."""
    read = losses.read
    values = np.full(holes.shape, np.nan, np.float32)
    halo = read.cell.grid.halo_px
    core_holes = holes[halo:-halo, halo:-halo]
    for tile in read.cell.tiles():
        result: NDArray[np.float32] | ReadError = error
        if not RULINGS[cause_of(error.reason)].whole_file:
            result = _read_or_error(reader, source, tile.geobox, frame=read.cell.geobox)
        if not isinstance(result, ReadError):
            values[tile.picture_slices] = result
            continue
        if not hidden[_own(tile)].all() and core_holes[tile.core_slices].any() and _touches(scene, tile):
            losses.add(tile, scene, result)
        hidden[_own(tile)] = True
    return values


def _touches(scene: Scene, tile: Tile) -> bool:
    """False where the scene's footprint says that it shows nothing of the tile's core."""
    import shapely

    if not scene.footprint:
        return True
    core = to_lonlat(tile.core_geobox.extent.geom, f"EPSG:{tile.zone.epsg}")
    return bool(shapely.from_wkb(scene.footprint).intersects(core))


def _show_any(lost: Iterable[Scene], tile: Tile, holes: NDArray[np.bool_]) -> bool:
    """True where one of the `lost` scenes may show one of the `holes` (y, x) of the tile's core, by its footprint.

    At the edge of a pass there is ground that none of its scenes shows: what is missing there was never lost. A scene
    without a footprint may show anything.
    """
    import shapely
    from odc.geo.crs import CRS

    if not holes.any():
        return False
    rows, columns = np.nonzero(holes)
    to_plane = tile.core_geobox.affine
    x, y = to_plane.c + to_plane.a * (columns + 0.5), to_plane.f + to_plane.e * (rows + 0.5)  # lattices lie straight
    lon, lat = CRS(f"EPSG:{tile.zone.epsg}").transformer_to_crs(CRS("EPSG:4326"))(x, y)
    for scene in lost:
        if not scene.footprint:
            return True
        if shapely.contains_xy(shapely.from_wkb(scene.footprint), lon, lat).any():
            return True
    return False


def _blank(
    read: CellRead, data: NDArray[np.float32], mask: NDArray[np.uint8], failures: Iterable[str]
) -> None:  # fmt: skip
    """Make the cores of failed tiles nodata, in place."""
    from earthmap.sensors.masks import Reason

    halo = read.cell.grid.halo_px
    failed = set(failures)
    for tile in read.cell.tiles():
        if tile.id in failed:
            rows, columns = (slice(part.start + halo, part.stop + halo) for part in tile.core_slices)
            data[:, rows, columns] = np.nan
            mask[rows, columns] = int(Reason.NODATA)


def _ordered(read: CellRead, failures: dict[str, TileFailure]) -> tuple[TileFailure, ...]:
    return tuple(failures[tile.id] for tile in read.cell.tiles() if tile.id in failures)


# ── tile by tile ─────────────────────────────────────────────────────────────────────────────────────────────


def read_tile(reader: Reader, read: CellRead, tile: Tile) -> TilePixels:
    """One tile's picture, read on its own, bit for bit as in its cell: what a supervisor runs in a subprocess.

    Raises:
        ReadError: for the first source that cannot be read, unless other scenes or copies fill its ground for good.
    """
    geobox = tile.geobox
    mosaic = _Mosaic(read, geobox)
    halo = read.cell.grid.halo_px
    core = (slice(halo, -halo), slice(halo, -halo))
    lost: list[tuple[Scene, ReadError]] = []

    def load(pairs: list[tuple[BandSource, NDArray[np.float32]]]) -> None:
        for source, into in pairs:
            into[:] = reader.read(source, geobox, frame=read.cell.geobox)

    for number, scene in enumerate((*read.observation.scenes, *read.observation.copies)):
        copies = number >= len(read.observation.scenes)
        if not mosaic.holes.any() or (copies and not (lost and mosaic.holes[core].any())):
            break
        if not _touches(scene, tile):
            continue
        try:
            _add_scene(read, scene, mosaic, load, hidden=np.zeros(geobox.shape, np.bool_))
        except ReadError as error:
            if not is_lasting(error.reason):
                raise
            lost.append((scene, error))
    if lost and _show_any((scene for scene, _ in lost), tile, mosaic.holes[core]):
        raise lost[0][1]
    replaced = TileFailure.of(tile, lost[0][1]) if lost else None
    return TilePixels(tile_id=tile.id, bands=read.bands, data=mosaic.data, mask=mosaic.mask, replaced=replaced)


def assemble(read: CellRead, tiles: Iterable[TilePixels], failures: Iterable[TileFailure] = ()) -> CellPixels:
    """The cell made of tiles read one by one.

    Every pixel is taken from the tile that owns it; the halo ring from the tiles beside it; the core of a failed
    tile is nodata.

    Raises:
        GridError: when a tile of the cell is neither among `tiles` nor among `failures`.
    """
    done = {tile.tile_id: tile for tile in tiles}
    failed = {failure.tile_id: failure for failure in failures}
    lost = [tile.id for tile in read.cell.tiles() if tile.id not in done and tile.id not in failed]
    if lost:
        raise GridError(f"cell {read.cell.id} lacks {', '.join(lost)}", expected="pixels or a failure for each tile")
    mosaic = _Mosaic(read, read.cell.geobox)
    halo = read.cell.grid.halo_px
    core = slice(halo, halo + read.cell.grid.core_px)
    present = [(tile, done[tile.id]) for tile in read.cell.tiles() if tile.id in done]
    for tile, pixels in present:
        mosaic.data[(slice(None), *tile.picture_slices)] = pixels.data
        mosaic.mask[tile.picture_slices] = pixels.mask
    for tile, pixels in present:  # again, so that no neighbour's halo stays on a tile's own ground
        rows, columns = (slice(part.start + halo, part.stop + halo) for part in tile.core_slices)
        mosaic.data[:, rows, columns] = pixels.data[:, core, core]
        mosaic.mask[rows, columns] = pixels.mask[core, core]
    _blank(read, mosaic.data, mosaic.mask, failed)
    replaced = tuple(pixels.replaced for _, pixels in present if pixels.replaced)
    return CellPixels(
        bands=read.bands, data=mosaic.data, mask=mosaic.mask, failures=_ordered(read, failed), replaced=replaced
    )
