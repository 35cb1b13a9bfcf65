"""The documents of a catalogue: where they are, what they are, and one clear line where they are something else."""

from __future__ import annotations

import json
import re
import urllib.parse
from pathlib import Path
from typing import Any

from earthmap.errors import CatalogError

EXPECTED = "a STAC API, a static STAC catalogue, an ItemCollection, an item or stac-geoparquet"
"""What the address of a catalogue may be."""

PARQUET = (".parquet", ".geoparquet", ".parq")
"""How stac-geoparquet files of a folder end."""


def is_remote(address: str) -> bool:
    """True for an http, https or s3 address."""
    return address.startswith(("http://", "https://", "s3://"))


def local_path(address: str) -> Path:
    """The file behind a path or a file:// address."""
    if address.startswith("file://"):
        return Path(urllib.parse.unquote(urllib.parse.urlparse(address).path))
    return Path(address).expanduser()


def join(base: str, href: str) -> str:
    """`href` made absolute against the document at `base`; what is absolute stays as it is.

    Example:
        >>> join("s3://bucket/stac/catalog.json", "../a.json"), join("https://host/a/b", "c?d=1")
        ('s3://bucket/a.json', 'https://host/a/c?d=1')
    """
    if "://" in href or (href.startswith("/") and not is_remote(base)):
        return href
    if base.startswith("s3://"):  # urljoin knows no s3
        return "s3" + urllib.parse.urljoin(base.replace("s3", "http", 1), href).removeprefix("http")
    if is_remote(base):
        return urllib.parse.urljoin(base, href)
    return str((local_path(base).parent / href).resolve())


def read_file(address: str) -> bytes:
    """The bytes of a local file. Raises CatalogError where there is none or it cannot be read."""
    path = local_path(address)
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        where = next((parent for parent in path.absolute().parents if parent.is_dir()), Path("/"))
        raise CatalogError(
            f"there is no catalogue file {address}",
            expected=EXPECTED,
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
        raise CatalogError(f"the catalogue {address} is {what}", expected=EXPECTED, fix=fix) from error
    if not isinstance(value, dict):
        raise CatalogError(f"the catalogue {address} is JSON but a {type(value).__name__}", expected=EXPECTED)
    return value


def not_stac(address: str, value: dict[str, Any]) -> CatalogError:
    """The error for JSON that is not STAC, telling what it looks like."""
    kind = value.get("type")
    seen = f"of type {kind!r}" if isinstance(kind, str) else f"with the keys {', '.join(sorted(value)[:5]) or 'none'}"
    return CatalogError(
        f"the catalogue {address} is JSON {seen} but not STAC",
        expected=EXPECTED,
        fix="an area belongs to --area; an API's address is that of its landing page",
    )
