from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from earthmap.catalog.items import scene_from_item
from earthmap.catalog.netcdf import netcdf_items
from earthmap.catalog.netcdf_files import VariableStep, split_variable
from earthmap.catalog.scene import Scene
from earthmap.cube import RasterioReader
from earthmap.errors import CatalogError, ReadError
from tests.cube.conftest import source

BOX = GeoBox((20, 30), Affine(10, 0, 500_000, 0, -10, 5_600_000), "EPSG:32631")


def series(path: Path, *, edit: Callable[[h5py.File], None] | None = None, **variables: np.ndarray) -> Path:
    """A file as xarray writes it, of two days."""
    with h5py.File(path, "w") as file:
        axes = {
            "time": np.array([0, 86_400 * 5 + 7], np.int64),
            "y": 5_600_000 - 5 - 10.0 * np.arange(20),
            "x": 500_000 + 5 + 10.0 * np.arange(30),
        }
        for name, values in axes.items():
            file[name] = values
            file[name].make_scale(name)
        file["time"].attrs["units"] = "seconds since 2024-06-01 10:30:00"
        file["spatial_ref"] = 0
        file["spatial_ref"].attrs["crs_wkt"] = rasterio.crs.CRS.from_epsg(32631).to_wkt()
        file.attrs["platform"] = "sentinel-2"
        for name, values in variables.items():
            file[name] = values
            for index, axis in enumerate(axes):
                file[name].dims[index].attach_scale(file[axis])
            file[name].attrs.update({"grid_mapping": "spatial_ref", "_FillValue": 0, "scale_factor": 1e-4})
        if edit:
            edit(file)
    return path


def numbers(seed: int = 1, dtype: Any = np.uint16) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 9000, (2, 20, 30)).astype(dtype)


def scenes(*paths: Path) -> list[Scene]:
    return [scene_from_item(item, base="/") for item in netcdf_items(*paths)]


def reason_of(href: str) -> str:
    with pytest.raises(ReadError) as caught:
        RasterioReader().read(source(href), BOX)
    return caught.value.reason


def test_addresses() -> None:
    named = VariableStep("/a/b.nc", "S2-L2A-B04", 12)
    assert split_variable(named.address) == named
    for other in ("/a/b.nc", "/a/b.tif#B04@1", "/a/b.nc#B04", "/a/b.nc#B04@-1", "/a/b#c.tif"):
        assert split_variable(other) is None


def test_each_step_is_a_scene_and_its_numbers_are_the_files(tmp_path: Path) -> None:
    red, nir = numbers(1), numbers(2)
    red[1, 3, 4] = 0
    found = scenes(series(tmp_path / "s2.nc", B04=red, B08=nir))
    assert [one.datetime for one in found] == [
        datetime.datetime(2024, 6, 1, 10, 30, tzinfo=datetime.UTC),
        datetime.datetime(2024, 6, 6, 10, 30, 7, tzinfo=datetime.UTC),
    ]
    for step, one in enumerate(found):
        assert (one.sensor, [each.band for each in one.sources]) == ("sentinel-2-l2a", ["red", "nir"])
        for each, stored in zip(one.sources, (red, nir), strict=True):
            calibration = each.calibration
            want = stored[step] * np.float32(calibration.scale) + np.float32(calibration.offset)
            got = RasterioReader().read(each, BOX)
            np.testing.assert_allclose(got, np.where(stored[step] == 0, np.nan, want), rtol=1e-5, atol=1e-6)


def test_files_of_one_moment_are_one_scene(tmp_path: Path) -> None:
    found = scenes(series(tmp_path / "a.nc", B04=numbers()), series(tmp_path / "b.nc", B11=numbers(3)))
    assert [[each.band for each in one.sources] for one in found] == [["red", "swir16"]] * 2


def test_negative_backscatter_is_decibels(tmp_path: Path) -> None:
    stored = -numbers(4, np.int32) * 20
    (one, _) = scenes(
        series(tmp_path / "s1.nc", VV=stored, edit=lambda file: file.attrs.update({"platform": "sentinel-1a"}))
    )
    assert one.sensor == "sentinel-1-db"
    got = RasterioReader().read(one.sources[0], BOX)
    np.testing.assert_allclose(got, 10 ** (stored[0] * 1e-4 / 10), rtol=1e-4)


def test_unsigned_numbers_in_signed_storage(tmp_path: Path) -> None:
    def edit(file: h5py.File) -> None:
        file["B04"].attrs.update({"_Unsigned": "true", "_FillValue": -1})

    stored = np.full((2, 20, 30), 40_000, np.uint16)
    stored[:, 0, 0] = 65_535
    path = series(tmp_path / "s2.nc", B04=stored.view(np.int16), edit=edit)
    got = RasterioReader().read(source(f"{path}#B04@0"), BOX)
    assert np.isnan(got[0, 0])
    assert np.all(got.ravel()[1:] == 40_000)


# ── hostile and broken files ─────────────────────────────────────────────────────────────────────────────────


def _elsewhere(tmp_path: Path) -> dict[str, Callable[[h5py.File], None]]:
    secret = series(tmp_path / "secret.nc", B04=numbers(9))
    (tmp_path / "raw").write_bytes(bytes(2400))

    def link(file: h5py.File) -> None:
        del file["B04"]
        file["B04"] = h5py.ExternalLink(str(secret), "/B04")

    def external(file: h5py.File) -> None:
        del file["B04"]
        file.create_dataset("B04", (2, 20, 30), "u2", external=[(str(tmp_path / "raw"), 0, 2400)])

    def virtual(file: h5py.File) -> None:
        del file["B04"]
        layout = h5py.VirtualLayout((2, 20, 30), "u2")
        layout[:] = h5py.VirtualSource(str(secret), "B04", (2, 20, 30))
        file.create_virtual_dataset("B04", layout)

    return {"link": link, "external": external, "virtual": virtual}


@pytest.mark.parametrize("kind", ["link", "external", "virtual"])
def test_storage_in_other_files_is_not_followed(kind: str, tmp_path: Path) -> None:
    path = series(tmp_path / "a.nc", B04=numbers(), B08=numbers(), edit=_elsewhere(tmp_path)[kind])
    assert reason_of(f"{path}#B04@0") == "unsupported"


def _wide(file: h5py.File) -> None:
    del file["x"].attrs["CLASS"]
    file["x"][5] += 100.0


def _calendar(file: h5py.File) -> None:
    file["time"].attrs["calendar"] = "360_day"


@pytest.mark.parametrize("edit", [_wide, _calendar, lambda file: file["time"].attrs.update({"units": "moons since 1"})])
def test_series_that_do_not_say_where_or_when(edit: Callable[[h5py.File], None], tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="cannot be read") as caught:
        netcdf_items(series(tmp_path / "a.nc", B04=numbers(), edit=edit))
    assert "\n" not in str(caught.value)


def test_what_is_no_netcdf_4(tmp_path: Path) -> None:
    (tmp_path / "old.nc").write_bytes(b"CDF\x01" + bytes(100))
    (tmp_path / "text.nc").write_bytes(b"text")
    whole = series(tmp_path / "a.nc", B04=numbers()).read_bytes()
    (tmp_path / "cut.nc").write_bytes(whole[: len(whole) // 3])
    for name in ("old", "text", "cut", "none"):
        with pytest.raises(CatalogError):
            netcdf_items(tmp_path / f"{name}.nc")
    reasons = [reason_of(f"{tmp_path}/{name}.nc#B04@0") for name in ("none", "old", "cut")]
    assert reasons == ["never_published", "unsupported", "damaged"]
    for address in ("B04@7", "B05@0", "x@0"):
        assert reason_of(f"{tmp_path}/a.nc#{address}") == "unsupported"
    assert reason_of("https://127.0.0.1:1/a.nc#B04@0") == "unsupported"


# ── the real series ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.real
def test_the_real_series(real_data: Path) -> None:
    folder = real_data / "01_s1_s2_l8_timeseries" / "00002806639B424A"
    kinds = ("S1_", "S2_", "L8_")
    found = scenes(*(path for path in folder.glob("*.nc") if path.name.startswith(kinds)))
    count = {name: sum(one.sensor == name for one in found) for name in {one.sensor for one in found}}
    assert count == {"sentinel-1-db": 159, "sentinel-2-l2a": 118, "thermal": 55, "optical-reflectance": 26}
    optical = {one.datetime.date().isoformat(): one for one in found if one.sensor == "sentinel-2-l2a"}
    ndvi = {}
    for cut in sorted((folder / "tif").glob("*.tif")):
        one = optical[cut.stem[-10:]]
        assert (len(one.sources), one.mask_sources[0].band) == (10, "scl")
        with rasterio.open(cut) as file:
            box, stored = GeoBox(file.shape, file.transform, str(file.crs)), file.read().astype(np.float32)
        bands = {each.band: RasterioReader().read(each, box) for each in one.sources}
        for band, values in zip(("blue", "green", "red", "nir"), stored, strict=True):
            np.testing.assert_allclose(bands[band], values * 1e-4, rtol=1e-5)
        ndvi[one.datetime.month] = float(np.median((bands["nir"] - bands["red"]) / (bands["nir"] + bands["red"])))
    assert all(0.2 < value < 0.95 for value in ndvi.values())
    warm = []
    for one in (one for one in found if one.sensor == "thermal" and one.datetime.month == 7):
        kelvin = RasterioReader().read(one.sources[0], box)
        assert np.isnan(kelvin).any() or kelvin.min() > 149
        warm += kelvin[np.isfinite(kelvin)].tolist()
    assert 290 < np.percentile(warm, 90) < 320  # Flanders in July
    radar = [RasterioReader().read(one.sources[0], box) for one in found if one.sensor == "sentinel-1-db"][:20]
    assert -14 < 10 * np.log10(np.nanmedian(radar)) < -4
