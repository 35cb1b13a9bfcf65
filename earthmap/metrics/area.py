"""Areas and accuracies of a map from a labelled stratified random sample (design-based inference).

Point estimates and standard errors are those of Stehman (2014, Int. J. Remote Sens. 35, 4923–4939) for strata that need
not be the map's classes: the area of a class is a stratified mean of an indicator, user's and producer's accuracy are
ratios of two. Where the strata are the classes they are those of Olofsson et al. (2014, Remote Sens. Environ. 148,
42–57). Variances have the finite population correction, so that ground that is labelled whole leaves no doubt.

Intervals are not value ± 1.96 standard errors: where a stratum of much ground shows no error among a hundred labels,
its standard error is nought and such an interval is too narrow. Each stratum's share has a Jeffreys interval instead
(Brown, Cai and DasGupta 2001, Statistical Science 16, 101–133), and the distances of their ends are put together as
standard errors are (MOVER: Zou, Huang and Zhang 2009, Comput. Stat. Data Anal. 53, 1080–1085); the interval of a ratio
is where part - ratio × whole may be nought (Fieller 1954). With many labels this is the usual interval.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from earthmap.errors import BadRequestError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Booleans = NDArray[np.bool_]

LEVEL = 0.95
"""Of intervals."""

HALVINGS = 40
"""Of [0, 1], to find where an interval of a ratio ends."""

NOTHING = -1
"""Position of no class: a label "cannot tell", or ground that the map says nothing about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratum:
    """Ground from which units were drawn by themselves."""

    name: str
    area: float
    """Of its units together, in any unit of area."""
    size: int
    """How many units it has."""
    mapped: Mapping[str, float] = field(default_factory=dict)
    """Its area by the map's class; empty where the map says nothing about it."""

    def __post_init__(self) -> None:
        if self.area <= 0 or self.size < 1:
            raise BadRequestError(
                f"the stratum {self.name} has {self.size} units of {self.area:g} together", expected="one at least"
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledSample:
    """Units of a stratified random sample with their labels. Positions are those in `classes` and `strata`."""

    classes: tuple[str, ...]
    strata: tuple[Stratum, ...]
    stratum: NDArray[np.int64]
    """(unit,) position of the stratum."""
    mapped: NDArray[np.int64]
    """(unit,) position of what the map says; NOTHING where it says nothing."""
    label: NDArray[np.int64]
    """(unit,) position of the label; NOTHING where it is "cannot tell"."""
    weight: Floats
    """(unit,) area of the unit over the probability with which it was drawn."""

    def __post_init__(self) -> None:
        columns = (self.stratum, self.mapped, self.label, self.weight)
        if len({column.shape for column in columns}) != 1 or self.stratum.ndim != 1:
            raise BadRequestError("columns of unequal lengths", expected="one number of each for each unit")
        for what, column, count in (
            ("stratum", self.stratum, len(self.strata)),
            ("mapped class", self.mapped, len(self.classes)),
            ("label", self.label, len(self.classes)),
        ):
            low = 0 if what == "stratum" else NOTHING
            if len(column) and not (low <= column.min() and column.max() < count):
                raise BadRequestError(f"a {what} that is none of {count}", expected=f"{low} to {count - 1}")
        if not (np.isfinite(self.weight).all() and (self.weight > 0).all()):
            raise BadRequestError("a weight that is not positive", expected="the area that a unit stands for")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """An estimate with its standard error and 95 % interval."""

    value: float
    se: float | None
    """None where a stratum has one label, which tells nothing about how labels vary."""
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassEstimate:
    """What the sample says of one class."""

    name: str
    mapped: float
    """Area that the map gives it."""
    area: Figure
    """Error-adjusted, of the ground that was sampled and labelled."""
    bounds: tuple[float, float]
    """The interval with all other ground: none of it is this class, or all."""
    undecided: tuple[float, float]
    """The area if no label "cannot tell" is this class, and if all are."""
    users: Figure | None
    """Share of what is mapped as this class that is; None where nothing is. Of ground that was mapped."""
    producers: Figure | None
    """Share of this class that is mapped as it; None where no label is. Of ground that was mapped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StratumCount:
    """How much of a stratum was labelled."""

    name: str
    area: float
    size: int
    labelled: int
    cannot_tell: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaEstimate:
    """What a labelled sample says of a map."""

    total: float
    """Area of all ground in question."""
    estimated: float
    """Area of the strata that have labels."""
    classes: tuple[ClassEstimate, ...]
    overall: Figure | None
    """Share of the mapped ground whose class is right; None where none of it was labelled."""
    constant: tuple[str, float] | None
    """The class that is most of the mapped ground, and the overall accuracy of a map that says nothing else."""
    strata: tuple[StratumCount, ...]
    notes: tuple[str, ...]
    """What a reader should know of the labels."""


@dataclass(frozen=True, slots=True)
class _Shares:
    """What the labels of each stratum come to; only strata with labels. H strata."""

    area: Floats
    """(H,)"""
    count: Floats
    """(H,) labels."""
    fraction: Floats
    """(H,) share of the stratum's units that have one."""
    owner: NDArray[np.int64]
    """(unit,) position in these arrays."""
    weight: Floats
    """(unit,)"""

    def sums(self, values: Booleans | Floats) -> Floats:
        """(H,) sums of (unit,) values."""
        return np.asarray(np.bincount(self.owner, values, len(self.area)), np.float64)

    def means(self, values: Booleans | Floats) -> Floats:
        """(H,) weighted means of (unit,) values; exactly 1 where all are."""
        return self.sums(self.weight * values) / self.sums(self.weight)

    @property
    def effective(self) -> Floats:
        """(H,) labels of equal weight that tell as much (Kish 1965)."""
        return self.sums(self.weight) ** 2 / self.sums(self.weight**2)

    def variance(self, values: Booleans | Floats) -> float | None:
        """Of Σ area · mean; None where a stratum has a single label and more than one unit."""
        if ((self.count < 2) & (self.fraction < 1)).any():
            return None
        rest = self.weight * (values * 1.0 - self.means(values)[self.owner])
        spread = self.sums(rest**2) / self.sums(self.weight) ** 2
        return float((self.area**2 * (1 - self.fraction) * spread * self.count / np.maximum(self.count - 1, 1)).sum())

    def reach(self, shares: Floats, possible: Booleans) -> tuple[Floats, Floats]:
        """(H,) how far below and above `shares` those of the whole strata may lie; 0 where nothing else is possible."""
        from scipy.special import betaincinv

        tail = (1 - LEVEL) / 2
        number = self.effective
        yes, no = number * shares + 0.5, number * (1 - shares) + 0.5
        low = np.where(shares <= 0, 0.0, betaincinv(yes, no, tail))
        high = np.where(shares >= 1, 1.0, betaincinv(yes, no, 1 - tail))
        scale = np.where(possible, np.sqrt(1 - self.fraction), 0.0)
        return scale * np.maximum(shares - low, 0), scale * np.maximum(high - shares, 0)


def estimate_areas(sample: LabelledSample) -> AreaEstimate:
    """Error-adjusted areas and accuracies, each with a standard error and a 95 % interval.

    Labels "cannot tell" count for nothing but `undecided`. A stratum without labels has no part in an estimate, only in
    `bounds`, and is named in `notes`.

    Raises:
        BadRequestError: where no unit has a label.
    """
    told = sample.label != NOTHING
    if not told.any():
        raise BadRequestError("no unit has a label", expected="one at least that is not `cannot tell`")
    shares, _ = _shares(sample, told)
    total = sum(stratum.area for stratum in sample.strata)
    rest = total - float(shares.area.sum())
    on_map = _OnMap.of(sample, told)
    counts = _counts(sample, told)
    classes = []
    for position, name in enumerate(sample.classes):
        area = _area(shares, sample.label[told] == position)
        users, producers = on_map.ratios(sample, position) if on_map else (None, None)
        classes.append(
            ClassEstimate(
                name=name,
                mapped=sum(stratum.mapped.get(name, 0.0) for stratum in sample.strata),
                area=area,
                bounds=(area.low, area.high + rest),
                undecided=_undecided(sample, position),
                users=users,
                producers=producers,
            )
        )
    return AreaEstimate(
        total=total,
        estimated=total - rest,
        classes=tuple(classes),
        overall=on_map.overall() if on_map else None,
        constant=on_map.constant(sample.classes) if on_map else None,
        strata=counts,
        notes=_notes(counts),
    )


def _shares(sample: LabelledSample, chosen: Booleans) -> tuple[_Shares, NDArray[np.int64]]:
    """The strata that have a chosen unit, and their positions."""
    used, owner = np.unique(sample.stratum[chosen], return_inverse=True)
    count = np.bincount(owner).astype(np.float64)
    area = np.array([sample.strata[index].area for index in used])
    size = np.array([sample.strata[index].size for index in used], np.float64)
    return _Shares(area, count, np.minimum(count / size, 1.0), owner.astype(np.int64), sample.weight[chosen]), used


def _area(shares: _Shares, yes: Booleans) -> Figure:
    """Area of what `yes` says of the labelled units."""
    mean = shares.means(yes)
    value = float((shares.area * mean).sum())
    below, above = (float(np.hypot.reduce(shares.area * far)) for far in shares.reach(mean, np.ones(len(mean), bool)))
    variance = shares.variance(yes)
    se = None if variance is None else float(np.sqrt(variance))
    return Figure(value=value, se=se, low=max(value - below, 0.0), high=min(value + above, float(shares.area.sum())))


@dataclass(frozen=True, slots=True)
class _OnMap:
    """The labelled units of ground about which the map says something."""

    shares: _Shares
    used: NDArray[np.int64]
    """(H,) positions of its strata."""
    label: NDArray[np.int64]
    mapped: NDArray[np.int64]

    @classmethod
    def of(cls, sample: LabelledSample, told: Booleans) -> _OnMap | None:
        """Those that have a label; None where there is no such unit."""
        says = np.array([bool(stratum.mapped) for stratum in sample.strata])
        chosen = told & says[sample.stratum]
        if not chosen.any():
            return None
        return cls(*_shares(sample, chosen), sample.label[chosen], sample.mapped[chosen])

    def overall(self) -> Figure:
        """Overall accuracy."""
        right = _area(self.shares, self.label == self.mapped)
        whole = float(self.shares.area.sum())
        se = None if right.se is None else right.se / whole
        return Figure(value=right.value / whole, se=se, low=right.low / whole, high=right.high / whole)

    def constant(self, classes: Sequence[str]) -> tuple[str, float]:
        """The best class to say everywhere, and how much of the ground it is."""
        means = [self.shares.means(self.label == position) for position in range(len(classes))]
        parts = [float((self.shares.area * mean).sum()) for mean in means]
        best = int(np.argmax(parts))
        return classes[best], parts[best] / float(self.shares.area.sum())

    def ratios(self, sample: LabelledSample, position: int) -> tuple[Figure | None, Figure | None]:
        """User's and producer's accuracy of one class."""
        label, mapped = self.label == position, self.mapped == position
        name = sample.classes[position]
        # What a stratum can hold is known from the map, whatever its few labels show.
        areas = [sample.strata[index].mapped for index in self.used]
        own = np.array([area.get(name, 0.0) > 0 for area in areas])
        other = np.array([any(value > 0 for key, value in area.items() if key != name) for area in areas])
        users = _ratio(self.shares, label & mapped, mapped & ~label, (own, own))
        producers = _ratio(self.shares, label & mapped, label & ~mapped, (own, other))
        return users, producers


def _ratio(shares: _Shares, part: Booleans, rest: Booleans, possible: tuple[Booleans, Booleans]) -> Figure | None:
    """Area of `part` over that of part and rest together; None where no labelled unit is of either.

    Args:
        shares: the strata.
        part: (unit,).
        rest: (unit,) nothing of the part.
        possible: (H,) each, whether a stratum can hold any of the part and of the rest.
    """
    inside, beside = shares.means(part), shares.means(rest)
    part_area, rest_area = float((shares.area * inside).sum()), float((shares.area * beside).sum())
    whole = part_area + rest_area
    if whole <= 0:
        return None
    value = part_area / whole
    reach = (shares.reach(inside, possible[0]), shares.reach(beside, possible[1]))
    together = _correlation(inside, beside)

    def beyond(ratio: float, *, side: int) -> float:
        """Whether part - ratio × (part + rest) may be nought: its value with the far end on one side."""
        one, other = (1 - ratio) * reach[0][side], ratio * reach[1][1 - side]
        square = one**2 + other**2 - 2 * together * one * other
        far = float(np.sqrt((shares.area**2 * np.maximum(square, 0)).sum()))
        return (1 - ratio) * part_area - ratio * rest_area + (far if side else -far)

    low = _root(partial(beyond, side=0), 0.0, value)
    high = _root(partial(beyond, side=1), value, 1.0)
    variance = shares.variance(part * 1.0 - value * (part | rest))
    se = None if variance is None else float(np.sqrt(variance)) / whole
    return Figure(value=value, se=se, low=low, high=high)


def _correlation(one: Floats, other: Floats) -> Floats:
    """Of the shares of two outcomes that exclude each other, drawn from the same units."""
    only = one + other >= 1 - 1e-12
    spread = np.where(only, 1.0, (1 - one) * (1 - other))
    return np.where(only, -1.0, -np.sqrt(one * other / spread))


def _root(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a function that falls from the first to the second number is nought."""
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2


def _undecided(sample: LabelledSample, position: int) -> tuple[float, float]:
    """Area of the class if no label "cannot tell" is it, and if all are."""
    shares, _ = _shares(sample, np.ones(len(sample.label), bool))
    sure, unsure = sample.label == position, sample.label == NOTHING
    low = float((shares.area * shares.means(sure)).sum())
    return low, low + float((shares.area * shares.means(unsure)).sum())


def _counts(sample: LabelledSample, told: Booleans) -> tuple[StratumCount, ...]:
    number = len(sample.strata)
    labelled = np.bincount(sample.stratum[told], minlength=number).tolist()
    unsure = np.bincount(sample.stratum[~told], minlength=number).tolist()
    return tuple(
        StratumCount(
            name=stratum.name, area=stratum.area, size=stratum.size, labelled=labelled[index], cannot_tell=unsure[index]
        )
        for index, stratum in enumerate(sample.strata)
    )


def _notes(strata: Sequence[StratumCount]) -> tuple[str, ...]:
    notes = []
    for one in strata:
        if one.labelled == 0:
            notes.append(f"the stratum {one.name} has no label: it is in no estimate, only in the bounds")
        elif one.labelled == 1 and one.size > 1:
            notes.append(f"the stratum {one.name} has one label: there are no standard errors, and intervals are wide")
    unsure = sum(one.cannot_tell for one in strata)
    if unsure:
        notes.append(
            f"{unsure} labels say `cannot tell`: the estimates take that ground to be as the rest of its stratum is"
        )
    return tuple(notes)
