"""An answer is the same when it comes back from its row."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from earthmap.errors import QueryError
from earthmap.tasks import STATUSES, Answer, answer_columns, answer_from_columns, answer_schema
from earthmap.tasks.serialization import Instance, quantize
from tests.tasks.test_serialization import instances, same

SIDE = 4
words = st.one_of(st.none(), st.text(max_size=40))
shares = st.one_of(st.none(), st.floats(0, 1))
masks = st.one_of(
    st.none(),
    st.binary(min_size=SIDE * SIDE, max_size=SIDE * SIDE).map(
        lambda data: np.frombuffer(data, np.uint8).reshape(SIDE, SIDE)
    ),
)


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    """Answers with any of their fields, also ones that no predictor gives together."""
    found = tuple(draw(st.lists(instances, max_size=3)))
    scored = draw(st.booleans())
    return Answer(
        status=draw(st.sampled_from(STATUSES)),
        value=draw(words),
        probability=draw(shares),
        fraction=draw(shares),
        mask=draw(masks),
        legend=draw(st.dictionaries(st.integers(1, 254), st.text(max_size=9), max_size=12)),
        seen_px=draw(st.integers(0, SIDE * SIDE)),
        stage=draw(words),
        reason=draw(words),
        message=draw(words),
        address=draw(words),
        notes=tuple(draw(st.lists(st.text(max_size=9), max_size=3))),
        text=draw(words),
        scores=draw(st.dictionaries(st.text(max_size=9), st.floats(0, 1), max_size=5)),
        instances=found,
        instance_scores=tuple(draw(st.floats(0, 1)) for _ in found) if scored else (),
    )


def through_parquet(answer: Answer) -> Answer:
    """The answer after it was a row of a file."""
    columns = answer_columns(answer)
    assert set(columns) <= set(answer_schema().names)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([columns], schema=answer_schema()), sink)
    (row,) = pq.read_table(pa.BufferReader(sink.getvalue()), schema=answer_schema()).to_pylist()
    return answer_from_columns(row, side_px=SIDE)


def as_written(answer: Answer) -> Answer:
    """With its instances in whole bins, and without those of which nothing is left."""
    kept = [(index, left) for index, one in enumerate(answer.instances) if (left := quantize(one)) is not None]
    return dataclasses.replace(
        answer,
        instances=tuple(left for _, left in kept),
        instance_scores=tuple(answer.instance_scores[index] for index, _ in kept) if answer.instance_scores else (),
    )


@given(answers())
def test_what_is_written_is_read(answer: Answer) -> None:
    found, expected = through_parquet(answer), as_written(answer)
    assert found == expected
    assert all(map(same, found.instances, expected.instances))
    assert (found.mask is None) == (answer.mask is None)
    assert answer.mask is None or np.array_equal(found.mask, answer.mask)
    assert through_parquet(found) == found or any(one.kind == "oriented_box" for one in found.instances)


def test_every_field_has_its_column() -> None:
    fields = {field.name for field in dataclasses.fields(Answer)}
    assert set(answer_columns(Answer(status="answered"))) == fields <= set(answer_schema().names)


def test_an_empty_answer_is_an_empty_row() -> None:
    columns = answer_columns(Answer(status="answered"))
    assert (columns["text"], columns["scores"], columns["instances"], columns["instance_scores"]) == (
        None,
        "{}",
        "",
        [],
    )


def test_equal_scores_give_equal_bytes_in_any_order() -> None:
    one = answer_columns(Answer(status="answered", scores={"farm": 0.25, "harbour": 0.75}))
    other = answer_columns(Answer(status="answered", scores={"harbour": 0.75, "farm": 0.25}))
    assert one == other
    assert json.loads(one["scores"]) == {"farm": 0.25, "harbour": 0.75}


def test_a_score_goes_with_its_instance() -> None:
    ship = Instance(kind="box", geometry=shapely.box(0.1, 0.2, 0.3, 0.4), label="ship")
    speck = Instance(kind="polygon", geometry=shapely.box(0.1, 0.1, 0.1001, 0.1001))
    row = answer_columns(Answer(status="answered", instances=(speck, ship), instance_scores=(0.1, 0.9)))
    assert (row["instances"], row["instance_scores"]) == ("ship:box[100,200,300,400]", [0.9])


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"instance_scores": (0.5,)}, "1 scores of 0 instances"),
        ({"scores": {"a": 1.5}}, "1.5"),
        ({"scores": {"a": math.nan}}, "nan"),
    ],
)
def test_scores_that_are_none_are_refused(fields: dict[str, object], says: str) -> None:
    with pytest.raises(QueryError) as caught:
        Answer(status="answered", **fields)  # type: ignore[arg-type]
    assert says in str(caught.value)


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=20))
def test_a_vector_is_read_as_it_was_written(numbers: list[float]) -> None:
    vector = np.array(numbers, np.float32)
    found = through_parquet(Answer(status="answered", embedding=vector)).embedding
    assert found is not None
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, vector)
    assert through_parquet(Answer(status="answered")).embedding is None


def test_rows_from_before_there_were_vectors_have_none() -> None:
    older = answer_schema().remove(answer_schema().get_field_index("embedding"))
    columns = {name: value for name, value in answer_columns(Answer(status="answered")).items() if name != "embedding"}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([columns], schema=older), sink)
    (row,) = pq.read_table(pa.BufferReader(sink.getvalue()), schema=answer_schema()).to_pylist()
    assert answer_from_columns(row, side_px=SIDE).embedding is None
