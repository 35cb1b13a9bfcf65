"""A product: the files of one image and what is known of it beside what the files say themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import shapely
from shapely.geometry.base import BaseGeometry

from earthmap.catalog.archives import read_text
from earthmap.catalog.markup import MarkupError, parse_xml
from earthmap.errors import CatalogError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from earthmap.catalog.intervals import Interval
    from earthmap.catalog.listing import FoundFile


@dataclass(frozen=True, slots=True, kw_only=True)
class BandFile:
    """One file of a product."""

    key: str
    """Of the asset."""
    file: FoundFile
    bands: tuple[Mapping[str, Any], ...] = ()
    """Its bands as STAC 1.1 states them; empty where the file itself must tell."""
    roles: tuple[str, ...] = ("data",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """The files of one image."""

    name: str
    """Names the item."""
    files: tuple[BandFile, ...]
    collection: str = "images"
    properties: Mapping[str, Any] = field(default_factory=dict)
    """STAC properties."""
    time: Interval | None = None
    """When it was measured, as its metadata say; None where only names and tags can tell."""
    footprint: BaseGeometry | None = None
    """In EPSG:4326; None where the files' own ground counts."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Addresses of metadata files by asset key."""
    left_out: tuple[tuple[str, str], ...] = ()
    """Addresses of its files that are no assets, and why."""


def left_of(metadata: FoundFile, files: Sequence[FoundFile], used: Set[str], what: str) -> tuple[tuple[str, str], ...]:
    """What `Product.left_out` says of the images of a product that are no assets: one line, all of them named."""
    names = [file.name.rpartition("/")[2] for file in files if file.is_raster and file.address not in used]
    return ((metadata.address, f"{len(names)} of its files are {what}: {', '.join(names)}"),) if names else ()


def read_xml(address: str) -> Element:
    """The root of a metadata file. Raises CatalogError for what is no XML, or has a document type."""
    try:
        return parse_xml(read_text(address))
    except MarkupError as error:
        raise CatalogError(
            f"{address} is no XML that is read: it holds {error}",
            expected="metadata as the agency writes them",
            fix="fetch the product again",
        ) from error


def tag_texts(root: Element, name: str) -> list[str]:
    """The texts of all elements of this name, whatever their namespace, in order."""
    return [(element.text or "").strip() for element in root.iter() if element.tag.rpartition("}")[2] == name]


def tag_text(root: Element, name: str) -> str | None:
    """The text of the first element of this name that has one; None where there is none."""
    return next((text for text in tag_texts(root, name) if text), None)


def lat_lon_polygon(text: str) -> BaseGeometry | None:
    """A polygon from numbers in pairs of latitude and longitude, x = longitude; None for what is no ring."""
    numbers = [float(part) for part in re.findall(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?", text)]
    pairs = list(zip(numbers[1::2], numbers[0::2], strict=False))
    if len(pairs) < 3 or any(not (-360.0 <= x <= 360.0 and -90.0 <= y <= 90.0) for x, y in pairs):
        return None
    return shapely.Polygon(pairs)
