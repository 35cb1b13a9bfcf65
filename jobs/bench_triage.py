"""What the coarse pass saves, and what it misses: cells with rare targets, asked with it and without, side by side.

    python jobs/bench_triage.py                                        # oracle and spectral, two minutes
    python jobs/bench_triage.py --predictors vlm --cells 1 --scales 2 4

A drawn valley is read once; what is timed is the predicting of each cell, in processor time, without an audit but for
2 % of the tiles (an audit of 150 tiles is most of so small a run). A tile with a target is missed where the full pass
finds one and the coarse pass skipped it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

QUESTIONS = {"oracle": "Find the ships", "spectral": "Where is snow?", "vlm": "Is there any burnt ground?"}
AUDIT = int(0.02 * 2**64)
"""A tile of the audit draws less."""


def draw(folder: Path, *, cells: int, picture_px: int) -> tuple[Any, Path]:
    """A world that holds a square of so many whole cells, with few ships on its river, and its catalogue."""
    from earthmap.grid import Grid
    from earthmap.synthetic import small_world, write_world

    side = Grid(resolution_m=10.0, picture_px=picture_px).cell_core_px * 10.0 * (int(cells**0.5) + 1.1)
    world = small_world(5, place=(3.0, 45.7), size_m=side, cloud_share=0.0, ships=0.1)
    return world, write_world(world, folder, sensors=("sentinel-2",))


def ground(world: Any, *, cells: int, picture_px: int) -> dict[str, Any]:
    """The square of whole cells."""
    import math

    import shapely

    from earthmap.grid import AreaOfInterest, Grid

    cell_m = Grid(resolution_m=10.0, picture_px=picture_px).cell_core_px * 10.0
    west, south = (math.ceil(edge / cell_m) * cell_m for edge in world.bounds[:2])
    side = int(cells**0.5) * cell_m
    box = shapely.box(west + 30, south + 30, west + side - 30, south + side - 30)
    return AreaOfInterest.from_geometry(box, f"EPSG:{world.epsg}").to_geojson()


def job_of(world: Any, catalog: Path, predictor: str, *, cells: int, picture_px: int) -> Any:
    """The job that asks the predictor's question of the square."""
    from earthmap.pipeline import parse_job

    values = {
        "area": ground(world, cells=cells, picture_px=picture_px), "catalog": str(catalog),
        "queries": [QUESTIONS[predictor]], "predictor": predictor, "tile_size": picture_px, "scenes": "latest",
        "out": "unused",
    }  # fmt: skip
    return parse_job(values)


def context_of(job: Any, plan: Any, store: str) -> Any:
    """What the stages need, without triage."""
    from earthmap.cube import RasterioReader
    from earthmap.pipeline.context import Context
    from earthmap.pipeline.run import predictor_spec
    from earthmap.storage import Storage

    return Context(
        store=Storage(store),
        execution=1,
        job=job.content_key(),
        area=job.area,
        queries={query.content_key(): query for query in job.queries},
        observations=plan.observations,
        predictor=predictor_spec(job, plan),
        reader=RasterioReader(),
    )


def triages(job: Any, scales: Sequence[int], threshold: float) -> Iterator[tuple[str, Any]]:
    """None, and a coarse pass of each scale, with their names."""
    from earthmap.pipeline.triage import CoarsePass, Triage

    yield "none", Triage()
    for scale in scales:
        audited = {query.content_key(): AUDIT for query in job.queries}
        yield f"1/{scale}", Triage(coarse=CoarsePass(scale=scale, threshold=threshold, audited=audited))


def asked(works: Sequence[tuple[Any, Mapping[str, str]]], context: Any) -> tuple[float, dict[str, dict[str, Any]]]:
    """Processor seconds of predicting all cells, and the answers by tile."""
    from earthmap.pipeline.stages import gather, predict_stage

    seconds, rows = 0.0, {}
    for work, groups in works:
        started = time.process_time()
        parts = predict_stage(work, groups, context)
        seconds += time.process_time() - started
        rows.update({row["tile_id"]: row for row in gather(work, parts, context).to_pylist()})
    return seconds, rows


def warm_up(work: tuple[Any, Mapping[str, str]], context: Any, query: Any) -> None:
    """Ask one tile, so that loading the predictor is in no figure."""
    from earthmap.cube import open_cell
    from earthmap.predict import TileInput, build_predictor

    tile = work[0].cell.tiles()[0]
    picture = open_cell(context.store, next(iter(work[1].values()))).picture(tile)
    build_predictor(context.predictor).predict([TileInput(tile=tile, pictures=(picture,))], [query])


def measure(
    predictor: str, *, cells: int, picture_px: int, scales: Sequence[int], threshold: float
) -> list[dict[str, Any]]:  # fmt: skip
    """One row without a coarse pass and one with each scale."""
    import dataclasses

    from earthmap.merge.triaged import holds_target
    from earthmap.pipeline import make_plan
    from earthmap.pipeline.reading import read_work

    with tempfile.TemporaryDirectory(prefix="earthmap-bench-") as scratch:
        world, catalog = draw(Path(scratch) / "scenes", cells=cells, picture_px=picture_px)
        job = job_of(world, catalog, predictor, cells=cells, picture_px=picture_px)
        plan = make_plan(job)
        context = context_of(job, plan, str(Path(scratch) / "store"))
        works = [
            (work, {name: one.path for name, one in read_work(work, context).items()}) for work in plan.work()
        ]  # fmt: skip
        warm_up(works[0], context, job.queries[0])
        task, found, full = job.queries[0].task, [], set[str]()
        for name, triage in triages(job, scales, threshold):
            seconds, rows = asked(works, dataclasses.replace(context, triage=triage))
            full = full or {tile for tile, row in rows.items() if holds_target(row, task)}
            skipped = {tile for tile, row in rows.items() if row["reason"] == "triage"}
            found.append(
                {
                    "predictor": predictor, "triage": name, "tiles": len(rows), "with_target": len(full),
                    "asked": sum(row["status"] == "answered" for row in rows.values()), "skipped": len(skipped),
                    "missed": len(full & skipped), "seconds": round(seconds, 2),
                }
            )  # fmt: skip
        return found


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows for people."""
    names = ("predictor", "triage", "tiles", "with_target", "asked", "skipped", "missed", "seconds")
    lines = [f"| {' | '.join(names).replace('_', ' ')} |", "|---" * len(names) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(str(row[name]) for name in names)} |" for row in rows)])


def main() -> None:
    """Print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictors", nargs="+", choices=list(QUESTIONS), default=["oracle", "spectral"])
    parser.add_argument("--cells", type=int, default=9)
    parser.add_argument("--tile-size", type=int, choices=[448, 224, 128], default=128)
    parser.add_argument("--scales", type=int, nargs="+", choices=[2, 4], default=[2, 4])
    parser.add_argument("--threshold", type=float, default=0.1)
    options = parser.parse_args()
    how = {"cells": options.cells, "picture_px": options.tile_size, "threshold": options.threshold}
    rows = [row for name in options.predictors for row in measure(name, scales=options.scales, **how)]
    print(table(rows))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
