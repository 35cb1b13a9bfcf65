"""GDAL, obstore, requests and pystac-client reach addresses through the proxy alone, at every hop of a redirection."""

from __future__ import annotations

import dataclasses
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from earthmap.catalog.admission import admit, forget_addresses
from earthmap.catalog.http import open_session
from earthmap.catalog.transport import CatalogIO
from earthmap.connection import Connection
from earthmap.errors import CatalogError, ReadError
from earthmap.service.egress import Egress, egress_thread, proxied_environment
from earthmap.service.egress_gate import Gate
from earthmap.service.egress_reach import EgressLimits
from earthmap.service.egress_rules import make_rules
from tests.service.egress_servers import Certificate, Names, Origin, make_certificate, origin

HOST, OTHER, INNER = "imagery.example", "mirror.example", "inner.example"

SECRET = "s3cret-and_long"

QUICK_END = EgressLimits(grace_s=0.1)
"""Clients keep connections; a test does not wait for them."""


@dataclass(frozen=True)
class Site:
    """One server, its proxy, and a second server that is not to be reached."""

    scheme: str
    server: Origin
    inner: Origin
    egress: Egress
    names: Names
    connection: Connection

    def address(self, path: str, *, host: str = HOST) -> str:
        return f"{self.scheme}://{host}:{self.server.port}{path}"

    def gdal(self, path: str, *, host: str = HOST) -> np.ndarray:
        import rasterio

        name = f"/vsicurl/{self.address(path, host=host)}"
        options = self.connection.gdal_options(name) | {"GDAL_HTTP_MAX_RETRY": "0"}
        with rasterio.Env(**options, CPL_VSIL_CURL_NON_CACHED="/vsicurl/"), rasterio.open(name) as dataset:
            return np.asarray(dataset.read(1))

    def obstore(self, path: str, *, host: str = HOST) -> bytes:
        import obstore
        from obstore.store import from_url

        home = self.address("", host=host)
        options = self.connection.obstore_options(home) | {"retry_config": {"max_retries": 0}}
        return bytes(obstore.get(from_url(home, **options), path.lstrip("/")).bytes())

    def requests(self, path: str, *, host: str = HOST) -> bytes:
        with open_session(self.connection) as session:
            answer = session.get(self.address(path, host=host))
            answer.raise_for_status()
            return answer.content


def image() -> bytes:
    import rasterio
    from rasterio.io import MemoryFile

    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", width=64, height=64, count=1, dtype="uint8", crs="EPSG:32633",
            transform=rasterio.transform.from_origin(500000, 5000000, 10, 10),
        ) as dataset:  # fmt: skip
            dataset.write(np.full((64, 64), 7, np.uint8), 1)
        return bytes(memory.read())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"), HOST, OTHER, INNER)


@pytest.fixture(scope="module", params=[("http", None), ("https", None), ("https", SECRET)], ids=str)
def site(request: pytest.FixtureRequest, certificate: Certificate) -> Iterator[Site]:
    scheme, secret = request.param
    file = certificate if scheme == "https" else None
    names = Names({HOST: [["127.0.0.1"]], OTHER: [["127.0.0.1"]], INNER: [["127.0.0.1"]]})
    with origin(certificate=file) as server, origin(certificate=file) as inner:
        server.files |= {"/a.tif": image(), "/catalog.json": b'{"type": "Catalog"}'}
        inner.files |= server.files
        rules = make_rules([f"{HOST}:{server.port}", f"{OTHER}:{server.port}"])
        with egress_thread(rules, gate=Gate(secret=secret), resolve=names, limits=QUICK_END) as egress:
            environment = {**egress.environment(), **({"SSL_CERT_FILE": str(file.authority)} if file else {})}
            connection = Connection.from_environment(
                {**environment, "EARTHMAP_RETRIES": "0", "EARTHMAP_READ_RETRIES": "0"}
            )
            state = Site(scheme, server, inner, egress, names, connection)
            server.moved |= {
                "/to-mirror.tif": state.address("/a.tif", host=OTHER),
                "/to-inner.tif": state.address("/a.tif", host=INNER).replace(f":{server.port}", f":{inner.port}"),
                "/to-number.tif": f"{scheme}://127.0.0.1:{inner.port}/a.tif",
                "/to-decimal.tif": f"{scheme}://2130706433:{inner.port}/a.tif",
                "/to-mapped.tif": f"{scheme}://[::ffff:127.0.0.1]:{inner.port}/a.tif",
            }
            yield state


INWARDS = ["/to-inner.tif", "/to-number.tif", "/to-decimal.tif", "/to-mapped.tif"]


def test_all_clients_reach_what_they_may_through_the_proxy_alone(site: Site) -> None:
    """The names are known to the proxy only, and the server sees exactly the connections that the proxy made."""
    before, allowed = site.server.connections, site.egress.counts.allowed
    assert (site.gdal("/a.tif") == 7).all()
    assert site.obstore("/a.tif") == image()
    assert site.requests("/a.tif") == image()
    assert CatalogIO(site.connection).document(site.address("/catalog.json")) == {"type": "Catalog"}
    made = site.egress.counts.allowed - allowed
    assert made >= 4
    assert site.server.connections - before == made


def test_in_plain_http_all_clients_show_the_secret() -> None:
    """obstore, which reads buckets only, forgets it at a redirection to another host; GDAL and requests do not."""
    names = Names({HOST: [["127.0.0.1"]], OTHER: [["127.0.0.1"]]})
    with origin() as server:
        server.files["/a.tif"] = image()
        rules = make_rules([f"{HOST}:{server.port}", f"{OTHER}:{server.port}"])
        with egress_thread(rules, gate=Gate(secret=SECRET), resolve=names, limits=QUICK_END) as egress:
            connection = Connection.from_environment({**egress.environment(), "EARTHMAP_RETRIES": "0"})
            site = Site("http", server, server, egress, names, connection)
            server.moved["/to-mirror.tif"] = site.address("/a.tif", host=OTHER)
            for path in ("/a.tif", "/to-mirror.tif"):
                assert (site.gdal(path) == 7).all()
                assert site.requests(path) == image()
            assert site.obstore("/a.tif") == image()
            assert egress.counts.refused == {}
        assert not any(SECRET in str(head) or "proxy-authorization" in head[2] for head in server.heads)


def test_a_redirection_to_where_one_may_go_is_followed(site: Site) -> None:
    assert (site.gdal("/to-mirror.tif") == 7).all()
    assert site.obstore("/to-mirror.tif") == image()
    assert site.requests("/to-mirror.tif") == image()
    assert OTHER in site.names.asked


@pytest.mark.parametrize("path", INWARDS)
def test_a_redirection_inwards_is_refused_to_all_clients(site: Site, path: str) -> None:
    refused = sum(site.egress.counts.refused.values())
    with pytest.raises(OSError, match=r"403|response code|HTTP|not recognized|CURL"):
        site.gdal(path)
    assert sum(site.egress.counts.refused.values()) > refused
    with pytest.raises(Exception, match=r"(?i)generic|403|error|proxy"):
        site.obstore(path)
    with pytest.raises(OSError, match=r"refuse|Refused|redirects"):
        site.requests(path)
    assert site.inner.connections == 0


@pytest.mark.parametrize(
    "host", [INNER, "127.0.0.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "127.0.0.1.", "localhost"]
)
def test_no_client_reaches_an_inner_address(site: Site, host: str) -> None:
    before = site.server.connections
    for client in (site.gdal, site.obstore, site.requests):
        with pytest.raises(Exception):  # noqa: B017, PT011 - each client has errors of its own; that nobody connected counts
            client("/a.tif", host=host)
    assert site.server.connections == before


def test_a_name_that_turns_inwards_after_it_was_checked(site: Site, certificate: Certificate) -> None:
    """Once with the good number, and from then on with another: the check and the connection are one look-up."""
    for client in ("gdal", "obstore", "requests"):
        names = Names({"turns.example": [["127.0.0.1"], ["127.0.0.2"]], HOST: [["127.0.0.1"], ["10.0.0.1"]]})
        with egress_thread(make_rules([f"127.0.0.1:{site.server.port}"]), resolve=names, limits=QUICK_END) as egress:
            connection = Connection.from_environment(
                {**egress.environment(), "EARTHMAP_RETRIES": "0", "EARTHMAP_READ_RETRIES": "0"}
                | ({"SSL_CERT_FILE": str(certificate.authority)} if site.scheme == "https" else {})
            )
            turned = Site(site.scheme, site.server, site.inner, egress, names, connection)
            before, looked = site.server.connections, 0
            for _ in range(2):
                try:
                    getattr(turned, client)("/a.tif")
                except Exception:  # noqa: BLE001 - each client has errors of its own
                    looked += 1
            assert looked >= 1
            assert site.server.connections - before == egress.counts.allowed <= 1
            assert len(names.asked) == egress.counts.allowed + sum(egress.counts.refused.values())


def test_pystac_client_searches_through_the_proxy(site: Site) -> None:
    from pystac_client import Client

    where = site.address("")
    landing = {
        "type": "Catalog", "id": "a", "stac_version": "1.0.0", "description": "a",
        "conformsTo": ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"],
        "links": [{"rel": "search", "href": f"{where}/search", "method": "POST", "type": "application/geo+json"},
                  {"rel": "root", "href": where}],
    }  # fmt: skip
    site.server.files["/"] = json.dumps(landing).encode()
    before, allowed = site.server.connections, site.egress.counts.allowed
    client = Client.open(f"{where}/", stac_io=CatalogIO(site.connection))
    with pytest.raises(CatalogError):  # the answer to the search is an empty object
        list(client.search(bbox=(0, 0, 1, 1), method="POST").items())
    assert b"bbox" in site.server.bodies[-1]
    assert site.server.connections - before == site.egress.counts.allowed - allowed


def test_a_refusal_is_told_as_what_it_is_and_not_asked_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    patient = dataclasses.replace(site.connection, retries=5, read_retries=5)
    refused = sum(site.egress.counts.refused.values())
    with pytest.raises(CatalogError, match=r"the egress proxy refuses it \((not public|plain http|port)\)"):
        CatalogIO(patient).document(site.address("/catalog.json", host=INNER))
    assert sum(site.egress.counts.refused.values()) == refused + 1
    monkeypatch.setattr(Connection, "from_environment", classmethod(lambda cls: patient))
    address = site.address("/a.tif", host=INNER)
    with pytest.raises(ReadError, match="the egress proxy refuses it") as caught:
        admit(address, href=address)
    assert caught.value.reason == "forbidden_address"
    assert sum(site.egress.counts.refused.values()) == refused + 2
    forget_addresses()


def test_the_environment_alone_leads_every_client(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that earthmap does not set itself: plain requests, urllib, and GDAL without options."""
    import urllib.request

    import requests

    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name, value in site.egress.environment().items():
        monkeypatch.setenv(name, value)
    forget_addresses()
    before = site.server.connections
    inner = f"{site.scheme}://127.0.0.1:{site.inner.port}/a.tif"
    with pytest.raises(OSError, match=r"403"):
        requests.get(inner, timeout=5).raise_for_status()
    with pytest.raises(OSError, match=r"403"):
        urllib.request.build_opener().open(inner, timeout=5)
    import rasterio

    with pytest.raises(OSError, match=r"403|not recognized|HTTP|CURL"), rasterio.Env(GDAL_HTTP_MAX_RETRY="0"):
        rasterio.open(f"/vsicurl/{inner}")
    assert site.inner.connections == 0
    assert site.server.connections == before


def test_variables_are_read_back_as_they_are_meant() -> None:
    connection = Connection.from_environment(proxied_environment("http://127.0.0.1:3128"))
    for address in ("https://a.example/", "http://localhost/", "http://127.0.0.1/", "http://10.0.0.1:9000/"):
        assert connection.proxy_for(address) == "http://127.0.0.1:3128"
    assert connection.s3.anonymous
    assert not connection.signed().s3.anonymous
    assert io.BytesIO(image()).read(2) in (b"II", b"MM")
