"""The one way in which catalogues read: files, http(s) and s3, with pystac-client's requests among them."""

from __future__ import annotations

import contextlib
import io
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast

import requests
from pystac_client.stac_api_io import StacApiIO

from earthmap.catalog.documents import PARQUET, is_remote, local_path, parse_json, read_file
from earthmap.catalog.http import HEAVY_RETRIES, Answer, ask, open_session, shown
from earthmap.catalog.pages import Page, PageRequest, read_pages
from earthmap.catalog.ranges import RangedFile
from earthmap.connection import Connection
from earthmap.errors import CatalogError, EarthmapError

if TYPE_CHECKING:
    from obstore.store import ObjectStore
    from requests import Request

_ACCEPT = "application/json, application/geo+json;q=0.9, */*;q=0.5"

T = TypeVar("T")


class CatalogIO(StacApiIO):
    """pystac-client's transport with the time-outs, retries and errors of earthmap.

    One for each open catalogue; used by several threads where documents are fetched side by side.
    """

    def __init__(self, connection: Connection | None = None, *, say: Callable[[str], None] | None = None) -> None:
        super().__init__(max_retries=None)
        self.connection = connection or Connection.from_environment()
        """How the network is reached."""
        self.say = say or (lambda text: None)
        """Hears of waiting and of progress."""
        self.session.close()
        self.session = open_session(self.connection)
        self.session.headers["Accept"] = _ACCEPT

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> str:
        """The text of an answer that is JSON. Raises CatalogError."""
        wanted = PageRequest(url=href, method=method or "GET", parameters=parameters or {}, headers=headers or {})
        return self._ask(_request(wanted), lambda answer: (parse_json(answer.text, shown(href)), answer.text)[1])

    def get_pages(
        self, url: str, method: str | None = None, parameters: dict[str, Any] | None = None
    ) -> Iterator[Page]:
        """The pages of a search or listing. Raises CatalogError, with the number of the page."""
        first = PageRequest(url=url, method=method or "GET", parameters=parameters or {})
        return read_pages(first, lambda wanted, read: self._ask(_request(wanted), read, heavy_retries=HEAVY_RETRIES))

    def fetch(self, address: str) -> bytes:
        """The bytes of a file, an s3 object or an answer. Raises CatalogError."""
        if address.startswith("s3://"):
            return _read_s3(address, self.connection)
        if address.startswith(("http://", "https://")):
            return self._ask(requests.Request("GET", address), lambda answer: answer.content)
        return read_file(address)

    def open(self, address: str) -> IO[bytes]:
        """The http(s) or s3 `address` as a seekable stream, fetched in ranges as it is read; whole where it must be."""
        from obstore.store import from_url

        home, _, key = address.rpartition("/")
        if address.startswith("s3://") or "?" not in key:
            with contextlib.suppress(Exception):  # obstore raises errors of no common base; the next way tells why
                store = from_url(home, **self.connection.obstore_options(home))
                remote = _RemoteFile(store, urllib.parse.unquote(key), address)
                remote.read(1)  # a server may give no ranges, or a page instead of the file
                remote.seek(0)
                return cast(IO[bytes], remote)
        return io.BytesIO(self.fetch(address))

    def starts_with(self, address: str, magic: bytes) -> bool:
        """True where a local file, or a remote one that ends like Parquet, starts so; the rest is fetched anyway."""
        if is_remote(address):
            if not address.partition("?")[0].lower().endswith(PARQUET):
                return False
            with self.open(address) as stream:
                return bytes(stream.read(len(magic))) == magic
        path = local_path(address)
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            return stream.read(len(magic)) == magic

    def list_files(self, prefix: str) -> list[str]:
        """The addresses of all objects below the s3 address `prefix`, sorted. Raises CatalogError."""
        bucket, _, path = prefix.removeprefix("s3://").partition("/")
        with _s3(f"s3://{bucket}", prefix, self.connection) as store:
            import obstore

            found = [meta["path"] for batch in obstore.list(store, path.strip("/") or None) for meta in batch]
            return [f"s3://{bucket}/{key}" for key in sorted(found)]

    def document(self, address: str) -> dict[str, Any]:
        """The JSON object at `address`. Raises CatalogError."""
        if not address.startswith(("http://", "https://")):
            return parse_json(self.fetch(address).decode("utf-8", errors="replace"), address)
        return self._ask(requests.Request("GET", address), lambda answer: parse_json(answer.text, shown(address)))

    def _ask(self, request: Request, read: Callable[[Answer], T], *, heavy_retries: int | None = None) -> T:
        return ask(self.session, request, read, connection=self.connection, heavy_retries=heavy_retries, say=self.say)


class _RemoteFile(RangedFile):
    """A remote file read in ranges. Raises OSError where a range cannot be had."""

    def __init__(self, store: ObjectStore, key: str, address: str) -> None:
        import obstore

        super().__init__(int(obstore.head(store, key)["size"]))
        self._store, self._key, self._address = store, key, address

    def fetch(self, start: int, count: int) -> bytes:
        import obstore

        try:
            return bytes(obstore.get_range(self._store, self._key, start=start, length=count))
        except Exception as error:  # obstore raises errors of no common base
            said = str(error).split("Debug source")[0].strip()[:300]
            raise OSError(f"a part of {shown(self._address)} cannot be had: {said}") from error


def _request(wanted: PageRequest) -> Request:
    body, headers = wanted.method == "POST", dict(wanted.headers)
    parameters: Mapping[str, Any] = wanted.parameters
    return requests.Request(
        wanted.method,
        wanted.url,
        headers=headers,
        json=dict(parameters) if body else None,
        params=None if body else dict(parameters),
    )


def _read_s3(address: str, connection: Connection) -> bytes:
    """The bytes of an s3 object. Raises CatalogError."""
    import obstore

    bucket, _, key = address.removeprefix("s3://").partition("/")
    with _s3(f"s3://{bucket}", address, connection) as store:
        return bytes(obstore.get(store, key).bytes())


@contextlib.contextmanager
def _s3(home: str, address: str, connection: Connection) -> Iterator[ObjectStore]:
    """The bucket `home`; what goes wrong with it inside is said of `address`."""
    from obstore.store import from_url

    try:
        yield from_url(home, **connection.obstore_options(home))
    except FileNotFoundError as error:
        raise CatalogError(f"there is no catalogue {address}", fix="check the bucket and the path") from error
    except EarthmapError:
        raise
    except Exception as error:  # obstore raises errors of no common base
        said = str(error).split("Debug source")[0].strip()[:300]
        raise CatalogError(
            f"the catalogue {address} cannot be read: {said}",
            fix="check its region and credentials; AWS_NO_SIGN_REQUEST=YES for a public bucket",
        ) from error
