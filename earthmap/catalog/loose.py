"""Image files without metadata of a product: which belong together, and what their bands are.

Band meaning, in this order: what the user says (`bands`), the file's band descriptions, its colour interpretation, the
names of files (one a band; Planet's and NAIP's), and three 8-bit bands as red, green and blue. What none of these
tells is refused with the fix, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from earthmap.catalog.image_names import NameFacts, read_name
from earthmap.catalog.products import BandFile, Product
from earthmap.errors import SensorError
from earthmap.sensors.bands import SAR_BANDS, THERMAL_BANDS, resolve_band, resolve_family

if TYPE_CHECKING:
    from earthmap.catalog.listing import FoundFile
    from earthmap.catalog.raster_facts import RasterFacts

_PLAIN_FOLDERS = {"", "measurement", "img_data", "r10m", "r20m", "r60m", "images", "bands"}
_TELLING = 3
_GRD = re.compile(r"_GRD[FHM]_")
_LAYERS = {"scl", "aot", "wvp", "qa_pixel", "qa_radsat"}
_SIZED = re.compile(r"/R(?:10|20|60)m$", re.IGNORECASE)
_BASELINE = re.compile(r"_N(\d\d)(\d\d)_R(\d{3})(?:_|$)")
_EDITION = re.compile(r"_(0[1-9])_(?:RT|T1|T2)(?:_|$)")
_PLANET = re.compile(r"_AnalyticMS(?:_|\.|$)", re.IGNORECASE)
_PLANET_SR = re.compile(r"_AnalyticMS_(?:8b_)?SR(?:_|\.|$)", re.IGNORECASE)
_NAIP = re.compile(r"(?:^|/)m_\d{7}_(?:ne|nw|se|sw)_\d\d_", re.IGNORECASE)
_TEMPERATURE_UNITS = {
    "k": "K",
    "kelvin": "K",
    "°c": "°C",
    "c": "°C",
    "degc": "°C",
    "celsius": "°C",
    "degrees celsius": "°C",
}
_HOT = re.compile(r"thermal|temperature|(?:^|[^a-z])(?:lst|lwir|tir|flir)(?:[^a-z]|$)", re.IGNORECASE)

# Planet, "PlanetScope Product Specifications": order of the bands of the 4- and 8-band analytic products.
_PLANET_BANDS = {
    4: ("blue", "green", "red", "nir"),
    8: ("coastal", "blue", "green_i", "green", "yellow", "red", "rededge071", "nir08"),
}


def loose_products(files: Iterable[FoundFile]) -> Iterator[Product]:
    """Files that are one image together: the bands of one key, or a file of its own."""
    grouped: dict[tuple[str, bool], list[tuple[NameFacts, FoundFile]]] = {}
    for file in files:
        facts = read_name(file.name)
        place = file.address[: len(file.address) - len(file.name.rpartition("/")[2])].rstrip("/")
        together = f"{_SIZED.sub('', place)}/{facts.key.rpartition('/')[2]}" if facts.band else file.address
        grouped.setdefault((together, facts.band is not None), []).append((facts, file))
    for (_, banded), members in grouped.items():
        yield _of_bands(members) if banded else single_product(members[0][1])


def single_product(file: FoundFile) -> Product:
    """A file that is an image of its own, its bands to be told from it."""
    return Product(
        name=file.stem or "image",
        files=(BandFile(key="image", file=file),),
        properties=_said(read_name(file.name), file.name),
    )


def _of_bands(members: Sequence[tuple[NameFacts, FoundFile]]) -> Product:
    facts, first = members[0]
    family = resolve_family(facts.platform)
    ordered = sorted(members, key=lambda member: (_ground(member[1].stem), member[1].address))
    found = [_band_file(own, file, family=family) for own, file in ordered]
    known = any(one.bands and one.roles == ("data",) for one in found)
    files: dict[str, BandFile] = {}
    left_out = []
    for one in found:
        pictured = one.key in ("tci", "pvi")
        if one.key in files or (pictured and len(members) > 1):
            left_out.append((one.file.address, "a coarser copy or a picture of bands that are there"))
        elif known and not one.bands:
            left_out.append((one.file.address, "a layer that no question asks for"))
        else:
            files[one.key] = one
    return Product(
        name=_product_name(facts, first),
        files=tuple(files.values()),
        properties=_said(facts, first.name),
        left_out=tuple(left_out),
    )


def _product_name(facts: NameFacts, file: FoundFile) -> str:
    """What the files' names share; where that says nothing (`iw`, `B04`), their folder's name."""
    shared = facts.key.rpartition("/")[2].strip("_- .")
    telling = [part for part in reversed(file.folder.split("/")) if part.lower() not in _PLAIN_FOLDERS]
    return shared if len(shared) > _TELLING else (telling or [shared or "image"])[0] or "image"


def _ground(stem: str) -> int:
    size = re.search(r"[_-](10|20|60)m$", stem, re.IGNORECASE)
    return int(size[1]) if size else 0


def _band_file(facts: NameFacts, file: FoundFile, *, family: str | None) -> BandFile:
    token = (facts.band or "").lower()
    if token in _LAYERS:
        return BandFile(key=token, file=file, bands=({"name": token},), roles=("data-mask",))
    if token in ("tci", "pvi"):
        return BandFile(key=token, file=file, roles=("visual",))
    number = token.removeprefix("sr_").removeprefix("st_")
    common = "lwir11" if token == "thermal" else resolve_band(number, family=family)
    if common is None:
        return BandFile(key=token, file=file)
    stated: dict[str, Any] = {"name": facts.band}
    stated |= {"sar:polarizations": [common.upper()]} if common in SAR_BANDS else {"eo:common_name": common}
    return BandFile(key=common, file=file, bands=(stated,))


def _said(facts: NameFacts, name: str) -> dict[str, Any]:
    """STAC properties from the names of file and folders."""
    found: dict[str, Any] = {}
    if facts.platform:
        found["platform"] = facts.platform
    if _GRD.search(name):
        found["sar:product_type"] = "GRD"
    if facts.level:
        found["processing:level"] = facts.level
    baseline, edition = _BASELINE.search(name), _EDITION.search(name)
    if baseline and facts.platform and facts.platform.startswith("sentinel-2"):
        found |= {"s2:processing_baseline": f"{baseline[1]}.{baseline[2]}", "sat:relative_orbit": int(baseline[3])}
    if edition and facts.platform and facts.platform.startswith("landsat"):
        found["landsat:collection_number"] = edition[1]
    return found


# -- what the bands of a file are


def tell_bands(
    facts: RasterFacts, file: FoundFile, *, platform: str | None, bands: Sequence[str]
) -> tuple[tuple[Mapping[str, Any], ...], str | None]:
    """STAC 1.1 bands of a file that nothing else names, alpha included, and what was assumed.

    Raises:
        SensorError: where nothing tells what they are, or `bands` does not fit.
    """
    alpha = [index for index, color in enumerate(facts.colors) if color == "alpha"]
    count = facts.color_bands
    names, note = _names(facts, file, count=count, platform=platform, bands=bands)
    ordered = iter(names)
    found = tuple({"name": "alpha"} if index in alpha else next(ordered) for index in range(len(facts.dtypes)))
    return found, note


def _names(
    facts: RasterFacts, file: FoundFile, *, count: int, platform: str | None, bands: Sequence[str]
) -> tuple[list[dict[str, Any]], str | None]:
    if bands:
        if len(bands) != count:
            raise SensorError(
                f"{file.address} has {count} bands, and {len(bands)} are named: {', '.join(bands)}",
                fix="name all of them, or give the images in separate jobs",
            )
        return [_named(name) for name in bands], None
    described = _described(facts, platform)
    if described:
        return described, None
    colors = [color for color in facts.colors if color != "alpha"]
    if {"red", "green", "blue"} <= set(colors):
        return _colored(colors, file, count)
    if _PLANET.search(file.name) and count in _PLANET_BANDS:
        return _planet(file, count), None
    if count == 1 and _is_hot(facts, file):
        return [{"name": "thermal", "eo:common_name": "lwir11"}], None
    if count == 3 and set(facts.dtypes) == {"uint8"}:
        return [_named(name) for name in ("red", "green", "blue")], "three 8-bit bands taken as red, green, blue"
    raise SensorError(
        f"{file.address} does not say what its {count} bands are" if count > 1 else f"{file.address} names no band",
        expected="band descriptions, colours, or names of files that tell (…_B04.tif, …_red.tif)",
        fix=f"say it with --bands, such as --bands {_example(count)}",
    )


def _example(count: int) -> str:
    common = ("red", "green", "blue", "nir")
    return {1: "nir", 3: "red,green,blue", 4: "blue,green,red,nir"}.get(count, ",".join(common) + ",…")


def _named(name: str) -> dict[str, Any]:
    """A band as people name it: a common name, a polarization, `B04`, `thermal`; any other name stays as it is."""
    common = "lwir11" if name.lower() == "thermal" else resolve_band(name)
    if common is None:
        return {"name": name}
    return {
        "name": name,
        **({"sar:polarizations": [common.upper()]} if common in SAR_BANDS else {"eo:common_name": common}),
    }


def _described(facts: RasterFacts, platform: str | None) -> list[dict[str, Any]]:
    """The bands as the file describes them; empty where it describes none that is known."""
    texts = [text for text, color in zip(facts.descriptions, facts.colors, strict=True) if color != "alpha"]
    known = {text.lower() for text in texts}
    family = resolve_family(platform) or ("sentinel-2" if {"b8a", "b12"} <= known else None)
    found = []
    for text in texts:
        common = resolve_band(text, family=family) if text else None
        stated = {"name": text or "unknown"}
        found.append(stated if common is None else {**_named(common), "name": text})
    return found if any(len(stated) > 1 for stated in found) else []


def _colored(colors: Sequence[str], file: FoundFile, count: int) -> tuple[list[dict[str, Any]], str | None]:
    found = [_named(color) if color in ("red", "green", "blue") else {"name": color} for color in colors]
    if count == 4 and _NAIP.search(file.name):
        return [_named(name) for name in ("red", "green", "blue", "nir")], "NAIP's order of bands"
    extra = count - 3
    return found, f"{extra} more band{'s' * (extra > 1)} not named: left out" if extra else None


def _planet(file: FoundFile, count: int) -> list[dict[str, Any]]:
    """Surface reflectance is stored as 10,000 times itself; other analytic products hold radiance."""
    scaled: dict[str, Any] = {"raster:scale": 1e-4, "unit": "1", "nodata": 0} if _PLANET_SR.search(file.name) else {}
    return [{**_named(name), **scaled} for name in _PLANET_BANDS[count]]


def _is_hot(facts: RasterFacts, file: FoundFile) -> bool:
    words = [*facts.descriptions, file.name]
    return temperature_unit(facts.units[0]) is not None or any(_HOT.search(word) for word in words)


def temperature_unit(text: str) -> str | None:
    """`K` or `°C` where a unit is one of temperature."""
    return _TEMPERATURE_UNITS.get(text.strip().lower())


def with_numbers(stated: Mapping[str, Any], facts: RasterFacts, index: int) -> dict[str, Any]:
    """A band with what the file says of its numbers: type, nodata, scale, offset, unit; what is stated stays."""
    common = stated.get("eo:common_name")
    channel = bool(stated.get("sar:polarizations"))
    found: dict[str, Any] = {"data_type": facts.dtypes[index]}
    if facts.nodata is not None:
        found["nodata"] = "nan" if facts.nodata != facts.nodata else facts.nodata
    if (facts.scales[index], facts.offsets[index]) != (1.0, 0.0):
        found |= {"raster:scale": facts.scales[index], "raster:offset": facts.offsets[index]}
    unit = temperature_unit(facts.units[index]) if common in THERMAL_BANDS else facts.units[index]
    if unit:
        found["unit"] = unit
    elif channel and facts.mostly_negative:
        found["unit"] = "dB"
    return {**found, **stated}
