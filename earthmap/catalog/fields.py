"""Fields of untrusted JSON: the value where it is of the kind that is asked for, nothing where it is not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

Item = Mapping[str, Any]
"""A STAC item as parsed JSON."""


def called(item: Any) -> str:
    """`the item S2A_…`: how a message names an item."""
    name = item.get("id") if isinstance(item, Mapping) else None
    return f"the item {name}" if name else "an item without an id"


def properties_of(item: Item) -> Mapping[str, Any]:
    """Its properties; empty where it has none."""
    properties = item.get("properties")
    return properties if isinstance(properties, Mapping) else {}


def text_of(properties: Mapping[str, Any], *keys: str) -> str | None:
    """The first of `keys` that is filled, as text; None where none is."""
    return next((str(properties[key]) for key in keys if properties.get(key)), None)


def number_of(value: Any) -> float | None:
    """A finite number; None for anything else (`nan` is written as text in STAC)."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def records_of(value: Any) -> list[Mapping[str, Any]]:
    """A list of mappings of the same length, an empty one for what is no mapping; an empty list for no list."""
    return [one if isinstance(one, Mapping) else {} for one in value] if isinstance(value, list) else []
