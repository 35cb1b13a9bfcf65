"""The numbers of a run: counts, areas and shares, with what was not seen beside them.

Areas are areas of pixels (resolution² / k², k the point scale of the projection), counted where the pixel's centre lies
in the area and on the tile's own ground. km² have four digits after the point, shares four. Each cell has its sums;
those of cells added up in the plan's order are those of the run.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from earthmap.errors import LedgerError
from earthmap.merge.layers import Layer
from earthmap.merge.triaged import describe_triage, triage_counts
from earthmap.tasks import STATUSES, TASKS, Query
from earthmap.tasks.damage import EMS_GRADES, NOT_ANALYSED
from earthmap.tasks.serialization import plain_label

if TYPE_CHECKING:
    from earthmap.grid import AreaOfInterest


_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class TileNumbers:
    """The ground that one answer is about, in m² of its pixels."""

    area_m2: float
    """Of its pixels, counted where the centre lies in the area and on the tile's own ground."""
    seen_m2: float
    """Of its pixels that could be seen."""
    by_answer_m2: Mapping[str, float]
    """Of its pixels by what they are."""


@dataclass(slots=True, kw_only=True)
class LayerSums:
    """Sums over the answers of one layer."""

    task: str
    counts: dict[str, int] = field(default_factory=dict)
    """Answers by status, those that were not answered by status and reason: `failed damaged`."""
    area_m2: float = 0.0
    seen_m2: float = 0.0
    by_answer_m2: dict[str, float] = field(default_factory=dict)
    observations: set[str] = field(default_factory=set)
    times: set[str] = field(default_factory=set)
    """ISO texts of the first and the last time."""
    notes: set[str] = field(default_factory=set)
    yes: int = 0
    """Answers that are yes."""
    tiles_by_answer: dict[str, int] = field(default_factory=dict)
    """Tiles of each choice, or with each label."""
    found: dict[str, int] = field(default_factory=dict)
    """Things by what they are: merged ones, each once."""
    moved: dict[str, int] = field(default_factory=dict)
    """Of what is followed through time, those that moved."""
    stood: dict[str, int] = field(default_factory=dict)
    """Of what is followed through time, those that were seen on several dates in one place."""
    share_m2: float = 0.0
    """Of the answered ground that was seen, what the answers say is of the targets."""
    shared_m2: float = 0.0
    """The answered ground that was seen."""
    alignments: dict[str, int] = field(default_factory=dict)
    """Tiles of a change by how their dates lie on each other."""
    compared_m2: float = 0.0
    """The answered ground of which a change was asked in both orders of its dates."""
    disagreeing_m2: float = 0.0
    """Of that, where the orders disagree."""
    triage: dict[str, int] = field(default_factory=dict)
    """Tiles of a triaged query by what became of them (`earthmap.merge.triaged.triage_counts`)."""

    def add(self, other: LayerSums) -> None:
        """Add what another part of the layer comes to."""
        for name in ("area_m2", "seen_m2", "yes", "share_m2", "shared_m2", "compared_m2", "disagreeing_m2"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        _add(self.counts, other.counts)
        _add(self.by_answer_m2, other.by_answer_m2)
        _add(self.tiles_by_answer, other.tiles_by_answer)
        _add(self.found, other.found)
        _add(self.moved, other.moved)
        _add(self.stood, other.stood)
        _add(self.alignments, other.alignments)
        _add(self.triage, other.triage)
        self.observations |= other.observations
        self.notes |= other.notes
        times = sorted(self.times | other.times, key=datetime.datetime.fromisoformat)
        self.times = {times[0], times[-1]} if times else set()


@dataclass(slots=True)
class Sums:
    """Sums over the answers of a cell, or of many."""

    tiles: int = 0
    seen_m2: float = 0.0
    """Over the tiles, the most that any one observation showed of each."""
    layers: dict[Layer, LayerSums] = field(default_factory=dict)

    def add(self, layer: Layer, row: Mapping[str, Any], numbers: TileNumbers, *, task: str) -> None:
        """Add one answer (a row of `answer_schema`); `tiles` and `seen_m2` are not its concern."""
        status, answered = row["status"], row["status"] == "answered"
        times = {time.isoformat() for time in (row["datetime_min"], row["datetime_max"]) if time is not None}
        weight = numbers.seen_m2 if answered else 0.0
        self.layers.setdefault(layer, LayerSums(task=task)).add(
            LayerSums(
                task=task,
                counts={status if answered else f"{status} {row['reason'] or 'unknown'}": 1},
                area_m2=numbers.area_m2,
                seen_m2=numbers.seen_m2,
                by_answer_m2=dict(numbers.by_answer_m2),
                observations={row["observation"]} - {""},
                times=times,
                notes=set(row["notes"]) if times and answered else set(),
                yes=int(answered and row["value"] == "yes"),
                tiles_by_answer=dict.fromkeys(_chosen(row["value"], task), 1) if answered else {},
                share_m2=(row["fraction"] or 0.0) * weight,
                shared_m2=weight,
                alignments={json.loads(row["pair"])["alignment"]: 1} if row["pair"] else {},
                triage=triage_counts(row, task),
                compared_m2=0.0 if row["orders_agree"] is None else weight,
                disagreeing_m2=(1.0 - (1.0 if row["orders_agree"] is None else row["orders_agree"])) * weight,
            )
        )

    def find(
        self, layer: Layer, label: str, number: int, *, task: str, moved: int = 0, stood: int = 0
    ) -> None:  # fmt: skip
        """Add a number of merged things of one kind, and how many of them moved and stood."""
        found = LayerSums(task=task, found={label: number}, moved={label: moved}, stood={label: stood})
        self.layers.setdefault(layer, LayerSums(task=task)).add(found)

    def grade(self, layer: Layer, rows: Iterable[Mapping[str, Any]], *, task: str) -> None:
        """Add footprints (rows of `feature_schema`) by grade, those that were not analysed by reason."""
        names = Counter(f"{NOT_ANALYSED} {row['reason']}" if row["reason"] else row["answer"] for row in rows)
        self.layers.setdefault(layer, LayerSums(task=task)).add(LayerSums(task=task, found=dict(names)))

    def over_layers(self, query: str, *, task: str) -> LayerSums:
        """The sums of all layers of a query as one."""
        found = LayerSums(task=task)
        for layer, own in self.layers.items():
            if layer.query == query:
                found.add(own)
        return found

    def update(self, cell: Sums) -> None:
        """Add what another cell comes to; the cells' order is that of the last digits."""
        self.tiles, self.seen_m2 = self.tiles + cell.tiles, self.seen_m2 + cell.seen_m2
        for layer, sums in cell.layers.items():
            self.layers.setdefault(layer, LayerSums(task=sums.task)).add(sums)

    def to_json(self) -> str:
        """Its one JSON form, exact to the last digit."""
        layers = [[dataclasses.astuple(layer), _plain(sums)] for layer, sums in sorted(self.layers.items())]
        return json.dumps([self.tiles, self.seen_m2, layers], sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Sums:
        """The inverse of `to_json`."""
        tiles, seen_m2, layers = json.loads(text)
        return cls(tiles, seen_m2, {Layer(*layer): _layer_sums(plain) for layer, plain in layers})


def _chosen(value: str | None, task: str) -> list[str]:
    """The choice, or the labels, that an answer is."""
    if not value or not TASKS[task].chooses:
        return []
    return value.split("; ") if TASKS[task].answer == "labels" else [value]


def _add(sums: dict[str, _Number], more: Mapping[str, _Number]) -> None:
    for name, value in more.items():
        sums[name] = sums.get(name, 0) + value


def _plain(sums: LayerSums) -> dict[str, Any]:
    plain = dataclasses.asdict(sums)
    return {name: sorted(value) if isinstance(value, set) else value for name, value in plain.items()}


def _layer_sums(plain: Mapping[str, Any]) -> LayerSums:
    sets = {name: set(plain[name]) for name in ("observations", "times", "notes")}
    return LayerSums(**{**plain, **sets})


# ── what the summary says ────────────────────────────────────────────────────────────────────────────────────


def summarize(sums: Sums, *, area: AreaOfInterest, queries: Mapping[str, Query]) -> dict[str, Any]:
    """What `summary.json` says.

    `seen_km2` is, over the tiles, the most that any one observation showed of each: a lower bound of the ground seen
    by at least one.

    Raises:
        LedgerError: when the counts do not balance.
    """
    total: dict[str, int] = {}
    for layer in sums.layers.values():
        _add(total, layer.counts)
    return {
        **_counts(total),
        "tiles": sums.tiles,
        "area_km2": round(area.area_km2, 4),
        "seen_km2": _km2(sums.seen_m2),
        "queries": [
            {
                "query_key": key,
                "text": query.text,
                "task": query.task,
                "targets": list(query.targets),
                "observations": [_layer(layer, members, query) for layer, members in _layers(sums, key)],
                **_over_layers(sums, key, query),
            }
            for key, query in queries.items()
        ],
    }


def _km2(square_metres: float) -> float:
    return round(square_metres / 1e6, 4)


def _share(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole else None


def _counts(counts: Mapping[str, int]) -> dict[str, Any]:
    """Planned, answered, and skipped and failed by reason. Raises LedgerError where an answer is none of them."""
    planned, known = sum(counts.values()), Counter[str]()
    reasons: dict[str, dict[str, int]] = {"skipped": {}, "failed": {}}
    for name, number in sorted(counts.items()):
        status, _, reason = name.partition(" ")
        known[status] += number
        if status in reasons:
            reasons[status][reason] = number
    if sum(known[status] for status in STATUSES) != planned:
        raise LedgerError(f"{planned} rows are not all answered, skipped or failed")
    return {"planned": planned, "answered": known["answered"], **reasons}


def _layers(sums: Sums, query: str) -> list[tuple[Layer, LayerSums]]:
    mine = [(layer, own) for layer, own in sums.layers.items() if layer.query == query]
    return sorted(mine, key=lambda item: (min(item[1].times, default=""), item[0]))


def _layer(layer: Layer, sums: LayerSums, query: Query) -> dict[str, Any]:
    times = sorted(sums.times, key=datetime.datetime.fromisoformat)
    return {
        "observation": _observation(layer, sums.observations),
        "sensor": layer.sensor or None,
        "datetime_min": times[0] if times else None,
        "datetime_max": times[-1] if times else None,
        "notes": sorted(sums.notes),
        **_counts(sums.counts),
        "area_km2": _km2(sums.area_m2),
        "seen_km2": _km2(sums.seen_m2),
        **_numbers(sums, query),
        **(_change_numbers(sums) if TASKS[sums.task].dates == 2 else {}),
        **({"triage": describe_triage(sums.triage)} if sums.triage else {}),
    }


def _numbers(sums: LayerSums, query: Query) -> dict[str, Any]:
    merge = TASKS[sums.task].merge
    if merge == "instances":
        return _thing_numbers(sums, query)
    if merge == "footprints":
        return _grade_numbers(sums)
    return _polygon_numbers(sums) if merge == "polygons" else _tile_numbers(sums)


def _observation(layer: Layer, names: set[str]) -> str:
    """The observation that a layer shows; `<sensor>_mosaic` where its cells have different ones."""
    if layer.observation or not names:
        return layer.observation
    return next(iter(names)) if len(names) == 1 else f"{layer.sensor}_mosaic"


def _polygon_numbers(sums: LayerSums) -> dict[str, Any]:
    """km² and share of the seen ground by answer; bounds: the unseen ground has none of it, or nothing else."""
    unseen = max(sums.area_m2 - sums.seen_m2, 0.0)
    found = sorted(sums.by_answer_m2.items())
    return {
        "km2": {name: _km2(value) for name, value in found},
        "share_of_seen": {name: _share(value, sums.seen_m2) for name, value in found},
        "bounds_km2": {name: [_km2(value), _km2(value + unseen)] for name, value in found},
    }


def _change_numbers(sums: LayerSums) -> dict[str, Any]:
    """Of a change: ground that did not change apart from ground that one date or the other does not show, how the dates
    lie on each other, and on which share of the ground the other order of the dates says something else."""
    unchanged = max(sums.shared_m2 - sum(sums.by_answer_m2.values()), 0.0)
    return {
        **({"unchanged_km2": _km2(unchanged)} if TASKS[sums.task].answer == "mask" else {}),
        "unobserved_km2": _km2(max(sums.area_m2 - sums.seen_m2, 0.0)),
        "alignment": dict(sorted(sums.alignments.items())),
        "orders_disagree_share": _share(sums.disagreeing_m2, sums.compared_m2),
    }


def _thing_numbers(sums: LayerSums, query: Query) -> dict[str, Any]:
    """How many of each there are on the seen ground: merged things, so that none counts twice."""
    asked = dict.fromkeys((plain_label(target) or target for target in query.targets), 0)
    found = asked | dict(sorted(sums.found.items()))
    numbers = {"answered_tiles": sums.counts.get("answered", 0), "count": found, "total": sum(found.values())}
    return numbers | (_ways(found, sums) if query.is_followed else {})


def _ways(found: Mapping[str, int], sums: LayerSums) -> dict[str, Any]:
    """Of what is followed through time, how many of each moved, stood, or were seen on one date alone."""
    ways = {name: (sums.moved.get(name, 0), sums.stood.get(name, 0)) for name in found}
    return {
        "tracks": {
            name: {"moved": moved, "stood": stood, "seen_once": found[name] - moved - stood}
            for name, (moved, stood) in ways.items()
        }
    }


def _over_layers(sums: Sums, key: str, query: Query) -> dict[str, Any]:
    """Of footprints, those of all layers together: each is in one."""
    if TASKS[query.task].merge != "footprints":
        return {}
    return _grade_numbers(sums.over_layers(key, task=query.task))


def _grade_numbers(sums: LayerSums) -> dict[str, Any]:
    """How many footprints have each grade, and apart from them how many have none, by reason."""
    reasons = {
        name.removeprefix(NOT_ANALYSED).strip(): number
        for name, number in sorted(sums.found.items())
        if name.startswith(NOT_ANALYSED)
    }
    graded = {name: sums.found.get(name, 0) for name in EMS_GRADES if name != NOT_ANALYSED}
    return {
        "footprints": sum(sums.found.values()),
        "graded": sum(graded.values()),
        "by_grade": graded,
        "not_analysed": reasons,
    }


def _tile_numbers(sums: LayerSums) -> dict[str, Any]:
    answered = sums.counts.get("answered", 0)
    answer = TASKS[sums.task].answer
    if answer == "yes/no":
        return {"yes_tiles": sums.yes, "answered_tiles": answered}
    if answer == "share":
        return {"mean_fraction": _share(sums.share_m2, sums.shared_m2), "tiles": answered}
    most_first = sorted(sums.tiles_by_answer.items(), key=lambda item: (-item[1], item[0]))
    return {"answered_tiles": answered} | ({"tiles_by_answer": dict(most_first)} if TASKS[sums.task].chooses else {})
