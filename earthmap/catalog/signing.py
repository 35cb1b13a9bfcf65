"""Signatures for addresses, made at the moment of reading and never stored.

Planetary Computer hands out a signature for each container of blobs, good for about an hour. Its own package fetches
and keeps them (`planetary_computer`, the extra `planetary-computer`); here is what it leaves open: one request although
many threads ask at once, a new signature well before the old one ends, and another one at once when the service says
that the present one is not good. Addresses of all other hosts stay as they are: keys for S3, and who pays for a
request, come through the environment.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from earthmap.catalog.addresses import member_address, split_member
from earthmap.errors import ReadError

INSTALL = "pip install 'earthmap[planetary-computer]'"

BLOBS = ".blob.core.windows.net"
"""How the hosts of Planetary Computer's files end."""

RENEW_BEFORE_S = 300.0
"""A signature is renewed this long before it ends: long enough for the reads that have just begun with it."""

ASK_AT_MOST_EVERY_S = 5.0
"""A refusal that met many threads asks for one new signature, not for one each."""

TRIES = 2
"""Requests for a signature that are repeated when the service is busy."""


class Signer(Protocol):
    """Unsigned href → the address that can be read now. Used by many threads at once, and pickled."""

    def __call__(self, href: str, *, renew: bool = False) -> str:
        """The address; `renew` asks for a new signature, because the present one was refused.

        Raises:
            ReadError: when no signature can be had.
        """
        ...


@dataclass(frozen=True, slots=True)
class HostSigner:
    """Signs the addresses of Planetary Computer's hosts, and leaves all others as they are.

    Example:
        >>> HostSigner()("https://example.org/a.tif")
        'https://example.org/a.tif'
    """

    def __call__(self, href: str, *, renew: bool = False) -> str:
        """As `Signer`."""
        member = split_member(href) if "!/" in href else None
        if member is not None:
            archive = self(member.archive, renew=renew)
            return href if archive == member.archive else member_address(archive, member.name)
        if not needs_signature(href):
            return href
        return _planetary_computer(href, renew=renew)


def needs_signature(href: str) -> bool:
    """True for an address of Planetary Computer that carries no signature yet."""
    parts = urlsplit(href)
    if parts.scheme.lower() not in ("http", "https") or not (parts.hostname or "").endswith(BLOBS):
        return False
    return not any(part.partition("=")[0] in ("sig", "se") for part in parts.query.split("&"))


_LOCK = threading.Lock()
_ASKED: dict[str, float] = {}


def _planetary_computer(href: str, *, renew: bool) -> str:
    """The address with the container's signature, the same for all threads of the process."""
    try:
        import planetary_computer  # type: ignore[import-untyped]
        from planetary_computer.sas import TOKEN_CACHE, get_token  # type: ignore[import-untyped]
    except ImportError as error:
        raise ReadError(
            f"{href} needs a signature of Planetary Computer",
            address=href,
            reason="credentials",
            expected="the package planetary-computer",
            fix=INSTALL,
        ) from error
    parts = urlsplit(href)
    account, container = (parts.hostname or "").removesuffix(BLOBS), parts.path.lstrip("/").partition("/")[0]
    with _LOCK:  # one asks, the others find its answer
        _forget(TOKEN_CACHE, f"{account}/{container}", renew=renew)
        try:
            get_token(account, container, retry_total=TRIES)  # the package's own ten tries take ten minutes
            return str(planetary_computer.sign_url(href))
        except Exception as error:  # errors of requests, pydantic and the package, of no common base
            raise _unsigned(href, error) from error


def _forget(cache: dict[str, Any], container: str, *, renew: bool) -> None:
    """Drop the container's signature where it was refused or ends soon, unless it is new."""
    if time.monotonic() - _ASKED.get(container, -math.inf) < ASK_AT_MOST_EVERY_S:
        return
    for url in [url for url in cache if url.endswith(f"/{container}")]:
        if renew or cache[url].ttl() < RENEW_BEFORE_S:
            del cache[url]
            _ASKED[container] = time.monotonic()


def _unsigned(href: str, error: Exception) -> ReadError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    denied = status in (401, 403)
    return ReadError(
        f"no signature for {href}: {' '.join(str(error).split())[:200]}",
        address=href,
        reason="credentials" if denied else "refused" if status in (429, 503) else "unavailable",
        expected="an answer of Planetary Computer's token service",
        fix="set PC_SDK_SUBSCRIPTION_KEY" if denied else "run again later; a PC_SDK_SUBSCRIPTION_KEY raises the limit",
    )
