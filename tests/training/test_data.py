"""Data sets through Ray Data: the rows that one process reads, at the same place, whatever is wrong beside them."""

from __future__ import annotations

import functools
import os
import types
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from earthmap.errors import JobError, TrainingError
from earthmap.pipeline.cluster import cluster
from earthmap.training.data import DataSpec, prepare, read_units
from earthmap.training.data_rows import DataRows
from earthmap.training.faults import Fault
from earthmap.training.row_files import row_table
from tests.training.data_sets import picture, prepared, turns, write_records


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """One for the module: starting one takes longer than the tests."""
    with cluster(None):
        yield


def _data_set(folder: Path, count: int = 150) -> Path:
    records = [
        {
            "image": picture(folder, f"{number}.png", seed=number).name,
            "conversations": turns("<image>\nWhat is this?", f"place {number}"),
        }
        for number in range(count)
    ]
    records.insert(5, {"image": "gone.png", "conversations": turns("What?", "That.")})
    return write_records(folder / "data.json", records)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(280)
@pytest.mark.usefixtures("ray_cluster")
def test_ray_data_reads_what_one_process_reads(tmp_path: Path) -> None:
    spec = DataSpec(path=str(_data_set(tmp_path)))
    found = prepare([spec], tmp_path / "ray", side_px=64)
    plain = prepared(spec, out=tmp_path / "plain")
    assert (found.places, found.faults) == (150, {"missing": 1})
    assert found.key == plain.key
    for name in plain.parts:
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    # A second time nothing is read, and a file that has changed is no longer what was prepared.
    stamp = (tmp_path / "ray" / "data.json").stat().st_mtime_ns
    assert prepare([spec], tmp_path / "ray", side_px=64) == found
    assert (tmp_path / "ray" / "data.json").stat().st_mtime_ns == stamp
    _data_set(tmp_path, count=3)
    with pytest.raises(TrainingError, match="holds rows of other data sets, or of files that were changed"):
        prepare([spec], tmp_path / "ray", side_px=64)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(280)
@pytest.mark.usefixtures("ray_cluster")
def test_a_file_that_kills_who_reads_it_is_left_out(tmp_path: Path) -> None:
    deadly = types.SimpleNamespace(tables=functools.partial(os._exit, 3), where=("a.json", "line 7"))
    fine = types.SimpleNamespace(tables=functools.partial(iter, (_fault("fine"),)))
    broken = types.SimpleNamespace(tables=functools.partial(iter, ("no table",)))
    tables = list(read_units([fine, deadly, fine], tmp_path / "attempts"))
    faults = [table["fault"].to_pylist()[0] for table in tables]
    assert [(fault["file"], fault["cause"]) for fault in faults] == [
        ("fine", "long"),
        ("a.json", "crash"),
        ("fine", "long"),
    ]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TrainingError, match=r"a worker that read training data failed: .*num_rows"):
        list(read_units([broken], tmp_path / "attempts"))


def _fault(file: str) -> pa.Table:
    return row_table([], [Fault(file=file, place="", cause="long", message="")])


def test_what_makes_no_sense_is_refused_before_anything_starts(tmp_path: Path) -> None:
    spec = DataSpec(path=str(_data_set(tmp_path, count=1)))
    with pytest.raises(TrainingError, match="expected a multiple of 32"):
        prepare([spec], tmp_path / "out", side_px=100)
    with pytest.raises(TrainingError, match="no data set is given"):
        prepare([], tmp_path / "out")
    with pytest.raises(JobError, match="there is no Ray cluster at"):
        prepare([spec], tmp_path / "out", side_px=64, address="127.0.0.1:1")
    with pytest.raises(TrainingError, match="holds no prepared"):
        DataRows(folder=tmp_path / "out", seed=1)
