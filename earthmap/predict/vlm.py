"""The vision-language model as a predictor: a tile is encoded once, and every query about it is answered from there.

Closed questions are scored with the choices named in both orders, all in one pass; shapes are written under SLIS'
grammar; shares come from the alignment heads' maps of blocks. docs/decisions/0012-how-answers-are-scored.md says why.
torch is imported when something is computed.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.content import content_key
from earthmap.errors import ModelError, SensorError
from earthmap.model.closed import Closed
from earthmap.model.config import MAX_TOKENS
from earthmap.model.engine import Slot, halving, lay_out_stem
from earthmap.model.processing import FRAMES, MERGE, PatchGrid, patch_grid
from earthmap.predict.grading import answer_each
from earthmap.predict.protocol import Picture, TileInput
from earthmap.predict.replies import MASK_SIDE, NO_CHANGE, Look, Reply, make_answer
from earthmap.predict.vectors import little_seen
from earthmap.sensors.masks import Reason, unseen
from earthmap.sensors.registry import SENSORS
from earthmap.sensors.views import VIEWS, fitting, make_view, missing_views, sensor_views
from earthmap.tasks.answer import Answer
from earthmap.tasks.grammar import build_automaton
from earthmap.tasks.prompts import (
    PROMPT_VERSION,
    closed_choices,
    frame_name,
    label_questions,
    picture_name,
    question_prompt,
)
from earthmap.tasks.query import Query, mask_legend
from earthmap.tasks.registry import TASKS
from earthmap.tasks.times import day_text, time_texts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from earthmap.model.alignment import AlignmentHeads
    from earthmap.model.decoding import TokenAutomaton
    from earthmap.model.earth_onevision import EarthOneVision
    from earthmap.model.engine import Stem
    from earthmap.model.vision import VisualFeatures
    from earthmap.model.writing import Written

VERSION = "2"
"""Raised when anything but the weights changes an answer: how questions are scored, what of a tile is seen."""

MICRO_BATCH = 16
"""Tiles that are computed at once: those of one cell."""

MOST_TOKENS = 512
"""Tokens of a written answer, at most: a mask of 16 rows takes about 200."""

TEXT_TOKENS = 128
"""The same for an answer in words."""

ROOM = 1024
"""Tokens that pictures leave to a question and its answer. Fixed: what is asked besides drops no view."""

MOST_CLOSED = 128
"""Closed questions that are scored in one pass."""

MOST_GRAMMARS = 64
"""Grammars that are kept for further tiles."""

_Grammar = tuple[str, tuple[str, ...], tuple[str, ...]]
"""Shape, labels, and times where things are followed."""

VIDEO_GAP_S = 60.0
"""Pictures of one sensor that follow each other no later than this are the frames of a video."""


def predictor_key(weights: str, *, dtype: str, micro_batch: int = MICRO_BATCH, most: int = MOST_TOKENS) -> str:
    """Key of everything that changes an answer, from the content key of a checkpoint and the name of the type."""
    settings = {"micro_batch": micro_batch, "most": most, "text": TEXT_TOKENS, "room": ROOM, "mask": MASK_SIDE}
    return content_key("vlm", VERSION, weights, PROMPT_VERSION, dtype, settings)


def _failed(reason: str, message: str) -> Answer:
    return Answer(status="failed", stage="predict", reason=reason, message=message)


# ── what the model sees ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sight:
    """A tile's pictures as the model is given them."""

    pixels: NDArray[np.uint8] = field(repr=False)
    """(V, 3, y, x) views, or (V, 2, 3, y, x) pairs of frames."""
    names: tuple[str, ...]
    """The words before each view or pair."""
    shown: NDArray[np.bool_] = field(repr=False)
    """(picture, y, x) True where a view of it shows something."""
    times: tuple[str, ...]
    """When something can be followed: seconds of the frames, or days; empty where a picture has no date."""
    notes: tuple[str, ...]

    @property
    def is_video(self) -> bool:
        """Its pictures are frames."""
        return self.pixels.ndim == 5


def _pictured(picture: Picture, views: Sequence[str]) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.bool_]]]:
    """The views of one picture, (3, y, x) each, and where each of them shows something."""
    pixels, shown = [], []
    for name in views:
        pixels.append(np.moveaxis(make_view(name, picture.bands, picture.data, picture.mask), -1, 0))
        planes = picture.data[[picture.bands.index(band) for band in VIEWS[name].bands]]
        shown.append(np.isfinite(planes).all(axis=0) & (picture.mask != Reason.NODATA))
    return pixels, shown


def _seconds(item: TileInput) -> list[float] | None:
    """When each frame of a video was taken, counted from the first; None where the pictures are no video."""
    times = [picture.datetime for picture in item.pictures]
    dated = [time for time in times if time is not None]
    sensors = {(picture.sensor, picture.bands) for picture in item.pictures}
    if len(dated) < max(2, len(times)) or len(sensors) != 1:
        return None
    gaps = [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(dated)]
    return [(time - dated[0]).total_seconds() for time in dated] if 0 < min(gaps) <= max(gaps) <= VIDEO_GAP_S else None


def _watch(item: TileInput, seconds: Sequence[float], words: Callable[[str], Sequence[int]]) -> _Sight:
    """The frames of a video two by two, the last one twice where their number is odd, by their sensor's first view.

    Where they are more than the model reads, every second or third one is shown, and so on.
    """
    first = item.pictures[0]
    grid = patch_grid(item.side_px, item.side_px)
    view = sensor_views(first.sensor, first.bands)[0]
    most = (MAX_TOKENS - ROOM) // (grid.tokens + len(words(frame_name(seconds[-1]))) + 2)
    step = -(-len(seconds) // (most * FRAMES))
    levels, shown = zip(*((part[0] for part in _pictured(picture, [view])) for picture in item.pictures), strict=True)
    kept = list(range(0, len(seconds), step))
    kept += kept[-1:] * (len(kept) % FRAMES)
    pairs = np.array(kept).reshape(-1, FRAMES)
    notes = [f"frames dropped: {len(seconds) - len(set(kept))} of {len(seconds)}"] if step > 1 else []
    notes += [] if SENSORS[first.sensor].calibrated else ["uncalibrated"]
    return _Sight(
        pixels=np.stack(levels)[pairs],
        names=tuple(frame_name(sum(seconds[frame] for frame in pair) / FRAMES) for pair in pairs.tolist()),
        shown=np.stack(shown),
        times=tuple(f"{round(seconds[frame], 3):g}s" for frame in dict.fromkeys(kept)),
        notes=tuple(notes),
    )


def _look_at(item: TileInput, words: Callable[[str], Sequence[int]]) -> _Sight:
    """What the model is given of a tile. Raises SensorError and ModelError for what cannot be shown to it."""
    grid = patch_grid(item.side_px, item.side_px)
    seconds = _seconds(item)
    if seconds is not None:
        return _watch(item, seconds, words)
    views = [sensor_views(picture.sensor, picture.bands) for picture in item.pictures]
    hours = _times(item) != tuple(dict.fromkeys(day_text(one.datetime) for one in item.pictures if one.datetime))
    longest = max(
        len(words(picture_name(name, datetime=picture.datetime, hours=hours, seen_share=0.5)))
        for picture, names in zip(item.pictures, views, strict=True)
        for name in names
    )
    kept, dropped = fitting(views, tokens_per_view=grid.tokens + longest + 2, limit=MAX_TOKENS - ROOM)
    lost = {name: None for picture in item.pictures for name in missing_views(picture.sensor, picture.bands)}
    cut = {name: None for names in dropped for name in names}
    pixels: list[NDArray[np.uint8]] = []
    told: list[str] = []
    seen: list[NDArray[np.bool_]] = []
    for picture, names in zip(item.pictures, kept, strict=True):
        levels, shown = _pictured(picture, names)
        pixels += levels
        told += [
            picture_name(name, datetime=picture.datetime, hours=hours, seen_share=float(part.mean()))
            for name, part in zip(names, shown, strict=True)
        ]
        seen.append(np.logical_or.reduce(shown))
    notes = [f"views missing: {', '.join(lost)}"] if lost else []
    notes += [f"views dropped: {', '.join(cut)}"] if cut else []
    notes += ["uncalibrated"] if any(not SENSORS[picture.sensor].calibrated for picture in item.pictures) else []
    return _Sight(
        pixels=np.stack(pixels), names=tuple(told), shown=np.stack(seen), times=_times(item), notes=tuple(notes)
    )


def _times(item: TileInput) -> tuple[str, ...]:
    """When something can be followed: the days of the pictures (UTC), or, where two of one sensor are of one day, their
    instants; each once, and empty where one has no date."""
    times = [picture.datetime for picture in item.pictures if picture.datetime is not None]
    if len(times) < len(item.pictures):
        return ()
    is_series = len({picture.sensor for picture in item.pictures}) == 1
    return time_texts(times) if is_series else tuple(dict.fromkeys(map(day_text, times)))


def _swapped(item: TileInput) -> TileInput:
    """The pictures in the other order, as if each had been taken on the date of the other."""
    dates = [picture.datetime for picture in item.pictures]
    pictures = [
        dataclasses.replace(picture, datetime=date)
        for picture, date in zip(item.pictures[::-1], dates, strict=True)
    ]  # fmt: skip
    return TileInput(tile=item.tile, pictures=tuple(pictures))


def _is_swapped_too(query: Query) -> bool:
    """A change whose answer can be compared with that for swapped dates."""
    task = TASKS[query.task]
    return task.category == "change" and task.dates == 2 and (task.answer == "mask" or NO_CHANGE in query.choices)


def _wrong_dates(item: TileInput, query: Query) -> str | None:
    """Why the pictures are not those of the query's dates; pictures of several sensors are one date, seen together."""
    count = len(item.pictures)
    if query.dates == 1:
        fits = 0 < count == len({picture.sensor for picture in item.pictures})
    else:
        fits = count == 2 if query.dates == 2 else count >= 2
    wanted = {1: "one of each sensor", 2: "2"}.get(query.dates, "at least 2")
    return None if fits else f"{count} pictures are given; a {query.task} question needs {wanted}"


def _why_unseen(item: TileInput, sight: _Sight, query: Query) -> tuple[str, str]:
    """The most frequent reason why no core pixel could be seen, and a message."""
    counts: dict[str, int] = {"nodata": 0}
    for picture, shown in zip(item.pictures, sight.shown, strict=True):
        mask, named = picture.mask[item.core], np.zeros(shown[item.core].shape, np.bool_)
        for name in query.unseen:
            hidden = unseen(mask, (name,))
            counts[name] = counts.get(name, 0) + int(hidden.sum())
            named |= hidden
        counts["nodata"] += int((~shown[item.core] & ~named).sum())
    reason = max(sorted(counts), key=lambda name: counts[name])
    return reason, f"no pixel of the core could be seen; {counts[reason]} pixels are {reason}"


def _seen(item: TileInput, sight: _Sight, query: Query) -> NDArray[np.bool_]:
    """(core, core) True where every picture shows the ground, of a series two of them or more."""
    each = [
        shown[item.core] & ~unseen(picture.mask[item.core], query.unseen)
        for picture, shown in zip(item.pictures, sight.shown, strict=True)
    ]
    seen: NDArray[np.bool_] = np.sum(each, axis=0) >= (len(each) if query.dates else 2)
    return seen


# ── what it is asked ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """One tile as it goes into a batch."""

    number: int
    """Of the input."""
    swapped: bool
    """Its dates are given the other way round."""
    parts: tuple[tuple[int, ...] | Slot, ...]
    """Words and places of pictures: what a batch has in common."""
    times: tuple[str, ...]
    """At which something can be followed."""
    pixels: NDArray[np.uint8] = field(repr=False, compare=False)
    queries: tuple[int, ...]
    """Numbers of the queries that are asked of it."""
    seen: Mapping[int, NDArray[np.float32]] = field(default_factory=dict, repr=False, compare=False)
    """By number of a query for a vector, (blocks,) what share of each block is of the seen core."""


def _seen_blocks(look: Look) -> NDArray[np.float32]:
    """(blocks,) the share of each merged block of the picture that is of the core and seen."""
    whole = np.zeros((look.side_px, look.side_px), np.float32)
    whole[look.core] = look.seen
    side = patch_grid(*whole.shape).rows // MERGE
    blocks = whole.reshape(side, look.side_px // side, side, look.side_px // side)
    return np.asarray(blocks.mean(axis=(1, 3)).ravel(), np.float32)


def _prompts(query: Query, choices: Sequence[str] | None = None) -> tuple[str, ...]:
    """The texts of a query's questions: one, or one for each label."""
    if TASKS[query.task].scoring == "independent":
        return label_questions(query, choices=choices)
    return (question_prompt(query, choices=choices),)


def _labels(query: Query) -> tuple[str, ...]:
    """What a thing in the answer may be called."""
    return tuple(mask_legend(query).values()) or query.targets


class VlmPredictor:
    """Answers by the vision-language model. See `earthmap.predict.Predictor`.

    Answers do not depend on which tiles or queries come with them, but for the last digits of their numbers.
    """

    def __init__(self, model: EarthOneVision, *, micro_batch: int = MICRO_BATCH, most: int = MOST_TOKENS) -> None:
        """`micro_batch`: tiles computed at once; `most`: tokens of a written answer. Raises ModelError for no tokens
        or tiles."""
        if micro_batch < 1 or not 1 <= most <= MAX_TOKENS:
            raise ModelError(
                f"batches of {micro_batch} tiles, answers of {most} tokens",
                expected=f"at least one tile, and 1 to {MAX_TOKENS} tokens",
            )
        self._model = model
        self._micro_batch, self._most = micro_batch, most
        self._grammars: dict[_Grammar, TokenAutomaton] = {}
        self._found_heads: AlignmentHeads | ModelError | None = None
        self._weights = model.key

    @property
    def key(self) -> str:
        """Key of weights, tokenizer and card, prompts, type of numbers, and how many tiles are computed at once."""
        dtype = str(self._model.model.dtype).removeprefix("torch.")
        return predictor_key(self._weights, dtype=dtype, micro_batch=self._micro_batch, most=self._most)

    def predict(self, inputs: Sequence[TileInput], queries: Sequence[Query]) -> list[list[Answer]]:
        """One list for each input, one answer for each query, in order; see `earthmap.predict.Predictor`."""
        return answer_each(self._predict, inputs, queries)

    def _predict(self, inputs: Sequence[TileInput], queries: Sequence[Query]) -> list[list[Answer]]:
        """The same of whole pictures, whatever footprints they have."""
        answers: list[list[Answer | None]] = [[None] * len(queries) for _ in inputs]
        looks: dict[tuple[int, int], Look] = {}
        asked: list[_Asked] = []
        needs = [self._tokens_of(query) for query in queries]
        for number, item in enumerate(inputs):
            asked += self._prepare(number, item, queries, needs, answers[number], looks)
        replies, lost = self._reply(asked, queries)
        for (tile, query), look in looks.items():
            error = lost.get((tile, query))
            answers[tile][query] = error or make_answer(
                queries[query],
                replies[tile, query, False][0],
                dataclasses.replace(look, notes=look.notes + replies[tile, query, False][1]),
                swapped=replies.get((tile, query, True), (None, ()))[0],
                temperature=self._temperature(inputs[tile], queries[query])[0],
            )
        return [[answer for answer in row if answer is not None] for row in answers]

    # ── before ───────────────────────────────────────────────────────────────────────────────────────────────

    def _prepare(
        self,
        number: int,
        item: TileInput,
        queries: Sequence[Query],
        needs: Sequence[int],
        answers: list[Answer | None],
        looks: dict[tuple[int, int], Look],
    ) -> Iterator[_Asked]:
        """What to ask of a tile; queries that are not asked have their answers put into `answers`."""
        unknown = [picture.sensor for picture in item.pictures if picture.sensor not in SENSORS]
        wrong = f"there is no sensor {unknown[0]!r}; expected one of {', '.join(SENSORS)}" if unknown else item.fault
        sight = None
        try:
            sight = _look_at(item, self._model.words.encode) if not wrong and item.pictures else None
        except (SensorError, ModelError) as error:
            wrong = str(error)
        if wrong or sight is None:
            answers[:] = [_failed("bad_input", wrong or "no pictures are given; expected at least one")] * len(queries)
            return
        parts = self._parts(item, sight)
        told = sum(part.grid.tokens if isinstance(part, Slot) else len(part) for part in parts)
        wanted = []
        for index, query in enumerate(queries):
            refused = self._refused(item, sight, query, tokens=told + needs[index])
            if refused is not None:
                answers[index] = refused
            else:
                notes = sight.notes + self._doubts(item, query)
                seen = _seen(item, sight, query)
                looks[number, index] = Look(side_px=item.side_px, core=item.core, seen=seen, notes=notes)
                wanted.append(index)
        if wanted:
            shares = {
                index: _seen_blocks(looks[number, index]) for index in wanted if TASKS[queries[index].task].is_vector
            }
            yield _Asked(
                number=number, swapped=False, parts=parts, times=sight.times, pixels=sight.pixels,
                queries=tuple(wanted), seen=shares,
            )  # fmt: skip
        again = tuple(index for index in wanted if _is_swapped_too(queries[index]))
        if again:
            turned = _swapped(item)
            other = _look_at(turned, self._model.words.encode)
            words = self._parts(turned, other)
            yield _Asked(
                number=number, swapped=True, parts=words, times=other.times, pixels=other.pixels, queries=again
            )

    def _parts(self, item: TileInput, sight: _Sight) -> tuple[tuple[int, ...] | Slot, ...]:
        grid = patch_grid(item.side_px, item.side_px)
        return tuple(self._model.words.opening([(name, grid) for name in sight.names], video=sight.is_video))

    def _tokens_of(self, query: Query) -> int:
        """Tokens of the longest of a query's questions with its answer; none where nothing is asked in words."""
        if TASKS[query.task].is_vector:
            return 0
        words = self._model.words
        longest = max(len(words.asking(prompt)) for prompt in _prompts(query))
        choices = [len(words.answering(choice)) for choice in closed_choices(query)]
        return longest + (max(choices) if choices else self._budget(query))

    def _budget(self, query: Query) -> int:
        """Tokens of a written answer at most; of a map of blocks none."""
        kind = TASKS[query.task].answer
        return {"share": 0, "text": min(TEXT_TOKENS, self._most)}.get(kind, self._most)

    def _refused(self, item: TileInput, sight: _Sight, query: Query, *, tokens: int) -> Answer | None:
        """Why a query is not asked of a tile; None where it is."""
        wrong = _wrong_dates(item, query)
        if wrong:
            return _failed("bad_input", wrong)
        is_vector = TASKS[query.task].is_vector  # what it sees, which nobody has to teach it to tell
        for picture in () if is_vector else item.pictures:
            why = self._model.card.refusal(query.task, picture.sensor)
            if why is not None:
                message = f"{query.task} of {picture.sensor} is not supported by this checkpoint: {why}"
                return Answer(status="skipped", reason="not_supported", message=message)
        seen = _seen(item, sight, query)
        if not seen.any():
            reason, message = _why_unseen(item, sight, query)
            return Answer(status="skipped", reason=reason, message=message)
        if is_vector:
            return little_seen(seen)
        if tokens > MAX_TOKENS:
            message = f"pictures, question and answer take {tokens:,} tokens; expected at most {MAX_TOKENS:,}"
            return _failed("bad_input", f"{message}; fix: ask a shorter question, or use fewer dates")
        if TASKS[query.task].answer == "share" and isinstance(self._heads(), ModelError):
            return _failed("no_alignment", str(self._heads()))
        return None

    def _doubts(self, item: TileInput, query: Query) -> tuple[str, ...]:
        """`unvalidated` where nothing was measured on real scenes, pictures of a size that it never saw, and where its
        probabilities were calibrated."""
        card = self._model.card
        measured = all(card.figure(query.task, picture.sensor) for picture in item.pictures)
        sizes = " or ".join(map(str, card.tile_sizes))
        odd = () if item.side_px in card.tile_sizes else (f"{item.side_px} pixels a side; learned from {sizes}",)
        doubts = () if measured and not odd else ("unvalidated", *odd)
        return doubts + self._temperature(item, query)[1]

    def _temperature(self, item: TileInput, query: Query) -> tuple[float, tuple[str, ...]]:
        """What the probabilities of an answer are tempered by, and the note that says where it was fitted."""
        found = self._model.card.calibration(query.task, [picture.sensor for picture in item.pictures])
        return (1.0, ()) if found is None else (found.temperature, (f"probabilities calibrated on {found.domain}",))

    def _heads(self) -> AlignmentHeads | ModelError:
        """The alignment heads, or why there are none."""
        if self._found_heads is None:
            try:
                self._found_heads = self._model.heads()
            except ModelError as error:
                self._found_heads = error
        return self._found_heads

    # ── the model ────────────────────────────────────────────────────────────────────────────────────────────

    def _reply(
        self, asked: Sequence[_Asked], queries: Sequence[Query]
    ) -> tuple[dict[tuple[int, int, bool], tuple[Reply, tuple[str, ...]]], dict[tuple[int, int], Answer]]:
        """Replies with notes by input, query and whether the dates were swapped; and those that failed."""
        groups: dict[tuple[Any, ...], list[_Asked]] = {}
        for one in asked:
            groups.setdefault((one.parts, one.times, one.queries), []).append(one)
        replies: dict[tuple[int, int, bool], tuple[Reply, tuple[str, ...]]] = {}
        lost: dict[tuple[int, int], Answer] = {}
        for group in groups.values():
            for start in range(0, len(group), self._micro_batch):
                batch = group[start : start + self._micro_batch]
                found, sizes = self._halving(batch, queries)
                notes = (f"micro-batch halved to {sizes[-1]}",) if sizes else ()
                for one, reply in zip(batch, found, strict=True):
                    for index in one.queries:
                        if isinstance(reply, ModelError):
                            lost[one.number, index] = _failed("model", str(reply))
                        else:
                            replies[one.number, index, one.swapped] = (reply[index], notes)
        return replies, lost

    def _halving(
        self, batch: Sequence[_Asked], queries: Sequence[Query]
    ) -> tuple[Sequence[dict[int, Reply] | ModelError], tuple[int, ...]]:
        """What is read of each tile, or why nothing is; and how many were tried at once where memory ran out."""
        try:
            return halving(lambda chunk: self._read(chunk, queries), batch)
        except ModelError as error:
            return [error] * len(batch), ()

    def _read(self, chunk: Sequence[_Asked], queries: Sequence[Query]) -> list[dict[int, Reply]]:
        """Replies by query, tile by tile, of tiles with one layout: one encoding and one prefix for all queries."""
        import torch

        engine = self._model.engine
        features = engine.encode(torch.from_numpy(np.stack([one.pixels for one in chunk])))
        wanted = {index: queries[index] for index in chunk[0].queries}
        found: list[dict[int, Reply]] = [{} for _ in chunk]
        answers = [
            self._map_blocks(features, wanted, chunk[0].pixels.shape[-2:]),
            self._embed(features, wanted, chunk),
        ]
        if sum(map(len, answers)) < len(wanted):
            stem = engine.read_stem(lay_out_stem(chunk[0].parts, device=engine.device), features)
            answers += [self._score(stem, wanted), self._write(stem, wanted, times=chunk[0].times)]
        for answered in answers:
            for index, replies in answered.items():
                for of_tile, reply in zip(found, replies, strict=True):
                    of_tile[index] = reply
        return found

    def _score(self, stem: Stem, wanted: Mapping[int, Query]) -> dict[int, list[Reply]]:
        """Closed queries, all in one pass, their choices named in their own order and in the reverse of it."""
        places: list[tuple[int, bool]] = []
        questions: list[Closed] = []
        for index, query in wanted.items():
            choices = closed_choices(query)
            for turned in (False, True) if choices else ():
                order = choices[::-1] if turned else choices
                answers = tuple(self._model.words.answering(choice) for choice in order)
                for prompt in _prompts(query, order):
                    questions.append(Closed(question=self._model.words.asking(prompt), choices=answers))
                    places.append((index, turned))
        if not questions:
            return {}
        shares: dict[tuple[int, bool], list[NDArray[np.float64]]] = {}
        for (index, turned), scores in zip(places, self._scores(stem, questions), strict=True):
            share = scores.double().softmax(dim=1).cpu().numpy()
            shares.setdefault((index, turned), []).append(share[:, ::-1] if turned else share)
        tiles = len(stem.last)
        return {
            index: [_both(shares[index, False], shares[index, True], tile) for tile in range(tiles)]
            for index, turned in shares
            if not turned
        }

    def _scores(self, stem: Stem, questions: Sequence[Closed]) -> Iterator[Any]:
        """Scores of closed questions, MOST_CLOSED at once: a tile may have hundreds of footprints."""
        for start in range(0, len(questions), MOST_CLOSED):
            yield from self._model.engine.score(stem, questions[start : start + MOST_CLOSED])

    def _write(self, stem: Stem, wanted: Mapping[int, Query], *, times: tuple[str, ...]) -> dict[int, list[Reply]]:
        """Written answers, those of one grammar together."""
        together: dict[tuple[_Grammar | None, int], list[int]] = {}
        for index, query in wanted.items():
            kind = TASKS[query.task].answer
            if not closed_choices(query) and kind not in ("share", "vector"):
                bound = None
                if query.shape and (times or kind != "tracks"):
                    bound = (query.shape, _labels(query), times if kind == "tracks" else ())
                together.setdefault((bound, self._budget(query)), []).append(index)
        found: dict[int, list[Reply]] = {}
        for (bound, most), indexes in together.items():
            prompts = [self._model.words.asking(_prompts(wanted[index])[0]) for index in indexes]
            grammar = None if bound is None else self._grammar(bound)
            budget = max(most, grammar.shortest) if grammar is not None else most
            written = self._model.engine.write(stem, prompts, most=budget, end=self._model.words.end, grammar=grammar)
            for place, index in enumerate(indexes):
                found[index] = [self._said(of_tile[place]) for of_tile in written]
        return found

    def _grammar(self, bound: _Grammar) -> TokenAutomaton:
        if bound not in self._grammars:
            if len(self._grammars) >= MOST_GRAMMARS:  # times differ from observation to observation
                self._grammars.clear()
            shape, labels, times = bound
            automaton = build_automaton([shape], labels=labels, side=MASK_SIDE, times=times)
            self._grammars[bound] = self._model.words.grammar(automaton)
        return self._grammars[bound]

    def _said(self, written: Written) -> Reply:
        """A written answer with its text token by token; a character of several tokens stands at the last of them."""
        words = self._model.words
        pieces = [words.decode([token]) for token in written.tokens]
        if "".join(pieces) != words.decode(written.tokens):
            texts = [words.decode(written.tokens[:count]).rstrip("�") for count in range(len(pieces) + 1)]
            pieces = [text[len(before) :] for before, text in itertools.pairwise(texts)]
        return Reply(pieces=tuple(pieces), log_probabilities=written.log_probabilities, ended=written.ended)

    def _map_blocks(
        self, features: VisualFeatures, wanted: Mapping[int, Query], size: tuple[int, int]
    ) -> dict[int, list[Reply]]:
        """Shares from the alignment heads: of each block the sum over the targets, the mean over the views."""
        shares = {index: query for index, query in wanted.items() if TASKS[query.task].answer == "share"}
        if not shares:
            return {}
        heads = self._heads()
        if isinstance(heads, ModelError):
            raise heads
        import torch

        from earthmap.model.alignment import class_map, text_vectors

        grid = patch_grid(*size)
        targets = tuple(dict.fromkeys(target for query in shares.values() for target in query.targets))
        with torch.inference_mode():
            texts = text_vectors(
                self._model.model.model.language_model, [self._model.words.encode(target) for target in targets]
            )
            found = class_map(heads, _as_float(features), texts.float()).cpu().numpy()
        blocks = _blocks(found, grid)
        return {
            index: [
                Reply(patches=np.minimum(of_tile[..., [targets.index(name) for name in query.targets]].sum(-1), 1.0))
                for of_tile in blocks
            ]
            for index, query in shares.items()
        }

    def _embed(
        self, features: VisualFeatures, wanted: Mapping[int, Query], chunk: Sequence[_Asked]
    ) -> dict[int, list[Reply]]:
        """What each tile looks like, where it is seen."""
        indexes = [index for index, query in wanted.items() if TASKS[query.task].is_vector]
        if not indexes:
            return {}
        import torch

        from earthmap.model.alignment import scene_vectors

        heads = self._heads()
        aligned, found = None if isinstance(heads, ModelError) else heads, _as_float(features)
        replies: dict[int, list[Reply]] = {}
        with torch.inference_mode():
            for index in indexes:
                seen = torch.from_numpy(np.stack([one.seen[index] for one in chunk])).to(found.last.device)
                vectors = scene_vectors(aligned, found, seen).cpu().numpy()
                replies[index] = [Reply(vector=vector) for vector in vectors]
        return replies


def _both(forward: Sequence[NDArray[np.float64]], turned: Sequence[NDArray[np.float64]], tile: int) -> Reply:
    """The mean over both orders of the choices, and whether they agree."""
    pairs = [(one[tile], other[tile]) for one, other in zip(forward, turned, strict=True)]
    return Reply(
        scores=tuple(tuple(((one + other) / 2).tolist()) for one, other in pairs),
        order_matters=any(one.argmax() != other.argmax() for one, other in pairs),
    )


def _blocks(found: NDArray[np.float32], grid: PatchGrid) -> NDArray[np.float32]:
    """(B, V · N, M) → (B, rows, columns, M), the mean over the views."""
    batch, _, targets = found.shape
    by_view = found.reshape(batch, -1, grid.rows // MERGE, grid.columns // MERGE, targets)
    return np.asarray(by_view.mean(axis=1), np.float32)


def _as_float(features: VisualFeatures) -> VisualFeatures:
    """In float32, in which the heads compute."""
    return dataclasses.replace(
        features, last=features.last.float(), levels=tuple(level.float() for level in features.levels)
    )
