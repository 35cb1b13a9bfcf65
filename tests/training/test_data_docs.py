"""The page on training data names what there is."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from earthmap.training.data import DataSpec
from earthmap.training.faults import CAUSES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/training-data.md").read_text(encoding="utf-8")


def test_every_cause_is_explained_as_the_code_does() -> None:
    assert dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|$", PAGE, re.MULTILINE)) == dict(CAUSES)


def test_every_key_of_a_data_set_is_explained() -> None:
    keys = {field.name for field in dataclasses.fields(DataSpec)} - {"path"}
    assert set(re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \|$", PAGE, re.MULTILINE)) == keys


def test_every_file_that_it_names_exists() -> None:
    named = re.findall(r"`((?:earthmap|docs)/[\w./-]+)`", PAGE)
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []
