"""The spectral predictor: land cover from published indices and backscatter thresholds, without learning.

The rules are the table in `earthmap.predict.rules`. The whole picture is filtered and the core is answered, and every
operation looks at a fixed neighbourhood, so that an answer does not depend on where tiles begin. Thresholds give no
probability: answers have none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from earthmap.content import content_key
from earthmap.predict.descriptor import describe
from earthmap.predict.filters import mean_filter
from earthmap.predict.protocol import Picture, TileInput
from earthmap.predict.rules import (
    BAND_NAMES,
    PRECEDENCE,
    REFLECTANCE,
    RULES,
    SAR,
    SYMBOLS,
    UNCALIBRATED,
    UNCALIBRATED_SAR,
    Condition,
    Rule,
    rules_for,
    why_not,
)
from earthmap.predict.vectors import little_seen, vector_answer
from earthmap.sensors.masks import Reason, unseen
from earthmap.sensors.registry import SENSORS
from earthmap.tasks.answer import UNSEEN, Answer
from earthmap.tasks.query import Query, beyond_land_cover, mask_legend
from earthmap.tasks.registry import TASKS

if TYPE_CHECKING:
    from types import CodeType

    from numpy.typing import NDArray

VERSION = "3"
"""Raised when anything but the rules changes an answer."""

MIN_PRESENCE_PX = 4
"""A target is present where a group of so many pixels, joined by sides or corners, reaches into the core. Smaller
groups are noise more often than ground; no halo is so narrow (8 pixels) that it would cut one."""

REFLECTANCE_FLOOR = np.float32(1e-4)
"""Atmospheric correction leaves dark water below zero, where ratios run wild: one stored step of Sentinel-2."""


@dataclass(frozen=True, slots=True)
class _Skip:
    """Why a query is not answered on these pictures."""

    reason: str
    message: str


def _kind(picture: Picture) -> str:
    sensor = SENSORS[picture.sensor]
    if sensor.is_sar:
        return SAR if sensor.calibrated else UNCALIBRATED_SAR
    return REFLECTANCE if sensor.calibrated else UNCALIBRATED


@cache
def _formula(index: str) -> CodeType:
    """What `spyndex.computeIndex` evaluates, without reading the definitions of all indices each time."""
    import spyndex

    return compile(spyndex.indices[index].formula, index, "eval")


class _Look:
    """One picture under the rules: bands, indices and hits, each computed once for all queries."""

    def __init__(self, picture: Picture, bands: Sequence[str]) -> None:
        """`bands` are those that the pictures of all dates have: one rule answers for all of them."""
        self.picture = picture
        self.kind = _kind(picture)
        self.rules = rules_for(self.kind, bands)
        self.bands = tuple(bands)
        self._bands: dict[tuple[str, int], NDArray[np.float32]] = {}
        self._values: dict[tuple[str, int], NDArray[np.float32]] = {}
        self._hits: dict[str, NDArray[np.bool_]] = {}

    def band(self, symbol: str, mean_px: int = 1) -> NDArray[np.float32]:
        key = (symbol, mean_px)
        if key not in self._bands:
            name = next(name for name in BAND_NAMES[symbol] if name in self.bands)
            image = self.picture.data[self.picture.bands.index(name)]
            if self.kind == REFLECTANCE:
                image = np.maximum(image, REFLECTANCE_FLOOR)  # NaN stays NaN
            self._bands[key] = image if mean_px == 1 else mean_filter(image, mean_px)
        return self._bands[key]

    def _value(self, index: str, mean_px: int) -> NDArray[np.float32]:
        key = (index, mean_px)
        if key not in self._values:
            bands = {symbol: self.band(symbol, mean_px) for symbol in SYMBOLS[index]}
            with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
                if self.kind == SAR:
                    self._values[key] = np.float32(10) * np.log10(bands[index])
                elif index in bands:
                    self._values[key] = bands[index]
                else:
                    self._values[key] = eval(_formula(index), {}, bands)
        return self._values[key]

    def _holds(self, condition: Condition, mean_px: int) -> NDArray[np.bool_]:
        value, threshold = self._value(condition.index, mean_px), np.float32(condition.threshold)
        result: NDArray[np.bool_] = value > threshold if condition.above else value < threshold
        return result

    def _fits(self, rule: Rule) -> NDArray[np.bool_]:
        join = np.logical_or if rule.kind == SAR else np.logical_and
        masks = [self._holds(condition, rule.mean_px) for condition in rule.conditions]
        result: NDArray[np.bool_] = join.reduce(masks)
        return result

    def hits(self, target: str) -> NDArray[np.bool_]:
        """(y, x): the target and nothing that comes before it."""
        if target not in self._hits:
            fits = self._fits(self.rules[target])
            for earlier in PRECEDENCE[: PRECEDENCE.index(target)]:
                if earlier in self.rules:
                    fits = fits & ~self.hits(earlier)
            self._hits[target] = fits
        return self._hits[target]

    def finite(self, targets: Sequence[str]) -> NDArray[np.bool_]:
        """(y, x): every band that these targets' rules need was measured."""
        symbols = {symbol for target in targets for symbol in self.rules[target].symbols}
        result: NDArray[np.bool_] = np.logical_and.reduce([np.isfinite(self.band(each)) for each in sorted(symbols)])
        return result


def _checked(item: TileInput) -> str | None:
    """What is wrong with the pictures, or None."""
    for picture in item.pictures:
        if picture.sensor not in SENSORS:
            return f"there is no sensor {picture.sensor!r}; expected one of {', '.join(SENSORS)}"
    return item.fault


def _answerable(looks: Sequence[_Look], query: Query) -> tuple[tuple[str, ...], tuple[str, ...]] | _Skip:
    """Targets that can be answered, and notes on those that cannot; or why none can.

    A mask of several targets is given for those that can be told; yes, no and shares only for all together.
    """
    first = looks[0]
    targets = tuple(target for target in query.targets if target in first.rules)
    missing = [target for target in query.targets if target not in first.rules]
    reasons = [why_not(target, first.kind, first.bands) for target in missing]
    if missing and (not targets or query.task in ("presence", "fraction")):
        return _Skip(*reasons[0])
    notes = [f"{target} not answered: {reason}" for target, (reason, _) in zip(missing, reasons, strict=True)]
    return targets, tuple(notes)


def _seen(looks: Sequence[_Look], targets: Sequence[str], query: Query) -> NDArray[np.bool_]:
    """(y, x): seen on every date."""
    each = [look.finite(targets) & ~unseen(look.picture.mask, query.unseen) for look in looks]
    result: NDArray[np.bool_] = np.logical_and.reduce(each)
    return result


def _why_unseen(looks: Sequence[_Look], query: Query, core: tuple[slice, slice]) -> _Skip:
    """The most frequent reason why no core pixel could be seen."""
    counts: dict[str, int] = {}
    for look in looks:
        mask = look.picture.mask[core]
        named = np.zeros(mask.shape, bool)
        for name in query.unseen:
            hidden = unseen(mask, (name,))
            counts[name] = counts.get(name, 0) + int(hidden.sum())
            named |= hidden
        missing = ~np.isfinite(look.picture.data[(slice(None), *core)]).all(axis=0)
        counts["nodata"] = counts.get("nodata", 0) + int((missing & ~named).sum())
    reason = max(sorted(counts), key=lambda name: counts[name])
    return _Skip(reason, f"no pixel of the core could be seen; {counts[reason]} pixels are {reason}")


def _notes(looks: Sequence[_Look], targets: Sequence[str], seen_core: NDArray[np.bool_], item: TileInput) -> list[str]:
    """What a reader should know of the answer, sorted apart from the rules, which come first."""
    notes = [looks[0].rules[target].text for target in targets]
    each = [set(np.unique(look.picture.mask[item.core][seen_core]).tolist()) for look in looks]
    bare = [codes == {int(Reason.UNKNOWN)} for codes in each]  # a scene with a mask may leave a few pixels unclassed
    masked = set().union(*(codes for codes, alone in zip(each, bare, strict=True) if not alone))
    names = sorted(reason.label for reason in Reason if int(reason) in masked)
    notes += [f"{name} counted as seen" for name in names if name not in ("clear", "nodata")]
    if any(bare) and looks[0].kind != SAR:
        notes.append("no cloud mask")
    if looks[0].kind == UNCALIBRATED:
        notes.append("uncalibrated")
    return notes


def _present(hits: NDArray[np.bool_], core: tuple[slice, slice]) -> bool:
    from skimage.measure import label

    if not hits[core].any():
        return False
    groups = label(hits, connectivity=2)  # type: ignore[no-untyped-call]
    sizes = np.bincount(groups.ravel())
    sizes[0] = 0  # the background
    return bool((sizes[np.unique(groups[core])] >= MIN_PRESENCE_PX).any())


def _codes(looks: Sequence[_Look], targets: Sequence[str], query: Query) -> NDArray[np.uint8]:
    """(y, x) codes of `mask_legend`. Where one target became another, the change of the one named first is drawn,
    whichever way it is: dates that are swapped give the same ground, gained for lost."""
    names = {name: code for code, name in mask_legend(query).items()}
    codes = np.zeros(looks[0].picture.mask.shape, np.uint8)
    if query.task == "segment":
        for target in targets:
            codes[looks[0].hits(target)] = names[target]
        return codes
    before, after = looks
    for target in reversed(targets):
        codes[before.hits(target) & ~after.hits(target)] = names[f"{target} lost"]
        codes[after.hits(target) & ~before.hits(target)] = names[f"{target} gained"]
    return codes


def _mask_answer(codes: NDArray[np.uint8], seen: NDArray[np.bool_], query: Query, notes: Sequence[str]) -> Answer:
    """The answer of a mask task from the core's codes."""
    counts = np.bincount(codes[seen], minlength=UNSEEN + 1)[:UNSEEN]
    legend = mask_legend(query)
    largest = int(counts[1:].argmax()) + 1  # of equal ones the first
    return Answer(
        status="answered",
        value=legend[largest] if counts[largest] else "none",
        fraction=float(counts[1:].sum() / counts.sum()),
        mask=np.where(seen, codes, np.uint8(UNSEEN)),
        legend=legend,
        seen_px=int(seen.sum()),
        notes=tuple(notes),
        orders_agree=1.0 if query.dates == 2 else None,  # by construction
    )


def _scalar_answer(
    hits: NDArray[np.bool_], seen: NDArray[np.bool_], core: tuple[slice, slice], query: Query, notes: Sequence[str]
) -> Answer:
    """The answer of `presence` or `fraction` from the whole picture's hits among what is seen."""
    count = int(seen[core].sum())
    fraction = float((hits & seen)[core].sum() / count)
    value = f"{fraction:.4f}"
    if query.task == "presence":
        value = "yes" if _present(hits & seen, core) else "no"
    mask = np.where(seen[core], np.uint8(0), np.uint8(UNSEEN))
    return Answer(status="answered", value=value, fraction=fraction, mask=mask, seen_px=count, notes=tuple(notes))


def _vector(look: _Look, item: TileInput, query: Query) -> Answer:
    """The answer of `embed`: what `earthmap.predict.descriptor` says of the seen core."""
    picture = look.picture
    shown = np.isfinite(picture.data[(slice(None), *item.core)]).any(axis=0)
    seen: NDArray[np.bool_] = shown & ~unseen(picture.mask[item.core], query.unseen)
    if not seen.any():
        skip = _why_unseen([look], query, item.core)
        return Answer(status="skipped", reason=skip.reason, message=skip.message)
    vector = describe(picture, seen, item.core)
    if vector is None:
        message = f"no number can be made of {', '.join(picture.bands)}; expected two optical bands, radar or heat"
        return little_seen(seen) or Answer(status="skipped", reason="missing_band", message=message)
    return little_seen(seen) or vector_answer(vector, seen, notes=_notes([look], (), seen, item))


def _answer(looks: Sequence[_Look], item: TileInput, query: Query) -> Answer:
    is_vector = TASKS[query.task].is_vector
    beyond = None if is_vector else beyond_land_cover(query)
    if beyond:
        return Answer(status="skipped", reason="not_supported", message=beyond)
    if len(looks) != query.dates:
        message = f"{len(looks)} pictures are given; a {query.task} question needs {query.dates}"
        return Answer(status="failed", stage="predict", reason="bad_input", message=message)
    if is_vector:
        return _vector(looks[0], item, query)
    sensors = sorted({look.picture.sensor for look in looks})
    if len(sensors) > 1:
        message = f"the dates are of {' and '.join(sensors)}; a change needs one sensor on both"
        return Answer(status="skipped", reason="unlike_sensors", message=message)
    answerable = _answerable(looks, query)
    if isinstance(answerable, _Skip):
        return Answer(status="skipped", reason=answerable.reason, message=answerable.message)
    targets, left_out = answerable
    core = item.core
    seen = _seen(looks, targets, query)
    if not seen[core].any():
        skip = _why_unseen(looks, query, core)
        return Answer(status="skipped", reason=skip.reason, message=skip.message)
    notes = [*_notes(looks, targets, seen[core], item), *left_out]
    if query.task in ("segment", "change"):
        return _mask_answer(_codes(looks, targets, query)[core], seen[core], query, notes)
    hits = np.logical_or.reduce([looks[0].hits(target) for target in targets])
    return _scalar_answer(hits, seen, core, query, notes)


class SpectralPredictor:
    """Answers by published spectral indices and SAR backscatter thresholds. See `earthmap.predict.Predictor`."""

    @property
    def key(self) -> str:
        """Key of the rules; spyndex's formulas are held by a test, its version does not enter."""
        settings: Mapping[str, object] = {
            "rules": RULES,
            "precedence": PRECEDENCE,
            "bands": BAND_NAMES,
            "presence": MIN_PRESENCE_PX,
        }
        return content_key("spectral", VERSION, settings)

    def predict(self, inputs: Sequence[TileInput], queries: Sequence[Query]) -> list[list[Answer]]:
        """One list for each input, one answer for each query, in order; see `earthmap.predict.Predictor`."""
        return [self._tile(item, queries) for item in inputs]

    def _tile(self, item: TileInput, queries: Sequence[Query]) -> list[Answer]:
        wrong = _checked(item)
        if wrong:
            return [Answer(status="failed", stage="predict", reason="bad_input", message=wrong)] * len(queries)
        first = item.pictures[0].bands if item.pictures else ()
        bands = [band for band in first if all(band in picture.bands for picture in item.pictures)]
        looks = [_Look(picture, bands) for picture in item.pictures]
        return [_answer(looks, item, query) for query in queries]
