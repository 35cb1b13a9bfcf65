"""Sentinel-1 GRD from a SAFE folder or zip, through the whole way of `--image`: sigma nought where it was drawn."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from earthmap.cube import RasterioReader, open_cell
from earthmap.grid import AreaOfInterest, to_lonlat
from earthmap.pipeline import make_plan, parse_job
from earthmap.pipeline.context import Context
from earthmap.pipeline.plan import Plan
from earthmap.pipeline.reading import read_work
from earthmap.pipeline.run import predictor_spec
from earthmap.pipeline.stages import gather, predict_stage
from earthmap.sensors.masks import Reason
from earthmap.storage import Storage
from tests.catalog.image_files import GRD, pack_zip, write_grd
from tests.cube.annotations import calibration_xml, noise_xml
from tests.cube.swaths import Swath
from tests.cube.test_control import write_swath

SHAPE = (700, 900)
SWATH = Swath(lon=12.0, lat=47.0, heading=-12.0, shape=SHAPE)
STEM = "s1a-iw-grd-{}-20240504t055012-20240504t055037-053720-0686ab-{:03d}"
LAND_DB, WATER_DB = {"vv": -8.0, "vh": -15.0}, {"vv": -19.0, "vh": -26.0}
EAST = 12.0005
"""Degrees: water lies east of it."""


def gain(line: NDArray[Any], pixel: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(500.0 + line / 10 + pixel / 5)


def floor(line: NDArray[Any], pixel: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(150.0 + pixel / 4 + line / 3)


def sigma0(lon: NDArray[Any], channel: str) -> NDArray[Any]:
    """What was drawn: land west of `EAST`, water east of it."""
    decibels = np.where(lon < EAST, LAND_DB[channel], WATER_DB[channel])
    return np.asarray(10 ** (decibels / 10))


def draw(folder: Path, *, without: tuple[str, ...] = (), channels: tuple[str, ...] = ("vv", "vh")) -> Path:
    """The product of `SWATH`, its annotation less the files whose names contain one of `without`."""
    root = write_grd(folder)
    for path in (root / "measurement", root / "annotation"):
        shutil.rmtree(path)
    (root / "measurement").mkdir()
    (root / "annotation" / "calibration").mkdir(parents=True)
    ring = [SWATH.lonlat(np.float64(row), np.float64(column)) for row in (0, 700) for column in (0, 900)]
    ordered = [ring[0], ring[1], ring[3], ring[2]]
    manifest = (root / "manifest.safe").read_text()
    start = manifest.index("<gml:coordinates>") + len("<gml:coordinates>")
    corners = " ".join(f"{float(lat):.5f},{float(lon):.5f}" for lon, lat in ordered)
    text = manifest[:start] + corners + manifest[manifest.index("</gml:coordinates>") :]
    (root / "manifest.safe").write_text(text)
    line, pixel = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(np.float64)
    lon, _ = SWATH.lonlat(line + 0.5, pixel + 0.5)
    for number, channel in enumerate(channels, 1):
        stem = STEM.format(channel, number)
        stored = np.rint(np.sqrt(sigma0(lon, channel) * gain(line, pixel) ** 2 + floor(line, pixel)))
        write_swath(root / "measurement" / f"{stem}.tiff", SWATH, stored.astype(np.uint16))
        documents = {
            f"annotation/{stem}.xml": b"<product><rangePixelSpacing>1.0e+01</rangePixelSpacing>"
            b"<azimuthPixelSpacing>1.0e+01</azimuthPixelSpacing></product>",
            f"annotation/calibration/calibration-{stem}.xml": calibration_xml(
                gain, SHAPE, polarization=channel.upper()
            ),
            f"annotation/calibration/noise-{stem}.xml": noise_xml(floor, SHAPE, polarization=channel.upper()),
        }
        for name, data in documents.items():
            if not any(word in name for word in without):
                (root / name).write_bytes(data)
    return root


def plan_of(image: Path, out: Path) -> tuple[Plan, Context]:
    job = parse_job(
        {
            "images": [str(image)], "area": AreaOfInterest.from_bbox(11.985, 46.985, 12.015, 47.015),
            "tile_size": 128, "queries": ["Is there water?"], "out": str(out),
        }
    )  # fmt: skip
    plan = make_plan(job)
    context = Context(
        store=Storage(str(out / "store")), execution=1, job=job.content_key(), area=job.area,
        queries={query.content_key(): query for query in job.queries}, observations=plan.observations,
        predictor=predictor_spec(job, plan), reader=RasterioReader(),
    )  # fmt: skip
    return plan, context


def worked(image: Path, out: Path) -> tuple[Plan, list[tuple[Any, NDArray[Any]]], list[dict[str, Any]]]:
    """The plan, each cell with its pixels, and the answers."""
    plan, context = plan_of(image, out)
    groups, rows = [], list[dict[str, Any]]()
    for work in plan.work():
        reads = {name: done.path for name, done in read_work(work, context).items()}
        groups += [(work.cell, open_cell(context.store, path)) for path in reads.values()]
        rows += gather(work, predict_stage(work, reads, context), context).to_pylist()
    return plan, [(cell, group) for cell, group in groups], rows


def lonlat(cell: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    from odc.geo.crs import CRS

    box = cell.geobox
    y, x = np.meshgrid(box.coordinates["y"].values, box.coordinates["x"].values, indexing="ij")
    lon, lat = CRS(f"EPSG:{cell.zone.epsg}").transformer_to_crs(CRS("EPSG:4326"))(x, y)
    return lon, lat


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_sigma_nought_is_where_it_was_drawn(packed: bool, tmp_path: Path) -> None:
    image = draw(tmp_path)
    if packed:
        image = pack_zip(image, tmp_path / f"{GRD}.SAFE.zip")
    plan, groups, rows = worked(image, tmp_path / "run")
    (observation,) = plan.observations.values()
    assert (observation.sensor, plan.grid.resolution_m) == ("sentinel-1-grd", 10.0)
    seen = 0
    for cell, group in groups:
        data, mask = group.read()
        assert group.manifest.bands == ("vv", "vh")
        assert not group.manifest.failures
        lon, _ = lonlat(cell)
        known = np.isfinite(data).all(axis=0) & (np.abs(lon - EAST) > 0.0003)  # two pixels beside the shore
        for band, channel in zip(data, ("vv", "vh"), strict=True):
            truth = sigma0(lon, channel)[known]
            np.testing.assert_allclose(band[known], truth, rtol=0.08)  # a step of DN on dark water
            assert abs(np.median(band[known] / truth) - 1) < 0.005
        assert not mask[known].any()
        seen += int(known.sum())
    assert seen > 50_000
    answered = [row for row in rows if row["status"] == "answered"]
    assert answered
    notes = {note for row in answered for note in row["notes"]}
    assert not any("noise not removed" in note for note in notes)
    assert any("terrain" in note for note in notes)
    assert _told_by_side(plan, answered) == {("west", "no"), ("east", "yes")}


def _told_by_side(plan: Plan, rows: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """What the tiles wholly on one side of the shore answer."""
    tiles = {tile.id: tile for work in plan.work() for tile in work.cell.tiles()}
    told = set()
    for row in rows:
        tile = tiles[row["tile_id"]]
        west, _, east, _ = to_lonlat(tile.core_geobox.extent.geom, f"EPSG:{tile.zone.epsg}").bounds
        if east < EAST - 0.001 or west > EAST + 0.001:
            told.add(("west" if east < EAST else "east", row["value"]))
    return told


def test_noise_that_is_not_removed_is_said(tmp_path: Path) -> None:
    plan, groups, rows = worked(draw(tmp_path, without=("noise-",)), tmp_path / "run")
    (observation,) = plan.observations.values()
    assert observation.convention == ("sentinel-1-grd", "noise not removed")  # compared with its like only
    lon, _ = lonlat(groups[0][0])
    data, _ = groups[0][1].read()
    dark = np.isfinite(data[1]) & (lon > EAST + 0.001)
    assert np.median(data[1][dark]) > 1.2 * 10 ** (WATER_DB["vh"] / 10)  # the noise is still there
    answered = [row for row in rows if row["status"] == "answered"]
    assert answered
    assert all("noise not removed" in row["notes"] for row in answered)


def test_noise_of_one_polarization(tmp_path: Path) -> None:
    _, _, rows = worked(draw(tmp_path, without=("noise-s1a-iw-grd-vh",)), tmp_path / "run")
    answered = [row for row in rows if row["status"] == "answered"]
    assert answered
    assert all("noise not removed from vh" in row["notes"] for row in answered)


def test_without_calibration_no_threshold_is_asked(tmp_path: Path) -> None:
    plan, groups, rows = worked(draw(tmp_path, without=("/calibration-",)), tmp_path / "run")
    (observation,) = plan.observations.values()
    assert observation.sensor == "radar-uncalibrated"
    data, _ = groups[0][1].read()
    assert np.nanmedian(data[0]) > 1_000  # the square of what is stored
    assert {(row["status"], row["reason"]) for row in rows if row["reason"] != "nodata"} == {
        ("skipped", "uncalibrated")
    }


def test_one_polarization(tmp_path: Path) -> None:
    plan, groups, _ = worked(draw(tmp_path, channels=("vv",)), tmp_path / "run")
    (observation,) = plan.observations.values()
    assert observation.sensor == "sentinel-1-grd"
    assert groups[0][1].manifest.bands == ("vv",)


def test_the_measurement_alone_is_uncalibrated(tmp_path: Path) -> None:
    """A TIFF taken out of its SAFE is placed by its points; what it measures nobody says."""
    root = draw(tmp_path)
    path = next((root / "measurement").glob("*-vv-*"))
    with rasterio.open(path) as file:
        assert file.gcps[0]
    alone = tmp_path / path.name
    shutil.copy(path, alone)
    plan, _ = plan_of(alone, tmp_path / "run")
    assert {observation.sensor for observation in plan.observations.values()} == {"radar-uncalibrated"}


def test_the_largest_amplitude_is_saturated(tmp_path: Path) -> None:
    root = draw(tmp_path)
    path = next((root / "measurement").glob("*-vv-*"))
    with rasterio.open(path, "r+") as file:
        stored = file.read(1)
        stored[340:346, 440:446] = 65_535
        file.write(stored, 1)
    _, groups, rows = worked(root, tmp_path / "run")
    told = np.concatenate([(group.read()[1] == Reason.SATURATED).ravel() for _, group in groups])
    assert 25 <= told.sum() <= 200
    for _, group in groups:
        data, mask = group.read()
        assert np.isfinite(data[:, mask != Reason.NODATA]).all()
        assert (data[0][mask == Reason.SATURATED] == np.float32(1e4)).all()
    assert any("saturated counted as seen" in row["notes"] for row in rows)
