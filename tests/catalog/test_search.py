"""Every kind of catalogue gives the same items and scenes, and says clearly why it cannot."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import datetime
import json
import re
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import shapely
import shapely.geometry
from hypothesis import given
from hypothesis import strategies as st

from earthmap.catalog.api import coarsen
from earthmap.catalog.documents import join
from earthmap.catalog.intervals import Interval, parse_datetime
from earthmap.catalog.scene import Scene
from earthmap.catalog.search import find_scenes, open_catalog, search_items
from earthmap.catalog.source import CatalogSource, Extent, MemoryCatalog, SourceItem, Wanted, item_geometry
from earthmap.errors import CatalogError, EarthmapError, JobError, SensorError
from tests.servers import file_server, pgstac_missing, stac_api

Item = dict[str, Any]

AREA = shapely.box(10.0, 50.0, 11.0, 51.0)


def item(name: str, collection: str, time: str, ground: Any, **properties: Any) -> Item:
    """A small valid item with one asset beside it."""
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": name,
        "collection": collection,
        "geometry": shapely.geometry.mapping(ground),
        "bbox": list(ground.bounds),
        "properties": {"datetime": time, **properties},
        "links": [],
        "assets": {"B04": {"href": f"http://127.0.0.1:9/{name}.tif", "type": "image/tiff"}},
    }


def drawn_items() -> list[Item]:
    """Two collections with items inside, beside and across the area, in and out of June 2024."""
    corner = shapely.Polygon([(9.0, 50.9), (10.1, 52.0), (9.0, 52.0)])  # its box meets the area, its ground does not
    return [
        item("late", "optical", "2024-06-30T23:59:59.500000Z", shapely.box(10.2, 50.2, 10.4, 50.4)),
        item(
            "early",
            "optical",
            "2024-06-01T00:00:00Z",
            shapely.box(10.9, 50.9, 12.0, 52.0),
            created="2024-07-01T00:00:00Z",
        ),
        item("before", "optical", "2024-05-31T23:59:59Z", shapely.box(10.2, 50.2, 10.4, 50.4)),
        item("beside", "optical", "2024-06-15T10:00:00Z", corner),
        item("far", "optical", "2024-06-15T10:00:00Z", shapely.box(-70.0, -10.0, -69.0, -9.0)),
        item("b", "radar", "2024-06-15T05:00:00Z", shapely.box(9.0, 49.0, 12.0, 52.0)),
        item("a", "radar", "2024-06-15T05:00:00Z", shapely.box(9.0, 49.0, 12.0, 52.0)),
        item(
            "long",
            "radar",
            "2024-05-01T00:00:00Z",
            shapely.box(10.0, 50.0, 10.5, 50.5),
            start_datetime="2024-04-01T00:00:00Z",
            end_datetime="2024-06-02T00:00:00Z",
        ),
    ]


def collections_of(items: list[Item]) -> list[Item]:
    extents = MemoryCatalog(items, address="").collections()
    return [
        {
            "type": "Collection",
            "stac_version": "1.0.0",
            "id": name,
            "description": name,
            "license": "other",
            "links": [],
            "extent": {
                "spatial": {"bbox": [list(extent.bbox or ())]},
                "temporal": {"interval": [[str(Interval(start=t, end=t)) for t in _ends(extent.interval)]]},
            },
        }
        for name, extent in extents.items()
    ]


def _ends(interval: Interval | None) -> tuple[datetime.datetime | None, datetime.datetime | None]:
    return (interval.start, interval.end) if interval else (None, None)


def write_static(folder: Path, items: list[Item]) -> Path:
    """`items` as a static catalogue: a root, a catalogue inside it, collections, items."""
    (folder / "inner").mkdir(parents=True)
    children = []
    for collection in collections_of(items):
        place = folder / "inner" / collection["id"]
        place.mkdir()
        members = [entry for entry in items if entry["collection"] == collection["id"]]
        for number, member in enumerate(members):
            (place / f"{number}.json").write_text(json.dumps(member))
        links = [{"rel": "item", "href": f"./{number}.json"} for number in range(len(members))]
        links.append({"rel": "parent", "href": "../catalog.json"})
        (place / "collection.json").write_text(json.dumps({**collection, "links": links}))
        children.append({"rel": "child", "href": f"{collection['id']}/collection.json"})
    root = {"type": "Catalog", "id": "root", "stac_version": "1.0.0", "description": "drawn"}
    inner = {**root, "id": "inner", "links": [*children, {"rel": "child", "href": "../catalog.json"}]}
    (folder / "inner" / "catalog.json").write_text(json.dumps(inner))
    outer = {**root, "links": [{"rel": "child", "href": "./inner/catalog.json"}]}
    (folder / "catalog.json").write_text(json.dumps(outer))
    return folder / "catalog.json"


def write_items(folder: Path, items: list[Item]) -> Path:
    path = folder / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return path


class CatalogSourceTests:
    """What any source of items must do; a subclass gives `source`, which serves `drawn_items()`."""

    def names(self, source: CatalogSource, **wanted: Any) -> list[str]:
        return [f"{found.collection}/{found.id}" for found in search_items(source, Wanted(**wanted))]

    def test_everything_sorted(self, source: CatalogSource) -> None:
        optical = ["before", "early", "beside", "far", "late"]
        assert self.names(source) == [f"optical/{name}" for name in optical] + ["radar/long", "radar/a", "radar/b"]

    def test_ground_and_time_and_collection(self, source: CatalogSource) -> None:
        june = parse_datetime("2024-06")
        radar = ["radar/long", "radar/a", "radar/b"]
        assert self.names(source, geometry=AREA, interval=june) == ["optical/early", "optical/late", *radar]
        assert self.names(source, geometry=AREA, interval=june, collections=("radar",)) == radar
        assert self.names(source, interval=parse_datetime("../2024-05-31T23:59:59Z")) == [
            "optical/before",
            "radar/long",
        ]
        assert self.names(source, interval=parse_datetime("2024-06-30T23:59:59.4Z/..")) == ["optical/late"]

    def test_many_corners_ask_for_no_more(self, source: CatalogSource) -> None:
        circle = shapely.Point(10.3, 50.3).buffer(0.2, quad_segs=2_000)
        june = parse_datetime("2024-06-20/2024-06-30")
        assert self.names(source, geometry=circle, interval=june) == ["optical/late"]

    def test_collections(self, source: CatalogSource) -> None:
        extents = source.collections()
        assert list(extents) == ["optical", "radar"]
        assert extents["radar"].bbox == pytest.approx((9.0, 49.0, 12.0, 52.0))
        assert str(extents["radar"].interval).startswith("2024-04-01T00:00:00Z/2024-06-15T05:00:00")

    def test_items_come_whole(self, source: CatalogSource) -> None:
        (found,) = search_items(source, Wanted(collections=("optical",), interval=parse_datetime("2024-06-01")))
        assert shapely.equals(item_geometry(found.item), shapely.box(10.9, 50.9, 12.0, 52.0))
        assert found.item["assets"]["B04"]["href"] == "http://127.0.0.1:9/early.tif"
        assert found.item["properties"]["created"].startswith("2024-07-01")
        assert "start_datetime" not in found.item["properties"]

    def test_unknown_collection(self, source: CatalogSource) -> None:
        with pytest.raises(
            CatalogError, match=r"no collection 'Radr'.*expected one of radar, optical.*--collection radar"
        ):
            search_items(source, Wanted(collections=("radar", "Radr")))

    def test_nothing_at_this_time(self, source: CatalogSource) -> None:
        with pytest.raises(CatalogError, match=r"6 items have other times, from 2024-04-01T00.*another --datetime"):
            search_items(source, Wanted(geometry=AREA, interval=parse_datetime("2019")))

    def test_nothing_at_this_place(self, source: CatalogSource) -> None:
        with pytest.raises(CatalogError, match=r"no item .*radar covers 9,49,12,52 from 2024-04-01 to 2024-06-15"):
            search_items(source, Wanted(geometry=shapely.box(100, 0, 101, 1)))


class TestMemory(CatalogSourceTests):
    @pytest.fixture
    def source(self) -> CatalogSource:
        return MemoryCatalog(drawn_items(), address="memory")


class TestStaticFolder(CatalogSourceTests):
    @pytest.fixture
    def source(self, tmp_path: Path) -> CatalogSource:
        return open_catalog(str(write_static(tmp_path / "static", drawn_items()).parent))


class TestStaticOverHttp(CatalogSourceTests):
    @pytest.fixture
    def source(self, tmp_path: Path) -> Iterator[CatalogSource]:
        write_static(tmp_path, drawn_items())
        with file_server(tmp_path) as server:
            yield open_catalog(f"{server.address}/catalog.json")


class TestItemCollection(CatalogSourceTests):
    @pytest.fixture
    def source(self, tmp_path: Path) -> CatalogSource:
        return open_catalog(str(write_items(tmp_path, drawn_items())))


class TestItemCollectionOverHttp(CatalogSourceTests):
    @pytest.fixture
    def source(self, tmp_path: Path) -> Iterator[CatalogSource]:
        write_items(tmp_path, drawn_items())
        with file_server(tmp_path) as server:
            yield open_catalog(f"{server.address}/items.json")


def write_parquet(path: Path, items: list[Item]) -> Path:
    arrow = pytest.importorskip("stac_geoparquet.arrow", reason="stac-geoparquet is not installed to write a file with")
    arrow.to_parquet(arrow.parse_stac_items_to_arrow(copy.deepcopy(items)), path)
    return path


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
class TestParquet(CatalogSourceTests):
    @pytest.fixture
    def source(self, tmp_path: Path) -> CatalogSource:
        return open_catalog(str(write_parquet(tmp_path / "named.anything", drawn_items())))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
class TestParquetOverHttp(CatalogSourceTests):
    @pytest.fixture
    def source(self, tmp_path: Path) -> Iterator[CatalogSource]:
        write_parquet(tmp_path / "items.parquet", drawn_items())
        with file_server(tmp_path) as server:
            yield open_catalog(f"{server.address}/items.parquet")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a STAC API that serves `drawn_items()`."""
    if reason := pgstac_missing():
        pytest.skip(reason)
    items = drawn_items()
    with stac_api(tmp_path_factory.mktemp("pgstac"), collections=collections_of(items), items=items) as address:
        yield address


@pytest.mark.slow
class TestApi(CatalogSourceTests):
    @pytest.fixture
    def source(self, address: str) -> CatalogSource:
        return open_catalog(address)

    def test_the_address_of_one_collection(self, address: str) -> None:
        source = open_catalog(f"{address}/collections/radar")
        assert self.names(source, geometry=AREA) == ["radar/long", "radar/a", "radar/b"]
        assert list(source.collections()) == ["radar"]

    def test_the_address_of_a_search_with_pages(self, address: str) -> None:
        assert len(self.names(open_catalog(f"{address}/search?limit=3"))) == len(drawn_items())

    def test_pages(self, source: CatalogSource, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("earthmap.catalog.api.PAGE_ITEMS", 2)
        self.test_everything_sorted(source)


def test_a_version_that_was_updated_wins_whatever_the_order() -> None:
    old = item("a", "c", "2024-06-01T00:00:00Z", AREA, updated="2024-07-01T00:00:00Z")
    new = item("a", "c", "2024-06-01T00:00:00Z", AREA, updated="2024-08-01T00:00:00Z")
    for items in ([old, new], [new, old]):
        (found,) = search_items(MemoryCatalog(items, address="memory"), Wanted())
        assert found.item is new


def test_a_single_item(tmp_path: Path) -> None:
    path = tmp_path / "item.json"
    path.write_text(json.dumps(drawn_items()[0]))
    assert [found.base for found in search_items(open_catalog(str(path)), Wanted(geometry=AREA))] == [str(path)]


def test_collections_that_cannot_match_are_not_opened(tmp_path: Path) -> None:
    write_static(tmp_path, drawn_items())
    with file_server(tmp_path) as server:
        search_items(open_catalog(f"{server.address}/catalog.json"), Wanted(collections=("radar",)))
        assert not [path for path in server.requests if "optical/" in path and "collection.json" not in path]
        server.requests.clear()
        source = open_catalog(f"{server.address}/catalog.json")
        search_items(source, Wanted(interval=parse_datetime("2024-06-20/..")))
        assert not [path for path in server.requests if "radar/" in path and "collection.json" not in path]


def test_ground_across_the_antimeridian() -> None:
    uncut = shapely.Polygon([(179.0, -1.0), (-179.0, -1.0), (-179.0, 1.0), (179.0, 1.0)])
    source = MemoryCatalog([item("a", "c", "2024-06-01T00:00:00Z", uncut)], address="memory")
    for west in (179.4, -179.6):
        assert search_items(source, Wanted(geometry=shapely.box(west, 0.0, west + 0.2, 0.2)))
    with pytest.raises(CatalogError):
        search_items(source, Wanted(geometry=shapely.box(0.0, 0.0, 1.0, 1.0)))


@given(
    st.lists(st.tuples(st.floats(-170, 170), st.floats(-80, 80), st.floats(0.01, 5)), min_size=1, max_size=30),
    st.sampled_from([5, 40, 500]),
)
def test_coarser_ground_contains_the_area(circles: list[tuple[float, float, float]], limit: int) -> None:
    ground = shapely.union_all([shapely.Point(x, y).buffer(radius) for x, y, radius in circles])
    coarse = coarsen(ground, max_vertices=limit)
    assert coarse.is_valid
    assert shapely.difference(ground, coarse).area <= 1e-9
    assert shapely.get_num_coordinates(coarse) <= max(limit, 10)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024", "2024-01-01T00:00:00Z/2024-12-31T23:59:59.999999Z"),
        ("2024-02", "2024-02-01T00:00:00Z/2024-02-29T23:59:59.999999Z"),
        ("2024-06-01/2024-06-30", "2024-06-01T00:00:00Z/2024-06-30T23:59:59.999999Z"),
        ("../2023", "../2023-12-31T23:59:59.999999Z"),
        ("2024-06/..", "2024-06-01T00:00:00Z/.."),
        ("2024-06/", "2024-06-01T00:00:00Z/.."),
        ("2024-06-01T10:00:00Z", "2024-06-01T10:00:00Z/2024-06-01T10:00:00.999999Z"),
        ("2024-06-01t12:00:00.25+02:00", "2024-06-01T10:00:00.250000Z"),
        ("9999", "9999-01-01T00:00:00Z/9999-12-31T23:59:59.999999Z"),
    ],
)
def test_datetimes(text: str, expected: str) -> None:
    assert str(parse_datetime(text)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2024-06-30/2024-06-01", "ends before it starts.*write 2024-06-01/2024-06-30"),
        ("June", "'June'.*cannot be read; expected a date"),
        ("2024-13", "is not a time: month"),
        ("2024-02-30", "is not a time: day"),
        ("../..", "open at both ends"),
        ("", "cannot be read"),
        ("..", "cannot be read"),
        ("2024/2025/2026", "3 parts"),
        ("01.06.2024", "cannot be read"),
    ],
)
def test_datetimes_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(JobError, match=message):
        parse_datetime(text)


@given(st.datetimes(timezones=st.just(datetime.UTC)))
def test_an_exact_time_is_read_back(time: datetime.datetime) -> None:
    interval = parse_datetime(time.isoformat())
    assert interval.start == time
    assert interval.end is not None
    assert interval.end - time < datetime.timedelta(seconds=1)


FAULTS = {
    "html": "is an HTML page; expected a STAC API.*not of a web page",
    "missing": "answered 404.*Not here.*landing page",
    "truncated": "broke off",
    "list": "is JSON but a list",
    "hang": "did not answer in time.*expected a connection within",
    "busy": "answered 503.*try again later",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_a_server(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARTHMAP_READ_TIMEOUT", "0.3")
    monkeypatch.setenv("EARTHMAP_BACKOFF", "0.001")
    path = write_static(tmp_path, drawn_items())
    with file_server(tmp_path) as server:
        server.faults["/catalog.json"] = fault
        message = one_line(lambda: open_catalog(f"{server.address}/{path.name}"), CatalogError)
        server.faults = {"/inner/radar/1.json": fault}
        inner = one_line(lambda: search_items(open_catalog(f"{server.address}/{path.name}"), Wanted()), CatalogError)
    for text in (message, inner):
        assert re.search(FAULTS[fault], text), text


def one_line(action: Any, kind: type[EarthmapError]) -> str:
    """The message of the error that `action` raises: one line, with no other program's words for a traceback."""
    with pytest.raises(kind) as caught:
        action()
    text = str(caught.value)
    assert "\n" not in text
    assert "Traceback" not in text
    return text


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARTHMAP_BACKOFF", "0.001")
    assert "cannot be reached" in one_line(lambda: open_catalog("http://127.0.0.1:9/stac"), CatalogError)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is nothing"),
        (b'{"type": "Catalog", "id": ', "is not JSON"),
        (b"<html></html>", "is an HTML page"),
        (b"\x89PNG\r\n", "is not JSON"),
        (b"PAR1 and no more", "cannot be read as Parquet"),
        (b'{"type": "Polygon", "coordinates": []}', "of type 'Polygon' but not STAC.*--area"),
        (b'{"type": "FeatureCollection", "features": [{"type": "Feature"}]}', "but not STAC.*--area"),
        (b'{"a": 1}', "with the keys a but not STAC"),
    ],
)
def test_files_that_are_no_catalogue(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "catalog.json"
    path.write_bytes(content)
    text = one_line(lambda: search_items(open_catalog(str(path)), Wanted()), CatalogError)
    assert re.search(message, text), text


@pytest.mark.parametrize("address", ["nothing/catalog.json", ".", "gs://bucket/catalog.json"])
def test_addresses_without_a_catalogue(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "expected" in one_line(lambda: open_catalog(address), CatalogError)


def test_all_refused_gives_the_commonest_reason() -> None:
    items = [item(f"scene_{n}", "c", "2024-06-01T00:00:00Z", AREA) for n in range(3)]
    for entry in items:
        entry["assets"] = {"notes": {"href": "./notes.txt", "type": "text/plain"}}
    text = one_line(lambda: find_scenes(MemoryCatalog(items, address="memory"), AREA), SensorError)
    assert "none of the 3 items" in text
    assert "3 of them because" in text


def moved(scenes: tuple[Scene, ...], old: str, new: str) -> list[Scene]:
    """`scenes` as they would be with their files below another address."""

    def move(source: Any) -> Any:
        return dataclasses.replace(source, href=source.href.replace(old, new))

    return [
        dataclasses.replace(
            scene,
            sources=tuple(move(source) for source in scene.sources),
            mask_sources=tuple(move(source) for source in scene.mask_sources),
        )
        for scene in scenes
    ]


@pytest.mark.real
def test_the_real_catalogue_is_the_same_from_disk_and_over_http(real_data: Path) -> None:
    static = find_scenes(open_catalog(str(real_data / "stac" / "catalog.json")), None)
    items = find_scenes(open_catalog(str(real_data / "items.json")), None)
    assert len(static.scenes) + len(static.refused) == 30
    assert static == items
    with file_server(real_data) as server:
        for path in ("stac/catalog.json", "items.json"):
            served = find_scenes(open_catalog(f"{server.address}/{path}"), None)
            assert moved(served.scenes, server.address, str(real_data.resolve())) == list(static.scenes)
            assert [refused.id for refused in served.refused] == [refused.id for refused in static.refused]


@pytest.mark.real
@pytest.mark.slow
def test_the_real_catalogue_is_the_same_from_an_api(real_data: Path, tmp_path: Path) -> None:
    if reason := pgstac_missing():
        pytest.skip(reason)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(file_server(real_data))
        collections = [json.loads(path.read_text()) for path in sorted((real_data / "stac").glob("*/collection.json"))]
        features = json.loads((real_data / "items.json").read_text())["features"]
        items = [absolute(feature, f"{server.address}/items.json") for feature in features]
        bare = [{**collection, "links": []} for collection in collections]
        address = stack.enter_context(stac_api(tmp_path, collections=bare, items=items))
        static = find_scenes(open_catalog(f"{server.address}/stac/catalog.json"), None)
        api = find_scenes(open_catalog(address), None)
        assert api.scenes == static.scenes
        assert [refused.id for refused in api.refused] == [refused.id for refused in static.refused]


def absolute(feature: Mapping[str, Any], base: str) -> Item:
    assets = {key: {**asset, "href": join(base, asset["href"])} for key, asset in feature["assets"].items()}
    return {**feature, "assets": assets}


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────


class Watched(dict[str, Any]):
    """An item that can be watched for being let go."""


class Streamed:
    """A catalogue that gives its items one by one and keeps none; counts how many others still hold."""

    address = "streamed"

    def __init__(self, template: SourceItem, count: int) -> None:
        self._template, self._count = template, count
        self.held = 0

    def collections(self) -> Mapping[str, Extent]:
        """None are told."""
        return {}

    def items(self, wanted: Wanted) -> Iterator[SourceItem]:
        """Copies of one item, whatever is asked for."""
        alive: list[weakref.ref[Watched]] = []
        for number in range(self._count):
            copied = Watched({**copy.deepcopy(dict(self._template.item)), "id": f"item-{number}"})
            alive.append(weakref.ref(copied))
            yield SourceItem(copied, self._template.base)
            del copied
            self.held = max(self.held, sum(one() is not None for one in alive))


def test_a_search_holds_scenes_and_lets_items_go(drawn_catalog: Path) -> None:
    """An item is many times its scene, and a search may find half a million."""
    template = next(open_catalog(str(drawn_catalog)).items(Wanted()))
    source = Streamed(template, 200)
    found = find_scenes(source, None)
    assert len(found.scenes) + len(found.refused) == 200
    assert found.scenes
    assert source.held < 5
