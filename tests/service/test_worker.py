"""The run of a job: its limits hold before anything is read, and a whole map comes out of a whole service."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from earthmap.errors import JobError
from earthmap.service.jobs import WORKER
from earthmap.service.processes import Offer, job_of
from earthmap.service.worker import run_map
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
    job = job_of(inputs, offer, out=str(tmp_path / "run"), store=str(tmp_path / "store"))
    with pytest.raises(JobError, match=word):
        run_map(job.to_dict(), limits=limits, tell=lambda line: None)
    assert not (tmp_path / "store").exists()


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
