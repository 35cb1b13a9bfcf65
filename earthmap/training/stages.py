"""PCMA (progressive cross-modality adaptation) as data: which modalities a model learns in which order, and how.

The table is a YAML file, one row a stage. The paper (Cai et al., arXiv 2606.10819) goes from natural pictures to
optical ones from above (the viewpoint gap), then to sensors that image otherwise (the gap of physics); its mixtures and
rates are not public, the default table's are ours. `nano` is trained from nothing, so that its first stage tests no
viewpoint gap.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import pydantic

from earthmap.content import content_key
from earthmap.errors import TrainingError
from earthmap.tasks import CATEGORIES

MODALITIES = ("optical", "sar", "infrared", "multispectral", "temporal", "video", "fusion")
"""What a training row shows: the six modalities of the model, and several sensors of one place together."""

GROUPS = ("patch_embedding", "vision_blocks", "mergers", "deepstack_mergers", "decoder", "alignment_heads")
"""Parts of the model with a learning rate of their own; a part without one is frozen."""

DEFAULT_TABLE = "pcma.yaml"
"""The table that is used where none is given, beside this module."""

MAX_TABLE_BYTES = 1_000_000

OWN_RATE = 1e-4
"""Peak rate at which a small model, or adapters of a large one, learn from somebody's own data: a tenth of what `nano`
began with. All of a `2b` wants a tenth of this again."""

_OWN_TOKENS = 8_192
_OWN_WARMUP = 0.05
"""Share of the steps."""

Rate = Annotated[float, pydantic.Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Weight = Annotated[float, pydantic.Field(ge=0.0, le=1e6, allow_inf_nan=False)]
Count = Annotated[int, pydantic.Field(gt=0, le=10**9)]


class Stage(pydantic.BaseModel):
    """One row of the table."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    name: str = pydantic.Field(min_length=1, max_length=64)
    modalities: tuple[str, ...] = pydantic.Field(min_length=1)
    """What its new rows show; some of MODALITIES."""
    mixture: dict[str, Weight] = pydantic.Field(default_factory=lambda: dict.fromkeys(CATEGORIES, 1.0))
    """Weight of each task category among the questions; a category that is not named is not asked."""
    rates: dict[str, Rate]
    """Peak learning rate of each of GROUPS that learns; the others are frozen."""
    alignment_weight: Weight = 0.0
    """Weight of FGVLA's loss beside that of the answers; zero turns it off."""
    replay: float = pydantic.Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the rows that are drawn from earlier stages' modalities."""
    steps: Count
    """Optimiser steps."""
    tokens: Count
    """Tokens of one step, pictures and words together, about."""
    warmup: int = pydantic.Field(default=0, ge=0)
    """Steps over which the rates rise from zero; after them they fall along a half cosine to zero."""

    @pydantic.field_validator("modalities", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @pydantic.model_validator(mode="after")
    def _known(self) -> Stage:
        for names, known, what in (
            (self.modalities, MODALITIES, "modality"),
            (self.rates, GROUPS, "group"),
            (self.mixture, CATEGORIES, "task category"),
        ):
            unknown = [name for name in names if name not in known]
            if unknown:
                raise ValueError(f"{unknown[0]!r} is no {what}; there are {', '.join(known)}")
        if len(set(self.modalities)) != len(self.modalities):
            raise ValueError("a modality is named twice")
        if not any(self.rates.values()):
            raise ValueError("nothing learns: every rate is zero")
        if not any(self.mixture.values()):
            raise ValueError("nothing is asked: every weight of the mixture is zero")
        if self.warmup > self.steps:
            raise ValueError(f"a warm-up of {self.warmup} of {self.steps} steps")
        return self


class StageTable(pydantic.BaseModel):
    """All stages, in the order in which they are learned."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    stages: tuple[Stage, ...]

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> StageTable:
        if not self.stages:
            raise ValueError("a table of no stages")
        names = [stage.name for stage in self.stages]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two stages are named {twice!r}")
        if self.stages[0].replay:
            raise ValueError(f"the first stage, {names[0]!r}, has nothing to replay")
        return self

    @property
    def steps(self) -> int:
        """Of all stages."""
        return sum(stage.steps for stage in self.stages)

    def at(self, step: int) -> tuple[int, int]:
        """Number of the stage that step `step` (from 0) belongs to, and its number within the stage.

        Raises TrainingError for a step beyond the last.
        """
        first = 0
        for number, stage in enumerate(self.stages):
            if step < first + stage.steps:
                return number, step - first
            first += stage.steps
        raise TrainingError(f"step {step}", expected=f"one of 0 to {self.steps - 1}")

    def earlier(self, number: int) -> tuple[str, ...]:
        """The modalities that stages before `number` learned and it does not: what it replays."""
        own = self.stages[number].modalities
        seen = [name for stage in self.stages[:number] for name in stage.modalities if name not in own]
        return tuple(dict.fromkeys(seen))

    def content_key(self) -> str:
        """The same for equal tables, whatever their file looks like."""
        return content_key("stages", self.model_dump(mode="json"))

    def differences(self, other: StageTable) -> list[str]:
        """What is not the same, a line each: `sar.steps: 2000 → 3000`."""
        mine, theirs = ({stage.name: stage.model_dump(mode="json") for stage in one.stages} for one in (self, other))
        lines = [f"stage {name} is gone" for name in mine if name not in theirs]
        lines += [f"stage {name} is new" for name in theirs if name not in mine]
        for name in mine:
            for key, value in mine[name].items():
                if name in theirs and theirs[name][key] != value:
                    lines.append(f"{name}.{key}: {value} → {theirs[name][key]}")
        if not lines and list(mine) != list(theirs):
            lines = [f"order: {', '.join(mine)} → {', '.join(theirs)}"]
        return lines


def rate_at(stage: Stage, step: int) -> float:
    """Share of the peak rates at a step of a stage: a linear rise, then half a cosine down to zero."""
    import math

    if step < stage.warmup:
        return (step + 1) / stage.warmup
    way = (step - stage.warmup) / max(1, stage.steps - stage.warmup)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, way)))


def parse_table(text: str, *, source: str) -> StageTable:
    """The table of a YAML text; `source` is what messages call it.

    Raises:
        TrainingError: with every fault by name: an unknown group, modality or key, a negative rate, no steps.
    """
    import yaml

    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a day 99, a number of 5,000 digits, 5,000 brackets
        raise TrainingError(f"{source} is not YAML: {error}", expected="a table of stages") from error
    if not isinstance(content, Mapping):
        raise TrainingError(f"{source} holds {type(content).__name__}", expected="a mapping with the key `stages`")
    try:
        return StageTable.model_validate(content)
    except pydantic.ValidationError as error:
        faults = [f"{_place(fault['loc'])}: {fault['msg'].removeprefix('Value error, ')}" for fault in error.errors()]
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise TrainingError(
            f"{source}: {'; '.join(faults[:5])}{more}",
            expected=f"stages with name, modalities ({', '.join(MODALITIES)}), rates by group ({', '.join(GROUPS)}), "
            "steps and tokens",
            fix="see earthmap/training/pcma.yaml for a table that works",
        ) from error


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location) or "the table"


def load_table(path: str | Path) -> StageTable:
    """The table of a file. Raises TrainingError where it cannot be read or is none."""
    file = Path(path)
    try:
        if file.stat().st_size > MAX_TABLE_BYTES:
            raise TrainingError(f"{file} has {file.stat().st_size} bytes", expected=f"at most {MAX_TABLE_BYTES}")
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{file} cannot be read: {error}", expected="a YAML file with a table of stages") from error
    return parse_table(text, source=str(file))


def own_table(steps: int, *, rate: float = OWN_RATE) -> StageTable:
    """One stage of so many steps for a model that knows something, on data of whatever modalities there are.

    Patch embeddings stay as they are: what a pixel means is not learned from a few places. Raises TrainingError.
    """
    rates = {group: rate for group in GROUPS if group != "patch_embedding"}
    stage = {
        "name": "own", "modalities": MODALITIES, "rates": rates, "alignment_weight": 0.5, "steps": steps,
        "tokens": _OWN_TOKENS, "warmup": int(steps * _OWN_WARMUP),
    }  # fmt: skip
    try:
        return StageTable.model_validate({"stages": [stage]})
    except pydantic.ValidationError as error:
        raise TrainingError(
            f"one stage of {steps} steps at the rate {rate:g}", expected="1 step or more, and a rate from 0 to 1"
        ) from error


@lru_cache(maxsize=1)
def default_table() -> StageTable:
    """The table beside this module."""
    text = resources.files("earthmap.training").joinpath(DEFAULT_TABLE).read_text(encoding="utf-8")
    return parse_table(text, source=DEFAULT_TABLE)
