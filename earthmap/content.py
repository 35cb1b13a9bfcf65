"""Stable content keys: equal content has an equal key, on every machine and in every process."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import hashlib
import json
from collections.abc import Mapping
from typing import Any

KEY_LENGTH = 32
"""Hex digits of a key: 128 bits of SHA-256."""


def _plain(value: Any) -> Any:
    """The JSON form of `value`, with the type's name where two types could otherwise read alike."""
    if value is None or (isinstance(value, (bool, int, str)) and not isinstance(value, enum.Enum)):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else value  # 10 and 10.0 metres are one resolution
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    if isinstance(value, bytes):
        return {"sha256": hashlib.sha256(value).hexdigest()}
    if isinstance(value, datetime.datetime):
        if value.tzinfo is None:
            raise TypeError("a time without a zone has no stable key; expected an aware datetime")
        return value.astimezone(datetime.UTC).isoformat()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {type(value).__name__: fields}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted((_plain(item) for item in value), key=json.dumps)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no stable content key; give records, mappings, sequences or scalars")


def canonical_json(value: Any) -> str:
    """`value` as JSON with sorted keys and no spaces; floats written so that they read back equal."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def content_key(*values: Any) -> str:
    """32 hex digits that depend on the content of `values` and on nothing else.

    Raises:
        TypeError: for a value whose content is not stable (an open handle, an array, a naive datetime).
        ValueError: for NaN or infinity.

    Example:
        >>> content_key({"b": 1, "a": (2, 3)}) == content_key({"a": [2, 3], "b": 1.0})
        True
    """
    return hashlib.sha256(canonical_json(list(values)).encode()).hexdigest()[:KEY_LENGTH]
