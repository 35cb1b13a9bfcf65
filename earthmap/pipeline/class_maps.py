"""The class map of a finished run, cell by cell: what one layer of it says of every pixel of the area.

A layer is one question as one line of the summary has it: one observation, or a mosaic of one sensor's. Pixels are
those that the run's numbers count, each of the one cell that owns its ground; ground that the layer does not show is
there too.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.content import content_key
from earthmap.errors import JobError, StorageError
from earthmap.grid import Cell, Tile, pixel_area_m2
from earthmap.merge.rasters import counted_pixels
from earthmap.metrics.sampling import BOUNDARY_PX, OUTSIDE, SKIPPED, TRIAGED, UNSEEN_GROUND, boundary_strata
from earthmap.pipeline.folder import CLASSES_PATH, COVERAGE_PATH, Run
from earthmap.pipeline.plan import PLAN_PATH
from earthmap.pipeline.triage import TRIAGE
from earthmap.sensors.masks import REASONS
from earthmap.tasks import TASKS, UNSEEN, Query, mask_legend

if TYPE_CHECKING:
    from types import TracebackType

    import rasterio
    from numpy.typing import NDArray

    Codes = NDArray[np.uint8]

KEY_DIGITS = 8
"""Of a sample's key in the ids of its units."""

_WHY = ("status", "stage", "reason", "datetime_min")
"""Columns of the coverage that `unanswered_stratum` looks at."""

DAYS = ("datetime_min", "datetime_max")
"""Columns of the coverage that `days_of` looks at."""

_READ_STAGES = ("search", "plan", "read")
"""Stages before there is a picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapLayer:
    """One question of a run as one line of its summary has it."""

    number: int
    """Of the question in the job, from 1."""
    query: Query
    query_key: str
    """As the run's tables have it."""
    observation: str
    """As the summary names it."""
    sensor: str
    mosaic: bool
    """Its cells have different observations."""
    datetime_min: str
    datetime_max: str

    @property
    def names(self) -> tuple[str, ...]:
        """Classes that its map tells from the rest."""
        return tuple(mask_legend(self.query).values())

    @property
    def finds_things(self) -> bool:
        """True where it finds things, false where it has a class for each pixel."""
        return TASKS[self.query.task].merge == "instances"

    @property
    def dates(self) -> tuple[str, ...]:
        """When its pictures were measured, to the minute."""
        return tuple(dict.fromkeys((self.datetime_min[:16], self.datetime_max[:16])))

    def shows(self, time: dt.datetime | None) -> bool:
        """Whether what was measured from `time` on is of it, of what its question and sensor have."""
        if time is None:
            return False
        start, end = (dt.datetime.fromisoformat(text) for text in (self.datetime_min, self.datetime_max))
        return start <= time <= end

    def sample_key(self, run: Run, files: Mapping[str, str], draw: tuple[int, int, bool]) -> str:
        """What tells a sample of it from all others: the job, what it made, and how the sample is drawn."""
        return content_key(run.job.content_key(), dict(files), draw, self.query_key, self.observation)[:KEY_DIGITS]

    @property
    def title(self) -> str:
        """For people."""
        return f"question {self.number}, {self.query.text!r}, as {self.observation} shows it"


def choose_layer(run: Run, *, question: str | None = None, observation: str | None = None) -> MapLayer:
    """The layer that is asked about; the first question with a class map, and its latest observation, by default.

    Args:
        run: a finished run.
        question: its number from 1, or its text.
        observation: as the summary names it.

    Raises:
        JobError: for a question that the run does not have or that has no class map, and for another observation.
    """
    number, query = _question(run, question)
    found = run.summary["queries"][number - 1]
    seen = [entry for entry in found["observations"] if entry["sensor"]]
    names = [entry["observation"] for entry in seen]
    if not seen:
        raise JobError(f"question {number}, {query.text!r}, was answered nowhere", expected="a layer with answers")
    if observation is not None and observation not in names:
        raise JobError(f"the question has no observation {observation!r}", expected=f"one of {', '.join(names)}")
    entry = seen[names.index(observation) if observation is not None else len(seen) - 1]
    return MapLayer(
        number=number,
        query=query,
        query_key=found["query_key"],
        observation=entry["observation"],
        sensor=entry["sensor"],
        mosaic=entry["observation"] == f"{entry['sensor']}_mosaic",
        datetime_min=entry["datetime_min"],
        datetime_max=entry["datetime_max"],
    )


def _question(run: Run, question: str | None) -> tuple[int, Query]:
    queries = run.job.queries
    if question is None:
        mapped = [index for index, query in enumerate(queries) if _refusal(query) is None]
        index = mapped[0] if mapped else 0
    elif question.isdecimal() and 1 <= int(question) <= len(queries):
        index = int(question) - 1
    else:
        texts = [query.text for query in queries]
        if question not in texts:
            listed = "; ".join(f"{place}: {text}" for place, text in enumerate(texts, 1))
            raise JobError(f"the run has no question {question!r}", expected=f"one of {listed}")
        index = texts.index(question)
    why = _refusal(queries[index])
    if why is not None:
        raise JobError(
            f"question {index + 1}, {queries[index].text!r}, cannot be sampled: {why}",
            expected="a question with a class for each pixel, or that finds things, such as 'Where is water?'",
        )
    return index + 1, queries[index]


def _refusal(query: Query) -> str | None:
    """Why there is nothing that people could check; None where there is."""
    if query.is_followed:
        return "what it follows is counted over many dates, and people label one"
    return {
        "tiles": "its answers are about whole tiles, so there is no class of a pixel to be checked",
        "footprints": "its answers are about footprints: draw some of features.parquet, and look at them one by one",
    }.get(TASKS[query.task].merge)


@dataclass(frozen=True, slots=True, eq=False)
class CellClasses:
    """What a layer says of a cell's pixels; (cell_core_px, cell_core_px) each, row 0 in the north."""

    cell: Cell
    codes: Codes
    """Classes as the raster has them, 0 for none of them; UNSEEN where it says nothing."""
    strata: Codes
    """As `earthmap.metrics.sampling` has them; OUTSIDE where the run counts no ground."""
    area_m2: NDArray[np.float64]


@dataclass
class ClassMap(AbstractContextManager["ClassMap"]):
    """The class map of one layer. Files are opened as they are needed and closed at the end of the context."""

    run: Run
    layer: MapLayer
    _stack: ExitStack = field(default_factory=ExitStack)
    _open: dict[str, rasterio.DatasetReader] = field(default_factory=dict)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def legend(self) -> dict[int, str]:
        """What the codes mean, 0 (`none`) among them."""
        return {0: "none", **mask_legend(self.layer.query)}

    @cached_property
    def rasters(self) -> dict[str, str]:
        """SHA-256 of the layer's class rasters by their path in the run folder."""
        names = {name for names, _ in self._cells.values() for name in names}
        paths = [
            path
            for path in self.run.storage.list(CLASSES_PATH)
            if path.startswith(f"{CLASSES_PATH}/{self.layer.number}_") and _observation(path, names) is not None
        ]
        return {path: hashlib.sha256(self.run.storage.read(path)).hexdigest() for path in paths}

    @cached_property
    def _cells(self) -> dict[str, tuple[set[str], dict[str, int]]]:
        """By cell id: observations of the layer there, and the stratum of each tile that has no answer."""
        cells: dict[str, tuple[set[str], dict[str, int]]] = {}
        for row in layer_coverage(self.run, self.layer):
            names, unanswered = cells.setdefault(Tile.parse(row["tile_id"]).cell.id, (set(), {}))
            names.add(row["observation"])
            if row["status"] != "answered":
                unanswered[row["tile_id"]] = unanswered_stratum(row)
        return cells

    def cells(self) -> Iterator[CellClasses]:
        """Every cell of the job with ground of the area, in the plan's order. Raises StorageError for a damaged run."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            plan = pq.read_table(pa.BufferReader(self.run.storage.read(PLAN_PATH)), columns=["cell_id", "tiles"])
        except FileNotFoundError:
            raise StorageError(f"{self.run.address} has no plan", fix="run the same job again") from None
        tiles = dict(zip(*(plan[name].to_pylist() for name in ("cell_id", "tiles")), strict=True))
        for cell in map(Cell.parse, tiles):
            mine = {tile.id for bit, tile in enumerate(cell.tiles()) if tiles[cell.id] >> bit & 1}
            yield self._cell(cell, mine)

    def _cell(self, cell: Cell, mine: set[str]) -> CellClasses:
        counted = counted_pixels(cell, self.run.job.area)
        blank = np.full(counted.shape, UNSEEN_GROUND, np.uint8)
        unanswered = self._cells[cell.id][1] if cell.id in self._cells else {}
        for tile in cell.tiles():
            counted[tile.core_slices] &= tile.id in mine
            blank[tile.core_slices] = unanswered.get(tile.id, UNSEEN_GROUND)
        around = self._read(cell)
        inner = (slice(BOUNDARY_PX, -BOUNDARY_PX), slice(BOUNDARY_PX, -BOUNDARY_PX))
        codes = around[inner]
        seen = boundary_strata(around, nothing=UNSEEN)[inner]
        strata = np.where(counted, np.where(codes != UNSEEN, seen, blank), np.uint8(OUTSIDE))
        return CellClasses(cell, codes, strata, np.asarray(pixel_area_m2(cell.core_geobox)))

    def _read(self, cell: Cell) -> Codes:
        """The cell's codes with BOUNDARY_PX pixels around it; UNSEEN where there is no raster."""
        from rasterio.windows import Window

        side = cell.grid.cell_core_px + 2 * BOUNDARY_PX
        codes = np.full((side, side), UNSEEN, np.uint8)
        names = self._cells[cell.id][0] if cell.id in self._cells else set()
        corner, step = cell.core_geobox.affine, cell.grid.resolution_m
        for path in sorted(self.rasters):
            if _observation(path, names) is None or not path.endswith(f"_{cell.zone.id}.tif"):
                continue
            source = self._source(path)
            column = round((corner.c - source.transform.c) / step) - BOUNDARY_PX
            row = round((source.transform.f - corner.f) / step) - BOUNDARY_PX
            window = Window(column, row, side, side)
            found = source.read(1, window=window, boundless=True, fill_value=UNSEEN)
            codes = np.where(codes == UNSEEN, found, codes)
        return codes

    def _source(self, path: str) -> rasterio.DatasetReader:
        import rasterio
        from rasterio.io import MemoryFile

        if path not in self._open:
            if self.run.storage.is_local:
                place = Path(self.run.storage.address, path)
            else:
                place = self._stack.enter_context(MemoryFile(self.run.storage.read(path))).name
            self._open[path] = self._stack.enter_context(rasterio.open(place))
        return self._open[path]


def _observation(path: str, names: set[str]) -> str | None:
    """Which of `names` a class raster is of; None for another's."""
    stem = path.removesuffix(".tif").rpartition("_")[0]
    return next((name for name in sorted(names) if stem.endswith(f"_{name}")), None)


def layer_coverage(
    run: Run, layer: MapLayer, *, columns: Sequence[str] = ("tile_id", "observation", *_WHY)
) -> Iterator[Mapping[str, Any]]:
    """The layer's rows of the coverage."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = [("query_key", "=", layer.query_key), ("sensor", "=", layer.sensor)]
    if not layer.mosaic:
        wanted.append(("observation", "=", layer.observation))
    table = pq.read_table(pa.BufferReader(run.storage.read(COVERAGE_PATH)), columns=list(columns), filters=wanted)
    for batch in table.to_batches():
        yield from batch.to_pylist()


def days_of(row: Mapping[str, Any]) -> str:
    """When what a row of the coverage is about was measured, to the day; empty where nothing was."""
    times = [row[name] for name in DAYS if row[name] is not None]
    return "..".join(dict.fromkeys(f"{time:%Y-%m-%d}" for time in times))


def unanswered_stratum(row: Mapping[str, Any]) -> int:
    """The stratum of a tile without an answer: UNSEEN_GROUND where no picture shows it or cloud and the like hide it,
    else TRIAGED or SKIPPED, as someone could look and label it."""
    if row["datetime_min"] is None or row["stage"] in _READ_STAGES or row["reason"] in REASONS:
        return UNSEEN_GROUND
    return TRIAGED if row["reason"] == TRIAGE else SKIPPED
