"""A drawn world on disk: what is read back is what was drawn, under a catalogue that others can read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from earthmap.catalog.items import scene_from_item
from earthmap.errors import CatalogError, StorageError
from earthmap.synthetic import World, plan_scenes, small_world, truth_on, write_world
from earthmap.synthetic.catalog import bbox_of
from earthmap.synthetic.scenes import footprint


def records(catalog: Path, collection: str = "*") -> list[tuple[Path, dict[str, Any]]]:
    paths = sorted(catalog.parent.glob(f"{collection}/*/*.json"))
    assert paths
    return [(path, json.loads(path.read_text())) for path in paths]


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_labels_on_disk_are_the_truth(drawn_world: World, drawn_catalog: Path) -> None:
    for path, item in records(drawn_catalog):
        scene = scene_from_item(item, base=str(path))
        with rasterio.open(path.parent / item["assets"]["labels"]["href"]) as file:
            box = GeoBox(file.shape, file.transform, str(file.crs))
            np.testing.assert_array_equal(file.read(1), truth_on(drawn_world, box, scene.datetime))
            assert file.nodata == 255


def test_another_lattice_agrees_up_to_the_edges(drawn_world: World, drawn_catalog: Path) -> None:
    path, item = records(drawn_catalog, "drawn-sentinel-1")[0]
    with rasterio.open(path.parent / "labels.tif") as file:
        labels = file.read(1)
        box = GeoBox(file.shape, file.transform, str(file.crs))
    finer = GeoBox(
        (box.shape[0] * 3, box.shape[1] * 3),
        Affine(box.affine.a / 3, 0, box.affine.c, 0, box.affine.e / 3, box.affine.f),
        box.crs,
    )
    truth = truth_on(drawn_world, finer, scene_from_item(item, base=str(path)).datetime)
    repeated = labels.repeat(3, 0).repeat(3, 1)
    np.testing.assert_array_equal(truth[1::3, 1::3], labels)
    assert (truth == repeated).mean() > 0.9
    edges = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        for way in (-1, 1):
            edges |= np.roll(labels, way, axis) != labels
    inner = ~edges.repeat(3, 0).repeat(3, 1)
    assert (truth[inner] == repeated[inner]).mean() > 0.97


def test_scenes_of_a_pass_agree_where_they_overlap(drawn_catalog: Path) -> None:
    for collection, name in (
        ("drawn-sentinel-2-l2a", "B03"), ("drawn-sentinel-2-l2a", "B11"), ("drawn-sentinel-2-l2a", "SCL"),
        ("drawn-sentinel-1", "vv"), ("drawn-aerial", "image"),
    ):  # fmt: skip
        for first in range(0, 4, 2):
            pair = [path.parent / f"{name}.tif" for path, _ in records(drawn_catalog, collection)[first : first + 2]]
            with rasterio.open(pair[0]) as west, rasterio.open(pair[1]) as east:
                shift = round((east.transform.c - west.transform.c) / west.transform.a)
                width = west.width - shift
                assert 0 < width < west.width
                one, other = west.read()[:, :, shift:], east.read()[:, :, :width]
            np.testing.assert_array_equal(one, other)


def test_files_are_cloud_optimised(drawn_catalog: Path, tmp_path: Path) -> None:
    with rasterio.open(drawn_catalog.parent.glob("drawn-sentinel-2-l2a/*_0/B02.tif").__next__()) as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    catalog = write_world(small_world(size_m=9000, cloud_share=0.3), tmp_path, sensors=("sentinel-2",), columns=1)
    folder = records(catalog)[1][0].parent
    with rasterio.open(folder / "SCL.tif") as classes, rasterio.open(folder / "B02.tif") as band:
        assert band.overviews(1) == [2, 4]
        assert classes.overviews(1) == [2]
        assert band.profile["blockxsize"] == 256
    with rasterio.open(folder / "SCL.tif", overview_level=0) as small, rasterio.open(folder / "SCL.tif") as full:
        assert set(np.unique(small.read(1))) <= set(np.unique(full.read(1)))


def test_the_same_world_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = small_world(2, size_m=1200)
    for name, workers in (("a", 1), ("b", 3)):
        monkeypatch.setattr("earthmap.synthetic.catalog._WORKERS", workers)
        write_world(world, tmp_path / name, sensors=("sentinel-2", "sentinel-1", "rgb"))
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    other = digest(write_world(small_world(3, size_m=1200), tmp_path / "c").parent)
    shared = set(other) & set(digest(tmp_path / "a"))
    assert all(other[name] != digest(tmp_path / "a")[name] for name in shared if name.endswith("B03.tif"))


@pytest.mark.parametrize("place", [(3.5, 45.7), (180.0, -17.0), (16.0, 78.5), (6.0, 45.0), (20.0, 90.0)])
def test_catalogues_are_valid_and_read_by_others(place: tuple[float, float], tmp_path: Path) -> None:
    world = small_world(2, place=place, size_m=1800)
    path = write_world(world, tmp_path, sensors=("sentinel-2", "sentinel-1", "rgb"))
    catalog = pystac.Catalog.from_file(str(path))
    validator = JsonSchemaSTACValidator()  # carries the core schemas: no network
    for collection in catalog.get_children():
        validator.validate_core(collection.to_dict(), pystac.STACObjectType.COLLECTION, "1.1.0")
    items = list(catalog.get_items(recursive=True))
    assert len(items) == 12
    for item in items:
        validator.validate_core(item.to_dict(), pystac.STACObjectType.ITEM, "1.1.0")
        assert World.from_dict(item.properties["earthmap:world"]) == world
        for asset in item.get_assets().values():
            with rasterio.open(asset.get_absolute_href()) as file:
                assert list(file.shape) == asset.extra_fields["proj:shape"]
                assert list(file.transform)[:6] == asset.extra_fields["proj:transform"]
                assert str(file.crs) == asset.extra_fields["proj:code"]


def test_every_link_and_file_is_relative_and_there(drawn_catalog: Path) -> None:
    for path in drawn_catalog.parent.rglob("*.json"):
        record = json.loads(path.read_text())
        hrefs = [link["href"] for link in record["links"]]
        hrefs += [asset["href"] for asset in record.get("assets", {}).values()]
        assert hrefs
        for href in hrefs:
            assert href.startswith("."), href
            assert (path.parent / href).is_file()


def test_cloud_cover_is_that_of_the_drawn_classes(drawn_catalog: Path) -> None:
    covers = []
    for path, item in records(drawn_catalog, "drawn-sentinel-2-l2a"):
        with rasterio.open(path.parent / "SCL.tif") as file:
            scl = file.read(1)
        covers.append(item["properties"]["eo:cloud_cover"])
        assert covers[-1] == pytest.approx(100 * np.isin(scl, (8, 9, 10)).sum() / (scl > 0).sum(), abs=1e-3)
    assert max(covers) > 1
    assert min(covers) == 0


def test_footprints_are_split_at_the_antimeridian() -> None:
    world = small_world(3, place=(180.0, -17.0))
    west, east = (scene.geobox for scene in plan_scenes(world, sensors=("sentinel-1",))[:2])
    assert (str(west.crs), str(east.crs)) == ("EPSG:32760", "EPSG:32701")
    for box in (west, east):
        ground = footprint(world, box)
        assert ground.geom_type == "MultiPolygon"
        assert ground.is_valid
        left, _, right, _ = bbox_of(ground)
        assert 179 < left < 180
        assert -180 < right < -179


def test_a_world_over_two_zones_is_drawn_in_both() -> None:
    scenes = plan_scenes(small_world(3, place=(6.0, 45.0)), sensors=("sentinel-2",))
    assert [str(scene.geobox.crs) for scene in scenes[:2]] == ["EPSG:32631", "EPSG:32632"]
    assert scenes[0].pass_start == scenes[1].pass_start


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    for options in ({"sensors": ("landsat",)}, {"sensors": ()}, {"columns": 0}, {"overlap": 1.0}):
        with pytest.raises(CatalogError):
            write_world(small_world(), tmp_path, **options)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        write_world(small_world(size_m=600), tmp_path / "file")
