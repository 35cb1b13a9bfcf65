"""The run of a job: its limits hold before anything is read, and a whole map comes out of a whole service."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from shapely.geometry import box, mapping

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


def _done(client: httpx.Client, process: str, inputs: dict[str, Any], *, within_s: float = 200) -> tuple[str, Any]:
    """Id and results of a job that comes to its end."""
    answer = client.post(f"/processes/{process}/execution", json={"inputs": inputs})
    assert answer.status_code == 201, answer.text
    path = f"/jobs/{answer.json()['jobID']}"
    end = time.monotonic() + within_s
    while (now := client.get(path).json())["status"] in ("accepted", "running"):
        assert time.monotonic() < end, now
        time.sleep(0.2)
    assert now["status"] == "successful", now
    results = client.get(f"{path}/results")
    assert results.status_code == 200, results.text
    return answer.json()["jobID"], results.json()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_from_an_event_to_a_model_that_learned_from_it(
    inputs: dict[str, Any], drawn_world: World, drawn_catalog: Path, tmp_path: Path
) -> None:
    model = new_earth_onevision("tiny", train_words(["Is there water?", "yes", "no", "wet", "dry"], size=300), seed=1)
    model.save(tmp_path / "tiny")
    offer = Offer(catalogs={"drawn": str(drawn_catalog)}, models={"tiny": str(tmp_path / "tiny")})
    day = f"{drawn_world.before + (drawn_world.after - drawn_world.before) / 2:%Y-%m-%d}"
    asked = {name: value for name, value in inputs.items() if name != "datetime"}
    for served in serve(tmp_path, command=WORKER, offer=offer):
        with served.client() as client:
            job, event = _done(client, "respond", {**asked, "event_time": day, "tile_size": 128})
            assert [row["superseded_by"] for row in event["event"]["value"]["runs"]] == [None]
            assert client.get(event["features"]["href"]).content[:4] == b"PAR1"
            _, sample = _done(client, "sample", {"job": job, "units": 60})
            units = client.get(sample["units"]["href"]).json()
            for feature in units["features"]:
                feature["properties"]["label"] = "water"
            _, told = _done(client, "estimate", {"job": job, "labels": units})
            assert told["estimate"]["value"]["labelled"] == len(units["features"])
            west, south, east, north = drawn_world.area.geometry.bounds
            half = {"west": west, "south": south, "east": (west + east) / 2, "north": north}
            labels = [
                {"type": "Feature", "properties": {"class": name}, "geometry": mapping(box(*edges))}
                for name, edges in {"wet": half.values(), "dry": (half["east"], south, east, north)}.items()
            ]
            labelled = {"type": "FeatureCollection", "features": labels}
            trained, metrics = _done(client, "finetune", {"job": job, "labels": labelled, "model": "tiny", "steps": 1})
            assert metrics["metrics"]["value"]["model"] == f"job:{trained}"
            named = {**asked, "predictor": "vlm", "model": f"job:{trained}"}
            answer = client.post("/processes/map/execution", json={"inputs": named})
            assert answer.status_code == 201, answer.text
            assert client.delete(f"/jobs/{answer.json()['jobID']}").json()["status"] == "dismissed"


@pytest.mark.slow
@pytest.mark.ray
def test_a_map_from_request_to_features(inputs: dict[str, Any], drawn_catalog: Path, tmp_path: Path) -> None:
    import geopandas

    for served in serve(tmp_path, command=WORKER, offer=Offer(catalogs={"drawn": str(drawn_catalog)})):
        with served.client() as client:
            job = client.post("/processes/map/execution", json={"inputs": inputs}).json()
            end, seen = time.monotonic() + 150, set()
            while (now := client.get(f"/jobs/{job['jobID']}").json())["status"] in ("accepted", "running"):
                assert time.monotonic() < end
                seen.add(now["progress"])
                time.sleep(0.2)
            assert now["status"] == "successful", now
            results = client.get(f"/jobs/{job['jobID']}/results").json()
            assert results["summary"]["value"]["planned"] > 0
            (tmp_path / "features.parquet").write_bytes(client.get(results["features"]["href"]).content)
            assert len(geopandas.read_parquet(tmp_path / "features.parquet")) > 0
            assert str(tmp_path) not in json.dumps(now)
