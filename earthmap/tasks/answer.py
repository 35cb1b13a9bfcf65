"""An answer: the parsed, scored reply to one query about one tile at one observation.

Masks are (core_px, core_px) uint8 arrays, row 0 in the north: 0 is none of the targets, 255 unseen, and every other
code is named in the answer's legend. An answer about the whole tile has a mask too, which says what of it was seen.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.errors import QueryError
from earthmap.tasks.serialization import Instance, parse, quantize, serialize

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

UNSEEN = 255
"""Code of a mask's pixels that could not be seen."""

STATUSES = ("answered", "skipped", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grading:
    """What is said of one footprint of a tile: a choice, or why there is none."""

    value: str | None = None
    """One of the query's choices; None where it was not asked about."""
    probability: float | None = None
    """Of `value`; None where the predictor has none to give."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Probability of each choice."""
    reason: str | None = None
    """A short stable word for why there is no value: `cloud`, `nodata`, `outside`, `too_small`, `no_building` …"""
    message: str | None = None
    """The same for people."""
    notes: tuple[str, ...] = ()
    """What a reader of the value should know."""

    def __post_init__(self) -> None:
        if (self.value is None) == (self.reason is None):
            raise QueryError(f"a footprint with value {self.value} and reason {self.reason}", expected="one of them")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The reply to one query about one tile at one observation (or one pair of them)."""

    status: str
    """`answered`, `skipped` (a stated reason why it was not asked) or `failed` (it was, and broke)."""
    value: str | None = None
    """By the task's answer: `yes` or `no`, a share with 4 decimals, the choice, the labels said yes joined by `; `, the
    number of things found, the text shortened to 200 characters, the largest class of a mask; of footprints that are
    asked about one by one how many were."""
    probability: float | None = None
    """Of `value`, calibrated; None where the predictor has none to give."""
    fraction: float | None = None
    """Share of the seen core pixels that any target covers, 0 to 1."""
    mask: NDArray[np.uint8] | None = field(default=None, compare=False, repr=False)
    """(core_px, core_px) codes; for an answer about the whole tile 0 where it was seen; None where it was not asked."""
    legend: Mapping[int, str] = field(default_factory=dict)
    """What the mask's codes mean, without 0 and 255."""
    seen_px: int = 0
    """Core pixels that could be seen."""
    stage: str | None = None
    """Where a failure happened: `read`, `predict`."""
    reason: str | None = None
    """A short stable word for a skip or failure: `nodata`, `cloud`, `no_scene`, `missing_band`, `damaged` …"""
    message: str | None = None
    """The same for people, with what was expected and how to fix it."""
    address: str | None = None
    """The file that a failure is about."""
    notes: tuple[str, ...] = ()
    """What a reader of the answer should know: `uncalibrated`, `shadow counted as seen` …"""
    text: str | None = None
    """What the model wrote; None where it wrote nothing."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Probability of each choice, or of each label by itself."""
    instances: tuple[Instance, ...] = ()
    """What was found, in coordinates 0–1 of the picture (core and halo), x right and y down."""
    instance_scores: tuple[float, ...] = ()
    """Of each instance, 0 to 1; empty where the predictor has none to give."""
    gradings: tuple[Grading, ...] = ()
    """Of each footprint of the tile, in their order."""
    orders_agree: float | None = None
    """Of a change, the share of the seen ground of which the same is said when the dates are asked for in the other
    order; None where that was not asked."""
    embedding: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    """(D,) of length 1, to be compared with others of the same sensor and predictor; None where no vector is asked
    for."""

    def __post_init__(self) -> None:
        if self.instance_scores and len(self.instance_scores) != len(self.instances):
            raise QueryError(
                f"{len(self.instance_scores)} scores of {len(self.instances)} instances",
                expected="one of each, or none",
            )
        odd = [score for score in (*self.scores.values(), *self.instance_scores) if not 0.0 <= score <= 1.0]
        if odd:
            raise QueryError(f"a score of {odd[0]}", expected="a probability from 0 to 1")


def encode_mask(mask: NDArray[np.uint8]) -> bytes:
    """A square uint8 mask as zstd bytes; equal masks give equal bytes."""
    import pyarrow as pa

    data: bytes = pa.compress(np.ascontiguousarray(mask).tobytes(), codec="zstd", asbytes=True)
    return data


def decode_mask(data: bytes, side_px: int) -> NDArray[np.uint8]:
    """The inverse of `encode_mask` for a mask of `side_px` × `side_px`."""
    import pyarrow as pa

    raw = pa.decompress(data, decompressed_size=side_px * side_px, codec="zstd", asbytes=True)
    return np.frombuffer(raw, np.uint8).reshape(side_px, side_px)


def answer_schema() -> pa.Schema:
    """One row of an answer part, which is also one row of the ledger, and the input of the merge."""
    import pyarrow as pa

    text, strings, time = pa.string(), pa.list_(pa.string()), pa.timestamp("us", tz="UTC")
    # Its number among those that the question looks at, its name, and when it was measured.
    date = pa.struct([("number", pa.int32()), ("observation", text), ("time", time)])
    return pa.schema(
        [
            ("cell_id", text),
            ("tile_id", text),
            ("query", text),  # Query.content_key()
            ("observation", text),  # Observation.id; "before..after" for a pair; "" where there is none
            ("datetime_min", time),
            ("datetime_max", time),
            ("sensor", text),
            ("scenes", strings),
            ("predictor", text),
            ("status", text),
            ("value", text),
            ("probability", pa.float64()),
            ("fraction", pa.float64()),
            ("seen_px", pa.int32()),
            ("mask", pa.binary()),  # encode_mask of the core
            ("legend", text),  # JSON {"1": "water"}
            ("stage", text),
            ("reason", text),
            ("message", text),
            ("address", text),
            ("notes", strings),
            ("text", text),
            ("scores", text),  # JSON {"harbour": 0.7}
            ("instances", text),  # SLIS of the picture; empty where there are none
            ("instance_scores", pa.list_(pa.float64())),
            ("gradings", text),  # JSON of the Grading of each footprint of the tile, in their order; null without any
            ("orders_agree", pa.float64()),
            ("embedding", pa.list_(pa.float32())),
            ("dates", pa.list_(date)),  # of a series, what was looked at, in order of time
            ("pair", text),  # JSON of earthmap.pipeline.pairing.Pairing, of a change
            ("triage", text),  # JSON of earthmap.pipeline.triage.Verdict, where a coarse picture was asked first
        ]
    )


def answer_columns(answer: Answer) -> dict[str, Any]:
    """The columns of `answer_schema` that an answer itself fills.

    Instances are written in whole bins; one of which nothing is left by that is left out, with its score.

    Raises:
        QueryError: for an instance that cannot be written (its time, the size of its mask).
    """
    kept = [index for index, one in enumerate(answer.instances) if quantize(one) is not None]
    return {
        "status": answer.status,
        "value": answer.value,
        "probability": answer.probability,
        "fraction": answer.fraction,
        "seen_px": answer.seen_px,
        "mask": None if answer.mask is None else encode_mask(answer.mask),
        "legend": json.dumps({str(code): name for code, name in answer.legend.items()}, sort_keys=True),
        "stage": answer.stage,
        "reason": answer.reason,
        "message": answer.message,
        "address": answer.address,
        "notes": list(answer.notes),
        "text": answer.text,
        "scores": json.dumps(dict(answer.scores), sort_keys=True, allow_nan=False),
        "instances": serialize(answer.instances[index] for index in kept) if kept else "",
        "instance_scores": [answer.instance_scores[index] for index in kept] if answer.instance_scores else [],
        "gradings": gradings_text(answer.gradings) if answer.gradings else None,
        "orders_agree": answer.orders_agree,
        "embedding": None if answer.embedding is None else answer.embedding.tolist(),
    }


def answer_from_columns(row: Mapping[str, Any], *, side_px: int) -> Answer:
    """The answer in a row of `answer_schema`; what `answer_columns` wrote, instances as `quantize` leaves them.

    `side_px` is the side of the core, which is the mask's.
    """
    return Answer(
        mask=None if row["mask"] is None else decode_mask(row["mask"], side_px),
        legend={int(code): name for code, name in json.loads(row["legend"]).items()},
        notes=tuple(row["notes"]),
        scores=json.loads(row["scores"]),
        instances=parse(row["instances"]).instances,
        instance_scores=tuple(row["instance_scores"]),
        gradings=parse_gradings(row["gradings"]),
        embedding=None if row["embedding"] is None else np.array(row["embedding"], np.float32),
        **{name: row[name] for name in _PLAIN_COLUMNS},
    )


def gradings_text(gradings: Sequence[Grading]) -> str:
    """Gradings as JSON, what is not set left out; equal ones give equal text."""
    plain = [
        {name: value for name, value in dataclasses.asdict(one).items() if value not in (None, {}, ())}
        for one in gradings
    ]
    return json.dumps(plain, sort_keys=True, allow_nan=False)


def parse_gradings(text: str | None) -> tuple[Grading, ...]:
    """The inverse of `gradings_text`; none for None."""
    return tuple(Grading(**{**one, "notes": tuple(one.get("notes", ()))}) for one in json.loads(text or "[]"))


_PLAIN_COLUMNS = (
    "status", "value", "probability", "fraction", "seen_px", "stage", "reason", "message", "address", "text",
    "orders_agree",
)  # fmt: skip
