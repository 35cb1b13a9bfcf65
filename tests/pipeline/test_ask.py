"""`earthmap ask`: one picture, its answer, and where on the ground what was found lies."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from PIL import Image

from earthmap.catalog import find_scenes, narrow, observe, open_catalog
from earthmap.cli import BAD_REQUEST, DONE, FAILED, main
from earthmap.cube import CellRead, RasterioReader, open_cell, read_cell, stored_groups, write_cell
from earthmap.errors import GridError, JobError
from earthmap.grid import Grid, Tile, owned_ground, tile_to_lonlat
from earthmap.pipeline import Sight, Subject, ask_about, draw, open_subject, tell
from earthmap.predict import OraclePredictor, SpectralPredictor, TileInput
from earthmap.storage import Storage
from earthmap.synthetic import World, truth_on
from earthmap.tasks import Answer, Query, make_query
from earthmap.tasks.serialization import Instance
from tests.model.conftest import of_others
from tests.pipeline.cubes import read_run
from tests.worlds import middle_tile

WATER = make_query("Where is water?")


@dataclasses.dataclass(frozen=True)
class Found:
    """A predictor that says what it is told to."""

    answer: Answer

    @property
    def key(self) -> str:
        return "found"

    def predict(self, inputs: Sequence[TileInput], queries: Sequence[Query]) -> list[list[Answer]]:
        return [[self.answer] * len(queries) for _ in inputs]


def instances(*found: Instance, **values: Any) -> Found:
    return Found(Answer(status="answered", value=str(len(found)), instances=found, **values))


def image(path: Path, transform: Affine | None, crs: str | None, shape: tuple[int, int], bands: int = 4) -> Path:
    """A GeoTIFF of blue, green, red and near infrared, green in its upper half."""
    import rasterio

    data = np.full((bands, *shape), 90, np.uint8)
    data[1, : shape[0] // 2] = 160
    profile = {"driver": "GTiff", "count": bands, "height": shape[0], "width": shape[1], "dtype": "uint8"}
    with rasterio.open(path, "w", transform=transform, crs=crs, **profile) as target:
        target.write(data)
        for number, name in enumerate(("blue", "green", "red", "nir")[:bands], 1):
            target.set_band_description(number, name)
    return path


def asked(capsys: pytest.CaptureFixture[str], *words: str, code: int = DONE) -> dict[str, Any]:
    assert main(["ask", *words, "--json"]) == code
    reply: dict[str, Any] = json.loads(capsys.readouterr().out)
    return reply


def refused(capsys: pytest.CaptureFixture[str], *words: str, code: int = BAD_REQUEST) -> str:
    assert main(["ask", *words]) == code
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("earthmap: ")
    return lines[0]


# ── on the ground ────────────────────────────────────────────────────────────────────────────────────────────

PLACES = {
    "north": ("EPSG:32633", Affine(10, 0, 430_000, 0, -10, 5_200_000)),
    "south": ("EPSG:32719", Affine(10, 0, 620_000, 0, -10, 7_300_000)),
    "south in a northern code": ("EPSG:32619", Affine(30, 0, 620_000, 0, -30, -1_300_000)),
    "turned": ("EPSG:32633", Affine.translation(430_000, 5_200_000) @ Affine.rotation(30) @ Affine.scale(10, -10)),
    "turned in the south": (
        "EPSG:32719",
        Affine.translation(620_000, 7_300_000) @ Affine.rotation(-55) @ Affine.scale(3, -3),
    ),
    "degrees": ("EPSG:4326", Affine(1e-4, 0, 12.5, 0, -1e-4, -33.2)),
    "Lambert": ("EPSG:3035", Affine(20, 0, 4_300_000, 0, -20, 3_000_000)),
}


@pytest.mark.parametrize("place", PLACES)
def test_what_is_found_lies_where_it_is_on_the_ground(tmp_path: Path, place: str) -> None:
    from pyproj import Geod, Transformer

    crs, transform = PLACES[place]
    path = image(tmp_path / "a_20240504.tif", transform, crs, (200, 180))
    subject = open_subject([str(path)], Sight(), task="detect")
    assert subject.item.tile is None
    assert subject.item.side_px == 224
    west, north, east, south = 40.0, 30.0, 90.0, 150.0
    box = shapely.box(west / 224, north / 224, east / 224, south / 224)
    point = shapely.Point(100.5 / 224, 20.5 / 224)
    away = Instance(kind="point", geometry=shapely.Point(0.99, 0.99))
    predictor = instances(
        Instance(kind="box", geometry=box, label="ship"), Instance(kind="point", geometry=point), away
    )
    reply = ask_about(make_query("Find ships", open_vocabulary=True), subject, predictor)
    assert reply.notes[-1] == "1 of 3 found lie beyond the image's edge"
    there = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    corners = [(west, north), (east, north), (east, south), (west, south)]
    ground = shapely.Polygon([there.transform(*(transform @ corner)) for corner in corners])
    geod = Geod(ellps="WGS84")

    def metres(one: Sequence[float], other: Sequence[float]) -> float:
        return float(geod.inv(one[0], one[1], other[0], other[1])[2])

    pixel_m = metres(*(there.transform(*(transform @ corner)) for corner in corners[:2])) / 50
    for corner in shapely.get_coordinates(ground):
        near = shapely.get_coordinates(reply.finds[0].place)
        assert min(metres(corner, other) for other in near) < 0.5 * pixel_m
    assert metres(there.transform(*(transform @ (100.5, 20.5))), reply.finds[1].place.coords[0]) < 0.1 * pixel_m


@pytest.mark.parametrize("zone", ["31N", "31S", "01N", "60S"])
def test_what_is_found_in_a_tile_lies_where_the_tile_says(zone: str) -> None:
    tile = Tile.parse(f"utm0_10m_384_{zone}_t900_100")
    subject = Subject(source="x", item=TileInput(tile=tile, pictures=()), geobox=tile.geobox, shape=(448, 448))
    box = shapely.box(0.25, 0.5, 0.5, 0.75)
    (find,) = ask_about(WATER, subject, instances(Instance(kind="box", geometry=box))).finds
    lon, lat = tile_to_lonlat(tile, [0.25, 0.5], [0.5, 0.75])
    bounds = find.place.bounds
    assert np.allclose([bounds[0], bounds[3]], [lon.min(), lat.max()], atol=3e-3)
    assert shapely.Point(lon[0], lat[0]).distance(find.place) < 1e-6


def test_every_kind_of_instance_is_told_placed_and_drawn(tmp_path: Path) -> None:
    crs, transform = PLACES["south"]
    subject = open_subject(
        [str(image(tmp_path / "a_20240504.tif", transform, crs, (128, 128)))], Sight(), task="detect"
    )
    grid = np.zeros((16, 16), bool)
    grid[2:5, 3:9] = True
    found = [
        Instance(kind="box", geometry=shapely.box(0.1, 0.1, 0.2, 0.3), label="ship"),
        Instance(kind="oriented_box", geometry=shapely.Polygon([(0.5, 0.4), (0.6, 0.5), (0.5, 0.6), (0.4, 0.5)])),
        Instance(kind="point", geometry=shapely.Point(0.9, 0.9), label="car", time="12.5s", track=3),
        Instance(kind="polygon", geometry=shapely.box(0.7, 0.1, 0.9, 0.3), label="field"),
        Instance(kind="mask", mask=grid, label="lake"),
        Instance(kind="polygon", geometry=shapely.Polygon(), label="nothing"),
    ]
    predictor = instances(*found, instance_scores=(0.9, 0.8, 0.7, 0.6, 0.5, 0.4), probability=0.6)
    reply = ask_about(make_query("Find ships", open_vocabulary=True), subject, predictor)
    assert [find.kind for find in reply.finds] == ["box", "oriented_box", "point", "polygon", "mask"]
    assert np.isclose(reply.finds[4].pixels.area, 18 * 8 * 8)
    lines = tell(reply)
    assert lines[0] == "6 found (probability 0.60)"
    assert lines[3].split()[:4] == ["3", "car", "#3", "@12.5s"]
    plain = json.loads(json.dumps(reply.to_dict(), allow_nan=False))
    assert [one["properties"]["score"] for one in plain["found"]["features"]] == [0.9, 0.8, 0.7, 0.6, 0.5]
    assert plain["coordinates"] == "EPSG:4326"
    assert draw(reply).png.startswith(b"\x89PNG")


def test_a_mask_is_given_back_as_it_was(tmp_path: Path) -> None:
    crs, transform = PLACES["north"]
    subject = open_subject(
        [str(image(tmp_path / "a_20240504.tif", transform, crs, (200, 180)))], Sight(), task="segment"
    )
    reply = ask_about(make_query("Where is vegetation?"), subject, SpectralPredictor())
    (green,) = reply.finds
    assert green.label == "vegetation"
    assert abs(green.pixels.area - 100 * 180) <= 2 * 180
    assert reply.seen_share == 1.0
    assert abs((green.share or 0) - 0.5) < 0.02
    assert "vegetation 50" in tell(reply)[0]


# ── images ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_image_larger_than_a_picture_says_how_to_ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    crs, transform = PLACES["north"]
    path = image(tmp_path / "a_20240504.tif", transform, crs, (449, 300))
    line = refused(capsys, str(path), "Where is vegetation?")
    assert "300 × 449 pixels" in line
    assert "448 × 448" in line
    assert "earthmap map --image" in line
    at = line.partition("--at=")[2].partition(",")[0]
    point = line.partition("--at=")[2].split(", or")[0]
    assert at
    reply = asked(capsys, str(path), "Where is vegetation?", f"--at={point}", "--tile-size", "128")
    assert Tile.parse(reply["tile_id"]).grid.picture_px == 128
    assert reply["status"] == "answered"
    again = asked(capsys, str(path), "Where is vegetation?", "--at", reply["tile_id"])
    assert again["found"] == reply["found"]
    assert "point between" in refused(capsys, str(path), "Where is vegetation?", "--at=60,10")
    assert "LON,LAT" in refused(capsys, str(path), "Where is vegetation?", "--at=here")
    assert "Earth" in refused(capsys, str(path), "Where is vegetation?", "--at=10,95")


def test_an_image_without_a_date_is_asked_about_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    crs, transform = PLACES["north"]
    one, other = (image(tmp_path / name, transform, crs, (100, 90)) for name in ("one.tif", "other.tif"))
    reply = asked(capsys, str(one), "How much of this is vegetation?")
    assert reply["pictures"][0]["datetime"] is None
    assert abs(reply["fraction"] - 0.5) < 0.03
    assert "nothing tells when it was taken" in reply["notes"]
    assert "was taken" in refused(capsys, str(one), str(other), "Where did vegetation appear?")
    both = asked(capsys, f"{one}@2023-01-01", f"{other}@2024-01-01", "Where did vegetation appear?")
    assert [picture["datetime"][:4] for picture in both["pictures"]] == ["2023", "2024"]


def test_one_of_several_dates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    crs, transform = PLACES["north"]
    for name in ("a_20230504.tif", "a_20240504.tif"):
        image(tmp_path / name, transform, crs, (100, 90))
    reply = asked(capsys, str(tmp_path), "Is there any water?")
    assert reply["pictures"][0]["datetime"].startswith("2024-05-04")
    assert "2023-05-04, 2024-05-04" in reply["notes"][0]
    reply = asked(capsys, str(tmp_path), "Is there any water?", "--date", "2023")
    assert reply["pictures"][0]["datetime"].startswith("2023-05-04")
    line = refused(capsys, str(tmp_path), "Is there any water?", "--date", "2019-01")
    assert "2023-05-04, 2024-05-04" in line
    dates = ("--date", "2023", "--date", "2024")
    assert "2 dates" in refused(capsys, str(tmp_path), "Is there any water?", *dates)
    assert len(asked(capsys, str(tmp_path), "What changed?", *dates)["pictures"]) == 2
    assert "sensor" in refused(capsys, str(tmp_path), "Is there any water?", "--sensor", "sentinel-1-grd")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("no-such.tif", "Where is vegetation?"), "no image"),
        (("README.md", "Where is vegetation?"), "README.md"),
        (("x.png", ""), "empty"),
        (("x.png", "w" * 100_000), "100000"),
        (("x.png", "Find the ships"), "ships"),
        (("x.png", "Where is vegetation?", "--model", "m", "--predictor", "spectral"), "--model"),
        (("x.png",), "question"),
        (("x.png", "Where is vegetation?", "--draw", ""), "a folder"),
        (("x.png", "Where is vegetation?", "--draw", "/"), "a folder"),
    ],
)
def test_a_bad_request(capsys: pytest.CaptureFixture[str], tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    (tmp_path / "README.md").write_text("no image")
    Image.new("RGB", (30, 30), (9, 9, 9)).save(tmp_path / "x.png")
    first = str(tmp_path / words[0])
    assert says in refused(capsys, first, *words[1:])


# ── photographs ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_a_photograph_is_asked_in_pixels(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    path = tmp_path / f"photo.{kind}"
    Image.new("RGB", (300, 200), (40, 160, 30)).save(path)
    out = tmp_path / "out.png"
    reply = asked(capsys, str(path), "Where is vegetation?", "--draw", str(out))
    assert reply["coordinates"] == "pixels"
    assert reply["answer"] == "vegetation"
    assert reply["seen_share"] == 1.0
    (feature,) = reply["found"]["features"]
    assert shapely.geometry.shape(feature["geometry"]).bounds == (0.0, 0.0, 300.0, 200.0)
    assert "448 × 448 pixels, of which it fills 300 × 200" in reply["notes"][0]
    assert Image.open(io.BytesIO(out.read_bytes())).width > 600


def test_part_of_a_large_photograph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rgb = np.full((700, 900, 3), 120, np.uint8)
    rgb[600:640, 800:850] = (40, 200, 30)
    path = tmp_path / "photo.png"
    Image.fromarray(rgb).save(path)
    line = refused(capsys, str(path), "Where is vegetation?")
    assert "900 × 700 pixels" in line
    assert "--at=450,350" in line
    reply = asked(capsys, str(path), "Where is vegetation?", "--at=890,690", "--tile-size=224")
    bounds = shapely.geometry.shape(reply["found"]["features"][0]["geometry"]).bounds
    assert np.allclose(bounds, (800, 600, 850, 640), atol=1.5)
    assert "outside the photograph" in refused(capsys, str(path), "Where is vegetation?", "--at=900,10")


def test_what_a_photograph_may_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.png"
    Image.new("RGBA", (60, 40), (40, 160, 30, 0)).save(path)
    assert asked(capsys, str(path), "Where is vegetation?")["reason"] == "nodata"
    sideways = Image.new("RGB", (60, 40), (40, 160, 30))
    exif = sideways.getexif()
    exif[0x0112] = 6
    sideways.save(tmp_path / "x.jpg", exif=exif)
    reply = asked(capsys, str(tmp_path / "x.jpg"), "Where is vegetation?")
    assert "fills 40 × 60" in reply["notes"][0]
    assert "EXIF" in reply["notes"][1]
    for mode in ("L", "P", "1", "LA"):
        Image.new(mode, (60, 40)).save(path)
        assert asked(capsys, str(path), "Where is vegetation?")["status"] == "skipped"
    Image.fromarray(np.zeros((40, 60), np.uint16)).save(path)
    assert "8 bits" in refused(capsys, str(path), "Where is vegetation?", code=FAILED)


def test_damaged_photographs_and_bombs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import struct
    import zlib

    path = tmp_path / "x.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 300, 3)).astype(np.uint8)).save(path)
    whole = path.read_bytes()
    for cut in (9, 40, len(whole) // 2):
        path.write_bytes(whole[:cut])
        assert "x.png" in refused(capsys, str(path), "Where is vegetation?", code=FAILED)
    for side in (60_000, 9_000):
        head = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        data = b"IDAT" + zlib.compress(bytes(1000))
        chunks = [
            struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (head, data)
        ]
        path.write_bytes(whole[:8] + b"".join(chunks))
        assert "pixels" in refused(capsys, str(path), "Where is vegetation?", "--at=1,1", code=FAILED)


def test_frames_of_a_video_are_a_series(tmp_path: Path) -> None:
    paths = []
    for number in range(3):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.new("RGB", (100 + (number == 2), 100), (number, 9, 9)).save(paths[-1])
    subject = open_subject(paths[:2], Sight(), task="track")
    assert [picture.datetime for picture in subject.item.pictures] == [None, None]
    with pytest.raises(JobError, match="one size"):
        open_subject(paths, Sight(), task="track")
    with pytest.raises(JobError, match="two or more"):
        open_subject(paths[:1], Sight(), task="track")
    with pytest.raises(JobError, match="2 photographs"):
        open_subject(paths[:2], Sight(), task="segment")


# ── a cube ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def cube(drawn_catalog: Path, drawn_world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tile]:
    """A store with every observation of one cell of the drawn world, and a tile of it."""
    folder = tmp_path_factory.mktemp("asked") / "store"
    tile = middle_tile(drawn_world)
    found = find_scenes(open_catalog(str(drawn_catalog)), None)
    with ThreadPoolExecutor(2) as pool:
        for observation in observe(found.scenes):
            own = narrow(observation, owned_ground(tile.cell))
            if own is not None:
                read = CellRead.of(tile.cell, own)
                write_cell(Storage(folder), read, read_cell(RasterioReader(), read, pool=pool))
    return folder, tile


def test_a_tile_of_a_cube_is_answered_as_its_truth(cube: tuple[Path, Tile], drawn_world: World) -> None:
    folder, tile = cube
    lon, lat = tile_to_lonlat(tile, 0.5, 0.5)
    for at in (tile.id, f"{float(lon)},{float(lat)}"):
        sight = Sight(at=at, sensor="sentinel-2-l2a", dates=(f"{drawn_world.before:%Y-%m-%d}",))
        subject = open_subject([str(folder)], sight, task="segment")
        assert subject.item.tile == tile
        reply = ask_about(WATER, subject, OraclePredictor(drawn_world))
        truth = truth_on(drawn_world, tile.core_geobox, drawn_world.before) == 1
        mask = reply.answer.mask
        assert mask is not None
        assert ((mask == 1) == truth)[mask != 255].all()
        drawn = sum(find.pixels.area for find in reply.finds)
        assert drawn == (mask == 1).sum()


def test_dates_that_are_turned_round_are_refused(cube: tuple[Path, Tile]) -> None:
    folder, tile = cube
    turned = Sight(at=tile.id, sensor="sentinel-2-l2a", dates=("2024-06", "2024-05"))
    with pytest.raises(JobError, match="later than the second"):
        open_subject([str(folder)], turned, task="change")


def test_a_change_in_a_cube_takes_both_dates(cube: tuple[Path, Tile], drawn_world: World) -> None:
    folder, tile = cube
    change = make_query("Where did water appear or disappear?")
    subject = open_subject([str(folder)], Sight(at=tile.id, sensor="sentinel-2-l2a"), task="change")
    first, second = subject.item.pictures
    assert first.datetime is not None
    assert second.datetime is not None
    assert first.datetime < second.datetime
    reply = ask_about(change, subject, SpectralPredictor())
    assert reply.answer.status == "answered"
    assert len(draw(reply).corners) == 2


def test_what_a_cube_does_not_hold(cube: tuple[Path, Tile], capsys: pytest.CaptureFixture[str]) -> None:
    folder, tile = cube
    question = (str(folder), "Where is water?")
    assert "--at LON,LAT" in refused(capsys, *question)
    assert "a point between" in refused(capsys, *question, "--at=100,10")
    elsewhere = Tile(tile.grid, tile.zone, tile.row + 40, tile.column)
    assert "read no ground" in refused(capsys, *question, "--at", elsewhere.id)
    other = Tile(Grid(resolution_m=77), tile.zone, 1, 1)
    assert "read no ground" in refused(capsys, *question, "--at", other.id)
    assert "id of a cell or tile" in refused(capsys, *question, "--at", "utm0_nonsense")
    assert "one of" in refused(capsys, *question, "--at", tile.id, "--date", "1999")
    assert "no observation of the sensor" in refused(capsys, *question, "--at", tile.id, "--sensor", "modis")
    (folder.parent / "empty").mkdir(exist_ok=True)
    assert "no image" in refused(capsys, str(folder.parent / "empty"), "Where is water?", "--at", tile.id)


def test_a_run_is_asked_about_what_it_looked_at_itself(
    tmp_path: Path, drawn_catalog: Path, drawn_world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two runs that share a store, on other ground and of other dates: neither answers from what the other read."""
    tile = middle_tile(drawn_world)
    store, at = tmp_path / "store", ",".join(str(float(part)) for part in tile_to_lonlat(tile, 0.5, 0.5))
    area = list(owned_ground(tile).buffer(-1e-4).bounds)
    runs = {
        date: read_run(
            tmp_path / date, store=store, catalog=drawn_catalog, area=area, datetime=date, sensor="sentinel-2-l2a",
            tile_size=128,
        )
        for date in ("2024-05", "2024-06")
    }  # fmt: skip
    for date, run in runs.items():
        subject = open_subject([str(run)], Sight(at=at), task="segment")
        assert subject.item.tile == tile
        assert subject.notes == ()
        (picture,) = subject.item.pictures
        assert f"{picture.datetime:%Y-%m}" == date
        (whole,) = [
            open_cell(Storage(store), path).picture(tile)
            for cell, path in stored_groups(Storage(store))
            if cell == tile.cell and picture.observation in path
        ]
        assert np.array_equal(picture.data, whole.data, equal_nan=True)
        assert np.array_equal(picture.mask, whole.mask)
        other = next(iter(runs.keys() - {date}))
        question = (str(run), "Where is water?", "--at", at)
        assert "nothing was measured" in refused(capsys, *question, "--date", other)
    assert "compares dates" in refused(capsys, str(runs["2024-05"]), "Where did water appear?", "--at", at)
    elsewhere = Tile(tile.grid, tile.zone, tile.row + 40, tile.column)
    assert "read no ground" in refused(capsys, str(run), "Where is water?", "--at", elsewhere.id)
    assert len(open_subject([str(store)], Sight(at=at, sensor="sentinel-2-l2a"), task="change").item.pictures) == 2


def test_a_tile_alone_is_read_of_its_own_cell_only(cube: tuple[Path, Tile]) -> None:
    folder, tile = cube
    (path, *_) = [path for cell, path in stored_groups(Storage(folder)) if cell == tile.cell]
    group = open_cell(Storage(folder), path)
    with pytest.raises(GridError, match="not in cell"):
        group.read_picture(Tile(tile.grid, tile.zone, tile.row + 40, tile.column))


# ── the same as the map ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.real
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.filterwarnings("ignore::rasterio.errors.NodataShadowWarning")
@pytest.mark.parametrize(
    ("name", "tile_size"),
    [
        ("04_sen1floods11/S2/Spain_7370579_S2Hand_west.tif@2019-09-17", 128),
        ("08_landsat_naip_timeseries/landsat_pucallpa_west/2020.tif", 224),
    ],
)
def test_the_answer_is_that_of_the_map(real_data: Path, tmp_path: Path, name: str, tile_size: int) -> None:
    """A tile of an image, asked alone, and the same tile in the run's cube: value, share and pixels as the map has."""
    from earthmap.pipeline import parse_job, run_job
    from earthmap.pipeline.stages import read_part
    from earthmap.tasks.answer import answer_from_columns

    path = str(real_data / name)
    texts = ["Where is vegetation?", "How much of this is vegetation?"]
    out = tmp_path / "run"
    run = run_job(parse_job({"images": [path], "queries": texts, "tile_size": tile_size, "out": str(out)}))
    store = Storage(run.job.store)
    parts = {part.rpartition("/")[0] for part in store.list("parts") if part.endswith("answers.parquet")}
    rows = [row for part in sorted(parts) for row in read_part(store, part).to_pylist()]
    by_query = {query.content_key(): query for query in run.job.queries}
    answered = [row for row in rows if row["status"] == "answered"]
    assert len(answered) >= 8
    for row in answered[:: max(1, len(answered) // 8)]:
        query = by_query[row["query"]]
        sight = Sight(at=row["tile_id"], tile_size=tile_size)
        mapped = answer_from_columns(row, side_px=Tile.parse(row["tile_id"]).grid.core_px)
        for source in (path, str(out)):
            reply = ask_about(query, open_subject([source], sight, task=query.task), SpectralPredictor())
            mine = reply.answer
            assert (mine.value, mine.fraction, mine.seen_px) == (mapped.value, mapped.fraction, mapped.seen_px)
            assert mine.mask is not None
            assert mapped.mask is not None
            assert np.array_equal(mine.mask, mapped.mask)


# ── the vision-language model ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_checkpoint_answers_what_land_cover_cannot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model of random weights: its answers mean nothing, and come as answers do."""
    from earthmap.model.earth_onevision import new_earth_onevision
    from earthmap.model.words import nano_words

    model, path = tmp_path / "model", tmp_path / "photo.png"
    of_others(new_earth_onevision("nano", nano_words(), seed=0)).save(model)
    Image.new("RGB", (100, 80), (40, 160, 30)).save(path)
    reply = asked(capsys, str(path), "Find the ships", "--model", str(model), "--draw", str(tmp_path / "out.png"))
    assert reply["task"] == "detect"
    assert reply["status"] == "answered"
    assert int(reply["answer"]) >= len(reply["found"]["features"])
    assert "unvalidated" in reply["notes"]
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    reply = asked(capsys, str(path), "What is this?", "--choices", "harbour,farm", "--model", str(model))
    assert np.isclose(sum(reply["scores"].values()), 1.0)
    assert "checkpoint" in refused(capsys, str(path), "Find the ships", "--model", str(tmp_path / "none")).lower()
