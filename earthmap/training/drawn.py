"""Drawn tiles as training rows: ever new ground, nothing on the disk, the same rows for the same seed.

A row shows what a user's tile shows: the views that the predictor makes, behind the names that it gives them, asked in
its words. The truth of each merged block comes with it, for FGVLA's finest granularity.
"""

from __future__ import annotations

import datetime as dt
import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from earthmap.content import content_key
from earthmap.errors import TrainingError
from earthmap.model.processing import FRAMES, UNIT_PX
from earthmap.sensors.masks import Reason
from earthmap.sensors.registry import get_sensor
from earthmap.sensors.views import sensor_views
from earthmap.synthetic import (
    CLASSES,
    Facts,
    Pictures,
    Tiles,
    ask,
    draw_tiles,
    draw_views,
    facts_of,
    ground_distances,
    measure,
    patch_shares,
    plan_tiles,
)
from earthmap.synthetic.facts import told_by
from earthmap.synthetic.objects import OBJECT_CLASSES
from earthmap.synthetic.questions import is_fair
from earthmap.tasks.prompts import YES_NO, closed_choices, frame_name, label_questions, picture_name, question_prompt
from earthmap.tasks.registry import TASKS
from earthmap.training.rows import Asked, Row

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from earthmap.synthetic import Asked as DrawnQuestion
    from earthmap.training.stages import StageTable

VERSION = "7"
"""Raised when the same seed gives other rows."""

GROUP = 8
"""Tiles that are drawn together, seen by the same sensors in the same bands."""

TRIES = 8
"""Grounds that are drawn for a group until something can be asked."""

VIEW_TOKENS, QUESTION_TOKENS = 28, 36
"""About what a view of 128 pixels and a question take, by which a step is filled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """How tiles are seen: by which sensors, in which bands, on how many dates."""

    sensors: tuple[tuple[str, tuple[str, ...]], ...]
    """Row of `earthmap.sensors.registry`, and the bands that are there; () for all that are drawn."""
    weight: float = 1.0
    dates: tuple[int, ...] = (1,)
    """Numbers of dates, one of which is drawn."""
    moving: bool = False


_RGB, _WITH_NIR = ("red", "green", "blue"), ("blue", "green", "red", "nir")


def _one(sensor: str, *bands: str, weight: float = 1.0) -> Sighting:
    return Sighting(sensors=((sensor, bands),), weight=weight)


def _dated(sensor: str, *bands: str, weight: float = 1.0, dates: tuple[int, ...] = (2, 2, 2, 3)) -> Sighting:
    return Sighting(sensors=((sensor, bands),), weight=weight, dates=dates)


SIGHTINGS: Mapping[str, tuple[Sighting, ...]] = {
    "optical": (
        _one("sentinel-2-l2a", *_RGB, weight=2.0),
        _one("sentinel-2-l1c", *_RGB),
        _one("optical-reflectance", *_RGB),
        _one("optical-reflectance", *_WITH_NIR),
        _one("optical-uncalibrated", *_RGB, weight=2.0),
        _one("optical-uncalibrated", *_WITH_NIR, weight=0.5),
        _one("optical-uncalibrated-16bit", *_RGB, weight=0.5),
        _one("landsat-c2-l2", *_RGB, weight=0.5),
    ),
    "multispectral": (
        _one("sentinel-2-l2a", weight=3.0),
        _one("sentinel-2-l1c", weight=1.5),
        _one("landsat-c2-l2", weight=1.5),
        _one("landsat-c2-l1", weight=0.5),
        _one("hyperspectral", weight=0.25),
    ),
    "sar": (
        _one("sentinel-1-db", weight=1.5),
        _one("sentinel-1-rtc", weight=1.5),
        _one("sentinel-1-grd"),
        _one("sentinel-1-db", "vv", weight=0.5),
        _one("radar-uncalibrated", weight=0.5),
    ),
    "infrared": (_one("thermal", weight=2.0), _one("thermal-uncalibrated")),
    "temporal": (
        _dated("sentinel-2-l2a", *_RGB),
        _dated("sentinel-2-l2a", dates=(2,)),
        _dated("sentinel-1-rtc"),
        _dated("landsat-c2-l2", *_RGB, weight=0.5),
        _dated("optical-uncalibrated", *_RGB, dates=(2,)),
    ),
    "video": (Sighting(sensors=(("optical-uncalibrated", _RGB),), dates=(4, 6, 8), moving=True),),
    "fusion": (
        Sighting(sensors=(("sentinel-2-l2a", _RGB), ("sentinel-1-rtc", ()))),
        Sighting(sensors=(("sentinel-2-l2a", ()), ("sentinel-1-db", ())), weight=0.5),
        Sighting(sensors=(("sentinel-2-l2a", _RGB), ("thermal", ())), weight=0.5),
    ),
}
"""How each of `earthmap.training.stages.MODALITIES` is seen."""

WORDS = (*CLASSES, *OBJECT_CLASSES)
"""What the shares of a row's blocks are shares of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnRows:
    """Rows of drawn tiles. See `earthmap.training.RowSource`."""

    seed: int
    """Another seed is other ground, other dates and other questions."""
    side_px: int = 128
    """Side of a picture: a multiple of 32."""
    questions: int = 8
    """Questions of a row at most."""
    tasks: tuple[str, ...] = ()
    """Ids in `earthmap.tasks.TASKS` of what is asked; () for all."""

    @property
    def key(self) -> str:
        """See `RowSource`."""
        return content_key("drawn rows", VERSION, self.seed, self.side_px, self.questions, self.tasks)

    def rows(self, table: StageTable, step: int, *, part: int = 0, parts: int = 1) -> list[Row]:
        """See `RowSource`. Whole groups of tiles fall to a worker."""
        number, _ = table.at(step)
        stage, earlier = table.stages[number], table.earlier(number)
        dice = random.Random(f"{self.seed}/{step}")
        groups, tokens = [], 0
        while tokens < stage.tokens:
            modality = dice.choice(earlier if earlier and dice.random() < stage.replay else stage.modalities)
            ways = self._ways(modality)
            sighting, numbers = dice.choices(ways, [sighting.weight for sighting, _ in ways])[0]
            dates = dice.choice(numbers)
            groups.append((modality, sighting, dates, dice.getrandbits(48)))
            tokens += GROUP * (_views(sighting) * dates * VIEW_TOKENS + self.questions * QUESTION_TOKENS)
        return [
            row
            for modality, sighting, dates, seed in groups[part::parts]
            for row in self._some(modality, sighting, dates=dates, seed=seed, mixture=stage.mixture)
        ]

    def _ways(self, modality: str) -> list[tuple[Sighting, tuple[int, ...]]]:
        """How a modality is seen, with the numbers of dates that something can be asked of."""
        asked = {TASKS[task].dates for task in self.tasks or TASKS}
        ways = [
            (way, tuple(dates for dates in way.dates if (0 if way.moving or dates > 2 else dates) in asked))
            for way in SIGHTINGS[modality]
        ]
        if not any(dates for _, dates in ways):
            raise TrainingError(
                f"of {modality} tiles none of {', '.join(self.tasks)} can be asked",
                expected="tasks for as many dates as it shows",
                fix="leave the modality out of the table of stages, or ask more tasks",
            )
        return [(sighting, dates) for sighting, dates in ways if dates]

    def _some(
        self, modality: str, sighting: Sighting, *, dates: int, seed: int, mixture: Mapping[str, float]
    ) -> list[Row]:
        """The rows of one group, on other ground where nothing can be asked of the first: a video may show no ship."""
        grounds = (seed + 256 * again for again in range(TRIES))
        drawn = (list(self.draw(modality, sighting, dates=dates, seed=one, mixture=mixture)) for one in grounds)
        return next((rows for rows in drawn if rows), [])

    def draw(
        self, modality: str, sighting: Sighting, *, dates: int, seed: int, mixture: Mapping[str, float]
    ) -> Iterator[Row]:
        """The rows of one group of tiles; one that nothing can be asked of gives none."""
        sensors = tuple(sensor for sensor, _ in sighting.sensors)
        recipe = plan_tiles(
            np.arange(GROUP) + (seed & ~0xFF),
            side_px=self.side_px,
            dates=dates,
            gsd_m=ground_distances(*sensors),
            moving=sighting.moving,
        )
        tiles = draw_tiles(recipe)
        pictures = [measure(tiles, sensor, bands=bands or None) for sensor, bands in sighting.sensors]
        facts = facts_of(tiles, sensors=sensors)
        shares = {sensor: _block_shares(tiles, facts, sensor) for sensor in sensors}
        for place, fact in enumerate(facts):
            dice = random.Random(f"{seed}/{place}")
            asked = self._asked(fact, dice, mixture)
            if not asked:
                continue
            look = _watch if sighting.moving else _look
            names, shown, seen_by = look(pictures, place, dice)
            yield Row(
                id=f"drawn/{seed}/{place}",
                modality=modality,
                names=names,
                pictures=shown,
                asked=asked,
                classes=WORDS if seen_by else (),
                shares=np.stack([shares[sensor][place, date] for sensor, date in seen_by]) if seen_by else None,
            )

    def _asked(self, facts: Facts, dice: random.Random, mixture: Mapping[str, float]) -> tuple[Asked, ...]:
        """At most `questions` of them, a label each for itself."""
        drawn = ask(facts, count=2 * self.questions, seed=dice.getrandbits(32), mixture=mixture)
        wanted = [one for one in drawn if not self.tasks or one.query.task in self.tasks]
        return tuple(
            itertools.islice((asked for one in wanted for asked in _as_asked(one, facts.gsd_m, dice)), self.questions)
        )


def _views(sighting: Sighting) -> int:
    """Views of one date."""
    return sum(len(sensor_views(sensor, bands or get_sensor(sensor).bands)) for sensor, bands in sighting.sensors)


# ── what is seen ─────────────────────────────────────────────────────────────────────────────────────────────

_FIRST_DAY, _DAYS = dt.datetime(2015, 7, 1, tzinfo=dt.UTC), 4200


_Shown = tuple[tuple[str, ...], "NDArray[np.uint8]", list[tuple[str, int]]]
"""Names, levels, and the sensor and date of each view; none of a video, whose blocks have no shares."""


def _look(pictures: Sequence[Pictures], place: int, dice: random.Random) -> _Shown:
    """(view, 3, y, x) levels in the order in which the predictor has them: date by date, sensor by sensor."""
    count = pictures[0].data.shape[1]
    days = _days(count, dice)
    names, levels, seen_by = [], [], []
    for date in range(count):
        for picture in pictures:
            seen = _valid_share(picture, place, date)
            for view in sensor_views(picture.sensor, picture.bands):
                names.append(picture_name(view, datetime=days[date], seen_share=seen))
                levels.append(_levels(picture, view, place)[date])
                seen_by.append((picture.sensor, date))
    return tuple(names), np.stack(levels), seen_by


def _days(count: int, dice: random.Random) -> list[dt.datetime | None]:
    """The dates of the pictures in their order; a single picture may have none, as photographs do."""
    if count == 1 and dice.random() < 0.2:
        return [None]
    day = _FIRST_DAY + dt.timedelta(days=dice.randrange(_DAYS))
    days: list[dt.datetime | None] = [day]
    for _ in range(count - 1):
        day += dt.timedelta(days=round(3.0 * 300.0 ** dice.random()))
        days.append(day)
    return days


def _valid_share(picture: Pictures, place: int, date: int) -> float:
    import torch

    data = picture.data[place, date]
    shown = torch.isfinite(data).all(dim=0) & (picture.mask[place, date] != int(Reason.NODATA))
    return float(shown.float().mean())


def _levels(picture: Pictures, view: str, place: int) -> NDArray[np.uint8]:
    """(date, 3, y, x) of one tile."""
    one = Pictures(
        sensor=picture.sensor,
        bands=picture.bands,
        data=picture.data[place : place + 1],
        mask=picture.mask[place : place + 1],
    )
    levels: NDArray[np.uint8] = np.moveaxis(draw_views(one, view)[0].numpy(), -1, 1)
    return levels


def _watch(pictures: Sequence[Pictures], place: int, dice: random.Random) -> _Shown:
    """(pair, 2, 3, y, x) levels of the frames of a video two by two."""
    levels = _levels(pictures[0], sensor_views(pictures[0].sensor, pictures[0].bands)[0], place)
    pairs = levels.reshape(-1, FRAMES, *levels.shape[1:])
    names = tuple(frame_name(FRAMES * pair + (FRAMES - 1) / 2) for pair in range(len(pairs)))
    return names, pairs, []


def _block_shares(tiles: Tiles, facts: Sequence[Facts], sensor: str) -> NDArray[np.float32]:
    """(tile, date, block, class) share of what `sensor` sees of each merged block; NaN for what it cannot tell."""
    import torch

    seen = tiles.seen(radar=get_sensor(sensor).is_sar)
    parts = [
        patch_shares(codes * seen, patch_px=UNIT_PX, classes=len(names))
        for codes, names in ((tiles.cover, CLASSES), (tiles.things, OBJECT_CLASSES))
    ]
    whole = patch_shares(seen.to(torch.uint8), patch_px=UNIT_PX, classes=1)
    shares = torch.cat(parts, dim=-3) / whole.clamp(min=1e-6)
    shares = torch.where(whole >= 0.5, shares, torch.nan).flatten(-2).transpose(-1, -2)
    found: NDArray[np.float32] = shares.contiguous().numpy()
    cover, things = told_by((sensor,))
    for tile, fact in enumerate(facts):
        told = [name in cover for name in CLASSES]
        told += [name in things and fact.tellable(name) for name in OBJECT_CLASSES]
        found[tile, ..., ~np.array(told)] = np.nan
    return found


# ── what is asked ────────────────────────────────────────────────────────────────────────────────────────────


def _as_asked(drawn: DrawnQuestion, gsd_m: float, dice: random.Random) -> Iterator[Asked]:
    """A question in the predictor's words, its choices in either order.

    Shares are asked of the heads, never in words. Labels are left out so that "yes" is as likely as "no".
    """
    query, task = drawn.query, TASKS[drawn.query.task]
    if task.answer == "share":
        return
    choices = closed_choices(query)
    choices = choices[::-1] if dice.random() < 0.5 else choices
    prompts: Sequence[str] = (question_prompt(query, choices=choices or None),)
    answers: Sequence[str] = (drawn.answer,)
    if task.scoring == "independent":
        asked = zip(label_questions(query, choices=choices), drawn.labels, strict=True)
        fair = [
            (prompt, there) for prompt, (name, there) in asked if is_fair(name, there=there, gsd_m=gsd_m, dice=dice)
        ]
        prompts = [prompt for prompt, _ in fair]
        answers = [YES_NO[0] if there else YES_NO[1] for _, there in fair]
    for prompt, answer in zip(prompts, answers, strict=True):
        yield Asked(
            question=prompt,
            answer=answer,
            category=drawn.category,
            choices=choices,
            task=query.task,
            spatial=query.shape is not None,
        )
