"""The bytes behind a catalogue's address: a file or an http(s) answer, or one clear line saying why not."""

from __future__ import annotations

import json
import re
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from pystac_client.stac_api_io import StacApiIO
from urllib3 import Retry

from earthmap.errors import CatalogError

if TYPE_CHECKING:
    from requests import Request, Response

TIMEOUT_S = (10.0, 60.0)
"""Seconds to wait for a connection, and then for each piece of an answer."""

_ACCEPT = "application/json, application/geo+json;q=0.9, */*;q=0.5"
_EXPECTED = "a STAC API, a static STAC catalogue, an ItemCollection, an item or stac-geoparquet"
_QUOTED = 300


def is_remote(address: str) -> bool:
    """True for an http or https address."""
    return address.startswith(("http://", "https://"))


def local_path(address: str) -> Path:
    """The file behind a path or a file:// address."""
    if address.startswith("file://"):
        return Path(urllib.parse.unquote(urllib.parse.urlparse(address).path))
    return Path(address).expanduser()


def join(base: str, href: str) -> str:
    """`href` made absolute against the document at `base`; what is absolute stays as it is."""
    if "://" in href or (href.startswith("/") and not is_remote(base)):
        return href
    if is_remote(base):
        return urllib.parse.urljoin(base, href)
    return str((local_path(base).parent / href).resolve())


class CatalogIO(StacApiIO):
    """pystac-client's own transport with retries for every method, timeouts, and our errors."""

    def __init__(self) -> None:
        # pystac-client's own Retry repeats GET only, and a search is a POST.
        retry = Retry(
            total=5,
            connect=2,
            read=2,
            backoff_factor=1,
            status_forcelist=[429, 502, 503, 504],
            allowed_methods=None,
            raise_on_status=False,
        )
        super().__init__(headers={"Accept": _ACCEPT}, timeout=TIMEOUT_S, max_retries=retry)

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> str:
        """The text of an answer that is JSON. Raises CatalogError."""
        body = method == "POST"
        request = requests.Request(
            method or "GET",
            href,
            headers=headers,
            json=parameters if body else None,
            params=None if body else parameters,
        )
        text = self._send(request).content.decode("utf-8", errors="replace")
        parse_json(text, href)
        return text

    def fetch(self, address: str) -> bytes:
        """The bytes of a file or of an answer. Raises CatalogError."""
        if is_remote(address):
            return self._send(requests.Request("GET", address)).content
        return read_file(address)

    def document(self, address: str) -> dict[str, Any]:
        """The JSON object at `address`. Raises CatalogError."""
        return parse_json(self.fetch(address).decode("utf-8", errors="replace"), address)

    def _send(self, request: Request) -> Response:
        address = str(request.url)
        try:
            prepared = self.session.prepare_request(request)
            settings = self.session.merge_environment_settings(prepared.url or address, {}, None, None, None)
            response = self.session.send(prepared, timeout=TIMEOUT_S, **settings)
        except requests.exceptions.RequestException as error:
            raise _unreachable(address, error) from error
        if not response.ok:
            raise _refused(address, response)
        return response


def read_file(address: str) -> bytes:
    """The bytes of a local file. Raises CatalogError where there is none or it cannot be read."""
    path = local_path(address)
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        where = next((parent for parent in path.absolute().parents if parent.is_dir()), Path("/"))
        raise CatalogError(
            f"there is no catalogue file {address}",
            expected=_EXPECTED,
            fix=f"check the path; the nearest folder that exists is {where}",
        ) from error
    except OSError as error:
        raise CatalogError(
            f"cannot read the catalogue {address}: {error.strerror or error}", fix="check its permissions"
        ) from error


def parse_json(text: str, address: str) -> dict[str, Any]:
    """`text` as a JSON object. Raises CatalogError that says what it is instead."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        start = text.lstrip("\ufeff \t\r\n")
        if start.startswith("<"):
            what = "an HTML page" if re.match(r"<!doctype html|<html", start, re.IGNORECASE) else "a page of markup"
            fix = "give the address of the API itself, not of a web page about it or of a sign-in page"
        else:
            what, fix = ("nothing" if not start else f"not JSON ({error})"), "check the address, and that it is whole"
        raise CatalogError(f"the catalogue {address} is {what}", expected=_EXPECTED, fix=fix) from error
    if not isinstance(value, dict):
        raise CatalogError(f"the catalogue {address} is JSON but a {type(value).__name__}", expected=_EXPECTED)
    return value


def not_stac(address: str, value: dict[str, Any]) -> CatalogError:
    """The error for JSON that is not STAC, telling what it looks like."""
    kind = value.get("type")
    seen = f"of type {kind!r}" if isinstance(kind, str) else f"with the keys {', '.join(sorted(value)[:5]) or 'none'}"
    return CatalogError(
        f"the catalogue {address} is JSON {seen} but not STAC",
        expected=_EXPECTED,
        fix="an area belongs to --area; an API's address is that of its landing page",
    )


def _unreachable(address: str, error: requests.exceptions.RequestException) -> CatalogError:
    host = urllib.parse.urlparse(address).netloc or address
    # A body that stops arriving is a ConnectionError to requests, with the timeout in its text only.
    if isinstance(error, requests.exceptions.Timeout) or "timed out" in str(error):
        return CatalogError(
            f"the catalogue {address} did not answer in time",
            expected=f"a connection within {TIMEOUT_S[0]:g} s and an answer within {TIMEOUT_S[1]:g} s",
            fix="try again, or ask for a smaller area or time",
        )
    if isinstance(error, requests.exceptions.SSLError):
        return CatalogError(
            f"the certificate of {host} is not accepted", fix="check the address and this machine's clock"
        )
    if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema)):
        return CatalogError(f"{address!r} is not an address", expected="https://host/path", fix="check its spelling")
    if isinstance(error, (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError)):
        return CatalogError(
            f"the answer of {address} broke off or is damaged", expected="a whole answer", fix="try again"
        )
    return CatalogError(
        f"the catalogue {address} cannot be reached",
        expected=f"a server that answers at {host}",
        fix="check the address, the network and the proxy",
    )


_STATUS_FIX = {
    401: "give the credentials that the service asks for",
    403: "give the credentials that the service asks for",
    404: "check the address; an API's address is that of its landing page",
    429: "wait a while: the service refuses more requests now",
}


def _refused(address: str, response: Response) -> CatalogError:
    said = " ".join(re.sub(r"<[^>]*>", " ", response.text[: 4 * _QUOTED]).split())[:_QUOTED]
    busy = "try again later: the service has trouble of its own"
    fix = _STATUS_FIX.get(
        response.status_code, busy if response.status_code >= 500 else "check the address and request"
    )
    status = f"{response.status_code} {response.reason or ''}".strip()
    return CatalogError(
        f"the catalogue {address} answered {status}{f': {said}' if said else ''}", expected="200 OK", fix=fix
    )
