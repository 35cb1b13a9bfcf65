"""Replicas of predictors: what is computed together and in which order, and, on a small cluster, the same answers."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from earthmap.errors import ClusterError, JobError
from earthmap.grid import AreaOfInterest
from earthmap.model import new_earth_onevision, train_words
from earthmap.pipeline import Job, Progress, parse_job, run_job
from earthmap.pipeline.cluster import OBJECT_STORE_BYTES
from earthmap.pipeline.folder import FEATURES_PATH
from earthmap.predict import SpectralPredictor, TileInput, build_predictor
from earthmap.service.replicas import Line, ReplicaOptions, answer_all, application, deploy, replica_handle, spec_of
from earthmap.synthetic import World
from earthmap.tasks import Answer, Query, make_query
from tests.model.conftest import of_others
from tests.worlds import clear_picture, middle_tile

DAY = datetime.datetime(2024, 6, 1, 10, 30, tzinfo=datetime.UTC)
WATER, LAND = make_query("Where is water?"), make_query("Where is vegetation?")


@pytest.fixture
def item(drawn_world: World) -> TileInput:
    tile = middle_tile(drawn_world)
    return TileInput(tile=tile, pictures=(clear_picture(tile, DAY),))


def brighter(item: TileInput, by: float) -> TileInput:
    """The same tile with other pixels."""
    return replace(item, pictures=tuple(replace(one, data=one.data + np.float32(by)) for one in item.pictures))


class Counting:
    """A predictor that says what it was asked of, and breaks on dark tiles."""

    key = "counting"

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def predict(self, inputs: Sequence[TileInput], queries: Sequence[Query]) -> list[list[Answer]]:
        self.calls.append((len(inputs), len(queries)))
        levels = [float(one.pictures[0].data.mean()) for one in inputs]
        if min(levels) < 0:
            raise RuntimeError("too dark")
        return [[Answer(status="answered", value=f"{level:.3f} {query.text}") for query in queries] for level in levels]


def test_a_tile_is_encoded_once_and_alike_ones_together(item: TileInput) -> None:
    other, predictor = brighter(item, 0.1), Counting()
    asked = [(item, WATER), (other, WATER), (brighter(item, 0.0), LAND), (item, WATER), (other, LAND)]
    answers = answer_all(predictor, asked)
    assert predictor.calls == [(2, 2)]
    alone = [Counting().predict([one], [query])[0][0].value for one, query in asked]
    assert [answer.value for answer in answers] == alone
    assert answer_all(predictor, []) == []
    answer_all(predictor, [(item, WATER), (other, LAND)])
    assert predictor.calls[1:] == [(1, 1), (1, 1)], "what is not asked is not computed"


def test_one_tile_that_breaks_a_batch_costs_only_itself(item: TileInput) -> None:
    dark = brighter(item, -9.0)
    good, bad, last = answer_all(Counting(), [(item, WATER), (dark, WATER), (brighter(item, 0.1), WATER)])
    assert (bad.status, bad.stage, bad.reason, bad.message) == (
        "failed", "predict", "unexpected", "RuntimeError: too dark",
    )  # fmt: skip
    assert good.status == last.status == "answered"


def test_who_asks_is_before_runs_and_the_gone_are_passed_over() -> None:
    async def scenario() -> list[str]:
        line, done, free = Line(), list[str](), threading.Event()
        first = asyncio.create_task(line.wait(1, free.wait))
        await asyncio.sleep(0.05)
        told = ((1, "batch"), (1, "gone"), (1, "later"), (0, "asked"), (0, "asked too"))
        waiting = [asyncio.create_task(line.wait(rank, partial(done.append, name))) for rank, name in told]
        await asyncio.sleep(0.05)
        waiting[1].cancel()
        await asyncio.sleep(0.05)
        free.set()
        await asyncio.gather(first, *waiting, return_exceptions=True)
        return done

    assert asyncio.run(scenario()) == ["asked", "asked too", "batch", "later"]


def test_what_fails_fails_for_whom_it_is_computed() -> None:
    async def scenario() -> Any:
        line = Line()
        with pytest.raises(ZeroDivisionError):
            await line.wait(0, lambda: 1 // 0)
        return await line.wait(0, lambda: 7)

    assert asyncio.run(scenario()) == 7


@pytest.mark.parametrize(
    "wrong",
    [
        {"fewest": 2}, {"fewest": -1}, {"most": 0}, {"gpus": 1.5}, {"gpus": -0.5}, {"queued": 0}, {"asked_together": 0},
        {"asked_wait_s": -1.0},
    ],
)  # fmt: skip
def test_options_that_cannot_be_followed(wrong: dict[str, Any]) -> None:
    with pytest.raises(JobError):
        ReplicaOptions(**wrong)


@pytest.mark.parametrize("wrong", [{}, {"model": "nano", "cpus": "1"}, {"model": "nano", "most": "many"}])
def test_arguments_of_a_file_are_checked(wrong: dict[str, str]) -> None:
    with pytest.raises(JobError):
        application(wrong)


# ── on a cluster ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights: they know nothing."""
    folder = tmp_path_factory.mktemp("model")
    texts = ["Is there any water? yes no none water", "Reply with mask[16|0:0+3] poly"] * 3
    of_others(new_earth_onevision("tiny", train_words(texts, size=400), seed=1)).save(folder)
    return folder


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[None]:
    """A cluster of this machine with one GPU, in name only, on a node for models."""
    import ray
    from ray import serve

    quiet: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    offered = {"reader": 1.0, "predictor": 1.0}
    ray.init(address="local", num_gpus=1, resources=offered, object_store_memory=OBJECT_STORE_BYTES, **quiet)
    yield
    serve.shutdown()  # or a thread of this process looks for it as long as the process lives
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(200)
@pytest.mark.usefixtures("own_cluster")
def test_replicas_answer_as_their_predictors_do(item: TileInput, checkpoint: Path) -> None:
    from ray import serve

    models = {"spectral": spec_of("spectral"), "mine": spec_of(str(checkpoint))}
    deploy(models, options=ReplicaOptions(gpus=0, asked_together=4))
    before = serve.status().applications
    deploy(models, options=ReplicaOptions(gpus=0, asked_together=4))
    after = serve.status().applications
    assert {name: (told.last_deployed_time_s, [*told.deployments]) for name, told in before.items()} == {
        name: (told.last_deployed_time_s, [*told.deployments]) for name, told in after.items()
    }, "what is there already stays"
    items = [brighter(item, step / 50) for step in range(3)]
    queries = [make_query(text, open_vocabulary=True) for text in ("Is there any water?", "Where is water?")]
    for name, spec in models.items():
        own = build_predictor({**spec, "dtype": "float32"} if name == "mine" else spec)
        handle = replica_handle(name)
        assert handle.key.remote().result(timeout_s=100) == own.key
        expected = own.predict(items, queries)
        assert handle.predict.remote(items, queries).result(timeout_s=60) == expected
        asked = [handle.ask.remote(one, query) for one in items for query in queries]
        found = [one.result(timeout_s=60) for one in asked]
        assert [one.value for one in found] == [one.value for row in expected for one in row]
    assert SpectralPredictor().key == replica_handle("spectral").key.remote().result(timeout_s=60)
    deploy({"spectral": models["spectral"]}, options=ReplicaOptions(gpus=0, asked_together=4))
    with pytest.raises(ClusterError, match="no replicas of mine"):
        replica_handle("mine")
    deploy({})
    assert not serve.status().applications


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(200)
@pytest.mark.usefixtures("own_cluster")
def test_two_models_share_a_gpu_on_a_node_for_models() -> None:
    import ray

    left: Callable[[], dict[str, float]] = ray.available_resources
    before = left()
    models = {"one": spec_of("spectral"), "two": spec_of("spectral")}
    deploy(models, options=ReplicaOptions(fewest=1, gpus=0.5))
    end = time.monotonic() + 30
    while left().get("GPU", 0.0) > 0:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert before["GPU"] == 1.0
    assert before["predictor"] - left()["predictor"] == pytest.approx(0.002)
    assert left()["reader"] == before["reader"]
    deploy({})


def job_of(out: Path, world: World, catalog: Path, checkpoint: Path) -> Job:
    west, south, east, north = world.bounds
    middle, up = (west + east) / 2, (south + north) / 2
    box = shapely.box(middle - 800, up - 800, middle + 800, up + 800)
    values = {
        "area": AreaOfInterest.from_geometry(box, f"EPSG:{world.epsg}"), "catalog": str(catalog),
        "collections": ["drawn-sentinel-2-l2a"], "queries": ["Is there any water?", "Where is water?"],
        "predictor": "vlm", "model": str(checkpoint), "tile_size": 128, "scenes": "all", "out": str(out),
    }  # fmt: skip
    return parse_job(values)


def replicas() -> list[int]:
    """Ids of the processes of this machine's replicas that this test started."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and (folder / "cmdline").read_bytes().startswith(b"ray::ServeReplica:mine"):
                found.append(int(folder.name))
    return found


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(200)
@pytest.mark.usefixtures("own_cluster")
def test_a_run_asks_the_replicas_and_comes_to_the_same_bytes(
    drawn_world: World, drawn_catalog: Path, checkpoint: Path, tmp_path: Path
) -> None:
    alone = run_job(job_of(tmp_path / "alone", drawn_world, drawn_catalog, checkpoint))
    deploy({"mine": spec_of(str(checkpoint))}, options=ReplicaOptions(gpus=0))
    said: list[str] = []

    def lose_one(progress: Progress) -> None:
        if progress.cells == 1:
            for pid in replicas():
                os.kill(pid, signal.SIGKILL)

    job = job_of(tmp_path / "shared", drawn_world, drawn_catalog, checkpoint)
    shared = run_job(job, say=said.append, report=lose_one)
    assert "asking the replicas of mine" in said
    assert shared.storage.read(FEATURES_PATH) == alone.storage.read(FEATURES_PATH)
    assert shared.summary["failed"] == {}
    paths = [{path.relative_to(run / "store") for path in (run / "store" / "parts").glob("*/*/manifest.json")}
             for run in (tmp_path / "alone", tmp_path / "shared")]  # fmt: skip
    assert paths[0] == paths[1] != set()
    deploy({})
