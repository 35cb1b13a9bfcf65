"""Small data sets on the disk, in the layouts that people have, and their rows without Ray."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from earthmap.training.data import DataSpec, plan_units
from earthmap.training.row_files import Prepared, RowWriter


def picture(folder: Path, name: str, *, size: tuple[int, int] = (64, 64), seed: int = 0) -> Path:
    """A file of noise that is the same for the same seed, `size` in width and height."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(folder / name)
    return folder / name


def turns(*texts: str) -> list[dict[str, str]]:
    """LLaVA's turns: questions and answers in turn."""
    return [{"from": "gpt" if place % 2 else "human", "value": text} for place, text in enumerate(texts)]


def write_records(file: Path, records: Sequence[Any]) -> Path:
    """JSON, or JSON lines by the file's name."""
    lines = file.suffix == ".jsonl"
    file.write_text("\n".join(map(json.dumps, records)) if lines else json.dumps(records, indent=1), encoding="utf-8")
    return file


def prepared(*specs: DataSpec, out: Path, side_px: int = 64) -> Prepared:
    """What `prepare` makes, the units read one after the other in this process."""
    writer = RowWriter(folder=out, asked_for="tests")
    units = plan_units(specs, side_px, writer)
    out.mkdir(exist_ok=True)
    for unit in units:
        for table in unit.tables():
            writer.add(table)
    return writer.finish()
