"""The table of stages: what it means, and that a wrong one is refused with its fault by name."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from earthmap.errors import TrainingError
from earthmap.training import MODALITIES, default_table, load_table, parse_table
from earthmap.training.stages import GROUPS, OWN_RATE, own_table, rate_at

STAGE = {"name": "one", "modalities": ["optical"], "rates": {"decoder": 0.001}, "steps": 10, "tokens": 100}


def _table(*changes: dict[str, object]) -> str:
    return yaml.safe_dump({"stages": [{**STAGE, **change} for change in changes]})


def test_the_default_learns_every_modality_and_repeats_what_it_knows() -> None:
    table = default_table()
    assert {name for stage in table.stages for name in stage.modalities} == set(MODALITIES)
    assert table.stages[0].modalities == ("optical",)
    assert all(stage.replay > 0 for stage in table.stages[1:])
    assert all(table.earlier(number) for number in range(1, len(table.stages)))


def test_a_stage_replays_what_it_does_not_teach_itself() -> None:
    table = parse_table(
        _table({}, {"name": "two", "modalities": ["sar", "optical"]}, {"name": "three", "modalities": "video"}),
        source="t",
    )
    assert table.earlier(0) == ()
    assert table.earlier(1) == ()
    assert table.earlier(2) == ("optical", "sar")


@given(st.lists(st.integers(1, 50), min_size=1, max_size=5), st.data())
def test_every_step_belongs_to_one_stage(counts: list[int], data: st.DataObject) -> None:
    table = parse_table(_table(*({"name": str(i), "steps": count} for i, count in enumerate(counts))), source="t")
    step = data.draw(st.integers(0, table.steps - 1))
    number, within = table.at(step)
    assert sum(counts[:number]) + within == step
    assert 0 <= within < counts[number]
    with pytest.raises(TrainingError, match="expected one of 0 to"):
        table.at(table.steps)


def test_rates_rise_and_fall_to_nothing() -> None:
    stage = parse_table(_table({"steps": 100, "warmup": 10}), source="t").stages[0]
    rates = [rate_at(stage, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert all(one <= other for one, other in itertools.pairwise(rates[:10]))
    assert all(one >= other for one, other in itertools.pairwise(rates[10:]))
    assert rates[100] == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"rates": {"encoder": 0.1}}, "'encoder' is no group; there are patch_embedding"),
        ({"modalities": ["radar"]}, "'radar' is no modality; there are optical"),
        ({"mixture": {"chat": 1.0}}, "'chat' is no task category"),
        ({"rates": {"decoder": -0.1}}, r"stages\.0\.rates\.decoder: .*greater than or equal to 0"),
        ({"rates": {"decoder": float("nan")}}, "finite"),
        ({"rates": {"decoder": 0.0}}, "nothing learns"),
        ({"rates": {}}, "nothing learns"),
        ({"mixture": {"vqa": 0.0}}, "nothing is asked"),
        ({"modalities": []}, "modalities"),
        ({"modalities": ["sar", "sar"]}, "named twice"),
        ({"steps": 0}, r"stages\.0\.steps"),
        ({"steps": "many"}, r"stages\.0\.steps"),
        ({"warmup": 11}, "a warm-up of 11 of 10 steps"),
        ({"replay": 1.0}, "replay"),
        ({"replay": 0.5}, "has nothing to replay"),
        ({"optimizer": "sgd"}, "optimizer"),
    ],
)
def test_a_wrong_stage_is_refused_by_name(change: dict[str, object], fault: str) -> None:
    with pytest.raises(TrainingError, match=fault) as caught:
        parse_table(_table(change), source="mine.yaml")
    assert str(caught.value).startswith("mine.yaml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "- 1", "stages: 3", "stages: []", "{", "stages: [1]", "other: 1", "\x00"])
def test_what_is_no_table_is_refused(text: str) -> None:
    with pytest.raises(TrainingError, match=r"mine\.yaml"):
        parse_table(text, source="mine.yaml")


def test_two_stages_of_one_name_are_refused() -> None:
    with pytest.raises(TrainingError, match="two stages are named 'one'"):
        parse_table(_table({}, {}), source="t")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="cannot be read"):
        load_table(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TrainingError, match="cannot be read"):
        load_table(tmp_path / "bytes.yaml")
    (tmp_path / "long.yaml").write_bytes(b" " * 1_000_001)
    with pytest.raises(TrainingError, match="at most 1000000"):
        load_table(tmp_path / "long.yaml")


def test_equal_tables_have_one_key_and_no_differences(tmp_path: Path) -> None:
    table = default_table()
    (tmp_path / "same.yaml").write_text(yaml.safe_dump(table.model_dump(mode="json"), sort_keys=True))
    same = load_table(tmp_path / "same.yaml")
    assert same.content_key() == table.content_key()
    assert table.differences(same) == []


def test_differences_are_named() -> None:
    one = parse_table(_table({}, {"name": "two"}), source="t")
    other = parse_table(_table({"steps": 20}, {"name": "three"}), source="t")
    assert one.differences(other) == ["stage two is gone", "stage three is new", "one.steps: 10 → 20"]
    swapped = parse_table(_table({"name": "two"}, {}), source="t")
    assert one.differences(swapped) == ["order: one, two → two, one"]
    assert one.content_key() != swapped.content_key() != other.content_key()


@pytest.mark.parametrize(
    "text",
    [
        "stages: 2024-99-99",
        "stages: " + "9" * 5000,
        "[" * 5000,
        "stages: &a [*a]",
        "? [1]\n: 2",
        "!!python/object:os.system {}",
        "stages: [{1: 2}]",
    ],
)
def test_what_a_reader_of_yaml_stumbles_over_is_refused_in_a_line(text: str) -> None:
    with pytest.raises(TrainingError, match=r"^mine\.yaml") as caught:
        parse_table(text, source="mine.yaml")
    assert "\n" not in str(caught.value)


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates()
_NESTED = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


@given(
    st.dictionaries(st.sampled_from([*STAGE, "mixture", "replay", "warmup", "alignment_weight"]), _NESTED, max_size=4)
)
def test_whatever_stands_in_a_stage_it_is_refused_or_means_something(change: dict[str, object]) -> None:
    """A table that is not refused has steps, and weights that can be added up."""
    try:
        table = parse_table(_table(change), source="mine.yaml")
    except TrainingError:
        return
    stage = table.stages[0]
    assert 0 < table.steps <= 10**9
    assert all(0.0 <= rate_at(stage, step) <= 1.0 for step in (0, stage.steps // 2, stage.steps))
    assert 0 < sum(stage.mixture.values()) < float("inf")
    assert all(0.0 <= rate <= 1.0 for rate in stage.rates.values())


@pytest.mark.parametrize("name", ["mixture", "rates"])
@given(value=st.floats(max_value=-1e-300) | st.just(float("nan")) | st.just(float("inf")))
def test_a_rate_or_weight_below_nothing_is_refused(name: str, value: float) -> None:
    key = {"mixture": "vqa", "rates": "mergers"}[name]
    change: dict[str, object] = {name: {**({"decoder": 0.1} if name == "rates" else {"caption": 1.0}), key: value}}
    with pytest.raises(TrainingError, match=rf"stages\.0\.{name}\.{key}"):
        parse_table(_table(change), source="t")


def test_the_stage_of_own_data_learns_whatever_it_shows_and_leaves_patches_alone() -> None:
    table = own_table(300)
    assert (table.steps, table.stages[0].modalities, table.stages[0].warmup) == (300, MODALITIES, 15)
    assert table.stages[0].rates == {group: OWN_RATE for group in GROUPS if group != "patch_embedding"}
    assert own_table(1, rate=1e-5).content_key() != own_table(1).content_key()
    for steps, rate in ((0, 1e-4), (10, 2.0), (10, float("nan")), (10, 0.0)):
        with pytest.raises(TrainingError, match=f"one stage of {steps} steps"):
            own_table(steps, rate=rate)
