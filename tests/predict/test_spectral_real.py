"""The spectral predictor on real scenes. Bounds are loose: they catch a broken rule, and rank nothing."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from earthmap.grid.tiling import Grid, Tile, Zone
from earthmap.metrics import score_mask
from earthmap.predict import Picture, SpectralPredictor, TileInput
from earthmap.sensors.masks import Reason
from earthmap.tasks import Answer, make_query

pytestmark = pytest.mark.real

GRID = Grid(resolution_m=10, picture_px=448)
TILE = Tile(GRID, Zone(31, True), 500, 40)
S2 = ("coastal", "blue", "green", "red", "rededge071", "rededge075", "rededge078", "nir", "nir08", "nir09", "cirrus",
      "swir16", "swir22")  # fmt: skip


def stored(path: Path, nodata: float | None = None) -> NDArray[np.float32]:
    rasterio = pytest.importorskip("rasterio")
    with rasterio.open(path) as dataset:
        data = dataset.read().astype(np.float32)
    if nodata is not None:
        data[:, (data == nodata).all(axis=0)] = np.nan
    return data


def tiles(*dates: NDArray[np.float32], bands: tuple[str, ...], sensor: str) -> list[tuple[slice, slice, TileInput]]:
    """Tiles over (band, y, x) arrays of one lattice, with what lies beyond as NaN, and where their cores lie."""
    core, halo, side = GRID.core_px, GRID.halo_px, GRID.picture_px
    height, width = dates[0].shape[1:]
    after = [(halo, -height % core + halo), (halo, -width % core + halo)]
    padded = [np.pad(data, [(0, 0), *after], constant_values=np.nan) for data in dates]
    found = []
    for top in range(0, height, core):
        for left in range(0, width, core):
            pictures = []
            for day, data in enumerate(padded, start=1):
                part = data[:, top : top + side, left : left + side]
                hidden = np.isnan(part).all(axis=0)
                mask = np.where(hidden, np.uint8(Reason.NODATA), np.uint8(Reason.UNKNOWN))
                when = datetime.datetime(2020, 1, day, tzinfo=datetime.UTC)
                pictures.append(
                    Picture(sensor=sensor, observation=str(day), datetime=when, bands=bands, data=part, mask=mask)
                )
            place = (slice(top, min(top + core, height)), slice(left, min(left + core, width)))
            found.append((*place, TileInput(tile=TILE, pictures=tuple(pictures))))
    return found


def mapped(
    question: str, *dates: NDArray[np.float32], bands: tuple[str, ...], sensor: str
) -> tuple[NDArray[np.uint8], list[Answer]]:
    """The mask of a whole scene, put together from the cores of its tiles."""
    result = np.full(dates[0].shape[1:], 255, np.uint8)
    answers = []
    for rows, columns, item in tiles(*dates, bands=bands, sensor=sensor):
        answer = SpectralPredictor().predict([item], [make_query(question)])[0][0]
        answers.append(answer)
        if answer.mask is not None:
            result[rows, columns] = answer.mask[: rows.stop - rows.start, : columns.stop - columns.start]
    return result, answers


@pytest.mark.parametrize(
    ("folder", "suffix", "sensor", "floor"), [("S2", "S2", "sentinel-2-l1c", 0.6), ("S1", "S1", "sentinel-1-db", 0.4)]
)
def test_flood_against_the_label_and_the_constant(
    real_data: Path, folder: str, suffix: str, sensor: str, floor: float
) -> None:
    scene = stored(real_data / "04_sen1floods11" / folder / f"Spain_7370579_{suffix}Hand_west.tif")
    label = stored(real_data / "04_sen1floods11/Labels/Spain_7370579_LabelHand_west.tif")[0]
    data, bands = (scene / 1e4, S2) if folder == "S2" else (10 ** (scene / 10), ("vv", "vh"))
    found, _ = mapped("Where is water?", data.astype(np.float32), bands=bands, sensor=sensor)
    scores = score_mask(found, np.where(label < 0, 255, label).astype(np.uint8))
    print(sensor, scores.iou, scores.f1, scores.fraction_error_points)
    assert 0.16 < scores.iou.constant < 0.18
    assert scores.iou.value > floor
    assert scores.iou.low is not None
    assert scores.iou.low > scores.iou.constant
    assert scores.fraction_error_points.value < 5


def test_the_desert_has_no_water_and_is_bare(real_data: Path) -> None:
    folder = real_data / "02_sentinel2_scene/S2A_29RKH_20200219_0_L2A"
    names = {"blue": "B02", "green": "B03", "red": "B04", "nir": "B08", "swir16": "B11", "swir22": "B12"}
    layers = [stored(folder / f"{name}.tif", 0)[0] / 1e4 for name in names.values()]
    side = layers[0].shape[0]
    data = np.stack([layer.repeat(side // layer.shape[0], 0).repeat(side // layer.shape[0], 1) for layer in layers])
    place = {"bands": tuple(names), "sensor": "sentinel-2-l2a"}
    found, answers = mapped("Map water, trees, bare soil, buildings, snow and burnt ground", data, **place)  # type: ignore[arg-type]
    shares = np.bincount(found[found != 255], minlength=7) / (found != 255).sum()
    print("desert", shares.round(5))
    assert shares[1] < 1e-4
    assert shares[3] > 0.9
    assert shares[[2, 4, 5, 6]].max() < 0.02
    assert "no cloud mask" in answers[0].notes


def test_the_river_moves_and_keeps_its_size(real_data: Path) -> None:
    years = range(1985, 2021, 5)
    bands = ("swir16", "nir", "red", "green")
    folder = real_data / "08_landsat_naip_timeseries/landsat_pucallpa_west"
    scenes = [stored(folder / f"{year}.tif", 0) for year in years]
    rivers = [mapped("Where is water?", scene, bands=bands, sensor="optical-uncalibrated")[0] for scene in scenes]
    shares = [float((river == 1).sum() / (river != 255).sum()) for river in rivers]
    print("river", dict(zip(years, np.round(shares, 4).tolist(), strict=True)))
    assert all(0.025 < share < 0.06 for share in shares)
    changed, _ = mapped("Where did water appear?", scenes[0], scenes[-1], bands=bands, sensor="optical-uncalibrated")
    moved = [(changed == code).mean() for code in (1, 2)]
    assert min(moved) > 0.01
    np.testing.assert_array_equal(changed == 1, (rivers[0] == 0) & (rivers[-1] == 1))


def test_the_potholes_fill(real_data: Path) -> None:
    shares = {}
    for path in sorted((real_data / "08_landsat_naip_timeseries/naip_nd_west").glob("*.tif")):
        found, answers = mapped(
            "Where is water?", stored(path, 0), bands=("red", "green", "blue", "nir"), sensor="optical-uncalibrated"
        )
        shares[path.stem[-8:-4]] = float((found == 1).sum() / (found != 255).sum())
        assert "uncalibrated" in answers[0].notes
    print("potholes", shares)
    assert all(0.1 < share < 0.3 for share in shares.values())
    assert min(shares, key=lambda year: shares[year]) == "2009"


def test_the_tornado_took_vegetation_along_its_track(real_data: Path) -> None:
    folder = real_data / "13_joplin_tornado_pre_post/chips"
    before, after = (stored(folder / when / "0.tif", 0) for when in ("pre", "post"))
    found, answers = mapped(
        "Which vegetation was lost?", before, after, bands=("red", "green", "blue"), sensor="optical-uncalibrated"
    )
    track, north = found[500:1000], found[:250]
    lost, gained = ((track == code).mean() for code in (2, 1))
    print("track", lost, gained, "north", (north == 2).mean(), (north == 1).mean())
    assert lost > 0.2
    assert lost > 10 * gained
    assert (north == 1).mean() > 5 * gained
    assert answers[4].value == "vegetation lost"
