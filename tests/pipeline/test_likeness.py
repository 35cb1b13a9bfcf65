"""What looks like a place: ranked by the vectors alone, and refused in a sentence where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas
import numpy as np
import pytest

from earthmap import cli
from earthmap.errors import JobError
from earthmap.grid import Zone
from earthmap.pipeline import Run, find_similar
from earthmap.pipeline.likeness import parse_point, write_similar
from tests.pipeline.vectors import S1, S2, Seen, block, directions, middle_of, run_of

TILES = block(4, 5)
VECTORS = directions(len(TILES))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    seen = [Seen(tile, vector) for tile, vector in zip(TILES[:-1], VECTORS[:-1], strict=True)]
    return run_of(tmp_path / "run", [*seen, Seen(TILES[-1], None)])


def test_the_most_alike_come_first(run: Run) -> None:
    found = find_similar(run, middle_of(TILES[7]), n=5)
    likeness = np.round(VECTORS[:-1].astype(float) @ VECTORS[7] / np.linalg.norm(VECTORS[:-1], axis=1), 3)
    order = [place for place in np.argsort(-likeness) if place != 7][:5]
    assert found["tile_id"].tolist() == [TILES[7].id, *(TILES[place].id for place in order)]
    assert found["rank"].tolist() == list(range(6))
    assert found["likeness"].iloc[0] == 1.0
    np.testing.assert_allclose(found["likeness"][1:], likeness[order], atol=2e-3)
    for name, lon, lat in zip(found["tile_id"], found["lon"], found["lat"], strict=True):
        tile = next(tile for tile in TILES if tile.id == name)
        assert (lon, lat) == pytest.approx(middle_of(tile), abs=1e-3)
    middles = geopandas.GeoSeries.from_xy(found["lon"], found["lat"], crs="EPSG:4326")
    assert found.geometry.contains(middles).all()


def test_no_order_of_rows_and_no_older_look_changes_it(tmp_path: Path) -> None:
    seen = [Seen(tile, vector, day=2) for tile, vector in zip(TILES, VECTORS, strict=True)]
    older = [Seen(tile, vector, day=1) for tile, vector in zip(TILES, directions(len(TILES), seed=9), strict=True)]
    mixed = [*older, *seen]
    mixed = [mixed[place] for place in np.random.default_rng(3).permutation(len(mixed))]
    to = middle_of(TILES[3])
    plain = find_similar(run_of(tmp_path / "plain", seen), to)
    assert plain.equals(find_similar(run_of(tmp_path / "mixed", mixed), to))
    one = find_similar(run_of(tmp_path / "again", mixed), to, observation=f"{S2}_1")
    assert set(one["observation"]) == {f"{S2}_1"}


def test_equally_alike_tiles_come_by_their_ids(tmp_path: Path) -> None:
    run = run_of(tmp_path, [Seen(tile, (1.0, 0.0)) for tile in reversed(TILES)])
    found = find_similar(run, middle_of(TILES[4]), n=100)
    others = sorted(tile.id for tile in TILES if tile != TILES[4])
    assert found["tile_id"].tolist() == [TILES[4].id, *others]


def test_two_zones_are_one_run(tmp_path: Path) -> None:
    east = block(1, 2, zone=Zone(32, True), corner=(4518, 250))
    run = run_of(tmp_path, [Seen(tile, vector) for tile, vector in zip([*TILES, *east], directions(22), strict=True)])
    found = find_similar(run, middle_of(east[1]), n=30)
    assert found["tile_id"].iloc[0] == east[1].id
    assert len(found) == 22


@pytest.mark.parametrize(
    ("to", "says"),
    [
        ("0,0", "outside the run's ground"),
        ("9.1,45.7", "in zone 32N, where the run has no tile"),
        ("45.7,3.6", "longitude before latitude"),
        ("here", "longitude and latitude"),
        ("3.6", "longitude and latitude"),
        ("3.6,nan", "not on the Earth"),
        ("3.6,95", "not on the Earth"),
    ],
)
def test_a_place_without_a_tile_is_refused(run: Run, to: str, says: str) -> None:
    with pytest.raises(JobError, match=says) as caught:
        find_similar(run, to)
    assert "\n" not in str(caught.value)


def test_unseen_ground_says_why(run: Run) -> None:
    with pytest.raises(JobError, match="no vector: 12% of the core could be seen"):
        find_similar(run, middle_of(TILES[-1]))
    with pytest.raises(JobError, match="--n 0"):
        find_similar(run, middle_of(TILES[0]), n=0)


def test_a_run_without_vectors_says_how_to_get_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(tmp_path / "run", [Seen(tile, (1.0,)) for tile in TILES], task="classify")
    assert cli.main(["similar", run.address, "--to", "3.6,45.7"]) == 2
    said = capsys.readouterr().err
    assert f"earthmap ask {run.address} --task embed" in said
    assert "Traceback" not in said


def test_what_was_asked_later_is_found(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", [Seen(TILES[0], (1.0,))], task="classify")
    for name in ("embed-1", "embed-2"):
        run_of(tmp_path / "run" / "asked" / name, [Seen(tile, (1.0, 0.5)) for tile in TILES])
        if name == "embed-1":
            assert len(find_similar(run, middle_of(TILES[0]), n=2)) == 3
    with pytest.raises(JobError, match="asked for vectors 2 times"):
        find_similar(run, middle_of(TILES[0]))


def test_sensors_are_never_compared(tmp_path: Path) -> None:
    two = [Seen(tile, (1.0, 0.0), sensor=sensor) for tile in TILES for sensor in (S1, S2)]
    run = run_of(tmp_path, two)
    with pytest.raises(JobError, match="not compared"):
        find_similar(run, middle_of(TILES[0]))
    assert set(find_similar(run, middle_of(TILES[0]), sensor=S1)["sensor"]) == {S1}
    for options in ({"sensor": "landsat-c2-l2"}, {"sensor": S1, "observation": f"{S2}_0"}):
        with pytest.raises(JobError, match="there are no vectors"):
            find_similar(run, middle_of(TILES[0]), **options)


def test_a_ranking_is_written(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lon, lat = middle_of(TILES[7])
    command = ["similar", run.address, f"--to={lon},{lat}", "--n", "3", "--json"]
    assert cli.main([*command, "--out", str(tmp_path / "found.parquet")]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["rank"] for row in told["tiles"]] == [0, 1, 2, 3]
    table = geopandas.read_parquet(tmp_path / "found.parquet")
    found = find_similar(run, (lon, lat), n=3)
    assert table["tile_id"].tolist() == found["tile_id"].tolist()
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")
    write_similar(run, found, str(tmp_path / "found.geojson"))
    again = geopandas.read_file(tmp_path / "found.geojson")
    assert again["likeness"].tolist() == table["likeness"].tolist()
    with pytest.raises(JobError, match="geojson"):
        write_similar(run, found, str(tmp_path / "found.gpkg"))


def test_places_are_numbers_or_text() -> None:
    assert parse_point(" -3.5 , 45.7 ") == parse_point((-3.5, 45.7)) == (-3.5, 45.7)
