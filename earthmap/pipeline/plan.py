"""The plan: which questions are asked of which observations on which cells. Pure after the search."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from earthmap.catalog import (
    CatalogSource,
    Found,
    ImageCatalog,
    Interval,
    JoinedCatalog,
    MemoryCatalog,
    Observation,
    Scene,
    SceneRule,
    Wanted,
    change_intervals,
    composite,
    find_scenes,
    glimpse_scenes,
    has_unlike_pair,
    image_catalog,
    narrow,
    next_best,
    observe,
    open_catalog,
    pair,
    parse_datetime,
    rank_many,
    scene_from_dict,
    scene_to_dict,
    series,
    unlike_pair,
)
from earthmap.cube import CellRead
from earthmap.errors import JobError, StorageError
from earthmap.grid import Cell, Grid, owned_ground, touched
from earthmap.pipeline.footprint_cells import cells_with, footprints_of
from earthmap.pipeline.footprints import Footprints
from earthmap.pipeline.job import TILE_SIZE, Job
from earthmap.pipeline.schema import plan_schema, scene_schema
from earthmap.sensors import SENSORS
from earthmap.storage import Storage
from earthmap.tasks import TASKS, Query
from earthmap.tasks.sizes import too_coarse

if TYPE_CHECKING:
    import pyarrow as pa

PLAN_PATH, SCENES_PATH = "plan.parquet", "scenes.parquet"

REFERENCES = 3
"""Observations that tell permanent water, at most: two must show a pixel as water, and one may be cloudy there."""

MAX_DATES = 20
"""Observations of a series at most: as many pictures of 448 pixels as the model reads."""

VAST_KM2 = 1_000_000
"""Ground from which on a few scenes are looked at before all are searched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One query asked of one cell: the observations it looks at, in order of time; none where nothing was found."""

    query: str
    """Content key of the query."""
    observations: tuple[str, ...]
    fallbacks: tuple[str, ...] = ()
    """The next best observations of the cell, the best first: looked at where the chosen one is damaged or gone. Of a
    change those of its first date."""
    later_fallbacks: tuple[str, ...] = ()
    """The same for the second date of a change."""
    members: tuple[str, ...] = ()
    """What the one observation is the median composite of, where it is one."""
    references: tuple[str, ...] = ()
    """What only tells the water that is always there, of a question about flood; nothing else is asked of it."""
    passed_over: int = 0
    """Of a series, how many observations of its time are not looked at."""
    unfound: str = ""
    """Why there are none: `no_scene`, `one_date` (a change needs two), `unlike_conventions` (not one to compare),
    `too_coarse` (pixels that do not show what is looked for), `no_footprint` (nothing to grade)."""

    @property
    def observation(self) -> str:
        """The observation as the ledger names it (`ledger_name`)."""
        return ledger_name(self.observations)


def ledger_name(observations: Sequence[str]) -> str:
    """What the ledger calls observations that are looked at together: `before..after` for two, `first..last of n` for
    more, empty for none.

    Example:
        >>> ledger_name(["a", "b", "c"])
        'a..c of 3'
    """
    if len(observations) <= 2:
        return "..".join(observations)
    return f"{observations[0]}..{observations[-1]} of {len(observations)}"


_LISTS = ("observations", "fallbacks", "later_fallbacks", "members", "references")


@dataclass(frozen=True, slots=True, kw_only=True)
class CellWork:
    """All that is asked of one cell."""

    cell: Cell
    tiles: int
    """Bit i is set where `cell.tiles()[i]` belongs to this job."""
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class Plan:
    """A job's plan: one row for each cell and question, and the scenes behind it."""

    grid: Grid
    table: pa.Table
    """`plan_schema`, ordered by zone, row and column of the cells, then by question."""
    observations: Mapping[str, Observation]
    refused: tuple[tuple[str, str], ...] = ()
    """Items of the catalogue that were not understood: id and why."""

    @cached_property
    def cells(self) -> int:
        """How many cells the job has."""
        return len(self.table["cell_id"].unique())

    @cached_property
    def tiles(self) -> int:
        """How many tiles the job has; each is asked every question."""
        if not len(self.table):
            return 0
        cells, first = np.unique(self.table["cell_id"].to_numpy(zero_copy_only=False), return_index=True)
        bits = self.table["tiles"].to_numpy()[first]
        return int(np.bitwise_count(bits).sum()) if len(cells) else 0

    @cached_property
    def _series(self) -> dict[str, tuple[str, ...]]:
        """The observations of each series by the ledger's name of it; cells of one name may have different ones."""
        import pyarrow.compute as pc

        found: dict[str, dict[str, None]] = {}
        of_series = self.table.filter(pc.greater(pc.list_value_length(self.table["observations"]), 2))
        for names in of_series["observations"].to_pylist():
            found.setdefault(ledger_name(names), {}).update(dict.fromkeys(names))
        return {name: tuple(sorted(names)) for name, names in found.items()}

    def named(self, name: str) -> tuple[str, ...]:
        """The observations that the ledger's name of one, of a pair or of a series stands for."""
        if name in self.observations:
            return (name,)
        return self._series.get(name) or tuple(name.split(".."))

    @cached_property
    def planned(self) -> int:
        """How many (tile, query, observation) the ledger will have."""
        return int(np.bitwise_count(self.table["tiles"].to_numpy()).sum())

    def work(self) -> Iterator[CellWork]:
        """Cell by cell, in the plan's order."""
        current: str | None = None
        bits, questions = 0, list[Question]()
        for batch in self.table.to_batches():
            for row in batch.to_pylist():
                if row["cell_id"] != current and current is not None:
                    yield CellWork(cell=Cell.parse(current), tiles=bits, questions=tuple(questions))
                    questions = []
                current, bits = row["cell_id"], row["tiles"]
                names: dict[str, Any] = {name: tuple(row[name]) for name in _LISTS}
                plain: dict[str, Any] = {name: row[name] for name in ("query", "passed_over", "unfound")}
                questions.append(Question(**plain, **names))
        if current is not None:
            yield CellWork(cell=Cell.parse(current), tiles=bits, questions=tuple(questions))

    def reads(self) -> Iterator[CellRead]:
        """Every (cell, observation) that the questions look at, once."""
        for work in self.work():
            yield from cell_reads(work, self.observations).values()


def cell_reads(work: CellWork, observations: Mapping[str, Observation]) -> dict[str, CellRead]:
    """What must be read before a cell's questions can be answered, by the plan's name of the observation.

    Each observation is narrowed to the scenes over the cell's own ground, so that what is read, and where it is kept,
    does not depend on the area of the job.
    """
    names = sorted({name for one in work.questions for name in (*one.observations, *one.references)})
    ground = owned_ground(work.cell)
    narrowed = {name: narrow(observations[name], ground) for name in names}
    return {name: CellRead.of(work.cell, own) for name, own in narrowed.items() if own is not None}


def _resolution(scenes: Sequence[Scene]) -> float:
    """The finest pixel of the scenes to three digits, so that 0.6000000000037 m is 0.6 m."""
    return float(f"{min(scene.resolution_m for scene in scenes):.3g}")


def grid_of(scenes: Sequence[Scene], *, tile_size: int, resolution: float | None = None) -> Grid:
    """The lattice that `scenes` are mapped on: that of the finest of them, in its pixels where none are asked for."""
    finest = min(scenes, key=lambda scene: (scene.resolution_m, scene.sensor))
    return Grid(
        resolution_m=resolution or _resolution(scenes),
        picture_px=tile_size,
        anchor_m=SENSORS[finest.sensor].anchor_m,
    )


def make_plan(job: Job, source: CatalogSource | None = None, *, say: Callable[[str], None] | None = None) -> Plan:
    """Search the catalogue and lay out the work.

    Scenes are chosen for each cell from all that its whole ground shows, never for the area, so that a larger area
    adds cells and changes none. `say` hears of waiting and of long searches.

    Raises:
        CatalogError: when the catalogue cannot be read or holds nothing for the area and time.
        SensorError: when nothing that it holds is understood.
        JobError: for more tiles than the job allows.
    """
    spec = job.spec
    footprints = footprints_of(job)  # read first: nothing is searched where none overlaps the area
    images = open_images(job)
    source = source or open_source(job, images, say=say)
    _refuse_vast(source, job)
    found = _search(source, job.area.geometry, job)
    grid = grid_of(found.scenes, tile_size=spec.tile_size or TILE_SIZE, resolution=spec.resolution)
    cells, bits = touched(job.area, grid)
    count = int(np.bitwise_count(bits).sum())
    if count > spec.max_tiles:
        raise _too_many(count, grid, job, enough=count)
    grounds = [owned_ground(cell) for cell in cells]
    found = _search(source, _search_ground(grounds), job)
    observations = observe(found.scenes)
    asked = [_questions_of(query, observations, grounds, job.rule, grid=grid) for query in job.queries]
    _refuse_single_dates(job, asked)
    asked = _where_footprints_are(job, footprints, cells, asked, observations)
    table = _table(cells, bits, job.queries, asked)
    used = _used(observations, [one for of_query in asked for of_cell in of_query for one in of_cell])
    return Plan(
        grid=grid,
        table=table,
        observations=used,
        refused=(*_unused(images, found), *((item.id, item.why) for item in found.refused)),
    )


def _refuse_single_dates(job: Job, asked: Sequence[Sequence[Sequence[_Asking]]]) -> None:
    """Raises JobError for a question about a series that no cell has two dates for."""
    for query, of_query in zip(job.queries, asked, strict=True):
        unfound = {one.unfound for of_cell in of_query for one in of_cell}
        if query.dates == 0 and unfound and unfound <= {"one_date", "unlike_conventions", "no_scene"}:
            raise JobError(
                f"{query.text[:80]!r} is asked along a series, and no ground of the area has two dates of one sensor "
                "and convention, of radar of one relative orbit",
                expected="at least two observations of the same ground in its time",
                fix="give a longer --datetime, or another sensor",
            )


def _where_footprints_are(
    job: Job,
    footprints: Footprints | None,
    cells: Sequence[Cell],
    asked: Sequence[list[list[_Asking]]],
    observations: Sequence[Observation],
) -> list[list[list[_Asking]]]:
    """`asked` with questions about footprints asked of the cells that have some alone, and of one sensor each."""
    if footprints is None or not cells:
        return list(asked)
    having = set(cells_with(footprints, job.area, cells[0].grid))
    return [
        [
            _of_finest(askings, observations) if cell in having else [_Asking(unfound="no_footprint")]
            for cell, askings in zip(cells, of_query, strict=True)
        ]
        if TASKS[query.task].merge == "footprints"
        else of_query
        for query, of_query in zip(job.queries, asked, strict=True)
    ]


def _of_finest(askings: Sequence[_Asking], observations: Sequence[Observation]) -> list[_Asking]:
    """The asking of the finest sensor: a footprint is asked about once."""
    pixel = {one.id: _resolution(one.scenes) for one in observations}
    looks = [asking for asking in askings if asking.observations]
    finest = sorted(looks, key=lambda one: (max(map(pixel.__getitem__, one.observations)), one.observations))
    return finest[:1] or list(askings)


def _refuse_vast(source: CatalogSource, job: Job) -> None:
    """Raises JobError for ground that surely has more tiles than the job allows, before all of its scenes are searched.

    The pixel is that of the first scenes that are found: finer ones would only make more tiles.
    """
    spec, km2 = job.spec, job.area.area_km2
    resolution = spec.resolution
    if resolution is None and km2 > VAST_KM2:
        interval = parse_datetime(spec.datetime) if spec.datetime else None
        wanted = Wanted(geometry=job.area.geometry, interval=interval, collections=spec.collections)
        scenes = glimpse_scenes(source, wanted, sensor=spec.sensor)
        resolution = _resolution(scenes) if scenes else None
    if resolution is not None:
        grid = Grid(resolution_m=resolution, picture_px=spec.tile_size or TILE_SIZE)
        least = int(0.95 * km2 * 1e6 / grid.core_m**2)  # projections stretch ground by a few percent at most
        if least > spec.max_tiles:
            raise _too_many(least, grid, job, enough=6 * least // 5)


def _too_many(count: int, grid: Grid, job: Job, *, enough: int) -> JobError:
    least = f"at least {count:,}" if enough > count else f"{count:,}"
    return JobError(
        f"the job has {least} tiles of {grid.core_m / 1000:g} km, more than its limit of {job.spec.max_tiles:,}",
        fix=f"give a smaller area or a coarser --resolution, or allow it with --max-tiles {enough}",
    )


def plan_again(job: Job, earlier: Plan) -> Plan:
    """The plan of other questions about the ground of `earlier`, of the observations that it looks at: no search.

    A question about one date looks at what those of the earlier plan looked at, with the same that stands in; where
    there were only changes, at the best of their dates. A change compares two of the observations that were looked at.

    Raises:
        JobError: where a question finds nothing that it could look at on any cell.
    """
    works = list(earlier.work())
    asked = [[_asked_again(query, work, earlier, job.rule) for work in works] for query in job.queries]
    for query, of_query in zip(job.queries, asked, strict=True):
        if not any(asking.observations for of_cell in of_query for asking in of_cell):
            looks = "a date" if query.dates == 1 else "two dates"
            none = f"{query.text[:80]!r} looks at {looks} of one sensor, and the run looked at none such"
            raise JobError(
                too_coarse(query, earlier.grid.resolution_m) or none,
                fix="map it from such scenes, with --store set to the run's store so that what was read is used again",
            )
    cells, seen = [work.cell for work in works], list(earlier.observations.values())
    asked = _where_footprints_are(job, footprints_of(job), cells, asked, seen)
    used = {name for of_query in asked for of_cell in of_query for asking in of_cell for name in asking.names}
    return Plan(
        grid=earlier.grid,
        table=_table([work.cell for work in works], [work.tiles for work in works], job.queries, asked),
        observations={name: one for name, one in earlier.observations.items() if name in used},
    )


def _asked_again(query: Query, work: CellWork, earlier: Plan, rule: SceneRule) -> list[_Asking]:
    """What a query looks at on a cell, by what the earlier questions about it did."""
    before = [_Asking(**{name: getattr(one, name) for name in (*_LISTS, "passed_over")}) for one in work.questions]
    ground = owned_ground(work.cell)
    looked = {asking: earlier.observations[asking.observations[0]] for asking in before if asking.observations}
    mine = [
        asking
        for asking, one in looked.items()
        if (not query.sensors or one.sensor in query.sensors) and _is_fine(query, one, earlier.grid)
    ]
    whole = [asking for asking in mine if len(asking.observations) == 1 and _of_date(query, [looked[asking]])]
    if query.dates == 1 and whole:
        names = sorted({name for asking in before for name in asking.names if not asking.members})
        references = _References.of(query, [earlier.observations[name] for name in names], [ground])
        return list(dict.fromkeys(references.beside(asking, 0) for asking in whole))
    names = sorted({name for asking in mine for name in asking.observations if not asking.members})
    seen = list(_of_date(query, [earlier.observations[name] for name in names]))
    found = []
    for sensor in sorted({one.sensor for one in seen}):
        own = [one for one in seen if one.sensor == sensor]
        if query.dates == 2:
            two = _pair(own, query, ground)
            known = [asking for asking in mine if two is not None and asking.observations == two.observations]
            found += known[:1] or ([_Asking(two.observations)] if two is not None else [])
        elif query.dates == 0:
            along = _along(own, query)
            known = [asking for asking in mine if along is not None and asking.observations == along.observations]
            found += known[:1] or ([along] if along is not None else [])
        else:
            (ranked,) = rank_many(own, [ground], rule=rule)
            found += [_Asking((own[index].id,)) for index in ranked[: None if rule.name == "all" else 1]]
    return found or [_across(query, seen, ground)]


def open_images(job: Job) -> ImageCatalog | None:
    """The job's images without a catalogue; None where it names none. Raises CatalogError."""
    spec = job.spec
    return image_catalog(spec.images, datetime=spec.datetime, bands=spec.bands) if spec.images else None


def open_source(job: Job, images: ImageCatalog | None, *, say: Callable[[str], None] | None = None) -> CatalogSource:
    """The job's catalogue, its images, or both as one. Raises CatalogError."""
    if job.spec.catalog is None:
        return images or MemoryCatalog([], address="no catalogue")
    catalog = open_catalog(job.spec.catalog, say=say)
    return catalog if images is None else JoinedCatalog([catalog, images])


def _unused(images: ImageCatalog | None, found: Found) -> Iterator[tuple[str, str]]:
    """The files that became no image, and the images that the search passed over."""
    if images is None:
        return
    yield from ((one.address, one.why) for one in images.left_out)
    used = {scene.id for scene in found.scenes} | {item.id for item in found.refused}
    if not found.other_sensors:
        yield from ((id, "outside the job's area, time or collections") for id in images.ids if id not in used)


def _search(source: CatalogSource, geometry: Any, job: Job) -> Found:
    spec = job.spec
    return find_scenes(
        source, geometry, datetime=spec.datetime, collections=spec.collections or None, sensor=spec.sensor
    )


def _search_ground(grounds: Sequence[Any]) -> Any:
    """The ground of all cells as one geometry for the search."""
    return shapely.union_all([shapely.box(*shapely.bounds(part)) for ground in grounds for part in _parts(ground)])


def _parts(geometry: Any) -> list[Any]:
    return list(shapely.get_parts(geometry))


@dataclass(frozen=True, slots=True)
class _Asking:
    """One asking of a query: what it looks at, and what it looks at where that cannot be read."""

    observations: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = ()
    later_fallbacks: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    passed_over: int = 0
    unfound: str = ""
    """Why there is nothing to look at."""

    @property
    def names(self) -> tuple[str, ...]:
        """All that it may look at."""
        return (*self.observations, *self.fallbacks, *self.later_fallbacks, *self.members, *self.references)


def _questions_of(
    query: Query, observations: Sequence[Observation], grounds: Sequence[Any], rule: SceneRule, *, grid: Grid
) -> list[list[_Asking]]:
    """For each cell, each asking of `query`; one empty asking where there is nothing to look at."""
    fine = [one for one in observations if _is_fine(query, one, grid)]
    if observations and not fine:
        return [[_Asking(unfound="too_coarse")] for _ in grounds]
    references = _References.of(query, fine, grounds)
    observations = _of_date(query, fine)
    sensors = sorted({o.sensor for o in observations if not query.sensors or o.sensor in query.sensors})
    asked: list[list[_Asking]] = [[] for _ in grounds]
    over: list[list[Observation]] = [[] for _ in grounds]
    for sensor in sensors:
        candidates = [o for o in observations if o.sensor == sensor]
        ranked = rank_many(candidates, grounds, rule=SceneRule(name="all") if query.dates != 1 else rule)
        for cell, indices in enumerate(ranked):
            best = [candidates[index] for index in indices]
            over[cell].extend(best)
            if query.dates == 2:
                two = _pair(best, query, grounds[cell])
                asked[cell].extend([two] if two else [])
            elif query.dates == 0:
                along = _along(best, query)
                asked[cell].extend([along] if along else [])
            elif rule.name == "all":
                asked[cell].extend(_Asking((one.id,)) for one in best)
            elif best and rule.name == "median":
                asked[cell].append(_of_median(best))
            elif best:
                asked[cell].append(_Asking((best[0].id,), tuple(one.id for one in best[1:])))
    asked = [[references.beside(one, cell) for one in askings] for cell, askings in enumerate(asked)]
    places = zip(asked, over, grounds, strict=True)
    return [askings or [_across(query, seen, ground)] for askings, seen, ground in places]


def _across(query: Query, seen: Sequence[Observation], ground: Any) -> _Asking:
    """Two observations of unlike sensors whose maps are compared, for a mask of change; or why there is nothing."""
    if query.dates == 1:
        return _Asking(unfound="no_scene")
    windows = {"before": query.before, "after": query.after}
    two = unlike_pair(seen, ground, **windows) if TASKS[query.task].answer == "mask" else None
    if two is not None:
        return _Asking((two[0].id, two[1].id))
    return _Asking(unfound="unlike_conventions" if has_unlike_pair(seen, **windows) else "one_date")


def _of_date(query: Query, observations: Sequence[Observation]) -> Sequence[Observation]:
    """Those that a question about one date may be asked of: all, or those of the date that it names."""
    if query.dates != 1 or (query.before is None and query.after is None):
        return observations
    early, late = change_intervals(query.before, query.after)
    if late is not None:
        return [one for one in observations if _is_in(one, late)]
    return [one for one in observations if early is None or early.end is None or one.datetime > early.end]


def _is_in(observation: Observation, interval: Interval) -> bool:
    return interval.overlaps(Interval(start=observation.datetime, end=observation.end or observation.datetime))


@dataclass(frozen=True, slots=True)
class _References:
    """What may tell the water that is always there, for each sensor and cell the best first."""

    observations: Mapping[str, Observation]
    ranked: Mapping[str, Sequence[Sequence[str]]]

    @classmethod
    def of(cls, query: Query, observations: Sequence[Observation], grounds: Sequence[Any]) -> _References:
        """Those of the dates that the question names as before; none where it names no such dates."""
        early, _ = change_intervals(query.before, query.after)
        if early is None or not query.is_flood:
            return cls({}, {})
        known = [one for one in observations if _is_in(one, early)]
        ranked = {}
        for sensor in sorted({one.sensor for one in known if not query.sensors or one.sensor in query.sensors}):
            own = [one for one in known if one.sensor == sensor]
            of_cells = rank_many(own, grounds, rule=SceneRule(name="least_cloud"))
            ranked[sensor] = [[own[index].id for index in of_cell] for of_cell in of_cells]
        return cls({one.id: one for one in observations}, ranked)

    def beside(self, asking: _Asking, cell: int) -> _Asking:
        """The asking with what tells permanent water on its cell: earlier observations, those of its sensor first."""
        if not asking.observations or not self.ranked:
            return dataclasses.replace(asking, references=()) if asking.references else asking
        asked = self.observations[asking.members[0] if asking.members else asking.observations[0]]
        order = sorted(self.ranked, key=lambda sensor: (sensor != asked.sensor, sensor))
        names = [name for sensor in order for name in self.ranked[sensor][cell]]
        earlier = [name for name in names if self.observations[name].datetime < asked.datetime]
        return dataclasses.replace(asking, references=tuple(earlier[:REFERENCES]))


def _is_fine(query: Query, observation: Observation, grid: Grid) -> bool:
    """Whether its pixels show what the query looks for."""
    return too_coarse(query, max(grid.resolution_m, _resolution(observation.scenes))) is None


def _of_median(best: Sequence[Observation]) -> _Asking:
    """A composite of those that share the convention of the best."""
    members = [one for one in best if one.convention == best[0].convention]
    return _Asking((composite(members).id,), members=tuple(sorted(one.id for one in members)))


def _used(observations: Sequence[Observation], askings: Sequence[_Asking]) -> dict[str, Observation]:
    """What any asking may look at, composites and their members among them, by name."""
    by_name = {observation.id: observation for observation in observations}
    composites = {asking.observations[0]: asking.members for asking in askings if asking.members}
    named = {name for asking in askings for name in asking.names}
    used = {name: observation for name, observation in by_name.items() if name in named}
    return used | _composites(composites, by_name)


def _composites(
    members: Mapping[str, Sequence[str]], observations: Mapping[str, Observation]
) -> dict[str, Observation]:
    return {name: composite([observations[member] for member in of]) for name, of in sorted(members.items())}


def _pair(observations: Sequence[Observation], query: Query, ground: Any) -> _Asking | None:
    """The two observations that `query` compares on one cell, and what stands in for each."""
    windows = {"before": query.before, "after": query.after}
    names = {one.id: one.id for one in observations}
    if query.before is not None or query.after is not None:
        # Cloud over the cell decides inside an interval, so only the scenes over the cell may count.
        narrowed = [(one.id, own) for one in observations if (own := narrow(one, ground)) is not None]
        names = {own.id: name for name, own in narrowed}
        observations = [own for _, own in narrowed]
    two = pair(observations, **windows)
    if two is None:
        return None
    first, second = ([names[one.id] for one in ones] for ones in next_best(observations, two, **windows))
    asked = names[two[0].id], names[two[1].id]
    return _Asking(asked, fallbacks=tuple(first), later_fallbacks=tuple(second))


def _along(observations: Sequence[Observation], query: Query) -> _Asking | None:
    """The observations of one sensor that `query` looks at one after the other; None where there are not two."""
    chosen, passed_over = series(observations, before=query.before, after=query.after, most=MAX_DATES)
    return _Asking(tuple(one.id for one in chosen), passed_over=passed_over) if chosen else None


def _table(
    cells: Sequence[Cell], bits: Any, queries: Sequence[Query], asked: Sequence[Sequence[Sequence[_Asking]]]
) -> pa.Table:
    import pyarrow as pa

    schema = plan_schema()
    columns: dict[str, list[Any]] = {name: [] for name in schema.names}
    keys = [query.content_key() for query in queries]
    for number, cell in enumerate(cells):
        for key, of_query in zip(keys, asked, strict=True):
            askings = of_query[number]
            columns["cell_id"].extend([cell.id] * len(askings))
            columns["tiles"].extend([int(bits[number])] * len(askings))
            columns["query"].extend([key] * len(askings))
            columns["observations"].extend(asking.observations for asking in askings)
            for name in _LISTS[1:]:
                columns[name].extend(getattr(asking, name) for asking in askings)
            columns["passed_over"].extend(asking.passed_over for asking in askings)
            columns["unfound"].extend(asking.unfound for asking in askings)
    return pa.table(columns, schema=schema)


def write_plan(storage: Storage, plan: Plan) -> None:
    """`scenes.parquet`, then `plan.parquet`, which means that the plan is whole."""
    import pyarrow as pa

    rows = [
        {
            "observation": observation.id,
            "position": position,
            "copy": position >= len(observation.scenes),
            "scene_id": scene.id,
            "collection": scene.collection,
            "sensor": scene.sensor,
            "datetime": scene.datetime,
            "observation_datetime": observation.datetime,
            "record": json.dumps(scene_to_dict(scene), sort_keys=True),
        }
        for observation in plan.observations.values()
        if not observation.members  # a composite follows from the plan's table
        for position, scene in enumerate(observation.scenes + observation.copies)
    ]
    storage.write(SCENES_PATH, _parquet(pa.Table.from_pylist(rows, schema=scene_schema())))
    grid = {"resolution_m": plan.grid.resolution_m, "picture_px": plan.grid.picture_px, "anchor_m": plan.grid.anchor_m}
    meta = {"earthmap:grid": json.dumps(grid), "earthmap:refused": json.dumps(plan.refused)}
    storage.write(PLAN_PATH, _parquet(plan.table.replace_schema_metadata(meta)))


def read_plan(storage: Storage) -> Plan | None:
    """The plan that `write_plan` wrote, or None where there is none. Raises StorageError for a damaged one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(storage.read(PLAN_PATH)))
        if not set(plan_schema().names) <= set(table.schema.names):
            raise _foreign(storage)
        table = table.select(plan_schema().names)
        scenes = pq.read_table(pa.BufferReader(storage.read(SCENES_PATH)))
        meta = {key.decode(): json.loads(value) for key, value in table.schema.metadata.items() if b"earthmap" in key}
        grid, refused = Grid(**meta["earthmap:grid"]), tuple((a, b) for a, b in meta["earthmap:refused"])
    except FileNotFoundError:
        return None
    except StorageError:
        raise
    except (pa.ArrowInvalid, OSError, KeyError, ValueError) as error:
        raise StorageError(
            f"the plan in {storage.address} is damaged: {error}", fix="plan again with --refresh"
        ) from None
    observations = _observations(scenes.to_pylist())
    asked = zip(table["observations"].to_pylist(), table["members"].to_pylist(), strict=True)
    composites = _composites({names[0]: members for names, members in asked if members}, observations)
    return Plan(grid=grid, table=table, observations=observations | composites, refused=refused)


def _foreign(storage: Storage) -> StorageError:
    return StorageError(
        f"the run in {storage.address} was planned by another version of earthmap",
        expected="a plan of this version",
        fix="plan again with --refresh, or use the version that `versions` of its run.json names",
    )


def _observations(rows: Sequence[Mapping[str, Any]]) -> dict[str, Observation]:
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        grouped.setdefault(row["observation"], []).append(row)
    return {
        name: Observation(
            id=name,
            sensor=members[0]["sensor"],
            datetime=members[0]["observation_datetime"].astimezone(datetime.UTC),
            scenes=_scenes(members, copies=False),
            copies=_scenes(members, copies=True),
        )
        for name, members in grouped.items()
    }


def _scenes(rows: Sequence[Mapping[str, Any]], *, copies: bool) -> tuple[Scene, ...]:
    ordered = sorted((row for row in rows if row["copy"] == copies), key=lambda row: row["position"])
    return tuple(scene_from_dict(json.loads(row["record"])) for row in ordered)


def _parquet(table: pa.Table) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())
