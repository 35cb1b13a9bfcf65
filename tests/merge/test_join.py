"""What the merge must hold: the same map for any order and any tiling, and the truth of a mask that was drawn."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from earthmap.errors import StorageError
from earthmap.grid import AreaOfInterest, Cell, Grid, from_lonlat, touched
from earthmap.merge import CellMerge, Joining, Sums, areas_m2, merge_cell, summarize
from earthmap.merge.components import Components
from earthmap.pipeline.merged import MergedCells
from earthmap.storage import Storage
from earthmap.tasks import UNSEEN, answer_schema, encode_mask, make_query
from tests.merge.maps import Merged, joined

QUERY = make_query("Where is water?")
QUERIES = {QUERY.content_key(): QUERY}
NOON = datetime.datetime(2024, 6, 1, 12, tzinfo=datetime.UTC)


class Field:
    """A drawn mask in one zone's CRS, defined at every point, so that any lattice can be cut from it."""

    def __init__(self, seed: int, *, epsg: int, bounds: tuple[float, float, float, float], resolution_m: float) -> None:
        west, south, east, north = bounds
        shape = (round((north - south) / resolution_m), round((east - west) / resolution_m))
        noise = np.random.default_rng(seed).standard_normal(shape)
        self.mask = gaussian_filter(noise, 3) > 0.02
        self.epsg, self.bounds, self.resolution_m = epsg, bounds, resolution_m

    def codes(self, cell: Cell) -> np.ndarray:
        """(cell_core_px)² codes: 1 inside the mask, 0 outside, by pixel of the same lattice."""
        box = cell.core_geobox
        columns = np.floor((box.affine.c - self.bounds[0]) / self.resolution_m + np.arange(box.shape[1]) + 0.5).astype(
            int
        )
        rows = np.floor((self.bounds[3] - box.affine.f) / self.resolution_m + np.arange(box.shape[0]) + 0.5).astype(int)
        codes = np.zeros(box.shape, np.uint8)
        inside_rows = (rows >= 0) & (rows < self.mask.shape[0])
        inside_columns = (columns >= 0) & (columns < self.mask.shape[1])
        codes[np.ix_(inside_rows, inside_columns)] = self.mask[np.ix_(rows[inside_rows], columns[inside_columns])]
        return codes


def rows_of(cell: Cell, codes: np.ndarray, tiles: int = 0xFFFF, **changes: Any) -> pa.Table:
    """Answer rows that say `codes` about the cell's tiles."""
    rows = []
    for bit, tile in enumerate(cell.tiles()):
        if tiles >> bit & 1:
            mask = np.ascontiguousarray(codes[tile.core_slices])
            row = {
                "cell_id": cell.id, "tile_id": tile.id, "query": QUERY.content_key(), "observation": "one",
                "datetime_min": NOON, "datetime_max": NOON, "sensor": "sentinel-2-l2a", "scenes": ["a"],
                "predictor": "oracle", "status": "answered", "value": "water", "probability": 1.0, "fraction": 0.5,
                "seen_px": int((mask != UNSEEN).sum()), "mask": encode_mask(mask), "legend": json.dumps({"1": "water"}),
                "notes": [],
            }  # fmt: skip
            rows.append({**row, **changes})
    return pa.Table.from_pylist(rows, schema=answer_schema())


def merged_cells(field: Field, area: AreaOfInterest, grid: Grid) -> list[CellMerge]:
    cells, bits = touched(area, grid)
    return [
        merge_cell(
            cell, rows_of(cell, field.codes(cell), int(tiles)), area=area, queries=QUERIES, tiles=int(tiles),
            by_observation=False,
        )
        for cell, tiles in zip(cells, bits, strict=True)
    ]  # fmt: skip


def mapped(field: Field, area: AreaOfInterest, picture_px: int) -> Merged:
    merges = merged_cells(field, area, Grid(resolution_m=field.resolution_m, picture_px=picture_px))
    return joined(merges, area=area, queries=QUERIES)


BOUNDS = (500_000.0, 5_000_000.0, 512_000.0, 5_009_000.0)
FIELD = Field(3, epsg=32631, bounds=BOUNDS, resolution_m=30.0)
AREA = AreaOfInterest.from_geometry(shapely.box(*BOUNDS).buffer(-400), "EPSG:32631")


@pytest.fixture(scope="module")
def cells() -> list[CellMerge]:
    return merged_cells(FIELD, AREA, Grid(resolution_m=30.0, picture_px=128))


@settings(max_examples=10)
@given(st.randoms(use_true_random=False))
def test_any_order_of_cells_gives_the_same_bytes(random: Any) -> None:
    merges = merged_cells(FIELD, AREA, Grid(resolution_m=30.0, picture_px=128))
    first = joined(merges, area=AREA, queries=QUERIES).features_bytes
    random.shuffle(merges)
    assert joined(merges, area=AREA, queries=QUERIES).features_bytes == first


@pytest.mark.parametrize("picture_px", [128, 224])
def test_any_tiling_gives_the_same_regions(picture_px: int) -> None:
    one, other = mapped(FIELD, AREA, 448).features, mapped(FIELD, AREA, picture_px).features
    assert len(one) > 20
    assert sorted(shapely.to_wkb(one.geometry)) == sorted(shapely.to_wkb(other.geometry))


def test_regions_are_those_of_the_whole_mask() -> None:
    from skimage.measure import label

    whole = AreaOfInterest.from_geometry(shapely.box(*BOUNDS).buffer(3000), "EPSG:32631")
    features = mapped(FIELD, whole, 128).features
    labels = label(FIELD.mask, connectivity=1)
    assert len(features) == labels.max()
    expected = np.sort(np.bincount(labels.ravel())[1:] * FIELD.resolution_m**2)
    # Ground is larger than the map near the central meridian: 1 / 0.9996².
    np.testing.assert_allclose(np.sort(features.area_m2) * 0.9996**2, expected, rtol=3e-4)


def test_features_do_not_overlap_and_lie_in_the_area(cells: list[CellMerge]) -> None:
    features = joined(cells, area=AREA, queries=QUERIES).features
    assert features.geometry.is_valid.all()
    union = shapely.union_all(features.geometry.to_numpy())
    assert union.area == pytest.approx(shapely.area(features.geometry.to_numpy()).sum(), rel=1e-9)
    assert shapely.difference(union, AREA.geometry).area < 1e-12


def test_numbers_are_those_of_the_pixels(cells: list[CellMerge]) -> None:
    merged = joined(cells, area=AREA, queries=QUERIES)
    summary = summarize(merged.sums, area=AREA, queries=QUERIES)
    (layer,) = summary["queries"][0]["observations"]
    assert layer["km2"]["water"] == pytest.approx(merged.features.area_m2.sum() / 1e6, rel=5e-3)
    assert layer["seen_km2"] == pytest.approx(AREA.area_km2, rel=5e-3)
    assert layer["bounds_km2"]["water"][0] == layer["km2"]["water"]


@pytest.mark.parametrize("longitude", [6.0, -180.0])
def test_a_lake_across_two_zones_is_one(longitude: float) -> None:
    """Each side is drawn on its own zone's lattice; the features meet on the meridian without gap or overlap."""
    west, east = longitude - 0.06, longitude + 0.06
    lake = shapely.Point(longitude, 45.0).buffer(0.03)
    area = AreaOfInterest.from_bbox(west if west >= -180 else west + 360, 44.95, east, 45.05)
    merges = []
    cells, bits = touched(area, Grid(resolution_m=30.0, picture_px=128))
    for cell, tiles in zip(cells, bits, strict=True):
        codes = _drawn(cell, lake, longitude)
        merges.append(
            merge_cell(
                cell,
                rows_of(cell, codes, int(tiles)),
                area=area,
                queries=QUERIES,
                tiles=int(tiles),
                by_observation=False,
            )
        )
    assert len({cell.zone for cell in cells}) == 2
    features = joined(merges, area=area, queries=QUERIES).features
    assert len(features) == 1
    expected = areas_m2(np.array([lake], object))[0]
    assert features.area_m2.iloc[0] == pytest.approx(expected, rel=0.01)
    if longitude == 6.0:
        assert features.geometry.iloc[0].geom_type == "Polygon"
    else:
        assert features.geometry.iloc[0].geom_type == "MultiPolygon"
        assert features.geometry.iloc[0].bounds[0] >= -180.0
        assert features.geometry.iloc[0].bounds[2] <= 180.0


def _drawn(cell: Cell, shape: Any, near: float) -> np.ndarray:
    from earthmap.grid import pixel_to_lonlat

    box = cell.core_geobox
    rows, columns = np.mgrid[: box.shape[0], : box.shape[1]]
    lon, lat = pixel_to_lonlat(box, rows.ravel() + 0.5, columns.ravel() + 0.5)
    lon = np.where(lon - near > 180, lon - 360, np.where(lon - near < -180, lon + 360, lon))
    return shapely.contains_xy(shape, lon, lat).reshape(box.shape).astype(np.uint8)


def test_a_corner_does_not_join() -> None:
    """4-connectivity across a seam as inside: regions that touch in a corner of two cells stay apart."""
    grid = Grid(resolution_m=30.0, picture_px=128)
    side = grid.cell_core_px
    here = touched(AREA, grid)[0][0]
    there = Cell(grid, here.zone, here.row, here.column + 1)
    corner = here.core_geobox.affine @ (side, 110)
    area = AreaOfInterest.from_geometry(shapely.Point(*corner).buffer(900), "EPSG:32631")
    cells, bits = touched(area, grid)
    assert set(cells) == {here, there}
    merges = []
    for cell, tiles in zip(cells, bits, strict=True):
        codes = np.zeros((side, side), np.uint8)
        if cell == here:
            codes[100:110, side - 10 :] = 1
        if cell == there:
            codes[110:120, :10] = 1
        merges.append(
            merge_cell(
                cell,
                rows_of(cell, codes, int(tiles)),
                area=area,
                queries=QUERIES,
                tiles=int(tiles),
                by_observation=False,
            )
        )
    assert len(joined(merges, area=area, queries=QUERIES).features) == 2


def test_holes_stay_holes() -> None:
    grid = Grid(resolution_m=30.0, picture_px=128)
    area = AreaOfInterest.from_geometry(shapely.box(*BOUNDS), "EPSG:32631")
    field = Field(0, epsg=32631, bounds=BOUNDS, resolution_m=30.0)
    field.mask[:] = False
    field.mask[50:250, 50:350] = True
    field.mask[100:200, 100:300] = False
    field.mask[140:160, 140:160] = True
    features = joined(merged_cells(field, area, grid), area=area, queries=QUERIES).features
    assert sorted(len(shape.interiors) for shape in features.geometry) == [0, 1]
    ring = features.geometry.iloc[int(np.argmax(features.area_m2))]
    planar = from_lonlat(ring, "EPSG:32631")
    assert planar.area == pytest.approx((200 * 300 - 100 * 200) * 900, rel=1e-4)


def test_unseen_and_failed_tiles_are_in_the_coverage_and_nowhere_else() -> None:
    grid = Grid(resolution_m=30.0, picture_px=128)
    cells, bits = touched(AREA, grid)
    merges = []
    for number, (cell, tiles) in enumerate(zip(cells, bits, strict=True)):
        changes: dict[str, Any] = {}
        if number == 0:
            changes = {
                "status": "failed", "mask": None, "legend": "{}", "seen_px": 0, "stage": "read", "reason": "damaged",
                "message": "it broke", "address": "a.tif",
            }  # fmt: skip
        table = rows_of(cell, np.ones((grid.cell_core_px,) * 2, np.uint8), int(tiles), **changes)
        merges.append(merge_cell(cell, table, area=AREA, queries=QUERIES, tiles=int(tiles), by_observation=False))
    merged = joined(merges, area=AREA, queries=QUERIES)
    failed = merged.coverage[merged.coverage.status == "failed"]
    assert len(failed) == int(bits[0]).bit_count()
    assert (failed.seen_km2 == 0).all()
    assert len(merged.coverage) == sum(int(tiles).bit_count() for tiles in bits)
    assert not merged.features.geometry.iloc[0].buffer(-1e-6).intersects(shapely.union_all(failed.geometry.to_numpy()))
    summary = summarize(merged.sums, area=AREA, queries=QUERIES)
    assert summary["failed"] == {"damaged": len(failed)}
    assert summary["planned"] == summary["answered"] + len(failed)


def test_areas_are_those_of_geod() -> None:
    from pyproj import Geod

    shapes = [shapely.box(10, 50, 10.01, 50.02), shapely.Point(-70, -33).buffer(0.05), shapely.box(179.9, 0, 180, 0.1)]
    shapes.append(shapely.Polygon(shapely.box(3, 3, 4, 4).exterior, [shapely.box(3.2, 3.2, 3.4, 3.4).exterior]))
    geod = Geod(ellps="WGS84")
    dense = [shapely.segmentize(shape, 0.001) for shape in shapes]
    expected = [abs(geod.geometry_area_perimeter(shapely.geometry.polygon.orient(shape))[0]) for shape in dense]
    np.testing.assert_allclose(areas_m2(np.array(shapes, object)), expected, rtol=1e-6)


# ── what is held, and where regions are finished ─────────────────────────────────────────────────────────────


def test_what_a_cell_finishes_is_what_joining_would(monkeypatch: pytest.MonkeyPatch) -> None:
    """A region inside a cell comes out with the same bytes whether its worker or the last pass finishes it."""
    grid = Grid(resolution_m=30.0, picture_px=128)
    by_worker = merged_cells(FIELD, AREA, grid)
    assert sum(len(merge.features) for merge in by_worker) > 10
    assert sum(len(merge.regions) for merge in by_worker) > 10
    with monkeypatch.context() as patch:
        patch.setattr("earthmap.merge.cells._on_core_edge", lambda polygons, cell: np.ones(len(polygons), bool))
        by_driver = merged_cells(FIELD, AREA, grid)
    assert sum(len(merge.features) for merge in by_driver) == 0
    first, second = (joined(merges, area=AREA, queries=QUERIES) for merges in (by_worker, by_driver))
    assert first.features_bytes == second.features_bytes


def test_only_what_may_still_grow_is_held() -> None:
    """Row by row, a field of ponds never holds more than lie along the seams of a row."""
    bounds = (500_000.0, 5_000_000.0, 540_000.0, 5_160_000.0)
    ponds = Field(0, epsg=32631, bounds=bounds, resolution_m=60.0)
    rows, columns = np.indices(ponds.mask.shape)
    ponds.mask = (rows % 24 < 12) & (columns % 24 < 12)
    area = AreaOfInterest.from_geometry(shapely.box(*bounds).buffer(-300), "EPSG:32631")
    merges = merged_cells(ponds, area, Grid(resolution_m=60.0, picture_px=128))
    cells = [Cell.parse(merge.cell_id) for merge in merges]
    across = len({cell.column for cell in cells})
    assert len(merges) >= 6 * across
    joining, held = Joining(set(cells), area, QUERIES), []
    found = 0
    for merge in merges:
        found += len(merge.features) + sum(len(table) for table in joining.add(merge))
        held.append(len(joining._regions.groups))
    found += sum(len(table) for table in joining.finish())
    whole = joined(merges, area=area, queries=QUERIES)
    assert found == len(whole.features)
    assert (joining._regions, joining._seams, joining.cells) == (Components(_count=joining._regions._count), {}, set())
    seam = 448 // 24 + 2
    assert max(held) <= (across + 1) * seam
    assert found > 5 * max(held)


def test_a_cell_and_its_ledger_come_back_from_their_file(cells: list[CellMerge], tmp_path: Path) -> None:
    store, out = Storage(tmp_path / "store"), Storage(tmp_path / "run")
    merged = MergedCells.of(store, out, execution=3)
    ledger = pa.table({"cell_id": ["a"], "part": pa.array([None], pa.string())})
    for merge in cells:
        merged.write(merge, ledger)
    order = [Cell.parse(merge.cell_id) for merge in reversed(cells)]
    for (back, rows), merge, classes in zip(
        merged.read(order), reversed(cells), merged.read_classes(order), strict=True
    ):
        assert back == merge
        assert back.classes == merge.classes == classes
        assert rows.equals(ledger)
        assert Sums.from_json(merge.sums.to_json()) == merge.sums
    other = MergedCells.of(store, Storage(tmp_path / "other"), execution=3)
    other.write(cells[0], ledger)
    MergedCells.of(store, out, execution=4).remove()
    assert store.list() == [other.path(cells[0].cell_id)]
    with pytest.raises(StorageError, match="is gone, which this execution wrote"):
        list(merged.read(order))
