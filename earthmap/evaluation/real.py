"""Figures on real scenes that no model of ours learned from: water, land cover, change, things and cloud.

Scenes are cut into tiles of 128 of their own pixels, side by side, as a map has them; what is less than half of a tile
is left out. What is called true of each scene is said in its `data`: a label that people made, a product's
classification, an index on the stored numbers, or another model's map, which are worth less in this order.
"""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.errors import StorageError
from earthmap.evaluation.exams import BOX, CHOICE, COUNT, EXTENT, MASK, SHARE, THINGS, Exam, Paper, Rule, mark, take
from earthmap.evaluation.figures import table
from earthmap.predict.protocol import Picture, TileInput
from earthmap.sensors.bands import OPTICAL_BANDS
from earthmap.sensors.masks import Reason
from earthmap.sensors.quality import reason_mask
from earthmap.sensors.registry import LANDSAT_L2_REFLECTANCE, get_sensor
from earthmap.synthetic.questions import MOST_THINGS, PRESENT
from earthmap.synthetic.replies import CANNOT_BE_SEEN, NAMES
from earthmap.tasks import make_query
from earthmap.tasks.answer import UNSEEN

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from earthmap.predict.protocol import Predictor
    from earthmap.tasks.query import Query

SIDE_PX = 128
"""Side of a tile's picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One picture of a whole scene."""

    sensor: str
    bands: tuple[str, ...]
    data: NDArray[np.float32] = field(repr=False)
    """(band, y, x) physical values, NaN where nodata."""
    day: str | None = None
    layers: Mapping[str, NDArray[np.generic]] = field(default_factory=dict, repr=False)
    """Quality layers by kind, as `reason_mask` takes them."""

    @property
    def mask(self) -> NDArray[np.uint8]:
        """(y, x) codes of the reason mask."""
        return reason_mask(self.data, self.layers, get_sensor(self.sensor))

    def only(self, *bands: str) -> Shot:
        """The same with these bands alone."""
        return replace(self, bands=bands, data=self.data[[self.bands.index(band) for band in bands]])


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A real scene as tiles, with what is asked about it."""

    name: str
    data: str
    """What it is, and what is called true of it."""
    items: tuple[TileInput, ...] = field(repr=False)
    places: tuple[str, ...] = field(repr=False)
    """The ground of each tile."""
    exams: tuple[Exam, ...] = field(repr=False)
    bands: tuple[str, ...] = ()
    """Those that are there, where a sensor's others were left out."""
    known: Mapping[str, tuple[NDArray[np.uint8], ...]] = field(default_factory=dict, repr=False)
    """By class of land cover, of each tile (y, x) 1 where it is, 0 where it is not, 255 where nobody knows: only what
    people know, for the errors of a map are no errors against another map."""


def measure_scene(scene: Scene, *, model: Predictor, spectral: Predictor | None) -> list[Paper]:
    """What was said of one scene: `earthmap.evaluation.mark` makes figures of it, alone or with other scenes'."""
    return take(
        scene.exams,
        scene.items,
        model=model,
        spectral=spectral,
        places=scene.places,
        data=scene.data,
        bands=scene.bands,
    )


def measure_real(
    data: Path,
    *,
    model: Predictor,
    spectral: Predictor | None,
    names: Sequence[str] = (),
    say: Callable[[str], None] = lambda text: None,
) -> list[Paper]:
    """`measure_scene` of the scenes of some of GROUPS, or of all; `say` hears of each when it is done.

    Raises:
        StorageError: for a folder without any of them, and a name that is not one of GROUPS.
    """
    found = []
    for scene in real_scenes(data, names or tuple(GROUPS)):
        start = time.perf_counter()
        found += measure_scene(scene, model=model, spectral=spectral)
        say(f"{scene.name}: {len(scene.items)} tiles in {time.perf_counter() - start:.0f} s")
    return found


def real_tables(papers: Sequence[Paper]) -> str:
    """Markdown: the figures scene by scene, then those of all scenes of a sensor together."""
    names = dict.fromkeys(paper.data for paper in papers)
    each = [row for name in names for row in mark([paper for paper in papers if paper.data == name])]
    return f"## Scene by scene\n\n{table(each)}\n## All scenes of a sensor together\n\n{table(mark(papers))}"


# ── cutting ──────────────────────────────────────────────────────────────────────────────────────────────────


def _corners(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Top and left of the tiles of a scene; the last ones may reach beyond it by less than half."""
    down, across = (range(0, max(side - SIDE_PX // 2, 1), SIDE_PX) for side in shape)
    return [(top, left) for top in down for left in across]


def cut(plane: NDArray[Any], corner: tuple[int, int], *, fill: float) -> NDArray[Any]:
    """(…, SIDE_PX, SIDE_PX) of a (…, y, x) plane from a top left corner on; `fill` beyond its edge."""
    top, left = corner
    part = plane[..., top : top + SIDE_PX, left : left + SIDE_PX]
    short = [(0, 0)] * (plane.ndim - 2) + [(0, SIDE_PX - size) for size in part.shape[-2:]]
    return np.pad(part, short, constant_values=fill)


def _tiles(shots: Sequence[Shot], corners: Sequence[tuple[int, int]]) -> tuple[TileInput, ...]:
    """The scene's tiles, each with one picture of each shot."""
    masks = [shot.mask for shot in shots]
    return tuple(
        TileInput(
            tile=None,
            pictures=tuple(
                Picture(
                    sensor=shot.sensor,
                    observation=f"{shot.sensor}/{number}",
                    datetime=None if shot.day is None else dt.datetime.fromisoformat(f"{shot.day}T10:50:00+00:00"),
                    bands=shot.bands,
                    data=cut(shot.data, corner, fill=np.nan),
                    mask=cut(mask, corner, fill=int(Reason.NODATA)),
                )
                for number, (shot, mask) in enumerate(zip(shots, masks, strict=True))
            ),
        )
        for corner in corners
    )


def _query(text: str, task: str, *, targets: tuple[str, ...] | None = None, **options: Any) -> Query:
    return make_query(text, task=task, targets=targets, open_vocabulary=True, **options)


def _known(truths: Sequence[Any]) -> dict[int, Any]:
    return {tile: true for tile, true in enumerate(truths) if true is not None}


def _shares(masks: Sequence[NDArray[np.uint8]]) -> list[float | None]:
    """Share of each tile's known ground; None where less than half of it is known."""
    known = [mask != UNSEEN for mask in masks]
    return [
        float((mask[there] > 0).mean()) if there.mean() >= 0.5 else None
        for mask, there in zip(masks, known, strict=True)
    ]


def _presence(share: float | None) -> str | None:
    """Whether it is there; None where so little is that nobody need see it."""
    if share is None or 0.0 < share < PRESENT:
        return None
    return "yes" if share > 0 else "no"


def ground_exams(name: str, masks: Sequence[NDArray[np.uint8]], *, outline: bool = False) -> list[Exam]:
    """What is asked about one class of land cover: whether it is there, how much, and where.

    Args:
        name: One of `earthmap.synthetic.CLASSES`.
        masks: Of each tile (y, x) 1 where it is, 0 where it is not, 255 where nobody knows.
        outline: Ask where it is as well, on tiles that have any.
    """
    shares, said = _shares(masks), NAMES[name]
    exams = [
        Exam(
            query=_query(f"Is there any {said}?", "presence"), rule=CHOICE, truths=_known(list(map(_presence, shares)))
        ),
        Exam(query=_query(f"How much is {said}?", "fraction", targets=(name,)), rule=SHARE, truths=_known(shares)),
    ]
    if outline:
        there = {tile: masks[tile] for tile, share in enumerate(shares) if share is not None and share >= PRESENT}
        exams.append(Exam(query=_query(f"Where is {said}?", "segment", targets=(name,)), rule=MASK, truths=there))
    return exams


def _scene(
    name: str,
    data: str,
    shots: Sequence[Shot],
    exams: Callable[[Sequence[tuple[int, int]]], Sequence[Exam]],
    *,
    known: Mapping[str, NDArray[np.uint8]] | None = None,
) -> Scene:
    """A scene of which `exams` knows what to ask about the tiles at some corners, and people where each class is.
    Scenes of one name are one ground."""
    corners = _corners(shots[0].data.shape[1:])
    return Scene(
        name=name,
        data=data,
        items=_tiles(shots, corners),
        places=tuple(f"{name} {top} {left}" for top, left in corners),
        exams=tuple(exams(corners)),
        known={target: tuple(cut(mask, at, fill=UNSEEN) for at in corners) for target, mask in (known or {}).items()},
    )


def _read(path: Path, nodata: float | None = None) -> NDArray[np.float32]:
    """(band, y, x) as stored, NaN where all bands are `nodata`."""
    import rasterio

    with rasterio.open(path) as file:
        data: NDArray[np.float32] = file.read().astype(np.float32)
    if nodata is not None:
        data[:, (data == nodata).all(axis=0)] = np.nan
    return data


def _fitted(path: Path, side: int) -> NDArray[np.float32]:
    """(side, side) of a square band, its pixels repeated to the finest band's."""
    plane = _read(path, 0)[0]
    rows = np.arange(side) * plane.shape[0] // side
    found: NDArray[np.float32] = plane[np.ix_(rows, np.arange(side) * plane.shape[1] // side)]
    return found


def _mean3(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    from scipy.ndimage import uniform_filter

    return np.asarray(uniform_filter(plane, 3, mode="nearest"), np.float32)


# ── water ────────────────────────────────────────────────────────────────────────────────────────────────────


def _flood(data: Path) -> Iterator[Scene]:
    """Sen1Floods11, Spain: hand-made label of water; Sentinel-2 L1C, its red, green and blue, Sentinel-1, and both."""
    folder = data / "04_sen1floods11"
    light = _read(folder / "S2" / "Spain_7370579_S2Hand_west.tif") / 10_000.0
    power = 10.0 ** (_read(folder / "S1" / "Spain_7370579_S1Hand_west.tif") / 10.0)
    label = _read(folder / "Labels" / "Spain_7370579_LabelHand_west.tif")[0]
    water = np.where(label < 0, UNSEEN, label).astype(np.uint8)
    optical = Shot(sensor="sentinel-2-l1c", bands=OPTICAL_BANDS, data=light, day="2019-09-18")
    radar = Shot(sensor="sentinel-1-db", bands=("vv", "vh"), data=power.astype(np.float32), day="2019-09-17")
    rgb = optical.only("red", "green", "blue")

    def exams(corners: Sequence[tuple[int, int]]) -> list[Exam]:
        return ground_exams("water", [cut(water, at, fill=UNSEEN) for at in corners], outline=True)

    for shots in ((optical,), (radar,), (optical, radar), (rgb,)):
        scene = _scene("flood", "flood (set 04, hand-made label)", shots, exams, known={"water": water})
        yield replace(scene, bands=rgb.bands) if shots[0] is rgb else scene


def _desert(data: Path) -> Iterator[Scene]:
    """The Sahara at 100 m: no water, and bare by the scene's own classification."""
    (folder,) = (data / "02_sentinel2_scene").glob("S2A_*")
    names = {**dict(zip(_S2_FILES, OPTICAL_BANDS, strict=True))}
    side = _read(folder / "B02.tif").shape[1]
    bands = tuple(band for file, band in names.items() if (folder / f"{file}.tif").is_file())
    planes = [_fitted(folder / f"{file}.tif", side) for file, band in names.items() if band in bands]
    scl = _fitted(folder / "SCL.tif", side)
    shot = Shot(
        sensor="sentinel-2-l2a", bands=bands, data=np.stack(planes) / 10_000.0, day="2020-02-19", layers={"scl": scl}
    )
    clear = np.isin(scl, (4, 5, 6))

    def exams(corners: Sequence[tuple[int, int]]) -> list[Exam]:
        bare = [cut(np.where(clear, scl == 5, UNSEEN).astype(np.uint8), at, fill=UNSEEN) for at in corners]
        water = [np.where(mask == UNSEEN, mask, np.uint8(0)) for mask in bare]
        kinds = {tile: "bare" for tile, share in enumerate(_shares(bare)) if share is not None and share > 0.9}
        classify = Exam(query=_query("What kind of land cover is this?", "classify"), rule=CHOICE, truths=kinds)
        return [*ground_exams("water", water), *ground_exams("bare", bare), classify]

    dry = np.where(clear, 0, UNSEEN).astype(np.uint8)
    yield _scene("desert", "desert (set 02, the product's classification)", [shot], exams, known={"water": dry})


_S2_FILES = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")


def _series(
    name: str, files: Sequence[tuple[str, Path]], *, bands: tuple[str, ...], index: tuple[str, str]
) -> Iterator[Scene]:
    """Dates of one place in 8 bits, with water by a normalised difference above 0.1 after a 3 × 3 mean; and what
    changed between the first and the last."""
    shots = [Shot(sensor="optical-uncalibrated", bands=bands, data=_read(path, 0), day=day) for day, path in files]
    water = [_wet(shot, index) for shot in shots]
    for shot, mask in zip(shots, water, strict=True):
        yield _scene(
            name,
            f"{name} (set 08, an index as truth)",
            [shot],
            lambda corners, mask=mask: ground_exams(  # type: ignore[misc]
                "water", [cut(mask, at, fill=UNSEEN) for at in corners], outline=True
            ),
        )
    first, last = water[0], water[-1]
    changed = np.where((first == UNSEEN) | (last == UNSEEN), UNSEEN, first != last).astype(np.uint8)

    def exams(corners: Sequence[tuple[int, int]]) -> list[Exam]:
        return change_exams("water", [cut(changed, at, fill=UNSEEN) for at in corners])

    yield _scene(name, f"{name} (set 08, an index as truth)", [shots[0], shots[-1]], exams)


def change_exams(name: str, masks: Sequence[NDArray[np.uint8]], *, least: float = 0.02) -> list[Exam]:
    """Where a class of land cover appeared or disappeared, on tiles where that is `least` of the ground or more."""
    there = {tile: masks[tile] for tile, share in enumerate(_shares(masks)) if share is not None and share >= least}
    query = _query(f"Where did {NAMES[name]} appear or disappear?", "change", targets=(name,))
    return [Exam(query=query, rule=rule, truths=there) for rule in (EXTENT, MASK)]


def _wet(shot: Shot, index: tuple[str, str]) -> NDArray[np.uint8]:
    """(y, x) 1 for water by a normalised difference of two bands, 255 for nodata."""
    high, low = (_mean3(np.nan_to_num(shot.data[shot.bands.index(band)])) for band in index)
    with np.errstate(invalid="ignore", divide="ignore"):
        wet = (high - low) / (high + low) > 0.1
    return np.where(np.isnan(shot.data).any(axis=0), UNSEEN, wet).astype(np.uint8)


def _river(data: Path) -> Iterator[Scene]:
    folder = data / "08_landsat_naip_timeseries" / "landsat_pucallpa_west"
    files = [(f"{path.stem}-07-01", path) for path in sorted(folder.glob("*.tif"))]
    yield from _series("river", files, bands=("swir16", "nir", "red", "green"), index=("green", "swir16"))


def _potholes(data: Path) -> Iterator[Scene]:
    folder = data / "08_landsat_naip_timeseries" / "naip_nd_west"
    days = [(path.stem[-8:], path) for path in sorted(folder.glob("*.tif"))]
    files = [(f"{day[:4]}-{day[4:6]}-{day[6:]}", path) for day, path in days]
    yield from _series("potholes", files[::2], bands=("red", "green", "blue", "nir"), index=("green", "nir"))


# ── land cover ───────────────────────────────────────────────────────────────────────────────────────────────

_LULC = {"vegetation": (1, 2, 3), "water": (5,), "built-up": (8,)}
"""Codes of the Slovenian map: cultivated, forest and grassland; water; artificial."""

_CLC = {
    "water": ("water courses", "water bodies", "sea and ocean", "coastal lagoons", "estuaries"),
    "vegetation": ("arable", "pastures", "forest", "woodland", "agriculture", "grassland", "cultivation", "vineyards"),
    "built-up": ("urban", "industrial", "airports", "port areas", "road and rail", "construction"),
    "snow": ("glaciers",),
    "burnt": ("burnt",),
}
"""Words of CORINE's names that mean each class."""


def _slovenia(data: Path) -> Iterator[Scene]:
    """Three clear dates of one kilometre with a national land-use map; two cloudy ones are asked by `_clouds`."""
    scenes, cover = _slovenian(data)
    data_text = "Slovenia (set 10, a national land-use map)"
    known = {
        name: np.where(cover == 0, UNSEEN, np.isin(cover, codes)).astype(np.uint8) for name, codes in _LULC.items()
    }
    for number in (2, 3, 4):

        def exams(corners: Sequence[tuple[int, int]]) -> list[Exam]:
            found = []
            for name, mask in known.items():
                found += ground_exams(name, [cut(mask, at, fill=UNSEEN) for at in corners])
            query = _query("What kind of land cover is this?", "classify")
            return [*found, Exam(query=query, rule=CHOICE, truths={0: "vegetation"})]

        yield _scene("Slovenia", data_text, [_slovenian_shot(scenes[number])], exams, known=known)


def _slovenian(data: Path) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    folder = data / "10_eolearn_s2_patch"
    cover: NDArray[np.uint16] = np.load(folder / "TestEOPatch" / "mask_timeless" / "LULC.npy")[..., 0]
    return np.moveaxis(np.load(folder / "REFERENCE_SCENES.npy"), -1, 1), cover


def _slovenian_shot(scene: NDArray[np.float32]) -> Shot:
    return Shot(sensor="sentinel-2-l1c", bands=OPTICAL_BANDS, data=scene.astype(np.float32))


def _patches(data: Path) -> Iterator[Scene]:
    """BigEarthNet's patches with CORINE's labels: which classes there are."""
    root = data / "03_bigearthnet_s1_s2_patches"
    for folder in sorted((root / "s2-tiny").iterdir()):
        files = {file: band for file, band in zip(_S2_FILES, OPTICAL_BANDS, strict=True) if file != "B10"}
        planes = [_fitted(next(folder.glob(f"*_{file}.tif")), 120) for file in files]
        yield _patch(folder, Shot(sensor="sentinel-2-l2a", bands=tuple(files.values()), data=np.stack(planes) / 1e4))
    for folder in sorted((root / "s1-tiny").iterdir()):
        decibels = np.concatenate([_read(next(folder.glob(f"*_{band}.tif"))) for band in ("VV", "VH")])
        power = (10.0 ** (decibels / 10.0)).astype(np.float32)
        yield _patch(folder, Shot(sensor="sentinel-1-db", bands=("vv", "vh"), data=power))


def _patch(folder: Path, shot: Shot) -> Scene:
    (path,) = folder.glob("*labels_metadata.json")
    labels = " ".join(json.loads(path.read_text(encoding="utf-8"))["labels"]).lower()
    exams = [
        Exam(
            query=_query(f"Is there any {NAMES[name]}?", "presence"),
            rule=CHOICE,
            truths={0: "yes" if any(word in labels for word in words) else "no"},
        )
        for name, words in _CLC.items()
        if name in ("water", "vegetation", "built-up")  # what CORINE lists only where it covers 25 hectares
    ]
    return _scene(folder.name, "BigEarthNet patches (set 03, CORINE)", [shot], lambda _: exams)


# ── change and things ────────────────────────────────────────────────────────────────────────────────────────


def _tornado(data: Path) -> Iterator[Scene]:
    """Joplin before and after: what happened to the buildings, by another model's damage map."""
    folder = data / "13_joplin_tornado_pre_post" / "chips"
    for chip in ("0", "1"):
        before, after = (
            Shot(
                sensor="optical-uncalibrated",
                bands=("red", "green", "blue"),
                data=_read(folder / when / f"{chip}.tif", 0),
                day=day,
            )
            for when, day in (("pre", "2010-07-01"), ("post", "2011-05-24"))
        )
        grade = _read(folder / "damage_mask" / f"{chip}.tif")[0]

        def exams(corners: Sequence[tuple[int, int]], grade: NDArray[np.float32] = grade) -> list[Exam]:
            truths = [_struck(cut(grade, at, fill=0)) for at in corners]
            query = _query("What happened to the buildings?", "change-type", choices=_FATES)
            return [Exam(query=query, rule=CHOICE, truths=_known(truths))]

        yield _scene(f"tornado {chip}", "tornado (set 13, another model's damage map)", [before, after], exams)


_FATES = ("no change", "construction", "demolition", "building damage")


def _struck(grade: NDArray[np.float32]) -> str | None:
    """What became of a tile's buildings: 1 no damage, 2 minor, 3 major, 4 destroyed; None where it is not plain."""
    built = int((grade > 0).sum())
    if built < 200:
        return None
    share = float((grade >= 3).sum() / built)
    return "building damage" if share > 0.6 else "no change" if share < 0.05 else None


def _pairs(data: Path) -> Iterator[Scene]:
    """LEVIR-CD: buildings that came or went, by hand-made masks."""
    folder = data / "12_change_pairs_masks" / "levir"
    for path in sorted((folder / "label").glob("*.png")):
        shots = [
            Shot(sensor="optical-uncalibrated", bands=("red", "green", "blue"), data=_read(folder / when / path.name))
            for when in ("A", "B")
        ]
        label = (_read(path)[0] > 0).astype(np.uint8)
        yield _scene(
            f"pair {path.stem}",
            "building pairs (set 12, hand-made masks)",
            shots,
            lambda corners, label=label: change_exams(  # type: ignore[misc]
                "built-up", [cut(label, at, fill=UNSEEN) for at in corners]
            ),
        )


def _harbour(data: Path) -> Iterator[Scene]:
    """DOTA's harbour: whether there are ships, how many, and where."""
    import shapely

    folder = data / "11_dota_oriented_boxes"
    rgb = _read(folder / "P0706.png")[:3]
    lines = [line.split() for line in (folder / "P0706.txt").read_text(encoding="utf-8").splitlines()]
    corners_of = [np.array(line[:8], float).reshape(4, 2) for line in lines if len(line) == 10 and line[8] == "ship"]
    ships = [shapely.Polygon(corners) for corners in corners_of]
    shot = Shot(sensor="optical-uncalibrated", bands=("red", "green", "blue"), data=rgb)

    def exams(corners: Sequence[tuple[int, int]]) -> list[Exam]:
        inside = [_within(ships, at) for at in corners]
        there = ["yes" if found else "no" for found in inside]
        few = {tile: found for tile, found in enumerate(inside) if 0 < len(found) <= MOST_THINGS}
        counts = {tile: str(len(found)) for tile, found in enumerate(inside) if len(found) <= MOST_THINGS}
        alone = {tile: found[0] for tile, found in few.items() if len(found) == 1}
        rows: Sequence[tuple[str, str, Rule, dict[int, Any]]] = (
            ("Find the ships.", "detect", THINGS, few),
            ("How many ships are there?", "count", COUNT, counts),
            ("Where is the ship?", "ground", BOX, alone),
        )
        written = [
            Exam(query=_query(text, task, targets=("ship",), shape="box"), rule=rule, truths=truths)
            for text, task, rule, truths in rows
        ]
        return [Exam(query=_query("Are there any ships?", "presence"), rule=CHOICE, truths=_known(there)), *written]

    yield _scene("harbour", "harbour (set 11, hand-made boxes)", [shot], exams)


def _within(shapes: Sequence[Any], corner: tuple[int, int]) -> list[Any]:
    """Upright boxes, in coordinates of the tile, of the shapes that lie in it by half or more."""
    import shapely

    top, left = corner
    tile = shapely.box(left, top, left + SIDE_PX, top + SIDE_PX)
    boxes = [shapely.intersection(shape, tile) for shape in shapes if shape.intersection(tile).area > shape.area / 2]
    moved = [shapely.transform(box, lambda xy: (xy - (left, top)) / SIDE_PX) for box in boxes]
    return [shapely.box(*box.bounds) for box in moved]


# ── cloud ────────────────────────────────────────────────────────────────────────────────────────────────────

_HIDDEN = Rule(
    metric="knows what is hidden",
    read=lambda answer: "hidden" if answer.value == CANNOT_BE_SEEN else "seen",
    grade=CHOICE.grade,
    guesses=CHOICE.guesses,
)


def _clouds(data: Path) -> Iterator[Scene]:
    """Clear and cloudy pictures without a cloud mask, asked what is on the ground: under cloud nobody can tell."""
    query = _query("What is on the ground here?", "vqa")
    for number, scene in enumerate(_slovenian(data)[0]):
        truths = {0: "hidden" if number < 2 else "seen"}
        exam = Exam(query=query, rule=_HIDDEN, truths=truths)
        name = "Slovenia under cloud"
        yield _scene(name, f"{name} (set 10)", [_slovenian_shot(scene)], lambda _, exam=exam: [exam])  # type: ignore[misc]
    (folder,) = (data / "09_landsat_thermal").glob("LC08_L2SP_*")
    bands = dict(zip(("B1", "B2", "B3", "B4", "B5", "B6", "B7"), _LANDSAT, strict=True))
    scale, offset = LANDSAT_L2_REFLECTANCE
    planes = [_read(next(folder.glob(f"*_SR_{file}.TIF")), 0)[0] * scale + offset for file in bands]
    shot = Shot(sensor="landsat-c2-l2", bands=tuple(bands.values()), data=np.stack(planes).astype(np.float32))
    quality = _read(next(folder.glob("*_QA_PIXEL.TIF")))[0].astype(np.uint16)
    covered = np.where(quality & 1, UNSEEN, (quality >> 3) & 1).astype(np.uint8)

    def exams(corners: Sequence[tuple[int, int]]) -> list[Exam]:
        shares = _shares([cut(covered, at, fill=UNSEEN) for at in corners])
        said = [
            None if share is None or 0.1 < share < 0.9 else "hidden" if share >= 0.9 else "seen" for share in shares
        ]
        return [Exam(query=query, rule=_HIDDEN, truths=_known(said))]

    yield _scene("Amazon under cloud", "Amazon at 600 m (set 09, QA_PIXEL)", [shot], exams)


_LANDSAT = ("coastal", "blue", "green", "red", "nir08", "swir16", "swir22")

GROUPS: Mapping[str, tuple[str, Callable[[Path], Iterator[Scene]]]] = {
    "flood": ("04_sen1floods11", _flood),
    "desert": ("02_sentinel2_scene", _desert),
    "river": ("08_landsat_naip_timeseries", _river),
    "potholes": ("08_landsat_naip_timeseries", _potholes),
    "slovenia": ("10_eolearn_s2_patch", _slovenia),
    "patches": ("03_bigearthnet_s1_s2_patches", _patches),
    "tornado": ("13_joplin_tornado_pre_post", _tornado),
    "pairs": ("12_change_pairs_masks", _pairs),
    "harbour": ("11_dota_oriented_boxes", _harbour),
    "cloud": ("09_landsat_thermal", _clouds),
}
"""What is measured, by name: the set that must be there, and its scenes. Sets 11, 12 and 14 are for measuring only; no
real scene is ever learned from here."""


def real_scenes(data: Path, names: Sequence[str] = tuple(GROUPS)) -> Iterator[Scene]:
    """The scenes of some of GROUPS under a folder of real scenes; nothing of a set that is not there.

    Raises:
        StorageError: for a folder with no such set, and a name that is not one of GROUPS.
    """
    unknown = [name for name in names if name not in GROUPS]
    if unknown or not any((data / GROUPS[name][0]).is_dir() for name in names):
        raise StorageError(
            f"{unknown[0]} is no group of real scenes" if unknown else f"{data} holds no real scenes",
            expected=f"some of {', '.join(GROUPS)} under a folder that holds their sets",
        )
    for name in names:
        folder, scenes = GROUPS[name]
        if (data / folder).is_dir():
            yield from scenes(data)
