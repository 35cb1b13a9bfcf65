"""What one question is asked of: an image, or a point and date in a cube, as the input of a predictor.

An image is recognised as `earthmap map --image` recognises it. It is asked at its own pixels where they fit into one
picture, and as the tile around a point, pixel for pixel the one that is mapped, where they do not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from earthmap.catalog import (
    Observation,
    find_scenes,
    image_catalog,
    narrow,
    observe,
    parse_datetime,
    split_date,
)
from earthmap.catalog.netcdf_files import split_variable
from earthmap.catalog.raster_facts import RasterFacts, read_facts
from earthmap.cube import (
    CellGroup,
    CellRead,
    Photograph,
    RasterioReader,
    Reader,
    is_photograph,
    look_closely,
    open_cell,
    read_photograph,
    read_tile,
    stored_groups,
)
from earthmap.errors import AreaError, JobError, ReadError, SensorError, StorageError
from earthmap.grid import CORE_PX, Cell, Grid, Tile, Zone, owned_ground, owner
from earthmap.pipeline.dates import Candidate, T, choose_dates
from earthmap.pipeline.folder import RUN_PATH, open_run
from earthmap.pipeline.groups import cell_groups
from earthmap.pipeline.plan import Plan, grid_of, read_plan
from earthmap.predict import Picture, TileInput
from earthmap.sensors import SENSORS
from earthmap.sensors.offsets import offset_notes
from earthmap.sensors.quality import reason_mask
from earthmap.storage import Storage
from earthmap.tasks.registry import TASKS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox

SIZES = tuple(sorted(CORE_PX))
"""Sides of a picture in pixels."""

PLAIN_SENSOR, PLAIN_BANDS = "optical-uncalibrated", ("red", "green", "blue")
"""What a photograph is."""

UNDATED = "1900-01-01"
"""Stands for the date of an image that tells none, until it is a picture without one: one picture needs no date."""

KEPT_CELLS = 500
"""Cells of runs whose observations are known again when somebody asks once more."""

NAMED_CELLS = 1000
"""Cells of a cube that an error's bounds are taken from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """Which part of what there is a question is asked of."""

    at: str | None = None
    """`LON,LAT` in degrees, `X,Y` in pixels of a photograph, or a tile_id; None for all of an image."""
    dates: tuple[str, ...] = ()
    """STAC datetimes: one for each picture that the question looks at, or one interval for a series."""
    sensor: str | None = None
    bands: tuple[str, ...] = ()
    """What the bands of an image are where it does not say."""
    tile_size: int = 448
    """Side of the picture around a point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Pictures that can be asked about, and where they lie."""

    source: str
    """What was opened, as it was named."""
    item: TileInput
    geobox: GeoBox | None = None
    """The pixels of the picture (core and halo) on the ground; None for a photograph."""
    corner_px: tuple[int, int] = (0, 0)
    """Column and row of the picture's upper left corner in a photograph."""
    shape: tuple[int, int]
    """Rows and columns from the picture's upper left corner that the image fills; what is beyond is padding."""
    notes: tuple[str, ...] = ()
    """How the image was made a picture, and what should be known of its pixels."""

    @property
    def name(self) -> str:
        """`source` without folders."""
        return ", ".join(one.rstrip("/").rpartition("/")[2] for one in self.source.split(", "))


def open_subject(paths: Sequence[str], sight: Sight, *, task: str, reader: Reader | None = None) -> Subject:
    """What a question of `task` is asked of.

    Args:
        paths: The folder of a run, a store with a cube, or images as of `earthmap map --image`; photographs too.
        sight: Which part of it.
        task: Row of `earthmap.tasks.registry.TASKS`: how many dates it looks at.
        reader: Reads images; None for the files themselves.

    Raises:
        AreaError: for a point outside.
        CatalogError, SensorError: for images that are not there, or are not understood.
        GridError: for a tile_id that is none.
        JobError: for a date that there is not, and an image that one picture cannot hold.
        ReadError: for a file whose pixels cannot be read.
        StorageError: for a cube that cannot be read.
    """
    count = TASKS[task].dates
    if len(paths) == 1 and _may_hold_cube(paths[0]):
        if Storage(paths[0]).exists(RUN_PATH):
            return place_of_run(open_run_cube(paths[0]), sight, task=task)
        store = _store(paths[0])
        if store is not None:
            return _from_cube(store, sight, source=paths[0], count=count)
    plain = [is_photograph(split_date(path)[0]) for path in paths]
    if all(plain):
        return _from_photographs(paths, sight, count=count)
    if any(plain):
        raise JobError(
            f"{paths[plain.index(True)]} does not say where it lies, and {paths[plain.index(False)]} does",
            expected="images of one kind",
        )
    return _from_images(paths, sight, count=count, reader=reader or RasterioReader())


# ── pictures ─────────────────────────────────────────────────────────────────────────────────────────────────


_Opened = tuple[Picture, tuple[str, ...]]
"""A picture, and what should be known of its pixels."""


def _put_together(
    chosen: Sequence[Candidate[T]], read: Callable[[T], _Opened], *, source: str, geobox: GeoBox, shape: tuple[int, int]
) -> Subject:
    opened = [read(one.record) for one in chosen]
    return Subject(
        source=source,
        item=TileInput(tile=chosen[-1].tile, pictures=tuple(picture for picture, _ in opened)),
        geobox=geobox,
        shape=shape,
        notes=tuple(dict.fromkeys(note for _, notes in opened for note in notes)),
    )


def _noted(subject: Subject, *notes: str) -> Subject:
    """The same with `notes` before its own."""
    return dataclasses.replace(subject, notes=(*notes, *subject.notes))


# ── where ────────────────────────────────────────────────────────────────────────────────────────────────────


def _numbers(at: str, *, what: str) -> tuple[float, float]:
    """The two numbers of `at`. Raises JobError."""
    try:
        first, second = (float(part) for part in at.split(","))
    except ValueError:
        first = second = np.nan
    if not (np.isfinite(first) and np.isfinite(second)):
        raise JobError(f"--at {at[:80]} is no place", expected=what)
    return first, second


_PLACE = "LON,LAT in degrees, such as --at=3.5,45.7, or a tile_id"


def _tile_at(at: str, grid: Grid) -> Tile:
    """The tile that is named, or that owns the point. Raises JobError, GridError."""
    if at.startswith("utm"):
        return Tile.parse(at)
    longitude, latitude = _numbers(at, what=_PLACE)
    zone, north, row, column = (part.item() for part in owner(grid, [longitude], [latitude]))
    return Tile(grid, Zone(zone, bool(north)), row, column)


def _bounds(grounds: Iterable[object]) -> str:
    import shapely

    west, south, east, north = shapely.total_bounds(np.asarray(list(grounds), object)).tolist()
    return f"a point between {west:.4f} and {east:.4f} east, {south:.4f} and {north:.4f} north"


# ── a cube ───────────────────────────────────────────────────────────────────────────────────────────────────


def _may_hold_cube(path: str) -> bool:
    if path.startswith(("http://", "https://")) or ("://" not in path and not Path(path).expanduser().is_dir()):
        return False
    return not ("://" in path and "." in path.rpartition("/")[2])  # an image in a bucket


def _store(path: str) -> Storage | None:
    """The store that `path` is, or holds; None where there is no cube."""
    storage = Storage(path)
    return next((one for one in (storage, storage.sub("store")) if _holds_cube(one)), None)


def _holds_cube(storage: Storage) -> bool:
    if storage.is_local:
        return (Path(storage.address) / "cube").is_dir()
    return bool(storage.list("cube"))


def _from_cube(storage: Storage, sight: Sight, *, source: str, count: int) -> Subject:
    groups = list(stored_groups(storage))
    if not groups:
        raise JobError(f"the cube of {source} is empty", expected="a run that has read imagery")
    if sight.at is None:
        raise JobError(
            f"{source} holds many tiles",
            expected=_bounds(_grounds(groups)),
            fix="ask with --at LON,LAT, or --at and a tile_id",
        )
    seen = _in_cube(storage, groups, sight.at, sight.sensor)
    chosen, notes = choose_dates(seen, sight.dates, count=count)
    return _of_groups(_tile_at(sight.at, chosen[-1].record.manifest.cell.grid), chosen, *notes, source=source)


def _of_groups(tile: Tile, chosen: Sequence[Candidate[CellGroup]], *notes: str, source: str) -> Subject:
    side = tile.grid.picture_px
    read = partial(_stored, tile)
    subject = _put_together(chosen, read, source=source, geobox=tile.geobox, shape=(side, side))
    return _noted(subject, *notes)


def _grounds(groups: Sequence[tuple[Cell, str]]) -> list[object]:
    cells = dict.fromkeys(cell for cell, _ in groups)
    return [owned_ground(cell) for cell in list(cells)[:NAMED_CELLS]]


def _in_cube(
    storage: Storage, groups: Sequence[tuple[Cell, str]], at: str, sensor: str | None
) -> list[Candidate[CellGroup]]:
    """Every observation of the tile at `at`, on each lattice that the cube has."""
    tiles = {grid.id: _tile_at(at, grid) for grid in dict.fromkeys(cell.grid for cell, _ in groups)}
    here = [open_cell(storage, path) for cell, path in groups if tiles[cell.grid.id].cell == cell]
    if not here:
        raise AreaError(f"the cube has read no ground at {at}", expected=_bounds(_grounds(groups)))
    return _of_sensor([_in_group(group, tiles) for group in here], sensor)


def _in_group(group: CellGroup, tiles: Mapping[str, Tile]) -> Candidate[CellGroup]:
    manifest = group.manifest
    grid = manifest.cell.grid.id
    return Candidate(
        name=manifest.observation,
        kind=(manifest.sensor, grid),
        datetime=manifest.datetime,
        end=manifest.end,
        tile=tiles[grid],
        record=group,
    )


def _of_sensor(seen: Sequence[Candidate[T]], sensor: str | None) -> list[Candidate[T]]:
    """Those of `sensor`. Raises SensorError where there is none."""
    own = [one for one in seen if sensor in (None, one.kind[0])]
    if not own:
        there = ", ".join(sorted({one.kind[0] for one in seen}))
        raise SensorError(f"no observation of the sensor {sensor!r} there", expected=f"one of {there}")
    return own


def _stored(tile: Tile, group: CellGroup) -> _Opened:
    manifest = group.manifest
    lost = next((failure for failure in manifest.failures if failure.tile_id == tile.id), None)
    if lost is not None:
        raise ReadError(
            f"the tile was not read at {manifest.observation}: {lost.message}",
            address=lost.address or group.storage.locate(group.path),
            reason=lost.reason,
            fix="ask about another --date, or run the job again",
        )
    return group.read_picture(tile), manifest.notes


# ── a run ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunCube:
    """What a finished run has read, whatever else its store holds. It does not change, so what was found is kept."""

    address: str
    """Of the run folder."""
    store: Storage
    plan: Plan


def open_run_cube(address: str) -> RunCube:
    """The cube of the finished run at `address`.

    Raises:
        RunFolderError: where there is no finished run.
        StorageError: where its plan cannot be read.
    """
    run = open_run(address)
    plan = read_plan(run.storage)
    if plan is None:
        raise StorageError(f"{address} holds no plan", expected="plan.parquet", fix="run its job again")
    own = run.storage.sub("store")  # also where the whole folder was moved
    return RunCube(address=address, store=own if _holds_cube(own) else Storage(run.job.store), plan=plan)


def place_of_run(cube: RunCube, sight: Sight, *, task: str) -> Subject:
    """What a question of `task` is asked of at one place of a run: the observations that the run itself looked at.

    Raises as `open_subject`.
    """
    if sight.at is None:
        raise JobError(
            f"{cube.address} holds many tiles",
            expected=_bounds(_planned_grounds(cube.plan)),
            fix="ask with --at LON,LAT, or --at and a tile_id",
        )
    tile = _tile_at(sight.at, cube.plan.grid)
    groups = _looked_at(cube, tile.cell)
    if not groups:
        raise AreaError(f"the run has read no ground at {sight.at}", expected=_bounds(_planned_grounds(cube.plan)))
    seen = _of_sensor([_in_group(group, {tile.grid.id: tile}) for group in groups], sight.sensor)
    chosen, notes = choose_dates(seen, sight.dates, count=TASKS[task].dates)
    return _of_groups(tile, chosen, *notes, source=cube.address)


@lru_cache(maxsize=KEPT_CELLS)
def _looked_at(cube: RunCube, cell: Cell) -> list[CellGroup]:
    return cell_groups(cube.store, cube.plan, cell)


def _planned_grounds(plan: Plan) -> list[object]:
    ids = plan.table["cell_id"].unique().to_pylist()[:NAMED_CELLS]
    return [owned_ground(Cell.parse(cell_id)) for cell_id in ids]


# ── images on the ground ─────────────────────────────────────────────────────────────────────────────────────


def _from_images(paths: Sequence[str], sight: Sight, *, count: int, reader: Reader) -> Subject:
    day = sight.dates[0] if len(sight.dates) == 1 else UNDATED if count == 1 and not sight.dates else None
    catalog = image_catalog(paths, datetime=day, bands=sight.bands)
    found = find_scenes(catalog, None, sensor=sight.sensor)
    observations = observe(found.scenes)
    source = ", ".join(paths)
    if sight.at is not None:
        tile = _tile_at(sight.at, grid_of(found.scenes, tile_size=sight.tile_size))
        chosen, notes = choose_dates(_on_tile(observations, tile, sight.at), sight.dates, count=count)
        side, read = tile.grid.picture_px, partial(_tile_of, reader, tile)
        subject = _put_together(chosen, read, source=source, geobox=tile.geobox, shape=(side, side))
        return _noted(subject, *notes, "asked as the tile " + tile.id)
    chosen, notes = choose_dates([_seen(one, None) for one in observations], sight.dates, count=count)
    geobox, shape = _own_pixels(chosen[-1].record, source)
    subject = _put_together(chosen, partial(_closely, reader, geobox), source=source, geobox=geobox, shape=shape)
    return _noted(subject, *notes, _size_note(shape, geobox.shape[0]))


def _seen(observation: Observation, tile: Tile | None) -> Candidate[Observation]:
    return Candidate(
        name=observation.id,
        kind=(observation.sensor, " ".join(map(str, (observation.convention[1], *observation.viewpoint)))),
        datetime=observation.datetime,
        tile=tile,
        record=observation,
    )


def _on_tile(observations: Sequence[Observation], tile: Tile, at: str) -> list[Candidate[Observation]]:
    """The observations that show the point or tile `at`, narrowed to its cell. Raises AreaError where none does."""
    import shapely

    ground = owned_ground(tile) if at == tile.id else shapely.Point(_numbers(at, what=_PLACE))
    grounds = [shapely.union_all([shapely.from_wkb(scene.footprint) for scene in one.scenes]) for one in observations]
    cell = owned_ground(tile.cell)
    seen = []
    for one, shown in zip(observations, grounds, strict=True):
        own = narrow(one, cell) if shapely.intersects(shown, ground) else None
        if own is not None:
            seen.append(_seen(own, tile))
    if not seen:
        raise AreaError(f"the images show no ground at {at}", expected=_bounds(grounds))
    return seen


def _tile_of(reader: Reader, tile: Tile, own: Observation) -> _Opened:
    pixels = read_tile(reader, CellRead.of(tile.cell, own), tile)
    return _picture(own, pixels.bands, pixels.data, pixels.mask)


def _closely(reader: Reader, geobox: GeoBox, observation: Observation) -> _Opened:
    pixels = look_closely(reader, observation, geobox)
    return _picture(observation, pixels.bands, pixels.data, pixels.mask)


def _picture(
    observation: Observation, bands: tuple[str, ...], data: NDArray[np.float32], mask: NDArray[np.uint8]
) -> _Opened:
    dated = not observation.datetime.isoformat().startswith(UNDATED)
    picture = Picture(
        sensor=observation.sensor,
        observation=observation.id,
        datetime=observation.datetime if dated else None,
        bands=bands,
        data=data,
        mask=mask,
    )
    of_scenes = (note for scene in observation.scenes for note in scene.notes)
    undated = () if dated else ("nothing tells when it was taken",)
    return picture, tuple(
        dict.fromkeys((*undated, *of_scenes, *offset_notes(data, bands, mask, SENSORS[observation.sensor])))
    )


def _own_pixels(observation: Observation, source: str) -> tuple[GeoBox, tuple[int, int]]:
    """A picture of the image's own pixels, and how much of it the image fills, from its upper left corner.

    Raises:
        JobError: where no one picture can hold it.
    """
    from affine import Affine
    from odc.geo.crs import CRS
    from odc.geo.geobox import GeoBox

    facts = _finest(observation)
    if len(observation.scenes) > 1 or facts is None or facts.transform is None:
        why = (
            f"{len(observation.scenes)} images beside one another" if len(observation.scenes) > 1 else "not on one grid"
        )
        raise JobError(
            f"{source} is {why}",
            expected="one image for one picture",
            fix=f"ask about the tile around a point: {_example(observation)}",
        )
    if max(facts.shape) > SIZES[-1]:
        raise _too_large(
            source,
            facts.shape,
            f"ask about the tile around a point: {_example(observation)}, or map all of it: earthmap map --image",
        )
    side = _side(facts.shape)
    return GeoBox((side, side), Affine(*facts.transform), CRS(facts.crs)), facts.shape


def _finest(observation: Observation) -> RasterFacts | None:
    """What the file of most pixels says of itself; None where a file is none of an image's formats."""
    hrefs = dict.fromkeys(source.href for scene in observation.scenes for source in scene.sources)
    if any(split_variable(href) is not None for href in hrefs):
        return None
    return max((read_facts(href) for href in hrefs), key=lambda facts: facts.shape[0] * facts.shape[1])


def _example(observation: Observation) -> str:
    import shapely

    point = shapely.from_wkb(observation.scenes[0].footprint).representative_point()
    return f"--at={point.x:.5f},{point.y:.5f}"


def _too_large(source: str, shape: tuple[int, int], fix: str) -> JobError:
    return JobError(
        f"{source} has {shape[1]:,} × {shape[0]:,} pixels",
        expected=f"at most {SIZES[-1]} × {SIZES[-1]} for one picture",
        fix=fix,
    )


def _side(shape: tuple[int, int]) -> int:
    """The smallest picture that holds an image."""
    return next(side for side in SIZES if side >= max(shape))


def _size_note(shape: tuple[int, int], side: int) -> str:
    if shape == (side, side):
        return f"asked as one picture of its own {side} × {side} pixels"
    return (
        f"asked as one picture of {side} × {side} pixels, of which it fills {shape[1]} × {shape[0]}; the rest is nodata"
    )


# ── photographs ──────────────────────────────────────────────────────────────────────────────────────────────


def _from_photographs(paths: Sequence[str], sight: Sight, *, count: int) -> Subject:
    """The photographs in their order, which is that of time. Raises JobError where they are too many or too few."""
    if len(paths) != count and (count or len(paths) < 2):
        raise JobError(
            f"{len(paths)} photographs are given", expected=f"{count} for such a question" if count else "two or more"
        )
    read = [read_photograph(split_date(path)[0]) for path in paths]
    shapes = list(dict.fromkeys(one.valid.shape for one in read))
    if len(shapes) > 1:
        sizes = " and ".join(f"{shape[1]} × {shape[0]}" for shape in shapes[:2])
        raise JobError(f"the photographs have {sizes} pixels", expected="frames of one size")
    rows, columns = shapes[0]
    left, top, side = _frame((rows, columns), sight, ", ".join(paths))
    shape = min(rows - top, side), min(columns - left, side)
    times = [split_date(path)[1] for path in paths]
    pictures = [
        _plain_picture(one, f"photograph-{number}", time, (left, top, side))
        for number, (one, time) in enumerate(zip(read, times, strict=True), 1)
    ]
    notes = [_size_note(shape, side)] if (left, top) == (0, 0) else []
    if max(rows, columns) > side:
        notes = [f"asked about {side} × {side} of its {columns} × {rows} pixels, from column {left} and row {top} on"]
    notes += ["turned upright as its EXIF data say"] if any(one.turned for one in read) else []
    return Subject(
        source=", ".join(paths),
        item=TileInput(tile=None, pictures=tuple(pictures)),
        corner_px=(left, top),
        shape=shape,
        notes=tuple(notes),
    )


def _frame(shape: tuple[int, int], sight: Sight, source: str) -> tuple[int, int, int]:
    """Left column, top row and side of the picture that is asked about."""
    rows, columns = shape
    if sight.at is None:
        if max(shape) > SIZES[-1]:
            raise _too_large(source, shape, f"ask about a part of it: --at={columns // 2},{rows // 2} (column, row)")
        return 0, 0, _side(shape)
    x, y = _numbers(sight.at, what="X,Y in pixels of the photograph, such as --at=320,240")
    if not (0 <= x < columns and 0 <= y < rows):
        raise AreaError(
            f"--at {sight.at} is outside the photograph", expected=f"0 to {columns - 1} and 0 to {rows - 1}"
        )
    side = sight.tile_size
    left, top = (max(0, min(int(middle) - side // 2, size - side)) for middle, size in ((x, columns), (y, rows)))
    return left, top, side


def _plain_picture(one: Photograph, name: str, time: str | None, frame: tuple[int, int, int]) -> Picture:
    left, top, side = frame
    part = (slice(top, top + side), slice(left, left + side))
    rgb, valid = one.rgb[part], one.valid[part]
    data = np.full((3, side, side), np.nan, np.float32)
    data[:, : valid.shape[0], : valid.shape[1]] = np.where(valid, np.moveaxis(rgb, -1, 0), np.nan)
    return Picture(
        sensor=PLAIN_SENSOR,
        observation=name,
        datetime=parse_datetime(time).start if time else None,
        bands=PLAIN_BANDS,
        data=data,
        mask=reason_mask(data, {}, SENSORS[PLAIN_SENSOR]),
    )
