"""The card of a checkpoint: what it was trained on, and what it may answer, in `earthmap.json` beside the weights.

Views are recorded whole, ranges and curves included. A checkpoint whose views are not those of this version is refused:
its pictures would have other levels than those it learned from, and nothing would show it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from earthmap.content import canonical_json
from earthmap.errors import ModelError
from earthmap.grid.tiling import CORE_PX
from earthmap.model.evidence import Calibration, SceneErrors
from earthmap.model.processing import UNIT_PX
from earthmap.sensors.registry import SENSORS, Place
from earthmap.sensors.views import VIEWS, View
from earthmap.tasks.prompts import PROMPT_VERSION

if TYPE_CHECKING:
    from pydantic import TypeAdapter

CARD_FILE = "earthmap.json"
"""Where the card stands in a checkpoint's folder."""

FORMAT = 1
"""Layout of the card; another one is refused."""

_MOST_BYTES = 4_000_000
_FIX = "use the version of earthmap that wrote the checkpoint, or train it again with this one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """How well a task was answered on scenes of a sensor that were held out. A higher score is a better one."""

    task: str
    """Id in `earthmap.tasks.TASKS`."""
    sensor: str
    """Id in `earthmap.sensors.SENSORS`."""
    metric: str
    """What the score is."""
    score: float
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end of its 95 % interval."""
    constant: float
    """Score of the best constant answer on the same tiles."""
    spectral: float | None = None
    """Score of the predictor `spectral` on the same tiles; None where it cannot answer."""
    tiles: int
    """How many it was measured on."""
    data: str
    """What it was measured on."""

    def __post_init__(self) -> None:
        numbers = [self.score, self.low, self.high, self.constant, self.spectral or 0.0]
        if not all(map(math.isfinite, numbers)) or not self.low <= self.score <= self.high or self.tiles < 1:
            found = f"{self.score} in {self.low} to {self.high} on {self.tiles} tiles"
            raise ModelError(
                f"a figure of {self.task} for {self.sensor}: {found}",
                expected="finite numbers, the score inside its interval, and one tile or more",
            )

    @property
    def is_supported(self) -> bool:
        """It beats the best constant answer with 95 % certainty."""
        return self.low > self.constant

    @property
    def is_preferred(self) -> bool:
        """It beats that, and what `spectral` reaches where that can answer, with 95 % certainty."""
        return self.is_supported and (self.spectral is None or self.low > self.spectral)


def _sensor_places() -> dict[str, tuple[Place, ...]]:
    return {row.id: row.places for row in SENSORS.values()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a checkpoint says of itself. One that others made says nothing: the default."""

    preset: str | None = None
    """The size that it was built in, where it was built here."""
    prompt_version: str = PROMPT_VERSION
    """Of the prompts that it was trained and measured with."""
    tile_sizes: tuple[int, ...] = tuple(CORE_PX)
    """Sides in pixels of the pictures that it was trained on."""
    views: Mapping[str, View] = field(default_factory=lambda: dict(VIEWS))
    """Every view by name, with its ranges and curves."""
    places: Mapping[str, tuple[Place, ...]] = field(default_factory=_sensor_places)
    """Which views of a sensor it is given, by the sensor's id."""
    taught: tuple[str, ...] | None = None
    """Ids of the tasks that it was asked as it learned, sorted; None where nobody knows. Others are not asked of it
    unless it was measured to answer them."""
    answers: tuple[Figure, ...] = ()
    """What it was measured to answer on real scenes; what is not there is unvalidated."""
    drawn: tuple[Figure, ...] = ()
    """The same on drawn scenes that were held out: no evidence that it can, but what fails there is not asked."""
    errors: tuple[SceneErrors, ...] = ()
    """How wrong its maps were on real scenes that were held out, scene by scene."""
    calibrations: tuple[Calibration, ...] = ()
    """Temperatures of the probabilities that it states."""
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ModelError(f"a card of format {self.format}", expected=f"format {FORMAT}", fix=_FIX)
        if not self.tile_sizes or any(side < UNIT_PX or side % UNIT_PX for side in self.tile_sizes):
            raise ModelError(f"tile sizes {self.tile_sizes}", expected=f"sides that are multiples of {UNIT_PX}")
        for figures in (self.answers, self.drawn):
            if len({(figure.task, figure.sensor) for figure in figures}) < len(figures):
                raise ModelError("two figures of one task and sensor", expected="one figure of each")
        if len({(row.task, row.sensor) for row in self.calibrations}) < len(self.calibrations):
            raise ModelError("two temperatures of one task and sensor", expected="one temperature of each")
        if len({(row.scene, row.sensor, row.target) for row in self.errors}) < len(self.errors):
            raise ModelError("the errors on a scene are given twice", expected="one entry of each scene and class")

    @property
    def unmeasured(self) -> Card:
        """The same without anything that was measured: what holds of other weights, or is to be measured anew."""
        return replace(self, answers=(), drawn=(), errors=(), calibrations=())

    @property
    def side_px(self) -> int:
        """Side of the pictures that a map cuts for it: the largest tile that it learned from, else the largest."""
        return max(set(CORE_PX) & set(self.tile_sizes), default=max(CORE_PX))

    def figure(self, task: str, sensor: str) -> Figure | None:
        """Its figure for a task and a sensor; None where it was not measured, or not with this version's prompts."""
        return self._of(self.answers, task, sensor)

    def calibration(self, task: str, sensors: Sequence[str]) -> Calibration | None:
        """What its probabilities of a task are tempered by, where these sensors look together: what was fitted for
        them, else for all sensors; None where nothing was, or not with this version's prompts."""
        mine = {row.sensor: row for row in self.calibrations if row.task == task and self._is_current}
        return mine.get("+".join(dict.fromkeys(sensors))) or mine.get(None)

    @property
    def current_errors(self) -> tuple[SceneErrors, ...]:
        """How wrong its maps were on held-out scenes; nothing where that was with other prompts than this version's."""
        return self.errors if self._is_current else ()

    def refusal(self, task: str, sensor: str) -> str | None:
        """Why a task is not asked of a sensor: it beats no constant, or was never taught. None where it may be asked.

        Real scenes decide where they tell; elsewhere drawn ones can refuse a task and never vouch for one. What beats
        no constant for any sensor is asked of none, and what was not measured only where it was taught.
        """
        figure = self._decisive(task, sensor)
        of_task = [row for row in (*self.answers, *self.drawn) if row.task == task and self._is_current]
        measured = [figure] if figure is not None else of_task
        if any(row.is_supported for row in measured):
            return None
        if measured:
            return f"measured on {measured[0].data}, it beats no constant"
        return None if self.taught is None or task in self.taught else "it was not taught to answer that"

    def supports(self, task: str, sensor: str) -> bool:
        """It beats the best constant on real scenes of the sensor, or on drawn ones where no real ones tell."""
        figure = self._decisive(task, sensor)
        return figure is not None and figure.is_supported

    def prefers(self, task: str, sensor: str) -> bool:
        """It answers this better than any constant and than `spectral`, with 95 % certainty on real scenes."""
        figure = self.figure(task, sensor)
        return figure is not None and figure.is_preferred

    @property
    def _is_current(self) -> bool:
        return self.prompt_version == PROMPT_VERSION

    def _decisive(self, task: str, sensor: str) -> Figure | None:
        return self.figure(task, sensor) or self._of(self.drawn, task, sensor)

    def _of(self, figures: tuple[Figure, ...], task: str, sensor: str) -> Figure | None:
        if not self._is_current:
            return None
        return next((row for row in figures if (row.task, row.sensor) == (task, sensor)), None)

    def check_views(self) -> None:
        """Raises ModelError where it was trained on views that this version makes otherwise, or no longer."""
        changed = [name for name, view in self.views.items() if VIEWS.get(name) != view]
        moved = [id for id, places in self.places.items() if id not in SENSORS or SENSORS[id].places != places]
        if changed or moved:
            what = f"on the views {', '.join(changed)}" if changed else f"with the views of {', '.join(moved)}"
            raise ModelError(f"the checkpoint was trained {what} as another version makes them", fix=_FIX)


@cache
def _adapter() -> TypeAdapter[Card]:
    from pydantic import TypeAdapter

    return TypeAdapter(Card)


def read_card(folder: Path) -> Card:
    """What the checkpoint in a folder says of itself; the default card for one that others made.

    Raises:
        ModelError: for a card that is damaged, of another format, or of views that this version makes otherwise.
    """
    from pydantic import ValidationError

    path = folder / CARD_FILE
    if not path.is_file():
        return Card()
    expected = "the card that earthmap writes beside a checkpoint"
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ModelError(f"{path} is over {_MOST_BYTES:,} bytes", expected=expected)
        card = _adapter().validate_json(path.read_bytes(), strict=True, extra="forbid")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"{path} is damaged: {where} {first['msg']}", expected=expected, fix=_FIX) from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}", expected=expected) from error
    card.check_views()
    return card


def write_card(card: Card, folder: Path) -> None:
    """Write the card beside a checkpoint, equal cards in equal bytes."""
    (folder / CARD_FILE).write_bytes(_adapter().dump_json(card, indent=1) + b"\n")


def card_text(card: Card) -> str:
    """The card as one line of JSON, equal for equal cards."""
    return canonical_json(_adapter().dump_python(card, mode="json"))
