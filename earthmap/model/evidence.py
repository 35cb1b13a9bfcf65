"""What a card keeps of held-out scenes beside its figures: how wrong maps were, and how sure the model may call itself.

A scene here is a block: one place, whatever its number of tiles and dates, for what is wrong in one tile of a picture
is wrong in the next one too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from earthmap.errors import BadRequestError, ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneErrors:
    """Pixels of one held-out scene by what the predictor and the label say of one class."""

    scene: str
    """The place: all of its tiles and dates together."""
    sensor: str
    """Id in `earthmap.sensors.SENSORS`."""
    target: str
    """The class."""
    hits: int
    misses: int
    false_alarms: int
    rejections: int
    """Neither mapped nor labelled as it."""
    data: str
    """What the scene is, and who says what is true of it."""

    def __post_init__(self) -> None:
        if min(self.hits, self.misses, self.false_alarms, self.rejections) < 0:
            raise BadRequestError(f"{self.scene} has a count below nought", expected="numbers of pixels")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A loss before and after a temperature."""

    before: float
    after: float
    low: float
    """Lower end of the 95 % interval of after − before."""
    high: float
    """Upper end of the 95 % interval of after − before."""

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.before, self.after, self.low, self.high))) or self.low > self.high:
            raise ModelError("a change of a loss is no number", expected="finite numbers, the interval in order")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Answers of about one stated probability."""

    stated: float
    """Their mean probability."""
    right: int
    """How many are right."""
    answers: int

    def __post_init__(self) -> None:
        if not (0 <= self.stated <= 1 and 0 <= self.right <= self.answers and self.answers):
            raise ModelError(
                f"{self.right} of {self.answers} answers of probability {self.stated} are right",
                expected="a probability, and one answer or more",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The temperature of a task's probabilities, fitted on held-out scenes, and what it does on others of them."""

    task: str
    """Id in `earthmap.tasks.TASKS`."""
    sensor: str | None
    """Id in `earthmap.sensors.SENSORS`, fused ones joined by `+`; None for all others."""
    temperature: float
    """Logarithms of probabilities are divided by it; above 1 the model was too sure of itself."""
    domain: str
    """The scenes that it was fitted and tested on."""
    fitted: int
    """Answers that it was fitted on."""
    tested: int
    """Answers of other places, which all figures are of."""
    places: int
    """How many these are."""
    log_loss: Change
    error: Change
    """Expected calibration error: how far stated probabilities are from the share that is right, on average."""
    before: tuple[Bin, ...]
    after: tuple[Bin, ...]

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ModelError(f"a temperature of {self.temperature} for {self.task}", expected="a number above 0")
        if min(self.fitted, self.tested, self.places) < 1:
            raise ModelError(f"a temperature for {self.task} from nothing", expected="one answer or more")
