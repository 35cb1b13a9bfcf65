"""Figures on drawn tiles that were held out: every kind of question asked as a user asks it, through a predictor.

Seeds of training have 48 bits; those of these tiles begin beyond them, so no tile was ever learned from.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.evaluation.exams import (
    BOX,
    CHOICE,
    COUNT,
    EXTENT,
    LABELS,
    MASK,
    ORIENTED_BOX,
    SHARE,
    THINGS,
    Exam,
    balanced,
    mark,
    take,
)
from earthmap.evaluation.figures import Measured
from earthmap.predict.protocol import Picture, TileInput
from earthmap.synthetic import CLASSES, Facts, Tiles, draw_tiles, facts_of, ground_distances, measure, plan_tiles
from earthmap.synthetic.facts import told_by
from earthmap.synthetic.objects import OBJECT_CLASSES
from earthmap.synthetic.questions import MOST_THINGS, PRESENT, dominant, known_things
from earthmap.synthetic.replies import NAMES, is_plain, plural, shape_of
from earthmap.tasks import CHANGES, make_query
from earthmap.tasks.answer import UNSEEN

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from earthmap.predict.protocol import Predictor
    from earthmap.tasks.query import Query

FIRST_SEED = 1 << 50
"""Of held-out tiles."""

SIDE_PX = 128
"""Side of a tile's picture."""

LEAST = 0.05
"""Share of a tile from which ground is asked to be outlined."""

LEAST_CHANGED = 0.02
"""The same for ground that changed."""

OUTLINED = ("water", "vegetation", "built-up")
"""Land cover whose masks are asked for: those of all classes would take most of the time."""

_DAY = dt.datetime(2021, 6, 1, 10, 50, tzinfo=dt.UTC)
_STEP = dt.timedelta(days=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How tiles are seen."""

    modality: str
    """One of `earthmap.training.stages.MODALITIES`."""
    sensors: tuple[str, ...]
    """Ids in `earthmap.sensors.SENSORS`; more than one are fused."""
    bands: tuple[str, ...] | None = None
    """Those that are there; None for all that are drawn."""
    dates: int = 1


_RGB = ("red", "green", "blue")

LOOKS = (
    Look(modality="multispectral", sensors=("sentinel-2-l2a",)),
    Look(modality="multispectral", sensors=("sentinel-2-l1c",)),
    Look(modality="multispectral", sensors=("landsat-c2-l2",)),
    Look(modality="optical", sensors=("optical-uncalibrated",), bands=_RGB),
    Look(modality="sar", sensors=("sentinel-1-db",)),
    Look(modality="sar", sensors=("sentinel-1-rtc",)),
    Look(modality="infrared", sensors=("thermal",)),
    Look(modality="temporal", sensors=("sentinel-2-l2a",), dates=2),
    Look(modality="temporal", sensors=("optical-uncalibrated",), bands=_RGB, dates=2),
    Look(modality="temporal", sensors=("sentinel-1-rtc",), dates=2),
    Look(modality="fusion", sensors=("sentinel-2-l2a", "sentinel-1-db")),
)
"""How each modality is seen here; video is measured by none yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Held-out tiles as one look sees them, with what is true of them."""

    items: tuple[TileInput, ...] = field(repr=False)
    facts: tuple[Facts, ...] = field(repr=False)
    tiles: Tiles = field(repr=False)
    seen: NDArray[np.bool_] = field(repr=False)
    """(tile, date, y, x) True where the ground can be seen."""


def draw_batch(look: Look, count: int, *, first: int = FIRST_SEED) -> Batch:
    """`count` held-out tiles. Raises SensorError for sensors that are not drawn together."""
    recipe = plan_tiles(
        np.arange(count) + first, side_px=SIDE_PX, dates=look.dates, gsd_m=ground_distances(*look.sensors)
    )
    tiles = draw_tiles(recipe)
    shown = [measure(tiles, sensor, bands=look.bands) for sensor in look.sensors]
    numbers = [(one.sensor, one.bands, one.data.numpy(), one.mask.numpy()) for one in shown]
    items = [
        TileInput(
            tile=None,
            pictures=tuple(
                Picture(
                    sensor=sensor,
                    observation=f"{sensor}/{date}",
                    datetime=_DAY + date * _STEP,
                    bands=bands,
                    data=data[tile, date],
                    mask=mask[tile, date],
                )
                for date in range(look.dates)
                for sensor, bands, data, mask in numbers
            ),
        )
        for tile in range(count)
    ]
    radar = any(sensor.startswith("sentinel-1") for sensor in look.sensors)
    return Batch(
        items=tuple(items),
        facts=tuple(facts_of(tiles, sensors=look.sensors)),
        tiles=tiles,
        seen=tiles.seen(radar=radar).numpy(),
    )


def measure_drawn(
    look: Look,
    *,
    model: Predictor,
    spectral: Predictor | None,
    tiles: int = 128,
    written: int = 24,
    first: int = FIRST_SEED,
) -> list[Measured]:
    """The model's figures on held-out drawn tiles seen by `look`, beside `spectral` and the best constant answers.

    Args:
        look: How the tiles are seen.
        model: What is measured.
        spectral: What it is compared with; None for nothing.
        tiles: How many are drawn.
        written: How many of them at most are asked for what is written token by token, for each such question.
        first: Seed of the first tile.

    Raises:
        SensorError: for sensors that are not drawn together.
    """
    batch = draw_batch(look, tiles, first=first)
    exams = list(exams_of(look, batch, written))
    places = [str(seed) for seed in batch.tiles.recipe.seeds.tolist()]
    papers = take(exams, batch.items, model=model, spectral=spectral, places=places, data="held-out drawn scenes")
    return mark(papers)


def exams_of(look: Look, batch: Batch, written: int) -> Iterator[Exam]:
    """What is asked about held-out tiles; of what is written token by token each question of so many at most."""
    return _of_one_date(batch, written) if look.dates == 1 else _of_two_dates(batch, written)


def measure_looks(
    model: Predictor,
    *,
    spectral: Predictor | None,
    looks: Sequence[Look] = LOOKS,
    tiles: int = 128,
    written: int = 24,
    say: Callable[[str], None] = lambda text: None,
) -> list[Measured]:
    """`measure_drawn` of several looks; `say` hears of each when it is done."""
    found = []
    for look in looks:
        start = time.perf_counter()
        found += measure_drawn(look, model=model, spectral=spectral, tiles=tiles, written=written)
        say(f"{look.modality}, {' + '.join(look.sensors)} × {look.dates}: {time.perf_counter() - start:.0f} s")
    return found


def _query(
    text: str,
    task: str,
    *,
    targets: tuple[str, ...] | None = None,
    choices: tuple[str, ...] | None = None,
    shape: str | None = None,
) -> Query:
    return make_query(text, task=task, targets=targets, choices=choices, shape=shape, open_vocabulary=True)


def _where(batch: Batch, truth: Callable[[Facts], Any]) -> dict[int, Any]:
    """What is true of each tile of which anything is."""
    found = {tile: truth(facts) for tile, facts in enumerate(batch.facts)}
    return {tile: true for tile, true in found.items() if true is not None}


def _some(truths: Mapping[int, Any], most: int) -> dict[int, Any]:
    return dict(list(truths.items())[:most])


# ── one date ─────────────────────────────────────────────────────────────────────────────────────────────────


def _of_one_date(batch: Batch, written: int) -> Iterator[Exam]:
    for name in CLASSES:
        truths = balanced(_where(batch, partial(_is_there, name=name)))
        yield Exam(query=_query(f"Is there any {NAMES[name]}?", "presence"), rule=CHOICE, truths=truths)
        shares = _where(batch, partial(_share, name=name))
        yield Exam(query=_query(f"How much is {NAMES[name]}?", "fraction", targets=(name,)), rule=SHARE, truths=shares)
    told = told_by(list(dict.fromkeys(picture.sensor for picture in batch.items[0].pictures)))[0]
    kinds = _where(batch, lambda facts: dominant(facts) if facts.classes == told else None)
    yield Exam(query=_query("What kind of land cover is this?", "classify", choices=told), rule=CHOICE, truths=kinds)
    labels = _where(batch, lambda facts: _all_labels(facts) if facts.classes == told else None)
    yield Exam(query=_query("Which land cover classes are there?", "label", choices=told), rule=LABELS, truths=labels)
    for label in OBJECT_CLASSES:
        truths = balanced(_where(batch, partial(_stands, label=label)))
        yield Exam(query=_query(f"Are there any {plural(label)}?", "presence"), rule=CHOICE, truths=truths)
        yield from _of_things(batch, label, written // 2)
    for name in OUTLINED:
        masks = {
            tile: _codes(batch, tile, batch.tiles.cover[tile, 0].numpy() == CLASSES.index(name) + 1)
            for tile, share in _where(batch, partial(_share, name=name)).items()
            if LEAST <= share <= 1.0 - LEAST
        }
        query = _query(f"Where is {NAMES[name]}?", "segment", targets=(name,))
        yield Exam(query=query, rule=MASK, truths=_some(masks, written // 2))


def _is_there(facts: Facts, name: str) -> str | None:
    if name not in facts.classes or facts.seen[0] < 0.3 or 0.0 < facts.share(name) < PRESENT:
        return None
    return "yes" if facts.share(name) > 0 else "no"


def _all_labels(facts: Facts) -> frozenset[str] | None:
    """The classes that are there; None where of any nobody could tell."""
    there = {name: _is_there(facts, name) for name in facts.classes}
    return None if None in there.values() else frozenset(name for name, said in there.items() if said == "yes")


def _share(facts: Facts, name: str) -> float | None:
    return facts.share(name) if name in facts.classes and facts.seen[0] >= 0.3 else None


def _stands(facts: Facts, label: str) -> str | None:
    """Whether there is a thing of a class; None where nobody could tell."""
    if label not in known_things(facts):
        return None
    return "yes" if facts.of(label) else "no"


def _of_things(batch: Batch, label: str, most: int) -> Iterator[Exam]:
    """How many there are, where the one is, upright and turned, and where all are."""

    def things(facts: Facts) -> list[Any] | None:
        known = label in known_things(facts) and 0 < len(facts.of(label)) <= MOST_THINGS
        return facts.of(label) if known else None

    def one(kind: str) -> Callable[[Facts], Any]:
        return lambda facts: shape_of(found[0], kind) if (found := things(facts)) and len(found) == 1 else None

    boxes = _where(batch, lambda facts: [shape_of(one, "box") for one in found] if (found := things(facts)) else None)
    counts = balanced(_where(batch, partial(_stands, label=label)))
    counts = {tile: str(len(batch.facts[tile].of(label))) for tile in counts}
    for text, task, rule, shape, truths in (
        (f"Where is the {label}?", "ground", BOX, "box", _where(batch, one("box"))),
        (f"Where is the {label}?", "ground", ORIENTED_BOX, "oriented_box", _where(batch, one("oriented_box"))),
        (f"Find the {plural(label)}.", "detect", THINGS, "box", boxes),
        (f"How many {plural(label)} are there?", "count", COUNT, "box", counts),
    ):
        query = _query(text, task, targets=(label,), shape=shape)
        yield Exam(query=query, rule=rule, truths=_some(truths, most))


def _codes(batch: Batch, tile: int, there: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """(y, x) 1 where it is, 0 where it is not, unseen where nobody sees the ground on every date."""
    return np.where(batch.seen[tile].all(axis=0), there.astype(np.uint8), np.uint8(UNSEEN))


# ── two dates ────────────────────────────────────────────────────────────────────────────────────────────────


def _of_two_dates(batch: Batch, written: int) -> Iterator[Exam]:
    events = _where(batch, lambda facts: facts.event if is_plain(facts) and facts.event in CHANGES else None)
    yield Exam(query=_query("What kind of change is this?", "change-type"), rule=CHOICE, truths=events)
    cover = batch.tiles.cover.numpy()
    for name in OUTLINED:
        code = CLASSES.index(name) + 1
        masks: dict[int, NDArray[np.uint8]] = {}
        for tile, facts in enumerate(batch.facts):
            if name in facts.classes and facts.changed[code - 1].sum(axis=0).mean() >= LEAST_CHANGED:
                changed = (cover[tile, 0] == code) != (cover[tile, -1] == code)
                masks[tile] = _codes(batch, tile, changed)
        query = _query(f"Where did {NAMES[name]} appear or disappear?", "change", targets=(name,))
        for rule in (EXTENT, MASK):
            yield Exam(query=query, rule=rule, truths=_some(masks, written // 2))


def modality_of(row: Measured, looks: Sequence[Look] = LOOKS) -> str:
    """The modality of the look that a figure was measured with."""
    return next(look.modality for look in looks if (look.sensors, look.dates) == (row.sensors, row.dates))
