"""What may leave through the egress proxy: hosts on the public network, on few ports, and what an operator lists."""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from earthmap.errors import JobError
from earthmap.service.numbers import (
    KEY_SERVICES,
    Network,
    Number,
    carried,
    is_key_service,
    is_public,
    parse_host,
    plain_number,
)


class Refusal(enum.StrEnum):
    """Why the proxy lets something not pass; the words under which refusals are counted."""

    STRANGER = "stranger"
    MALFORMED = "malformed"
    METHOD = "method"
    TOO_LARGE = "too_large"
    TOO_SLOW = "too_slow"
    CONNECTIONS = "connections"
    PLAIN_HTTP = "plain_http"
    PORT = "port"
    KEY_SERVICE = "key_service"
    NOT_PUBLIC = "not_public"
    NOT_LISTED = "not_listed"
    UNRESOLVED = "unresolved"
    UNREACHABLE = "unreachable"
    BROKEN_ANSWER = "broken_answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One entry of an allow-list."""

    name: str | None = None
    """Of a host; `.example.org` stands for all hosts below it."""
    network: Network | None = None
    """Numbers, where no name is given."""
    port: int | None = None
    """The only one that is meant; None for those that are open anyway."""

    def covers(self, host: Number | str, number: Number) -> bool:
        """Whether the entry means `host`, which stands for `number`."""
        return self.may_cover(str(host)) if self.network is None else number in self.network

    def may_cover(self, name: str) -> bool:
        """Whether the entry means the host `name`, or would for some number that it may stand for."""
        if self.name is None:
            return True
        return name.endswith(self.name) if self.name.startswith(".") else name == self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressRules:
    """What users' runs may reach.

    Example:
        >>> rules = EgressRules(listed=(parse_listed("10.2.0.0/16:9000"),))
        >>> inside = ipaddress.ip_address("10.2.0.1")
        >>> rules.refusal("minio", inside, port=9000), rules.refusal("minio", inside, port=443)
        (None, <Refusal.NOT_PUBLIC: 'not_public'>)
    """

    listed: tuple[Listed, ...] = ()
    """What may be reached although it is not public, or on another port; never where clouds hand out keys."""
    ports: frozenset[int] = frozenset({443})
    """Open on all public hosts."""
    plain_http: bool = False
    """True where http addresses of public hosts may be read too, on port 80."""
    public: bool = True
    """False where nothing but what is listed may be reached."""
    denied: tuple[Network, ...] = ()
    """Never reached: public numbers that one's own network uses inside."""

    @property
    def open_ports(self) -> frozenset[int]:
        """The ports that need no entry of their own."""
        return self.ports | {80} if self.plain_http else self.ports

    def outlook(self, host: Number | str, *, port: int, plain: bool = False) -> Refusal | None:
        """Why `host` may not be reached whatever its name stands for, told without looking it up; None where it might.

        Args:
            plain: as for `refusal`.
        """
        if not isinstance(host, str):
            return self.refusal(host, host, port=port, plain=plain)
        if any(self._opens(entry, port) and entry.may_cover(host) for entry in self.listed):
            return None
        if plain and not self.plain_http:
            return Refusal.PLAIN_HTTP
        if port not in self.open_ports:
            return Refusal.PORT
        return None if self.public else Refusal.NOT_LISTED

    def refusal(self, host: Number | str, number: Number, *, port: int, plain: bool = False) -> Refusal | None:
        """Why `host`, which stands for `number`, may not be reached at `port`; None where it may.

        Args:
            plain: True for a request in plain http, False for a tunnel.
        """
        number = plain_number(number)
        if is_key_service(number):
            return Refusal.KEY_SERVICE
        if any(each in network for each in (number, *carried(number)) for network in self.denied):
            return Refusal.NOT_PUBLIC
        if self.lists(host, number, port=port):
            return None
        if plain and not self.plain_http:
            return Refusal.PLAIN_HTTP
        if port not in self.open_ports:
            return Refusal.PORT
        if not is_public(number):
            return Refusal.NOT_PUBLIC
        return None if self.public else Refusal.NOT_LISTED

    def lists(self, host: Number | str, number: Number, *, port: int) -> bool:
        """Whether an entry of the list opens `port` of `host`, which stands for `number`."""
        return any(self._opens(entry, port) and entry.covers(host, number) for entry in self.listed)

    def _opens(self, entry: Listed, port: int) -> bool:
        return entry.port == port or (entry.port is None and port in self.open_ports)

    def with_listed(self, texts: Iterable[str] = ()) -> EgressRules:
        """The same with further entries. Raises JobError for what is none, and where an entry of all opens nothing."""
        found = replace(self, listed=(*self.listed, *(parse_listed(text) for text in texts)))
        for network in (entry.network for entry in found.listed if entry.network is not None):
            if _is_within(network, KEY_SERVICES):
                raise _in_vain(network, "clouds hand out keys there, and no list opens that")
            if _is_within(network, self.denied):
                raise _in_vain(network, "it is denied")
        return found


def _is_within(network: Network, others: Iterable[Network]) -> bool:
    return any(network.version == other.version and network.subnet_of(other) for other in others)  # type: ignore[arg-type]


def _in_vain(network: Network, why: str) -> JobError:
    return JobError(f"{network} is allowed in vain: {why}", fix="leave one of the two out")


_ENTRY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]+)(?::(?P<port>\d{1,5}))?")


def parse_listed(text: str) -> Listed:
    """An entry of an allow-list: a host, its number or a network, each with or without `:port`.

    Raises:
        JobError: for anything else, and for a network that holds the whole of the public one.

    Example:
        >>> parse_listed("stac.inside.example:8080").port, parse_listed("[fd00:1::/64]:9000").network
        (8080, IPv6Network('fd00:1::/64'))
    """
    match = _ENTRY.fullmatch(text.strip())
    port = int(match["port"]) if match and match["port"] else None
    if match is None or not (port is None or 0 < port < 65536):
        raise _no_entry(text)
    host = match["host"]
    if "/" in host:
        return Listed(network=_network(host.strip("[]"), text), port=port)
    try:
        found = parse_host(host.removeprefix("."))
    except JobError:
        raise _no_entry(text) from None
    if isinstance(found, str):
        return Listed(name=f".{found}" if host.startswith(".") else found, port=port)
    return Listed(network=ipaddress.ip_network(found), port=port)


def _network(numbers: str, text: str) -> Network:
    try:
        network = ipaddress.ip_network(numbers)
    except ValueError:
        raise _no_entry(text) from None
    if network.prefixlen == 0:
        raise _no_entry(text)
    return network


def _no_entry(text: str) -> JobError:
    return JobError(
        f"{text!r} cannot be allowed or denied",
        expected="a host, a number, or a network that is not all there is, with or without :port",
        fix="for example stac.inside.example:8080, .inside.example, 10.2.0.0/16:9000 or [fd00:1::/64]",
    )


def entry_of(address: str) -> str:
    """The entry that opens the host of an http(s) `address` which the operator names: a catalogue inside, for example.

    Raises:
        JobError: for what is no http(s) address.

    Example:
        >>> entry_of("http://stac.inside.example:8080/v1"), entry_of("https://stac.example.org/v1")
        ('stac.inside.example:8080', 'stac.example.org:443')
    """
    try:
        parts = urlsplit(address)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme.lower()]
        host = re.sub(r":\d*\Z", "", parts.netloc.rpartition("@")[2])
        parse_listed(f"{host}:{port}")
    except (ValueError, KeyError, JobError):
        raise _no_entry(address[:100]) from None
    return f"{host}:{port}"


def make_rules(
    listed: Iterable[str] = (),
    *,
    ports: Iterable[int] = (443,),
    plain_http: bool = False,
    public: bool = True,
    denied: Iterable[str] = (),
) -> EgressRules:
    """The rules that an operator writes down. Raises JobError for an entry, network or port that is none."""
    chosen = frozenset(ports)
    if not all(0 < port < 65536 for port in chosen):
        raise JobError(f"{sorted(chosen)} are not all ports", expected="numbers from 1 to 65535")
    return EgressRules(
        listed=tuple(parse_listed(text) for text in listed),
        ports=chosen,
        plain_http=plain_http,
        public=public,
        denied=tuple(_network(text, text) for text in denied),
    )
