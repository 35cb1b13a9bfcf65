"""Job APIs of Ray that ask for no token: whoever reaches one runs any code there, as Ray intends.

Dashboards (by default on port 8265) and the agent of each node (52365) have one, and the head of a cluster (6379) takes
drivers. That they are open is CVE-2023-48022, that a page in a browser could use them CVE-2026-27482; Ray's answer to
both is the token (`RAY_AUTH_MODE=token`). What is asked here only reads, and starts nothing.
"""

from __future__ import annotations

import enum
import http.client
import ipaddress
import json
import re
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from earthmap.errors import IsolatedError, JobError
from earthmap.operate.child import Child
from earthmap.operate.findings import Finding, Verdict, ok, warning, wrong

PORTS = (8265, 52365)
"""Where dashboards and agents listen, unless they are told otherwise."""

ANSWER_S = 5.0
"""Longest wait for one answer."""

HEAD_S = 30.0
"""Longest wait for that of a head, which is asked by a Ray that must be loaded first."""

_PARTS = re.compile(rb"ray/dashboard/|ray::DashboardAgent|ray-dashboard")
"""In the command line of whatever of Ray may have a job API."""

_PORT = re.compile(rb"--port=(\d{1,5})\0")
_LISTENS = "0A"
_LONGEST = 100_000

_EXPECTED = "that it asks for a token, or that nothing of Ray with a job API runs here"
_FIX = "end it, make a token with `ray get-auth-token --generate`, and start it again with RAY_AUTH_MODE=token"


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where something listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Guard(enum.StrEnum):
    """Who is let in at a place."""

    ABSENT = "absent"
    """Nothing listens there, or nothing of Ray."""
    CLOSED = "closed"
    """Who has a token."""
    SILENT = "silent"
    """Nobody knows: what listens there gives no answer."""
    OPEN = "open"
    """Everybody who reaches it."""


def probe(place: Place) -> Guard:
    """Who is let in at `place`, asked as one without a token, and past any proxy."""
    try:
        return _judge(place)
    except TimeoutError:
        return Guard.SILENT
    except (OSError, http.client.HTTPException, ValueError):
        return Guard.ABSENT


def _judge(place: Place) -> Guard:
    status, body = _get(place, "/api/version")
    if status in (401, 403):
        return Guard.CLOSED
    if status == 200 and _is_ray(body):
        jobs = "/api/jobs/"
    elif _get(place, "/api/local_raylet_healthz")[1].strip() == b"success":  # an agent, which has no version to tell
        jobs = "/api/job_agent/jobs/"
    else:
        return Guard.ABSENT
    return Guard.CLOSED if _get(place, jobs)[0] in (401, 403) else Guard.OPEN


def _is_ray(body: bytes) -> bool:
    try:
        told = json.loads(body)
    except ValueError:
        return False
    return isinstance(told, dict) and "ray_version" in told


def _get(place: Place, path: str) -> tuple[int, bytes]:
    """Status and body. Raises TimeoutError for no answer; OSError, HTTPException or ValueError for none in HTTP."""
    connection = http.client.HTTPConnection(place.host, place.port, timeout=ANSWER_S)
    try:
        try:
            connection.connect()
        except TimeoutError:
            raise ConnectionError("nobody is reached there") from None
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read(_LONGEST)
    finally:
        connection.close()


def find_places(*, beside: Iterable[Place] = (), proc: Path = Path("/proc")) -> list[Place]:
    """Where a job API may be: the usual ports of this machine, those of Ray's processes on it, and those `beside`."""
    usual = (Place("127.0.0.1", port) for port in PORTS)
    return sorted({*usual, *_of_processes(proc), *beside})


def head_places(cluster: str) -> list[Place]:
    """The usual ports of the host of a cluster's address, `host:port`; none of an address of another form."""
    host, _, port = cluster.removeprefix("ray://").rpartition(":")
    return [Place(host.strip("[]"), usual) for usual in PORTS] if host and port.isdigit() else []


def _of_processes(proc: Path) -> Iterator[Place]:
    """Where processes of Ray listen that may have a job API; of other users' those that their command line names."""
    listening = _listening(proc)
    for folder in proc.glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if _PARTS.search(line) is None:
            continue
        named = {int(port) for port in _PORT.findall(line)}
        inodes = _sockets(folder)
        yield from (place for inode, place in listening if inode in inodes or place.port in named)


def _sockets(folder: Path) -> set[str]:
    """Inodes of the sockets of a process; none where it is another user's."""
    found = set()
    try:
        for link in (folder / "fd").iterdir():
            found.add(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
    except OSError:  # it ended meanwhile, or may not be looked at
        return found
    return found


def _listening(proc: Path) -> list[tuple[str, Place]]:
    """Inode and place of every socket of this machine that listens; where it listens everywhere, on loopback."""
    found = []
    for name in ("tcp", "tcp6"):
        try:
            rows = (proc / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        fields = (row.split() for row in rows)
        found += [(row[9], _place(row[1])) for row in fields if len(row) > 9 and row[3] == _LISTENS]
    return found


def _place(text: str) -> Place:
    """`0100007F:2049` as proc(5) writes it: words of four bytes in the machine's order, then the port."""
    number, _, port = text.partition(":")
    step = -1 if sys.byteorder == "little" else 1
    raw = b"".join(bytes.fromhex(number[start : start + 8])[::step] for start in range(0, len(number), 8))
    host = ipaddress.ip_address(raw)
    mapped = host.ipv4_mapped if isinstance(host, ipaddress.IPv6Address) else None
    host = mapped or host
    if host.is_unspecified:
        host = ipaddress.ip_address("127.0.0.1" if host.version == 4 else "::1")
    return Place(str(host), int(port, 16))


def check_job_apis(places: Iterable[Place]) -> Finding:
    """Whether none of `places` lets everybody in."""
    name, asked = "job_api", list(places)
    with ThreadPoolExecutor(max(1, min(len(asked), 16))) as pool:
        guards = dict(zip(asked, pool.map(probe, asked), strict=True))
    of = {guard: ", ".join(str(place) for place in asked if guards[place] is guard) for guard in Guard}
    if of[Guard.OPEN]:
        what = f"Ray at {of[Guard.OPEN]} lets everybody who reaches it run code: its job API asks for no token"
        return wrong(name, what, expected=_EXPECTED, fix=_FIX)
    if of[Guard.SILENT]:
        what = f"what listens at {of[Guard.SILENT]} gives no answer, so nobody knows whom Ray's job API lets in"
        return warning(name, what, expected=_EXPECTED, fix="try again when it answers, or end it")
    if of[Guard.CLOSED]:
        return ok(name, f"Ray's job API at {of[Guard.CLOSED]} asks for a token")
    return ok(name, "nothing of Ray with a job API is reached here")


_AS_STRANGER = """
import json, os, socket, sys
host, _, port = sys.argv[1].rpartition(":")
try:
    socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
except OSError:
    sys.exit(print(json.dumps({"guard": "absent"})))
os.environ["RAY_AUTH_MODE"] = "disabled"
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError
try:
    GcsClient(address=sys.argv[1]).internal_kv_get(b"dashboard", namespace=b"dashboard")
    print(json.dumps({"guard": "open"}))
except AuthenticationError:
    print(json.dumps({"guard": "closed"}))
"""


def probe_head(address: str) -> Guard:
    """Who is let in by the head of the cluster at `address`, `host:port`, asked as one without a token."""
    try:
        with Child(_AS_STRANGER, address, seconds=HEAD_S) as child:
            return Guard(child.answer()["guard"])
    except (IsolatedError, KeyError, ValueError):
        return Guard.SILENT


def check_head(address: str, guard: Guard) -> Finding:
    """Whether the head at `address` does not let everybody in."""
    name = "ray.token"
    if guard is Guard.OPEN:
        what = f"the Ray cluster at {address} lets everybody who reaches it run code: it asks for no token"
        return wrong(name, what, expected=_EXPECTED, fix=_FIX)
    if guard is Guard.SILENT:
        what = f"nobody knows whom the Ray cluster at {address} lets in: it gives no answer that this Ray understands"
        return warning(name, what, expected=_EXPECTED, fix="use the same version of Ray on both sides")
    said = "asks for a token" if guard is Guard.CLOSED else "is not reached"
    return ok(name, f"the Ray cluster at {address} {said}")


def check_doors(cluster: str | None) -> list[Finding]:
    """Whether Ray on this machine, and the `cluster` that is used, let nobody in without a token."""
    found = [check_job_apis(find_places(beside=head_places(cluster or "")))]
    if cluster is not None and "://" not in cluster and head_places(cluster):
        found.append(check_head(cluster, probe_head(cluster)))
    return found


def refuse_open_doors(cluster: str | None) -> None:
    """Raises JobError where everybody is let in: beside it a service's own tokens guard nothing."""
    for found in check_doors(cluster):
        if found.verdict is Verdict.WRONG:
            raise JobError(found.found, expected=found.expected, fix=found.fix)
