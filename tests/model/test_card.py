"""Cards come back as they were written; damaged ones, and those of other views, are refused in one sentence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap.errors import ModelError
from earthmap.model.card import CARD_FILE, Card, Figure, card_text, read_card, write_card
from earthmap.sensors import SENSORS, VIEWS, Place
from earthmap.tasks import TASKS

FIGURE = Figure(
    task="presence",
    sensor="sentinel-2-l2a",
    metric="accuracy",
    score=0.9,
    low=0.85,
    high=0.94,
    constant=0.7,
    spectral=0.87,
    tiles=120,
    data="held-out scenes",
)
CARD = Card(preset="nano", tile_sizes=(128,), answers=(FIGURE,))

SCORES = st.floats(-1, 1).flatmap(
    lambda score: st.tuples(st.just(score), st.floats(-2, score), st.floats(score, 2), st.floats(-1, 1))
)


@given(st.sampled_from(sorted(TASKS)), st.sampled_from(sorted(SENSORS)), SCORES, st.none() | st.floats(-1, 1))
def test_a_card_comes_back(
    tmp_path_factory: pytest.TempPathFactory, task: str, sensor: str, scores: tuple[float, ...], other: float | None
) -> None:
    score, low, high, constant = scores
    figure = replace(
        FIGURE, task=task, sensor=sensor, score=score, low=low, high=high, constant=constant, spectral=other
    )
    card = replace(CARD, answers=(figure,))
    folder = tmp_path_factory.getbasetemp()
    write_card(card, folder)
    again = read_card(folder)
    assert again == card
    assert card_text(again) == card_text(card)
    assert again.figure(task, sensor) == figure
    assert figure.is_preferred <= figure.is_supported


def test_a_card_holds_every_view_and_place_whole(tmp_path: Path) -> None:
    write_card(CARD, tmp_path)
    told = json.loads((tmp_path / CARD_FILE).read_text())
    assert set(told["views"]) == set(VIEWS)
    assert set(told["places"]) == set(SENSORS)
    assert told["views"]["thermal"]["channels"][0] == {
        "band": "lwir11", "minus": None, "low": 230.0, "high": 350.0, "curve": "linear", "unit": "K",
    }  # fmt: skip
    assert [place["views"] for place in told["places"]["sentinel-2-l2a"]] == [
        ["rgb"], ["rededge"], ["swir"], ["nir-coastal"],
    ]  # fmt: skip


def test_a_folder_without_a_card_has_this_versions_views(tmp_path: Path) -> None:
    card = read_card(tmp_path)
    assert card == Card()
    assert card.preset is None
    assert card.figure("presence", "sentinel-2-l2a") is None


def test_figures_say_what_is_supported_and_preferred() -> None:
    assert FIGURE.is_supported
    assert not FIGURE.is_preferred
    assert replace(FIGURE, spectral=0.84).is_preferred
    assert replace(FIGURE, spectral=None).is_preferred
    assert not replace(FIGURE, constant=0.86).is_supported
    assert not replace(FIGURE, constant=0.86, spectral=None).is_preferred


def test_what_was_not_taught_is_not_asked_unless_it_was_measured() -> None:
    assert CARD.refusal("caption", "thermal") is None, "nobody knows what it was taught"
    card = replace(CARD, taught=("presence",))
    assert card.refusal("presence", "thermal") is None
    assert card.refusal("caption", "thermal") == "it was not taught to answer that"
    assert replace(card, taught=()).refusal("presence", "sentinel-2-l2a") is None, "measured, it beats the constant"
    bad = replace(card, answers=(replace(FIGURE, constant=0.99),))
    assert bad.refusal("presence", "sentinel-2-l2a") == f"measured on {FIGURE.data}, it beats no constant"


def test_figures_of_other_prompts_do_not_hold() -> None:
    assert CARD.figure("presence", "sentinel-2-l2a") == FIGURE
    assert CARD.figure("presence", "thermal") is None
    assert replace(CARD, prompt_version="0").figure("presence", "sentinel-2-l2a") is None


def _edited(change: Any) -> bytes:
    def write(folder: Path) -> bytes:
        write_card(CARD, folder)
        told = json.loads((folder / CARD_FILE).read_text())
        change(told)
        return json.dumps(told).encode()

    return write  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (b"", "damaged: Invalid JSON"),
        (b"\xff\xfe", "damaged"),
        (b"[]", "damaged"),
        (b"[" * 200_000, "recursion limit"),
        (b" " * 4_000_001, "over 4,000,000 bytes"),
        (_edited(lambda told: told.update(format=2)), "a card of format 2"),
        (_edited(lambda told: told.update(more=1)), "more Unexpected"),
        (_edited(lambda told: told.update(tile_sizes=[100])), "multiples of 32"),
        (_edited(lambda told: told.update(tile_sizes=[])), "multiples of 32"),
        (_edited(lambda told: told.update(preset=3)), "preset Input should be a valid string"),
        (_edited(lambda told: told["answers"].append(told["answers"][0])), "one figure of each"),
        (_edited(lambda told: told["answers"][0].update(low=0.95)), "inside its interval"),
        (_edited(lambda told: told["answers"][0].update(score=float("nan"))), "finite numbers"),
        (_edited(lambda told: told["answers"][0].update(score="0.9")), "answers.0.score"),
        (_edited(lambda told: told["views"]["rgb"]["channels"].pop()), "views.rgb.channels.2 Field required"),
        (_edited(lambda told: told["views"]["rgb"]["channels"][0].update(high=0.5)), "trained on the views rgb as"),
        (_edited(lambda told: told["views"].update(gone=told["views"]["rgb"])), "trained on the views gone as"),
        (_edited(lambda told: told["places"]["thermal"].pop()), "with the views of thermal as"),
        (_edited(lambda told: told["places"].update(gone=[])), "with the views of gone as"),
    ],
)
def test_cards_that_are_refused(tmp_path: Path, written: Any, message: str) -> None:
    (tmp_path / CARD_FILE).write_bytes(written if isinstance(written, bytes) else written(tmp_path))
    with pytest.raises(ModelError, match=message) as caught:
        read_card(tmp_path)
    assert "\n" not in str(caught.value)
    assert "expected" in str(caught.value) or "to fix" in str(caught.value)


def test_views_and_sensors_that_are_new_here_do_no_harm(tmp_path: Path) -> None:
    """An older checkpoint knows fewer views and sensors: what it knows is still made alike."""
    older = replace(
        CARD,
        views={name: VIEWS[name] for name in ("rgb", "swir")},
        places={"sentinel-2-l2a": SENSORS["sentinel-2-l2a"].places},
    )
    write_card(older, tmp_path)
    assert read_card(tmp_path) == older
    write_card(replace(older, places={"sentinel-2-l2a": (Place(views=("rgb",)),)}), tmp_path)
    with pytest.raises(ModelError, match="with the views of sentinel-2-l2a"):
        read_card(tmp_path)
