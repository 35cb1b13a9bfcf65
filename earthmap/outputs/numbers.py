"""The numbers of a run as people read them: what `summary.json` says of each question, as records and as sentences.

The only module of the outputs that knows the keys of a summary.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from earthmap.tasks import TASKS
from earthmap.tasks.damage import EMS_GRADES
from earthmap.tasks.query import DEFAULT_UNSEEN
from earthmap.tasks.vocabulary import FLOOD, PERMANENT

MAX_LINES = 12
"""Observations of one question that get a sentence of their own."""


UNASKED = ("triage", "no_footprint")
"""Reasons of tiles that were not asked, whatever could be seen of them."""

NOT_ENOUGH = "not enough evidence"
"""The answer where less is known than was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """What one question came to at one observation (or one pair of them)."""

    query_key: str
    text: str
    """The question as it was asked."""
    task: str
    targets: tuple[str, ...]
    observation: str
    sensor: str
    start: datetime.datetime | None
    """Time of the (first) observation, UTC."""
    end: datetime.datetime | None
    """Time of the (second) observation, UTC."""
    answered: int
    """Tiles."""
    planned: int
    """Tiles."""
    skipped: int = 0
    """Tiles."""
    failed: int = 0
    """Tiles."""
    area_km2: float
    seen_km2: float
    km2: Mapping[str, float] = field(default_factory=dict)
    """Ground of each answer."""
    fraction: float | None = None
    """Share of the seen ground that any target covers, 0 to 1."""
    bounds: tuple[float, float] | None = None
    """Least and most that the share of the whole area can be, whatever the unseen ground holds."""
    tiles: Mapping[str, int] = field(default_factory=dict)
    """Tiles of each choice, or with each label, the most frequent first."""
    things: Mapping[str, int] | None = None
    """Merged things of each kind, the most frequent first; None for a question that is not about things."""
    grades: Mapping[str, int] | None = None
    """Footprints of each grade, the worst first; None for a question that is not about footprints."""
    ungraded: Mapping[str, int] = field(default_factory=dict)
    """Footprints that were not analysed, by reason, the most frequent first."""
    ways: Mapping[str, int] = field(default_factory=dict)
    """Of things that are followed through time, how many `moved`, `stood`, and were `seen_once`; empty of others."""
    yes: int | None = None
    """Tiles answered yes; None for a question that is not about presence."""
    disagreeing: float | None = None
    """Share of the answered ground of which a change says something else when its dates are swapped, 0 to 1."""
    lacking: str = ""
    """Why there is not enough evidence to tell the number as known; empty where there is."""
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """`model_based` 90 % interval of each answer's ground in km², where there is one."""
    no_interval: Mapping[str, str] = field(default_factory=dict)
    """Why there is none, by answer."""
    probabilities: str | None = None
    """Where the stated probabilities were calibrated, or that they were not; None where none are stated."""
    triage: Mapping[str, Any] | None = None
    """What `earthmap.merge.triaged.describe_triage` says; None for a question that was asked of every tile."""
    notes: tuple[str, ...] = ()
    """What the predictor noted."""
    unseen: tuple[str, ...] = DEFAULT_UNSEEN
    """Reasons under which the question counts ground as unseen."""

    @property
    def moment(self) -> str:
        """What is shown together: this question at this observation; empty where there was nothing to look at."""
        return moment_id(self.query_key, self.observation)

    @property
    def is_pair(self) -> bool:
        """Whether two dates were compared."""
        return looks_at_two(self.task)

    @property
    def is_of_several(self) -> bool:
        """Whether two dates were compared, or those of a series looked at together."""
        return looks_at_several(self.task)

    @property
    def date(self) -> str:
        """`2019-09-18`, or `2019-08-01 → 2019-09-18` for several; of a flood with the hour."""
        if self.targets == (FLOOD,) and self.start is not None:
            return f"{self.start:%Y-%m-%d %H:%M} UTC"
        return date_label(self.start, self.end, pair=self.is_of_several)


def moment_id(query_key: str, observation: str) -> str:
    """One name for a question at an observation; empty without an observation."""
    return f"{query_key} {observation}" if observation else ""


def parse_time(value: Any) -> datetime.datetime | None:
    """An aware UTC time of ISO text, a datetime or a pandas timestamp; None of nothing."""
    if value is None or value != value:  # NaT is not itself
        return None
    time = datetime.datetime.fromisoformat(value.replace("Z", "+00:00")) if isinstance(value, str) else value
    time = time.to_pydatetime() if hasattr(time, "to_pydatetime") else time
    return time.replace(tzinfo=datetime.UTC) if time.tzinfo is None else time.astimezone(datetime.UTC)


def date_label(start: datetime.datetime | None, end: datetime.datetime | None, *, pair: bool = False) -> str:
    """The day, or the first and the last of several dates (of one day with their hours); `no date` without one."""
    if start is None:
        return "no date"
    first = f"{start:%Y-%m-%d}"
    if not pair or end is None:
        return first
    return f"{first} → {end:%Y-%m-%d}" if end.date() != start.date() else f"{first} {start:%H:%M} → {end:%H:%M} UTC"


def _share(task: str, seen: Mapping[str, Any]) -> float | None:
    """Share of the seen ground that any target covers, or that changed; None where extent was not asked for."""
    seen_km2 = float(seen.get("seen_km2") or 0.0)
    if not seen_km2 or ("km2" not in seen and task != "fraction"):
        return None
    if task == "fraction":
        return None if seen.get("mean_fraction") is None else float(seen["mean_fraction"])
    return sum(float(value) for value in (seen["km2"] or {}).values()) / seen_km2


def _bounds(fraction: float | None, seen: Mapping[str, Any]) -> tuple[float, float] | None:
    """Shares of the whole area: where the unseen ground has none of it, and where it has nothing else."""
    area, seen_km2 = float(seen.get("area_km2") or 0.0), float(seen.get("seen_km2") or 0.0)
    if fraction is None or not area:
        return None
    found = fraction * seen_km2
    return min(1.0, found / area), min(1.0, (found + max(0.0, area - seen_km2)) / area)


def _ways(tracks: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """How many things of any kind moved, stood, and were seen once; nothing where there are none."""
    found = {name: sum(int(way[name]) for way in tracks.values()) for name in ("moved", "stood", "seen_once")}
    return found if any(found.values()) else {}


def _most_first(counted: Mapping[str, Any]) -> dict[str, int]:
    """Counts in the order that readers want, which JSON does not keep."""
    return {str(name): int(count) for name, count in sorted(counted.items(), key=lambda item: (-item[1], item[0]))}


def _numbers(query: Mapping[str, Any], seen: Mapping[str, Any]) -> Numbers:
    yes, task = seen.get("yes_tiles"), str(query.get("task", ""))
    fraction = _share(task, seen)
    return Numbers(
        query_key=str(query.get("query_key", "")),
        text=str(query.get("text", "")),
        task=task,
        targets=tuple(query.get("targets") or ()),
        observation=str(seen.get("observation") or ""),
        sensor=str(seen.get("sensor") or ""),
        start=parse_time(seen.get("datetime_min")),
        end=parse_time(seen.get("datetime_max")),
        answered=int(seen.get("answered") or 0),
        planned=int(seen.get("planned") or 0),
        skipped=sum((seen.get("skipped") or {}).values()),
        failed=sum((seen.get("failed") or {}).values()),
        unseen=tuple(query.get("unseen") or DEFAULT_UNSEEN),
        area_km2=float(seen.get("area_km2") or 0.0),
        seen_km2=float(seen.get("seen_km2") or 0.0),
        km2={str(name): float(value) for name, value in (seen.get("km2") or {}).items()},
        fraction=fraction,
        bounds=_bounds(fraction, seen),
        tiles=_most_first(seen.get("tiles_by_answer") or {}),
        things=_most_first(seen["count"]) if "count" in seen else None,
        grades={name: int(seen["by_grade"].get(name, 0)) for name in EMS_GRADES[:-1]} if "by_grade" in seen else None,
        ungraded=_most_first(seen.get("not_analysed") or {}),
        ways=_ways(seen.get("tracks") or {}),
        yes=None if yes is None else int(yes),
        disagreeing=seen.get("orders_disagree_share"),
        lacking=_lacking(seen),
        intervals={name: tuple(one["interval_km2"]) for name, one in _model_based(seen) if "reason" not in one},
        no_interval={name: str(one["reason"]) for name, one in _model_based(seen) if "reason" in one},
        probabilities=seen.get("probabilities"),
        triage=seen.get("triage"),
        notes=tuple(str(note) for note in seen.get("notes") or ()),
    )


def _lacking(seen: Mapping[str, Any]) -> str:
    answer, _, why = str(seen.get("evidence") or "").partition(": ")
    return why if answer == NOT_ENOUGH else ""


def _model_based(seen: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    return (seen.get("model_based") or {}).items()


def read_numbers(summary: Mapping[str, Any]) -> list[Numbers]:
    """One record for each question and observation of a summary: questions in their order, observations by time."""
    rows = []
    for query in summary.get("queries") or ():
        found = [_numbers(query, seen) for seen in _told_apart(query)]
        last = datetime.datetime.max.replace(tzinfo=datetime.UTC)
        rows += sorted(found, key=lambda row: (row.start or last, row.end or last, row.observation))
    return rows


def _told_apart(query: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The observations of a question; of footprints, where one looked at them, that one with what nobody looked at."""
    told = list(query.get("observations") or ())
    looked = [seen for seen in told if seen.get("observation")]
    if "by_grade" not in query or len(looked) != 1:
        return told
    return [{**looked[0], **{name: query[name] for name in ("footprints", "graded", "by_grade", "not_analysed")}}]


def format_km2(value: float) -> str:
    """An area with three significant digits: `0.042 km²`, `12.3 km²`, `1,240 km²`."""
    if value >= 100.0:
        return f"{value:,.0f} km²"
    digits = 1 if value >= 10.0 else 2 if value >= 1.0 else 3
    return "0 km²" if value == 0.0 else f"{value:.{digits}f} km²" if value >= 0.0005 else "under 0.001 km²"


def format_share(value: float) -> str:
    """A share as percent: `5.7 %`; `under 0.1 %` for what would read as nothing."""
    if 0.0 < value < 0.0005:
        return "under 0.1 %"
    return f"{value:.1%}".replace("%", " %").replace(".0 %", " %")


def format_answer(row: Numbers) -> str:
    """What was found, in a few words: `12.3 km² of 214 km² seen (5.7 %)`."""
    if row.grades is not None:
        return format_grades(row.grades, row.ungraded)
    if not row.answered:
        return "nothing could be seen"
    if row.task == "presence":
        return f"yes in {row.yes or 0:,} of {row.answered:,} tiles"
    if is_of_tiles(row.task):
        return format_tiles(row.tiles, row.answered)
    if row.things is not None:
        ways = f" ({format_ways(row)})" if row.ways else ""
        return f"{format_things(row.things)}{ways}, in {format_km2(row.seen_km2)} seen"
    if row.is_pair:
        changes = ", ".join(f"{name} {format_km2(value)}" for name, value in row.km2.items() if value > 0.0)
        return f"{changes or 'no change'}, of {format_km2(row.seen_km2)} seen on both dates"
    if row.task == "segment" and (len(row.km2) > 1 or PERMANENT in row.km2):
        found = ", ".join(f"{name} {format_km2(value)}" for name, value in row.km2.items())
        return f"{found}, of {format_km2(row.seen_km2)} seen"
    if row.fraction is None:
        return "too little to tell: under 50 m² seen"  # areas are rounded to 100 m²
    seen = f"{format_km2(row.seen_km2)} seen"
    if row.task == "fraction":
        return f"{format_share(row.fraction)} of {seen}"
    return f"{format_km2(sum(row.km2.values()))} of {seen} ({format_share(row.fraction)})"


def format_known(row: Numbers) -> str:
    """What was found, behind `not enough evidence` where less is known than was asked for."""
    return f"{NOT_ENOUGH}; {format_answer(row)}" if row.lacking else format_answer(row)


def format_intervals(row: Numbers) -> str:
    """`water 12.3 km² to 14.1 km²`."""
    return ", ".join(f"{name} {format_km2(low)} to {format_km2(high)}" for name, (low, high) in row.intervals.items())


def format_grades(grades: Mapping[str, int], ungraded: Mapping[str, int]) -> str:
    """`4 destroyed, 6 damaged, 5 possibly damaged, 8 no visible damage; 2 of 25 footprints not analysed (cloud 2)`."""
    lost, whole = sum(ungraded.values()), sum(grades.values()) + sum(ungraded.values())
    said = ", ".join(f"{count:,} {name}" for name, count in grades.items())
    if not lost:
        return f"{said}, of {whole:,} footprints"
    why = ", ".join(f"{reason.replace('_', ' ')} {count:,}" for reason, count in ungraded.items())
    return f"{said}; {lost:,} of {whole:,} footprints not analysed ({why})"


def format_things(things: Mapping[str, int], *, most: int = 4) -> str:
    """How many of each: `12 × ship, 3 × car`; `nothing` where there is none."""
    said = [f"{count:,} × {name}" for name, count in list(things.items())[:most]]
    more = f", and {len(things) - most} more kinds" if len(things) > most else ""
    return f"{', '.join(said)}{more}" if said else "nothing"


def format_ways(row: Numbers) -> str:
    """Of things that are followed through time: `66 moved, 16 stood, 3 seen once`; empty of others."""
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in row.ways.items())


def is_of_tiles(task: str) -> bool:
    """Whether each tile has an answer in words (a choice, labels, a text), which is no measure of extent."""
    return task in TASKS and TASKS[task].merge == "tiles" and TASKS[task].answer not in ("yes/no", "share")


def is_of_things(task: str) -> bool:
    """Whether single things are found, which are counted."""
    return task in TASKS and TASKS[task].merge == "instances"


def is_of_footprints(task: str) -> bool:
    """Whether each of a person's footprints has an answer."""
    return task in TASKS and TASKS[task].merge == "footprints"


def is_written(task: str) -> bool:
    """Whether an answer is a text of its own, of which there may be as many as tiles."""
    return task in TASKS and TASKS[task].answer == "text"


def looks_at_several(task: str) -> bool:
    """Whether several dates are looked at together: two, or those of a series."""
    return task in TASKS and TASKS[task].dates != 1


def looks_at_two(task: str) -> bool:
    """Whether two dates are compared."""
    return task in TASKS and TASKS[task].dates == 2


def format_tiles(tiles: Mapping[str, int], answered: int, *, most: int = 4) -> str:
    """How many tiles say what: `harbour in 12, farm in 3 of 15 tiles`."""
    if not tiles:
        return f"answers of {answered:,} tiles"
    said = [f"{name} in {count:,}" for name, count in list(tiles.items())[:most]]
    more = f", and {len(tiles) - most} more answers" if len(tiles) > most else ""
    return f"{', '.join(said)} of {answered:,} tiles{more}"


def _sentence(row: Numbers) -> str:
    where = ", ".join(part for part in (row.date if row.start else "", row.sensor) if part)
    said = format_answer(row)
    if row.lacking:
        said = f"{NOT_ENOUGH}: {row.lacking}" + (f"; on what was seen {said}" if row.answered else "")
    if row.intervals:
        said += f"; model_based 90 % {format_intervals(row)}"
    if row.disagreeing:
        said += f"; swapped dates disagree on {format_share(row.disagreeing)} of it"
    return f"{row.text}  {where}: {said}" if where else f"{row.text}  {said}"


def counts(summary: Mapping[str, Any]) -> list[tuple[str, str, int]]:
    """(status, reason, rows of the ledger), answered first, then skipped and failed, the most frequent first."""
    rows = [("answered", "", int(summary.get("answered") or 0))]
    for status in ("skipped", "failed"):
        reasons = summary.get(status) or {}
        rows += [(status, reason, number) for reason, number in sorted(reasons.items(), key=lambda r: (-r[1], r[0]))]
    return rows


def skipped_label(numbers: Sequence[Numbers]) -> str:
    """What hatched ground is called: where triage left tiles out, not all of it was unseen."""
    return "not seen, or not asked" if any(row.triage is not None for row in numbers) else "not seen"


def triage_lines(row: Numbers) -> list[str]:
    """What triage left out of a question, and what its audit tells of what that missed."""
    told = row.triage
    if told is None:
        return []
    audit, at_most = told["audit"], told["missed_share_at_most"]
    first = (
        f"{row.text}  triage skipped {told['skipped_tiles']:,} of {row.planned:,} tiles: bounds count them as unseen"
    )
    found = f"{told['tiles_with_target']:,} of the others hold a target"
    lines = [f"{first}, shares are of the others; {found}"]
    asked = f"{row.text}  {audit['audited']:,} tiles were asked whatever triage said"
    missed = f"{audit['missed']:,} of {audit['with_target']:,} with a target would have been skipped"
    bound = told["absent"] or f"at most {format_share(at_most)} of all tiles with a target are missed (95 %)"
    lines.append(f"{asked}: {missed}; {bound}")
    held, tiles = told["skipped_with_target_at_most"], told["missed_tiles_at_most"]
    if held is not None:
        of_skipped = f"of the tiles that triage skips at most {format_share(held)} hold a target (95 %)"
        lines.append(f"{row.text}  {of_skipped}, so at most {tiles:,} were missed")
    return lines


def _unseen_lines(summary: Mapping[str, Any]) -> Iterable[str]:
    planned = int(summary.get("planned") or 0)
    skipped = summary.get("skipped") or {}
    if skipped.get("triage"):
        yield f"{skipped['triage']:,} of {planned:,} tile answers were not asked for (triage)"
    if skipped.get("no_footprint"):
        yield f"{skipped['no_footprint']:,} of {planned:,} tile answers were not asked for (no footprint there)"
    for status, verb in (("skipped", "could not be seen"), ("failed", "failed")):
        known = (summary.get(status) or {}).items()
        reasons = {reason: number for reason, number in known if number and reason not in UNASKED}
        if reasons:
            listed = ", ".join(reason.replace("_", " ") for reason in sorted(reasons, key=lambda r: (-reasons[r], r)))
            yield f"{sum(reasons.values()):,} of {planned:,} tile answers {verb} ({listed})"


def headlines(summary: Mapping[str, Any]) -> list[str]:
    """Plain sentences for a terminal and a page: what each question came to at each observation, and what was not seen.

    A question of more than a dozen observations shows its first dozen and says how many more there are.
    """
    rows = read_numbers(summary)
    lines: list[str] = []
    for key in dict.fromkeys(row.query_key for row in rows):
        mine = [row for row in rows if row.query_key == key]
        lines += [line for row in mine[:MAX_LINES] for line in (_sentence(row), *triage_lines(row))]
        if len(mine) > MAX_LINES:
            lines.append(f"{mine[0].text}  and {len(mine) - MAX_LINES} more observations")
    asked = {row.query_key for row in rows}
    unfound = [query for query in summary.get("queries") or () if str(query.get("query_key", "")) not in asked]
    lines += [f"{query.get('text', '')}  no observation to answer it with" for query in unfound]
    return lines + list(_unseen_lines(summary))
