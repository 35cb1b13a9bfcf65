"""A disk that fills up while a run writes: one line that says so, nothing lost, and the same map once there is room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from earthmap.pipeline import read_job, run_job
from earthmap.pipeline.folder import FEATURES_PATH, RUN_PATH
from earthmap.synthetic import World
from tests.disks import enlarge, mounted
from tests.pipeline.commands import command, write_job

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(280)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    with mounted(tmp_path / "disk", size="1m") as disk:
        yield disk


def test_a_full_disk_is_said_and_survived(
    drawn_world: World, drawn_catalog: Path, small_disk: Path, tmp_path: Path
) -> None:
    job = write_job(tmp_path / "small", drawn_world, drawn_catalog, out=str(small_disk / "run"))
    with command(str(job), "--quiet") as running:
        status, out, err = running.finish()
    assert (status, out) == (1, "")
    assert "no space left" in err
    assert len(err.splitlines()) == 1
    assert not (small_disk / "run" / RUN_PATH).exists()
    enlarge(small_disk, size="256m")
    run_job(read_job(str(job)))
    elsewhere = write_job(tmp_path / "large", drawn_world, drawn_catalog, out=str(tmp_path / "run"))
    run_job(read_job(str(elsewhere)))
    assert (small_disk / "run" / FEATURES_PATH).read_bytes() == (tmp_path / "run" / FEATURES_PATH).read_bytes()
