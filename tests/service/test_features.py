"""OGC API – Features, Part 1: Core (17-069r4): its requirements one after the other, and clients that are not ours."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate

from earthmap.service.feature_paths import CONFORMANCE
from earthmap.service.tokens import Role
from tests.service.finished_jobs import DATE, finish_job, found
from tests.service.serving import Served, serve
from tests.service.standard import draft4

COUNT = 25

EAST = shapely.MultiPolygon([shapely.box(179.9, 10, 180, 10.1), shapely.box(-180, 10, -179.9, 10.1)])
"""An area across the antimeridian."""

NOBODY = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class House:
    """A service with finished jobs, whose owners have a token each."""

    served: Served
    folder: Path
    tokens: dict[str, str]
    plain: str
    """Id of ada's job: COUNT squares in a row from 4° east on, one a day."""
    across: str
    """Id of ada's job across the antimeridian, finished later."""
    other: str
    """Id of bob's job."""

    def client(self, owner: str = "ada") -> httpx.Client:
        """What `owner` sees."""
        return self.served.client(self.tokens[owner])


def _squares(count: int) -> list[dict[str, Any]]:
    dates = [DATE + datetime.timedelta(days=number) for number in range(count)]
    return [
        found(
            shapely.box(4 + 0.01 * number, 45, 4.005 + 0.01 * number, 45.005),
            answer="ship" if number % 5 == 0 else "water", datetime_min=date, datetime_max=date,
            fraction=0.25 if number == COUNT - 1 else None,
        )
        for number, date in enumerate(dates)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The service, for all tests of this module."""
    folder = tmp_path_factory.mktemp("features")
    for served in serve(folder, secured=True):
        assert served.tokens is not None
        owners = {"ada": Role.VIEWER, "bob": Role.SUBMITTER, "root": Role.OPERATOR}
        runs, across = folder / "runs", [found(EAST), found(shapely.Point(-179.95, 10.05))]
        yield House(
            served=served,
            folder=folder,
            tokens={owner: served.tokens.make(owner, role=role) for owner, role in owners.items()},
            plain=finish_job(served.jobs, runs, _squares(COUNT), owner="ada"),
            across=finish_job(served.jobs, runs, across, owner="ada", area=EAST),
            other=finish_job(served.jobs, runs, _squares(3), owner="bob"),
        )


def _get(client: httpx.Client, path: str, status: int = 200) -> Any:
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    if status == 200:
        assert answer.headers["x-content-type-options"] == "nosniff"
    return answer.json()


def _link(document: Any, rel: str) -> str:
    return next((str(link["href"]) for link in document["links"] if link["rel"] == rel), "")


def _items(client: httpx.Client, address: str) -> list[Any]:
    """The features of all pages."""
    features = []
    while address:
        page = _get(client, address)
        assert page["numberReturned"] == len(page["features"])
        features += page["features"]
        address = _link(page, "next")
    return features


# ── core ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_landing_page_leads_to_the_features(house: House) -> None:
    with house.client() as client:
        landing = client.get("/").json()
        assert _link(landing, "data") == f"{house.served.url}/collections"
        conformance = client.get(_link(landing, "conformance")).json()
        assert set(CONFORMANCE) <= set(conformance["conformsTo"])
        listed = _get(client, _link(landing, "data"))
        assert [one["id"] for one in listed["collections"]] == [
            f"{job}-{kind}" for job in (house.across, house.plain) for kind in ("features", "coverage")
        ]
        for one in listed["collections"]:
            assert _get(client, _link(one, "self")) == one
            page = client.get(_link(one, "items"))
            assert page.headers["content-type"] == "application/geo+json"
            assert all({"rel", "type", "href"} <= set(link) for link in [*one["links"], *page.json()["links"]])
            assert client.get(_link(one, "enclosure")).content[:4] == b"PAR1"
        assert {link["rel"]: link["type"] for link in one["links"]}["items"] == "application/geo+json"


def test_a_collection_says_where_and_when(house: House) -> None:
    with house.client() as client:
        about = _get(client, f"/collections/{house.plain}-features")
        assert about["title"] == "Where is water?; Where are ships? (found, 2024-06-01)"
        assert about["extent"]["spatial"]["bbox"] == [[4.0, 45.0, 4.245, 45.005]]
        assert about["extent"]["temporal"]["interval"] == [["2024-06-01T10:30:00Z"] * 2]
        across = _get(client, f"/collections/{house.across}-coverage")
        assert across["extent"]["spatial"]["bbox"] == [[179.9, 10.0, -179.9, 10.1]]


def test_the_schema_of_a_collection_says_what_its_features_have(house: House) -> None:
    with house.client() as client:
        about = _get(client, f"/collections/{house.plain}-features")
        link = next(link for link in about["links"] if link["rel"] == "describedBy")  # as GDAL spells it
        schema = _get(client, link["href"])
        assert link["type"] == client.get(link["href"]).headers["content-type"] == "application/schema+json"
        features = _items(client, f"/collections/{house.plain}-features/items")
    properties = schema["properties"]["properties"]["properties"]
    assert {name: properties[name]["type"] for name in ("answer", "area_m2", "tile_ids")} == {
        "answer": "string", "area_m2": "number", "tile_ids": "array",
    }  # fmt: skip
    assert properties["datetime_min"]["format"] == "date-time"
    assert all(list(feature["properties"]) == list(properties) for feature in features)
    for feature in features:
        said = {name: value for name, value in feature["properties"].items() if value is not None}
        jsonschema.validate(said, schema["properties"]["properties"])


def test_an_extent_holds_its_features_as_they_are_rounded(house: House) -> None:
    third = shapely.box(4 + 1 / 3, 45 + 1 / 3, 4 + 2 / 3, 45 + 2 / 3)
    job = finish_job(house.served.jobs, house.folder / "runs", [found(third)], owner="cleo")
    with house.client("root") as client:
        west, south, east, north = _get(client, f"/collections/{job}-features")["extent"]["spatial"]["bbox"][0]
        features = _items(client, f"/collections/{job}-features/items")
    bounds = shapely.geometry.shape(features[0]["geometry"]).bounds
    assert (west, south) <= bounds[:2]
    assert (east, north) >= bounds[2:]


def test_pages_follow_each_other_and_stay(house: House) -> None:
    address = f"/collections/{house.plain}-features/items"
    with house.client() as client:
        assert _get(client, address)["numberReturned"] == 10
        features = _items(client, f"{address}?limit=7")
        assert [feature["id"] for feature in features] == list(range(1, COUNT + 1))
        assert _items(client, f"{address}?limit=7") == features
        assert _get(client, f"{address}?limit=100000")["numberReturned"] == COUNT
        page = _get(client, f"{address}?limit=7&answer=water")
        assert page["numberMatched"] == 20
        assert "answer=water" in _link(page, "next")
        stamp = datetime.datetime.fromisoformat(page["timeStamp"])
        assert abs((datetime.datetime.now(datetime.UTC) - stamp).total_seconds()) < 60
        for feature in features[:2]:
            one = _get(client, f"{address}/{feature['id']}")
            assert {name: one[name] for name in feature} == feature
            assert _link(one, "self").endswith(f"/items/{feature['id']}")
            assert _link(one, "collection").endswith(f"/collections/{house.plain}-features")


def test_pages_of_collections_follow_each_other(house: House) -> None:
    with house.client("root") as client:
        seen, address = [], "/collections?limit=1"
        while address:
            page = _get(client, address)
            assert len(page["collections"]) == 2
            seen += [one["id"] for one in page["collections"]]
            address = _link(page, "next")
        assert len(seen) == len(set(seen))
        assert {f"{job}-features" for job in (house.plain, house.across, house.other)} <= set(seen)


def test_a_job_that_finishes_between_two_pages_moves_none(house: House) -> None:
    with house.client("bob") as client:
        assert house.served.tokens is not None
        jobs = [finish_job(house.served.jobs, house.folder / "runs", _squares(1), owner="dora") for _ in range(3)]
        dora = house.served.tokens.make("dora", role=Role.VIEWER)
    with house.served.client(dora) as client:
        first = _get(client, "/collections?limit=2")
        new = finish_job(house.served.jobs, house.folder / "runs", _squares(1), owner="dora")
        house.served.jobs.dismiss(jobs[1])
        second = _get(client, _link(first, "next"))
        shown = [one["id"] for page in (first, second) for one in page["collections"] if one["id"].endswith("features")]
        assert shown == [f"{job}-features" for job in jobs[::-1]]
        assert _get(client, "/collections?limit=1")["collections"][0]["id"] == f"{new}-features"
        assert client.get(f"/collections/{jobs[1]}-features").status_code == 410


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("bbox=4.0,44,4.006,46", [1]),
        ("bbox=4.0,44,0,4.016,46,100", [1, 2]),
        ("bbox=4.006,44,4.009,46", []),
        ("bbox=170,-90,4.016,90", [1, 2]),
        ("bbox=4.005,45.005,4.005,45.005", [1]),
        ("datetime=2024-06-03T00:00:00Z/2024-06-04T23:59:59Z", [3, 4]),
        ("datetime=../2024-06-02T10:30:00Z", [1, 2]),
        ("datetime=2024-06-24T12:00:00%2B02:00/", [24, 25]),
        ("datetime=2024-06-02T10:30:00Z", [2]),
        ("datetime=2024-06-02T10:30:01Z", []),
        ("answer=ship", [1, 6, 11, 16, 21]),
        ("answer=ship&bbox=4.04,45,4.06,46&datetime=2024-06-06T00:00:00Z/..", [6]),
        ("answer=", []),
        ("footprint=1", []),
        ("after=23", [24, 25]),
    ],
)
def test_what_is_selected(house: House, query: str, ids: list[int]) -> None:
    with house.client() as client:
        found = _items(client, f"/collections/{house.plain}-features/items?{query}")
        assert [feature["id"] for feature in found] == ids


def test_a_box_across_the_antimeridian(house: House) -> None:
    address = f"/collections/{house.across}-features/items"
    with house.client() as client:
        for bbox, ids in (
            ("179.95,10,-179.92,11", [1, 2]),
            ("179.95,10,180,11", [1]),
            ("-179.96,10,-179.94,11", [1, 2]),
            ("-179.5,10,179.5,11", []),
        ):
            assert [feature["id"] for feature in _items(client, f"{address}?bbox={bbox}")] == ids
        shape = shapely.geometry.shape(_get(client, f"{address}/1")["geometry"])
        assert shape.geom_type == "MultiPolygon"
        assert shape.area == pytest.approx(0.02)


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=-1", "limit=ten", "limit=", "bbox=1,2,3", "bbox=1,2,3,4,5", "bbox=a,b,c,d", "bbox=",
        "bbox=0,10,5,0", "bbox=-181,0,0,1", "bbox=0,0,1,91", "bbox=nan,0,1,1", "bbox=0,0,1e999,1", "bbox=0,0,9,1,1,0",
        "datetime=yesterday", "datetime=2024", "datetime=2024-13-01T00:00:00Z", "datetime=../..", "datetime=/",
        "datetime=2024-06-02T00:00:00Z/2024-06-01T00:00:00Z", "datetime=", "datetime=..",
        "after=x", "after=-1", "colour=red", "LIMIT=3", "f=json", "answer=a&answer=b", "limit=1&limit=2", "status=x",
    ],
)  # fmt: skip
def test_what_cannot_be_read_or_is_not_known_is_refused(house: House, query: str) -> None:
    with house.client() as client:
        told = _get(client, f"/collections/{house.plain}-features/items?{query}", 400)
        assert told["type"] == "urn:earthmap:problem:parameter"


def test_no_resource_takes_what_it_does_not_know(house: House) -> None:
    with house.client() as client:
        for path in ("", f"/{house.plain}-features", f"/{house.plain}-features/items/1"):
            assert _get(client, f"/collections{path}?colour=red", 400)["status"] == 400
        for path in ("/", "/conformance", "/api", "/stac", "/stac/collections"):
            assert _get(client, f"{path}?colour=red", 400)["status"] == 400
        for after in ("x", "1-2", f"{'9' * 30}-{house.plain}"):
            assert client.get(f"/collections?after={after}").status_code == 400


def test_what_is_not_there(house: House) -> None:
    job = house.plain
    with house.client() as client:
        for path in (
            f"/collections/{NOBODY}-features", "/collections/x", "/collections/x-features", f"/collections/{job}",
            f"/collections/{job}-features/items/0", f"/collections/{job}-features/items/26",
            f"/collections/{job}-features/items/1x", f"/collections/{job}-features/items/{'9' * 40}",
            f"/collections/{job}-ledger", f"/collections/{job}-features/items/..%2f..%2fjob.json",
        ):  # fmt: skip
            answer = client.get(path)
            assert answer.status_code == 404, path
            assert answer.headers["content-type"] == "application/problem+json"


def test_who_may_see_a_collection(house: House) -> None:
    paths = (f"/collections/{house.other}-features", f"/collections/{house.other}-features/items/1")
    with house.client() as ada, house.client("bob") as bob, house.client("root") as root:
        for path in paths:
            assert ada.get(path).status_code == 404
            assert bob.get(path).status_code == root.get(path).status_code == 200
        assert [one["id"] for one in _get(bob, "/collections")["collections"]] == [
            f"{house.other}-features", f"{house.other}-coverage",
        ]  # fmt: skip
    with house.served.client() as nobody:
        for path in ("/collections", *paths):
            assert nobody.get(path).status_code == 401


def test_jobs_without_results_are_no_collections(house: House) -> None:
    jobs = house.served.jobs
    job = jobs.submit("map", {}, owner="ada")
    assert job is not None
    with house.client() as client:
        for _ in ("waiting", "failed"):
            assert client.get(f"/collections/{job.id}-features").status_code == 404
            assert job.id not in client.get("/collections").text
            claimed = jobs.claim("w", lease_s=60)
            jobs.fail(job.id, "w", fault={"type": "x", "title": "x", "status": 500, "detail": "x"})
        assert claimed is None
        jobs.dismiss(job.id)
        assert client.get(f"/collections/{job.id}-features").status_code == 410


def test_a_run_folder_that_is_gone_or_damaged_hides_no_other(tmp_path: Path) -> None:
    for served in serve(tmp_path):
        jobs = [finish_job(served.jobs, tmp_path / "runs", _squares(2)) for _ in range(4)]
        (tmp_path / "runs" / jobs[0] / "item.json").unlink()
        (tmp_path / "runs" / jobs[3] / "item.json").unlink()
        (tmp_path / "runs" / jobs[3] / "item.json").mkdir()  # what is there, and cannot be read
        (tmp_path / "runs" / jobs[1] / "item.json").write_text('{"bbox": [1, 2, 3], "geometry": {"type": "Point"}}')
        with served.client() as client:
            assert len(_get(client, "/collections")["collections"]) == 2
            assert client.get(f"/collections/{jobs[0]}-features").status_code == 404
            (tmp_path / "runs" / jobs[2] / "features.parquet").unlink()
            told = _get(client, f"/collections/{jobs[2]}-features/items", 404)
            assert str(tmp_path) not in json.dumps(told)
            assert client.get(f"/collections/{jobs[2]}-coverage/items").status_code == 200


# ── oas30 ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_api_describes_what_there_is(house: House) -> None:
    job = house.plain
    with house.client() as client:
        document = client.get("/api").json()
        for path, parts in (
            ("/collections", {}),
            ("/collections/{collectionId}", {"collectionId": f"{job}-coverage"}),
            ("/collections/{collectionId}/schema", {"collectionId": f"{job}-features"}),
            ("/collections/{collectionId}/items", {"collectionId": f"{job}-features"}),
            ("/collections/{collectionId}/items/{featureId}", {"collectionId": f"{job}-features", "featureId": "3"}),
            ("/stac", {}),
            ("/stac/conformance", {}),
            ("/stac/collections", {}),
            ("/stac/collections/{collectionId}", {"collectionId": "map"}),
            ("/stac/collections/{collectionId}/items", {"collectionId": "map"}),
            ("/stac/collections/{collectionId}/items/{itemId}", {"collectionId": "map", "itemId": job}),
            ("/stac/search", {}),
        ):
            answer = client.get(path.format(**parts))
            described = document["paths"][path]["get"]["responses"]["200"]["content"]
            assert list(described) == [answer.headers["content-type"]], path
            schema = {**described[answer.headers["content-type"]]["schema"], "components": document["components"]}
            jsonschema.Draft4Validator(draft4(schema)).validate(answer.json())
    validate(document)
    items = document["paths"]["/collections/{collectionId}/items"]["get"]["parameters"]
    by_name = {one["name"]: one for one in items}
    assert by_name["limit"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 10_000, "default": 10}
    assert by_name["bbox"]["explode"] is False
    assert {"datetime", "after", "answer", "sensor", "status", "audited"} <= set(by_name)


# ── strangers and clients ────────────────────────────────────────────────────────────────────────────────────


_NUMBERS = st.lists(st.floats(), max_size=7).map(lambda numbers: str(numbers)[1:-1])


@settings(max_examples=40)
@given(
    name=st.sampled_from(["bbox", "datetime", "limit", "after", "answer", "footprint", "x"]),
    text=st.text(st.characters(codec="utf-8"), max_size=20) | _NUMBERS,
)
def test_no_query_is_a_defect(house: House, name: str, text: str) -> None:
    with house.client() as client:
        answer = client.get(f"/collections/{house.plain}-features/items", params={name: text})
        assert answer.status_code in (200, 400)
        assert answer.json()


def test_owslib_reads_collections_and_features(house: House) -> None:
    from owslib.ogcapi.features import Features  # type: ignore[import-untyped]

    headers = {"Authorization": f"Bearer {house.tokens['ada']}", "Accept": "application/json"}
    client = Features(house.served.url, headers=headers)
    assert f"{house.plain}-features" in client.feature_collections()
    name = f"{house.plain}-features"
    assert client.collection(name)["itemType"] == "feature"
    page = client.collection_items(name, bbox=[4.0, 44.0, 4.016, 46.0], datetime_="2024-06-01T00:00:00Z/..", limit=1)
    assert (page["numberMatched"], page["numberReturned"]) == (2, 1)
    assert client.collection_item(name, "2")["id"] == 2


_GDAL = """
import json, sys
import pyogrio
url, token, job, across = sys.argv[1:]
pyogrio.set_gdal_config_options({"GDAL_HTTP_AUTH": "BEARER", "GDAL_HTTP_BEARER": token, "GDAL_HTTP_PROXY": ""})
layers = [str(name) for name, _ in pyogrio.list_layers(f"OAPIF:{url}")]
name = f"OAPIF:{url}/collections/{job}-features"
whole = pyogrio.read_dataframe(name, fid_as_index=True)
print(json.dumps({
    "layers": layers,
    "info": {key: str(value) for key, value in pyogrio.read_info(name).items()},
    "types": dict(zip(*(list(map(str, pyogrio.read_info(name)[key])) for key in ("fields", "dtypes")))),
    "ids": [int(number) for number in whole.index],
    "first": whole.iloc[0]["answer"],
    "date": str(whole.iloc[0]["datetime_min"]),
    "boxed": len(pyogrio.read_dataframe(name, bbox=(4.0, 44.0, 4.016, 46.0))),
    "ships": len(pyogrio.read_dataframe(name, where="answer = 'ship'")),
    "last": float(whole.iloc[-1]["fraction"]),
    "across": pyogrio.read_dataframe(f"OAPIF:{url}/collections/{across}-features").geometry.area.tolist(),
}))
"""


def test_gdal_opens_a_collection_as_a_layer(house: House) -> None:
    import pyogrio  # type: ignore[import-untyped]

    if "OAPIF" not in pyogrio.list_drivers():
        pytest.skip("this GDAL has no OAPIF driver")
    command = [sys.executable, "-c", _GDAL, house.served.url, house.tokens["ada"], house.plain, house.across]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert f"{house.plain}-features" in told["layers"]
    assert told["ids"] == list(range(1, COUNT + 1))
    assert told["info"]["crs"] == "EPSG:4326"
    assert told["info"]["geometry_type"] == "Polygon"
    assert told["types"]["fraction"] == "float64"  # though only the last feature, of the second page, has one
    assert told["last"] == 0.25
    assert told["info"]["features"] == str(COUNT)
    assert (told["first"], told["date"]) == ("ship", "2024-06-01 10:30:00+00:00")
    assert (told["boxed"], told["ships"]) == (2, 5)
    assert told["across"] == pytest.approx([0.02, 0.0])
