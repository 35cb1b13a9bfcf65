"""How earthmap reaches the network: one record for the catalogue's client, GDAL and obstore alike.

`Connection.from_environment()` reads the variables that users of curl, requests, GDAL and boto3 already set, and
`EARTHMAP_*` for what has no usual name; `docs/connection.md` lists them. Keys of S3 are not kept here: GDAL and obstore
read them from the environment themselves, at the moment of reading.
"""

from __future__ import annotations

import datetime
import email.utils
import math
import os
import re
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from earthmap.errors import JobError

ELSEWHERE = re.compile(r"(?:/vsi(?:zip|tar)/\{)?/vsi(curl|s3)/(.*)", re.DOTALL)
"""GDAL's paths of files, and of archives, that are not on this machine."""

HANDED_ON = "EARTHMAP_HANDED_ON"
"""Environment variable: names of those, separated by commas, that the workers of a cluster get from who connects."""

_REMOTE: Mapping[str, str] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no listing of the folder, no search for sidecar files
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",  # a COG's header in one request
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_HTTP_VERSION": "2",
    "CPL_VSIL_CURL_USE_HEAD": "NO",
    "CPL_VSIL_CURL_CACHE_SIZE": "134217728",
    "VSI_CACHE": "TRUE",
    "VSI_CACHE_SIZE": "5000000",
}

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"", "0", "false", "no", "off"})
_HEADER = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]+)\s*:\s*([\x21-\x7e]+(?:[ \t]+[\x21-\x7e]+)*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class S3:
    """What an S3 service needs besides keys."""

    endpoint: str | None = None
    """Its http(s) address; None for Amazon's own."""
    region: str | None = None
    requester_pays: bool = False
    """True where the reader agrees to pay for requests."""
    anonymous: bool = False
    """True where requests are not signed, as public buckets allow."""
    virtual_hosting: bool = True
    """True where the bucket is part of the host's name, as on Amazon's own service."""
    profile: str | None = None
    """Section of the AWS credentials file that the keys are taken from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Time-outs, retries, proxy, certificates and S3 settings, the same for every client. Picklable, no keys in it.

    Example:
        >>> Connection().gdal_options("/data/scene.tif")
        {}
        >>> Connection.from_environment({"EARTHMAP_READ_TIMEOUT": "20"}).read_timeout_s
        20.0
    """

    connect_timeout_s: float = 10.0
    """Longest wait for a connection."""
    read_timeout_s: float = 60.0
    """Longest wait for an answer, or for its next piece."""
    retries: int = 5
    """How often a request to a catalogue or to run storage is repeated when it fails for a while only."""
    read_retries: int = 2
    """How often GDAL repeats a request at once; longer waits are the reader's own, between reads."""
    backoff_s: float = 1.0
    """First pause before a request is repeated; each further one is twice as long."""
    longest_backoff_s: float = 30.0
    """Longest pause that is chosen here; a service may ask for a longer one."""
    patience_s: float = 300.0
    """Longest time that is waited in pauses for one request in all."""
    http_proxy: str | None = field(default=None, repr=False)
    """Proxy for http addresses; it may hold a password."""
    https_proxy: str | None = field(default=None, repr=False)
    """Proxy for https addresses; it may hold a password."""
    no_proxy: str = ""
    """Hosts reached without the proxy, separated by commas."""
    ca_bundle: str | None = None
    """File of the certificates that are trusted; None for the usual ones."""
    netrc: str | None = None
    """File of names and passwords by host; None for the usual place."""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Names and values sent with each http(s) request to `header_hosts`, and to no other."""
    header_hosts: tuple[str, ...] = ()
    """Hosts of one's own services; `.example.org` stands for all hosts below it."""
    s3: S3 = S3()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Connection:
        """The connection that the environment variables describe.

        Raises:
            JobError: for a value that cannot be followed, without the value where it may be secret.
        """
        read = _Variables(os.environ if environment is None else environment)
        usual = cls()
        every = read.text("ALL_PROXY", "all_proxy")
        headers, hosts = read.headers()
        return cls(
            connect_timeout_s=read.number("EARTHMAP_CONNECT_TIMEOUT", usual.connect_timeout_s, above=0.0),
            read_timeout_s=read.number("EARTHMAP_READ_TIMEOUT", usual.read_timeout_s, above=0.0),
            retries=read.count("EARTHMAP_RETRIES", usual.retries),
            read_retries=read.count("EARTHMAP_READ_RETRIES", usual.read_retries),
            backoff_s=read.number("EARTHMAP_BACKOFF", usual.backoff_s),
            longest_backoff_s=read.number("EARTHMAP_LONGEST_BACKOFF", usual.longest_backoff_s),
            patience_s=read.number("EARTHMAP_PATIENCE", usual.patience_s),
            http_proxy=read.text("http_proxy", "HTTP_PROXY") or every,
            https_proxy=read.text("https_proxy", "HTTPS_PROXY") or every,
            no_proxy=read.text("no_proxy", "NO_PROXY") or "",
            ca_bundle=read.file("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"),
            netrc=read.file("NETRC"),
            headers=headers,
            header_hosts=hosts,
            s3=read.s3(),
        )

    def proxy_for(self, address: str) -> str | None:
        """The proxy through which the http(s) `address` is reached; None for none."""
        parts = urlsplit(address)
        proxy = self.https_proxy if parts.scheme.lower() == "https" else self.http_proxy
        host = parts.netloc.rpartition("@")[2]
        if not proxy or urllib.request.proxy_bypass_environment(host, {"no": self.no_proxy}):  # type: ignore[attr-defined]
            return None
        return proxy

    def headers_for(self, address: str) -> dict[str, str]:
        """The extra headers of a request to the http(s) `address`: none where its host is not one's own."""
        host = (urlsplit(address).hostname or "").lower()
        own = any(host == name or (name.startswith(".") and host.endswith(name)) for name in self.header_hosts)
        return dict(self.headers) if own else {}

    def pause_s(self, tries: int, *, asked_s: float | None = None) -> float:
        """Seconds to wait before a request that failed `tries` times is repeated; never less than a service asks."""
        return max(asked_s or 0.0, min(self.backoff_s * 2.0 ** (tries - 1), self.longest_backoff_s))

    def signed(self) -> Connection:
        """The same with signed requests: nothing is written without a name."""
        return replace(self, s3=replace(self.s3, anonymous=False))

    def gdal_options(self, path: str) -> dict[str, str]:
        """GDAL's settings for its own name of a file, `path`; none for a local one, which keeps its sidecar files.

        They may hold secrets: they are for `rasterio.Env`, never for a message.
        """
        match = ELSEWHERE.match(path)
        if match is None:
            return {}
        address = match[2] if match[1] == "curl" else self.s3.endpoint or "https://s3.amazonaws.com"
        options = {
            **_REMOTE,
            "GDAL_HTTP_CONNECTTIMEOUT": _seconds(self.connect_timeout_s),
            "GDAL_HTTP_TIMEOUT": _seconds(self.read_timeout_s),
            "GDAL_HTTP_MAX_RETRY": str(self.read_retries),
            "GDAL_HTTP_RETRY_DELAY": f"{self.backoff_s * 0.3:g}",
        }
        if proxy := self.proxy_for(address):
            options["GDAL_HTTPS_PROXY" if address.lower().startswith("https://") else "GDAL_HTTP_PROXY"] = proxy
        if self.ca_bundle:
            # rasterio's wheels set the first of these for the whole process, and GDAL prefers it to the second.
            options["GDAL_CURL_CA_BUNDLE"] = options["CURL_CA_BUNDLE"] = self.ca_bundle
        if self.netrc:
            options["GDAL_HTTP_NETRC_FILE"] = self.netrc
        if match[1] == "s3":
            return options | _gdal_s3(self.s3)
        if headers := self.headers_for(address):
            options["GDAL_HTTP_HEADERS"] = ",".join(_quoted(f"{name}: {text}") for name, text in headers.items())
        return options

    def obstore_options(self, address: str) -> dict[str, Any]:
        """The keyword arguments of `obstore.store.from_url` for the http(s) or s3 `address`.

        Raises:
            JobError: where a profile is asked for and boto3, which reads it, is not installed.
        """
        second = datetime.timedelta(seconds=1)
        is_s3 = address.startswith("s3://")
        target = (self.s3.endpoint or "https://s3.amazonaws.com") if is_s3 else address
        client: dict[str, Any] = {
            "connect_timeout": second * self.connect_timeout_s,
            # obstore's own limit is 30 s for a whole request, which a large object on a slow line exceeds.
            "timeout": second * max(30.0, 5 * self.read_timeout_s),
            "read_timeout": second * self.read_timeout_s,
            "allow_http": target.lower().startswith("http://"),
        }
        if proxy := self.proxy_for(target):
            client["proxy_url"] = proxy
        if self.ca_bundle:
            client["root_certificate"] = Path(self.ca_bundle).read_bytes()
        backoff = {"init_backoff": second * self.backoff_s * 0.1, "max_backoff": second * self.longest_backoff_s}
        options: dict[str, Any] = {
            "client_options": client,
            "retry_config": {
                "max_retries": self.retries,
                "backoff": {**backoff, "base": 2},
                "retry_timeout": second * self.patience_s,
            },
        }
        if is_s3:
            return options | _obstore_s3(self.s3)
        if headers := self.headers_for(address):
            client["default_headers"] = headers
        return options


def handed_on(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables that workers elsewhere get from this process, such as a proxy that they must not pass by.

    Example:
        >>> handed_on({"EARTHMAP_HANDED_ON": "NO_PROXY,HTTP_PROXY", "NO_PROXY": "", "HTTP_PROXY": "http://proxy:3128"})
        {'EARTHMAP_HANDED_ON': 'NO_PROXY,HTTP_PROXY', 'NO_PROXY': '', 'HTTP_PROXY': 'http://proxy:3128'}
    """
    given = os.environ if environment is None else environment
    names = [name for name in given.get(HANDED_ON, "").split(",") if name]
    return {name: given[name] for name in [HANDED_ON, *names] if name in given} if names else {}


def retry_after_s(value: str | None) -> float | None:
    """The seconds that a Retry-After header (RFC 9110, 10.2.3: a number or a date) asks to wait; None for neither."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        until = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=datetime.UTC)
    return max(0.0, (until - datetime.datetime.now(datetime.UTC)).total_seconds())


def _seconds(value: float) -> str:
    """Whole seconds, as GDAL takes them: it reads 0.5 as 0, which is no limit."""
    return str(math.ceil(value))


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _gdal_s3(s3: S3) -> dict[str, str]:
    options = {"AWS_VIRTUAL_HOSTING": "TRUE" if s3.virtual_hosting else "FALSE"}
    if s3.endpoint:
        parts = urlsplit(s3.endpoint)
        options["AWS_S3_ENDPOINT"] = parts.netloc + parts.path.rstrip("/")
        options["AWS_HTTPS"] = "YES" if parts.scheme == "https" else "NO"
    if s3.region:
        options["AWS_REGION"] = s3.region
    if s3.requester_pays:
        options["AWS_REQUEST_PAYER"] = "requester"
    if s3.anonymous:
        options["AWS_NO_SIGN_REQUEST"] = "YES"
    elif s3.profile:
        options["AWS_PROFILE"] = s3.profile
    return options


def _obstore_s3(s3: S3) -> dict[str, Any]:
    config: dict[str, Any] = {"virtual_hosted_style_request": s3.virtual_hosting}
    if s3.endpoint:
        config["endpoint"] = s3.endpoint
    if s3.region:
        config["region"] = s3.region
    if s3.requester_pays:
        config["request_payer"] = True
    if s3.anonymous:
        return {"config": config | {"skip_signature": True}}
    return {"config": config} | ({"credential_provider": _of_profile(s3.profile)} if s3.profile else {})


def _of_profile(profile: str) -> Any:
    """The keys of a profile for obstore, which reads no profiles itself."""
    try:
        import boto3  # type: ignore[import-untyped]
        from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        raise JobError(
            f"the AWS profile {profile!r} cannot be read", expected="the package boto3", fix="pip install boto3"
        ) from error
    try:
        return Boto3CredentialProvider(boto3.Session(profile_name=profile))
    except (BotoCoreError, ValueError) as error:
        raise JobError(f"the AWS profile {profile!r} cannot be used: {error}", fix="check AWS_PROFILE") from error


class _Variables:
    """Environment variables as values."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def text(self, *names: str) -> str | None:
        """The first of `names` that is set and not empty."""
        return next(
            (self._environment[name].strip() for name in names if self._environment.get(name, "").strip()), None
        )

    def number(self, name: str, usual: float, *, above: float | None = None) -> float:
        """A number of seconds."""
        text = self.text(name)
        if text is None:
            return usual
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0.0 <= value < 1e6 or (above is not None and value <= above):
            raise JobError(f"{name} is {text!r}", expected="a number of seconds", fix=f"for example {name}={usual:g}")
        return value

    def count(self, name: str, usual: int) -> int:
        """A number of times."""
        text = self.text(name)
        if text is None:
            return usual
        if not re.fullmatch(r"\d{1,3}", text):
            raise JobError(f"{name} is {text!r}", expected="a whole number", fix=f"for example {name}={usual}")
        return int(text)

    def flag(self, *names: str) -> bool | None:
        """Yes or no; None where none of `names` is set."""
        text = self.text(*names)
        if text is None:
            return None
        if text.lower() not in _TRUE | _FALSE:
            raise JobError(f"{names[0]} is {text!r}", expected="YES or NO")
        return text.lower() in _TRUE

    def file(self, *names: str) -> str | None:
        """The path of a file that is there."""
        path = self.text(*names)
        if path is not None and not Path(path).is_file():
            name = next(name for name in names if self.text(name))
            raise JobError(f"{name} names {path}, where there is no file", fix=f"correct {name}, or unset it")
        return path

    def headers(self) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
        """The extra headers, and the hosts they are for. No message repeats a value."""
        lines = [line for line in (self._environment.get("EARTHMAP_HEADERS") or "").splitlines() if line.strip()]
        if token := self.text("EARTHMAP_TOKEN"):
            lines.append(f"Authorization: Bearer {token}")
        matches = [_HEADER.fullmatch(line.strip()) for line in lines]
        if not all(matches):
            raise JobError(
                "EARTHMAP_HEADERS or EARTHMAP_TOKEN cannot be sent as it is",
                expected="one `Name: value` a line, in plain characters",
            )
        hosts = tuple(name.lower() for name in re.split(r"[,\s]+", self.text("EARTHMAP_HEADER_HOSTS") or "") if name)
        if lines and not hosts:
            raise JobError(
                "EARTHMAP_HEADERS or EARTHMAP_TOKEN is set, but not for which hosts",
                expected="the hosts that may see it",
                fix="set EARTHMAP_HEADER_HOSTS=stac.example.org",
            )
        return tuple((match[1], match[2]) for match in matches if match), hosts

    def s3(self) -> S3:
        """The settings for S3, by the names of boto3, GDAL and obstore."""
        endpoint = self.text("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_S3_ENDPOINT")
        if endpoint and "://" not in endpoint:  # GDAL's own form
            endpoint = f"{'http' if self.flag('AWS_HTTPS') is False else 'https'}://{endpoint}"
        hosted = self.flag("AWS_VIRTUAL_HOSTING", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST")
        return S3(
            endpoint=endpoint,
            region=self.text("AWS_REGION", "AWS_DEFAULT_REGION"),
            requester_pays=(self.text("AWS_REQUEST_PAYER") or "").lower() in {"requester", *_TRUE},
            anonymous=bool(self.flag("AWS_NO_SIGN_REQUEST")),
            virtual_hosting=endpoint is None if hosted is None else hosted,
            profile=self.text("AWS_PROFILE"),
        )
