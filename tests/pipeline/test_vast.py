"""Ground that is too large is refused before a catalogue is searched for all that it has of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from earthmap.catalog import Extent, SourceItem, Wanted, open_catalog
from earthmap.errors import JobError
from earthmap.pipeline import make_plan, parse_job

ASIA = [-20.0, 10.0, 150.0, 75.0]
"""And Europe, where the drawn scenes lie."""


class Endless:
    """A catalogue whose items never end; counts those that were taken."""

    address = "endless"

    def __init__(self, catalog: Path) -> None:
        self._items = list(open_catalog(str(catalog)).items(Wanted()))
        self.taken = 0

    def collections(self) -> Mapping[str, Extent]:
        """None are told."""
        return {}

    def items(self, wanted: Wanted) -> Iterator[SourceItem]:
        """The same ones again and again, whatever is asked for."""
        for item in itertools.cycle(self._items):
            self.taken += 1
            if self.taken > 5_000:
                raise AssertionError("all of it is searched")
            yield item


def job_of(catalog: Path, tmp_path: Path, **changes: Any) -> Any:
    values = {"area": ASIA, "catalog": str(catalog), "queries": ["Where is water?"], "out": str(tmp_path / "run")}
    return parse_job({**values, "predictor": "spectral", **changes})


def test_a_continent_is_refused_by_its_first_scenes(drawn_catalog: Path, tmp_path: Path) -> None:
    source = Endless(drawn_catalog)
    with pytest.raises(JobError, match=r"at least [\d,]{9,} tiles of 3.84 km, more than its limit of 100,000") as error:
        make_plan(job_of(drawn_catalog, tmp_path), source)
    assert "--max-tiles" in str(error.value)
    assert 0 < source.taken <= 1_000


def test_with_the_pixel_named_no_item_is_looked_at(drawn_catalog: Path, tmp_path: Path) -> None:
    source = Endless(drawn_catalog)
    with pytest.raises(JobError, match=r"at least [\d,]+ tiles of 0.384 km"):
        make_plan(job_of(drawn_catalog, tmp_path, area=[0.0, 40.0, 10.0, 50.0], resolution=1.0), source)
    assert source.taken == 0


def test_coarse_enough_it_is_planned(drawn_catalog: Path, tmp_path: Path) -> None:
    plan = make_plan(job_of(drawn_catalog, tmp_path, area=[-10.0, 35.0, 30.0, 60.0], resolution=500.0))
    assert plan.tiles > 0
