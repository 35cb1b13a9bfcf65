"""stac-geoparquet of both writers, in one file or many, on disk, http and s3; only what can match is fetched."""

from __future__ import annotations

import asyncio
import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from earthmap.catalog import transport
from earthmap.catalog.parquet import ParquetCatalog
from earthmap.catalog.search import open_catalog, search_items
from earthmap.catalog.source import CatalogSource, MemoryCatalog, Wanted
from earthmap.catalog.transport import CatalogIO
from earthmap.connection import Connection
from earthmap.errors import CatalogError
from tests.catalog.test_search import CatalogSourceTests, Item, drawn_items, item, write_static
from tests.servers import file_server, s3_server

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

QUICK = Connection(connect_timeout_s=2.0, read_timeout_s=2.0, retries=1, backoff_s=0.01)


def by_package(path: Path, items: list[Item]) -> Path:
    """A file as the package stac-geoparquet writes it."""
    arrow = pytest.importorskip("stac_geoparquet.arrow", reason="stac-geoparquet is not installed to write a file with")
    arrow.to_parquet(arrow.parse_stac_items_to_arrow(copy.deepcopy(items)), path)
    return path


def by_rustac(path: Path, items: list[Item]) -> Path:
    """A file as rustac writes it: names as dictionaries, milliseconds."""
    rustac = pytest.importorskip("rustac", reason="rustac is not installed to write a file with")

    async def write() -> None:
        await rustac.write(str(path), copy.deepcopy(items))

    asyncio.run(write())
    return path


WRITERS = {"stac-geoparquet": by_package, "rustac": by_rustac}


def write_many(folder: Path, items: list[Item]) -> None:
    """The items in three files of both layouts, in folders by year as partitioned sets have them."""
    for number, write in enumerate([by_package, by_rustac, by_package]):
        place = folder / f"year={2020 + number}"
        place.mkdir(parents=True)
        write(place / "items.parquet", items[number::3])


class TestRustac(CatalogSourceTests):
    @pytest.fixture
    def source(self, tmp_path: Path) -> CatalogSource:
        return open_catalog(str(by_rustac(tmp_path / "items.parquet", drawn_items())))


class TestFolder(CatalogSourceTests):
    @pytest.fixture
    def source(self, tmp_path: Path) -> CatalogSource:
        write_many(tmp_path, drawn_items())
        return open_catalog(str(tmp_path))


class TestPattern(CatalogSourceTests):
    @pytest.fixture
    def source(self, tmp_path: Path) -> CatalogSource:
        write_many(tmp_path, drawn_items())
        (tmp_path / "other.txt").write_text("no catalogue")
        return open_catalog(str(tmp_path / "year=*" / "*.parquet"))


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A bucket with a static catalogue and with stac-geoparquet files."""
    import obstore
    from obstore.store import from_url

    folder = tmp_path_factory.mktemp("bucket")
    write_static(folder / "static", drawn_items())
    write_many(folder / "files", drawn_items())
    with s3_server(folder) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.env.items():
            patch.setenv(name, value)
        store = from_url(server.address, **Connection.from_environment().obstore_options(server.address))
        for path in sorted(folder.rglob("*.*")):
            if path.suffix in (".json", ".parquet"):
                obstore.put(store, str(path.relative_to(folder)), path.read_bytes())
        yield server.address


class TestStaticOnS3(CatalogSourceTests):
    @pytest.fixture
    def source(self, bucket: str) -> CatalogSource:
        return open_catalog(f"{bucket}/static/catalog.json")


@pytest.mark.parametrize(
    "address", ["files/", "files/year=*/items.parquet", "static/", "files/year=2020/items.parquet"]
)
def test_places_on_s3(address: str, bucket: str) -> None:
    source = open_catalog(f"{bucket}/{address}")
    expected = drawn_items()[::3] if "2020" in address else drawn_items()
    assert sorted(found.id for found in search_items(source, Wanted())) == sorted(one["id"] for one in expected)


@pytest.mark.parametrize("address", ["nothing/", "nothing*", "nothing.json", "nothing.parquet"])
def test_nothing_on_s3(address: str, bucket: str) -> None:
    with pytest.raises(CatalogError, match=r"holds no catalogue|there is no catalogue") as caught:
        open_catalog(f"{bucket}/{address}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("writer", WRITERS)
def test_items_come_back_as_they_were(writer: str, tmp_path: Path) -> None:
    one = item("a", "c", "2024-06-01T10:20:30.250000Z", shapely.box(1, 2, 3, 4), **{"eo:cloud_cover": 12.5, "gsd": 10})
    other = item("b", "c", "2024-06-02T00:00:00Z", shapely.box(1, 2, 3, 4), **{"sar:polarizations": ["VV", "VH"]})
    source = open_catalog(str(WRITERS[writer](tmp_path / "items.parquet", [one, other])))
    first, second = (found.item for found in search_items(source, Wanted()))
    assert first["properties"]["eo:cloud_cover"] == 12.5
    assert "sar:polarizations" not in first["properties"]
    assert second["properties"]["sar:polarizations"] == ["VV", "VH"]
    assert "eo:cloud_cover" not in second["properties"]
    assert first["assets"] == one["assets"]
    assert first["properties"]["datetime"].startswith("2024-06-01T10:20:30.25")
    assert first["bbox"] == pytest.approx([1, 2, 3, 4])


def scattered(count: int) -> list[Item]:
    """Items all around the Earth, some across the antimeridian, sorted along a parallel as writers sort them."""
    items = []
    for number in range(count):
        x = -180.0 + 360.0 * number / count
        ground = shapely.box(x, -60.0 + number % 7, x + 2.0, -58.0 + number % 7)
        one = item(f"n{number:04}", "c" if number < count / 2 else "d", "2024-06-01T00:00:00Z", ground)
        if x + 2.0 > 180.0:
            east, west = shapely.box(x, -60.0, 180.0, -58.0), shapely.box(-180.0, -60.0, x - 358.0, -58.0)
            one["geometry"] = shapely.geometry.mapping(shapely.union(east, west))
            one["bbox"] = [x, -60.0, x - 358.0, -58.0]
        items.append(one)
    return items


@pytest.fixture(scope="module", params=list(WRITERS))
def grouped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four hundred items in row groups of twenty."""
    folder = tmp_path_factory.mktemp("grouped")
    whole = WRITERS[request.param](folder / "whole.parquet", scattered(400))
    table = pq.read_table(whole)
    pq.write_table(table, folder / "items.parquet", row_group_size=20)
    whole.unlink()
    return folder / "items.parquet"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(st.floats(-180, 178), st.floats(-65, -45), st.floats(0.1, 40), st.sampled_from([(), ("c",), ("d", "x")]))
def test_what_is_left_out_never_matches(
    grouped: Path, x: float, y: float, side: float, collections: tuple[str, ...]
) -> None:
    wanted = Wanted(geometry=shapely.box(x, y, min(180.0, x + side), y + side), collections=collections)
    everything = MemoryCatalog(scattered(400), address="memory")

    def found(source: CatalogSource) -> list[str]:
        try:
            return [one.id for one in search_items(source, wanted)]
        except CatalogError:
            return []

    if "x" not in collections:
        assert found(open_catalog(str(grouped))) == found(everything)


def test_only_groups_that_can_match_are_fetched(grouped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[int] = []
    read: Callable[[Any, bytearray], int] = transport._RemoteFile.readinto

    def counted(self: Any, buffer: bytearray) -> int:
        count = read(self, buffer)
        fetched.append(count if count < 2**16 else 0)  # the footer is read in one piece of 64 KB
        return count

    monkeypatch.setattr(transport._RemoteFile, "readinto", counted)
    with file_server(grouped.parent) as server:
        source = open_catalog(f"{server.address}/items.parquet", connection=QUICK)
        far = Wanted(geometry=shapely.box(40.0, -70.0, 50.0, -40.0))
        some = [found.id for found in search_items(source, far)]
        small = sum(fetched)
        fetched.clear()
        assert len(list(source.items(Wanted()))) == 400
    assert 10 <= len(some) <= 14
    assert small < sum(fetched) / 3, f"{small} of {sum(fetched)} bytes"


def test_a_box_as_a_list_and_assets_as_text(tmp_path: Path) -> None:
    """As older versions of the package, and databases, write them."""
    table = pa.table(
        {
            "id": ["a"],
            "geometry": [shapely.to_wkb(shapely.box(1, 2, 3, 4))],
            "bbox": [[1.0, 2.0, 3.0, 4.0]],
            "collection": ["c"],
            "datetime": ["2024-06-01T00:00:00Z"],
            "assets": ['{"B04": {"href": "https://host/a.tif"}}'],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    wanted = Wanted(geometry=shapely.box(2, 3, 2.5, 3.5), collections=("c",))
    (found,) = search_items(open_catalog(str(tmp_path / "a.parquet")), wanted)
    assert found.item["assets"]["B04"]["href"] == "https://host/a.tif"
    assert found.item["bbox"] == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("fault", ["truncated", "missing", "busy", "html"])
def test_faults_of_a_server(fault: str, tmp_path: Path) -> None:
    by_package(tmp_path / "items.parquet", drawn_items())
    with file_server(tmp_path) as server:
        address = f"{server.address}/items.parquet"
        source = open_catalog(address, connection=QUICK)
        server.faults["/items.parquet"] = fault
        for action in (lambda: list(source.items(Wanted())), lambda: open_catalog(address, connection=QUICK)):
            with pytest.raises(CatalogError) as caught:
                action()
            assert re.search(r"items\.parquet", str(caught.value))
            assert "\n" not in str(caught.value)


def test_a_file_of_something_else_in_the_middle(tmp_path: Path) -> None:
    write_many(tmp_path, drawn_items())
    pq.write_table(pa.table({"id": [1]}), tmp_path / "year=2021" / "areas.parquet")
    with pytest.raises(CatalogError, match=r"areas\.parquet is Parquet without the column 'geometry'"):
        search_items(open_catalog(str(tmp_path)), Wanted())


def test_progress_over_many_files(tmp_path: Path) -> None:
    path = str(by_package(tmp_path / "items.parquet", drawn_items()))
    told: list[str] = []
    source = ParquetCatalog(CatalogIO(QUICK, say=told.append), address="many", files=[path] * 201)
    assert len(search_items(source, Wanted())) == len(drawn_items())
    assert told == ["100 of 201 files of many read", "200 of 201 files of many read"]
