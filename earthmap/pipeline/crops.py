"""What footprints looked like before and after: small pictures around each, from the cube.

The worst are shown on the page and kept in the run folder; the rule is fixed, so that nobody picks: by grade, then the
surest, then by number.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from earthmap.errors import JobError, RunFolderError
from earthmap.grid import Tile, lonlat_to_pixel
from earthmap.outputs.evidence import Evidence, crop_png
from earthmap.outputs.numbers import date_label, format_share, parse_time
from earthmap.pipeline.evidence import open_observed, rgb_view
from earthmap.pipeline.plan import read_plan
from earthmap.storage import Storage
from earthmap.tasks.damage import EMS_GRADES

if TYPE_CHECKING:
    import geopandas
    from numpy.typing import NDArray

    from earthmap.catalog import Observation
    from earthmap.pipeline.folder import Run
    from earthmap.pipeline.plan import Plan

CROPS_PATH = "crops"
"""Folder of the run with pictures of the worst damaged."""

INDEX = "index.json"
"""What the pictures of a folder are of, written last."""

SHOWN, KEPT = 8, 48
"""Footprints on the page, and in the folder."""

TILES = 64
"""Pictures of tiles that are kept for further footprints."""

MARGIN = 0.75
"""Ground around a footprint, as a share of its longer side; at least MARGIN_PX."""

MARGIN_PX = 12


def is_graded(features: geopandas.GeoDataFrame) -> NDArray[np.bool_]:
    """(n,) True for footprints that have a grade."""
    graded: NDArray[np.bool_] = (features["task"] == "damage").to_numpy() & features["grade_xbd"].notna().to_numpy()
    return graded


def worst_first(features: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    """The footprints with a grade, the worst first."""
    own = features[is_graded(features)]
    order = sorted(
        range(len(own)),
        key=lambda row: (
            EMS_GRADES.index(str(own["answer"].iloc[row])),
            -_number(own["probability"].iloc[row]),
            int(own["footprint"].iloc[row]),
            str(own["query_key"].iloc[row]),
        ),
    )
    return own.iloc[order]


def _number(value: Any) -> float:
    return float(value) if value == value and value is not None else 0.0


def crops_of(features: geopandas.GeoDataFrame, *, plan: Plan, store: Storage) -> Iterator[Evidence]:
    """Each of these footprints before and after, with its outline; without pictures where the cube has none."""

    @functools.lru_cache(maxsize=TILES)
    def seen(tile: Tile, name: str) -> NDArray[np.uint8] | None:
        return _seen(store, tile, plan.observations[name])

    for _, row in features.iterrows():
        tile = Tile.parse(next(iter(row["tile_ids"])))
        whole = [seen(tile, name) for name in _observations(row, plan)]
        pictures, outlines = _cut(tile, row["geometry"], [rgb for rgb in whole if rgb is not None])
        yield Evidence(
            group="The worst damaged, before and after",
            title=f"{row['answer']} (xBD {row['grade_xbd']})",
            lines=_lines(row),
            rgb=tuple(pictures),
            outlines=tuple(outlines) if pictures else (),
        )


def _lines(row: Mapping[str, Any]) -> tuple[str, ...]:
    start, end = parse_time(row["datetime_min"]), parse_time(row["datetime_max"])
    sure = row["probability"]
    return (
        f"footprint {row['id']}",
        f"{date_label(start, end, pair=True)} · {row['sensor']}",
        *([f"probability {format_share(float(sure))}"] if sure == sure and sure is not None else []),
    )


def write_crops(features: geopandas.GeoDataFrame, *, plan: Plan, store: Storage, out: Storage, folder: str) -> int:
    """Write a PNG of each of these footprints, before on the left, with an index beside them; returns how many.

    `folder` is where in `out`, empty for itself. Names are the number of the row and the id.
    """
    index: dict[int, dict[str, Any]] = {}
    order = sorted(range(len(features)), key=lambda place: str(next(iter(features["tile_ids"].iloc[place]), "")))
    crops = crops_of(features.iloc[order], plan=plan, store=store)
    for place, crop in zip(order, crops, strict=True):
        row = features.iloc[place]
        if crop.rgb:
            name = f"{int(row['footprint']):06d}_{_plain(str(row['id']))}.png"
            out.write(_inside(folder, name), crop_png(crop))
            said = {key: row[key] for key in ("id", "answer", "grade_xbd", "probability", "query_key")}
            index[place] = {"file": name, "footprint": int(row["footprint"]), **said}
    if index:
        out.write(_inside(folder, INDEX), json.dumps([index[place] for place in sorted(index)], indent=1).encode())
    return len(index)


def export_crops(run: Run, *, out: str | None = None, overwrite: bool = False) -> tuple[str, int]:
    """Write pictures of all footprints of a run that have a grade; returns the folder's address, and how many.

    Args:
        run: a finished run that graded footprints.
        out: folder or s3:// address; None for `crops` in the run folder.
        overwrite: whether pictures that are there are replaced.

    Raises:
        JobError: where the run graded none.
        RunFolderError: where pictures are there already.
        StorageError: where nothing can be read or written.
    """
    plan, features = read_plan(run.storage), run.features
    worst = worst_first(features)
    if plan is None or not len(worst):
        raise JobError(
            f"{run.address} has no graded footprint",
            expected="a run of a question about damage",
            fix="see docs/damage.md",
        )
    target, folder = (run.storage, CROPS_PATH) if out is None else (Storage(out), "")
    if not overwrite and target.exists(_inside(folder, INDEX)):
        raise RunFolderError(
            f"{target.locate(_inside(folder, INDEX))} is there already",
            fix="name another folder with --out, or say --overwrite",
        )
    count = write_crops(worst, plan=plan, store=Storage(run.job.store), out=target, folder=folder)
    return (target.locate(folder) if folder else target.address), count


def _inside(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip(".-")[:60] or "id"


# ── from the cube ────────────────────────────────────────────────────────────────────────────────────────────


def _seen(store: Storage, tile: Tile, observation: Observation) -> NDArray[np.uint8] | None:
    """(y, x, 3) what an observation shows of a tile's picture; None where the cube does not have it."""
    group = open_observed(store, tile.cell, observation)
    if group is None or any(failure.tile_id == tile.id for failure in group.manifest.failures):
        return None
    picture = group.picture(tile)
    rgb: NDArray[np.uint8] = rgb_view(picture.sensor, picture.bands, picture.data, picture.mask)
    return rgb


def _cut(
    tile: Tile, geometry: Any, whole: Sequence[NDArray[np.uint8]]
) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.float64]]]:
    """The part of each picture around a footprint, and the footprint's rings in their columns and rows."""
    places = _pixels(tile, shapely.make_valid(geometry))
    frame = _frame(places, tile.grid.picture_px)
    corner = np.array([frame[1].start, frame[0].start], float)
    rings = [shapely.get_coordinates(ring) - corner for ring in shapely.get_rings(shapely.get_parts(places))]
    return [rgb[frame] for rgb in whole], rings


def _observations(row: Mapping[str, Any], plan: Plan) -> Sequence[str]:
    """Names of the first and the last of the observations that a row's scenes are of."""
    scenes = set(row["scenes"])
    own = [(one.datetime, name) for name, one in plan.observations.items() if scenes & {s.id for s in one.scenes}]
    dates = [name for _, name in sorted(own)]
    return [dates[0], dates[-1]] if len(dates) > 1 else dates


def _pixels(tile: Tile, geometry: Any) -> Any:
    """A geometry in EPSG:4326 in columns and rows of the tile's picture."""

    def placed(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        rows, columns = lonlat_to_pixel(tile.geobox, xy[:, 0], xy[:, 1])
        return np.column_stack([columns, rows])

    return shapely.transform(geometry, placed)


def _frame(places: Any, side: int) -> tuple[slice, slice]:
    """Rows and columns of a square around a shape, inside the picture."""
    left, top, right, bottom = places.bounds
    longer = max(right - left, bottom - top)
    size = min(side, int(np.ceil(longer + 2.0 * max(MARGIN * longer, MARGIN_PX))))
    row, column = (
        int(np.clip(np.floor((low + high) / 2 - size / 2), 0, side - size))
        for low, high in ((top, bottom), (left, right))
    )
    return slice(row, row + size), slice(column, column + size)


def without_footprints(features: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    """The other features."""
    return features[(features["task"] != "damage").to_numpy()]
