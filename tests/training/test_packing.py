"""Packed questions learn exactly what separate plain forwards of stock transformers would."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from earthmap.errors import TrainingError
from earthmap.model.alignment import AlignmentHeads, Pairs, text_vectors
from earthmap.model.words import Words, train_words
from earthmap.training import GROUPS, Asked, Row, default_table, pack, parse_table
from earthmap.training.losses import _regions, alignment_losses, answer_losses, block_loss, look
from earthmap.training.parameters import freeze, parameters_by_group
from tests.model.conftest import stock_logits

ASKED = (
    Asked(question="Is there any water?", answer="yes", category="vqa"),
    Asked(question="Find all ships.", answer="box[1,20,300,400]", category="detect", spatial=True),
    Asked(question="What is this?", answer="a valley with a river", category="caption"),
)


@pytest.fixture(scope="module")
def words() -> Words:
    return train_words([one.question + one.answer for one in ASKED] * 3, size=400)


@pytest.fixture(scope="module")
def model(tiny: Any, words: Words) -> Any:
    """`tiny` whose marks are those of the words."""
    tiny.config.image_token_id = words.marks["<|image_pad|>"]
    tiny.config.vision_start_token_id = words.marks["<|vision_start|>"]
    tiny.config.vision_end_token_id = words.marks["<|vision_end|>"]
    return tiny


def _row(number: int, asked: tuple[Asked, ...] = ASKED) -> Row:
    pictures = np.random.default_rng(number).integers(0, 256, (2, 3, 64, 64), dtype=np.uint8)
    return Row(id=str(number), modality="optical", names=("rgb", "swir"), pictures=pictures, asked=asked)


def _plain(model: Any, words: Words, row: Row, one: Asked) -> torch.Tensor:
    """Losses of the tokens of one answer, by stock transformers, alone."""
    batch = pack([row], words)
    prompt, answer = words.asking(one.question), words.answering(one.answer, spatial=one.spatial)
    ids = torch.cat([batch.stem[0], torch.tensor([*prompt, *answer])])[None]
    scores = stock_logits(model, ids, batch.pixels)[0].log_softmax(dim=1)
    first = ids.shape[1] - len(answer)
    return torch.stack([-scores[first + i - 1, token] for i, token in enumerate(answer)])


def test_packed_losses_are_those_of_plain_forwards(model: Any, words: Words) -> None:
    rows = [_row(1), _row(2, ASKED[:1]), _row(3, (ASKED[2], ASKED[0]))]
    batch = pack(rows, words)
    with torch.no_grad():
        found = answer_losses(model, batch, look(model, batch))
    for number, row in enumerate(rows):
        for place, one in enumerate(row.asked):
            mine = found.loss[(found.row == number) & (found.question == place)]
            torch.testing.assert_close(mine, _plain(model, words, row, one), atol=1e-4, rtol=1e-4)


def test_an_answer_weighs_the_same_however_long(model: Any, words: Words) -> None:
    batch = pack([_row(1), _row(2, ASKED[:2])], words)
    with torch.no_grad():
        found = answer_losses(model, batch, look(model, batch))
    means = [
        found.loss[(found.row == row) & (found.question == question)].mean()
        for row, count in ((0, 3), (1, 2))
        for question in range(count)
    ]
    torch.testing.assert_close(found.mean(), torch.stack(means).mean())


def test_every_parameter_learns_and_belongs_to_one_group(model: Any, words: Words) -> None:
    heads = AlignmentHeads(
        width=model.config.text_config.hidden_size, levels=len(model.model.visual.deepstack_visual_indexes) + 1
    )
    groups = parameters_by_group(model, heads)
    assert set(groups) == set(GROUPS)
    members = [id(parameter) for group in groups.values() for parameter in group]
    assert len(members) == len(set(members)) == len([*model.parameters(), *heads.parameters()])
    batch = pack([_row(1)], words)
    answer_losses(model, batch, look(model, batch)).mean().backward()
    silent = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    model.zero_grad()
    assert silent == []


def test_a_stage_freezes_what_it_does_not_teach(model: Any) -> None:
    text = "stages: [{name: a, modalities: sar, rates: {mergers: 0.1, decoder: 0.0}, steps: 1, tokens: 1}]"
    groups = parameters_by_group(model)
    freeze(groups, parse_table(text, source="t").stages[0])
    for name, parameters in groups.items():
        assert all(parameter.requires_grad == (name == "mergers") for parameter in parameters)
    freeze(groups, default_table().stages[0])
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_block_loss_is_siglips_for_whole_blocks() -> None:
    torch.manual_seed(0)
    heads = AlignmentHeads(width=8, levels=3)
    level, text = torch.randn(2, 5, 8), torch.randn(4, 8)
    shares = functional.one_hot(torch.randint(0, 4, (2, 5)), 4).float()
    pairs = Pairs(visual=level.flatten(0, 1), text=text, same=shares.flatten(0, 1).bool())
    torch.testing.assert_close(block_loss(heads, level, shares, text, level=0), heads.loss(0, pairs))
    shares[0, 0] = float("nan")
    known = Pairs(visual=level.flatten(0, 1)[1:], text=text, same=shares.flatten(0, 1)[1:].bool())
    torch.testing.assert_close(block_loss(heads, level, shares, text, level=0), heads.loss(0, known))
    assert block_loss(heads, level, shares * float("nan"), text, level=0).item() == 0.0
    shares[..., 1] = float("nan")  # the second class cannot be told anywhere
    others = [0, 2, 3]
    alone = block_loss(heads, level, shares[..., others], text[others], level=0)
    torch.testing.assert_close(block_loss(heads, level, shares, text, level=0), alone)


def test_each_granularity_is_aligned_where_its_truth_is_known(model: Any, words: Words) -> None:
    shares = np.zeros((2, 4, 2), np.float32)
    shares[:, :3, 0], shares[:, 3:, 1] = 1.0, 1.0
    whole = Row(
        id="r",
        modality="optical",
        names=("rgb", "swir"),
        pictures=_row(1).pictures,
        asked=ASKED,
        classes=("water", "bare soil"),
        shares=shares,
    )
    heads = AlignmentHeads(width=model.config.text_config.hidden_size, levels=3)
    for row, known in ((whole, {"patch", "region", "scene"}), (_row(1), {"scene"}), (_row(1, ASKED[:1]), set())):
        batch = pack([row], words)
        losses = alignment_losses(model, heads, batch, look(model, batch))
        assert set(losses) == known
        assert all(loss.item() > 0 for loss in losses.values())
    batch = pack([whole], words)
    features, text = look(model, batch), text_vectors(model.model.language_model, batch.classes)
    levels = [*features.levels, features.last]
    assert batch.shares is not None
    each = [block_loss(heads, level, batch.shares, text, level=n) for n, level in enumerate(levels)]
    torch.testing.assert_close(alignment_losses(model, heads, batch, features)["patch"], torch.stack(each).mean())


def test_a_region_is_the_mean_of_its_blocks() -> None:
    features = torch.randn(2, 3, 4)
    shares = torch.tensor([[[0.9, 0.1], [0.6, 0.4], [0.5, 0.5]], [[0.0, 1.0], [float("nan")] * 2, [0.2, 0.8]]])
    pairs = _regions(features, shares, torch.randn(2, 4))
    torch.testing.assert_close(pairs.visual, torch.stack([features[0, :2].mean(0), features[1, [0, 2]].mean(0)]))
    assert pairs.same.tolist() == [[True, False], [False, True]]


def test_rows_of_two_layouts_and_rows_too_long_are_refused(words: Words) -> None:
    other = Row(id="x", modality="optical", names=("rgb",), pictures=np.zeros((1, 3, 64, 64), np.uint8), asked=ASKED)
    with pytest.raises(TrainingError, match="2 rows of 2 layouts"):
        pack([_row(1), other], words)
    with pytest.raises(TrainingError, match="0 rows"):
        pack([], words)
    long = Asked(question="?", answer="very long " * 6000, category="vqa")
    with pytest.raises(TrainingError, match="expected at most 5400"):
        pack([_row(1, (long,))], words)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"modality": "radio"}, "has the modality 'radio'"),
        ({"pictures": np.zeros((2, 3, 64, 64), np.float32)}, "uint8"),
        ({"pictures": np.zeros((2, 1, 64, 64), np.uint8)}, "has pictures of shape"),
        ({"names": ("rgb",)}, "2 pictures and 1 names"),
        ({"asked": ()}, "asks nothing"),
        ({"asked": (Asked(question="?", answer=" ", category="vqa"),)}, "without text"),
        ({"asked": (Asked(question="?", answer="a", category="chat"),)}, "the category 'chat'"),
        ({"shares": np.zeros((2, 4, 3), np.float32)}, "for 0 classes"),
    ],
)
def test_a_row_that_makes_no_sense_is_refused(change: dict[str, Any], fault: str) -> None:
    good = {"id": "r", "modality": "optical", "names": ("a", "b"), "pictures": np.zeros((2, 3, 64, 64), np.uint8)}
    with pytest.raises(TrainingError, match=fault):
        Row(**{**good, "asked": ASKED, **change})
