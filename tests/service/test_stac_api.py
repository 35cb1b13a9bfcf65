"""Finished runs as a STAC API: its conformance classes, the schemas of STAC, and pystac-client."""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]
import pytest
import referencing
import referencing.jsonschema
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from earthmap.service.database import JOBS
from earthmap.service.finished import FinishedRuns, Sought
from earthmap.service.stac_paths import CONFORMANCE
from earthmap.service.state import Status
from earthmap.service.tokens import Role
from tests.service.finished_jobs import DATE, finish_job, found
from tests.service.serving import Served, serve

_SCHEMAS = Path(__file__).parents[3] / "shared/data/19_schemas/stac"

JSON = {"Content-Type": "application/json"}

DAY = datetime.timedelta(days=1)

EAST = shapely.MultiPolygon([shapely.box(179.0, 10, 180, 11), shapely.box(-180, 10, -179.0, 11)])

CORNER = shapely.Polygon([(20, 0), (21, 0), (20, 1)])
"""An area that its box does not tell: (21, 1) is not of it."""


@dataclass(frozen=True, slots=True)
class House:
    """A service with finished runs of ada's, in the order in which they finished, and one of bob's."""

    served: Served
    folder: Path
    tokens: dict[str, str]
    ada: tuple[str, ...]
    bob: str

    def client(self, owner: str = "ada") -> httpx.Client:
        """What `owner` sees."""
        return self.served.client(self.tokens[owner])


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The service, for all tests of this module."""
    folder = tmp_path_factory.mktemp("stac")
    areas = [*(shapely.box(4 + number, 45, 4.5 + number, 45.5) for number in range(5)), EAST, CORNER]
    for served in serve(folder, secured=True):
        assert served.tokens is not None
        jobs, runs = served.jobs, folder / "runs"
        yield House(
            served=served,
            folder=folder,
            tokens={owner: served.tokens.make(owner, role=Role.VIEWER) for owner in ("ada", "bob")}
            | {"root": served.tokens.make("root", role=Role.OPERATOR)},
            ada=tuple(
                finish_job(jobs, runs, [found(area.centroid)], owner="ada", area=area, date=DATE + number * DAY)
                for number, area in enumerate(areas)
            ),
            bob=finish_job(jobs, runs, [found(shapely.box(4, 45, 5, 46))], owner="bob"),
        )


class _Schemas:
    """The schemas of STAC 1.1 and GeoJSON, from files."""

    def __init__(self) -> None:
        if not (_SCHEMAS / "v1.1.0-flat/item.json").is_file():
            pytest.skip(f"the schemas of STAC are not at {_SCHEMAS}")
        self._registry: Any = referencing.Registry(retrieve=self._retrieve)  # type: ignore[call-arg]

    def _retrieve(self, uri: str) -> Any:
        name = uri.partition("#")[0].rpartition("/")[2]
        folder = "geojson" if "geojson.org" in uri else "v1.1.0-flat"
        return referencing.Resource.from_contents(
            json.loads((_SCHEMAS / folder / name).read_text()), default_specification=referencing.jsonschema.DRAFT7
        )

    def check(self, name: str, value: Any) -> None:
        """Raises where `value` is not as the schema says."""
        schema = json.loads((_SCHEMAS / "v1.1.0-flat" / f"{name}.json").read_text())
        jsonschema.Draft7Validator(schema, registry=self._registry).validate(value)


def _get(client: httpx.Client, path: str, status: int = 200) -> Any:
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    return answer.json()


def _post(client: httpx.Client, body: Any, status: int = 200) -> Any:
    answer = client.post("/stac/search", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def _ids(page: Any) -> list[str]:
    return [item["id"] for item in page["features"]]


def _next(page: Any) -> Any:
    return next((link for link in page["links"] if link["rel"] == "next"), None)


# ── core, collections, features ──────────────────────────────────────────────────────────────────────────────


def test_the_landing_page_is_a_catalogue(house: House) -> None:
    schemas = _Schemas()
    with house.client() as client:
        landing = _get(client, "/stac")
        schemas.check("catalog", landing)
        assert landing["conformsTo"] == list(CONFORMANCE) == _get(client, "/stac/conformance")["conformsTo"]
        links = {link["rel"]: link["href"] for link in landing["links"]}
        assert {"self", "root", "service-desc", "conformance", "data", "search", "child"} <= set(links)
        for link in landing["links"]:
            assert client.request(link.get("method", "GET"), link["href"], json={}).status_code == 200
        assert any(link["href"].endswith("/stac") for link in client.get("/").json()["links"])


def test_collections_say_where_and_when_their_runs_are(house: House) -> None:
    schemas = _Schemas()
    with house.client() as client, house.client("bob") as bob:
        listed = {one["id"]: one for one in _get(client, "/stac/collections")["collections"]}
        for one in listed.values():
            schemas.check("collection", one)
            assert _get(client, f"/stac/collections/{one['id']}") == one
        assert listed["map"]["extent"]["spatial"]["bbox"] == [[-180.0, 0.0, 180.0, 45.5]]
        assert listed["map"]["extent"]["temporal"]["interval"] == [["2024-06-01T10:30:00Z", "2024-06-07T10:30:00Z"]]
        assert _get(bob, "/stac/collections/map")["extent"]["spatial"]["bbox"] == [[4.0, 45.0, 5.0, 46.0]]
        empty = [one for name, one in listed.items() if name != "map"]
        assert all(one["extent"]["temporal"]["interval"] == [[None, None]] for one in empty)
        assert _get(client, "/stac/collections/fly", 404)["status"] == 404


def test_items_are_stac_and_lead_to_their_files(house: House) -> None:
    schemas = _Schemas()
    with house.client() as client:
        page = _get(client, "/stac/collections/map/items?limit=100")
        assert _ids(page) == list(house.ada[::-1])
        assert (page["numberMatched"], page["numberReturned"]) == (7, 7)
        for item in page["features"]:
            schemas.check("item", item)
            path = f"/stac/collections/map/items/{item['id']}"
            assert _get(client, path) == item
            assert {link["rel"] for link in item["links"]} == {
                "self", "root", "parent", "collection", "via", "related",
            }  # fmt: skip
            for link in item["links"]:
                assert client.get(link["href"]).status_code == 200
            assert item["properties"]["earthmap:run"] == "earthmap-0123456789ab"
            assert str(house.folder) not in json.dumps(item)
            at = f"{house.served.url}{path}/assets/"
            assert all(asset["href"].startswith(at) for asset in item["assets"].values())
        assert client.get(item["assets"]["features"]["href"]).content[:4] == b"PAR1"
        assert _get(client, f"/stac/collections/map/items/{house.bob}", 404)
        assert _get(client, "/stac/collections/map/items/x", 404)
        assert _get(client, f"/stac/collections/fly/items/{house.ada[0]}", 404)


def test_an_asset_is_given_in_parts(house: House) -> None:
    whole = bytes(range(256)) * 4
    with house.client() as client:
        asset = _get(client, f"/stac/collections/map/items/{house.ada[0]}")["assets"]["classes_1"]
        answer = client.get(asset["href"])
        assert answer.content == whole
        assert answer.headers["content-type"] == asset["type"]
        assert answer.headers["content-security-policy"] == "sandbox allow-scripts"
        assert client.head(asset["href"]).headers["content-length"] == "1024"
        part = client.get(asset["href"], headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, whole[10:20])
        assert part.headers["content-range"] == "bytes 10-19/1024"
        assert client.get(asset["href"], headers={"Range": "bytes=2000-"}).status_code == 416
        for name in ("nothing", "..%2fjob.json", "classes_1%00"):
            assert client.get(asset["href"].replace("classes_1", name)).status_code == 404
    with house.client("bob") as bob:
        assert bob.get(asset["href"]).status_code == 404


def test_an_asset_that_lies_elsewhere_is_not_given(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    for served in serve(tmp_path):
        job = finish_job(served.jobs, tmp_path / "runs", [found(shapely.box(4, 45, 5, 46))])
        path = tmp_path / "runs" / job / "item.json"
        item = json.loads(path.read_text())
        secret = str(tmp_path / "secret.txt")
        hrefs = ("../../secret.txt", secret, f"file://{secret}", "./a/../../../secret.txt")
        item["assets"] |= {f"bad_{number}": {"href": href, "type": "text/plain"} for number, href in enumerate(hrefs)}
        path.write_text(json.dumps(item))
        with served.client() as client:
            told = _get(client, f"/stac/collections/map/items/{job}")
            assert set(told["assets"]) == {"features", "coverage", "classes_1"}
            for number in range(len(hrefs)):
                assert client.get(f"/stac/collections/map/items/{job}/assets/bad_{number}").status_code == 404


# ── item search ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("search", "numbers"),
    [
        ({"bbox": [4, 45, 5.2, 46]}, [1, 0]),
        ({"bbox": [4, 45, 0, 5.2, 46, 100]}, [1, 0]),
        ({"bbox": [178, 0, -178, 20]}, [5]),
        ({"bbox": [-179.5, 10.5, -179.4, 10.6]}, [5]),
        ({"bbox": [-178.5, 10, 178.5, 11]}, []),
        ({"bbox": [20.8, 0.8, 21, 1]}, []),
        ({"bbox": [20.4, 0.4, 21, 1]}, [6]),
        ({"datetime": "2024-06-02T00:00:00Z/2024-06-03T23:00:00Z"}, [2, 1]),
        ({"datetime": "2024-06-06T00:00:00Z/.."}, [6, 5]),
        ({"datetime": "2024-06-01T10:30:00Z"}, [0]),
        ({"intersects": {"type": "Point", "coordinates": [4.2, 45.2]}}, [0]),
        ({"intersects": {"type": "LineString", "coordinates": [[4.2, 45.2], [6.2, 45.2]]}}, [2, 1, 0]),
        ({"intersects": {"type": "Polygon", "coordinates": [[[20.8, 0.8], [21, 0.8], [21, 1], [20.8, 0.8]]]}}, []),
        ({"intersects": {"type": "MultiPoint", "coordinates": [[-179.5, 10.5], [4.2, 45.2]]}}, [5, 0]),
        ({"collections": ["map"], "limit": 2}, [6, 5]),
        ({"collections": ["fly"]}, []),
        ({"collections": []}, []),
        ({"ids": ["nothing"]}, []),
        ({"bbox": [4, 45, 9, 46], "datetime": "2024-06-03T00:00:00Z/.."}, [4, 3, 2]),
    ],
)
def test_what_is_found(house: House, search: dict[str, Any], numbers: list[int]) -> None:
    asked = {name: ",".join(map(str, value)) if isinstance(value, list) else value for name, value in search.items()}
    if "intersects" in search:
        asked["intersects"] = json.dumps(search["intersects"])
    with house.client() as client:
        by_post = _post(client, search)
        assert _ids(by_post) == [house.ada[number] for number in numbers]
        if search.get("collections") != []:  # which a query cannot say
            by_get = client.get("/stac/search", params=asked)
            assert by_get.headers["content-type"] == "application/geo+json"
            assert _ids(by_get.json()) == _ids(by_post)


def test_items_by_their_ids(house: House) -> None:
    chosen = [house.ada[1], house.ada[4]]
    with house.client() as client:
        assert _ids(_post(client, {"ids": chosen})) == chosen[::-1]
        assert _ids(_get(client, f"/stac/search?ids={','.join(chosen)}")) == chosen[::-1]
        assert _ids(_post(client, {"ids": [house.bob]})) == []
    with house.client("root") as root:
        assert _ids(_post(root, {"ids": [house.bob, house.ada[0]]})) == [house.bob, house.ada[0]]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_pages_follow_each_other(house: House, method: str) -> None:
    with house.client() as client:
        body: dict[str, Any] = {"bbox": [0, 40, 10, 50], "limit": 2}
        page = _post(client, body) if method == "POST" else _get(client, "/stac/search?bbox=0,40,10,50&limit=2")
        seen = _ids(page)
        while link := _next(page):
            assert page["numberMatched"] == 5
            if method == "POST":
                assert (link["method"], link["merge"]) == ("POST", True)
                page = _post(client, body | link["body"])
            else:
                page = _get(client, link["href"])
            seen += _ids(page)
        assert seen == list(house.ada[4::-1])


@pytest.mark.parametrize(
    "body",
    [
        {"bbox": [1, 2, 3]}, {"bbox": [0, 10, 5, 0]}, {"bbox": [0, 0, 1, 91]}, {"bbox": ["a", 0, 1, 1]},
        {"bbox": [0, 0, 1, 1], "intersects": {"type": "Point", "coordinates": [0, 0]}}, {"limit": 0}, {"limit": "x"},
        {"datetime": "2024"}, {"datetime": "yesterday"}, {"ids": "x"}, {"ids": [1]}, {"collections": {}},
        {"intersects": {"type": "Point"}}, {"intersects": {"type": "Point", "coordinates": [500, 0]}},
        {"intersects": {"type": "Feature", "geometry": {"type": "Point", "coordinates": [0, 0]}, "properties": {}}},
        {"intersects": {"type": "Polygon", "coordinates": []}}, {"intersects": {}}, {"intersects": "POINT (0 0)"},
        {"token": "x"}, {"token": 5}, {"query": {}}, {"filter": "a"}, [],
    ],
)  # fmt: skip
def test_what_cannot_be_searched_is_told(house: House, body: Any) -> None:
    with house.client() as client:
        assert _post(client, body, 400)["status"] == 400
        assert client.post("/stac/search", content=b"{", headers=JSON).status_code == 400
        assert client.post("/stac/search", content=b"{}").status_code == 415


@pytest.mark.parametrize(
    "query",
    [
        "colour=red", "limit=0", "limit=ten", "bbox=1,2,3", "bbox=a,b,c,d", "bbox=", "intersects={", "intersects=5",
        "intersects=" + "[" * 2000, "token=x", "datetime=", "limit=1&limit=2",
    ],
)  # fmt: skip
def test_a_query_that_cannot_be_read_is_told(house: House, query: str) -> None:
    with house.client() as client:
        assert _get(client, f"/stac/search?{query}", 400)["status"] == 400


def test_without_a_token_no_run_is_shown(house: House) -> None:
    with house.served.client() as nobody:
        for path in ("/stac/collections", "/stac/collections/map/items", "/stac/search"):
            assert nobody.get(path).status_code == 401
        assert nobody.post("/stac/search", json={}).status_code == 401
        assert nobody.get("/stac").status_code == 200


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=25)
@given(name=st.sampled_from(["bbox", "datetime", "intersects", "ids", "collections", "limit", "token"]), value=_JSON)
def test_no_search_is_a_defect(house: House, name: str, value: Any) -> None:
    geometry = {"type": "Polygon", "coordinates": value} if name == "intersects" else value
    with house.client() as client:
        assert client.post("/stac/search", json={name: geometry}).status_code in (200, 400)
        assert client.get("/stac/search", params={name: json.dumps(value)}).status_code in (200, 400)


def test_pystac_client_searches_by_page(house: House) -> None:
    from pystac_client import Client

    headers = {"Authorization": f"Bearer {house.tokens['ada']}"}
    for method in ("GET", "POST"):
        client = Client.open(f"{house.served.url}/stac", headers=headers)
        assert "map" in [one.id for one in client.get_collections()]
        found = client.search(method=method, bbox=[0, 40, 10, 50], datetime="2024-06-02/2024-06-05", limit=2)
        assert found.matched() == 4
        items = list(found.items())
        assert [item.id for item in items] == list(house.ada[4:0:-1])
        assert items[0].collection_id == "map"
        assert items[0].assets["features"].href.startswith(house.served.url)
        across = client.search(method=method, intersects=shapely.Point(-179.5, 10.5), collections=["map"])
        assert [item.id for item in across.items()] == [house.ada[5]]
        assert len(list(client.search(method=method, max_items=3, limit=1).items())) == 3
    assert client.get_collection("map").get_item(house.ada[0]).properties["earthmap:queries"]


# ── the index ────────────────────────────────────────────────────────────────────────────────────────────────


def _many(served: Served, folder: Path, count: int) -> None:
    """Finished jobs that all have the one run folder."""
    first = finish_job(served.jobs, folder / "runs", [found(shapely.box(4, 45, 5, 46))])
    job = served.jobs.get(first)
    assert job is not None
    rows = [
        {
            "id": str(uuid.uuid4()), "process": "map", "inputs": "{}", "limits": "{}", "owner": "local",
            "status": Status.SUCCESSFUL, "progress": 100, "created": float(number), "updated": float(number),
            "finished": float(number), "result": job.result, "attempts": 1,
        }
        for number in range(count)
    ]  # fmt: skip
    with served.jobs.database.write() as connection:
        connection.execute(JOBS.insert(), rows)


def test_the_index_fills_itself_and_forgets_what_is_dismissed(tmp_path: Path) -> None:
    for served in serve(tmp_path):
        runs = FinishedRuns(served.jobs.database)
        _many(served, tmp_path, 450)
        first = runs.page(Sought(owner=None), limit=3)
        assert (first.matched, len(first.runs)) == (451, 3)
        served.jobs.dismiss(first.runs[0].job)
        assert runs.page(Sought(owner=None), limit=3).matched == 450
        assert runs.get(first.runs[0].job, owner=None) is None
        assert runs.page(Sought(owner="somebody"), limit=3).matched == 0
        with served.jobs.database.write() as connection:
            connection.execute(JOBS.delete())
        assert runs.extent(Sought(owner=None)) is None


def test_services_that_fill_the_index_at_once_fill_it_once(tmp_path: Path) -> None:
    for served in serve(tmp_path):
        _many(served, tmp_path, 300)
        runs = FinishedRuns(served.jobs.database)
        with ThreadPoolExecutor(4) as pool:
            pages = [pool.submit(runs.page, Sought(owner=None), limit=1) for _ in range(4)]
        assert [page.result().matched for page in pages] == [301] * 4
