"""The run of a job: its limits hold before anything is read, and a whole map comes out of a whole service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas
import pytest
from shapely.geometry import box

import earthmap
from earthmap.errors import JobError
from earthmap.model.earth_onevision import new_earth_onevision
from earthmap.model.words import train_words
from earthmap.service.jobs import WORKER
from earthmap.service.processes import Assignment, Offer, Scope
from earthmap.service.processes.map import job_of
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
    """All by the client: what happened, how far it can be trusted, who learns from labels of that ground."""
    model = new_earth_onevision("tiny", train_words(["Is there water?", "yes", "no", "wet", "dry"], size=300), seed=1)
    model.save(tmp_path / "tiny")
    offer = Offer(catalogs={"drawn": str(drawn_catalog)}, models={"tiny": str(tmp_path / "tiny")})
    day = f"{drawn_world.before + (drawn_world.after - drawn_world.before) / 2:%Y-%m-%d}"
    area, optical = drawn_world.area, {"sensor": "sentinel-2-l2a", "tile_size": 128}
    for served in serve(tmp_path, command=WORKER, offer=offer):
        client = earthmap.connect(served.url, folder=tmp_path / "fetched")
        options = {**optical, "predictor": "spectral"}
        event = client.respond(area, "Where is water?", event_time=day, options=options)
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
        west, south, east, north = area.bounds
        halves = [box(west, south, (west + east) / 2, north), box((west + east) / 2, south, east, north)]
        labels = geopandas.GeoDataFrame({"class": ["wet", "dry"]}, geometry=halves, crs=4326)
        trained = client.finetune(event, labels, model="tiny", steps=1)
        name = trained.result(200, quiet=True)["metrics"]["model"]
        assert name == f"job:{trained.id}"
        again = client.map(area, "Where is water?", options={**optical, "predictor": "vlm", "model": name})
        again.cancel()
        assert again.status == "dismissed"
