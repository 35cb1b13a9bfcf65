"""A static catalogue: JSON files that link to each other, on disk or behind http, read as far as a request needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from earthmap.catalog.documents import is_remote, join, not_stac
from earthmap.catalog.source import (
    Extent,
    SourceItem,
    Wanted,
    box_geometry,
    collection_extent,
    inherit,
    is_collection,
    is_item,
)
from earthmap.errors import CatalogError

if TYPE_CHECKING:
    from earthmap.catalog.transport import CatalogIO

EXTENT_MARGIN_DEG = 0.1
"""How far outside a collection's stated extent its items are still looked for: extents are often rounded."""

_THREADS = 8
_AT_ONCE = 256
"""Items fetched before they are given on, so that a long list of them is never held whole."""

_REPORTED = 1_000

Document = Mapping[str, Any]


class StaticCatalog:
    """A Catalog or Collection and what it links to.

    Collections that were not asked for, or that state an extent away from the request, are passed over before any of
    their items is fetched.
    """

    def __init__(self, io: CatalogIO, *, address: str, document: Document) -> None:
        self._io = io
        self._address = address
        self._documents: dict[str, Document] = {address: document}

    @property
    def address(self) -> str:
        """The address of its root document."""
        return self._address

    def collections(self) -> Mapping[str, Extent]:
        """The stated extents of all its collections."""
        nodes = self._nodes(Wanted())
        return {str(node["id"]): collection_extent(node) for _, node in nodes if is_collection(node)}

    def items(self, wanted: Wanted) -> Iterator[SourceItem]:
        """The items of the collections that can match."""
        count = 0
        for address, node in self._nodes(wanted):
            inside = str(node["id"]) if is_collection(node) else None
            if wanted.collections and inside is not None and inside not in wanted.collections:
                continue
            for found in self._items_of(node, address):
                yield SourceItem(inherit(found.item, node), found.base)
                count += 1
                if count % _REPORTED == 0:
                    self._io.say(f"{count:,} items of {self._address} read")

    def _items_of(self, node: Document, address: str) -> Iterator[SourceItem]:
        """The items that a node links to, one by one or as ItemCollections."""
        for href, item in self._fetch(_links(node, "item", address)):
            if not is_item(item):
                raise not_stac(href, dict(item))
            yield SourceItem(item, href)
        for href, page in self._fetch(_links(node, "items", address)):
            features = page.get("features")
            if not isinstance(features, list) or not all(is_item(feature) for feature in features):
                raise not_stac(href, dict(page))
            yield from (SourceItem(feature, href) for feature in features)

    def _nodes(self, wanted: Wanted) -> Iterator[tuple[str, Document]]:
        """The catalogues and collections in reach that do not state an extent away from the request."""
        waiting, seen = [self._address], {self._address}
        while waiting:
            address = waiting.pop(0)
            node = self._node(address)
            if not _may_hold(node, wanted):
                continue
            yield address, node
            children = [href for href in _links(node, "child", address) if href not in seen]
            seen.update(children)
            waiting += dict.fromkeys(children)

    def _node(self, address: str) -> Document:
        if address not in self._documents:
            document = self._io.document(address)
            if not is_container(document):
                raise not_stac(address, document)
            self._documents[address] = document
        return self._documents[address]

    def _fetch(self, hrefs: Sequence[str]) -> Iterator[tuple[str, Document]]:
        if len(hrefs) < 2 or not is_remote(hrefs[0]):
            yield from ((href, self._io.document(href)) for href in hrefs)
            return
        with ThreadPoolExecutor(_THREADS) as pool:
            for start in range(0, len(hrefs), _AT_ONCE):
                part = hrefs[start : start + _AT_ONCE]
                yield from zip(part, pool.map(self._io.document, part), strict=True)


def is_container(document: Document) -> bool:
    """True for a Catalog or a Collection of any version of STAC (before 1.0 they had no type)."""
    if not isinstance(document.get("links"), list) or "id" not in document:
        return False
    return document.get("type") in ("Catalog", "Collection") or ("stac_version" in document and "type" not in document)


def _links(node: Document, relation: str, address: str) -> list[str]:
    links = [link for link in node["links"] if isinstance(link, Mapping) and link.get("rel") == relation]
    if any(not isinstance(link.get("href"), str) for link in links):
        raise CatalogError(
            f"a link of the catalogue {address} has no href", expected=f"an href at each {relation} link"
        )
    return [join(address, link["href"]) for link in links]


def _may_hold(node: Document, wanted: Wanted) -> bool:
    extent = collection_extent(node)
    if wanted.interval and extent.interval and not wanted.interval.overlaps(extent.interval):
        return False
    if wanted.geometry is None or extent.bbox is None:
        return True
    return bool(box_geometry(extent.bbox).buffer(EXTENT_MARGIN_DEG, join_style="mitre").intersects(wanted.geometry))
