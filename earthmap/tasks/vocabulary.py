"""Words for land cover and for change, and how they are found in a question."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from types import MappingProxyType

TARGETS = ("water", "vegetation", "bare", "built-up", "snow", "burnt")
"""Land cover that can be asked for, in the order of a legend's codes."""

CHANGES = (
    "no change",
    "flooding",
    "drying",
    "vegetation growth",
    "vegetation loss",
    "construction",
    "demolition",
    "fire",
    "snowfall",
    "snowmelt",
)
"""Kinds of change between two dates."""

FLOOD = "flood"
"""Target of a question about flood: water that is not there otherwise."""

PERMANENT = "flood, includes permanent water"
"""Water where nothing tells the flood from what is always there."""

_FLOOD = re.compile(r"\b(flood(s|ed|ing|water|waters)?|inundat(ed|ion)|submerged|under ?water)\b")

_WORDS = {
    "water": "water waters lake lakes river rivers sea seas ocean oceans pond ponds reservoir reservoirs stream streams"
    " lagoon lagoons flood floods flooded flooding floodwater inundated inundation submerged underwater",
    "vegetation": "vegetation vegetated tree trees forest forests forested wood woods woodland woodlands green greenery"
    " crop crops cropland grass grassland meadow meadows shrub shrubs plants jungle rainforest deforested"
    " deforestation",
    "bare": "bare barren soil soils sand sands dune dunes desert rock rocks bareland",
    "built-up": "built-up builtup building buildings house houses urban settlement settlements town towns city cities"
    " village villages impervious built",
    "snow": "snow snowy ice icy glacier glaciers snowfield snowfields",
    "burnt": "burnt burned burn burns scorched wildfire wildfires fire fires charred",
}
PHRASES: Mapping[str, str] = MappingProxyType(
    {
        "under water": "water",
        "sea ice": "snow",
        "fire scar": "burnt",
        "fire scars": "burnt",
        "burn scar": "burnt",
        "burn scars": "burnt",
        "burned area": "burnt",
        "burnt area": "burnt",
        "bare ground": "bare",
        "bare soil": "bare",
        "built up": "built-up",
    }
)
"""Names of several words."""
SYNONYMS: Mapping[str, str] = MappingProxyType(
    {word: target for target, words in _WORDS.items() for word in words.split()} | dict(PHRASES)
)
"""The target behind each word or phrase that a question may use."""

_SYNONYM = re.compile(
    r"(?<![\w-])(" + "|".join(re.escape(word) for word in sorted(SYNONYMS, key=len, reverse=True)) + r")(?![\w-])"
)


def simplified(text: str) -> str:
    """`text` in small letters with single spaces, and without its last mark."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().replace("’", "'").split()).rstrip(" ?.!")


def names_flood(simple: str) -> bool:
    """Whether a simplified text speaks of flood and of no other land cover."""
    return bool(_FLOOD.search(simple)) and {SYNONYMS[word] for word in land_cover_words(simple)} == {"water"}


def land_cover_words(simple: str) -> list[str]:
    """The keys of SYNONYMS in a simplified text, in its order; of words that begin alike the longest."""
    return _SYNONYM.findall(simple)
