"""Data sets through Ray Data: the rows that one process reads, at the same place, whatever is wrong beside them."""

from __future__ import annotations

import functools
import os
import re
import types
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from earthmap.errors import JobError, StorageError, TrainingError
from earthmap.training import parse_table
from earthmap.training.data import DataSpec, prepare, read_units
from earthmap.training.data_rows import DataRows
from earthmap.training.faults import Fault
from earthmap.training.row_files import row_table
from tests.training.data_sets import picture, prepared, turns, write_records
from tests.training.test_labels import cube, parcels


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


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(280)
@pytest.mark.usefixtures("ray_cluster")
def test_the_example_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs/training-data.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "llava").mkdir()
    _data_set(tmp_path / "llava/images", count=3).rename(tmp_path / "llava/train.json")
    (tmp_path / "vqa").mkdir()
    image = {"bytes": picture(tmp_path / "vqa", "p.png", seed=9).read_bytes(), "path": "p.png"}
    pq.write_table(pa.table({"image": [image], "question": ["What?"], "answer": ["That."]}), tmp_path / "vqa/a.parquet")
    cube(tmp_path / "runs/valley/store")
    parcels().rename(columns={"class": "crop"}).to_file(tmp_path / "parcels.gpkg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(block, names)
    said = capsys.readouterr().out
    assert names["found"].places >= 3 + 1 + 8
    assert "left out: 1 missing" in said
    stages = parse_table(
        "stages: [{name: a, modalities: optical, rates: {decoder: 1}, steps: 1, tokens: 9}]", source="t"
    )
    assert len(names["source"].rows(stages, 0)) == 1


def _fault(file: str) -> pa.Table:
    return row_table([], [Fault(file=file, place="", cause="long", message="")])


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    spec = DataSpec(path=str(_data_set(tmp_path, count=1)))
    for name in ("rows-00000.arrow.part", "faults.parquet", "data.json.part"):
        out = tmp_path / name
        (out / name).mkdir(parents=True)
        with pytest.raises(StorageError, match="cannot be written"):
            prepared(spec, out=out)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be made"):
        prepare([spec], tmp_path / "file" / "out", side_px=64)


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
