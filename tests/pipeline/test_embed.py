"""Vectors of a run: asked at once or later they are the same numbers, are ranked, grouped, shown and exported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import shapely

from earthmap import cli
from earthmap.grid import AreaOfInterest
from earthmap.pipeline import Run, ask_run, export_run, find_similar, parse_job, run_job
from earthmap.pipeline.embeddings import find_vectors
from earthmap.synthetic import World
from tests.pipeline.test_follow_up import counted, job_of

pytestmark = [pytest.mark.ray, pytest.mark.timeout(280)]

EMBED = {"text": "Embed this area.", "task": "embed"}


@pytest.fixture(scope="module")
def runs(
    drawn_world: World, drawn_catalog: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None
) -> list[Run]:
    """A run of `spectral` that was asked for water, what it was asked later, and one that is asked for both at once."""
    folder = tmp_path_factory.mktemp("embed")
    west, south, east, north = drawn_world.bounds
    area = AreaOfInterest.from_geometry(shapely.box(west, south, east, north), f"EPSG:{drawn_world.epsg}")
    job = job_of(drawn_world, drawn_catalog, folder / "first", predictor="spectral", area=area)
    first = run_job(job)
    assert cli.main(["ask", first.address, "--task", "embed", "--quiet"]) == 0
    later = find_vectors(first).run
    both = parse_job({**job.to_dict(), "queries": ["Where is water?", EMBED], "out": str(folder / "both")})
    return [first, later, run_job(both)]


def test_vectors_asked_for_later_read_nothing_and_are_the_same(runs: list[Run]) -> None:
    first, later, both = runs
    record = counted(later)
    assert record["groups"]["read"] == 0 < record["groups"]["reused"]
    vectors = [find_vectors(run) for run in (later, both)]
    assert vectors[0].tiles["tile_id"].tolist() == vectors[1].tiles["tile_id"].tolist()
    np.testing.assert_array_equal(vectors[0].all(), vectors[1].all())
    frame = later.features
    assert frame["embedding"].map(len).unique().tolist() == [128]
    assert frame["answer"].unique().tolist() == ["128 numbers"]
    assert set(frame["observation"]) <= set(later.coverage["observation"])
    answered = (later.coverage["status"] == "answered").sum()
    assert len(frame) == answered > 0
    assert later.coverage.loc[later.coverage["status"] != "answered", "reason"].notna().all()
    again = ask_run(first, [EMBED])
    assert again.storage.read("features.parquet") == later.storage.read("features.parquet")


def test_pictures_show_the_tiles(runs: list[Run], tmp_path: Path) -> None:
    from PIL import Image

    first = runs[0]
    row = runs[1].features.iloc[0]
    point = row.geometry.representative_point()
    assert len(find_similar(first, (point.x, point.y), n=4)) == 5
    assert cli.main(["similar", first.address, f"--to={point.x},{point.y}", "--out", f"{tmp_path}/a.parquet"]) == 0
    assert cli.main(["cluster", first.address, "-k", "3", "--out", str(tmp_path / "groups"), "--quiet"]) == 0
    for path in (tmp_path / "a.png", tmp_path / "groups" / "clusters.png"):
        with Image.open(path) as picture:
            assert len(set(picture.convert("RGB").resize((64, 64)).getdata())) > 50
    item = json.loads((tmp_path / "groups" / "item.json").read_text())
    assert {"clusters_31N", "tiles", "clusters", "clusters_png"} <= set(item["assets"])
    assert all((tmp_path / "groups" / asset["href"]).exists() for asset in item["assets"].values())


def test_other_programs_get_all_but_the_vectors(runs: list[Run], tmp_path: Path) -> None:
    import geopandas

    for to in ("gpkg", "geojson", "fgb", "kml"):
        done = export_run(runs[2], to=to, out=str(tmp_path / f"all.{to}"))
        assert done.features == len(runs[2].features)
    frame = geopandas.read_file(tmp_path / "all.gpkg", layer="features")
    assert "embedding" not in frame
    assert {"128 numbers"} <= set(frame["answer"])
    assert "128 numbers" in runs[2].storage.read("report.html").decode()
