"""A service on loopback, as its clients meet it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn

from earthmap.predict import SpectralPredictor
from earthmap.service.access import Service
from earthmap.service.app import create_app
from earthmap.service.asking import SPECTRAL, Asking
from earthmap.service.database import open_database
from earthmap.service.jobs import Foreman, ProcessRunner
from earthmap.service.processes import Offer
from earthmap.service.state import JobStore
from earthmap.service.tokens import TokenStore
from tests.service.answering import AnsweringHere
from tests.service.programs import MAPS

OFFER = Offer(catalogs={"drawn": "/secret/place/catalog.json"})


@dataclass(frozen=True, slots=True)
class Served:
    """A service on loopback."""

    url: str
    jobs: JobStore
    tokens: TokenStore | None

    def client(self, token: str | None = None) -> httpx.Client:
        """A client with a token."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False)


class _Server:
    """uvicorn in a thread."""

    def __init__(
        self,
        folder: Path,
        *,
        command: tuple[str, ...] | None,
        secured: bool,
        offer: Offer,
        asking: Asking | None,
        cluster: Callable[[], str] | None,
    ) -> None:
        database = open_database(folder / "state.sqlite")
        self.jobs, tokens = JobStore(database), TokenStore(database) if secured else None
        runs = str(folder / "runs")
        runner = ProcessRunner(root=runs, offer=offer, jobs=self.jobs, command=command or MAPS, cluster=cluster)
        foreman = Foreman(jobs=self.jobs, runner=runner, every_s=0.02) if command else None
        asking = asking or Asking(answering=AnsweringHere({SPECTRAL: SpectralPredictor()}))
        app = create_app(
            Service(jobs=self.jobs, offer=offer, tokens=tokens, foreman=foreman, asking=asking, root=runner.home)
        )
        self._server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", ws="none"))
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise RuntimeError("the service did not start")
            time.sleep(0.01)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.served = Served(f"http://127.0.0.1:{port}", self.jobs, tokens)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self.jobs.database.close()


def serve(
    folder: Path,
    *,
    command: tuple[str, ...] | None = None,
    secured: bool = False,
    offer: Offer = OFFER,
    asking: Asking | None = None,
    cluster: Callable[[], str] | None = None,
) -> Iterator[Served]:
    """A service; with `command`, that runs its jobs, on the `cluster` that it says where it is, else each on its own;
    `asking` is who answers, by default `spectral` in threads."""
    server = _Server(folder, command=command, secured=secured, offer=offer, asking=asking, cluster=cluster)
    try:
        yield server.served
    finally:  # also where the test fails, or the process would never end
        server.stop()
