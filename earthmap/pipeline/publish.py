"""The run folder's files, from what the cells came to. Written in order, each whole; `run.json` follows them."""

from __future__ import annotations

import datetime
import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.catalog import Observation
from earthmap.cube import find_cell, open_cell
from earthmap.grid import AreaOfInterest, Cell
from earthmap.merge import CellMerge, cell_codes, counted_pixels, join, summarize
from earthmap.outputs import (
    Backdrop,
    class_cog,
    geoparquet_bytes,
    mosaic_backdrop,
    pole_in,
    render_preview,
    render_report,
    result_item,
)
from earthmap.pipeline.context import failed_path
from earthmap.pipeline.folder import (
    CLASSES_PATH,
    COVERAGE_PATH,
    FEATURES_PATH,
    ITEM_PATH,
    LEDGER_PATH,
    PREVIEW_PATH,
    REPORT_PATH,
    SUMMARY_PATH,
    Run,
)
from earthmap.pipeline.job import Job
from earthmap.pipeline.plan import CellWork, Plan, answered_work, cell_reads, read_plan
from earthmap.pipeline.schema import ledger_schema
from earthmap.pipeline.stages import read_part
from earthmap.sensors import SENSORS, Reason, default_view, make_view
from earthmap.storage import Storage
from earthmap.tasks import TASKS, UNSEEN, mask_legend

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

MAX_BACKDROPS = 8
"""Observations shown behind the results: the first, the last, and those between at even steps."""

MAX_BACKDROP_CELLS = 400
"""Cells shown of one observation; a run of more has no pictures behind its results."""

BACKDROP_PX = 1400
"""Longer side of a backdrop, about."""


def publish(storage: Storage, *, job: Job, plan: Plan, merges: Sequence[CellMerge], ledger: pa.Table) -> None:
    """Join the cells and write every file of the run folder but `run.json`.

    Args:
        storage: the run folder.
        job: what was asked.
        plan: what was planned.
        merges: every cell, in any order.
        ledger: one row (`ledger_schema`) for each planned tile, query and observation, in any order.
    """
    queries = {query.content_key(): query for query in job.queries}
    merged = join(merges, area=job.area, queries=queries)
    summary = summarize(merged.rows, area=job.area, queries=queries)
    storage.write(FEATURES_PATH, geoparquet_bytes(merged.features))
    storage.write(COVERAGE_PATH, geoparquet_bytes(merged.coverage))
    storage.write(LEDGER_PATH, _ledger_bytes(ledger))
    rasters = _write_classes(storage, job, ledger)
    storage.write(SUMMARY_PATH, _json(summary))
    works = list(answered_work(plan, ledger))
    storage.write(ITEM_PATH, _json(_item(job, _names(works, plan), summary, rasters)))
    _write_pages(storage, job, plan, works, summary=summary, frames=(merged.features, merged.coverage))


def publish_report(run: Run) -> None:
    """Write `report.html` and `preview.png` of a finished run again.

    Raises:
        StorageError: where the folder cannot be read or written.
    """
    plan = read_plan(run.storage)
    if plan is not None:
        works = list(answered_work(plan, _read_ledger(run.storage)))
        _write_pages(run.storage, run.job, plan, works, summary=run.summary, frames=(run.features, run.coverage))


def _names(works: Sequence[CellWork], plan: Plan) -> list[Observation]:
    """The observations that questions look at, in order of time."""
    names = {name for work in works for question in work.questions for name in question.observations}
    return sorted((plan.observations[name] for name in names), key=lambda one: (one.datetime, one.id))


def _ledger_bytes(table: pa.Table) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    order = [(name, "ascending") for name in ("cell_id", "tile_id", "query", "observation")]
    sink = pa.BufferOutputStream()
    pq.write_table(table.cast(ledger_schema()).sort_by(order), sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def _read_ledger(storage: Storage) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pq.read_table(pa.BufferReader(storage.read(LEDGER_PATH)))


def _json(content: Any) -> bytes:
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False).encode()


# ── class rasters ────────────────────────────────────────────────────────────────────────────────────────────


def _write_classes(storage: Storage, job: Job, ledger: pa.Table) -> dict[str, str]:
    """One raster for each question with masks, observation and zone; their titles by path."""
    store = Storage(job.store)
    titles: dict[str, str] = {}
    parts = ledger.select(["query", "observation", "cell_id", "part"]).group_by(
        ["query", "observation", "cell_id", "part"]
    )
    grouped: dict[tuple[str, str, str], dict[Cell, str]] = {}
    for row in parts.aggregate([]).to_pylist():
        if row["part"] is not None:
            cell = Cell.parse(row["cell_id"])
            grouped.setdefault((row["query"], row["observation"], cell.zone.id), {})[cell] = row["part"]
    for number, query in enumerate(job.queries, 1):
        if TASKS[query.task].merge != "polygons":
            continue
        for (key, observation, zone), paths in sorted(grouped.items(), key=lambda item: item[0]):
            if key == query.content_key():
                name = f"{CLASSES_PATH}/{number}_{_slug(query.text)}_{observation}_{zone}.tif"
                _write_raster(storage, name, store, paths, job.area, mask_legend(query))
                titles[name] = f"{query.text} ({observation}, zone {zone})"
    return titles


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "question"


def _write_raster(
    storage: Storage, name: str, store: Storage, paths: Mapping[Cell, str], area: AreaOfInterest, legend: dict[int, str]
) -> None:
    cells = sorted(paths, key=lambda cell: (-cell.row, cell.column))
    with tempfile.TemporaryDirectory(prefix="earthmap-") as folder:
        local = Path(folder) / "classes.tif"
        class_cog(cells, partial(_codes, store, paths, area), legend=legend, path=local)
        storage.write(name, local.read_bytes())


def _codes(store: Storage, paths: Mapping[Cell, str], area: AreaOfInterest, cell: Cell) -> NDArray[np.uint8]:
    table = read_part(store, paths[cell])
    masks = dict(zip(table["tile_id"].to_pylist(), table["mask"].to_pylist(), strict=True))
    return np.where(counted_pixels(cell, area), cell_codes(cell, masks), np.uint8(UNSEEN))


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
    for number, (path, title) in enumerate(rasters.items(), 1):
        assets[f"classes_{number}"] = (path, _COG, ["data"], title)
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
    storage: Storage,
    job: Job,
    plan: Plan,
    works: Sequence[CellWork],
    *,
    summary: Mapping[str, Any],
    frames: tuple[Any, Any],
) -> None:
    import earthmap

    features, coverage = frames[0], _by_layer(frames[1], summary)
    backdrops = list(_backdrops(plan, works, Storage(job.store), pole_in(coverage)))
    more = len(job.queries) - 1
    title = job.queries[0].text + (f" (and {more} more question{'s' * (more > 1)})" if more else "")
    page = render_report(
        features,
        coverage,
        summary,
        backdrops=backdrops,
        job=job.to_dict(),
        versions={"earthmap": earthmap.__version__},
        title=title,
    )
    storage.write(REPORT_PATH, page.encode())
    storage.write(PREVIEW_PATH, render_preview(features, coverage, summary, backdrops=backdrops, title=title))


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


def _backdrops(plan: Plan, works: Sequence[CellWork], store: Storage, pole: float | None) -> Iterator[Backdrop]:
    """What the observations look like, for at most MAX_BACKDROPS of them."""
    members: dict[str, list[str]] = {}
    for work in works:
        for name, read in cell_reads(work, plan.observations).items():
            members.setdefault(name, []).append(read.path)
    ordered = sorted(members, key=lambda name: (plan.observations[name].datetime, name))
    steps = {round(step) for step in np.linspace(0, len(ordered) - 1, MAX_BACKDROPS).tolist()} if ordered else set()
    for name in (ordered[step] for step in sorted(steps)):
        if len(members[name]) <= MAX_BACKDROP_CELLS:
            observation = plan.observations[name]
            step = max(1, round(np.sqrt(len(members[name])) * plan.grid.cell_core_px / BACKDROP_PX))
            pictures = list(_pictures(store, members[name], step))
            if pictures:
                title = f"{observation.datetime:%Y-%m-%d} {observation.sensor}"
                yield mosaic_backdrop(
                    pictures, title=title, datetime=observation.datetime, sensor=observation.sensor, pole=pole
                )


def _pictures(store: Storage, paths: Iterable[str], step: int) -> Iterator[tuple[Any, Any, Any]]:
    """(rgb, valid, geobox) of each cell's core, every `step`-th pixel."""
    from affine import Affine
    from odc.geo.geobox import GeoBox

    for path in paths:
        found = next((p for p in (path, *_failed_paths(store, path)) if find_cell(store, p) is not None), None)
        if found is None:
            continue
        group = open_cell(store, found)
        halo, cell = group.manifest.cell.grid.halo_px, group.manifest.cell
        data, mask = group.read()
        inner = (slice(halo, -halo, step), slice(halo, -halo, step))
        small, reasons = data[(slice(None), *inner)], mask[inner]
        view = default_view(group.manifest.sensor, group.manifest.bands)
        rgb = make_view(view, group.manifest.bands, small, reasons)
        if SENSORS[group.manifest.sensor].is_sar:
            rgb = np.repeat(rgb[..., :1], 3, axis=-1)  # people read radar in grey; the model sees all three channels
        geobox = GeoBox(reasons.shape, cell.core_geobox.affine @ Affine.scale(step), cell.core_geobox.crs)
        yield rgb, reasons != int(Reason.NODATA), geobox


def _failed_paths(store: Storage, path: str) -> list[str]:
    """The groups of `path` that were read with failures, latest execution first."""
    folder, _, name = path.rpartition("/")
    found = {entry.split("/")[len(folder.split("/"))] for entry in store.list(folder)}
    numbers = [int(entry.rpartition("~x")[2]) for entry in found if entry.startswith(f"{name}~x")]
    return [failed_path(path, number) for number in sorted(numbers, reverse=True)]
