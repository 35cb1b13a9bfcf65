"""The main job on real satellite scenes, from the catalogue to the run folder (docs/real-scenes.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from earthmap.metrics import Bootstrap, score_mask
from earthmap.pipeline import Run, parse_job, run_job

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.real, pytest.mark.ray, pytest.mark.timeout(200)]


def mapped(real_data: Path, out: Path, **job: Any) -> Run:
    """A finished run on the real catalogue, whose counts balance."""
    run = run_job(parse_job({"catalog": str(real_data / "stac" / "catalog.json"), "out": str(out), **job}))
    summary = run.summary
    assert summary["failed"] == {}
    assert summary["planned"] == summary["answered"] + sum(summary["skipped"].values())
    assert (out / "report.html").stat().st_size > 100_000
    assert (out / "preview.png").read_bytes().startswith(b"\x89PNG")
    return run


def layers(run: Run) -> list[dict[str, Any]]:
    """What the first question came to at each observation."""
    found: list[dict[str, Any]] = run.summary["queries"][0]["observations"]
    return found


def on_grid_of(run: Run, observation: str, reference: Path) -> np.ndarray:
    """The class raster of an observation, nearest on the pixels of `reference`; 255 where it has none."""
    import rasterio
    from rasterio.warp import Resampling, reproject

    (path,) = Path(run.address, "classes").glob(f"*{observation}*.tif")
    with rasterio.open(path) as classes, rasterio.open(reference) as grid:
        codes = np.full(grid.shape, 255, np.uint8)
        reproject(
            rasterio.band(classes, 1), codes, dst_transform=grid.transform, dst_crs=grid.crs, src_nodata=255,
            dst_nodata=255, resampling=Resampling.nearest, init_dest_nodata=True,
        )  # fmt: skip
    return codes


def agreement(codes: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """Share of the seen pixels where map and file say the same, and the best share with the file moved by a pixel."""
    inner = (slice(2, -2), slice(2, -2))
    shares = {
        (down, right): float(
            ((codes == 1) == np.roll(expected, (down, right), (0, 1)))[inner][(codes != 255)[inner]].mean()
        )
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
    }
    return shares.pop((0, 0)), max(shares.values())


def smoothed_difference(stored: np.ndarray, first: int, second: int) -> np.ndarray:
    """A normalised difference of two stored bands after a 3 x 3 mean, computed without earthmap."""
    from scipy.ndimage import uniform_filter

    high, low = (uniform_filter(stored[band].astype(float), 3, mode="nearest") for band in (first, second))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((high - low) / (high + low))


def stored_bands(path: Path) -> np.ndarray:
    import rasterio

    with rasterio.open(path) as source:
        return np.asarray(source.read())


@pytest.fixture(scope="module")
def flood(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return mapped(
        real_data,
        tmp_path_factory.mktemp("flood") / "run",
        area=[-0.7818, 38.0829, -0.7590, 38.1288],
        collections=["sen1floods11-s1", "sen1floods11-s2"],
        queries=["Where is water?"],
        scenes="all",
        tile_size=224,
    )


@pytest.mark.parametrize(("sensor", "least"), [("sentinel-1-db", 0.40), ("sentinel-2-l1c", 0.65)])
def test_flood_beside_the_hand_made_label(real_data: Path, flood: Run, sensor: str, least: float) -> None:
    import rasterio

    label_path = real_data / "04_sen1floods11" / "Labels" / "Spain_7370579_LabelHand_west.tif"
    with rasterio.open(label_path) as source:
        label = source.read(1)
    truth = np.where(label < 0, 255, label).astype(np.uint8)
    (layer,) = [layer for layer in layers(flood) if layer["sensor"] == sensor]
    codes = on_grid_of(flood, layer["observation"], label_path)
    seen = (codes != 255) & (truth != 255)
    assert seen.mean() > 0.9
    scores = score_mask(codes, truth, code=1, bootstrap=Bootstrap())
    assert scores.iou.value > least
    assert scores.iou.low is not None
    assert scores.iou.low > scores.iou.constant


def test_the_map_lies_where_the_file_says(real_data: Path, flood: Run) -> None:
    """The class raster, brought back to the file's own pixels, is the index computed on the file itself."""
    path = real_data / "04_sen1floods11" / "S2" / "Spain_7370579_S2Hand_west.tif"
    stored = stored_bands(path).astype(float)
    green, red, nir, swir = stored[2], stored[3], stored[7], stored[11]
    with np.errstate(invalid="ignore", divide="ignore"):
        water = ((green - swir) / (green + swir) > 0.1) & ((nir - red) / (nir + red) < 0.2)
    (layer,) = [layer for layer in layers(flood) if layer["sensor"] == "sentinel-2-l1c"]
    here, moved = agreement(on_grid_of(flood, layer["observation"], path), water)
    assert here > 0.97
    assert here > moved


def test_polygons_and_raster_are_one_map(real_data: Path, flood: Run) -> None:
    import rasterio
    from rasterio.features import rasterize

    path = real_data / "04_sen1floods11" / "S2" / "Spain_7370579_S2Hand_west.tif"
    (layer,) = [layer for layer in layers(flood) if layer["sensor"] == "sentinel-2-l1c"]
    codes = on_grid_of(flood, layer["observation"], path)
    polygons = flood.features[flood.features.datetime_min.dt.day == 18]
    with rasterio.open(path) as grid:
        drawn = rasterize(polygons.to_crs(grid.crs).geometry, grid.shape, transform=grid.transform).astype(bool)
    assert (drawn == (codes == 1))[codes != 255].mean() > 0.999


def test_the_river_moves_but_stays_a_river(real_data: Path, tmp_path: Path) -> None:
    run = mapped(
        real_data, tmp_path / "run", area=[-74.722, -8.586, -74.400, -8.283], collections=["landsat-ucayali"],
        queries=["Where is water?"], scenes="all", tile_size=224,
    )  # fmt: skip
    shares = [layer["share_of_seen"]["water"] for layer in layers(run)]
    assert len(shares) == 8
    assert all(0.02 < share < 0.06 for share in shares)
    assert {note for notes in run.features.notes for note in notes} >= {"uncalibrated"}
    years = run.features.datetime_min.dt.year
    first, last = (run.features[years == year].union_all() for year in (1985, 2020))
    assert first.intersection(last).area < 0.7 * first.area, "35 years move a meander"
    path = real_data / "08_landsat_naip_timeseries" / "landsat_pucallpa_west" / "2020.tif"
    water = smoothed_difference(stored_bands(path), 3, 0) > 0.1  # green and shortwave infrared
    here, moved = agreement(on_grid_of(run, layers(run)[-1]["observation"], path), water)
    assert here > 0.99
    assert here > moved


def test_potholes_fill_over_the_years(real_data: Path, tmp_path: Path) -> None:
    run = mapped(
        real_data, tmp_path / "run", area=[-99.1855, 47.0041, -99.1519, 47.0366], collections=["naip"],
        queries=["Where is water?"], scenes="all", tile_size=224,
    )  # fmt: skip
    shares = [layer["share_of_seen"]["water"] for layer in layers(run)]
    assert len(shares) == 6
    assert all(0.10 < share < 0.30 for share in shares)
    assert shares[0] == min(shares), "2009 was the driest of these years"
    for layer, day in (
        (layers(run)[0], "20090818"),
        (layers(run)[-1], "20200831"),
    ):  # their grids differ
        (path,) = (real_data / "08_landsat_naip_timeseries" / "naip_nd_west").glob(f"*{day}.tif")
        water = smoothed_difference(stored_bands(path), 1, 3) > 0.1  # green and near infrared
        here, moved = agreement(on_grid_of(run, layer["observation"], path), water)
        assert here > 0.99
        assert here > moved


def test_the_desert_has_no_water(real_data: Path, tmp_path: Path) -> None:
    run = mapped(
        real_data, tmp_path / "run", area=[-11.97, 24.30, -10.88, 25.30], collections=["sentinel-2-l2a"],
        queries=["Where is water?", "Is there any water?"],
    )  # fmt: skip
    (layer,) = layers(run)
    assert layer["share_of_seen"]["water"] < 0.001
    assert "no cloud mask" not in layer["notes"], "this scene has its SCL"
    assert layer["seen_km2"] > 11_000
    assert run.summary["queries"][1]["observations"][0]["yes_tiles"] == 0


def test_the_tornado_took_the_trees(real_data: Path, tmp_path: Path) -> None:
    run = mapped(
        real_data, tmp_path / "run", area=[-94.4998, 37.0627, -94.4927, 37.0751], collections=["joplin-2011"],
        queries=["Where was vegetation lost or gained?"],
    )  # fmt: skip
    (layer,) = layers(run)
    assert layer["km2"]["vegetation lost"] > 3 * layer["km2"]["vegetation gained"]
    assert layer["seen_km2"] < 0.75 * layer["area_km2"], "the black fill of the second picture is not ground"
    north, middle, track = (
        _strip(run, *edges) for edges in ((37.0742, 37.0751), (37.0715, 37.0742), (37.0664, 37.0715))
    )
    assert north["gained"] > north["lost"], "beyond the track lawns are greener in May than in July"
    for strip in (middle, track):
        assert strip["lost"] > 2 * north["lost"]
        assert strip["lost"] > 3 * strip["gained"]
    assert track["gained"] < 0.02


def _strip(run: Run, south: float, north: float) -> dict[str, float]:
    """Share of the seen ground between two latitudes where vegetation was lost, and gained."""
    import rasterio
    from rasterio.warp import transform

    (path,) = Path(run.address, "classes").glob("*.tif")
    with rasterio.open(path) as classes:
        codes, names = classes.read(1), {int(key[6:]): name for key, name in classes.tags(1).items() if "class_" in key}
        _, northing = transform("EPSG:4326", classes.crs, [-94.496, -94.496], [south, north])
        middles = classes.transform.f + classes.transform.e * (np.arange(classes.height) + 0.5)
    seen = codes[(middles > northing[0]) & (middles < northing[1])]
    seen = seen[seen != 255]
    return {name.split()[-1]: float((seen == code).mean()) for code, name in names.items()}
