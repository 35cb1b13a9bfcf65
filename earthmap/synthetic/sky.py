"""The sky over drawn tiles: sun, haze, clouds with their shadows, cirrus, and ground that a swath did not reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from earthmap.synthetic.draws import between, directions, draw, levels, smooth_fields
from earthmap.synthetic.recipes import Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_OVERCAST, _CLOUDY, _HAZY, _CUT = 0.03, 0.33, 0.25, 0.06
"""How often there is nothing but cloud, some cloud, much haze or thin cloud, and an edge of the swath."""


_NEAR_M = 4.0
"""Below this ground distance pictures are flown or ordered for clear weather."""

CLOUD_OPACITY = 0.45
"""From what opacity a pixel counts as cloud: its ground cannot be seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sky:
    """Weather of a batch: arrays (tile, date), tensors (tile, date, y, x) float32 at the picture's pixels."""

    shadow_x: NDArray[np.float32]
    shadow_y: NDArray[np.float32]
    """Where shadows fall to: a direction of length 1, y down."""
    reach: NDArray[np.float32]
    """Length of a shadow of a thing 1 m high, in metres."""
    sun: NDArray[np.float32]
    """Sine of the sun's elevation."""
    haze: NDArray[np.float32]
    """Optical depth of aerosol that is left in the picture, at 0.55 µm."""
    cloud: Tensor
    """Opacity of clouds, 0 to 1."""
    cirrus: Tensor
    """Opacity of thin high cloud, 0 to 1."""
    billow: Tensor
    """Relief of the clouds' upper side, about 0."""
    shade: Tensor
    """How deep the shadow of a cloud is, 0 to 1."""
    beyond: Tensor
    """bool: no measurement."""


def draw_sky(recipe: Recipe, device: str = "cpu") -> Sky:
    """The sky of each tile on each date; frames of a video have one sky."""
    seeds, dates = recipe.seeds, recipe.dates
    chance = by_date(recipe, "weather")
    often = np.where(recipe.gsd_m < _NEAR_M, 0.4, 1.0)[
        :, None
    ]  # airborne and tasked pictures are taken in clear weather
    cloudy = by_date(recipe, "cloud share") ** 2
    share = np.where(chance < _OVERCAST * often, 1.0, np.where(chance < _CLOUDY * often, cloudy, 0.0))
    x, y = directions(by_date(recipe, "sun turn"))
    elevation = between(by_date(recipe, "sun height"), 0.35, 0.95)
    thin = np.where(by_date(recipe, "cirrus") < _HAZY, by_date(recipe, "cirrus depth"), 0.0).astype(np.float32)
    cloud, cirrus, billow, shade = _clouds(recipe, np.minimum(share, 1.0).astype(np.float32), thin, (x, y), device)
    clearness = by_date(recipe, "haze")
    haze = np.where(by_date(recipe, "hazy") < _HAZY, 0.1 + 0.4 * clearness, 0.08 * clearness)
    return Sky(
        shadow_x=x,
        shadow_y=y,
        reach=np.sqrt(1.0 / (elevation * elevation) - 1.0).astype(np.float32),
        sun=elevation,
        haze=haze.astype(np.float32),
        cloud=cloud,
        cirrus=cirrus,
        billow=billow,
        shade=shade,
        beyond=_beyond(recipe, device).view(len(seeds), dates, recipe.side_px, recipe.side_px),
    )


def by_date(recipe: Recipe, name: str) -> NDArray[np.float32]:
    """(tile, date) draws; the same for all frames of a video."""
    numbers = draw(recipe.seeds, name, recipe.dates)
    return np.repeat(numbers[:, :1], recipe.dates, axis=1) if recipe.moving else numbers


def _plane(values: NDArray[np.generic], device: str) -> Tensor:
    """(tile, date) as (tile × date, 1, 1)."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(values)).to(device).reshape(-1, 1, 1)


def _clouds(
    recipe: Recipe,
    share: NDArray[np.float32],
    thin: NDArray[np.float32],
    way: tuple[NDArray[np.float32], NDArray[np.float32]],
    device: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Opacity of clouds and of cirrus, relief of clouds and depth of their shadow: (tile, date, y, x) each."""
    import torch

    side, shape = recipe.side_px, (recipe.count, recipe.dates, recipe.side_px, recipe.side_px)
    if not (share.any() or thin.any()):
        nothing = torch.zeros(1, 1, 1, 1, device=device).expand(shape)
        return nothing, nothing, nothing, nothing
    rough = np.concatenate([between(by_date(recipe, "cloud edge"), 0.45, 0.75), np.full(share.shape, 0.45, "f4")], 1)
    if recipe.moving:
        rough = rough[:, [0, recipe.dates]]
    fields = smooth_fields(recipe.seeds, "clouds", rough.astype(np.float32), side=side, device=device, finest=1)
    half = fields.shape[1] // 2
    field, veil = (part.expand(shape).flatten(0, 1) for part in (fields[:, :half], fields[:, half:]))
    level = levels(field, share.reshape(-1, 1))[:, :, None]
    soft = _plane(between(by_date(recipe, "cloud softness"), 1.2, 5.0), device)
    thick = ((field - level) * soft).clamp(0.0, 1.0)
    cirrus = (_plane(thin, device) * (0.3 + 0.25 * veil)).clamp(0.0, 0.4)
    shade = _moved(thick, recipe, way)
    return thick.view(shape), cirrus.view(shape), field.reshape(shape), (shade * (1.0 - thick)).view(shape)


def _moved(opacity: Tensor, recipe: Recipe, way: tuple[NDArray[np.float32], NDArray[np.float32]]) -> Tensor:
    """Opacity at the place where the sunlight of each pixel passed the cloud; mirrored at the tile's edge."""
    import torch

    side = recipe.side_px
    height = between(by_date(recipe, "cloud height"), 300.0, 1800.0) / recipe.gsd_m[:, None]
    reach = np.minimum(height, 0.4 * side)
    steps = [_plane(np.rint(axis * reach).astype(np.int64), str(opacity.device)) for axis in way]
    place = torch.arange(side, device=opacity.device)
    column = _mirrored(place[None, None, :] - steps[0], side)
    row = _mirrored(place[None, :, None] - steps[1], side)
    planes = torch.arange(len(opacity), device=opacity.device)[:, None, None] * (side * side)
    index = (planes + row * side + column).flatten()
    return opacity.flatten().index_select(0, index).view(opacity.shape)


def _mirrored(place: Tensor, side: int) -> Tensor:
    import torch

    turned = place.remainder(2 * side)
    return torch.minimum(turned, 2 * side - 1 - turned)


def _beyond(recipe: Recipe, device: str) -> Tensor:
    """(tile × date, y, x) True beyond a straight edge of the swath, which few tiles have."""
    import torch

    side = recipe.side_px
    cosine, sine = directions(by_date(recipe, "swath turn"))
    cut = np.where(by_date(recipe, "swath") < _CUT, between(by_date(recipe, "swath edge"), -0.25, 0.55), 2.0)
    place = (torch.arange(side, device=device) + 0.5) / side - 0.5
    along = place[None, None, :] * _plane(cosine, device) + place[None, :, None] * _plane(sine, device)
    return along > _plane(cut.astype(np.float32), device)
