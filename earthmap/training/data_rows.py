"""Prepared rows as a source of training: the rows of a step follow from seed, folder, table and step, and nothing else.

A row of a step begins with what it is drawn for: a modality, a task category and a granularity, each by its weight.
The place that shows it is the next of an epoch, a permutation of all such places, and the row's other questions are
chosen among those of the same place. So the weights hold, every place has its turn, and a step in the middle of an
epoch is computed without those before it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.content import content_key
from earthmap.errors import TrainingError
from earthmap.model.alignment import GRANULARITIES
from earthmap.model.processing import FRAMES, UNIT_PX
from earthmap.tasks import CATEGORIES
from earthmap.training.row_files import Prepared, read_prepared, read_row
from earthmap.training.stages import MODALITIES

if TYPE_CHECKING:
    import pyarrow
    from numpy.typing import NDArray

    from earthmap.training.rows import Row
    from earthmap.training.stages import Stage, StageTable

VERSION = "1"
"""Raised when the same folder and seed give other rows."""

FEWEST_GROUNDS = 4
"""Of somebody's own data, before one is held out."""

LETTERS_PER_TOKEN = 3.0
"""About; by it a step is filled."""

_PLAIN_NUMBER = re.compile(r"\d{1,6}(?:\.\d{1,6})?")

_NAMES = {"modality": MODALITIES, "category": CATEGORIES, "granularity": GRANULARITIES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """How often what is learned. A name without a weight weighs 1; among equal weights all come equally often, however
    many rows there are of each."""

    modality: Mapping[str, float] = field(default_factory=dict)
    """Of `earthmap.training.MODALITIES`, among those that a stage learns, and among those that it replays."""
    category: Mapping[str, float] = field(default_factory=dict)
    """Of `earthmap.tasks.CATEGORIES`, times the stage's own mixture."""
    granularity: Mapping[str, float] = field(default_factory=dict)
    """Of `earthmap.model.alignment.GRANULARITIES`: answers that draw ground, name things, speak of the whole."""

    def __post_init__(self) -> None:
        for axis, names in _NAMES.items():
            for name, weight in getattr(self, axis).items():
                if name not in names or not 0.0 <= weight < math.inf:
                    raise TrainingError(
                        f"the weight {weight} of the {axis} {name!r}",
                        expected=f"a number from 0 on for one of {', '.join(names)}",
                    )

    @classmethod
    def parse(cls, text: str) -> Weights:
        """The weights of `NAME=NUMBER[,NAME=NUMBER…]`, whose names tell what they are of. Raises TrainingError.

        Example:
            >>> Weights.parse("sar=2,detect=0.5").modality
            {'sar': 2.0}
        """
        found: dict[str, dict[str, float]] = {axis: {} for axis in _NAMES}
        for pair in filter(None, (part.strip() for part in text.split(","))):
            name, _, number = (part.strip() for part in pair.partition("="))
            axis = next((axis for axis, names in _NAMES.items() if name in names), None)
            if axis is None or not _PLAIN_NUMBER.fullmatch(number):
                known = ", ".join(name for names in _NAMES.values() for name in names)
                raise TrainingError(f"the weight {pair!r}", expected=f"NAME=NUMBER with one of {known}")
            found[axis][name] = float(number)
        return cls(**found)

    def of(self, axis: str, name: str) -> float:
        """The weight of a name."""
        weights: Mapping[str, float] = getattr(self, axis)
        return weights.get(name, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Index:
    """Where every question stands, and what it is: arrays along all questions in an order of their own."""

    place: NDArray[np.int64]
    """Number of the place, by the order of their keys."""
    record: NDArray[np.int64]
    number: NDArray[np.int64]
    """Row of the table, and which of its questions."""
    cell: NDArray[np.int64]
    """What a row can be drawn for: modality, category and granularity as one number."""
    tokens: NDArray[np.float64]
    """About, of question and answer."""
    first: NDArray[np.int64]
    """(places + 1,) where the questions of each place begin."""
    shows: NDArray[np.int64]
    """(places,) row of the table that holds its pictures."""
    visual: NDArray[np.float64]
    """(places,) tokens of its pictures, about."""
    held_out: NDArray[np.bool_]
    """(places,)"""


def _cell_names(cell: int) -> tuple[str, str, str]:
    rest, granularity = divmod(cell, len(GRANULARITIES))
    modality, category = divmod(rest, len(CATEGORIES))
    return MODALITIES[modality], CATEGORIES[category], GRANULARITIES[granularity]


@dataclass(frozen=True, slots=True, kw_only=True)
class _StagePlan:
    """What every row of a stage is drawn for, and which place in its epochs it takes."""

    rows: int
    """Of one step."""
    pools: tuple[NDArray[np.int64], ...]
    """Places of each cell, by number."""
    cells: tuple[int, ...]
    drawn: NDArray[np.int16]
    """(steps · rows,) which of `cells`."""
    turn: NDArray[np.int32]
    """(steps · rows,) how many rows before it were drawn for the same."""
    weights: NDArray[np.float64]
    """(cells of all names,) of a question beside the one that a row is drawn for."""


@dataclass(frozen=True, kw_only=True)
class DataRows:
    """Rows of a folder that `earthmap.training.prepare` wrote. See `earthmap.training.RowSource`.

    Raises:
        TrainingError: for a folder without prepared rows, and settings that make no sense.
    """

    folder: Path
    seed: int
    weights: Weights = field(default_factory=Weights)
    questions: int = 12
    """Questions of a row at most: all see the same pictures, which are encoded once."""
    held_out_share: float = 0.05
    """Share of the places that no step learns from; tiles of one cell are held out together."""

    def __post_init__(self) -> None:
        if not 1 <= self.questions <= 64 or not 0.0 <= self.held_out_share < 1.0:
            raise TrainingError(
                f"{self.questions} questions of a row, {self.held_out_share} held out",
                expected="1 to 64 questions (8 to 16 are good), and a share from 0 to below 1",
            )
        self.prepared  # noqa: B018 - a folder that holds nothing is told at once

    def __getstate__(self) -> dict[str, Any]:
        """Settings alone: each process maps the files for itself."""
        return {name: self.__dict__[name] for name in self.__dataclass_fields__}

    @cached_property
    def prepared(self) -> Prepared:
        """What the folder holds."""
        found = read_prepared(self.folder)
        if found is None:
            raise TrainingError(
                f"{self.folder} holds no prepared training data",
                expected="data.json and files of rows",
                fix="prepare them first (docs/training-data.md)",
            )
        return found

    @property
    def key(self) -> str:
        """See `RowSource`."""
        return content_key(
            "data rows", VERSION, self.prepared.key, self.seed, self.weights, self.questions, self.held_out_share
        )

    def rows(self, table: StageTable, step: int, *, part: int = 0, parts: int = 1) -> list[Row]:
        """See `RowSource`. Raises TrainingError where a stage finds no rows to learn from."""
        number, within = table.at(step)
        plan = self._plans(table)[number]
        numbers = range(within * plan.rows, (within + 1) * plan.rows)
        return [self._row(plan, number, one) for one in numbers if one % plan.rows % parts == part]

    def held_out(self, *, most: int = 256) -> list[Row]:
        """Rows of places that no step learns from, at most `most`, of each modality and task category in turn.

        Each is asked in equal parts what there is to ask of it; they are always the same.
        """
        index = self._index
        places = np.flatnonzero(index.held_out)
        order = np.random.default_rng([self.seed, _HELD_OUT]).permutation(places)
        turns: dict[int, int] = {}
        ranked = []
        for place in order.tolist():
            kind = int(index.cell[index.first[place]])
            turns[kind] = turns.get(kind, -1) + 1
            ranked.append((turns[kind], kind, place))
        rows = []
        for _, kind, place in sorted(ranked)[:most]:
            rng = np.random.default_rng([self.seed, _HELD_OUT, place])
            rows.append(self._read(place, self._chosen(place, kind, np.ones(_CELLS), rng), id="held out"))
        return rows

    def own_share(self) -> float:
        """The `held_out_share` by which a tenth of the grounds (cells of a cube) is held out, one at least; 0 for fewer
        than FEWEST_GROUNDS, of which each is needed."""
        found = {ground for batch in self._batches[0] for ground in batch["ground"].to_pylist()}
        marks = sorted({_mark(ground) for ground in found})
        return marks[max(1, len(marks) // 10)] if len(marks) >= FEWEST_GROUNDS else 0.0

    # ── which rows ───────────────────────────────────────────────────────────────────────────────────────────

    def _plans(self, table: StageTable) -> tuple[_StagePlan, ...]:
        """Of all stages at once: a stage without data is told before the first step. Kept for the last table."""
        kept: tuple[str, tuple[_StagePlan, ...]] | None = self.__dict__.get("_kept")
        key = table.content_key()
        if kept is None or kept[0] != key:
            kept = (
                key,
                tuple(self._plan(number, stage, table.earlier(number)) for number, stage in enumerate(table.stages)),
            )
            self.__dict__["_kept"] = kept
        return kept[1]

    def _plan(self, number: int, stage: Stage, earlier: tuple[str, ...]) -> _StagePlan:
        index = self._index
        learned = ~index.held_out[index.place]
        present = np.unique(index.cell[learned]).tolist()
        chances = self._chances(stage, earlier, present)
        cells = tuple(sorted(chances))
        share = np.array([chances[cell] for cell in cells])
        pools = tuple(np.unique(index.place[learned & (index.cell == cell)]) for cell in cells)
        tokens = self._tokens_of_places()
        usual = float(sum(part * tokens[pool].mean() for part, pool in zip(share, pools, strict=True)))
        count = max(1, round(stage.tokens / usual))
        rng = np.random.default_rng([self.seed, number, _DRAWN])
        drawn = rng.choice(len(cells), size=stage.steps * count, p=share).astype(np.int16)
        turn = np.zeros(len(drawn), np.int32)
        for one in range(len(cells)):
            mine = drawn == one
            turn[mine] = np.arange(int(mine.sum()))
        weights = np.array([self._weight(stage, *_cell_names(cell)) for cell in range(_CELLS)])
        return _StagePlan(rows=count, pools=pools, cells=cells, drawn=drawn, turn=turn, weights=weights)

    def _weight(self, stage: Stage, modality: str, category: str, granularity: str) -> float:
        """Of a question among those of its modality."""
        own = self.weights.of("category", category) * self.weights.of("granularity", granularity)
        return stage.mixture.get(category, 0.0) * own

    def _chances(self, stage: Stage, earlier: tuple[str, ...], present: list[int]) -> dict[int, float]:
        """How likely a row of the stage is drawn for each of the cells that there are; they sum to 1."""
        new = self._spread(stage, stage.modalities, present)
        if not new:
            names = [_cell_names(cell) for cell in present]
            have = [
                f"{one} ({', '.join(dict.fromkeys(c for m, c, _ in names if m == one))})"
                for one in MODALITIES
                if any(m == one for m, _, _ in names)
            ]
            raise TrainingError(
                f"the stage {stage.name!r} has nothing to learn from: it wants {', '.join(stage.modalities)}, and "
                f"{self.folder} has {', '.join(have) or 'nothing'} that is not held out",
                expected="rows of one of its modalities, in a category of its mixture",
                fix="leave the stage out of the table, or add such data",
            )
        old = self._spread(stage, earlier, present) if stage.replay else {}
        replay = stage.replay if old else 0.0
        return {cell: chance * (1.0 - replay) for cell, chance in new.items()} | {
            cell: chance * replay for cell, chance in old.items()
        }

    def _spread(self, stage: Stage, modalities: tuple[str, ...], present: list[int]) -> dict[int, float]:
        """Chances among modalities, in each of them among categories, in each of those among granularities."""
        tree: dict[str, dict[str, dict[int, float]]] = {}
        for cell in present:
            modality, category, granularity = _cell_names(cell)
            weight = self.weights.of("granularity", granularity)
            if modality in modalities and self._weight(stage, modality, category, granularity) > 0:
                tree.setdefault(modality, {}).setdefault(category, {})[cell] = weight
        weights = {modality: self.weights.of("modality", modality) for modality in tree}
        found: dict[int, float] = {}
        for modality, share in _shared(weights).items():
            wanted = {c: stage.mixture[c] * self.weights.of("category", c) for c in tree[modality]}
            for category, part in _shared(wanted).items():
                for cell, piece in _shared(tree[modality][category]).items():
                    found[cell] = share * part * piece
        return found

    def _tokens_of_places(self) -> NDArray[np.float64]:
        """(places,) tokens of a row about each place, about."""
        index = self._index
        asked = np.diff(index.first)
        words = np.add.reduceat(index.tokens, index.first[:-1])
        found: NDArray[np.float64] = index.visual + words * np.minimum(1.0, self.questions / asked)
        return found

    # ── one row ──────────────────────────────────────────────────────────────────────────────────────────────

    def _row(self, plan: _StagePlan, stage: int, number: int) -> Row:
        one = int(plan.drawn[number])
        pool, cell = plan.pools[one], plan.cells[one]
        epoch, turn = divmod(int(plan.turn[number]), len(pool))
        place = int(pool[_permutation(self.seed, stage, cell, epoch, len(pool))[turn]])
        rng = np.random.default_rng([self.seed, stage, number, _ASKED])
        return self._read(place, self._chosen(place, cell, plan.weights, rng), id=f"{stage}/{number}")

    def _chosen(
        self, place: int, cell: int, weights: NDArray[np.float64], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Questions of a place: one that the row is drawn for, and others by the weight of what they are.

        Keys u^(1/w) choose without putting back (Efraimidis and Spirakis, Information Processing Letters 97, 2006).
        """
        index = self._index
        mine = np.arange(index.first[place], index.first[place + 1])
        cells = index.cell[mine]
        kinds, kind, count = np.unique(cells, return_inverse=True, return_counts=True)
        weight = weights[kinds][kind] / count[kind]
        with np.errstate(divide="ignore"):
            keys = np.where(weight > 0, np.log(rng.random(len(mine))) / weight, -np.inf)
        lead = np.flatnonzero(cells == cell)
        keys[lead[np.argmax(keys[lead])]] = 0.0
        best = np.argsort(-keys, kind="stable")[: self.questions]
        return np.sort(mine[best[np.isfinite(keys[best])]])

    def _read(self, place: int, questions: NDArray[np.int64], *, id: str) -> Row:
        index = self._index
        seen = self._record(int(index.shows[place]), None)
        records, numbers = index.record[questions].tolist(), index.number[questions].tolist()
        said = {record: self._record(record, "asked") for record in set(records)}
        asked = [said[record][number] for record, number in zip(records, numbers, strict=True)]
        return read_row(seen, asked, id=f"{seen['place']}/{id}")

    def _record(self, number: int, column: str | None) -> Any:
        """A row of the table, or one column of it."""
        batches, ends = self._batches
        batch = int(np.searchsorted(ends, number, side="right"))
        place = number - (int(ends[batch - 1]) if batch else 0)
        if column is not None:
            return batches[batch].column(column)[place].as_py()
        names = ("place", "modality", "names", "side", "pictures", "classes", "shares")
        return {name: batches[batch].column(name)[place].as_py() for name in names}

    # ── the files ────────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def _batches(self) -> tuple[list[pyarrow.RecordBatch], NDArray[np.int64]]:
        """All record batches, mapped into memory, and where each ends."""
        import pyarrow as pa

        found: list[pyarrow.RecordBatch] = []
        try:
            for name in self.prepared.parts:
                with pa.ipc.open_file(pa.memory_map(str(self.folder / name))) as file:
                    found += [file.get_batch(number) for number in range(file.num_record_batches)]
        except (OSError, pa.ArrowException) as error:
            raise TrainingError(
                f"the rows of {self.folder} cannot be read: {error}", expected="whole files", fix="prepare them again"
            ) from error
        return found, np.cumsum([batch.num_rows for batch in found])

    @cached_property
    def _index(self) -> _Index:
        return _indexed(self._batches[0], self.held_out_share)


_DRAWN, _ASKED, _EPOCH, _HELD_OUT = 1, 2, 3, 4
"""Streams of chance that do not touch one another."""

_CELLS = len(MODALITIES) * len(CATEGORIES) * len(GRANULARITIES)


def _shared(weights: Mapping[Any, float]) -> dict[Any, float]:
    """Weights that sum to 1; nothing where they are all zero."""
    whole = sum(weights.values())
    return {name: weight / whole for name, weight in weights.items() if weight > 0} if whole else {}


@lru_cache(maxsize=32)
def _permutation(seed: int, stage: int, cell: int, epoch: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, stage, cell, epoch, _EPOCH]).permutation(count)


def _indexed(batches: list[pyarrow.RecordBatch], held_out: float) -> _Index:
    import pyarrow as pa
    import pyarrow.compute as pc

    light = ("id", "place", "ground", "modality", "side", "asked", "pictures", "names")
    table = pa.Table.from_batches(batches).select(light)
    keys, place_of = np.unique(table["place"].to_numpy(), return_inverse=True)
    asked = table["asked"].combine_chunks()
    record = pc.list_parent_indices(asked).to_numpy()
    flat = asked.flatten()
    number = np.arange(len(record)) - np.concatenate([[0], np.cumsum(pc.list_value_length(asked).to_numpy())])[record]
    rank = np.argsort(np.argsort(table["id"].to_numpy(), kind="stable"), kind="stable")
    place = place_of[record]
    order = np.lexsort((number, rank[record], place))
    counts = pc.list_value_length(table["pictures"]).to_numpy()  # their bytes stay where they are
    holders = np.flatnonzero(counts)
    shows = np.zeros(len(keys), np.int64)
    shows[place_of[holders]] = holders
    letters = sum(pc.binary_length(flat.field(name)).to_numpy() for name in ("question", "answer"))
    spatial = flat.field("spatial").to_numpy(zero_copy_only=False)
    tokens = np.where(spatial, letters, letters / LETTERS_PER_TOKEN)
    side = table["side"].to_numpy()
    is_video = table["modality"].to_numpy() == "video"
    visual = counts / np.where(is_video, FRAMES, 1) * ((side // UNIT_PX) ** 2 + 10.0)
    modality = _codes(table["modality"], MODALITIES)[record]
    category, granularity = _codes(flat.field("category"), CATEGORIES), _codes(flat.field("granularity"), GRANULARITIES)
    cell = (modality * len(CATEGORIES) + category) * len(GRANULARITIES) + granularity
    grounds = table["ground"].to_pylist()
    return _Index(
        place=place[order],
        record=record[order],
        number=number[order],
        cell=cell[order],
        tokens=tokens[order],
        first=np.searchsorted(place[order], np.arange(len(keys) + 1)),
        shows=shows,
        visual=visual[shows],
        held_out=np.array([_mark(grounds[row]) < held_out for row in shows.tolist()]),
    )


def _mark(ground: str) -> float:
    """From 0 to below 1: chance, but always the same for a ground."""
    return int(ground[:8], 16) / 16**8


def _codes(column: Any, names: tuple[str, ...]) -> NDArray[np.int64]:
    import pyarrow as pa
    import pyarrow.compute as pc

    found: NDArray[np.int64] = pc.index_in(column, pa.array(names)).to_numpy().astype(np.int64)
    return found
