"""`ray job submit` to a head on loopback that asks for its token, offers a role, and knows the storage."""

from __future__ import annotations

import json
import secrets
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from earthmap.operate.job_api import Guard, Place, probe, probe_head
from earthmap.pipeline.folder import RUN_PATH
from earthmap.synthetic import World, small_world, write_world
from tests.heads import started_head
from tests.pipeline.commands import write_job

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def world() -> World:
    """A valley of two kilometres."""
    return small_world(3, size_m=1800.0, cloud_share=0.0)


@pytest.fixture(scope="module")
def catalog(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The catalogue of its scenes."""
    return write_world(world, tmp_path_factory.mktemp("valley"), columns=1)


@pytest.fixture
def folder(world: World, catalog: Path, tmp_path: Path) -> Path:
    """What a person submits: the thin entry points, and a job whose run folder is a relative path."""
    submitted = tmp_path / "submitted"
    job = write_job(submitted, world, catalog, out="runs/valley", predictor="spectral")
    (submitted / "jobs").mkdir()
    for name in ("map_area.py", "respond.py"):
        (submitted / "jobs" / name).write_bytes((ROOT / "jobs" / name).read_bytes())
    (submitted / "area.geojson").write_text(json.dumps(yaml.safe_load(job.read_text())["area"]))
    return submitted


def test_jobs_are_submitted_with_the_token_and_kept_in_the_storage(
    world: World, catalog: Path, folder: Path, tmp_path: Path
) -> None:
    storage = tmp_path / "storage"
    with started_head("--num-cpus=2", '--resources={"reader": 1}', storage=storage) as head:
        mapped = head.submit(folder, "jobs/map_area.py", "job.yaml")
        assert mapped.returncode == 0, mapped.stdout + mapped.stderr
        kept = storage / "runs" / "valley"
        assert (kept / RUN_PATH).is_file()
        assert str(kept) in mapped.stdout, "says where the result is"

        event = ("--event", "area.geojson", "--event-time", f"{world.after:%Y-%m-%d}", "--catalog", str(catalog))
        asked = ("--query", "Where is water?", "--predictor", "spectral", "--collection", "drawn-sentinel-2-l2a")
        answered = head.submit(folder, "jobs/respond.py", *event, *asked, "--out", "events/valley")
        assert answered.returncode == 0, answered.stdout + answered.stderr
        assert len(list((storage / "events" / "valley").glob(f"*/{RUN_PATH}"))) == 1

        stranger = {**head.env, "RAY_AUTH_TOKEN_PATH": "", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        refused = head.submit(folder, "jobs/map_area.py", "job.yaml", env=stranger)
        assert refused.returncode != 0
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{head.server}/api/jobs/", timeout=5)
        assert probe(Place("127.0.0.1", int(head.server.rpartition(":")[2]))) is Guard.CLOSED
        assert probe_head(head.address) is Guard.CLOSED
