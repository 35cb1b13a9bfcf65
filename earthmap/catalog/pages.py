"""The pages of a search or listing: which request brings the next one, and when paging goes nowhere.

STAC API 1.0 (and OGC API - Features, which it builds on) leaves the `next` link to the service: relative or absolute,
GET or POST, with a whole body or one to be merged with the last. What is checked here is what services get wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit

from earthmap.catalog.documents import parse_json
from earthmap.catalog.http import Answer, shown
from earthmap.errors import CatalogError

Page = dict[str, Any]

STALE_PAGES = 20
"""Pages in a row without anything new after which paging is given up as endless."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """What brings one page."""

    url: str
    method: str = "GET"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Body of a POST; query of the first GET, whose followers carry theirs in the address."""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """What tells it from other requests."""
        return json.dumps([self.method, self.url, dict(self.parameters)], sort_keys=True, default=str)


Ask = Callable[[PageRequest, Callable[[Answer], "_Read"]], "_Read"]
"""Sends a request and gives what the reader makes of its answer; asks again where the reader raises CatalogError."""


@dataclass(frozen=True, slots=True)
class _Read:
    page: Page
    following: PageRequest | None


@dataclass(slots=True)
class _Trail:
    """What was asked and seen so far."""

    asked: set[str] = field(default_factory=set)
    ids: set[tuple[str, str]] = field(default_factory=set)
    pages: int = 0
    stale: int = 0

    def take(self, page: Page) -> None:
        """Count a page. Raises CatalogError where pages come and bring nothing."""
        self.pages += 1
        ids = {(str(entry.get("collection")), str(entry.get("id"))) for entry in entries(page)}
        self.stale = 0 if ids - self.ids else self.stale + 1
        self.ids |= ids
        if self.stale >= STALE_PAGES:
            raise CatalogError(
                f"the last {STALE_PAGES} pages brought nothing new and there are still more: the service pages in a "
                "circle",
                fix="ask for a smaller area or time, or tell the service's operators",
            )


def read_pages(first: PageRequest, ask: Ask) -> Iterator[Page]:
    """The pages from `first` on, empty ones too, until one links to none after it.

    Raises:
        CatalogError: with the number of the page and of what had come, where a page cannot be had, is none, or leads
            back to one that was there already.
    """
    trail, wanted = _Trail(), first
    while True:
        trail.asked.add(wanted.key)
        try:
            read = ask(wanted, lambda answer, wanted=wanted: _read(answer, wanted, trail.asked))  # type: ignore[misc]
            trail.take(read.page)
        except CatalogError as error:
            raise _at_page(error, trail) from error
        yield read.page
        if read.following is None:
            return
        wanted = read.following


def entries(page: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The items or collections of a page."""
    found = page.get("features", page.get("collections"))
    return found if isinstance(found, list) else []


def _at_page(error: CatalogError, trail: _Trail) -> CatalogError:
    if trail.pages == 0:
        return error
    return CatalogError(
        f"{error.what}, at page {trail.pages + 1} after {len(trail.ids):,} items had come",
        expected=error.expected,
        fix=error.fix,
        status=error.status,
    )


def _read(answer: Answer, wanted: PageRequest, asked: set[str]) -> _Read:
    """The page in `answer`. Raises CatalogError where it is none, or its next page was there already."""
    where = shown(wanted.url)
    page = parse_json(answer.text, where)
    found = page.get("features", page.get("collections"))
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise CatalogError(
            f"the answer of {where} is JSON with the keys {', '.join(sorted(page)[:5]) or 'none'}",
            expected="a page with a list of features or collections",
            fix="try again; if it stays, tell the service's operators",
        )
    following = next_request(page, wanted, base=answer.address)
    if following is not None and following.key in asked:
        raise CatalogError(
            f"the next page of {where} is one that was there already: the service pages in a circle",
            expected="a next link that leads on",
            fix="ask for a smaller area or time, or tell the service's operators",
        )
    return _Read(page, following)


def next_request(page: Mapping[str, Any], current: PageRequest, *, base: str) -> PageRequest | None:
    """What brings the page after `page`, whose own address is `base`; None for the last page.

    Raises:
        CatalogError: for a next link that leads nowhere.
    """
    links = page.get("links")
    link = next((one for one in links or () if isinstance(one, Mapping) and one.get("rel") == "next"), None)
    if link is None:
        return None
    if not isinstance(link.get("href"), str) or not isinstance(link.get("body") or {}, Mapping):
        raise CatalogError(
            f"the next link of {shown(current.url)} has no href", expected="an href, and a body that is JSON"
        )
    body = link.get("body") or {}
    method = str(link.get("method") or ("POST" if body else "GET")).upper()
    merged = bool(link.get("merge")) and current.method == "POST"
    headers = {str(name): str(value) for name, value in (link.get("headers") or {}).items()}
    return PageRequest(
        url=_as_secure(urljoin(base, link["href"]), base),
        method=method,
        parameters=({**current.parameters, **body} if merged else dict(body)) if method == "POST" else {},
        headers={**current.headers, **headers} if merged else headers,
    )


def _as_secure(address: str, base: str) -> str:
    """`address` over https where its host was asked so: services behind a proxy often write links as http."""
    there, here = urlsplit(address), urlsplit(base)
    if here.scheme == "https" and there.scheme == "http" and there.hostname == here.hostname and there.port is None:
        return there._replace(scheme="https", netloc=here.netloc).geturl()
    return address
