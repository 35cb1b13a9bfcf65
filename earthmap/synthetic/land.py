"""What covers the ground of a batch of tiles: materials and tones on a lattice twice as fine as the picture.

Materials and tones are bytes, and painting over is arithmetic on bytes: that is an order of magnitude faster than
choosing between floats.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from earthmap.synthetic.draws import between, directions, draw, levels, noise, smooth_fields
from earthmap.synthetic.recipes import ROADS, Recipe
from earthmap.synthetic.spectra import code_of, cover_of_material
from earthmap.synthetic.truth import BARE, BUILT_UP, VEGETATION, WATER

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

FINE = 2
"""Fine pixels along one side of a pixel of the picture: edges mix materials."""

CELLS = 32
"""Parcels and plots repeat their draws after so many along one axis."""

COARSE_TOWN_M = 5.0
"""From this ground distance on gardens and yards inside a town count as built-up, as land-cover maps do."""


@dataclass(slots=True, kw_only=True)
class Land:
    """Ground that is being painted; (tile, y, x) on the fine lattice."""

    material: Tensor
    """uint8 codes of `MATERIAL_NAMES`."""
    tone: Tensor
    """uint8, 0 to 255 for a tone of 0 to 1."""
    cover: Tensor
    """uint8 codes of land cover, 1 to 6."""
    relief: Tensor
    """float32 height without a scale: lakes, rivers and floods lie low, rock and snow high."""
    grain: Tensor
    """uint8 texture, about 128."""
    river: Tensor
    """bool, the river's own water."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """Places of fine pixels in metres from the tile's middle, x to the right, y down."""

    x: Tensor
    """(tile, 1, x)."""
    y: Tensor
    """(tile, y, 1)."""

    @classmethod
    def of(cls, recipe: Recipe, device: str) -> Plane:
        """The plane of a batch."""
        import torch

        side = FINE * recipe.side_px
        step = column(recipe.gsd_m / np.float32(FINE), device)
        place = (torch.arange(side, device=device) + 0.5 - side / 2)[None, None, :] * step
        return cls(x=place, y=place.transpose(1, 2))

    def along(self, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates along and across a direction, (tile, y, x) each."""
        return self.x * cosine + self.y * sine, self.y * cosine - self.x * sine


def column(values: NDArray[np.generic], device: str) -> Tensor:
    """One number a tile as (tile, 1, 1)."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(values)).to(device)[:, None, None]


def paint(mask: Tensor | None, new: Tensor | int, old: Tensor) -> Tensor:
    """`new` where `mask` is True (None for everywhere), else `old`; all uint8."""
    import torch

    fresh = new if isinstance(new, torch.Tensor) else torch.tensor(new, dtype=torch.uint8, device=old.device)
    return fresh.expand_as(old) if mask is None else old + mask * (fresh - old)


def cover(land: Land, mask: Tensor | None, material: Tensor | int, tone: Tensor | int) -> None:
    """Lay a material over the ground where `mask` is True (None for everywhere); its land cover follows."""
    import torch

    if isinstance(material, int):
        code: Tensor | int = int(cover_of_material()[material])
    else:
        table = torch.from_numpy(cover_of_material()).to(material.device)
        code = table.index_select(0, material.flatten().int()).view(material.shape)
    land.material = paint(mask, material, land.material)
    land.tone = paint(mask, tone, land.tone)
    land.cover = paint(mask, code, land.cover)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Site:
    """What a stage of painting looks at: its tiles and no others."""

    recipe: Recipe
    plane: Plane
    fields: Tensor
    """(all tiles, 4, y, x): relief, wood, texture, shore."""
    chosen: Tensor | None
    """Which of all tiles; None for all of them."""
    device: str

    def field(self, number: int) -> Tensor:
        """(tile, y, x) one of the fields."""
        whole = self.fields[:, number]
        return whole if self.chosen is None else whole.index_select(0, self.chosen)

    def number(self, name: str, low: float = 0.0, high: float = 1.0) -> Tensor:
        """(tile, 1, 1) draws between two numbers."""
        return column(between(draw(self.recipe.seeds, name), low, high), self.device)

    def turned(self, name: str) -> tuple[Tensor, Tensor]:
        """Coordinates along and across a direction that is drawn under `name`."""
        cosine, sine = directions(draw(self.recipe.seeds, f"{name} turn"))
        return self.plane.along(column(cosine, self.device), column(sine, self.device))

    def table(self, name: str) -> Tensor:
        """(tile, CELLS × CELLS) bytes, evenly drawn."""
        import torch

        return torch.from_numpy((draw(self.recipe.seeds, name, CELLS * CELLS) * 256).astype(np.uint8)).to(self.device)


_Stage = Callable[[Land, _Site], None]

_PAINTED = tuple(field.name for field in fields(Land))


def draw_land(recipe: Recipe, device: str = "cpu") -> Land:
    """The ground of a batch before anything stands on it."""
    site = _Site(
        recipe=recipe, plane=Plane.of(recipe, device), fields=_fields(recipe, device), chosen=None, device=device
    )
    land = _open_land(site)
    stages: tuple[tuple[_Stage, NDArray[np.bool_]], ...] = (
        (_add_parcels, recipe.parcels),
        (_add_wood, recipe.wood > 0),
        (_add_burnt, recipe.burnt > 0),
        (_add_rock, recipe.rock > 0),
        (_add_snow, recipe.snow > 0),
        (_add_crowns, recipe.gsd_m <= CROWNS_M),
        (_add_lakes, recipe.lakes > 0),
        (_add_river, recipe.river_m > 0),
        (_add_town, (recipe.town > 0) | recipe.hamlet),
        (_add_yard, recipe.yard),
        (_add_roads, recipe.road_m.max(axis=1) > 0),
        (_add_sea, recipe.sea > 0),
    )
    for stage, needed in stages:
        _paint_some(stage, land, site, needed)
    return land


def _paint_some(stage: _Stage, land: Land, site: _Site, needed: NDArray[np.bool_]) -> None:
    """Run a stage on the tiles that need it."""
    import torch

    if needed.all():
        stage(land, site)
    elif needed.any():
        chosen = torch.from_numpy(np.flatnonzero(needed)).to(site.device)
        plane = Plane(x=site.plane.x.index_select(0, chosen), y=site.plane.y.index_select(0, chosen))
        recipe = site.recipe.some(needed)
        mine = _Site(recipe=recipe, plane=plane, fields=site.fields, chosen=chosen, device=site.device)
        before = {name: getattr(land, name).index_select(0, chosen) for name in _PAINTED}
        part = Land(**before)
        stage(part, mine)
        for name, old in before.items():
            if getattr(part, name) is not old:
                getattr(land, name).index_copy_(0, chosen, getattr(part, name))


def _fields(recipe: Recipe, device: str) -> Tensor:
    """(tile, 4, y, x): relief, wood, texture, shore."""
    low, high = np.array([0.4, 0.5, 0.6, 0.4], np.float32), np.array([0.6, 0.8, 0.95, 0.7], np.float32)
    roughness = between(draw(recipe.seeds, "roughness", 4), low, high)
    return smooth_fields(recipe.seeds, "land", roughness, side=FINE * recipe.side_px, device=device)


def _bytes(values: Tensor) -> Tensor:
    """0 to 1 as bytes."""
    import torch

    return (values * 255.0).clamp(0.0, 255.0).to(torch.uint8)


def _open_land(site: _Site) -> Land:
    """Open ground with its texture."""
    import torch

    recipe, device, texture = site.recipe, site.device, site.field(2)
    side = FINE * recipe.side_px
    pixel = noise(recipe.seeds, "grain", side, side, device=device) * site.number("grain strength", 0.02, 0.12)
    grain = _bytes(0.5 + pixel + texture * site.number("texture strength", 0.02, 0.1))
    tone = _bytes(
        site.number("ground tone", 0.1, 0.9) + texture * site.number("ground spread", 0.03, 0.14) + pixel * 0.5
    )
    material = column(recipe.ground, device)
    codes = column(cover_of_material()[recipe.ground], device)
    return Land(
        material=material.expand(-1, side, side).clone(),
        tone=tone,
        cover=codes.expand(-1, side, side).clone(),
        relief=site.field(0).clone(),
        grain=grain,
        river=torch.zeros(recipe.count, side, side, dtype=torch.bool, device=device),
    )


def cell_of(u: Tensor, v: Tensor) -> Tensor:
    """(tile, y, x) flat index of each lattice cell in `_Site.table`; `u` and `v` are whole numbers."""
    import torch

    tiles = torch.arange(len(u), device=u.device)[:, None, None] * (CELLS * CELLS)
    return (v.int() & (CELLS - 1)) * CELLS + (u.int() & (CELLS - 1)) + tiles


def look_up(table: Tensor, cell: Tensor) -> Tensor:
    """The entry of each lattice cell."""
    return table.flatten().index_select(0, cell.flatten()).view(cell.shape)


def _chosen(names: tuple[str, ...], draws: Tensor) -> Tensor:
    """One of eight materials by the upper bits of a byte."""
    import torch

    codes = torch.tensor([code_of(name) for name in names for _ in range(32)], dtype=torch.uint8, device=draws.device)
    return codes.index_select(0, draws.flatten().int()).view(draws.shape)


_CROPS = ("crop", "crop", "crop", "grass", "stubble", "dark soil", "bare", "crop")


def _add_parcels(land: Land, site: _Site) -> None:
    """Fields in rows that are shifted against each other, some with hedges between them."""
    import torch

    across, along = site.turned("parcel")
    size = column(site.recipe.parcel_m, site.device)
    bend = land.relief * site.number("parcel bend", 0.0, 0.25)
    u = across / size + bend
    row = u.floor()
    shift = look_up(site.table("parcel shift"), cell_of(row, torch.zeros_like(row)))
    v = along / (size * site.number("parcel shape", 1.0, 3.0)) + shift * (1.0 / 256) + bend
    line = v.floor()
    cell = cell_of(row, line)
    growth = look_up(site.table("growth"), cell)
    cover(land, None, _chosen(_CROPS, look_up(site.table("crop"), cell)), (growth >> 1) + (land.grain >> 1))
    edge = torch.minimum((u - row) * size, (v - line) * size * 1.5) < site.number("hedge", -6.0, 8.0)
    cover(land, edge, code_of("forest"), land.grain)


def _above(field: Tensor, share: NDArray[np.float32]) -> Tensor:
    """True on the share of each tile where the field is highest."""
    return field > levels(field, share[:, None])[:, :, None]


def _add_wood(land: Land, site: _Site) -> None:
    """Trees."""
    dark = column((draw(site.recipe.seeds, "wood tone") * 90).astype(np.uint8), site.device)
    cover(land, _above(site.field(1), site.recipe.wood), code_of("forest"), dark + (land.grain >> 1))


def _add_burnt(land: Land, site: _Site) -> None:
    """Plants that burnt earlier."""
    burnt = _above(site.field(3), site.recipe.burnt) & (land.cover == VEGETATION)
    cover(land, burnt, code_of("burnt"), land.grain)


def _add_rock(land: Land, site: _Site) -> None:
    """Rock above the trees, dark or bright as the place has it."""
    ragged = land.relief + site.field(3) * 0.5
    rock = _above(ragged, np.minimum(site.recipe.rock + site.recipe.snow, 1.0))
    lift = (draw(site.recipe.seeds, "rock tone") * 120 - 70).astype(np.int64).astype(np.uint8)
    cover(land, rock, code_of("rock"), land.grain + column(lift, site.device))


def _add_snow(land: Land, site: _Site) -> None:
    """Snow above the rock."""
    cover(land, _above(land.relief + site.field(3) * 0.5, site.recipe.snow), code_of("snow"), (land.grain >> 1) + 60)


CROWNS_M = 3.0
"""Up to this ground distance single trees can be told."""


def _add_crowns(land: Land, site: _Site) -> None:
    """Crowns of trees, brighter in their middle, and single trees on open ground."""
    recipe, plane = site.recipe, site.plane
    wide = np.maximum(between(draw(recipe.seeds, "crown"), 5.0, 11.0), 4.0 * recipe.gsd_m)
    size = column(wide.astype(np.float32), site.device)
    line = (plane.y / size).floor()
    u = plane.x / size + line * 0.5
    place = u.floor()
    cell = cell_of(place, line.expand_as(place))
    jitter = look_up(site.table("tree"), cell)
    du = (u - place) - 0.5 + ((jitter & 15).float() - 7.5) * 0.03
    dv = (plane.y / size - line) - 0.5 + ((jitter >> 4).float() - 7.5) * 0.03
    away = du * du + dv * dv
    shade = (_bytes(0.75 - away * 2.6) >> 1) + (land.grain >> 2) + (jitter >> 3)
    forest = land.material == code_of("forest")
    land.tone = paint(forest, shade, land.tone)
    few = column(
        (draw(recipe.seeds, "trees") ** 2 * 110 * ~recipe.kind_is("desert", "snow field")).astype(np.uint8), site.device
    )
    single = (look_up(site.table("lone tree"), cell) < few) & (away < 0.07)
    cover(land, single & ((land.cover == VEGETATION) | (land.cover == BARE)) & ~forest, code_of("forest"), shade)


def _water_tone(land: Land, site: _Site, name: str) -> Tensor:
    """Tone of a body of water: its own, with weak patterns in it."""
    base = site.number(f"{name} tone")
    swing = site.number(f"{name} swing", 0.0, 0.5)
    return _bytes(base * base * 0.75 + (land.grain.float() - 128.0) * (swing * (1.0 / 255.0)))


def _muddy(site: _Site) -> Tensor:
    codes = np.where(site.recipe.muddy, code_of("muddy water"), code_of("water")).astype(np.uint8)
    side = FINE * site.recipe.side_px
    return column(codes, site.device).expand(-1, side, side)


def _add_lakes(land: Land, site: _Site) -> None:
    """Lakes at the bottom of the relief."""
    low = site.field(3) * 0.15 - land.relief
    cover(land, _above(low, site.recipe.lakes), _muddy(site), _water_tone(land, site, "inland"))


def _add_river(land: Land, site: _Site) -> None:
    """A river, towards which the relief falls."""
    extent = column(site.recipe.extent_m, site.device)
    _, away = site.turned("river")
    bend = land.relief * site.number("river swing", 0.03, 0.16) + site.field(3) * 0.01
    distance = (away / extent + bend + site.number("river offset", -0.3, 0.3)).abs()
    half = column(site.recipe.river_m, site.device) / extent
    land.relief = land.relief * 0.5 + ((distance - half).clamp(0.0, 0.3) * 6.0 - 0.9)
    land.river = distance < half
    cover(land, land.river, _muddy(site), _water_tone(land, site, "inland"))


def town_frame(recipe: Recipe) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Cosine and sine of the streets' direction, and (tile, 2) metres from the tile's middle to the town's."""
    cosine, sine = directions(draw(recipe.seeds, "town turn"))
    middle = between(draw(recipe.seeds, "town middle", 2), -0.25, 0.25) * recipe.extent_m[:, None]
    return cosine, sine, middle


HAMLET = 6
"""Plots along one side of a settlement whose buildings are told apart."""


def _add_town(land: Land, site: _Site) -> None:
    """Streets and gardens; houses too where they are too many to be told apart."""
    import torch

    recipe, device = site.recipe, site.device
    cosine, sine, middle = town_frame(recipe)
    moved = Plane(x=site.plane.x - column(middle[:, 0], device), y=site.plane.y - column(middle[:, 1], device))
    u, v = moved.along(column(cosine, device), column(sine, device))
    plot, hamlet = column(recipe.plot_m, device), column(recipe.hamlet, device)
    town = _town_region(land, site, u, v)
    garden = np.where(draw(recipe.seeds, "garden") < 0.85, code_of("grass"), code_of("concrete")).astype(np.uint8)
    cover(land, town, column(garden, device).expand_as(town), land.grain)
    u, v = u / plot, v / plot
    every = 3.0 - hamlet.float()
    along = v / every - (v / every).floor() < 0.18 / every
    street = torch.logical_or(along, u / 3.0 - (u / 3.0).floor() < 0.06)
    cover(land, town & street, code_of("asphalt"), (land.grain >> 1) + 40)
    spread = town & ~street & ~hamlet
    if not recipe.hamlet.all():
        _add_houses(land, site, spread, u, v)


def _town_region(land: Land, site: _Site, u: Tensor, v: Tensor) -> Tensor:
    """A ragged round for a town, a square of plots for a hamlet; none of it in water."""
    recipe = site.recipe
    extent, hamlet = column(recipe.extent_m, site.device), column(recipe.hamlet, site.device)
    reach = column(np.float32(HAMLET / 2) * recipe.plot_m + np.float32(4.0), site.device)
    square = (u.abs() < reach) & (v.abs() < reach) & hamlet
    if recipe.hamlet.all():
        return square & (land.cover != WATER)
    blob = site.field(1) * 0.35 - (u * u + v * v) / (extent * extent) * 4.0
    return (square | (_above(blob, recipe.town) & ~hamlet)) & (land.cover != WATER)


_ROOFS = ("tiles", "tiles", "slate", "slate", "concrete", "metal roof", "concrete", "slate")


def _add_houses(land: Land, site: _Site, where: Tensor, u: Tensor, v: Tensor) -> None:
    """Houses as texture, and blocks of park; gardens of a town count as built-up where pixels are coarse."""
    recipe = site.recipe
    place, line = u.floor(), v.floor()
    cell = cell_of(place, line)
    size, roof = look_up(site.table("house"), cell), look_up(site.table("roof"), cell)
    block = look_up(site.table("park"), cell_of((place / 3.0).floor(), (line / 3.0).floor()))
    density = column((draw(recipe.seeds, "density") * 110).astype(np.uint8), site.device)
    few = column((draw(recipe.seeds, "parks") * 60 + 215).clip(0, 255).astype(np.uint8), site.device)
    park = (block > few) & column(3.0 * recipe.plot_m > 4.0 * recipe.gsd_m, site.device)
    half = size.float() * (0.2 / 256.0) + 0.22
    inside = (u - place - 0.55).abs() < half
    house = inside & ((v - line - 0.55).abs() < half) & (size > density) & ~park
    cover(land, where & house, _chosen(_ROOFS, roof), (roof << 3 >> 1) + (land.grain >> 1))
    coarse = column(recipe.gsd_m >= COARSE_TOWN_M, site.device)
    land.cover = paint(where & ~park & coarse, BUILT_UP, land.cover)


def yard_frame(recipe: Recipe) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Cosine and sine of a yard's direction, and (tile, 3): metres from its edge to the middle, half length, width."""
    cosine, sine = directions(draw(recipe.seeds, "yard turn"))
    size = between(draw(recipe.seeds, "yard size", 3), [0.0, 0.3, 0.18], [0.15, 0.5, 0.38])
    return cosine, sine, size * np.minimum(recipe.extent_m, 1500.0)[:, None]


def _add_yard(land: Land, site: _Site) -> None:
    """A paved yard; beside an airport's a runway."""
    recipe, device = site.recipe, site.device
    cosine, sine, size = yard_frame(recipe)
    u, v = site.plane.along(column(cosine, device), column(sine, device))
    offset, half, width = (column(size[:, index], device) for index in range(3))
    yard = (u.abs() < half) & ((v - offset).abs() < width)
    tone = column((draw(recipe.seeds, "yard tone") * 110).astype(np.uint8), device)
    paved = np.where(draw(recipe.seeds, "yard ground") < 0.6, code_of("concrete"), code_of("asphalt")).astype(np.uint8)
    cover(land, yard, column(paved, device).expand_as(yard), tone + (land.grain >> 2))
    if not recipe.kind_is("airport").any():
        return
    strip = (v + column(recipe.extent_m * np.float32(0.36), device)).abs()
    wide = column(np.minimum(24.0, 0.07 * recipe.extent_m).astype(np.float32), device)
    runway = (strip < wide) & column(recipe.kind_is("airport"), device)
    cover(land, runway, code_of("asphalt"), (tone >> 1) + (land.grain >> 2))
    marks = (strip < 0.5) & ((u - (u / 60.0).floor() * 60.0) < 30.0)
    cover(land, runway & marks & column(recipe.gsd_m < 3.0, device), code_of("concrete"), 250)


def road_frame(recipe: Recipe) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """(tile, road) cosine and sine of each road's direction, and its distance from the tile's middle in metres."""
    cosine, sine = directions(draw(recipe.seeds, "road turn", ROADS))
    return cosine, sine, between(draw(recipe.seeds, "road offset", ROADS), -0.4, 0.4) * recipe.extent_m[:, None]


def _add_roads(land: Land, site: _Site) -> None:
    """Roads, straight where pixels are fine, and bridges where they meet water."""
    recipe, device = site.recipe, site.device
    cosine, sine, offset = road_frame(recipe)
    bend = site.field(0) * column(np.where(recipe.gsd_m > 2.0, 0.02 * recipe.extent_m, 0.0).astype(np.float32), device)
    tone = (land.grain >> 1) + 30
    for index in range(ROADS):
        half = recipe.road_m[:, index]
        if half.any():
            _, away = site.plane.along(column(cosine[:, index], device), column(sine[:, index], device))
            distance = (away - column(offset[:, index], device) + bend).abs()
            cover(land, distance < column(half, device), code_of("asphalt"), tone)


def _add_sea(land: Land, site: _Site) -> None:
    """The sea, its beach, or a straight quay where there is a harbour."""
    recipe, device = site.recipe, site.device
    inland, _ = site.turned("sea")
    extent = column(recipe.extent_m, device)
    quay = draw(recipe.seeds, "quay") < 0.4
    ragged = np.where(quay, 0.0, between(draw(recipe.seeds, "ragged"), 0.04, 0.2)).astype(np.float32)
    depth = site.field(3) * column(ragged, device) - inland / extent
    edge = levels(depth, recipe.sea[:, None])[:, :, None]
    beach = np.where(quay, 25.0, np.maximum(between(draw(recipe.seeds, "beach"), -20.0, 45.0), 0.0)) * (recipe.sea < 1)
    shore = depth > edge - column(beach.astype(np.float32), device) / extent
    ground = np.where(quay, code_of("concrete"), code_of("sand")).astype(np.uint8)
    cover(land, shore, column(ground, device).expand_as(shore), land.grain)
    cover(land, depth > edge, code_of("water"), _water_tone(land, site, "sea"))
    land.relief = land.relief + ((edge - depth).clamp(0.0, 0.5) * 4.0 - 0.5)
