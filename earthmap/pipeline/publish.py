"""The run folder's files, from what the cells came to. Written in order, each whole; `run.json` follows them.

Cells are read one after the other, and what they bring is written as it comes: nothing here grows with the area but a
few hundred bytes a cell, and the regions that may still grow. What must be brought into order waits in files of a
temporary folder (TMPDIR says where).
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.catalog import Observation
from earthmap.errors import LedgerError
from earthmap.grid import Cell
from earthmap.merge import CellMerge, Sums, summarize
from earthmap.outputs import (
    Backdrop,
    Ordering,
    Provenance,
    class_cog,
    mosaic_backdrop,
    percent_cog,
    pole_in,
    render_preview,
    render_report,
    result_item,
    select_results,
    write_parquet,
)
from earthmap.pipeline.area_estimate import ESTIMATE_NAME
from earthmap.pipeline.crops import CROPS_PATH, KEPT, SHOWN, crops_of, without_footprints, worst_first, write_crops
from earthmap.pipeline.design import SAMPLES_PATH
from earthmap.pipeline.evidence import collect_evidence, open_observed, rgb_view
from earthmap.pipeline.folder import (
    CLASSES_PATH,
    COVERAGE_PATH,
    FEATURES_PATH,
    ITEM_PATH,
    LEDGER_PATH,
    PREVIEW_PATH,
    PROBABILITIES_PATH,
    REPORT_PATH,
    RUN_PATH,
    SUMMARY_PATH,
    Run,
)
from earthmap.pipeline.footprint_cells import check_footprints, rest_tables
from earthmap.pipeline.job import Job
from earthmap.pipeline.joined import Joined, join_cells
from earthmap.pipeline.merged import MergedCells
from earthmap.pipeline.plan import REFERENCES, Plan, read_plan
from earthmap.pipeline.schema import ledger_schema
from earthmap.pipeline.trust import calibrations_of, with_trust
from earthmap.storage import Storage
from earthmap.tasks import TASKS, UNSEEN, Query, decode_mask, mask_legend

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

MAX_BACKDROPS = 8
"""Observations shown behind the results: the first, the last, and those between at even steps."""

MAX_BACKDROP_CELLS = 400
"""Cells shown of one observation; a run of more has no pictures behind its results."""

BACKDROP_PX = 1400
"""Longer side of a backdrop, about."""

READ_THREADS = 4
"""Cells that are read at once for a backdrop."""

LEDGER_ORDER = ("cell_id", "tile_id", "query", "observation")


def publish(storage: Storage, *, job: Job, plan: Plan, merged: MergedCells) -> dict[str, float]:
    """Join the cells and write every file of the run folder but `run.json`; returns the seconds of each step.

    Args:
        storage: the run folder.
        job: what was asked.
        plan: what was planned.
        merged: what every cell of the plan came to.

    Raises:
        LedgerError: when the cells' rows are not those that were planned.
        StorageError: when a file cannot be read or written.
    """
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="earthmap-") as scratch:
        files = _Files(storage, Path(scratch))
        with _clocked(seconds, "join"):
            sums, rasters = _join(files, job, plan, merged)
        with _clocked(seconds, "classes"):
            titles = _write_classes(files, job, rasters, merged)
        with _clocked(seconds, "pages"):
            summary = with_trust(summarize(sums, area=job.area, queries=_queries(job)), job)
            storage.write(SUMMARY_PATH, _json(summary))
            shown = _shown(files.scratch / LEDGER_PATH)
            storage.write(ITEM_PATH, _json(_item(job, _names(shown, plan), summary, titles)))
            _write_pages(files, job, plan, shown, summary=summary, versions=_versions())
    return seconds


def publish_report(run: Run) -> None:
    """Write `report.html` and `preview.png` of a finished run again.

    Raises:
        StorageError: where the folder cannot be read or written.
    """
    plan = read_plan(run.storage)
    if plan is not None:
        with tempfile.TemporaryDirectory(prefix="earthmap-") as scratch:
            files = _Files(run.storage, Path(scratch))
            for path in (FEATURES_PATH, COVERAGE_PATH, LEDGER_PATH):
                (files.scratch / path).write_bytes(run.storage.read(path))
            shown = _shown(files.scratch / LEDGER_PATH)
            versions = json.loads(run.storage.read(RUN_PATH)).get("versions") or {}
            _write_pages(files, run.job, plan, shown, summary=run.summary, versions=versions)


@contextmanager
def _clocked(seconds: dict[str, float], step: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[step] = time.monotonic() - started


@dataclass(frozen=True, slots=True)
class _Files:
    """Files of the run folder that are written here first, a piece at a time."""

    storage: Storage
    scratch: Path

    def folder(self, name: str) -> Path:
        """A new folder for what does not fit into memory."""
        path = self.scratch / name
        path.mkdir()
        return path

    def put(self, path: str) -> None:
        """Copy the finished file of that name to the run folder."""
        self.storage.write_file(path, self.scratch / path)

    def move(self, path: str) -> str:
        """The same, and remove it here; returns the path."""
        self.put(path)
        (self.scratch / path).unlink()
        return path


def _queries(job: Job) -> dict[str, Query]:
    return {query.content_key(): query for query in job.queries}


def _json(content: Any) -> bytes:
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False).encode()


# ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class _Rasters:
    """Which cells have classes, by query, observation and zone."""

    cells: dict[tuple[str, str, str], list[Cell]] = field(default_factory=dict)
    sure: set[tuple[str, str, str]] = field(default_factory=set)
    """Those of which some answer states a probability."""

    def add(self, merge: CellMerge) -> None:
        """One more cell."""
        cell = Cell.parse(merge.cell_id)
        for query, observation in merge.classes:
            self.cells.setdefault((query, observation, cell.zone.id), []).append(cell)
        self.sure.update((query, observation, cell.zone.id) for query, observation in merge.percent)


def _join(files: _Files, job: Job, plan: Plan, merged: MergedCells) -> tuple[Sums, _Rasters]:
    """Write features, coverage and ledger; returns the run's sums, and what has class rasters."""
    joined = Joined.in_folder(files.scratch)
    ledger = Ordering(files.folder("ledger"), keys=LEDGER_ORDER)
    rasters, counted = _Rasters(), list[int]()

    def each(merge: CellMerge, own: pa.Table) -> None:
        rasters.add(merge)
        counted.append(_distinct(own))
        ledger.add(own)

    join_cells(joined, (work.cell for work in plan.work()), job=job, merged=merged, each=each)
    features, sums, rows = joined.features, joined.sums, sum(counted)
    for table in rest_tables(job, sums):
        features.add(table)
    check_footprints(job, sums)
    if rows != plan.planned:
        raise LedgerError(
            f"the ledger has {rows} different answers",
            expected=f"{plan.planned}, one for each planned tile, query and observation",
        )
    joined.write(files.scratch)
    write_parquet(files.scratch / LEDGER_PATH, ledger.in_order(), ledger_schema())
    for path in (FEATURES_PATH, COVERAGE_PATH, LEDGER_PATH):
        files.put(path)
    return sums, rasters


def _distinct(ledger: pa.Table) -> int:
    """The rows of a cell's ledger. Raises LedgerError where two are about the same answer."""
    distinct: int = ledger.group_by(["tile_id", "query", "observation"]).aggregate([]).num_rows
    if distinct != len(ledger):
        raise LedgerError(f"a cell has {len(ledger)} rows of {distinct} different answers", expected="one of each")
    return distinct


# ── class rasters ────────────────────────────────────────────────────────────────────────────────────────────


def _write_classes(files: _Files, job: Job, rasters: _Rasters, merged: MergedCells) -> dict[str, str]:
    """One raster for each question with masks, observation and zone, and one of how sure the answers are where they
    state it; their titles by path."""
    titles: dict[str, str] = {}
    for folder in (CLASSES_PATH, PROBABILITIES_PATH):
        files.folder(folder)
    for number, query in enumerate(job.queries, 1):
        if TASKS[query.task].merge != "polygons":
            continue
        for (key, observation, zone), cells in sorted(rasters.cells.items(), key=lambda item: item[0]):
            if key == query.content_key():
                name = f"{number}_{_slug(query.text)}_{observation}_{zone}.tif"
                title = f"{query.text} ({observation}, zone {zone})"
                ordered = sorted(cells, key=lambda cell: (-cell.row, cell.column))
                path = f"{CLASSES_PATH}/{name}"
                codes = _decoded(ordered, merged.read_classes(ordered), (key, observation))
                class_cog(ordered, codes, legend=mask_legend(query), path=files.scratch / path)
                titles[files.move(path)] = title
                if (key, observation, zone) in rasters.sure:
                    path = f"{PROBABILITIES_PATH}/{name}"
                    percent = _decoded(ordered, merged.read_percent(ordered), (key, observation))
                    percent_cog(ordered, percent, path=files.scratch / path)
                    titles[files.move(path)] = f"How sure the answers are, percent: {title}"
    return titles


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "question"


def _decoded(
    cells: Sequence[Cell], rasters: Iterable[Mapping[tuple[str, str], bytes]], key: tuple[str, str]
) -> Iterator[NDArray[np.uint8]]:
    """The raster of that key of each cell; UNSEEN where it has none."""
    for cell, found in zip(cells, rasters, strict=True):
        side = cell.grid.cell_core_px
        yield decode_mask(found[key], side) if key in found else np.full((side, side), UNSEEN, np.uint8)


# ── what observations show ───────────────────────────────────────────────────────────────────────────────────


def _shown(ledger: Path) -> dict[str, list[Cell]]:
    """The cells of each observation that answers are about; of those with too many to be drawn, only some."""
    import pyarrow.parquet as pq

    shown: dict[str, dict[str, None]] = {}
    with pq.ParquetFile(ledger) as file:
        for batch in file.iter_batches(columns=["cell_id", "observation"]):
            for cell, name in dict.fromkeys(zip(*(column.to_pylist() for column in batch.columns), strict=True)):
                cells = shown.setdefault(name or "", {})
                if len(cells) <= MAX_BACKDROP_CELLS:
                    cells[cell] = None
    return {name: [Cell.parse(cell) for cell in cells] for name, cells in shown.items() if name}


def _members(shown: Mapping[str, Sequence[Cell]], plan: Plan) -> dict[str, set[Cell]]:
    """The cells of each single observation, those of pairs among them."""
    members: dict[str, set[Cell]] = {}
    for name, cells in shown.items():
        for single in plan.named(name):
            members.setdefault(single, set()).update(cells)
    return members


def _with_references(shown: Mapping[str, Sequence[Cell]], plan: Plan, *, most: int) -> dict[str, list[Cell]]:
    """The same with the best of each question's references, which no answer is about."""
    found = {name: list(cells) for name, cells in shown.items()}
    for work in plan.work() if any(plan.table["references"].to_pylist()) else ():
        for name in dict.fromkeys(name for question in work.questions for name in question.references[:most]):
            cells = found.setdefault(name, [])
            if len(cells) <= MAX_BACKDROP_CELLS:
                cells.append(work.cell)
    return found


def _names(shown: Mapping[str, Sequence[Cell]], plan: Plan) -> list[Observation]:
    """The observations that answers are about, in order of time."""
    return sorted((plan.observations[name] for name in _members(shown, plan)), key=lambda one: (one.datetime, one.id))


# ── item, page and picture ───────────────────────────────────────────────────────────────────────────────────

_PARQUET = "application/vnd.apache.parquet"
_COG = "image/tiff; application=geotiff; profile=cloud-optimized"


def _item(
    job: Job, observations: Sequence[Observation], summary: Mapping[str, Any], rasters: Mapping[str, str]
) -> dict[str, Any]:
    import earthmap

    assets: dict[str, tuple[str, str, list[str], str]] = {
        "features": (FEATURES_PATH, _PARQUET, ["data"], "What was found"),
        "coverage": (COVERAGE_PATH, _PARQUET, ["metadata"], "What was seen, and why where it was not"),
        "summary": (SUMMARY_PATH, "application/json", ["metadata"], "Counts, areas and shares"),
        "report": (REPORT_PATH, "text/html", ["overview"], "The map and the numbers, to look at"),
        "preview": (PREVIEW_PATH, "image/png", ["thumbnail"], "The map as a picture"),
    }
    for kind in (CLASSES_PATH, PROBABILITIES_PATH):
        mine = [(path, title) for path, title in rasters.items() if path.startswith(f"{kind}/")]
        for number, (path, title) in enumerate(mine, 1):
            assets[f"{kind}_{number}"] = (path, _COG, ["data"], title)
    item: dict[str, Any] = result_item(
        f"earthmap-{job.content_key()[:12]}",
        area_geometry=job.area.to_geojson(),
        bbox=job.area.bounds,
        datetimes=[time for one in observations for time in (one.datetime, one.end) if time is not None],
        created=None if observations else datetime.datetime.now(datetime.UTC),  # an item must have some time
        summary=summary,
        assets={key: (f"./{path}", kind, roles, title) for key, (path, kind, roles, title) in assets.items()},
        scenes=sorted({scene.id for observation in observations for scene in observation.scenes}),
        version=earthmap.__version__,
    )
    return item


def _write_pages(
    files: _Files,
    job: Job,
    plan: Plan,
    shown: Mapping[str, Sequence[Cell]],
    *,
    summary: Mapping[str, Any],
    versions: Mapping[str, str],
) -> None:
    selection = select_results(files.scratch / FEATURES_PATH, files.scratch / COVERAGE_PATH)
    features, coverage = selection.features, _by_layer(selection.coverage, summary)
    store = Storage(job.store)
    backdrops = list(_backdrops(plan, _with_references(shown, plan, most=1), store, pole_in(coverage)))
    worst = worst_first(features)
    write_crops(worst[:KEPT], plan=plan, store=store, out=files.storage, folder=CROPS_PATH)
    summary = _with_rules(summary, job)
    more = len(job.queries) - 1
    title = job.queries[0].text + (f" (and {more} more question{'s' * (more > 1)})" if more else "")
    page = render_report(
        features,
        coverage,
        summary,
        backdrops=backdrops,
        title=title,
        provenance=dataclasses.replace(
            _provenance(files.storage, job, plan, shown, versions), calibrations=calibrations_of(summary, job)
        ),
        evidence=[
            *crops_of(worst[:SHOWN], plan=plan, store=store),
            *collect_evidence(without_footprints(features), selection.coverage, plan=plan, store=store),
        ],
        notes=selection.notes,
    )
    picture = render_preview(features, coverage, summary, backdrops=backdrops, title=title, notes=selection.notes)
    files.storage.write(REPORT_PATH, page.encode())
    files.storage.write(PREVIEW_PATH, picture)


def _with_rules(summary: Mapping[str, Any], job: Job) -> dict[str, Any]:
    """The summary with what each question counts as unseen."""
    rules = {key: list(query.unseen) for key, query in _queries(job).items()}
    queries = [{**query, "unseen": rules.get(query["query_key"], [])} for query in summary["queries"]]
    return {**summary, "queries": queries}


def _by_layer(coverage: Any, summary: Mapping[str, Any]) -> Any:
    """The coverage with the summary's names of observations: cells of one mosaic are shown together."""
    names: dict[tuple[str, str], list[str]] = {}
    for query in summary["queries"]:
        for seen in query["observations"]:
            names.setdefault((query["query_key"], seen["sensor"] or ""), []).append(seen["observation"])
    shown = [
        own[0] if len(own := names[key, sensor if isinstance(sensor, str) else ""]) == 1 else observation
        for key, sensor, observation in zip(
            coverage["query_key"], coverage["sensor"], coverage["observation"], strict=True
        )
    ]
    return coverage.assign(observation=shown)


def _backdrops(
    plan: Plan, shown: Mapping[str, Sequence[Cell]], store: Storage, pole: float | None
) -> Iterator[Backdrop]:
    """What the observations look like, for at most MAX_BACKDROPS of them."""
    members = _members(shown, plan)
    ordered = sorted(members, key=lambda name: (plan.observations[name].datetime, name))
    steps = {round(step) for step in np.linspace(0, len(ordered) - 1, MAX_BACKDROPS).tolist()} if ordered else set()
    for name in (ordered[step] for step in sorted(steps)):
        if len(members[name]) <= MAX_BACKDROP_CELLS:
            observation = plan.observations[name]
            step = max(1, round(np.sqrt(len(members[name])) * plan.grid.cell_core_px / BACKDROP_PX))
            pictures = _pictures(store, observation, members[name], step)
            if pictures:
                title = f"{observation.datetime:%Y-%m-%d} {observation.sensor}"
                yield mosaic_backdrop(
                    pictures, title=title, datetime=observation.datetime, sensor=observation.sensor, pole=pole
                )


def _pictures(store: Storage, observation: Observation, cells: Iterable[Cell], step: int) -> list[tuple[Any, Any, Any]]:
    """(rgb, reasons, geobox) of each cell's core, every `step`-th pixel."""
    ordered = sorted(cells, key=lambda cell: (cell.zone, cell.row, cell.column))
    with ThreadPoolExecutor(READ_THREADS) as pool:
        pictures = pool.map(lambda cell: _picture(store, observation, cell, step), ordered)
        return [picture for picture in pictures if picture is not None]


def _picture(store: Storage, observation: Observation, cell: Cell, step: int) -> tuple[Any, Any, Any] | None:
    from affine import Affine
    from odc.geo.geobox import GeoBox

    group = open_observed(store, cell, observation)
    if group is None:
        return None
    halo = cell.grid.halo_px
    data, mask = group.read()
    inner = (slice(halo, -halo, step), slice(halo, -halo, step))
    reasons = mask[inner]
    rgb = rgb_view(group.manifest.sensor, group.manifest.bands, data[(slice(None), *inner)], reasons)
    geobox = GeoBox(reasons.shape, cell.core_geobox.affine @ Affine.scale(step), cell.core_geobox.crs)
    return rgb, reasons, geobox


# ── what a page says of where its figures come from ──────────────────────────────────────────────────────────


def _provenance(
    storage: Storage, job: Job, plan: Plan, shown: Mapping[str, Sequence[Cell]], versions: Mapping[str, str]
) -> Provenance:
    scenes = {
        scene.id: (scene.id, f"{scene.datetime:%Y-%m-%d %H:%M}", observation.sensor)
        for observation in _names(_with_references(shown, plan, most=REFERENCES), plan)
        for scene in observation.scenes
    }
    estimates = [path for path in storage.list(SAMPLES_PATH) if path.endswith(f"/{ESTIMATE_NAME}")]
    return Provenance(
        job=job.to_dict(),
        versions=versions,
        scenes=tuple(sorted(scenes.values(), key=lambda scene: (scene[1], scene[0]))),
        estimates=[json.loads(storage.read(path)) for path in estimates],
    )


def _versions() -> dict[str, str]:
    """Of what computes here."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import earthmap

    found = {"earthmap": earthmap.__version__, "python": platform.python_version()}
    for name in ("ray", "numpy", "rasterio", "shapely", "torch", "transformers"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
