"""One immutable Zarr v3 group for each cell and observation, and the manifest that makes it count.

A group holds `data` (band, y, x) float32 and `mask` (y, x) uint8 with CF coordinates and grid mapping, and the GeoZarr
conventions `proj` and `spatial` (github.com/zarr-conventions). Its objects are encoded in memory and put one by one,
then `manifest.json` is created only where none is: what a crash leaves before that counts for nothing, and a second
writer, who writes the same bytes under the same key, loses quietly.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.cube.cells import CellPixels, TileFailure
from earthmap.cube.plan import CellRead
from earthmap.cube.shift import moved_part
from earthmap.errors import GridError, StorageError
from earthmap.grid.tiling import Cell, Tile
from earthmap.predict.protocol import Picture
from earthmap.sensors.offsets import OFFSET_SUSPECT, offset_notes
from earthmap.sensors.registry import SENSORS
from earthmap.storage import Storage

if TYPE_CHECKING:
    import zarr
    from numpy.typing import NDArray
    from zarr.abc.store import Store

MANIFEST = "manifest.json"

CHUNKS = 4
"""Inner chunks along a side of a shard; divides every cell_px."""

_DECODING = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}
"""Who decodes what is on disk."""

_MAKING = threading.Lock()
"""Settings of zarr are those of the process: one thread at a time changes them, for a moment."""

_CONVENTIONS = (
    ("proj", "geo-proj", "f17cb550-5864-4468-aeb7-f3180cfb622f", "Coordinate reference system information"),
    ("spatial", "spatial", "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "Spatial coordinate information"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CellManifest:
    """What a group is, written after all of its data."""

    cell_id: str
    observation: str
    sensor: str
    end: datetime.datetime | None = None
    """Time of a composite's last observation."""
    datetime: datetime.datetime
    bands: tuple[str, ...]
    scenes: tuple[str, ...]
    """Ids of the scenes, in order of precedence."""
    key: str
    """Content key of the read."""
    failures: tuple[TileFailure, ...] = ()
    replaced: tuple[TileFailure, ...] = ()
    """As `CellPixels.replaced`."""
    notes: tuple[str, ...] = ()
    """What a reader of its pixels should know, such as `noise not removed` or `offset_suspect`."""
    reasons: Mapping[str, int] = field(default_factory=dict)
    """Pixels of the cell without its halo ring, by reason."""
    size_bytes: int = 0
    """Size of all objects."""
    checksums: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of each object, by its path in the group."""

    @property
    def cell(self) -> Cell:
        """The cell that it holds."""
        return Cell.parse(self.cell_id)

    @property
    def seen_share(self) -> float:
        """Share of the cell's pixels that are not nodata."""
        total = sum(self.reasons.values())
        return 1.0 - self.reasons.get("nodata", 0) / total if total else 0.0

    @property
    def is_suspect(self) -> bool:
        """True where its own pixels say that an offset was subtracted twice."""
        return any(note.startswith(OFFSET_SUSPECT) for note in self.notes)

    def to_json(self) -> bytes:
        """Its one JSON form."""
        plain = dataclasses.asdict(self)
        plain["datetime"] = self.datetime.isoformat()
        plain["end"] = self.end.isoformat() if self.end else None
        return json.dumps(plain, sort_keys=True, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes, *, path: str) -> CellManifest:
        """The inverse of `to_json`. Raises StorageError for anything else."""
        try:
            plain = json.loads(data)
            plain["datetime"] = datetime.datetime.fromisoformat(plain["datetime"])
            plain["end"] = datetime.datetime.fromisoformat(plain["end"]) if plain["end"] else None
            for name in ("failures", "replaced"):
                plain[name] = tuple(TileFailure(**failure) for failure in plain[name])
            plain |= {name: tuple(plain[name]) for name in ("bands", "scenes", "notes")}
            return cls(**plain)
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(
                f"the manifest of {path} is not one: {error}", fix="delete that folder and run again"
            ) from error


# ── write ────────────────────────────────────────────────────────────────────────────────────────────────────


def _attributes(read: CellRead) -> dict[str, Any]:
    geobox = read.cell.geobox
    bounds = geobox.boundingbox
    return {
        "Conventions": "CF-1.10",
        "zarr_conventions": [
            {
                "name": name,
                "uuid": uuid,
                "schema_url": f"https://raw.githubusercontent.com/zarr-conventions/{repository}/refs/tags/v1/schema.json",
                "spec_url": f"https://github.com/zarr-conventions/{repository}/blob/v1/README.md",
                "description": description,
            }
            for name, repository, uuid, description in _CONVENTIONS
        ],
        "proj:code": f"EPSG:{read.cell.zone.epsg}",
        "spatial:dimensions": ["y", "x"],
        "spatial:bbox": [bounds.left, bounds.bottom, bounds.right, bounds.top],
        "spatial:transform_type": "affine",
        "spatial:transform": list(geobox.affine)[:6],
        "spatial:shape": list(geobox.shape),
        "spatial:registration": "pixel",
        "cell": read.cell.id,
        "observation": read.observation.id,
        "sensor": read.observation.sensor,
        "time": read.observation.datetime.isoformat(),
        "band_names": list(read.bands),
        "scenes": [scene.id for scene in read.observation.scenes],
    }


def _add_array(
    group: zarr.Group, name: str, values: NDArray[Any], dims: tuple[str, ...], attributes: Mapping[str, Any]
) -> None:
    from zarr.codecs import BloscCodec

    lead = (1,) * (values.ndim - 2)
    sharded = values.ndim >= 2
    side = values.shape[-1] if sharded else 0
    array = group.create_array(
        name,
        shape=values.shape,
        dtype=values.dtype,
        chunks=(*lead, side // CHUNKS, side // CHUNKS) if sharded else values.shape,
        shards=(*lead, side, side) if sharded else None,
        fill_value=np.nan if values.dtype == np.float32 else 0,
        compressors=BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle") if sharded else None,
        dimension_names=dims,
        attributes=dict(attributes),
    )
    array[...] = values


def _add_places(group: zarr.Group, read: CellRead) -> None:
    """Coordinates of the pixel centres, band names and the CF grid mapping."""
    from pyproj import CRS

    geobox = read.cell.geobox
    axes = {"y": "projection_y_coordinate", "x": "projection_x_coordinate"}
    for name, standard in axes.items():
        values = np.asarray(geobox.coordinates[name].values, np.float64)
        _add_array(group, name, values, (name,), {"standard_name": standard, "units": "m", "axis": name.upper()})
    names = group.create_array("band", shape=(len(read.bands),), dtype="string", dimension_names=("band",))
    names[...] = np.array(read.bands, dtype=object)
    mapping = CRS.from_epsg(read.cell.zone.epsg).to_cf()
    transform = " ".join(repr(value) for value in geobox.affine.to_gdal())
    mapping |= {"spatial_ref": mapping["crs_wkt"], "GeoTransform": transform}
    _add_array(group, "spatial_ref", np.array(read.cell.zone.epsg, np.int32), (), mapping)


def _encode(read: CellRead, pixels: CellPixels) -> dict[str, bytes]:
    """Every object of the group by its path, in a stable order."""
    import zarr
    from zarr.storage import MemoryStore

    buffers: dict[str, Any] = {}
    group = zarr.create_group(MemoryStore(buffers), attributes=_attributes(read))
    placed = {"grid_mapping": "spatial_ref", "coordinates": "spatial_ref"}
    reasons = _reason_names()
    flags = {"flag_values": list(reasons), "flag_meanings": " ".join(reasons.values())}
    _add_array(group, "data", pixels.data, ("band", "y", "x"), placed)
    _add_array(group, "mask", pixels.mask, ("y", "x"), placed | flags)
    if pixels.looks is not None:
        _add_array(group, "looks", pixels.looks, ("y", "x"), placed)
    _add_places(group, read)
    return _consolidated({name: buffers[name].to_bytes() for name in sorted(buffers)})


def _consolidated(objects: dict[str, bytes]) -> dict[str, bytes]:
    """The same with every array's metadata in the group's own: one request opens it.

    zarr-python writes this with a warning that version 3 of the specification does not name it yet; it reads it
    without one, as do xarray and GDAL.
    """
    root = json.loads(objects["zarr.json"])
    metadata = {
        name.removesuffix("/zarr.json"): json.loads(data)
        for name, data in objects.items()
        if name.endswith("/zarr.json")
    }
    root["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": metadata}
    return objects | {"zarr.json": json.dumps(root, sort_keys=True).encode()}


def _reason_names() -> dict[int, str]:
    from earthmap.sensors.masks import Reason

    return {int(reason): reason.name.lower() for reason in Reason}


def _count_reasons(read: CellRead, mask: NDArray[np.uint8]) -> dict[str, int]:
    halo = read.cell.grid.halo_px
    counts = np.bincount(mask[halo:-halo, halo:-halo].ravel(), minlength=256)
    names = _reason_names()
    return {names.get(code, str(code)): int(counts[code]) for code in np.flatnonzero(counts).tolist()}


def _notes(read: CellRead, pixels: CellPixels) -> tuple[str, ...]:
    """What was assumed of its scenes, and what the pixels themselves say of that."""
    suspect = offset_notes(pixels.data, read.bands, pixels.mask, SENSORS[read.observation.sensor])
    return tuple(dict.fromkeys((*(note for scene in read.observation.scenes for note in scene.notes), *suspect)))


def write_cell(
    storage: Storage, read: CellRead, pixels: CellPixels, *, path: str | None = None
) -> CellManifest:  # fmt: skip
    """Write the group at `path` (the read's own by default) and return the manifest that stands there.

    Where a group already counts, it is left as it is.

    Raises:
        GridError: for pixels that are not of the read's cell and bands.
        StorageError: when the store cannot be written.
    """
    path = path or read.path
    side = read.cell.grid.cell_px
    if pixels.data.shape != (len(read.bands), side, side) or pixels.mask.shape != (side, side):
        raise GridError(f"pixels of shape {pixels.data.shape}", expected=f"({len(read.bands)}, {side}, {side})")
    there = find_cell(storage, path)
    if there is not None:
        return there
    objects = _encode(read, pixels)
    for name, data in objects.items():
        storage.write(f"{path}/{name}", data)
    manifest = CellManifest(
        cell_id=read.cell.id,
        observation=read.observation.id,
        sensor=read.observation.sensor,
        datetime=read.observation.datetime,
        bands=read.bands,
        scenes=tuple(scene.id for scene in read.observation.scenes),
        key=read.key,
        end=read.observation.end,
        failures=pixels.failures,
        replaced=pixels.replaced,
        notes=_notes(read, pixels),
        reasons=_count_reasons(read, pixels.mask),
        size_bytes=sum(len(data) for data in objects.values()),
        checksums={name: hashlib.sha256(data).hexdigest() for name, data in objects.items()},
    )
    if storage.create(f"{path}/{MANIFEST}", manifest.to_json()):
        return manifest
    return find_cell(storage, path) or manifest


# ── read ─────────────────────────────────────────────────────────────────────────────────────────────────────


def find_cell(storage: Storage, path: str) -> CellManifest | None:
    """The manifest of the group at `path`; None where no group counts. Raises StorageError for a damaged one."""
    try:
        data = storage.read(f"{path}/{MANIFEST}")
    except FileNotFoundError:
        return None
    return CellManifest.from_json(data, path=storage.locate(path))


@dataclass(frozen=True, kw_only=True)
class CellGroup:
    """A group of the cube. Pixels are read at the first use and then kept while the group is."""

    storage: Storage
    path: str
    manifest: CellManifest

    @cached_property
    def _pixels(self) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        try:
            data, mask = self._arrays("data", "mask")
            return np.asarray(data[...]), np.asarray(mask[...])
        except Exception as error:  # codecs and stores raise errors of no common base
            raise self._unreadable(error) from error

    def read(self) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """`data` (band, cell_px, cell_px) and `mask` (cell_px, cell_px). Raises StorageError."""
        return self._pixels

    def read_rows(self, name: str, rows: slice, *, band: str | None = None) -> NDArray[Any]:
        """(rows, cell_px) of `mask`, `looks`, or of one band of `data`, and nothing else. Raises StorageError."""
        place = (rows,) if band is None else (self.manifest.bands.index(band), rows)
        try:
            (array,) = self._arrays(name)
            return np.asarray(array[place])
        except Exception as error:  # codecs and stores raise errors of no common base
            raise self._unreadable(error) from error

    def _arrays(self, *names: str) -> list[zarr.Array[Any]]:
        """Arrays of the group, those of a folder decoded by zarrs.

        Why not others, too: docs/decisions/0042-cubes-on-disk-are-read-by-zarrs.md.
        """
        import zarr
        from zarr.storage import LocalStore

        on_disk = self.storage.is_local
        store: Store = (
            LocalStore(self.storage.locate(self.path), read_only=True)
            if on_disk
            else self.storage.zarr(self.path, read_only=True)
        )
        group = zarr.open_group(store, mode="r", zarr_format=3)
        arrays: list[Any] = [group[name] for name in names]
        if not on_disk:
            return arrays
        with _MAKING, zarr.config.set(_DECODING):  # an array keeps who decodes it
            return [zarr.Array(zarr.AsyncArray(one.metadata, one.store_path)) for one in arrays]

    def _unreadable(self, error: Exception) -> StorageError:
        return StorageError(
            f"the group {self.storage.locate(self.path)} cannot be read: {error}", fix="delete its folder and run again"
        )

    def picture(self, tile: Tile, *, shift: tuple[float, float] = (0.0, 0.0)) -> Picture:
        """What the observation shows of `tile`, as views of the cell's arrays, or moved up and left by `shift` (rows,
        columns) as `earthmap.cube.shift.moved_part` does it.

        Raises:
            GridError: for a tile of another cell.
            StorageError: when the group cannot be read.
        """
        self._check(tile)
        data, mask = self._pixels
        if shift == (0.0, 0.0):
            return self._shown(data[(slice(None), *tile.picture_slices)], mask[tile.picture_slices])
        return self._shown(*moved_part(data, mask, tile.picture_slices, shift=shift))

    def read_picture(self, tile: Tile) -> Picture:
        """`picture(tile)`, of which nothing else is read or kept: for who asks about one place.

        Raises:
            GridError: for a tile of another cell.
            StorageError: when the group cannot be read.
        """
        self._check(tile)
        try:
            data, mask = self._arrays("data", "mask")
            return self._shown(
                np.asarray(data[(slice(None), *tile.picture_slices)]), np.asarray(mask[tile.picture_slices])
            )
        except Exception as error:  # codecs and stores raise errors of no common base
            raise self._unreadable(error) from error

    def _check(self, tile: Tile) -> None:
        if tile.cell.id != self.manifest.cell_id:
            raise GridError(f"tile {tile.id} is not in cell {self.manifest.cell_id}")

    def whole(self) -> Picture:
        """What the observation shows of the whole cell with its halo ring. Raises StorageError."""
        return self._shown(*self._pixels)

    def _shown(self, data: NDArray[np.float32], mask: NDArray[np.uint8]) -> Picture:
        return Picture(
            sensor=self.manifest.sensor,
            observation=self.manifest.observation,
            datetime=self.manifest.datetime,
            bands=self.manifest.bands,
            data=data,
            mask=mask,
        )


def open_cell(storage: Storage, path: str) -> CellGroup:
    """The group at `path`. Raises StorageError where none counts."""
    manifest = find_cell(storage, path)
    if manifest is None:
        raise StorageError(f"there is no whole group at {storage.locate(path)}", fix="run the job again")
    return CellGroup(storage=storage, path=path, manifest=manifest)


def verify_cell(storage: Storage, path: str) -> CellManifest:
    """The manifest, after every object was read and compared. Raises StorageError that names what is damaged."""
    manifest = open_cell(storage, path).manifest
    damaged = []
    for name, expected in manifest.checksums.items():
        try:
            found = hashlib.sha256(storage.read(f"{path}/{name}")).hexdigest()
        except FileNotFoundError:
            found = "missing"
        if found != expected:
            damaged.append(f"{name} ({'missing' if found == 'missing' else 'changed'})")
    if damaged:
        raise StorageError(
            f"{storage.locate(path)} is damaged: {', '.join(damaged)}",
            expected="the bytes that its manifest lists",
            fix="delete its folder and run again",
        )
    return manifest
