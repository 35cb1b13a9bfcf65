"""Videos, pictures of several sizes, and series of dates against stock transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from earthmap.errors import ModelError
from earthmap.model.closed import Closed
from earthmap.model.engine import Engine, Slot, lay_out_stem
from earthmap.model.processing import patch_grid, patchify
from earthmap.model.vision import join_features

END = 3
ASKED = Closed(question=(10, 11, 12), choices=((20, END), (21, 22, END), (23, END)))


def _drawn(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(sum(shape)))


def _parts(model: Any, sizes: Sequence[tuple[int, int]], token: int) -> list[Any]:
    """Words, and each picture behind its name or time, as `Words.opening` lays them out."""
    config, parts = model.config, [(5, 6)]
    for number, (height, width) in enumerate(sizes):
        parts += [
            (40 + number, 41, config.vision_start_token_id),
            Slot(grid=patch_grid(height, width), token=token),
            (config.vision_end_token_id,),
        ]
    return parts


def _stock(model: Any, parts: list[Any], visual: dict[str, torch.Tensor], tiles: int) -> torch.Tensor:
    """(B, choices) log-probabilities of ASKED by plain forwards; `visual` holds pixels and grids of one kind."""
    stem, found = lay_out_stem(parts).tokens, []
    kind = 2 if "video_grid_thw" in visual else 1
    pad = model.config.video_token_id if kind == 2 else model.config.image_token_id
    for choice in ASKED.choices:
        rows = torch.cat([stem, torch.tensor(ASKED.question + choice)]).expand(tiles, -1)
        with torch.inference_mode():
            logits = model(
                input_ids=rows,
                attention_mask=torch.ones_like(rows),
                mm_token_type_ids=(rows == pad).int() * kind,
                **visual,
            ).logits.log_softmax(dim=2)
        first = rows.shape[1] - len(choice)
        found.append(sum(logits[:, first + i - 1, token] for i, token in enumerate(choice)))
    return torch.stack(found, dim=1)


@pytest.mark.parametrize("pairs", [1, 3])
def test_a_video_is_read_as_stock_reads_it(tiny: Any, pairs: int) -> None:
    """Each pair of frames is one picture behind its time; stock takes the video as one grid of `pairs` × h × w."""
    pixels = _drawn(2, pairs, 2, 3, 64, 96)
    parts = _parts(tiny, [(64, 96)] * pairs, tiny.config.video_token_id)
    engine = Engine(tiny)
    found = engine.score(engine.read_stem(lay_out_stem(parts), engine.encode(pixels)), [ASKED])[0]
    visual = {
        "pixel_values_videos": patchify(pixels.flatten(0, 1)).flatten(0, 1),
        "video_grid_thw": torch.tensor([[pairs, 4, 6]] * 2),
    }
    torch.testing.assert_close(found, _stock(tiny, parts, visual, 2), atol=1e-4, rtol=1e-4)


def test_the_order_of_frames_matters(tiny: Any) -> None:
    pixels = _drawn(1, 3, 2, 3, 64, 64)
    layout = lay_out_stem(_parts(tiny, [(64, 64)] * 3, tiny.config.video_token_id))
    engine = Engine(tiny)
    scores = [
        engine.score(engine.read_stem(layout, engine.encode(order)), [ASKED])[0]
        for order in (pixels, pixels.flip(1), pixels.flip(2))
    ]
    assert not torch.allclose(scores[0], scores[1], atol=1e-3)
    assert not torch.allclose(scores[0], scores[2], atol=1e-3)


def test_views_of_several_sizes_stand_in_one_stem(tiny: Any) -> None:
    """Two dates of three views (fusion, a series), the second date smaller, as stock packs pictures of any size."""
    large, small = _drawn(2, 3, 3, 96, 64), _drawn(2, 2, 3, 32, 64)
    sizes = [(96, 64)] * 3 + [(32, 64)] * 2
    parts = _parts(tiny, sizes, tiny.config.image_token_id)
    engine = Engine(tiny)
    features = join_features([engine.encode(large), engine.encode(small)])
    found = engine.score(engine.read_stem(lay_out_stem(parts), features), [ASKED])[0]
    rows = [torch.cat([patchify(large[tile]).flatten(0, 1), patchify(small[tile]).flatten(0, 1)]) for tile in range(2)]
    visual = {
        "pixel_values": torch.cat(rows),
        "image_grid_thw": torch.tensor([[1, height // 16, width // 16] for height, width in sizes] * 2),
    }
    torch.testing.assert_close(found, _stock(tiny, parts, visual, 2), atol=1e-4, rtol=1e-4)


def test_tiles_of_a_batch_have_one_shape(tiny: Any) -> None:
    engine = Engine(tiny)
    one, other = _drawn(1, 3, 64, 64), _drawn(1, 3, 64, 96)
    torch.testing.assert_close(engine.encode([one, one]).last, engine.encode(torch.stack([one, one])).last)
    with pytest.raises(ModelError, match=r"64, 64\) and \(1, 3, 64, 96\); expected tiles of one shape; to fix: batch"):
        engine.encode([one, other])
