"""What happens between the dates of a tile: one event or none, where it can happen, growing date by date at times."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from earthmap.synthetic.draws import between, directions, draw, levels, smooth_fields
from earthmap.synthetic.land import FINE, Land, Plane, column, cover
from earthmap.synthetic.objects import SLOTS, Objects, slots_of
from earthmap.synthetic.recipes import EVENTS, Recipe
from earthmap.synthetic.spectra import code_of
from earthmap.synthetic.truth import BARE, SNOW, VEGETATION, WATER

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_WEIGHTS = {
    "no change": 2.2,
    "flooding": 1.4,
    "drying": 0.9,
    "vegetation growth": 0.4,
    "vegetation loss": 1.0,
    "construction": 1.3,
    "demolition": 0.9,
    "fire": 1.0,
    "snowfall": 0.5,
    "snowmelt": 1.5,
    "landslide": 0.6,
    "building damage": 1.8,
}
"""How often each of EVENTS is drawn where it can happen."""

_LEAST = 0.04
"""Share of the tile that an event needs ground of its kind on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """What happened to each tile of a batch."""

    event: NDArray[np.int64]
    """(tile,) codes of EVENTS."""
    since: NDArray[np.int64]
    """(tile,) first date that shows it; the number of dates where nothing happened."""
    share: NDArray[np.float32]
    """(tile, date) how far it has come, 0 to 1."""

    def is_event(self, name: str) -> NDArray[np.bool_]:
        """True for tiles with this event."""
        return np.asarray(self.event == EVENTS.index(name))


def choose_events(recipe: Recipe, land: Land, objects: Objects) -> Happening:
    """One event a tile, among those that its ground and its things allow."""
    can = _possible(recipe, land, objects)
    weights = np.where(can, np.array([_WEIGHTS[name] for name in EVENTS]), 0.0)
    edges = np.cumsum(weights, axis=1)
    event = (draw(recipe.seeds, "event")[:, None] * edges[:, -1:] >= edges[:, :-1]).sum(axis=1)
    first = 1 + np.floor(draw(recipe.seeds, "event date") * max(1, recipe.dates - 1)).astype(np.int64)
    since = np.where(event > 0, first, recipe.dates)
    steps = np.arange(recipe.dates)[None, :] - since[:, None] + 1
    pace = np.where((draw(recipe.seeds, "pace") < 0.5) & (recipe.dates > 2), recipe.dates - since, 1)
    share = np.clip(steps / np.maximum(pace, 1)[:, None], 0.0, 1.0).astype(np.float32)
    return Happening(event=event, since=since, share=share)


def _possible(recipe: Recipe, land: Land, objects: Objects) -> NDArray[np.bool_]:
    """(tile, event) True where it can happen."""
    pixels = land.cover[0].numel()

    def share(mask: Tensor) -> NDArray[np.float64]:
        return mask.flatten(1).sum(dim=1).cpu().numpy() / pixels

    water, green = share(land.cover == WATER), share(land.cover == VEGETATION)
    wood, snow = share(land.material == code_of("forest")), share(land.cover == SNOW)
    bare = share(land.cover == BARE)
    buildings = objects.present[:, slots_of("building"), 0].sum(axis=1)
    dry = 1.0 - water
    inland = ~recipe.kind_is("desert", "snow field")
    slopes = recipe.kind_is("mountain", "forest", "countryside", "coast", "pasture")
    builds = recipe.kind_is("countryside", "town", "industry", "coast", "forest", "pasture", "ploughed land", "desert")
    can = {
        "no change": np.ones(recipe.count, bool),
        "flooding": (dry > 0.15) & inland,
        "drying": (water > _LEAST) & (recipe.sea == 0),
        "fire": (green > 3 * _LEAST),
        "vegetation growth": bare > 3 * _LEAST,
        "vegetation loss": wood > 3 * _LEAST,
        "snowmelt": snow > 2 * _LEAST,
        "landslide": (green > 0.4) & slopes,
        "construction": (dry - snow > 0.4) & builds,
        "demolition": buildings >= 2,
        "building damage": buildings >= 2,
        "snowfall": (dry - snow > 0.3) & inland,
    }
    possible = np.stack([can[name] for name in EVENTS], axis=1)
    possible[:, 1:] &= recipe.dates > 1 and not recipe.moving
    return possible


def things_after(recipe: Recipe, happening: Happening, objects: Objects) -> Objects:
    """The things with what happened to buildings: new ones, ones that are gone, grades of damage."""
    date = np.arange(recipe.dates)[None, None, :]
    since = happening.since[:, None, None]
    mine = slots_of("building")[None, :]
    chosen = (draw(recipe.seeds, "struck", SLOTS) < between(draw(recipe.seeds, "toll"), 0.25, 0.9)[:, None]) & mine
    chosen |= _one_of(objects.present[:, :, 0] & mine, recipe)
    new, gone = (happening.is_event(name)[:, None] & chosen for name in ("construction", "demolition"))
    present = objects.present & ~(new[:, :, None] & (date < since)) & ~(gone[:, :, None] & (date >= since))
    grade = 1 + np.floor(draw(recipe.seeds, "grade", SLOTS) * 3).astype(np.uint8)
    struck = (happening.is_event("building damage")[:, None] & chosen)[:, :, None] & (date >= since) & present
    return replace(objects, present=present, grade=np.where(struck, grade[:, :, None], 0).astype(np.uint8))


def _one_of(there: NDArray[np.bool_], recipe: Recipe) -> NDArray[np.bool_]:
    """One slot a tile, among those that are filled: an event strikes at least one."""
    score = draw(recipe.seeds, "struck first", there.shape[1]) * there
    return np.asarray(there & (score == score.max(axis=1, keepdims=True)) & (score > 0))


def lands_by_date(recipe: Recipe, land: Land, happening: Happening, device: str = "cpu") -> list[Land]:
    """The ground on each date."""
    if not (happening.event > 0).any():
        return [land] * recipe.dates
    field, limit = _field(recipe, land, happening, device)
    size = between(draw(recipe.seeds, "event size"), 0.06, 0.5)
    thresholds = levels(field, size[:, None] * happening.share)
    lands = []
    for date in range(recipe.dates):
        region = (field > thresholds[:, date, None, None]) & limit
        lands.append(_changed(recipe, land, happening, region, device) if happening.share[:, date].any() else land)
    return lands


def _field(recipe: Recipe, land: Land, happening: Happening, device: str) -> tuple[Tensor, Tensor]:
    """Where an event begins (high) and where it comes last, and where it may come at all."""
    import torch

    roughness = between(draw(recipe.seeds, "event roughness", 1), 0.35, 0.7)
    blob = smooth_fields(recipe.seeds, "event", roughness, side=FINE * recipe.side_px, device=device)[:, 0]
    plane = Plane.of(recipe, device)
    cosine, sine = directions(draw(recipe.seeds, "event turn"))
    u, v = plane.along(column(cosine, device), column(sine, device))
    extent = column(recipe.extent_m, device)
    middle = between(draw(recipe.seeds, "event middle", 2), -0.3, 0.3)
    u, v = u / extent - column(middle[:, 0], device), v / extent - column(middle[:, 1], device)
    long = torch.maximum(u.abs(), v.abs() * column(between(draw(recipe.seeds, "event shape"), 1.2, 3.0), device))
    is_wet = land.cover == WATER

    def mine(*names: str) -> Tensor:
        return column(np.isin(happening.event, [EVENTS.index(name) for name in names]), device)

    low = blob * 0.1 - land.relief
    field = blob - (u * u + v * v) * 2.0
    field = torch.where(mine("flooding"), low - is_wet * 1e3, field)
    field = torch.where(mine("drying"), -low - ~is_wet * 1e3, field)
    field = torch.where(mine("snowmelt"), -low * 0.5 + field - (land.cover != SNOW) * 1e3, field)
    field = torch.where(mine("landslide"), blob * 0.15 - (u * u * 0.25 + v * v * 6.0), field)
    straight = mine("construction") | (mine("vegetation loss") & column(draw(recipe.seeds, "straight") < 0.5, device))
    field = torch.where(straight, -long, field)
    dry = mine("flooding", "construction", "landslide", "snowfall") & ~is_wet
    limit = dry | (mine("drying") & is_wet) | (mine("fire") & (land.cover == VEGETATION))
    limit = limit | (mine("vegetation loss") & (land.material == code_of("forest")))
    limit = limit | (mine("vegetation growth") & (land.cover == BARE)) | (mine("snowmelt") & (land.cover == SNOW))
    return field, limit & ~(mine("landslide", "construction", "snowfall", "flooding") & (land.cover == SNOW))


_GROUND_AFTER = {
    "flooding": ("muddy water", "water"),
    "drying": ("dark soil", "bare"),
    "fire": ("burnt", "burnt"),
    "vegetation loss": ("dark soil", "bare"),
    "vegetation growth": ("crop", "grass"),
    "snowmelt": ("rock", "dark soil"),
    "landslide": ("bare", "rock"),
    "snowfall": ("snow", "snow"),
    "construction": ("concrete", "bare"),
}
"""Two materials of which one is what an event leaves."""


def _changed(recipe: Recipe, land: Land, happening: Happening, region: Tensor, device: str) -> Land:
    """The ground where an event has come as far as `region`."""
    after = Land(
        material=land.material,
        tone=land.tone,
        cover=land.cover,
        relief=land.relief,
        grain=land.grain,
        river=land.river,
    )
    which = (draw(recipe.seeds, "event ground") * 2).astype(np.int64)
    material = np.zeros(recipe.count, np.uint8)
    for name, pair in _GROUND_AFTER.items():
        codes = np.array([code_of(one) for one in pair], np.uint8)
        material = np.where(happening.is_event(name), codes[which], material)
    struck = np.isin(happening.event, [EVENTS.index(name) for name in _GROUND_AFTER])
    tone = column((draw(recipe.seeds, "event tone") * 110).astype(np.uint8), device)
    cover(after, region & column(struck, device), column(material, device).expand_as(region), tone + (land.grain >> 1))
    if happening.is_event("construction").any():
        _add_quarter(after, recipe, happening, region, device)
    return after


def _add_quarter(after: Land, recipe: Recipe, happening: Happening, region: Tensor, device: str) -> None:
    """Halls and streets on a building site where single buildings are not told apart."""
    plane = Plane.of(recipe, device)
    cosine, sine = directions(draw(recipe.seeds, "event turn"))
    u, v = plane.along(column(cosine, device), column(sine, device))
    block = column(np.maximum(between(draw(recipe.seeds, "block"), 30.0, 120.0), 3.0 * recipe.gsd_m), device)
    u, v = u / block, v / block
    site = region & column(happening.is_event("construction") & ~recipe.hamlet, device)
    hall = (u - u.floor() > 0.2) & (v - v.floor() > 0.25) & site
    roof = np.where(draw(recipe.seeds, "hall") < 0.5, code_of("metal roof"), code_of("slate")).astype(np.uint8)
    cover(after, site & ~hall, code_of("asphalt"), after.grain)
    cover(after, hall, column(roof, device).expand_as(hall), after.grain)
