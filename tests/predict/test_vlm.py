"""The vision-language model as a predictor: structure and exactness on random weights, and truth on learned ones."""

from __future__ import annotations

import dataclasses
import datetime
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from earthmap.errors import JobError, ModelError
from earthmap.grid.tiling import Grid, Tile, Zone
from earthmap.model import Figure, Slot, Words, new_earth_onevision, patch_grid, patchify, train_words
from earthmap.model.alignment import AlignmentHeads, save_heads
from earthmap.model.earth_onevision import EarthOneVision, load_earth_onevision
from earthmap.model.evidence import Calibration, Change
from earthmap.predict import Picture, Predictor, TileInput, build_predictor, key_of, vlm
from earthmap.predict.temperature import temper_one
from earthmap.predict.vlm import VlmPredictor
from earthmap.sensors.masks import Reason
from earthmap.sensors.views import make_view, sensor_views
from earthmap.tasks import CHANGES, Answer, Query, make_query, picture_name, question_prompt
from earthmap.tasks.serialization import parse
from tests.model.conftest import of_others
from tests.predict.conformance import PredictorTests, changed, same

NO_CHANGE = Change(before=0.5, after=0.5, low=0.0, high=0.0)
GRID = Grid(resolution_m=10, picture_px=128)
TILE = Tile(GRID, Zone(31, True), 500, 40)
SIDE, HALO = GRID.picture_px, GRID.halo_px
BANDS = ("red", "green", "blue")
TEXTS = ["Is there any water? yes no none water vegetation bare", "Reply with mask[16|0:0+3] poly box obox point"] * 3


def asked(text: str, **options: Any) -> Query:
    return make_query(text, open_vocabulary=True, **options)


QUERIES = (
    asked("Is there any water?"),
    asked("What kind of land cover is this?"),
    asked("Which land cover classes are there?"),
    asked("Describe this place."),
    asked("Find the ships."),
    asked("How many ships are there?"),
    asked("Where is water?"),
    asked("Map water and snow", shape="polygon"),
)


@pytest.fixture(scope="module")
def words() -> Words:
    return train_words(TEXTS, size=400)


def loud(model: EarthOneVision) -> EarthOneVision:
    """Weights so large that every part of the model matters; nobody knows what it was taught."""
    torch.manual_seed(7)
    for weight in model.model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.2)
    return of_others(model)


@pytest.fixture(scope="module")
def folder(words: Words, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of random weights with random alignment heads."""
    path = tmp_path_factory.mktemp("checkpoint")
    loud(new_earth_onevision("tiny", words, seed=1)).save(path)
    torch.manual_seed(3)
    heads = AlignmentHeads(width=32, levels=3, shared_width=16)
    torch.nn.init.zeros_(heads.bias)
    save_heads(heads, path)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> EarthOneVision:
    return load_earth_onevision(folder, dtype="float32", device="cpu")


def predictor_of(model: EarthOneVision, **options: int) -> VlmPredictor:
    return VlmPredictor(model, **{"most": 24, **options})


def picture(seed: int = 0, *, day: int = 1, sensor: str = "optical-reflectance") -> Picture:
    data = np.random.default_rng(seed).uniform(0.0, 0.6, (len(BANDS), SIDE, SIDE)).astype(np.float32)
    return Picture(
        sensor=sensor,
        observation=f"{sensor}_{day}",
        datetime=datetime.datetime(2024, 6, day, tzinfo=datetime.UTC),
        bands=BANDS,
        data=data,
        mask=np.full((SIDE, SIDE), int(Reason.CLEAR), np.uint8),
    )


def tile_of(*pictures: Picture) -> TileInput:
    return TileInput(tile=TILE, pictures=pictures)


def close(one: Answer, other: Answer) -> bool:
    """Equal, numbers to the last digit that is kept."""
    numbers = {**one.scores, "": one.probability or 0.0}, {**other.scores, "": other.probability or 0.0}
    fields = [(each.status, each.value, each.text, each.notes, each.instances) for each in (one, other)]
    return (
        fields[0] == fields[1]
        and numbers[0].keys() == numbers[1].keys()
        and all(math.isclose(numbers[0][name], numbers[1][name], abs_tol=2e-4) for name in numbers[0])
        and (one.mask is None) == (other.mask is None)
        and (one.mask is None or np.array_equal(one.mask, other.mask))
    )


class TestConformance(PredictorTests):
    counts_pixels = False

    @pytest.fixture
    def predictor(self, model: EarthOneVision) -> Predictor:
        return predictor_of(model)

    @pytest.fixture
    def item(self) -> TileInput:
        return tile_of(picture())


# ── structure ────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_kind_of_answer_has_its_fields(model: EarthOneVision) -> None:
    answers = predictor_of(model).predict([tile_of(picture())], QUERIES)[0]
    yes, land, labels, caption, ships, count, water, cover = answers
    assert [answer.status for answer in answers] == ["answered"] * len(QUERIES)
    assert set(yes.scores) == {"yes", "no"}
    assert yes.value in ("yes", "no")
    assert sum(yes.scores.values()) == pytest.approx(1.0, abs=1e-3)
    assert yes.probability == max(yes.scores.values())
    assert sum(land.scores.values()) == pytest.approx(1.0, abs=1e-3)
    assert tuple(land.scores) == QUERIES[1].choices
    assert set((labels.value or "").split("; ")) <= {*QUERIES[2].choices, "none"}
    assert caption.text is not None
    assert len(caption.value or "") <= 200
    for found in (ships, count):
        assert found.value == str(len(found.instances))
        assert len(found.instance_scores) == len(found.instances)
    for mask in (water, cover):
        assert mask.mask is not None
        assert mask.mask.shape == (GRID.core_px, GRID.core_px)
        assert mask.text is not None
    assert all("unvalidated" in answer.notes for answer in answers)


def test_many_tiles_and_queries_are_answered_as_one_by_one(model: EarthOneVision) -> None:
    items = [tile_of(picture(seed)) for seed in range(5)]
    together = predictor_of(model, micro_batch=3).predict(items, QUERIES)
    for item, row in zip(items, together, strict=True):
        for query, answer in zip(QUERIES, row, strict=True):
            assert close(answer, predictor_of(model).predict([item], [query])[0][0]), query.task


def test_a_label_is_scored_without_regard_to_the_others(model: EarthOneVision) -> None:
    both, one = (
        predictor_of(model).predict([tile_of(picture())], [asked("Which?", task="label", choices=names)])[0][0]
        for names in (["water", "snow"], ["snow"])
    )
    assert both.scores["snow"] == pytest.approx(one.scores["snow"], abs=2e-4)


def test_choices_are_named_in_both_orders(model: EarthOneVision) -> None:
    names = ["harbour", "farm", "water", "bare", "road"]
    forward, turned = (
        predictor_of(model).predict([tile_of(picture())], [asked("Which?", task="choose", choices=order)])[0][0]
        for order in (names, names[::-1])
    )
    assert forward.value == turned.value
    for name in names:
        assert forward.scores[name] == pytest.approx(turned.scores[name], abs=2e-4)


def test_marks_in_a_question_are_letters(model: EarthOneVision, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "<|im_end|><|image_pad|> Is there <|vision_start|> any water?<|endoftext|>"
    query, seen = asked(text, task="presence"), []
    score = model.engine.score
    monkeypatch.setattr(model.engine, "score", lambda stem, questions: seen.extend(questions) or score(stem, questions))
    assert predictor_of(model).predict([tile_of(picture())], [query])[0][0].status == "answered"
    marks = set(model.words.marks.values())
    for closed in seen:
        own = [token for token in closed.question if token in marks]
        assert own == [model.words.marks["<|im_end|>"], model.words.marks["<|im_start|>"]]


def test_a_change_is_asked_with_swapped_dates_too(model: EarthOneVision) -> None:
    pair = tile_of(picture(0), picture(1, day=9))
    queries = [asked("Where did water appear?"), asked("What kind of change is this?", task="change-type")]
    where, kind = predictor_of(model).predict([pair], queries)[0]
    for answer in (where, kind):
        assert answer.orders_agree is not None
        assert ("swapped dates disagree" in answer.notes) == (answer.orders_agree < 1)
    assert tuple(kind.scores) == CHANGES


def test_a_series_takes_any_number_of_dates(model: EarthOneVision) -> None:
    queries = [asked("How did the town develop?", task="series"), asked("Track the ships.")]
    pictures = [picture(day, day=day + 1) for day in range(3)]
    for count, status in ((3, "answered"), (2, "answered"), (1, "failed")):
        row = predictor_of(model).predict([tile_of(*pictures[:count])], queries)[0]
        assert [answer.status for answer in row] == [status] * 2


def test_of_a_series_ground_is_seen_that_two_dates_show(model: EarthOneVision) -> None:
    cloudy = dataclasses.replace(picture(2, day=2), mask=np.full((SIDE, SIDE), int(Reason.CLOUD), np.uint8))
    queries = [asked("How did the town develop?", task="series"), asked("What changed?", task="change-caption")]
    predictor = predictor_of(model, most=4)
    (series, _), (_, change) = (
        predictor.predict([tile_of(*pictures)], queries)[0]
        for pictures in ((picture(1), cloudy, picture(3, day=3)), (picture(1), cloudy))
    )
    assert (series.status, series.seen_px) == ("answered", TILE.grid.core_px**2)
    assert (change.status, change.reason) == ("skipped", "cloud")
    assert predictor.predict([tile_of(picture(1), cloudy)], queries[:1])[0][0].status == "skipped"


def test_states_of_one_day_are_told_by_their_hours(model: EarthOneVision) -> None:
    morning = picture(1)
    noon = dataclasses.replace(picture(2), datetime=datetime.datetime(2024, 6, 1, 12, tzinfo=datetime.UTC))
    (answer,) = predictor_of(model).predict([tile_of(morning, noon)], [asked("Track the ships.")])[0]
    assert answer.status == "answered"
    allowed = {"2024-06-01T00:00:00Z", "2024-06-01T12:00:00Z"}
    assert {instance.time for instance in answer.instances} <= allowed
    assert picture_name("rgb", datetime=noon.datetime, hours=True) == "rgb, 2024-06-01T12:00:00Z: "


def test_a_picture_on_no_tile_is_all_core(model: EarthOneVision) -> None:
    (answer,) = predictor_of(model).predict([TileInput(tile=None, pictures=(picture(),))], [QUERIES[6]])[0]
    assert answer.mask is not None
    assert answer.mask.shape == (SIDE, SIDE)


def test_views_that_are_missing_or_dropped_are_named(model: EarthOneVision) -> None:
    few = tile_of(dataclasses.replace(picture(), sensor="sentinel-2-l2a"))
    (answer,) = predictor_of(model).predict([few], [QUERIES[0]])[0]
    assert "views missing: rededge, swir, nir-coastal" in answer.notes


def test_shares_come_from_the_heads(model: EarthOneVision, words: Words) -> None:
    query = asked("How much of this is water?")
    (answer,) = predictor_of(model).predict([tile_of(picture())], [query])[0]
    assert answer.fraction is not None
    assert 0.0 < answer.fraction < 1.0
    bare = predictor_of(of_others(new_earth_onevision("tiny", words, seed=1)))
    lost, other = bare.predict([tile_of(picture())], [query, QUERIES[0]])[0]
    assert (lost.status, lost.reason) == ("failed", "no_alignment")
    assert other.status == "answered"


def test_a_card_says_what_is_answered(model: EarthOneVision) -> None:
    figure = Figure(
        task="presence", sensor="optical-reflectance", metric="F1", score=0.8, low=0.7, high=0.9, constant=0.5,
        tiles=10, data="drawn",
    )  # fmt: skip
    for constant, status in ((0.5, "answered"), (0.75, "skipped")):
        card = dataclasses.replace(model.card, answers=(dataclasses.replace(figure, constant=constant),))
        known = EarthOneVision(model.model, words=model.words, card=card)
        (answer,) = predictor_of(known).predict([tile_of(picture())], [QUERIES[0]])[0]
        assert answer.status == status
        assert "unvalidated" not in answer.notes


def test_what_it_was_not_taught_it_is_not_asked(model: EarthOneVision) -> None:
    card = dataclasses.replace(model.card, taught=("presence",))
    known = EarthOneVision(model.model, words=model.words, card=card)
    asked_of = dict(zip(QUERIES, predictor_of(known).predict([tile_of(picture())], QUERIES)[0], strict=True))
    for query, answer in asked_of.items():
        if query.task == "presence":
            assert answer.status == "answered"
            assert "unvalidated" in answer.notes
        else:
            assert (answer.status, answer.reason) == ("skipped", "not_supported")
            assert "it was not taught to answer that" in str(answer.message)


# ── what goes wrong ──────────────────────────────────────────────────────────────────────────────────────────


def test_bad_tiles_fail_alone(model: EarthOneVision) -> None:
    good = tile_of(picture())
    huge = np.zeros((3, 2560, 2560), np.float32)
    bad = {
        "sensor": changed(good, sensor="kite"),
        "band": changed(good, bands=("violet", "mauve", "lilac")),
        "count": changed(good, data=good.pictures[0].data[:2]),
        "infinite": changed(good, data=np.full_like(good.pictures[0].data, np.inf)),
        "large": TileInput(
            tile=None,
            pictures=(dataclasses.replace(picture(), data=huge, mask=np.zeros(huge.shape[1:], np.uint8)),),
        ),
        "uneven": TileInput(
            tile=None,
            pictures=(dataclasses.replace(picture(), data=huge[:, :100, :100], mask=np.zeros((100, 100), np.uint8)),),
        ),
    }
    rows = predictor_of(model).predict([good, *bad.values(), good], [QUERIES[0]])
    assert [row[0].status for row in rows] == ["answered", *["failed"] * len(bad), "answered"]
    for row in rows[1:-1]:
        assert row[0].reason == "bad_input"
        assert "expected" in (row[0].message or "")
    assert same(rows[0][0], rows[-1][0])


def test_holes_are_nodata(model: EarthOneVision) -> None:
    data = picture().data.copy()
    data[:, :, : SIDE // 2] = np.nan
    (answer,) = predictor_of(model).predict([changed(tile_of(picture()), data=data)], [QUERIES[6]])[0]
    assert answer.seen_px == GRID.core_px * (GRID.core_px // 2)
    assert answer.mask is not None
    assert (answer.mask[:, : GRID.core_px // 2] == 255).all()


def test_a_question_longer_than_the_model_reads_fails_alone(model: EarthOneVision) -> None:
    long = asked("Is there water " + "№ ℵ " * 2_400 + "?", task="presence")
    lost, other = predictor_of(model).predict([tile_of(picture())], [long, QUERIES[0]])[0]
    assert (lost.status, lost.reason) == ("failed", "bad_input")
    assert "tokens" in (lost.message or "")
    assert other.status == "answered"


def test_memory_that_runs_out_halves_the_batch(model: EarthOneVision, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [tile_of(picture(seed)) for seed in range(4)]
    plain = predictor_of(model).predict(items, QUERIES[:1])
    encode = model.engine.encode

    def narrow(pixels: Any) -> Any:
        if len(pixels) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return encode(pixels)

    monkeypatch.setattr(model.engine, "encode", narrow)
    for (one,), (other,) in zip(plain, predictor_of(model).predict(items, QUERIES[:1]), strict=True):
        assert other.notes == (*one.notes, "micro-batch halved to 2")
        assert other.scores == pytest.approx(one.scores, abs=2e-4)
    monkeypatch.setattr(model.engine, "encode", lambda pixels: narrow([None] * 3))
    assert [row[0].status for row in predictor_of(model).predict(items, QUERIES[:1])] == ["failed"] * 4


def test_weights_that_are_no_numbers_give_no_answer(words: Words) -> None:
    broken = loud(new_earth_onevision("tiny", words, seed=1))
    torch.nn.init.constant_(broken.model.model.language_model.norm.weight, math.nan)
    for answer in predictor_of(broken).predict([tile_of(picture())], [QUERIES[0], QUERIES[3]])[0]:
        assert (answer.status, answer.reason) == ("failed", "not_finite")


# ── keys and the registry ────────────────────────────────────────────────────────────────────────────────────


def test_the_key_holds_what_changes_an_answer(model: EarthOneVision, folder: Path) -> None:
    keys = {predictor_of(model, micro_batch=batch, most=most).key for batch, most in ((1, 9), (2, 9), (1, 8))}
    assert len(keys) == 3
    spec = {"name": "vlm", "checkpoint": str(folder), "dtype": "float32"}
    assert key_of({**spec, "weights": model.key}) == build_predictor(spec).key == VlmPredictor(model).key
    with pytest.raises(JobError, match="not the one"):
        build_predictor({**spec, "weights": "0" * 32})
    with pytest.raises(ModelError):
        build_predictor({**spec, "checkpoint": str(folder / "nowhere")})
    with pytest.raises(ModelError):
        VlmPredictor(model, micro_batch=0)


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, earthmap.predict.vlm;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'ray', 'rasterio', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ── truth ────────────────────────────────────────────────────────────────────────────────────────────────────


def halved(*, rows: bool) -> Picture:
    """Dark in its left half, or in its upper half, and bright elsewhere."""
    data = np.full((len(BANDS), SIDE, SIDE), 0.7, np.float32)
    data[(slice(None), slice(0, SIDE // 2)) if rows else (slice(None), slice(None), slice(0, SIDE // 2))] = 0.02
    return dataclasses.replace(picture(), data=data)


def taught(model: EarthOneVision, lessons: Sequence[tuple[Picture, Query, str]], steps: int) -> None:
    """Learn a few answers by heart: stock transformers' forward, and nothing of the predictor but its prompts."""
    words, rows, pixels = model.words, [], []
    for shown, query, answer in lessons:
        (view,) = sensor_views(shown.sensor, shown.bands)
        levels = torch.from_numpy(make_view(view, shown.bands, shown.data)).permute(2, 0, 1)
        opening = words.opening([(picture_name(view, datetime=shown.datetime), patch_grid(SIDE, SIDE))])
        stem = [id for part in opening for id in ([part.token] * part.grid.tokens if isinstance(part, Slot) else part)]
        told = [*stem, *words.asking(question_prompt(query))]
        rows.append((told, words.answering(answer, spatial=bool(query.shape))))
        pixels.append(patchify(levels[None]).flatten(0, 1))
    parameters = list(model.model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.0)
    grid = torch.tensor([[1, SIDE // 16, SIDE // 16]])
    for _ in range(steps):
        optimizer.zero_grad()
        for (told, answer), patches in zip(rows, pixels, strict=True):
            ids = torch.tensor([[*told, *answer]])
            logits = model.model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                pixel_values=patches,
                image_grid_thw=grid,
                mm_token_type_ids=(ids == model.model.config.image_token_id).int(),
            ).logits[0, len(told) - 1 : -1]
            torch.nn.functional.cross_entropy(logits, torch.tensor(answer)).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()


@pytest.mark.slow
def test_what_was_learned_comes_back_on_the_ground(words: Words) -> None:
    model = of_others(new_earth_onevision("tiny", words, seed=1))
    where, whether = asked("Where is water?", shape="polygon"), asked("Is the west dark?", task="presence")
    west, north = halved(rows=False), halved(rows=True)
    lessons = [
        (west, where, "water:poly[0,0,500,0,500,1000,0,1000]"),
        (north, where, "water:poly[0,0,1000,0,1000,500,0,500]"),
        (west, whether, "yes"),
        (north, whether, "no"),
    ]
    taught(model, lessons, steps=LESSONS)
    rows = VlmPredictor(model).predict([tile_of(west), tile_of(north)], [where, whether])
    truth = np.zeros((GRID.core_px, GRID.core_px), bool)
    truth[:, : GRID.core_px // 2] = True
    for (mask, said), expected, word in zip(rows, (truth, truth.T), ("yes", "no"), strict=True):
        assert mask.mask is not None
        assert np.array_equal(mask.mask == 1, expected)
        assert (mask.value, mask.fraction) == ("water", 0.5)
        assert mask.instance_scores[0] > 0.5
        assert said.value == word


LESSONS = 150


# ── video ────────────────────────────────────────────────────────────────────────────────────────────────────


def frame(seed: int, seconds: float) -> Picture:
    start = datetime.datetime(2024, 6, 1, tzinfo=datetime.UTC)
    return dataclasses.replace(picture(seed), datetime=start + datetime.timedelta(seconds=seconds))


TRACK = asked("Track the ships.", task="track")


def test_pictures_seconds_apart_are_read_as_a_video(model: EarthOneVision, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two frames stand behind the middle of their times, an odd last one twice, as Qwen3-VL was trained."""
    layouts: list[Any] = []
    shapes: list[tuple[int, ...]] = []
    read, encode = model.engine.read_stem, model.engine.encode
    monkeypatch.setattr(model.engine, "read_stem", lambda layout, seen: layouts.append(layout) or read(layout, seen))
    monkeypatch.setattr(model.engine, "encode", lambda pixels: shapes.append(tuple(pixels.shape)) or encode(pixels))
    video = tile_of(frame(1, 0.0), frame(2, 1.0), frame(3, 2.0))
    answer = predictor_of(model).predict([video], [TRACK])[0][0]
    assert answer.status == "answered", answer.message
    assert shapes == [(1, 2, 2, 3, SIDE, SIDE)]
    words = model.words
    ids = layouts[0].tokens.tolist()
    assert ids.count(words.marks["<|video_pad|>"]) == 2 * (SIDE // 32) ** 2
    assert words.marks["<|image_pad|>"] not in ids
    assert "<0.5 seconds>" in words.decode(ids)
    assert "<2.0 seconds>" in words.decode(ids)


def test_tracks_are_written_with_the_times_of_their_pictures(model: EarthOneVision) -> None:
    """Random weights: what is written means nothing, but it has the form, and the times are those of the pictures."""
    video = tile_of(frame(1, 0.0), frame(2, 0.5), frame(3, 1.0))
    stills = tile_of(picture(1, day=1), picture(2, day=5))
    undated = tile_of(*(dataclasses.replace(one, datetime=None) for one in stills.pictures))
    asker = predictor_of(model, most=120)
    for item, times in ((video, {"0s", "0.5s", "1s"}), (stills, {"2024-06-01", "2024-06-05"}), (undated, None)):
        answer = asker.predict([item], [TRACK])[0][0]
        assert answer.status == "answered", answer.message
        if times is not None:
            assert not {"cut off", "numbers"} & set(parse(answer.text or "").rejected)
            assert {one.time for one in answer.instances} <= times
            assert all(one.track for one in answer.instances)
            assert answer.value == str(len({one.track for one in answer.instances}))


def test_days_apart_are_a_series_and_one_sensor_makes_a_video(model: EarthOneVision) -> None:
    days = tile_of(picture(1, day=1), picture(2, day=2))
    assert vlm._seconds(days) is None
    assert vlm._seconds(tile_of(frame(1, 0.0), frame(2, 61.0))) is None
    assert vlm._seconds(tile_of(frame(1, 0.0), frame(2, 0.0))) is None
    assert vlm._seconds(tile_of(frame(1, 0.0))) is None
    assert vlm._seconds(tile_of(frame(1, 0.0), dataclasses.replace(frame(2, 1.0), datetime=None))) is None
    assert vlm._seconds(tile_of(frame(1, 0.0), frame(2, 59.5))) == [0.0, 59.5]


def test_a_video_too_long_is_shown_in_steps(model: EarthOneVision) -> None:
    """4,376 tokens hold 182 pairs of 128-pixel frames of 16 tokens with their words; every frame counts as seen."""
    frames = [frame(1, float(number)) for number in range(500)]
    sight = vlm._look_at(tile_of(*frames), model.words.encode)
    pairs = sight.pixels.shape[0]
    assert sight.pixels.shape[1:] == (2, 3, SIDE, SIDE)
    assert sight.notes == (f"frames dropped: {500 - 2 * pairs} of 500",)
    assert len(sight.shown) == 500
    tokens = pairs * ((SIDE // 32) ** 2 + len(model.words.encode(sight.names[-1])) + 2)
    assert tokens <= vlm.MAX_TOKENS - vlm.ROOM


# ── vectors ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_vector_shares_the_one_encoding_and_reads_no_words(
    model: EarthOneVision, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed, presence = asked("Embed this area."), asked("Is there any water?")
    encoded, stems = [], []
    encode, read = model.engine.encode, model.engine.read_stem
    monkeypatch.setattr(model.engine, "encode", lambda pixels: encoded.append(1) or encode(pixels))
    monkeypatch.setattr(model.engine, "read_stem", lambda layout, seen: stems.append(1) or read(layout, seen))
    items = [tile_of(picture(seed)) for seed in range(3)]
    alone = predictor_of(model).predict(items, [embed])
    assert (len(encoded), len(stems)) == (1, 0)
    together = predictor_of(model).predict(items, [presence, embed])
    assert (len(encoded), len(stems)) == (2, 1)
    one_by_one = [predictor_of(model).predict([item], [embed])[0] for item in items]
    for (first,), (_, second), (third,) in zip(alone, together, one_by_one, strict=True):
        assert first.status == "answered"
        assert first.embedding is not None
        assert len(first.embedding) == 16
        np.testing.assert_array_equal(first.embedding, second.embedding)
        np.testing.assert_allclose(first.embedding, third.embedding, atol=2e-4)
        assert np.linalg.norm(first.embedding) == pytest.approx(1.0, abs=1e-3)
    assert not np.allclose(alone[0][0].embedding, alone[1][0].embedding, atol=1e-3)


def test_a_vector_is_of_the_seen_core(model: EarthOneVision) -> None:
    """The mean direction of the last level's blocks, each counted by its share of seen core."""
    item = tile_of(picture(4))
    mask = item.pictures[0].mask.copy()
    mask[:, SIDE // 2 :] = int(Reason.CLOUD)
    clouded = changed(item, mask=mask)
    ((answer,),) = predictor_of(model).predict([clouded], [asked("Embed this area.")])
    from earthmap.model.alignment import scene_vectors
    from earthmap.predict.vlm import _look_at

    pixels = torch.from_numpy(_look_at(clouded, model.words.encode).pixels[None])
    found = model.engine.encode(pixels)
    side = SIDE // 32
    core = np.zeros((SIDE, SIDE), np.float32)
    core[item.core] = 1.0
    core[:, SIDE // 2 :] = 0.0
    shares = torch.from_numpy(core.reshape(side, 32, side, 32).mean(axis=(1, 3)).ravel()[None])
    with torch.inference_mode():
        vector = scene_vectors(model.heads(), found, shares)[0].numpy()
    np.testing.assert_allclose(answer.embedding, vector / np.linalg.norm(vector), atol=1e-4)


def test_a_checkpoint_without_alignment_gives_the_towers_own_space(model: EarthOneVision, tmp_path: Path) -> None:
    model.save(tmp_path)
    (tmp_path / "alignment.safetensors").unlink()
    bare = load_earth_onevision(tmp_path, dtype="float32", device="cpu")
    ((answer,),) = predictor_of(bare).predict([tile_of(picture(1))], [asked("Embed this area.")])
    assert answer.status == "answered"
    assert answer.embedding is not None
    assert len(answer.embedding) == 32


def test_a_temperature_in_the_card_changes_how_sure_answers_are_and_no_answer(model: EarthOneVision) -> None:
    queries = QUERIES[:3]
    plain = predictor_of(model).predict([tile_of(picture())], queries)[0]
    moved = [
        Calibration(
            task=query.task, sensor=None, temperature=temperature, domain="drawn tiles", fitted=100, tested=100,
            places=40, log_loss=NO_CHANGE, error=NO_CHANGE, before=(), after=(),
        )
        for query, temperature in zip(queries, (3.0, 3.0, 1.0), strict=True)
    ]  # fmt: skip
    card = model.card
    try:
        model.card = dataclasses.replace(card, calibrations=tuple(moved))
        warm = predictor_of(model).predict([tile_of(picture())], queries)[0]
    finally:
        model.card = card
    note = ("probabilities calibrated on drawn tiles",)
    for before, after in zip(plain, warm, strict=True):
        assert after.value == before.value
        assert after.notes == before.notes + note
    assert warm[0].probability is not None
    assert plain[0].probability is not None
    assert 0.5 <= warm[0].probability < plain[0].probability
    assert warm[0].probability == pytest.approx(temper_one(plain[0].probability, 3.0), abs=1e-3)
    assert dataclasses.replace(warm[2], notes=plain[2].notes) == plain[2], "at 1 no byte changes"
