"""Batches of drawn tiles with their truth: what lies where, what stands there, what happened, and the sky above.

A tile is drawn once, on a lattice twice as fine as the picture; `earthmap.synthetic.pictures` measures it with any
sensor. The truth at a pixel of the picture is the cover of most of its ground.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.synthetic.events import Happening, choose_events, lands_by_date, things_after
from earthmap.synthetic.land import FINE, Land, draw_land
from earthmap.synthetic.objects import SLOT_CLASS, Objects, place_objects
from earthmap.synthetic.recipes import Recipe
from earthmap.synthetic.sky import CLOUD_OPACITY, Sky, draw_sky
from earthmap.synthetic.spectra import code_of, cover_of_material
from earthmap.synthetic.stamps import ZONES, paint_tables, stamp

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiles:
    """A batch of drawn tiles. Fine planes are (tile, date, y, x) on the lattice of `FINE` × the picture's pixels."""

    recipe: Recipe
    objects: Objects
    happening: Happening
    sky: Sky
    material: Tensor
    """uint8 codes of `earthmap.synthetic.spectra.MATERIAL_NAMES`, fine."""
    tone: Tensor
    """uint8, 255 for a tone of 1, fine."""
    relief: Tensor
    """(tile, y, x) float32 without a scale, fine."""
    stamped: Tensor
    """uint8, fine: `earthmap.synthetic.objects.stamp`."""
    cover: Tensor
    """(tile, date, y, x) uint8 land cover at the picture's pixels, 1 to 6: the truth."""
    instances: Tensor
    """(tile, date, y, x) uint8 at the picture's pixels: slot + 1 of the thing on most of it, 0 for none."""
    river: Tensor
    """(tile, y, x) bool, fine: the river's own water on the first date."""

    @property
    def device(self) -> str:
        """Where its tensors lie."""
        return str(self.cover.device)

    @property
    def things(self) -> Tensor:
        """(tile, date, y, x) uint8: number of `OBJECT_CLASSES` + 1 of the thing on most of a pixel, 0 for none."""
        import torch

        table = torch.from_numpy(np.concatenate([[0], SLOT_CLASS + 1]).astype(np.uint8)).to(self.device)
        return table.index_select(0, self.instances.flatten().int()).view(self.instances.shape)

    def seen(self, *, radar: bool = False) -> Tensor:
        """(tile, date, y, x) True where the ground can be seen: within the swath, and not under cloud but by radar."""
        hidden = self.sky.beyond if radar else self.sky.beyond | (self.sky.cloud > CLOUD_OPACITY)
        return ~hidden


CHUNK = 8
"""Tiles that a CPU draws at once: what stays near its cache."""


def draw_tiles(recipe: Recipe, *, device: str = "cpu") -> Tiles:
    """The tiles of a recipe. A tile is the same, bit for bit on a CPU, in whichever batch it is drawn."""
    if device == "cpu" and recipe.count > CHUNK:
        places = np.arange(recipe.count)
        joined: Tiles = _joined(
            [_drawn(recipe.some(places // CHUNK == part), device) for part in range(-(-len(places) // CHUNK))]
        )
        return joined
    return _drawn(recipe, device)


def _joined(parts: list[Any]) -> Any:
    """Records of several batches as those of one: arrays and tensors along the tiles."""
    import torch

    first = parts[0]
    if isinstance(first, torch.Tensor):
        return torch.cat(parts)
    if isinstance(first, np.ndarray):
        return np.concatenate(parts)
    if is_dataclass(first):
        kind: Any = type(first)
        return kind(**{field.name: _joined([getattr(part, field.name) for part in parts]) for field in fields(first)})
    return first


def some_of(record: Any, chosen: slice) -> Any:
    """A record of a batch for the chosen tiles alone: the inverse of joining."""
    import torch

    if isinstance(record, torch.Tensor | np.ndarray):
        return record[chosen]
    if is_dataclass(record):
        kind: Any = type(record)
        return kind(**{field.name: some_of(getattr(record, field.name), chosen) for field in fields(record)})
    return record


def _drawn(recipe: Recipe, device: str) -> Tiles:
    ground = draw_land(recipe, device)
    objects = place_objects(recipe, _sampler(recipe, ground))
    happening = choose_events(recipe, ground, objects)
    objects = things_after(recipe, happening, objects)
    lands = lands_by_date(recipe, ground, happening, device)
    return _with_things(recipe, objects, happening, lands)


def _sampler(recipe: Recipe, ground: Land) -> Callable[[NDArray[np.float32]], NDArray[np.uint8]]:
    """Land cover at points, in metres from the middle of each tile; beyond the edge that of the edge."""
    import torch

    side = FINE * recipe.side_px

    def sample(points: NDArray[np.float32]) -> NDArray[np.uint8]:
        fine = points / (recipe.gsd_m / FINE)[:, None, None] + side / 2
        whole = np.clip(np.floor(fine).astype(np.int64), 0, side - 1)
        place = torch.from_numpy(whole[..., 1] * side + whole[..., 0]).to(ground.cover.device)
        found: NDArray[np.uint8] = ground.cover.flatten(1).gather(1, place).cpu().numpy()
        return found

    return sample


def _with_things(recipe: Recipe, objects: Objects, happening: Happening, lands: list[Land]) -> Tiles:
    """The ground with the things upon it, and the truth at the picture's pixels."""
    import torch

    device = str(lands[0].cover.device)
    stamped = stamp(objects, recipe, device)
    shape = stamped.shape
    names = ("material", "tone", "cover")
    material, tone, cover = (torch.stack([getattr(land, name) for land in lands], dim=1) for name in names)
    if stamped.any():
        tables = [torch.from_numpy(table).to(device).flatten() for table in paint_tables(objects)]
        planes = torch.arange(shape[0] * shape[1], device=device).view(shape[0], shape[1], 1, 1) * 256
        place = (planes + stamped).flatten()
        is_thing = (stamped > 0).to(torch.uint8)
        on_top, shade = (table.index_select(0, place).view(shape) for table in tables)
        material = material + is_thing * (on_top - material)
        tone = tone + is_thing * (shade - tone)
        heaps = is_thing * (on_top == code_of("rubble"))
        tone = tone + heaps * (lands[0].grain[:, None] * 7 - tone)  # bytes run over: no two stones are alike
        codes = torch.from_numpy(cover_of_material()).to(device).index_select(0, on_top.flatten().int()).view(shape)
        cover = cover + is_thing * (codes > 0) * (codes - cover)
    return Tiles(
        recipe=recipe,
        objects=objects,
        happening=happening,
        sky=draw_sky(recipe, device),
        material=material,
        tone=tone,
        relief=lands[0].relief,
        stamped=stamped,
        cover=most_of(cover),
        instances=most_of((stamped // ZONES).to(torch.uint8)),
        river=lands[0].river,
    )


def most_of(codes: Tensor) -> Tensor:
    """The code of most of each pixel's four fine ones; of equal counts the lower code. (…, 2 y, 2 x) → (…, y, x)."""
    import torch

    rows = (codes[..., ::2, :], codes[..., 1::2, :])
    a, b = torch.minimum(*rows), torch.maximum(*rows)
    low, second = torch.minimum(a[..., ::2], a[..., 1::2]), torch.maximum(a[..., ::2], a[..., 1::2])
    third, high = torch.minimum(b[..., ::2], b[..., 1::2]), torch.maximum(b[..., ::2], b[..., 1::2])
    # Sorted: low ≤ middle two ≤ high.
    middle, upper = torch.minimum(second, third), torch.maximum(second, third)
    most = low + ((low != middle) & (middle == upper)).to(torch.uint8) * (middle - low)
    return most + ((low != middle) & (middle != upper) & (upper == high)).to(torch.uint8) * (high - most)


def patch_shares(cover: Tensor, *, patch_px: int = 16, classes: int = 6) -> Tensor:
    """(…, class, y, x) share of each class in each patch of `patch_px` pixels.

    Args:
        cover: (…, y, x) codes from 1 on, 0 for what counts nowhere: `Tiles.cover`, or `Tiles.things` of five classes,
            times `Tiles.seen` for what can be seen alone.
        patch_px: 16 for a patch of the vision tower, 32 for a merged block.
        classes: Codes there are.
    """
    import torch

    *lead, height, width = cover.shape
    blocks = cover.reshape(*lead, height // patch_px, patch_px, width // patch_px, patch_px)
    counts = [(blocks == code).sum(dim=(-3, -1)) for code in range(1, classes + 1)]
    return torch.stack(counts, dim=-3).float() / float(patch_px * patch_px)
