"""Data sets through Ray Data: the rows that one process reads, at the same place, whatever is wrong beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from earthmap.errors import JobError, TrainingError
from earthmap.training.data import DataSpec, prepare
from earthmap.training.data_rows import DataRows
from tests.training.data_sets import picture, prepared, turns, write_records


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
@pytest.mark.timeout(180)
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
