"""Static catalogues of STAC 0.7 to 1.1, with every kind of link, on disk and over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from earthmap.catalog import static
from earthmap.catalog.search import open_catalog, search_items
from earthmap.catalog.source import Wanted, inherit
from earthmap.connection import Connection
from earthmap.errors import CatalogError
from tests import servers
from tests.servers import FileServer, file_server, small_api

Document = dict[str, Any]

BOX = [10.0, 50.0, 11.0, 51.0]
GROUND = {"type": "Polygon", "coordinates": [[[10, 50], [11, 50], [11, 51], [10, 51], [10, 50]]]}


def old_item(name: str, version: str, **properties: Any) -> Document:
    """An item that leaves to its collection what the commons extension allows."""
    return {
        "type": "Feature",
        "stac_version": version,
        "id": name,
        "bbox": BOX,
        "geometry": GROUND,
        "properties": {"datetime": "2019-06-01T00:00:00Z", **properties},
        "links": [],
        "assets": {"B4": {"href": f"./{name}.tif"}},
    }


def old_collection(version: str) -> Document:
    """A Collection without a type, its extent in the form of its version."""
    flat = version.startswith("0.7")
    return {
        "stac_version": version,
        "id": "landsat",
        "description": "drawn",
        "license": "PDDL-1.0",
        "extent": {
            "spatial": BOX if flat else {"bbox": [BOX]},
            "temporal": ["2019-01-01T00:00:00Z", None] if flat else {"interval": [["2019-01-01T00:00:00Z", None]]},
        },
        "properties": {"eo:platform": "landsat-8", "eo:gsd": 30},
    }


def write(path: Path, document: Document) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def write_old(folder: Path, version: str, *, base: str = "") -> Path:
    """A catalogue of a version before 1.0; with a base its links are absolute."""
    root = {"stac_version": version, "id": "root", "description": "drawn"}
    child = {"rel": "child", "href": f"{base}landsat/catalog.json" if base else "landsat/catalog.json"}
    write(folder / "catalog.json", {**root, "links": [{"rel": "self", "href": "x"}, child]})
    items = [
        {"rel": "item", "href": f"{base}landsat/{name}/item.json" if base else f"./{name}/item.json"} for name in "ab"
    ]
    up = {"rel": "root", "href": "../catalog.json"}
    write(folder / "landsat" / "catalog.json", {**old_collection(version), "links": [up, *items]})
    write(folder / "landsat" / "a" / "item.json", old_item("a", version))
    write(folder / "landsat" / "b" / "item.json", old_item("b", version, **{"eo:gsd": 15}))
    return folder / "catalog.json"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    with file_server(tmp_path) as state:
        yield state


@pytest.mark.parametrize("version", ["0.7.0", "0.8.1", "0.9.0"])
@pytest.mark.parametrize("links", ["disk", "relative", "absolute", "rooted"])
def test_old_versions_are_walked(version: str, links: str, tmp_path: Path, server: FileServer) -> None:
    base = {"absolute": f"{server.address}/", "rooted": "/"}.get(links, "")
    path = write_old(tmp_path, version, base=base)
    source = open_catalog(str(path) if links == "disk" else f"{server.address}/catalog.json")
    assert {name: extent.bbox for name, extent in source.collections().items()} == {"landsat": tuple(BOX)}
    first, second = search_items(source, Wanted(collections=("landsat",)))
    assert (first.id, first.item["collection"]) == ("a", "landsat")
    assert first.item["properties"]["eo:platform"] == "landsat-8"
    assert [one.item["properties"]["eo:gsd"] for one in (first, second)] == [30, 15]
    assert first.base.endswith("landsat/a/item.json")


def test_properties_of_a_collection_are_no_longer_common_since_1() -> None:
    collection = {**old_collection("0.9.0"), "type": "Collection", "stac_version": "1.0.0"}
    item = inherit(old_item("a", "1.0.0"), collection)
    assert "eo:platform" not in item["properties"]
    assert item["collection"] == "landsat"
    assert inherit(old_item("a", "0.9.0"), {"type": "Catalog", "id": "x", "links": []}) == old_item("a", "0.9.0")


def test_items_as_one_collection_of_features(tmp_path: Path) -> None:
    collection = {**old_collection("1.0.0"), "type": "Collection", "links": [{"rel": "items", "href": "items.json"}]}
    write(tmp_path / "collection.json", collection)
    features = [old_item(name, "1.0.0") for name in "ab"]
    write(tmp_path / "items.json", {"type": "FeatureCollection", "features": features})
    found = search_items(open_catalog(str(tmp_path)), Wanted())
    assert [(one.collection, one.id) for one in found] == [("landsat", "a"), ("landsat", "b")]
    write(tmp_path / "items.json", {"type": "FeatureCollection", "features": [GROUND]})
    with pytest.raises(CatalogError, match="not STAC"):
        search_items(open_catalog(str(tmp_path)), Wanted())


def test_a_collection_named_among_the_properties(tmp_path: Path) -> None:
    items = [old_item("a", "0.7.0", collection="landsat"), old_item("b", "0.7.0", collection="other")]
    write(tmp_path / "items.json", {"type": "FeatureCollection", "features": items})
    source = open_catalog(str(tmp_path / "items.json"))
    assert [one.id for one in search_items(source, Wanted(collections=("landsat",)))] == ["a"]


def test_an_old_api_leaves_properties_to_its_collections(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [{**old_item(name, "0.9.0"), "collection": "landsat"} for name in "ab"]
    plain = servers._ApiHandler._answer

    def with_properties(handler: Any, status: int, value: Any) -> None:
        if "collections" in value:
            value = {"collections": [{**old_collection("0.9.0"), "links": []}], "links": []}
        plain(handler, status, value)

    monkeypatch.setattr(servers._ApiHandler, "_answer", with_properties)
    with small_api(items) as service:
        found = search_items(open_catalog(service.address), Wanted())
    assert [one.item["properties"]["eo:platform"] for one in found] == ["landsat-8", "landsat-8"]


def test_circles_end(tmp_path: Path) -> None:
    root = {"type": "Catalog", "stac_version": "1.0.0", "id": "root", "description": "drawn"}
    children = [{"rel": "child", "href": href} for href in ("./catalog.json", "a/../catalog.json", "b.json", "b.json")]
    write(tmp_path / "catalog.json", {**root, "links": children})
    write(tmp_path / "b.json", {**root, "id": "b", "links": [*children, {"rel": "item", "href": "item.json"}]})
    write(tmp_path / "item.json", old_item("a", "1.0.0"))
    assert len(list(open_catalog(str(tmp_path)).items(Wanted()))) == 1


def test_long_lists_of_items_come_in_order_and_are_told(
    tmp_path: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(static, "_AT_ONCE", 5)
    monkeypatch.setattr(static, "_REPORTED", 10)
    names = [f"n{number:02}" for number in range(23)]
    links = [{"rel": "item", "href": f"{name}.json"} for name in names]
    write(tmp_path / "catalog.json", {**old_collection("1.0.0"), "type": "Collection", "links": links})
    for name in names:
        write(tmp_path / f"{name}.json", old_item(name, "1.0.0"))
    server.faults["/n07.json"] = "missing"
    told: list[str] = []
    source = open_catalog(f"{server.address}/catalog.json", connection=Connection(backoff_s=0.01), say=told.append)
    with pytest.raises(CatalogError, match=r"n07\.json answered 404"):
        list(source.items(Wanted()))
    assert not [line for line in server.requests if "n15" in line], "no more is fetched than is given on"
    server.faults.clear()
    assert [found.id for found in source.items(Wanted())] == names
    assert [line.split()[0] for line in told] == ["10", "20"]
