"""`earthmap sample`: a stratified random sample of a finished run's pixels, ready to be labelled."""

from __future__ import annotations

import dataclasses
import datetime as dt
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.content import content_key
from earthmap.cube import CellGroup, find_cell, open_cell, stored_groups
from earthmap.errors import BadRequestError, StorageError
from earthmap.grid import Cell, pixel_to_lonlat
from earthmap.metrics.area import Stratum
from earthmap.metrics.sampling import BOUNDARY, OUTSIDE, SKIPPED, UNSEEN_GROUND, Drawn, StratifiedDraw
from earthmap.outputs.chips import ChipPanel, cut_around, render_chip
from earthmap.outputs.labelling import LabelRow, chip_name, labelling_guide, write_label_sheet
from earthmap.pipeline.class_maps import ClassMap, MapLayer, choose_layer
from earthmap.pipeline.design import CANNOT_TELL, UNMAPPED, Design, Unit
from earthmap.pipeline.folder import LEDGER_PATH, Run
from earthmap.pipeline.stages import read_part
from earthmap.sensors import SENSORS, default_view, make_view, sensor_views
from earthmap.storage import Storage
from earthmap.tasks import UNSEEN

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNITS = 300
"""Of a sample, where nobody says."""

FAR_PX, NEAR_PX = 80, 12
"""Pixels on each side of the one in question, from afar and near."""

KEY_DIGITS = 8
"""Of a sample's key in the ids of its units."""

SHEET_NAME, GUIDE_NAME = "sample.gpkg", "HOW-TO.txt"

_NAMES = {BOUNDARY: "boundary", SKIPPED: "skipped", UNSEEN_GROUND: "unseen"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSpec:
    """What is drawn, and of what."""

    units: int = UNITS
    seed: int = 0
    question: str | None = None
    """Its number or text; None for the first with a class map."""
    observation: str | None = None
    """As the summary names it; None for the latest."""
    unseen: bool = False
    """Draw ground too that the pictures do not show, for who has others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A drawn sample and where it was written."""

    design: Design
    folder: str
    layer: MapLayer
    chips: int
    """Units that have a picture."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        design = self.design
        drawn = {one.name: sum(unit.stratum == one.name for unit in design.units) for one in design.strata}
        return {
            "sample": design.key,
            "folder": self.folder,
            "question": design.text,
            "observation": design.observation,
            "units": len(design.units),
            "chips": self.chips,
            "strata": [
                {"name": one.name, "km2": round(one.area / 1e6, 6), "pixels": one.size, "drawn": drawn.get(one.name, 0)}
                for one in (*design.strata, *design.unsampled)
            ],
        }


def draw_sample(
    run: Run, spec: SampleSpec, *, out: str | None = None, say: Callable[[str], None] | None = None
) -> Sample:
    """Draw a sample, keep its design in the run folder, and write what a person labels.

    Equal runs and specs give equal samples. `out` is a folder or s3:// address; None for the sample's own folder in the
    run's.

    Raises:
        BadRequestError: for a question without class maps, an observation that there is not, and a run without ground.
        StorageError: for a run that cannot be read, and an output that cannot be written.
    """
    layer = choose_layer(run, question=spec.question, observation=spec.observation)
    if say:
        say(f"sampling {layer.title}")
    design = _design(run, layer, spec)
    design.write(run.storage)
    folder = Storage(out) if out is not None else run.storage.sub(design.folder)
    if say:
        say(f"cutting pictures of {len(design.units)} pixels")
    chips = 0
    for unit, png in _chips(run, layer, design):
        folder.write(chip_name(unit), png)
        chips += 1
    _write_sheet(folder, run, design, with_chips=chips > 0)
    return Sample(design=design, folder=folder.address, layer=layer, chips=chips)


# ── the draw ─────────────────────────────────────────────────────────────────────────────────────────────────


def _design(run: Run, layer: MapLayer, spec: SampleSpec) -> Design:
    draw = StratifiedDraw(total=spec.units, seed=spec.seed)
    with ClassMap(run, layer) as classes:
        for part in classes.cells():
            draw.add(part.cell.id, part.strata, part.codes, part.area_m2)
        legend, rasters = classes.legend, classes.rasters
    if not any(key not in (UNSEEN_GROUND, OUTSIDE) for key in draw.sizes):
        raise BadRequestError(f"{layer.title}: no pixel of the area was seen", expected="some ground to sample")
    left_out = () if spec.unseen else (UNSEEN_GROUND,)
    drawn = draw.finish(left_out=left_out)
    key = content_key(run.job.content_key(), rasters, dataclasses.asdict(spec), layer.query_key)[:KEY_DIGITS]
    order = np.random.default_rng(spec.seed).permutation(len(drawn)).tolist()
    strata = {number: _stratum(number, draw, legend) for number in sorted(draw.sizes)}
    return Design(
        key=key,
        question=layer.number,
        text=layer.query.text,
        query_key=layer.query_key,
        observation=layer.observation,
        dates=tuple(dict.fromkeys((layer.datetime_min[:16], layer.datetime_max[:16]))),
        seed=spec.seed,
        classes=tuple(legend.values()),
        rasters=rasters,
        strata=tuple(one for number, one in strata.items() if number not in left_out),
        unsampled=tuple(one for number, one in strata.items() if number in left_out),
        units=tuple(_unit(f"{key}-{place:04d}", drawn[index], legend) for place, index in enumerate(order, 1)),
    )


def _stratum(number: int, draw: StratifiedDraw, legend: Mapping[int, str]) -> Stratum:
    says = {legend[code]: area for code, area in sorted(draw.mapped[number].items()) if code != UNSEEN}
    return Stratum(name=_name(number, legend), area=draw.areas[number], size=draw.sizes[number], mapped=says)


def _name(number: int, legend: Mapping[int, str]) -> str:
    return _NAMES[number] if number in _NAMES else legend[number]


def _unit(name: str, drawn: Drawn, legend: Mapping[int, str]) -> Unit:
    cell = Cell.parse(drawn.block)
    core = cell.grid.core_px
    tile = cell.tiles()[drawn.row // core * (cell.grid.cell_core_px // core) + drawn.column // core]
    rows = np.array([0.5, 0, 0, 1, 1]) + drawn.row
    columns = np.array([0.5, 0, 1, 1, 0]) + drawn.column
    lon, lat = (np.asarray(axis).round(9).tolist() for axis in pixel_to_lonlat(cell.core_geobox, rows, columns))
    lon = [lon[0], *(value + 360.0 * round((lon[0] - value) / 360.0) for value in lon[1:])]
    return Unit(
        id=name,
        stratum=_name(drawn.stratum, legend),
        mapped=UNMAPPED if drawn.mapped == UNSEEN else legend[drawn.mapped],
        area_m2=drawn.area_m2,
        inclusion=drawn.inclusion,
        cell_id=cell.id,
        tile_id=tile.id,
        row=drawn.row,
        column=drawn.column,
        lon=lon[0],
        lat=lat[0],
        square=tuple(zip(lon[1:], lat[1:], strict=True)),
    )


# ── what is labelled ─────────────────────────────────────────────────────────────────────────────────────────


def _write_sheet(folder: Storage, run: Run, design: Design, *, with_chips: bool) -> None:
    rows = [
        LabelRow(
            id=unit.id,
            lon=unit.lon,
            lat=unit.lat,
            square=unit.square,
            chip=chip_name(unit.id) if with_chips else "",
            stratum=unit.stratum,
            mapped=unit.mapped,
            area_m2=unit.area_m2,
            inclusion=unit.inclusion,
        )
        for unit in design.units
    ]
    choices = {name: "it is" for name in design.classes if name != "none"}
    choices |= {"none": "it is none of these", CANNOT_TELL: "the pictures do not decide it"}
    with tempfile.TemporaryDirectory(prefix="earthmap-") as scratch:
        path = Path(scratch) / SHEET_NAME
        write_label_sheet(path, rows, choices=tuple(choices))
        folder.write_file(SHEET_NAME, path)
    guide = labelling_guide(
        text=design.text,
        dates=design.dates,
        choices=choices,
        command=f"earthmap estimate {run.address} {folder.locate(SHEET_NAME)}",
        count=len(rows),
    )
    folder.write(GUIDE_NAME, guide.encode())


def _chips(run: Run, layer: MapLayer, design: Design) -> Iterator[tuple[str, bytes]]:
    """The picture of each unit that the cube has one of, cell by cell."""
    store = _store(run)
    wanted: dict[str, list[Unit]] = {}
    for unit in design.units:
        wanted.setdefault(unit.cell_id, []).append(unit)
    if store is None:
        return
    looked_at = _looked_at(run, store, layer, set(wanted))
    groups = _groups(store, set(wanted))
    for cell_id, units in wanted.items():
        names = looked_at.get(cell_id, ())
        opened = [open_cell(store, groups[cell_id, name]) for name in names if (cell_id, name) in groups]
        if opened:
            pictures = [_pictures(group) for group in opened]
            for unit in units:
                yield unit.id, _chip(unit, pictures)


def _store(run: Run) -> Storage | None:
    """The store with the run's cube; None where it is gone."""
    for storage in (Storage(run.job.store), run.storage.sub("store")):
        if next(iter(stored_groups(storage)), None) is not None:
            return storage
    return None


def _looked_at(run: Run, store: Storage, layer: MapLayer, cells: set[str]) -> dict[str, tuple[str, ...]]:
    """By cell, the observations that the layer's answers looked at, in order of time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = [("query", "=", layer.query_key), ("cell_id", "in", sorted(cells))]
    if not layer.mosaic:
        wanted.append(("observation", "=", layer.observation))
    table = pq.read_table(pa.BufferReader(run.storage.read(LEDGER_PATH)), columns=["cell_id", "part"], filters=wanted)
    found: dict[str, tuple[str, ...]] = {}
    for cell, part in sorted(
        set(zip(*(table[name].to_pylist() for name in ("cell_id", "part")), strict=True)), key=str
    ):
        if part is None:
            continue
        try:
            rows = read_part(store, part).select(["observation", "sensor"]).to_pylist()
        except StorageError:
            continue  # a store may be cleared when its run is finished; the sample needs no picture
        names = [row["observation"] for row in rows if row["sensor"] == layer.sensor and row["observation"]]
        if names:
            found[cell] = tuple(max(sorted(set(names)), key=names.count).split(".."))
    return found


def _groups(store: Storage, cells: set[str]) -> dict[tuple[str, str], str]:
    """Paths in the cube by cell and observation."""
    found = {}
    for cell, path in stored_groups(store):
        if cell.id in cells:
            manifest = find_cell(store, path)
            if manifest is not None:
                found[cell.id, manifest.observation] = path
    return found


@dataclass(frozen=True, slots=True)
class _Picture:
    """One view of a cell with its halo, and what to call it."""

    rgb: NDArray[np.uint8]
    name: str
    datetime: dt.datetime
    halo_px: int
    resolution_m: float


def _pictures(group: CellGroup) -> list[_Picture]:
    """A cell's pictures at one date: as people know it, and one more of what else the sensor measures."""
    manifest = group.manifest
    data, mask = group.read()
    names = [default_view(manifest.sensor, manifest.bands)]
    names += [name for name in sensor_views(manifest.sensor, manifest.bands) if name not in names][1:2]
    grid = manifest.cell.grid
    pictures = []
    for name in names:
        rgb = make_view(name, manifest.bands, data, mask)
        if SENSORS[manifest.sensor].is_sar:
            rgb = np.repeat(rgb[..., :1], 3, axis=-1)  # people read radar in grey
        pictures.append(_Picture(rgb, name, manifest.datetime, grid.halo_px, grid.resolution_m))
    return pictures


def _chip(unit: Unit, dates: Sequence[Sequence[_Picture]]) -> bytes:
    """From afar and near in the first view, near in the others; a row for each date."""
    rows = [
        [_panel(unit, pictures[0], FAR_PX), *(_panel(unit, picture, NEAR_PX) for picture in pictures)]
        for pictures in dates
    ]
    return render_chip(rows, title=unit.id)


def _panel(unit: Unit, picture: _Picture, reach: int) -> ChipPanel:
    rgb = cut_around(picture.rgb, unit.row + picture.halo_px, unit.column + picture.halo_px, reach)
    width = (2 * reach + 1) * picture.resolution_m
    caption = f"{picture.datetime:%Y-%m-%d}  {picture.name}  {width:,.0f} m across"
    return ChipPanel(rgb=rgb, caption=caption)


# ── what people read ─────────────────────────────────────────────────────────────────────────────────────────


def tell_sample(sample: Sample) -> list[str]:
    """The sample in lines for a terminal."""
    content = sample.to_dict()
    wide = max(len(one["name"]) for one in content["strata"])
    lines = [f"{content['units']} pixels to label, {sample.chips} of them with a picture"]
    lines += [
        f"  {one['name']:<{wide}}  {one['drawn']:>5} of {one['pixels']:,} pixels, {one['km2']:,.3f} km²"
        for one in content["strata"]
    ]
    if sample.design.unsampled:
        lines.append("  (what the pictures do not show is not drawn; --unseen draws it for who has other pictures)")
    if not sample.chips:
        lines.append("the cube behind the run is gone: there are no pictures, only squares on the ground")
    return [*lines, f"how to label them: {sample.folder}/{GUIDE_NAME}"]
