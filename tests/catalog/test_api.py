"""A search through a service that fails, lies or has habits of its own gives exactly the items of a faultless one."""

from __future__ import annotations

import datetime
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
import shapely
import shapely.geometry
from hypothesis import given
from hypothesis import strategies as st

from earthmap.catalog import api
from earthmap.catalog.api import narrower
from earthmap.catalog.intervals import Interval, parse_datetime
from earthmap.catalog.pages import PageRequest, next_request
from earthmap.catalog.search import open_catalog, search_items
from earthmap.catalog.source import CatalogSource, Wanted
from earthmap.connection import Connection
from earthmap.errors import CatalogError
from tests.servers import FaultProxy, SmallApi, fault_proxy, pgstac_missing, small_api, stac_api

Item = dict[str, Any]

QUICK = Connection(connect_timeout_s=2.0, read_timeout_s=0.4, backoff_s=0.002, patience_s=20.0)
AREA = shapely.box(10.0, 50.0, 12.0, 51.0)
JUNE = parse_datetime("2024-06")


def drawn_items(count: int = 60) -> list[Item]:
    """Items in two collections, over June 2024 and a ground of two by one degrees."""
    items = []
    for number in range(count):
        x, y = 10.0 + 2.0 * (number * 7 % count) / count, 50.0 + (number * 13 % count) / count
        ground = shapely.box(x, y, x + 0.05, y + 0.05)
        items.append(
            {
                "type": "Feature",
                "stac_version": "1.0.0",
                "id": f"item-{number:03}",
                "collection": "optical" if number % 3 else "radar",
                "geometry": shapely.geometry.mapping(ground),
                "bbox": list(ground.bounds),
                "properties": {"datetime": f"2024-06-{1 + number * 11 % 30:02}T{number % 24:02}:00:00Z"},
                "links": [],
                "assets": {"B04": {"href": f"https://host/{number}.tif"}},
            }
        )
    return items


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages so small that a search has many."""
    monkeypatch.setattr(api, "PAGE_ITEMS", 16)
    monkeypatch.setattr(api, "LEAST_ITEMS", 4)


@pytest.fixture
def service() -> Iterator[SmallApi]:
    with small_api(drawn_items()) as state:
        yield state


@pytest.fixture
def proxy(service: SmallApi) -> Iterator[FaultProxy]:
    with fault_proxy(service.address) as state:
        service.address = state.address  # as behind a public address
        yield state


WANTED = Wanted(geometry=AREA, interval=JUNE)


def names(source: CatalogSource, wanted: Wanted = WANTED) -> list[str]:
    return [found.id for found in search_items(source, wanted)]


def everything(source: CatalogSource) -> list[str]:
    """What the source itself gives, sorted: an item given twice stands here twice."""
    return sorted(found.id for found in source.items(WANTED))


ALL = [f"item-{number:03}" for number in range(60)]

FAULTS = [
    "429", "429 date", "503", "408", "425", "500", "502", "504", "html", "other json", "hang", "reset", "half",
    "gzip", "truncated", "repeat",
]  # fmt: skip


@pytest.mark.parametrize("fault", [*FAULTS, "compressed"])
@pytest.mark.parametrize("place", [0, 2])
def test_one_fault_is_passed_over(fault: str, place: int, proxy: FaultProxy) -> None:
    proxy.script = [""] * place + [fault]
    assert everything(open_catalog(proxy.address, connection=QUICK)) == ALL


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("links", ["token", "merge", "relative"])
def test_many_faults_are_passed_over(seed: int, links: str, service: SmallApi, proxy: FaultProxy) -> None:
    chance = random.Random(seed)
    service.links = links
    quick = [fault for fault in FAULTS if fault not in ("hang", "429 date")]
    for _ in range(12):
        proxy.script += [chance.choice(quick), "", chance.choice(["", ""])]
    assert everything(open_catalog(proxy.address, connection=QUICK)) == ALL


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("429", "answered 429.*expected 200 OK.*wait a while"),
        ("429 long", "asks to wait 86400 s.*EARTHMAP_PATIENCE"),
        ("500", "answered 500.*trouble of its own"),
        ("html", "is an HTML page"),
        ("other json", "JSON with the keys code, description.*list of features"),
        ("half", "is not JSON"),
        ("truncated", "broke off"),
        ("reset", "cannot be reached|broke off"),
        ("repeat", "pages in a circle"),
        ("401", "answered 401.*credentials"),
    ],
)
def test_a_lasting_fault_is_told_with_its_page(fault: str, message: str, proxy: FaultProxy) -> None:
    proxy.script, proxy.always = ["", ""], fault
    with pytest.raises(CatalogError, match=message) as caught:
        names(open_catalog(proxy.address, connection=QUICK))
    assert "at page 3 after 32 items had come" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert proxy.passed == 2


def test_a_refusal_is_not_repeated(proxy: FaultProxy) -> None:
    proxy.script = ["403", "html", "html"]
    with pytest.raises(CatalogError, match="answered 403"):
        names(open_catalog(proxy.address, connection=QUICK))
    assert proxy.script == ["html", "html"]


@pytest.mark.parametrize("links", ["token", "merge", "relative"])
@pytest.mark.parametrize("count", [True, False])
@pytest.mark.parametrize("doubled", [True, False])
def test_habits_of_services(links: str, count: bool, doubled: bool, service: SmallApi) -> None:
    service.links, service.count, service.doubled = links, count, doubled
    assert everything(open_catalog(service.address, connection=QUICK)) == ALL
    assert len(service.requests) == 4


@pytest.mark.parametrize(
    ("methods", "offered", "links"),
    [
        (("GET",), ("GET",), "relative"),
        (("GET",), ("GET", "POST"), "relative"),
        (("GET",), ("POST",), "relative"),
        (("POST",), ("GET",), "token"),
        (("POST",), ("POST",), "merge"),
    ],
)
def test_services_with_one_method(
    methods: tuple[str, ...], offered: tuple[str, ...], links: str, service: SmallApi
) -> None:
    service.methods, service.offered, service.links = methods, offered, links
    assert everything(open_catalog(service.address, connection=QUICK)) == ALL


@pytest.mark.parametrize("status", [413, 502, 504])
@pytest.mark.parametrize("links", ["token", "relative"])
def test_pages_that_are_too_large_become_smaller(status: int, links: str, service: SmallApi) -> None:
    service.largest, service.too_large, service.links = 5, status, links
    told: list[str] = []
    source = open_catalog(service.address, connection=QUICK, say=told.append)
    assert everything(source) == ALL
    assert any("asking for 4 items at once" in line for line in told)
    before = len(service.requests)
    assert sorted(names(source)) == ALL
    assert {int(values["limit"]) for _, values in service.requests[before:]} == {4}, "the size is remembered"


@pytest.mark.parametrize("most", [1, 7, 30])
@pytest.mark.parametrize("collections", [(), ("optical", "radar")])
def test_searches_that_are_too_large_are_split(most: int, collections: tuple[str, ...], service: SmallApi) -> None:
    service.most, service.too_large = most, 504
    connection = Connection(read_timeout_s=2.0, backoff_s=0.0, patience_s=20.0)
    source = open_catalog(service.address, connection=connection)
    wanted = Wanted(geometry=AREA, interval=JUNE, collections=collections)
    assert sorted(found.id for found in source.items(wanted)) == ALL


def test_a_page_too_large_in_the_middle(service: SmallApi, proxy: FaultProxy) -> None:
    proxy.script = ["", "", "502", "502", "502"]
    assert everything(open_catalog(proxy.address, connection=QUICK)) == ALL
    assert service.requests[-1][1]["limit"] == 8


def test_a_search_that_cannot_be_made_smaller(service: SmallApi) -> None:
    service.most = 0
    service.largest = 1
    with pytest.raises(CatalogError, match="answered 502"):
        names(open_catalog(service.address, connection=QUICK), Wanted())


def test_pages_without_end(service: SmallApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service whose tokens never repeat and whose pages do."""
    tokens = iter(range(1_000_000))

    def endless(handler: Any, values: Item, token: str) -> Item:
        return {"rel": "next", "href": f"search?limit=16&other={next(tokens)}"}

    monkeypatch.setattr("tests.servers._ApiHandler._next", endless)
    with pytest.raises(CatalogError, match=r"20 pages brought nothing new.*pages in a circle.*after 16 items"):
        names(open_catalog(service.address, connection=QUICK))
    assert len(service.requests) == 21


def test_progress_is_told(service: SmallApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "REPORT_EVERY_S", 0.0)
    service.count = True
    told: list[str] = []
    names(open_catalog(service.address, connection=QUICK, say=told.append))
    assert told[:2] == ["16 of 60 items found so far, 1 pages", "32 of 60 items found so far, 2 pages"]


def test_waiting_is_told(proxy: FaultProxy) -> None:
    proxy.script = ["429"]
    told: list[str] = []
    connection = Connection(backoff_s=2.0, patience_s=20.0)
    names(open_catalog(proxy.address, connection=connection, say=told.append))
    assert told
    assert told[0].startswith("waiting 2 s: the catalogue")


def test_a_token_in_the_address_is_not_told(proxy: FaultProxy) -> None:
    proxy.always = "403"
    with pytest.raises(CatalogError, match="403") as caught:
        open_catalog(f"{proxy.address.replace('//', '//user:pa55@')}/search?token=s3cret", connection=QUICK)
    assert "s3cret" not in str(caught.value)
    assert "pa55" not in str(caught.value)


@pytest.mark.parametrize(
    ("link", "url", "parameters"),
    [
        ({"href": "?page=2"}, "https://host/api/search?page=2", {}),
        ({"href": "/api/search?page=2"}, "https://host/api/search?page=2", {}),
        ({"href": "http://host/api/search?page=2"}, "https://host/api/search?page=2", {}),
        ({"href": "http://other/search"}, "http://other/search", {}),
        ({"href": "search", "body": {"next": 2}}, "https://host/api/search", {"next": 2}),
        (
            {"href": "search", "method": "post", "body": {"next": 2}, "merge": True},
            "https://host/api/search",
            {"limit": 5, "next": 2},
        ),
    ],
)
def test_next_links(link: Item, url: str, parameters: Item) -> None:
    current = PageRequest(url="https://host/api/search", method="POST", parameters={"limit": 5})
    page = {"links": [{"rel": "self", "href": "x"}, {"rel": "next", **link}]}
    following = next_request(page, current, base="https://host/api/search")
    assert following is not None
    assert (following.url, dict(following.parameters)) == (url, parameters)
    assert following.method == ("POST" if parameters else "GET")


@pytest.mark.parametrize("link", [{}, {"href": 3}, {"href": "a", "body": "b"}])
def test_next_links_to_nowhere(link: Item) -> None:
    page = {"links": [{"rel": "next", **link}]}
    with pytest.raises(CatalogError, match="next link"):
        next_request(page, PageRequest(url="https://host/"), base="https://host/")


TIMES = st.datetimes(datetime.datetime(2000, 1, 1), datetime.datetime(2030, 1, 1), timezones=st.just(datetime.UTC))


@given(st.tuples(TIMES, TIMES), TIMES, st.floats(-5, 15), st.floats(-5, 15), st.booleans())
def test_parts_ask_for_all_that_the_whole_does(
    ends: tuple[datetime.datetime, datetime.datetime], time: datetime.datetime, x: float, y: float, timed: bool
) -> None:
    interval = Interval(start=min(ends), end=max(ends)) if timed else None
    point = shapely.Point(x, y)
    wanted = Wanted(geometry=shapely.Point(5, 5).buffer(6), interval=interval)

    def holds(one: Wanted) -> bool:
        instant = Interval(start=time, end=time)
        inside = one.interval is None or one.interval.overlaps(instant)
        return inside and one.geometry is not None and bool(shapely.intersects(one.geometry, point))

    parts = narrower(wanted)
    if parts:
        assert any(map(holds, parts)) == holds(wanted)


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real STAC API with the drawn items."""
    if reason := pgstac_missing():
        pytest.skip(reason)
    items = drawn_items()
    extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [["2024-01-01T00:00:00Z", None]]}}
    common = {"type": "Collection", "stac_version": "1.0.0", "description": "drawn", "license": "other", "links": []}
    collections = [{**common, "id": name, "extent": extent} for name in ("optical", "radar")]
    with stac_api(tmp_path_factory.mktemp("pgstac"), collections=collections, items=items) as address:
        yield address


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_real_service_through_many_faults(seed: int, public: str) -> None:
    chance = random.Random(seed)
    connection = Connection(read_timeout_s=10.0, backoff_s=0.01, patience_s=60.0)
    undisturbed = [json.dumps(found.item["id"]) for found in search_items(open_catalog(public), WANTED)]
    with fault_proxy(public) as proxy:
        quick = [fault for fault in FAULTS if fault not in ("hang", "429 date")]
        for _ in range(10):
            proxy.script += [chance.choice(quick), ""]
        found = search_items(open_catalog(proxy.address, connection=connection), WANTED)
    assert [json.dumps(one.item["id"]) for one in found] == undisturbed
    assert len(found) == 60
