"""`earthmap doctor`: this machine, a cluster, a storage, a catalogue's clock: what is wrong, and how to fix it.

What may hang or crash (Ray, a GPU's driver, a checkpoint) is asked first, in processes of their own, and heard last.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earthmap.operate.findings import Finding, Verdict, worst, wrong
from earthmap.operate.job_api import check_doors
from earthmap.operate.machine import (
    check_clock,
    check_connection,
    check_disk,
    check_memory,
    check_packages,
    check_processors,
    check_shared_memory,
    read_available,
    requirements,
)
from earthmap.operate.ray_cluster import ask_ray, check_ray
from earthmap.operate.storage import check_storage, service_address


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is looked at beside the machine itself."""

    storage: str | None = None
    """Folder or s3:// address that runs shall be written to."""
    needs_bytes: int | None = None
    """What runs will write there; None where nobody knows."""
    cluster: str | None = None
    """Address of a Ray cluster; None to try whether Ray starts here."""
    model: str = "nano"
    """Checkpoint: a folder, or the one that comes with the package."""
    catalog: str | None = None
    """http(s) address whose clock is compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkup:
    """All findings."""

    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst of them."""
        return worst(self.findings)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {"verdict": self.verdict.value, "findings": [finding.to_dict() for finding in self.findings]}


def check_up(wanted: Wanted | None = None, *, heard: Callable[[Finding], None] | None = None) -> Checkup:
    """What is found of this machine and of what is `wanted`; a fault is part of the answer and not raised.

    `heard` hears of each finding as it comes. No process and no file stays behind.
    """
    found = []
    for finding in _findings(wanted or Wanted()):
        found.append(finding)
        if heard is not None:
            heard(finding)
    return Checkup(findings=tuple(found))


def _findings(wanted: Wanted) -> Iterator[Finding]:
    packages = check_packages(requirements())
    yield packages
    told = False
    try:
        for finding in _beyond(wanted):
            yield finding
            told = True
    except ImportError as error:
        yield wrong(
            "packages",
            f"a package cannot be loaded: {error}",
            expected="that all load",
            fix=packages.fix or "pip install --force-reinstall earthmap",
        )
        if not told:
            yield from _machine()


def _beyond(wanted: Wanted) -> Iterator[Finding]:
    """All but packages. Raises ImportError where one is missing."""
    from earthmap.operate.model import ask_checkpoint, ask_gpu, check_checkpoint, check_gpu, resolve_folder
    from earthmap.operate.services import check_service_clock as clock_of

    doors = check_doors(wanted.cluster)  # before a Ray is tried here
    with contextlib.ExitStack() as stack:
        ray = stack.enter_context(ask_ray(wanted.cluster))
        folder = resolve_folder(wanted.model)
        checkpoint = stack.enter_context(ask_checkpoint(folder)) if isinstance(folder, Path) else None
        yield from _machine()
        yield from _network(wanted, clock_of)
        if isinstance(folder, Finding):
            yield folder
        elif checkpoint is not None:
            yield check_checkpoint(checkpoint, source=wanted.model, folder=folder, available_bytes=read_available())
        yield check_ray(ray, address=wanted.cluster)
        yield from doors
        yield check_gpu(stack.enter_context(ask_gpu()))


def _machine() -> Iterator[Finding]:
    yield check_memory()
    yield check_processors()
    yield check_disk()
    yield check_shared_memory()
    yield check_clock()


def _network(wanted: Wanted, clock_of: Callable[[str], Finding]) -> Iterator[Finding]:
    connection = check_connection()
    yield connection
    remote = wanted.storage is not None and "://" in wanted.storage
    if wanted.storage is not None and not (remote and connection.verdict is Verdict.WRONG):
        yield from check_storage(wanted.storage, needs_bytes=wanted.needs_bytes)
    if connection.verdict is Verdict.WRONG:
        return  # whatever goes over it would fail for the same cause
    service = service_address(wanted.storage or "")
    for address in (service, wanted.catalog):
        if address is not None and address.lower().startswith(("http://", "https://")):
            yield clock_of(address)
