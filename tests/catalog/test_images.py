"""Images of every layout, drawn and real, become the scenes that they are; what is none is named."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from earthmap.catalog import (
    MemoryCatalog,
    Scene,
    Wanted,
    find_scenes,
    image_catalog,
    images_key,
    observe,
    scene_from_item,
)
from earthmap.catalog.images import ImageCatalog, JoinedCatalog
from earthmap.cube import RasterioReader
from earthmap.errors import CatalogError
from tests.catalog.image_files import (
    GRD,
    LANDSAT,
    NORTH_M,
    PRODUCT,
    WEST_M,
    drawn,
    pack_tar,
    pack_zip,
    write_grd,
    write_landsat,
    write_raster,
    write_safe,
)
from tests.servers import file_server, s3_server


def scenes(catalog: ImageCatalog) -> list[Scene]:
    return [scene_from_item(found.item, base=found.base) for found in catalog.items(Wanted())]


def one(*paths: Path | str, **options: Any) -> Scene:
    (scene,) = scenes(image_catalog([str(path) for path in paths], **options))
    return scene


def read(scene: Scene, band: str, side: int = 40) -> np.ndarray[Any, Any]:
    """The first `side` × `side` pixels of 10 m of a band."""
    from affine import Affine
    from odc.geo.geobox import GeoBox

    source = next(source for source in scene.sources if source.band == band)
    box = GeoBox((side, side), Affine(10, 0, WEST_M, 0, -10, NORTH_M), "EPSG:32631")
    return RasterioReader().read(source, box)


# -- products


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("suffix", [".jp2", ".tif"])
def test_a_sentinel_2_product(tmp_path: Path, packed: bool, suffix: str) -> None:
    root = write_safe(tmp_path, suffix=suffix)
    scene = one(pack_zip(root, tmp_path / "S2.SAFE.zip") if packed else root)
    assert (scene.sensor, scene.collection, scene.platform) == ("sentinel-2-l2a", "sentinel-2-l2a", "sentinel-2a")
    assert scene.id.startswith(f"{PRODUCT}-")
    assert scene.datetime.isoformat() == "2024-05-04T10:50:31.024000+00:00"
    assert scene.pass_id == "S2A_20240504T105031"
    assert (scene.cloud_cover, scene.resolution_m) == (12.5, 10.0)
    red = next(source for source in scene.sources if source.band == "red")
    assert red.href.endswith(f"_B04_10m{suffix}")
    assert (red.calibration.scale, red.calibration.offset, red.calibration.nodata) == (1e-4, -0.1, 0.0)
    assert [source.href.rpartition("_")[0][-3:] for source in scene.mask_sources] == ["SCL"]
    stored = drawn(10, 2)[0, :40, :40].astype(np.float32)
    np.testing.assert_allclose(read(scene, "red"), stored * 1e-4 - 0.1, atol=1e-6)


def test_products_before_the_offset_have_none(tmp_path: Path) -> None:
    scene = one(write_safe(tmp_path, level="1C", offset=None, suffix=".tif"))
    assert scene.sensor == "sentinel-2-l1c"
    assert {source.calibration.offset for source in scene.sources} == {0.0}
    assert scene.mask_sources == ()


def test_offsets_are_taken_by_band(tmp_path: Path) -> None:
    root = write_safe(tmp_path, suffix=".tif")
    metadata = root / "MTD_MSIL2A.xml"
    metadata.write_text(metadata.read_text().replace('band_id="3">-1000', 'band_id="3">-500'))
    offsets = {source.band: source.calibration.offset for source in one(root).sources}
    assert (offsets["red"], offsets["green"]) == (-0.05, -0.1)


def test_a_product_is_named_by_its_metadata_too(tmp_path: Path) -> None:
    root = write_safe(tmp_path, suffix=".tif")
    assert one(root / "MTD_MSIL2A.xml") == one(root)


def test_the_footprint_is_the_products_own(tmp_path: Path) -> None:
    root = write_safe(tmp_path, suffix=".tif")
    metadata = root / "MTD_MSIL2A.xml"
    ring = "44.3 4.2 44.3 4.27 44.2 4.27 44.2 4.2 44.3 4.2"
    text = metadata.read_text()
    metadata.write_text(text.replace(text[text.index("<EXT_POS_LIST>") + 14 : text.index(" </EXT_POS_LIST>")], ring))
    east = shapely.from_wkb(one(root).footprint).bounds[2]
    assert abs(east - 4.27) < 1e-6


@pytest.mark.parametrize("form", ["json", "txt", "xml"])
def test_a_landsat_product(tmp_path: Path, form: str) -> None:
    scene = one(write_landsat(tmp_path / "in", form=form))
    assert (scene.sensor, scene.collection, scene.platform) == ("landsat-c2-l2", "landsat-c2-l2", "landsat-8")
    assert scene.id.startswith(f"{LANDSAT}-")
    assert scene.datetime.isoformat() == "2024-05-04T10:35:47+00:00"
    numbers = {source.band: (source.calibration.scale, source.calibration.offset) for source in scene.sources}
    assert numbers["red"] == (2.75e-5, -0.2)  # and not level 1's, which the MTL states under the same name
    assert numbers["lwir11"] == (0.00341802, 149.0)
    assert (scene.cloud_cover, len(scene.sources)) == (3.5, 6)
    assert [source.href.endswith("QA_PIXEL.TIF") for source in scene.mask_sources] == [True]


def test_a_landsat_bundle_is_read_in_place(tmp_path: Path) -> None:
    scene = one(pack_tar(write_landsat(tmp_path / "in"), tmp_path / f"{LANDSAT}.tar"))
    assert scene.sensor == "landsat-c2-l2"
    assert all(source.href.startswith("tar://") for source in scene.sources)
    assert np.isfinite(read(scene, "red")[5:, 5:]).all()


def test_landsat_files_without_their_mtl(tmp_path: Path) -> None:
    scene = one(write_landsat(tmp_path / "in", form=None))
    assert (scene.sensor, scene.datetime.date().isoformat()) == ("landsat-c2-l2", "2024-05-04")
    assert len(scene.mask_sources) == 1


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_a_sentinel_1_product(tmp_path: Path, packed: bool) -> None:
    root = write_grd(tmp_path)
    catalog = image_catalog([str(pack_zip(root, tmp_path / "S1.zip") if packed else root)])
    (found,) = catalog.items(Wanted())
    item = found.item
    assert item["id"].startswith(f"{GRD}-")
    assert item["collection"] == "sentinel-1-grd"
    properties = item["properties"]
    assert (properties["platform"], properties["s1:datatake_id"]) == ("sentinel-1a", "427691")
    assert (properties["sar:product_type"], properties["sar:pixel_spacing_azimuth"]) == ("GRD", 12.0)
    assert properties["start_datetime"].startswith("2024-05-04T05:50:12.153776")
    assert set(item["assets"]) == {
        "vv", "vh", "safe-manifest", "schema-product-vv", "schema-product-vh", "schema-calibration-vv",
        "schema-calibration-vh", "schema-noise-vv", "schema-noise-vh",
    }  # fmt: skip
    assert "/annotation/calibration/noise-" in item["assets"]["schema-noise-vv"]["href"]
    assert item["assets"]["vv"]["bands"][0]["sar:polarizations"] == ["VV"]
    west, south, east, north = shapely.geometry.shape(item["geometry"]).bounds
    assert (round(west, 2), round(south, 2), round(east, 2), round(north, 2)) == (4.2, 44.28, 4.22, 44.3)


def test_a_product_that_is_not_read_is_named(tmp_path: Path) -> None:
    root = write_grd(tmp_path)
    (root / "manifest.safe").write_text((root / "manifest.safe").read_text().replace(">GRD<", ">SLC<"))
    with pytest.raises(CatalogError, match="is a SLC product; expected a Sentinel-1 GRD"):
        image_catalog([str(root)])
    write_safe(tmp_path, suffix=".tif")
    found = image_catalog([str(tmp_path)])
    assert [scene.sensor for scene in scenes(found)] == ["sentinel-2-l2a"]
    assert any("SLC" in left.why for left in found.left_out)


@pytest.mark.parametrize("broken", ["", "<a", "<a/>", '<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "\x00\xff"])
def test_broken_metadata_are_named(tmp_path: Path, broken: str) -> None:
    root = write_safe(tmp_path, suffix=".tif")
    (root / "MTD_MSIL2A.xml").write_text(broken)
    if broken == "<a/>":  # XML that says nothing: the names still do
        assert one(root).sensor == "sentinel-2-l2a"
        return
    with pytest.raises(CatalogError, match=r"MTD_MSIL2A\.xml"):
        one(root)


@settings(max_examples=8)
@given(cut=st.integers(0, 3_000), insert=st.binary(max_size=30))
def test_any_damage_of_metadata_is_our_error(cut: int, insert: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = _products(tmp_path_factory)
    for path in (
        next(folder.glob("*.SAFE/MTD*.xml")),
        next(folder.glob(f"{GRD}.SAFE/manifest.safe")),
        *folder.glob("*_MTL.*"),
    ):
        whole = path.read_bytes()
        path.write_bytes(whole[:cut] + insert + whole[cut:])
        with contextlib.suppress(CatalogError):
            image_catalog([str(folder)])
        path.write_bytes(whole)


_KEPT: list[Path] = []


def _products(factory: pytest.TempPathFactory) -> Path:
    """One folder with a product of each kind, written once."""
    if not _KEPT or not _KEPT[0].is_dir():
        folder = factory.mktemp("products")
        write_safe(folder, suffix=".tif")
        write_grd(folder)
        write_landsat(folder, form="txt")
        _KEPT[:] = [folder]
    return _KEPT[0]


# -- files by their names


def test_bands_of_one_name_are_one_image(tmp_path: Path) -> None:
    for band, step in (("B02_10m", 10), ("B04_10m", 10), ("B04_20m", 20), ("B8A_20m", 20), ("SCL_20m", 20)):
        folder = tmp_path / ("R10m" if step == 10 else "R20m")
        write_raster(folder / f"T31TFJ_20240504T105031_{band}.jp2", drawn(step, 1), step=step)
    catalog = image_catalog([str(tmp_path)])
    (scene,) = scenes(catalog)
    assert [source.band for source in scene.sources] == ["blue", "red", "nir08"]
    assert scene.sources[1].href.endswith("B04_10m.jp2")
    assert scene.sensor == "sentinel-2-l2a"
    assert [left.address.rpartition("/")[2] for left in catalog.left_out] == ["T31TFJ_20240504T105031_B04_20m.jp2"]


def test_two_dates_in_one_folder_are_two_images(tmp_path: Path) -> None:
    for day in ("20240504", "20240509"):
        for band in ("B03", "B04"):
            write_raster(tmp_path / f"T31TFJ_{day}T105031_{band}.tif", drawn(10, 1))
    assert [scene.datetime.day for scene in scenes(image_catalog([str(tmp_path)]))] == [4, 9]


def test_a_file_that_only_ends_like_a_band(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "2024-05-04_red.tif", np.full((3, 20, 20), 9, np.uint8), photometric="RGB")
    scene = one(path)
    assert [source.band for source in scene.sources] == ["blue", "green", "red"]


def test_planets_order_of_bands(tmp_path: Path) -> None:
    scene = one(
        write_raster(tmp_path / "20240504_105031_12_2455_3B_AnalyticMS_SR.tif", np.full((4, 20, 20), 900, np.uint16))
    )
    assert {source.band: source.index for source in scene.sources} == {"blue": 1, "green": 2, "red": 3, "nir": 4}
    assert (scene.sensor, scene.sources[0].calibration.scale) == ("optical-reflectance", 1e-4)


def test_descriptions_tell_bands(tmp_path: Path) -> None:
    values = np.full((4, 20, 20), 900, np.uint16)
    path = write_raster(tmp_path / "2024-05-04.tif", values, descriptions=("NIR", "Red", "green", "cloud mask"))
    assert {source.band: source.index for source in one(path).sources} == {"green": 3, "red": 2, "nir": 1}


@pytest.mark.parametrize("alpha", [False, True])
def test_a_picture_with_or_without_alpha(tmp_path: Path, alpha: bool) -> None:
    values = np.full((4 if alpha else 3, 20, 20), 90, np.uint8)
    path = write_raster(tmp_path / "2024-05-04.tif", values, photometric="RGB", ALPHA="YES" if alpha else "NO")
    scene = one(path)
    assert (scene.sensor, len(scene.sources)) == ("optical-uncalibrated", 3)


def test_four_unnamed_bands_are_refused_with_the_fix(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "2024-05-04.tif", np.full((4, 20, 20), 900, np.uint16))
    with pytest.raises(CatalogError, match="--bands blue,green,red,nir"):
        image_catalog([str(path)])
    scene = one(path, bands=("red", "green", "blue", "nir"))
    assert {source.band: source.index for source in scene.sources} == {"blue": 3, "green": 2, "red": 1, "nir": 4}
    with pytest.raises(CatalogError, match="has 4 bands, and 3 are named"):
        image_catalog([str(path)], bands=("red", "green", "blue"))


def test_one_band_is_thermal_only_if_it_says_so(tmp_path: Path) -> None:
    values = np.full((1, 20, 20), 295, np.float32)
    plain = write_raster(tmp_path / "a" / "2024-05-04.tif", values)
    with pytest.raises(CatalogError, match="--bands nir"):
        image_catalog([str(plain)])
    assert [source.band for source in one(plain, bands=("thermal",)).sources] == ["lwir11"]
    said = write_raster(
        tmp_path / "2024-05-04_surface-temperature-map.tif", values, descriptions=("land surface temperature",)
    )
    assert [source.band for source in one(said).sources] == ["lwir11"]


def test_radar_below_zero_is_in_decibels(tmp_path: Path) -> None:
    values = np.full((2, 40, 40), -14.0, np.float32)
    scene = one(write_raster(tmp_path / "S1A_2024-05-04.tif", values, descriptions=("VV", "VH")))
    assert scene.sensor == "sentinel-1-db"


def test_a_picture_with_a_world_file(tmp_path: Path) -> None:
    path = tmp_path / "hurricane_2018-10-11_post_disaster.png"
    write_raster(path, np.full((3, 30, 30), 90, np.uint8))
    for sidecar in tmp_path.glob("*.aux.xml"):
        assert one(path).sensor == "optical-uncalibrated"
        sidecar.unlink()
    (tmp_path / "hurricane_2018-10-11_post_disaster.pgw").write_text(f"0.5\n0\n0\n-0.5\n{WEST_M}\n{NORTH_M}\n")
    with pytest.raises(CatalogError, match="names no CRS"):
        image_catalog([str(path)])


# -- time


def test_the_order_of_what_tells_the_time(tmp_path: Path) -> None:
    values = np.full((3, 20, 20), 90, np.uint8)
    path = write_raster(tmp_path / "x.tif", values, photometric="RGB", tags={"TIFFTAG_DATETIME": "2020:01:02 03:04:05"})
    assert one(path).datetime.isoformat() == "2020-01-02T03:04:05+00:00"
    assert one(path, datetime="2021-01-01").datetime.year == 2020  # a request is no time of an image that tells its own
    assert one(f"{path}@2019-05-06").datetime.isoformat() == "2019-05-06T12:00:00+00:00"
    named = write_raster(
        tmp_path / "2018_07_16.tif", values, photometric="RGB", tags={"TIFFTAG_DATETIME": "2020:01:02 03:04:05"}
    )
    assert one(named).datetime.date().isoformat() == "2018-07-16"
    plain = write_raster(tmp_path / "y.tif", values, photometric="RGB")
    assert one(plain, datetime="2021-01-01").datetime.date().isoformat() == "2021-01-01"
    assert one(plain, datetime="2021-01-01T10:20:30Z").datetime.isoformat() == "2021-01-01T10:20:30+00:00"
    for request in (None, "2021", "2021-01-01/2021-02-01", "../2021-01-01"):
        with pytest.raises(CatalogError, match=r"nothing tells when .*y\.tif was taken"):
            image_catalog([str(plain)], datetime=request)


def test_before_and_after_are_two_observations(tmp_path: Path) -> None:
    values = np.full((3, 20, 20), 90, np.uint8)
    paths = [write_raster(tmp_path / f"{name}.tif", values, photometric="RGB") for name in ("before", "after")]
    found = image_catalog([f"{paths[0]}@2011-05-20", f"{paths[1]}@2011-05-24"])
    assert [o.datetime.day for o in observe(scenes(found))] == [20, 24]


# -- what is left out


def test_a_named_file_that_is_no_image_ends_the_job(tmp_path: Path) -> None:
    good = write_raster(tmp_path / "2024-05-04.tif", np.full((3, 20, 20), 90, np.uint8), photometric="RGB")
    for name, data in (
        ("2024-05-05.tif", b"II*\x00garbage"),
        ("2024-05-06.png", b""),
        ("2024-05-07.jpg", os.urandom(99)),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CatalogError, match=name):
            image_catalog([str(good), str(tmp_path / name)])
    unplaced = write_raster(tmp_path / "2024-05-08.tif", np.full((3, 20, 20), 90, np.uint8), crs=None)
    with pytest.raises(CatalogError, match=r"does not say where it lies.*names no CRS"):
        image_catalog([str(unplaced)])
    found = image_catalog([str(tmp_path)])  # scanned, they are left out by name
    assert len(scenes(found)) == 1
    assert {Path(left.address).name for left in found.left_out} == {
        "2024-05-05.tif", "2024-05-06.png", "2024-05-07.jpg", "2024-05-08.tif",
    }  # fmt: skip


def test_a_damaged_band_costs_that_band(tmp_path: Path) -> None:
    root = write_safe(tmp_path, suffix=".tif")
    (bad,) = root.rglob("*_B11_20m.tif")
    bad.write_bytes(bad.read_bytes()[:50])
    catalog = image_catalog([str(root)])
    (scene,) = scenes(catalog)
    assert "swir16" not in {source.band for source in scene.sources}
    assert str(bad) in {left.address for left in catalog.left_out}


def test_nothing_at_all(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="there is no image in"):
        image_catalog([str(tmp_path)])
    (tmp_path / "notes.tif").write_text("no image")
    with pytest.raises(CatalogError, match=r"none of the 1 files .*notes\.tif"):
        image_catalog([str(tmp_path)])


def test_names_of_strangers(tmp_path: Path) -> None:
    values = np.full((3, 8, 8), 90, np.uint8)
    good = 0
    for name in (
        "[red]2024-05-04",
        "a'b\"c 2024-05-05",
        "-rf 2024-05-06",
        "日本 2024-05-07",
        "%2e%2e 2024-05-08",
        "x\n2024-05-09",
        "a!b@2024-05-10",
    ):
        write_raster(tmp_path / f"{name}.tif", values, photometric="RGB")
        good += "\n" not in name
    catalog = image_catalog([str(tmp_path)])
    assert len(scenes(catalog)) == good
    assert [left.why for left in catalog.left_out] == ["its name cannot be printed"]


def test_a_virtual_file_in_disguise_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "2024-05-04.tif").write_text(
        '<VRTDataset rasterXSize="9" rasterYSize="9"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        "<SourceFilename>/vsicurl/http://127.0.0.1:9/x.tif</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(CatalogError, match="is no image that can be read"):
        image_catalog([str(tmp_path / "2024-05-04.tif")])


# -- ground


def test_the_outline_of_what_is_valid(tmp_path: Path) -> None:
    values = np.full((3, 400, 400), 90, np.uint8)
    values[:, :, 200:] = 0
    whole = np.full((3, 400, 400), 90, np.uint8)
    half = one(write_raster(tmp_path / "2024-05-04.tif", values, nodata=0, photometric="RGB"))
    full = one(write_raster(tmp_path / "2024-05-05.tif", whole, nodata=0, photometric="RGB"))
    share = shapely.from_wkb(half.footprint).area / shapely.from_wkb(full.footprint).area
    assert 0.5 <= share < 0.52


def test_across_the_antimeridian(tmp_path: Path) -> None:
    values = np.full((3, 100, 100), 90, np.uint8)
    path = write_raster(
        tmp_path / "2024-05-04.tif", values, step=0.01, crs="EPSG:4326", corner=(179.5, -17.0), photometric="RGB"
    )
    catalog = image_catalog([str(path)])
    (found,) = catalog.items(Wanted())
    assert found.item["bbox"] == pytest.approx([179.5, -18.0, -179.5, -17.0])
    parts = shapely.get_parts(catalog.footprint)
    assert sorted(round(float(part.bounds[0]), 3) for part in parts) == [-180.0, 179.5]


# -- as a catalogue


def test_searched_like_any_catalogue(tmp_path: Path) -> None:
    write_safe(tmp_path, suffix=".tif")
    write_landsat(tmp_path / "landsat")
    catalog = image_catalog([str(tmp_path)])
    found = find_scenes(catalog, shapely.box(4.26, 44.23, 4.27, 44.24), datetime="2024-05-04/2024-05-05")
    assert {scene.sensor for scene in found.scenes} == {"sentinel-2-l2a", "landsat-c2-l2"}
    assert set(catalog.collections()) == {"sentinel-2-l2a", "landsat-c2-l2"}
    both = JoinedCatalog([catalog, MemoryCatalog([], address="nothing")])
    assert len(find_scenes(both, None).scenes) == 2
    assert set(both.collections()) == set(catalog.collections())


def test_a_changed_file_is_another_scene(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "2024-05-04.tif", np.full((3, 20, 20), 90, np.uint8), photometric="RGB")
    before, key = one(path), images_key([str(path)])
    assert one(path) == before
    write_raster(path, np.full((3, 20, 20), 91, np.uint8), photometric="RGB")
    assert one(path).content_key() != before.content_key()
    assert images_key([str(path)]) != key


def test_behind_a_server(tmp_path: Path) -> None:
    write_raster(tmp_path / "2024-05-04.tif", np.full((3, 40, 40), 90, np.uint8), photometric="RGB")
    pack_zip(write_safe(tmp_path, suffix=".tif"), tmp_path / "S2.zip")
    with file_server(tmp_path) as server:
        near, far = one(tmp_path / "2024-05-04.tif"), one(f"{server.address}/2024-05-04.tif")
        assert (far.sensor, far.datetime, far.footprint) == (near.sensor, near.datetime, near.footprint)
        scene = one(f"{server.address}/S2.zip")
        assert all(source.href.startswith("zip+http://") for source in scene.sources)
        stored = drawn(10, 2)[0, :40, :40].astype(np.float32)
        np.testing.assert_allclose(read(scene, "red"), stored * 1e-4 - 0.1, atol=1e-6)


def _many(folder: Path, count: int) -> None:
    """`count` files, every second one an image."""
    values = np.full((3, 8, 8), 90, np.uint8)
    first = write_raster(folder / "0_2024-05-04.tif", values, photometric="RGB").read_bytes()
    for number in range(1, count):
        (folder / f"{number}_2024-05-04.{'txt' if number % 2 else 'tif'}").write_bytes(first)


def test_headers_are_read_once_for_all_that_ask(tmp_path: Path) -> None:
    _many(tmp_path, 200)
    said: list[str] = []
    catalog = image_catalog([str(tmp_path)], say=said.append)
    assert len(catalog.ids) == len(set(catalog.ids)) == 100
    assert said == ["reading what 100 image files say of themselves"]
    assert image_catalog([str(tmp_path)]) is catalog


@pytest.mark.slow
def test_five_thousand_files(tmp_path: Path) -> None:
    _many(tmp_path, 5_000)
    said: list[str] = []
    started = time.process_time()
    catalog = image_catalog([str(tmp_path)], say=said.append)
    assert time.process_time() - started < 25.0  # 9 s alone on one core
    assert len(catalog.ids) == 2_500
    assert said[:2] == ["2,000 files looked at", "4,000 files looked at"]


def test_a_folder_of_time_series_is_its_steps(real_data: Path) -> None:
    """Bands of 10 and 20 m lie in files of their own; what is no band of a sensor is left out and named."""
    catalog = image_catalog([str(real_data / "01_s1_s2_l8_timeseries" / "00002806639B424A")])
    found = find_scenes(catalog, catalog.footprint, datetime="2018-05")
    counts = Counter(scene.sensor for scene in found.scenes)
    assert counts["sentinel-1-db"] >= 10
    assert counts["sentinel-2-l2a"] > 5
    stepped = [scene for scene in found.scenes if "#" in scene.sources[0].href and scene.sensor == "sentinel-2-l2a"]
    assert {"red", "nir", "swir16"} <= {source.band for source in stepped[0].sources}
    assert [one.address.rpartition("/")[2].partition("_")[0] for one in catalog.left_out] == ["AgERA5", "OUTPUT"]


def test_a_damaged_time_series_is_named(tmp_path: Path) -> None:
    (tmp_path / "S2_L2A.nc").write_bytes(b"\x89HDF\r\n\x1a\n and no more")
    with pytest.raises(CatalogError, match=r"S2_L2A\.nc cannot be read"):
        image_catalog([str(tmp_path / "S2_L2A.nc")])
    with pytest.raises(CatalogError, match=r"none of the 1 files .*S2_L2A\.nc: it cannot be read"):
        image_catalog([str(tmp_path)])


def test_what_was_assumed_of_a_file_reaches_its_scene(tmp_path: Path) -> None:
    path = write_raster(
        tmp_path / "field.tif", np.full((3, 64, 64), 90, np.uint8), tags={"TIFFTAG_DATETIME": "2024:05:04 10:30:00"}
    )
    catalog = image_catalog([str(path)])
    (scene,) = find_scenes(catalog, catalog.footprint).scenes
    assert "time from the file's own tag, which may be that of processing" in scene.notes


# -- files beside, and files that cannot be read in place

_ESRI = (
    'PROJCS["WGS_1984_UTM_Zone_31N",GEOGCS["GCS_WGS_1984",DATUM["D_WGS_1984",SPHEROID["WGS_1984",6378137.0,'
    '298.257223563]],PRIMEM["Greenwich",0.0],UNIT["Degree",0.0174532925199433]],PROJECTION["Transverse_Mercator"],'
    'PARAMETER["False_Easting",500000.0],PARAMETER["False_Northing",0.0],PARAMETER["Central_Meridian",3.0],'
    'PARAMETER["Scale_Factor",0.9996],PARAMETER["Latitude_Of_Origin",0.0],UNIT["Meter",1.0]]'
)


def _unplaced(folder: Path, name: str) -> Path:
    path = write_raster(folder / name, np.full((3, 64, 64), 90, np.uint8), crs=None)
    Path(f"{path}.aux.xml").unlink(missing_ok=True)
    for ending in (".wld", ".tfw", ".pgw", ".jgw"):
        path.with_suffix(ending).write_text(f"10\n0\n0\n-10\n{WEST_M + 5}\n{NORTH_M - 5}\n")
    return path


@pytest.mark.parametrize("name", ["field_2024-05-04.png", "field_2024-05-04.jpg", "field_2024-05-04.tif"])
@pytest.mark.parametrize("wkt", ["esri", "ogc"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "zip"])
def test_a_world_file_and_a_prj_place_a_picture(name: str, wkt: str, packed: bool, tmp_path: Path) -> None:
    from rasterio.crs import CRS

    path = _unplaced(tmp_path / "in", name)
    path.with_suffix(".prj").write_text(_ESRI if wkt == "esri" else CRS.from_epsg(32631).to_wkt())
    scene = one(pack_zip(path.parent, tmp_path / "in.zip") if packed else path)
    assert scene.resolution_m == 10.0
    assert np.allclose(read(scene, "red"), 90.0, atol=2.0)


@pytest.mark.parametrize("text", [None, "", "no WKT", "PROJCS[" * 5_000, "\x00\xff"])
def test_a_prj_that_says_nothing_places_nothing(text: str | None, tmp_path: Path) -> None:
    path = _unplaced(tmp_path, "field_2024-05-04.png")
    if text is not None:
        path.with_suffix(".prj").write_bytes(text.encode("latin-1"))
    with pytest.raises(CatalogError, match=r"names no CRS.*in a \.prj beside it"):
        one(path)


def test_a_changed_prj_is_another_version(tmp_path: Path) -> None:
    path = _unplaced(tmp_path, "field_2024-05-04.png")
    before = images_key([str(path)])
    path.with_suffix(".prj").write_text(_ESRI)
    assert images_key([str(path)]) != before


@pytest.mark.parametrize("name", ["scene.tar.gz", "scene.tgz", "scene.TAR.BZ2", "scene.tar.xz"])
def test_a_compressed_tar_says_what_to_do(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"\x1f\x8b")
    for where in (path, tmp_path):
        with pytest.raises(CatalogError, match=r"unpack it \(tar -xf\) and give the folder"):
            one(where)
    with pytest.raises(CatalogError, match=r"unpack it \(tar -xf\) and give the folder"):
        one(f"http://127.0.0.1:1/{name}?x=1")


def test_an_object_that_is_replaced_is_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same size, same address: the service's tag and time tell."""
    import boto3  # type: ignore[import-untyped]

    first = write_raster(tmp_path / "a.tif", drawn(10, 1), descriptions=("red",)).read_bytes()
    second = write_raster(tmp_path / "b.tif", drawn(10, 2), descriptions=("red",)).read_bytes()
    with s3_server(tmp_path) as server:
        for key, value in server.env.items():
            monkeypatch.setenv(key, value)
        client = boto3.client("s3", endpoint_url=server.endpoint)
        address = f"{server.address}/field_2024-05-04.tif"
        seen = []
        for data in (first, first, second):
            client.put_object(Bucket=server.bucket, Key="field_2024-05-04.tif", Body=data)
            seen.append((images_key([address]), one(address).id))
            assert images_key([address]) == seen[-1][0]
        assert images_key([f"{server.address}/gone.tif"])  # reading it says what is wrong
    assert seen[2][0] != seen[0][0]
    assert seen[2][1] != seen[0][1]


def test_what_is_left_out_is_named_once(tmp_path: Path) -> None:
    """Broken, without a place, without a date, without a known band, and a product that is none."""
    write_raster(tmp_path / "good_2024-05-04.tif", np.full((3, 20, 20), 90, np.uint8))
    (tmp_path / "broken_2024-05-04.tif").write_text("no image")
    write_raster(tmp_path / "nowhere_2024-05-04.tif", np.full((3, 20, 20), 90, np.uint8), crs=None)
    write_raster(tmp_path / "undated.tif", np.full((3, 20, 20), 90, np.uint8))
    write_raster(tmp_path / "unknown_2024-05-04.tif", np.full((2, 20, 20), 90, np.uint16))
    (tmp_path / "S2.SAFE").mkdir()
    (tmp_path / "S2.SAFE" / "MTD_MSIL2A.xml").write_text("<a/>")
    (tmp_path / "series.nc").write_text("no series")
    left_out = image_catalog([str(tmp_path)]).left_out
    assert {Path(one.address).name.partition("_")[0] for one in left_out} >= {
        "broken",
        "nowhere",
        "undated.tif",
        "unknown",
    }
    for one_left in left_out:
        assert one_left.address not in one_left.why, one_left.why
        assert "it" in one_left.why.split()
