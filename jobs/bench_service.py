"""How soon `ask` answers, how many at once, and what dynamic batching and workers of their own for preparing do to it.

    python jobs/bench_service.py                                   # spectral and nano; 1, 10 and 50 clients; 12 minutes
    python jobs/bench_service.py --seconds 5 --clients 1 10 --models spectral

One cluster on this machine, one drawn world mapped by a job, the service's own application on loopback, and clients in
a process of their own, each of which asks again as soon as it was answered, about another place. All ways of answering
take turns in one run. `workers` is how the service does it: workers read and outline, the replica holds the model.
`inline` does all three in the replica, one question after the other. Every question that was sent is answered or
refused, or this ends with an error; nothing is left out of a percentile.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from earthmap.service.asking import Asked, Asking, finish, prepare
from earthmap.service.replicas import Replica, ReplicaOptions, answer_all, deploy, spec_of

QUESTIONS = ("How much of the ground is water?", "Is there any water?", "What kind of land cover is this?")
"""What the embedded model supports by its card; `spectral` is asked the first alone."""

TOGETHER = 16
"""Questions that a replica computes together, where batching is on."""

WAYS = {"workers, batching": TOGETHER, "workers, no batching": 1, "inline": 1}
"""How questions are answered, and how many a replica computes together."""

COLUMNS = (
    "model", "way", "clients", "places", "sent", "answered", "refused", "per_second", "p50_ms", "p99_ms", "slowest_ms",
    "model_cpu_ms", "workers_cpu_ms", "load",
)  # fmt: skip
"""`model_cpu_ms` and `workers_cpu_ms` are processor time a question of who holds the model, and of the workers: unlike
the seconds of who waits, they do not depend on what else the machine does."""


# ── what is asked ────────────────────────────────────────────────────────────────────────────────────────────


def make_run(folder: Path, *, size_m: float, tile_px: int) -> Any:
    """A finished run over a drawn world, on the cluster that this process is connected to."""
    from earthmap.pipeline import parse_job, run_job
    from earthmap.synthetic import small_world, write_world

    world = small_world(3, size_m=size_m, cloud_share=0.0)
    catalog = write_world(world, folder / "catalog", sensors=("sentinel-2",))
    values = {"area": world.area, "catalog": str(catalog), "queries": ["Where is water?"], "predictor": "spectral"}
    return run_job(parse_job({**values, "tile_size": tile_px, "scenes": "latest", "out": str(folder / "run")}))


def places_of(run: Any) -> list[tuple[float, float]]:
    """The middle of every tile of the run: degrees east and north."""
    points = run.coverage.geometry.drop_duplicates().representative_point()
    return [(float(point.x), float(point.y)) for point in points]


# ── how it is answered ───────────────────────────────────────────────────────────────────────────────────────


class Inline(Replica):
    """A replica that reads and outlines as well, in the thread that computes."""

    async def answer(self, asked: Asked) -> dict[str, Any]:
        """The reply."""
        return await self._line.wait(0, partial(self._whole, asked))

    def _whole(self, asked: Asked) -> dict[str, Any]:
        prepared = prepare(asked)
        (answer,) = answer_all(self._predictor, [(prepared.subject.item, prepared.query)])
        return finish(prepared, answer, predictor=self._predictor.key)


class InlineAnswering:
    """Hands questions to replicas that do everything."""

    def __init__(self, models: Sequence[str]) -> None:
        from ray import serve

        self._handles = {}
        for model in models:
            deployment = serve.deployment(
                name=f"inline-{model}", max_ongoing_requests=256, ray_actor_options={"num_cpus": 0.01}
            )(Inline)
            bound = deployment.bind(spec_of(model), asked_together=1, asked_wait_s=0.0)
            self._handles[model] = serve.run(bound, name=f"inline-{model}", route_prefix=None)

    async def answer(self, asked: Asked) -> dict[str, Any]:
        """The reply."""
        reply: dict[str, Any] = await self._handles[str(asked.model)].answer.remote(asked)
        return reply

    async def close(self) -> None:
        """Give the replicas up."""
        from ray import serve

        for model in self._handles:
            await asyncio.to_thread(serve.delete, f"inline-{model}")


def make_answering(way: str, models: Sequence[str]) -> Any:
    """Who answers, ready to be asked."""
    import ray

    from earthmap.service.ask_relay import Relay

    if way == "inline":
        deploy({})
        return InlineAnswering(models)
    options = ReplicaOptions(fewest=1, queued=512, asked_together=WAYS[way])
    deploy({name: spec_of(name) for name in models if name != "spectral"}, options=options)
    address = ray.get_runtime_context().gcs_address
    return Relay(lambda: address, queued=512)


@contextlib.contextmanager
def serving(folder: Path, run: Any, asking: Asking) -> Iterator[tuple[str, str]]:
    """The application on loopback: its address, and the id of the finished job."""
    import uvicorn

    from earthmap.service import JobStore, Offer, Service, create_app, open_database

    database = open_database(folder / "state.sqlite")
    jobs = JobStore(database)
    job = jobs.submit("map", {}, owner="local")
    worker = f"bench-{os.urandom(4).hex()}"
    claimed = jobs.claim(worker, lease_s=60)
    if job is None or claimed is None or not jobs.finish(job.id, worker, result=run.address):
        raise SystemExit("the job could not be put into the state")
    app = create_app(Service(jobs=jobs, offer=Offer(catalogs={"drawn": "catalog"}), asking=asking))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.05)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", job.id
    finally:
        server.should_exit = True
        thread.join()
        database.close()


# ── who asks ─────────────────────────────────────────────────────────────────────────────────────────────────


Told = list[tuple[int, float]]
"""Status and seconds of every question."""


def ask_all(url: str, job: str, model: str, *, clients: int, seconds: float, places: Any) -> tuple[Told, float]:
    """What so many clients were told, and the seconds until the last of them was; run in a process of its own."""
    began = time.perf_counter()
    told = asyncio.run(_ask_all(url, job, model, clients=clients, seconds=seconds, places=places))
    return told, time.perf_counter() - began


async def _ask_all(url: str, job: str, model: str, *, clients: int, seconds: float, places: Any) -> Told:
    import httpx

    texts = QUESTIONS if model != "spectral" else QUESTIONS[:1]
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits, trust_env=False) as http:

        async def ask_on(number: int) -> Told:
            draw, told, end = random.Random(number), [], time.perf_counter() + seconds
            while time.perf_counter() < end:
                inputs = {"job": job, "at": draw.choice(places), "query": draw.choice(texts), "model": model}
                began = time.perf_counter()
                answer = await http.post("/processes/ask/execution", json={"inputs": inputs})
                told.append((answer.status_code, time.perf_counter() - began))
                if answer.status_code == 429:
                    await asyncio.sleep(float(answer.headers["retry-after"]))
            return told

        found = await asyncio.gather(*(ask_on(number) for number in range(clients)))
    return [one for own in found for one in own]


def row_of(told: Told, *, seconds: float) -> dict[str, Any]:
    """Counts and percentiles. Raises SystemExit where a question was neither answered nor refused."""
    import numpy as np

    answered = [took for status, took in told if status == 200]
    refused = [took for status, took in told if status == 429]
    if len(answered) + len(refused) != len(told) or not answered:
        raise SystemExit(f"statuses {sorted({status for status, _ in told})}: something was dropped")
    p50, p99 = np.percentile(answered, [50, 99]) * 1000
    return {
        "sent": len(told),
        "answered": len(answered),
        "refused": len(refused),
        "per_second": round(len(answered) / seconds, 1),
        "p50_ms": round(float(p50)),
        "p99_ms": round(float(p99)),
        "slowest_ms": round(1000 * max(took for _, took in told)),
    }


def processor_ms() -> dict[str, float]:
    """Processor time so far of the replicas of this cluster: of the workers, and of those that hold a model."""
    spent = {"model": 0.0, "workers": 0.0}
    parents = {path.name: _stat(path) for path in Path("/proc").glob("[0-9]*")}
    own = {pid for pid, (parent, name, _) in parents.items() if parent == str(os.getpid()) and name == "raylet"}
    for pid, (parent, _, ticks) in parents.items():
        title = _title(pid) if parent in own else ""
        if title.startswith("ray::ServeReplica:"):
            spent["workers" if ":asking:" in title else "model"] += 1000 * ticks / os.sysconf("SC_CLK_TCK")
    return spent


def _stat(path: Path) -> tuple[str, str, int]:
    """Parent, name and ticks of a process; nothing of one that is gone."""
    try:
        head, _, rest = (path / "stat").read_text().rpartition(")")
    except OSError:
        return "", "", 0
    fields = rest.split()
    return fields[1], head.partition("(")[2], int(fields[11]) + int(fields[12])


def _title(pid: str) -> str:
    try:
        return Path("/proc", pid, "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def measure(folder: Path, run: Any, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row for each way, model and number of clients, and at the end one with room for too few."""
    places = places_of(run)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:

        def rows(way: str, at_once: int, models: Sequence[str], counts: Sequence[int]) -> Iterator[dict[str, Any]]:
            asking = Asking(answering=make_answering(way, models), at_once=at_once, limit_s=110)
            with serving(folder, run, asking) as (url, job):
                for model in models:
                    pool.submit(ask_all, url, job, model, clients=4, seconds=3.0, places=places).result()  # warm
                    for clients in counts:
                        options = {"clients": clients, "seconds": arguments.seconds, "places": places}
                        before = processor_ms()
                        told, wall = pool.submit(ask_all, url, job, model, **options).result()
                        counted = row_of(told, seconds=wall)
                        for kind, spent in processor_ms().items():
                            counted[f"{kind}_cpu_ms"] = round((spent - before[kind]) / counted["answered"], 1)
                        known = {"model": model, "way": way, "clients": clients, "places": at_once}
                        yield {**known, **counted, "load": round(os.getloadavg()[0], 1)}

        for way in arguments.ways:
            yield from rows(way, 64, arguments.models, arguments.clients)
        yield from rows("workers, batching", 4, arguments.models[-1:], arguments.clients[-1:])


def main() -> int:
    """Measure, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["spectral", "nano"], help="spectral, nano, or a checkpoint")
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 10, 50])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--seconds", type=float, default=20.0, help="of each row")
    parser.add_argument("--size", type=float, default=6000.0, help="side of the drawn world in metres")
    parser.add_argument("--tile-size", type=int, default=128, choices=[128, 224, 448])
    parser.add_argument("--out", help="file for the rows, one line of JSON each")
    arguments = parser.parse_args()
    os.environ["RAY_AUTH_MODE"] = "token"
    from earthmap.pipeline.cluster import cluster

    with tempfile.TemporaryDirectory() as scratch, cluster(None):
        run = make_run(Path(scratch), size_m=arguments.size, tile_px=arguments.tile_size)
        print("| " + " | ".join(COLUMNS) + " |\n|" + " --- |" * len(COLUMNS), flush=True)
        for row in measure(Path(scratch), run, arguments):
            print("| " + " | ".join(str(row[name]) for name in COLUMNS) + " |", flush=True)
            if arguments.out:
                with Path(arguments.out).open("a") as file:
                    file.write(json.dumps(row) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
