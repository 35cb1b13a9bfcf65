"""Results of a drawn world as a run would hand them over: features, coverage, summary and backdrops."""

from __future__ import annotations

import datetime as dt
from typing import Any

import geopandas
import numpy as np
import pandas
import rasterio.features
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from earthmap.outputs.backdrop import Backdrop, warp_backdrop
from earthmap.synthetic import World, small_world, truth_on

FEATURE_COLUMNS = [
    "geometry", "query", "query_key", "task", "answer", "probability", "fraction", "area_m2", "tile_ids", "scenes",
    "datetime_min", "datetime_max", "sensor", "predictor", "notes",
]  # fmt: skip
COVERAGE_COLUMNS = [
    "geometry", "tile_id", "query_key", "observation", "status", "stage", "reason", "message", "address",
    "seen_share", "area_km2", "seen_km2", "datetime_min", "datetime_max", "sensor", "scenes",
]  # fmt: skip
SENSOR = "sentinel-2-l2a"
TILE_PX = 60
PAINT = np.array(
    [(0, 0, 0), (38, 66, 78), (84, 112, 62), (176, 154, 118), (150, 140, 136), (240, 244, 248), (58, 46, 40)], float
)


def world_and_lattice(**options: Any) -> tuple[World, GeoBox]:
    world = small_world(seed=3, size_m=6000.0, **options)
    west, _, east, north = world.bounds
    side = round((east - west) / 10.0)
    return world, GeoBox((side, side), Affine(10, 0, west, 0, -10, north), f"EPSG:{world.epsg}")


def degrees(geometry: Any, lattice: GeoBox) -> Any:
    there = Transformer.from_crs(str(lattice.crs), "EPSG:4326", always_xy=True)
    return shapely.transform(geometry, there.transform, interleaved=False)


def picture(classes: Any, lattice: GeoBox, date: dt.datetime) -> Backdrop:
    noise = np.random.default_rng(7).normal(0, 7, (*classes.shape, 1))
    rgb = np.clip(PAINT[np.where(classes > 6, 0, classes)] + noise, 0, 255).astype(np.uint8)
    return warp_backdrop(rgb, lattice, title=f"{SENSOR}, {date:%Y-%m-%d}", datetime=date, sensor=SENSOR, max_px=900)


def polygons(mask: Any, lattice: GeoBox) -> list[tuple[Any, float]]:
    shapes = rasterio.features.shapes(mask.astype(np.uint8), mask=mask, transform=lattice.affine)
    plain = [shapely.geometry.shape(shape) for shape, _ in shapes]
    return [(degrees(shape, lattice), shape.area) for shape in plain]


def observation(date: dt.datetime) -> str:
    return f"{SENSOR}_{date:%Y%m%dT%H%M%S}_0a1b2c3d"


def feature(geometry: Any, **values: Any) -> dict[str, Any]:
    row = dict.fromkeys(FEATURE_COLUMNS)
    row.update(
        geometry=geometry, tile_ids=["g15-31N-10-384-1-2"], sensor=SENSOR, predictor="spectral", notes=[], **values
    )
    return row


def frame(rows: list[dict[str, Any]], columns: list[str]) -> geopandas.GeoDataFrame:
    data = pandas.DataFrame(rows, columns=columns)
    for name in ("datetime_min", "datetime_max"):
        data[name] = pandas.to_datetime(data[name], utc=True)
    for name in ("probability", "fraction", "area_m2"):
        if name in data:
            data[name] = data[name].astype(float)
    return geopandas.GeoDataFrame(data, geometry="geometry", crs="EPSG:4326")


def squares(lattice: GeoBox) -> list[tuple[slice, slice, Any]]:
    rows, columns = lattice.shape
    found = []
    for top in range(0, rows, TILE_PX):
        for left in range(0, columns, TILE_PX):
            (west, north), (east, south) = (
                lattice.affine @ (left, top),
                lattice.affine @ (min(columns, left + TILE_PX), min(rows, top + TILE_PX)),
            )
            box = degrees(shapely.segmentize(shapely.box(west, south, east, north), 200.0), lattice)
            found.append((slice(top, top + TILE_PX), slice(left, left + TILE_PX), box))
    return found


def coverage_rows(lattice: GeoBox, key: str, name: str, date: dt.datetime) -> list[dict[str, Any]]:
    rows = []
    for number, (_, _, box) in enumerate(squares(lattice)):
        row = dict.fromkeys(COVERAGE_COLUMNS)
        status = {7: "skipped", 8: "skipped", 31: "failed"}.get(number, "answered")
        row.update(
            geometry=box, tile_id=f"g15-31N-10-384-{number}", query_key=key, observation=name, status=status,
            area_km2=0.36, seen_km2=0.36 if status == "answered" else 0.0, datetime_min=date, datetime_max=date,
            sensor=SENSOR, scenes=[f"S2A_{date:%Y%m%d}"],
        )  # fmt: skip
        if status != "answered":
            row.update(reason="cloud" if status == "skipped" else "damaged", message="98 % of it lies under cloud")
        rows.append(row)
    return rows


def numbers_of(name: str, start: dt.datetime, end: dt.datetime, km2: dict[str, float]) -> dict[str, Any]:
    seen = 34.9
    return {
        "observation": name, "sensor": SENSOR, "datetime_min": start.isoformat(), "datetime_max": end.isoformat(),
        "planned": 100, "answered": 97, "area_km2": 36.0, "seen_km2": seen, "km2": km2,
        "notes": [], "skipped": {"cloud": 2}, "failed": {"damaged": 1},
    }  # fmt: skip


def summary_of(queries: list[dict[str, Any]], observations: int) -> dict[str, Any]:
    return {
        "planned": 100 * observations, "answered": 97 * observations, "skipped": {"cloud": 2 * observations},
        "failed": {"damaged": observations}, "area_km2": 36.0, "seen_km2": 35.4, "queries": queries,
    }  # fmt: skip


def water_results(dates: int = 1, *, text: str = "Where is water?") -> tuple[Any, Any, dict[str, Any], list[Backdrop]]:
    """Where is water, on `dates` dates (the flood at the end of two, a lake that shrinks over more)."""
    world, lattice = world_and_lattice()
    features, coverage, seen, backdrops = [], [], [], []
    for number in range(dates):
        date = (
            (world.before, world.after)[number]
            if dates < 3
            else dt.datetime(1986 + 5 * number, 7, 3, 10, 5, tzinfo=dt.UTC)
        )
        truth = truth_on(world, lattice, world.after if dates < 3 and number else world.before)
        if dates > 2:
            truth = np.where(np.arange(truth.shape[0])[:, None] < 60 * number, np.where(truth == 1, 3, truth), truth)
        shapes = polygons(truth == 1, lattice)
        features += [
            feature(
                shape, query=text, query_key="q1", task="segment", answer="water", area_m2=area,
                scenes=[f"S2A_{date:%Y%m%d}"], datetime_min=date, datetime_max=date,
            )
            for shape, area in shapes
        ]  # fmt: skip
        coverage += coverage_rows(lattice, "q1", observation(date), date)
        seen.append(numbers_of(observation(date), date, date, {"water": sum(area for _, area in shapes) / 1e6}))
        backdrops.append(picture(truth, lattice, date))
    query = {"query_key": "q1", "text": text, "task": "segment", "targets": ["water"], "observations": seen}
    return frame(features, FEATURE_COLUMNS), frame(coverage, COVERAGE_COLUMNS), summary_of([query], dates), backdrops


def change_results() -> tuple[Any, Any, dict[str, Any], list[Backdrop]]:
    """Where did water appear or vanish between two dates; some of it is drawn as lost."""
    world, lattice = world_and_lattice()
    before, after = truth_on(world, lattice, world.before), truth_on(world, lattice, world.after)
    lost = (before == 1) & (np.arange(before.shape[1])[None, :] > 400)
    name = f"{observation(world.before)}..{observation(world.after)}"
    features, km2 = [], {}
    for answer, mask in (("water gained", (after == 1) & (before != 1)), ("water lost", lost)):
        shapes = polygons(mask, lattice)
        km2[answer] = sum(area for _, area in shapes) / 1e6
        features += [
            feature(
                shape, query="Where did water appear?", query_key="q2", task="change", answer=answer, area_m2=area,
                scenes=["a", "b"], datetime_min=world.before, datetime_max=world.after,
            )
            for shape, area in shapes
        ]  # fmt: skip
    coverage = coverage_rows(lattice, "q2", name, world.after)
    query = {
        "query_key": "q2", "text": "Where did water appear?", "task": "change", "targets": ["water"],
        "observations": [numbers_of(name, world.before, world.after, km2)],
    }  # fmt: skip
    pictures = [picture(before, lattice, world.before), picture(after, lattice, world.after)]
    return frame(features, FEATURE_COLUMNS), frame(coverage, COVERAGE_COLUMNS), summary_of([query], 1), pictures


def presence_results() -> tuple[Any, Any, dict[str, Any], list[Backdrop]]:
    """Is there any snow, and how much is vegetation: tile squares."""
    world, lattice = world_and_lattice()
    date, truth = world.before, truth_on(*world_and_lattice(), world.before)
    features, yes = [], 0
    shared = {"scenes": ["a"], "datetime_min": date, "datetime_max": date}
    for down, across, box in squares(lattice):
        core = truth[down, across]
        there, share = bool((core == 5).any()), float((core == 2).mean())
        yes += there
        features.append(
            feature(box, query="Is there any snow?", query_key="q3", task="presence", area_m2=3.6e5,
                    answer="yes" if there else "no", **shared)
        )  # fmt: skip
        features.append(
            feature(box, query="How much is vegetation?", query_key="q4", task="fraction", area_m2=3.6e5,
                    answer=f"{share:.4f}", fraction=share, **shared)
        )  # fmt: skip
    row = numbers_of(observation(date), date, date, {})
    snow = {**row, "yes_tiles": yes, "answered_tiles": 97}
    queries = [
        {"query_key": "q3", "text": "Is there any snow?", "task": "presence", "targets": ["snow"],
         "observations": [snow]},
        {"query_key": "q4", "text": "How much is vegetation?", "task": "fraction", "targets": ["vegetation"],
         "observations": [{**row, "mean_fraction": 0.41}]},
    ]  # fmt: skip
    coverage = coverage_rows(lattice, "q3", observation(date), date)
    return (
        frame(features, FEATURE_COLUMNS),
        frame(coverage, COVERAGE_COLUMNS),
        summary_of(queries, 2),
        [picture(truth, lattice, date)],
    )
