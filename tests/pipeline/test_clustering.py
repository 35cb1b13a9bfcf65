"""Tiles in groups: the ones that are there, the same in any order, each on its own pixel of its zone."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio

from earthmap import cli
from earthmap.errors import JobError
from earthmap.grid import Grid, Tile, Zone
from earthmap.metrics.clustering import adjusted_rand
from earthmap.outputs.tile_rasters import tile_cog
from earthmap.pipeline import cluster_run
from earthmap.pipeline.clustering import write_clusters
from tests.pipeline.vectors import Seen, block, directions, run_of

TILES = [*block(6, 8), *block(4, 3, zone=Zone(32, True), corner=(4519, 250))]
KINDS = np.random.default_rng(5).choice(3, len(TILES), p=(0.5, 0.3, 0.2))


def seen() -> list[Seen]:
    """Tiles of three kinds whose vectors lie around three directions."""
    middles = directions(3, seed=2)
    drawn = middles[KINDS] + np.random.default_rng(7).normal(0.0, 0.05, (len(TILES), 6))
    return [Seen(tile, vector / np.linalg.norm(vector)) for tile, vector in zip(TILES, drawn, strict=True)]


def test_the_groups_that_are_there_are_found(tmp_path: Path) -> None:
    found = cluster_run(run_of(tmp_path, seen()), 3)
    by_id = dict(zip(found.tiles["tile_id"], found.tiles["cluster"], strict=True))
    assert adjusted_rand(np.array([by_id[tile.id] for tile in TILES]), KINDS) == 1.0
    assert found.table["tiles"].tolist() == sorted(np.bincount(KINDS).tolist(), reverse=True)
    assert found.table["km2"].sum() == pytest.approx(len(TILES))
    assert found.table["share"].sum() == pytest.approx(1.0, abs=1e-3)
    assert found.explained > 0.9 > found.explained_shuffled
    assert found.silhouette > 0.7 > found.silhouette_shuffled
    for row in found.table.to_dict("records"):
        assert by_id[row["medoid"]] == row["cluster"]


def test_no_order_of_rows_changes_a_byte(tmp_path: Path) -> None:
    rows = seen()
    for name in ("one", "other"):
        run = run_of(tmp_path / name, rows)
        write_clusters(run, cluster_run(run, 4, seed=3), out=str(tmp_path / f"{name}_out"))
        rows = [rows[place] for place in np.random.default_rng(1).permutation(len(rows))]
    names = sorted(path.name for path in (tmp_path / "one_out").iterdir())
    assert {"clusters_31N.tif", "clusters_32N.tif", "tiles.parquet", "clusters.png"} <= set(names)
    for name in names:
        assert (tmp_path / "one_out" / name).read_bytes() == (tmp_path / "other_out" / name).read_bytes(), name


def test_each_tile_has_one_pixel_in_the_raster_of_its_zone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(tmp_path, seen())
    assert cli.main(["cluster", run.address, "-k", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    folder = tmp_path / "clusters" / "k3_sentinel-2-l2a"
    tiles = geopandas.read_parquet(folder / "tiles.parquet")
    counted = 0
    for zone in ("31N", "32N"):
        with rasterio.open(folder / f"clusters_{zone}.tif") as raster:
            assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert (raster.nodata, raster.dtypes[0], raster.crs.to_epsg()) == (0, "uint8", 32600 + int(zone[:2]))
            assert raster.tags(1)["class_1"] == "cluster 1"
            codes = raster.read(1)
            counted += int((codes > 0).sum())
            for name, cluster in zip(tiles["tile_id"], tiles["cluster"], strict=True):
                tile = Tile.parse(name)
                if tile.zone.id == zone:
                    box = tile.core_geobox.boundingbox
                    row, column = raster.index((box.left + box.right) / 2, (box.bottom + box.top) / 2)
                    assert codes[row, column] == cluster
                    assert raster.res == (tile.grid.core_m, tile.grid.core_m)
    assert counted == len(TILES) == sum(row["tiles"] for row in told["clusters"])
    table = geopandas.read_parquet(folder / "clusters.parquet")
    assert table["tiles"].tolist() == [row["tiles"] for row in told["clusters"]]


@pytest.mark.parametrize(("k", "says"), [(1, "-k 1"), (0, "-k 0"), (61, "60 tiles"), (2000, "2 to 1000")])
def test_so_many_clusters_cannot_be(tmp_path: Path, k: int, says: str) -> None:
    with pytest.raises(JobError, match=says):
        cluster_run(run_of(tmp_path, seen()), k)


def test_equal_vectors_are_no_groups(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="all 60 vectors are equal"):
        cluster_run(run_of(tmp_path / "equal", [Seen(tile, (0.6, 0.8)) for tile in TILES]), 2)
    two = [Seen(tile, (0.6, 0.8) if number % 2 else (0.8, 0.6)) for number, tile in enumerate(TILES)]
    with pytest.raises(JobError, match="3 clusters of 2 different vectors"):
        cluster_run(run_of(tmp_path / "two", two), 3)
    assert cluster_run(run_of(tmp_path / "again", two), 2).explained == 1.0


def test_what_has_no_groups_says_so(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0).normal(size=(len(TILES), 2))
    spread = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    found = cluster_run(
        run_of(tmp_path, [Seen(tile, vector) for tile, vector in zip(TILES, spread, strict=True)]), 5
    )  # fmt: skip
    assert found.silhouette - found.silhouette_shuffled < 0.35
    assert any("shuffled" in note for note in found.notes())


def test_many_codes_take_sixteen_bits(tmp_path: Path) -> None:
    tiles = [Tile(Grid(resolution_m=10), Zone(31, False), row, column) for row in range(20) for column in range(15)]
    codes = np.arange(1, 301)
    legend = {code: f"cluster {code}" for code in codes.tolist()}
    colours = dict.fromkeys(codes.tolist(), (1, 2, 3))
    tile_cog(tiles, codes, legend=legend, colours=colours, path=tmp_path / "many.tif")
    with rasterio.open(tmp_path / "many.tif") as raster:
        assert raster.dtypes[0] == "uint16"
        assert raster.crs.to_epsg() == 32731
        np.testing.assert_array_equal(raster.read(1), codes.reshape(20, 15)[::-1])
