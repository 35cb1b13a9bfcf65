"""Runs that share a cluster: an urgent one is done within a batch of the others, which end as if they were alone."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import shapely

from earthmap.errors import ClusterError, ReplicaError
from earthmap.grid import AreaOfInterest
from earthmap.pipeline import Job, make_plan, parse_job, run_job, sharing, stages
from earthmap.pipeline.batches import BATCH_ROOMS, ROOM_PER_CPU
from earthmap.pipeline.cluster import OBJECT_STORE_BYTES
from earthmap.pipeline.flood_parts import predict_work
from earthmap.pipeline.folder import FEATURES_PATH
from earthmap.pipeline.reading import read_work
from earthmap.pipeline.sharing import Place
from earthmap.predict import Predictor, TileInput, build_predictor
from earthmap.synthetic import World, write_world
from earthmap.tasks import Answer, Query
from tests.pipeline.cells import context_of
from tests.worlds import wide_world

CPUS = 2
BATCH = BATCH_ROOMS * ROOM_PER_CPU * CPUS


@pytest.fixture(scope="module")
def world() -> World:
    return wide_world(5)


@pytest.fixture(scope="module")
def catalog(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(world, tmp_path_factory.mktemp("wide"), sensors=("rgb",), columns=1)


def part_of(world: World, *, share: float) -> AreaOfInterest:
    """The western part of the world."""
    west, south, east, north = world.bounds
    box = shapely.box(west + 600, south + 600, west + (east - west) * share, north - 600)
    return AreaOfInterest.from_geometry(box, f"EPSG:{world.epsg}")


def job_of(out: Path, world: World, catalog: Path, *, share: float, **changes: Any) -> Job:
    values = {
        "area": part_of(world, share=share), "catalog": str(catalog), "collections": ["drawn-aerial"],
        "queries": ["Where is water?"], "predictor": "oracle", "tile_size": 128, "resolution": 10.0,
        "scenes": "latest", "out": str(out),
    }  # fmt: skip
    return parse_job({**values, **changes})


@pytest.fixture
def own_cluster() -> Iterator[None]:
    """A cluster of this machine, to which all runs of the test are connected."""
    import ray

    quiet: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    ray.init(address="local", num_cpus=CPUS, object_store_memory=OBJECT_STORE_BYTES, **quiet)
    yield
    ray.shutdown()


def done(run: Path) -> list[float]:
    """When each of its cells was answered."""
    return sorted(path.stat().st_mtime for path in (run / "store" / "parts").glob("*/*/manifest.json"))


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(280)
@pytest.mark.usefixtures("own_cluster")
def test_an_urgent_run_overtakes_and_equals_share(world: World, catalog: Path, tmp_path: Path) -> None:
    runs = [tmp_path / name for name in ("one", "two", "urgent", "alone")]
    one, two, urgent, alone = runs
    shares = zip(runs, (0.75, 0.75, 0.3, 0.75), ("bulk", "bulk", "urgent", "bulk"), strict=True)
    jobs = [
        job_of(run, world, catalog, share=share, priority=priority, cluster=None if run is alone else "shared")
        for run, share, priority in shares
    ]
    with ThreadPoolExecutor(3) as threads:
        bulk = [threads.submit(run_job, job) for job in jobs[:2]]
        while not (done(one) and done(two)):
            assert not any(running.done() for running in bulk)
            time.sleep(0.05)
        threads.submit(run_job, jobs[2]).result()
        assert not any(running.done() for running in bulk), "they are still at work when the urgent one is done"
        for running in bulk:
            running.result()
    run_job(jobs[3])
    expected = (alone / FEATURES_PATH).read_bytes()
    assert (one / FEATURES_PATH).read_bytes() == (two / FEATURES_PATH).read_bytes() == expected
    mine = done(urgent)
    assert len(mine) > BATCH
    meanwhile = [moment for moment in (*done(one), *done(two)) if mine[0] < moment < mine[-1]]
    assert len(meanwhile) <= BATCH, "what was begun before, and what is begun while its last cells are worked on"
    _check_alternates(done(one), done(two))


def _check_alternates(one: list[float], two: list[float]) -> None:
    """While both have cells left, one goes on after the other."""
    order = sorted([(moment, "one") for moment in one] + [(moment, "two") for moment in two])
    both = [name for moment, name in order if moment <= min(one[-1], two[-1])]
    assert sum(former != name for former, name in itertools.pairwise(both)) >= 3


def test_who_asks_is_not_held_up_by_a_keeper_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place("normal")
    monkeypatch.setattr(sharing.Place, "_call", lambda *arguments: True)
    with place._lock:  # as while the cluster is lost, and the turn is to be renewed
        assert not place.ask(done=0, left=0, wanted=4, room=4)
    assert place.ask(done=0, left=0, wanted=4, room=4)
    assert not place.ask(done=0, left=4, wanted=4, room=4), "it asks no more often than it must"


# ── a replica that is lost ───────────────────────────────────────────────────────────────────────────────────


@dataclass
class Replica:
    """A predictor elsewhere that is lost, withdrawn or broken as often as it is told."""

    inner: Predictor
    raises: list[Exception] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)

    @property
    def key(self) -> str:
        return self.inner.key

    def predict(self, inputs: Sequence[TileInput], queries: Sequence[Query]) -> list[list[Answer]]:
        self.calls.append(len(inputs))
        if self.raises:
            raise self.raises.pop(0)
        return self.inner.predict(inputs, queries)


def answered(tmp_path: Path, world: World, catalog: Path, shared: Replica | None) -> tuple[bytes, int]:
    """The answers of one cell, and how often it was attempted."""
    west, south, east, north = world.bounds
    middle, up = (west + east) / 2, (south + north) / 2
    box = shapely.box(middle - 300, up - 300, middle + 300, up + 300)
    values = {
        "area": AreaOfInterest.from_geometry(box, f"EPSG:{world.epsg}"), "catalog": str(catalog),
        "collections": ["drawn-sentinel-2-l2a"], "queries": ["Where is water?"], "predictor": "oracle",
        "tile_size": 128, "scenes": "latest", "out": str(tmp_path / "run"),
    }  # fmt: skip
    job = parse_job(values)
    plan = make_plan(job)
    context = replace(context_of(job, plan), shared=shared)
    work = next(plan.work())
    groups = {name: committed.path for name, committed in read_work(work, context).items()}
    (part,) = predict_work(work, groups, context).values()
    attempts = [path for path in context.store.list("attempts") if context.store.read(path) == part.path.encode()]
    return context.store.read(f"{part.path}/answers.parquet"), len(attempts)


def oracle(world: World) -> Predictor:
    return build_predictor({"name": "oracle", "world": world.to_json()})


LOST = ReplicaError("a replica was lost")


@pytest.mark.parametrize(
    ("raises", "calls", "attempts"),
    [([], [9], 1), ([LOST], [9, 9], 2), ([LOST, LOST, LOST], [9, 9], 3), ([ValueError("?")], [9] + [1] * 9, 1),
     ([ValueError("?"), LOST], [9, 1, 9], 2)],
)  # fmt: skip
def test_what_a_lost_replica_did_is_done_again_and_comes_to_the_same(
    raises: list[Exception], calls: list[int], attempts: int,
    drawn_world: World, drawn_catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(stages, "isolated", lambda work, limits: work())  # a process for each tile takes seconds
    replica = Replica(oracle(drawn_world), raises=list(raises))
    expected, _ = answered(tmp_path / "alone", drawn_world, drawn_catalog, None)
    assert answered(tmp_path / "shared", drawn_world, drawn_catalog, replica) == (expected, attempts)
    assert replica.calls == calls


def test_a_withdrawn_model_ends_the_run_and_fails_no_tile(
    drawn_world: World, drawn_catalog: Path, tmp_path: Path
) -> None:
    replica = Replica(oracle(drawn_world), raises=[ValueError("?"), ClusterError("withdrawn")])
    with pytest.raises(ClusterError, match="withdrawn"):
        answered(tmp_path, drawn_world, drawn_catalog, replica)
    assert answered(tmp_path, drawn_world, drawn_catalog, replica)[1] == 2
