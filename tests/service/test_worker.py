"""The run of a job: its limits hold before anything is read, and a whole map comes out of a whole service."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import geopandas
import pytest
from shapely.geometry import box

from earthmap.client import Client, LiveJob, connect
from earthmap.errors import JobError
from earthmap.model.earth_onevision import new_earth_onevision
from earthmap.model.words import train_words
from earthmap.service.ask_relay import Relay
from earthmap.service.asking import Asking
from earthmap.service.cluster import ServiceCluster
from earthmap.service.jobs import WORKER
from earthmap.service.processes import Assignment, Offer, Scope
from earthmap.service.processes.map import job_of
from earthmap.service.replicas import ReplicaOptions
from earthmap.service.worker import run
from earthmap.synthetic import World
from tests.service.serving import serve


@pytest.fixture
def inputs(drawn_world: World) -> dict[str, Any]:
    """A map of the drawn world, as a request asks for it."""
    return {
        "area": json.loads(json.dumps(drawn_world.area.to_geojson())),
        "queries": ["Where is water?"],
        "sensor": "sentinel-2-l2a",
        "predictor": "spectral",
        "datetime": "2024-06",
    }


@pytest.mark.parametrize(
    ("limits", "word"), [({"read_bytes": 1000}, "1,000 at most, by the quota"), ({"tiles": 1}, "tiles")]
)
def test_limits_hold_before_anything_is_read(
    inputs: dict[str, Any], drawn_catalog: Path, tmp_path: Path, limits: dict[str, int], word: str
) -> None:
    offer = Offer(catalogs={"drawn": str(drawn_catalog)})
    job = job_of(inputs, Scope(offer=offer), out=str(tmp_path / "run"), store=str(tmp_path / "store"))
    assigned = Assignment(out=job.spec.out, values=job.to_dict(), limits=limits, tell=lambda line: None)
    with pytest.raises(JobError, match=word):
        run(assigned, "map")
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_from_an_event_to_a_model_that_learned_from_it(drawn_world: World, drawn_catalog: Path, tmp_path: Path) -> None:
    """All by the client, on the service's one cluster: what happened, how far it can be trusted, who learns from it."""
    model = new_earth_onevision("tiny", train_words(["Is there water?", "yes", "no", "wet", "dry"], size=300), seed=1)
    model.save(tmp_path / "tiny")
    offer = Offer(catalogs={"drawn": str(drawn_catalog)}, models={"tiny": str(tmp_path / "tiny")})
    cluster = ServiceCluster(models={}, options=ReplicaOptions())
    asking = Asking(answering=Relay(cluster.address, workers=1))
    with contextlib.closing(cluster):
        for served in serve(tmp_path, command=WORKER, offer=offer, cluster=cluster.address, asking=asking):
            client = connect(served.url, folder=tmp_path / "fetched")
            event = _happened(client, drawn_world)
            latest = event.result(200, quiet=True)
            assert len(latest.features) > 0
            told = json.loads((tmp_path / "fetched" / event.id / "event.json").read_bytes())
            assert [row["superseded_by"] for row in told["runs"]] == [None]
            with served.client() as plain:
                for path in ("", "/results"):
                    assert str(tmp_path) not in plain.get(f"/jobs/{event.id}{path}").text
            units = geopandas.read_file(client.sample(event, units=60).result(200, quiet=True)["units"])
            labelled = units.assign(label="water")
            assert client.estimate(event, labelled).result(200, quiet=True)["estimate"]["labelled"] == len(units)
            name = _learned(client, event, drawn_world)
            at = latest.coverage.geometry.iloc[0].representative_point()
            answer = client.ask(event, "Is there any wet?", at=(at.x, at.y), model=name)
            other = client.ask(event, "Is there any water?", at=(at.x, at.y))
            assert answer.document["predictor"] != other.document["predictor"]
            options = {"sensor": "sentinel-2-l2a", "tile_size": 128, "scenes": "latest", "predictor": "vlm"}
            mapped = client.map(drawn_world.area, "Is there any wet?", options={**options, "model": name})
            assert set(mapped.result(200, quiet=True).coverage["status"]) & {"answered", "unvalidated"}


def _happened(client: Client, world: World) -> LiveJob:
    day = f"{world.before + (world.after - world.before) / 2:%Y-%m-%d}"
    options = {"sensor": "sentinel-2-l2a", "tile_size": 128, "predictor": "spectral"}
    return client.respond(world.area, "Where is water?", event_time=day, options=options)


def _learned(client: Client, event: LiveJob, world: World) -> str:
    """Name of the model that learned two classes from halves of the ground."""
    west, south, east, north = world.area.bounds
    halves = [box(west, south, (west + east) / 2, north), box((west + east) / 2, south, east, north)]
    labels = geopandas.GeoDataFrame({"class": ["wet", "dry"]}, geometry=halves, crs=4326)
    trained = client.finetune(event, labels, model="tiny", steps=1)
    name: str = trained.result(200, quiet=True)["metrics"]["model"]
    assert name == f"job:{trained.id}"
    return name
