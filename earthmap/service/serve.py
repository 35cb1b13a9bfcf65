"""The service as one process of this machine: what `earthmap serve` and `earthmap token` do."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from earthmap.errors import JobError
from earthmap.model import EMBEDDED, has_embedded
from earthmap.operate.job_api import refuse_open_doors
from earthmap.service.access import Service
from earthmap.service.app import check_address, create_app
from earthmap.service.ask_relay import WORKERS, Relay
from earthmap.service.asking import AT_ONCE, LIMIT_S, Asking
from earthmap.service.cluster import ServiceCluster
from earthmap.service.database import open_database
from earthmap.service.egress import Egress, egress_thread
from earthmap.service.egress_gate import make_gate
from earthmap.service.egress_rules import EgressRules, entry_of
from earthmap.service.jobs import Foreman, ProcessRunner
from earthmap.service.metrics import ServiceMetrics
from earthmap.service.processes import Offer
from earthmap.service.replicas import ReplicaOptions, spec_of
from earthmap.service.state import JobStore
from earthmap.service.tokens import TokenRecord, TokenStore

STATE_NAME = "state.sqlite"
"""The database, in the folder of the runs, where no other is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an operator decides."""

    out: str
    """Folder or `s3://` address of the runs."""
    offer: Offer
    state: str | None = None
    """Path or URL of the database; None for `state.sqlite` in `out`."""
    host: str = "127.0.0.1"
    port: int = 8000
    at_once: int = 1
    """Jobs that run at the same time."""
    cluster: str | None = None
    """Address of the Ray cluster that runs use; None for one of the service's own, started when it is first needed."""
    replicas: ReplicaOptions = field(default_factory=ReplicaOptions)
    """Of each model that runs and questions use."""
    askers: int = WORKERS
    """Workers that prepare questions about one place."""
    questions: int = AT_ONCE
    """Such questions that are answered at the same time; one more is refused."""
    answer_within_s: float = LIMIT_S
    """Seconds that an answer to one may take."""
    egress: str | None = None
    """`HOST` or `HOST:PORT` of this machine by which the nodes of the cluster reach the proxy of its runs."""
    rules: EgressRules = field(default_factory=EgressRules)
    """What runs may reach, beside the hosts of the offered catalogues."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise JobError(f"the port is {self.port}", expected="0 to 65535, where 0 is any that is free")
        if self.at_once < 1:
            raise JobError(f"{self.at_once} jobs would run at the same time", expected="1 or more")
        if self.askers < 1:
            raise JobError(f"{self.askers} workers would prepare questions", expected="1 or more")


def state_address(out: str, state: str | None) -> str:
    """Where the database is. Raises JobError where runs are on S3 and nobody says."""
    if state is None and "://" in out:
        raise JobError(
            "the runs are not on this machine, and nothing says where the state of jobs is kept",
            fix="name a file or postgresql+psycopg://user@host/name with --state",
        )
    return state or str(Path(out) / STATE_NAME)


def parse_names(pairs: Sequence[str], *, what: str) -> dict[str, str]:
    """`NAME=ADDRESS` of each pair. Raises JobError for what is none, and for a name that is given twice."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, address = pair.partition("=")
        if not equals or not address or not name.replace("-", "").replace("_", "").isalnum() or name in found:
            raise JobError(f"the {what} {pair[:80]!r} has no name of its own", expected="NAME=ADDRESS, each name once")
        found[name] = address if "://" in address else str(Path(address).expanduser().absolute())
    return found


def serve(settings: Settings, *, say: Callable[[str], None]) -> None:
    """Serve until the process is told to end; what runs then is given back.

    Tokens are needed wherever one was ever made, and beyond loopback in any case.

    Raises:
        JobError: for settings that would let everybody in from elsewhere, or cannot be followed; beside a Ray that
            asks for no token.
        StorageError: for a database that cannot be used.
    """
    import uvicorn

    database = open_database(state_address(settings.out, settings.state))
    stack = contextlib.ExitStack()
    try:
        jobs, tokens = JobStore(database), TokenStore(database)
        needed = tokens if tokens.all() else None
        check_address(settings.host, needed)
        refuse_open_doors(settings.cluster)
        egress = stack.enter_context(_proxy(settings))
        cluster = stack.enter_context(contextlib.closing(_cluster(settings)))
        runner = ProcessRunner(
            root=settings.out,
            offer=settings.offer,
            jobs=jobs,
            cluster=cluster.address,
            environment=egress.environment(),
        )
        foreman = Foreman(jobs=jobs, runner=runner, most=settings.at_once)
        metrics = ServiceMetrics()
        service = Service(
            jobs=jobs,
            offer=settings.offer,
            tokens=needed,
            foreman=foreman,
            asking=_asking(settings, cluster, metrics),
            metrics=metrics,
            root=runner.home,
            egress=egress.counter,
        )
        app = create_app(service)
        with _listening(settings.host, settings.port) as listening:
            shown = f"[{settings.host}]" if ":" in settings.host else settings.host
            who = "those who have a token" if needed else "everybody on this machine"
            say(f"serving {who} at http://{shown}:{listening.getsockname()[1]}; Ctrl-C ends")
            uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none")).run(sockets=[listening])
    finally:
        stack.close()
        database.close()


def _asking(settings: Settings, cluster: ServiceCluster, metrics: ServiceMetrics) -> Asking:
    """Who answers questions about one place."""
    relay = Relay(cluster.address, workers=settings.askers, queued=settings.questions, replicas=settings.replicas)
    return Asking(answering=relay, at_once=settings.questions, limit_s=settings.answer_within_s, heard=metrics.asked)


def _cluster(settings: Settings) -> ServiceCluster:
    """Where runs and questions find each other, and every model that is offered."""
    models = {"spectral": "spectral", **({EMBEDDED: EMBEDDED} if has_embedded() else {}), **settings.offer.models}
    specs = {name: spec_of(model) for name, model in models.items()}
    return ServiceCluster(models=specs, options=settings.replicas, given=settings.cluster)


def _proxy(settings: Settings) -> contextlib.AbstractContextManager[Egress]:
    """The proxy of all runs. What the operator names as a catalogue is open. Raises JobError for one that is denied."""
    named = [one for one in settings.offer.catalogs.values() if one.startswith(("http://", "https://"))]
    rules = settings.rules.with_listed(map(entry_of, named))
    return egress_thread(rules, gate=make_gate(settings.egress, cluster=settings.cluster))


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises JobError for an address that is taken or not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family)
    except OSError as error:
        raise JobError(
            f"nothing can listen on {host} port {port}: {error.strerror}",
            expected="an address of this machine, and a port that is free",
            fix="give another --port, or --host",
        ) from error


def told_token(record: TokenRecord) -> str:
    """A token in one line, without what opens anything."""
    holder, until = record.holder, f", revoked {record.revoked:%Y-%m-%d}" if record.revoked else ""
    quotas = holder.quotas
    named = {
        "km²": quotas.area_km2,
        "tiles": quotas.tiles,
        "bytes": quotas.read_bytes,
        "open jobs": quotas.open_jobs,
        "steps": quotas.steps,
    }
    limits = ", ".join(f"{value:,g} {name}" for name, value in named.items() if value is not None) or "no limits"
    return f"{holder.id}  {holder.owner}  {holder.role}  {limits}, since {record.created:%Y-%m-%d}{until}"
