"""`earthmap doctor` as its user calls it: of a machine, a storage, a catalogue, and all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from earthmap.cli import BAD_REQUEST, DONE, FAILED, main
from earthmap.cube import close_files

pytestmark = pytest.mark.usefixtures("quick")


def _said(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return said


def test_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == DONE
    out = capsys.readouterr().out
    assert "memory: " in out
    assert "disk.temporary: " in out
    said = json.loads(out.splitlines()[-1])
    assert said["verdict"] in ("ok", "warning")
    assert {"ray", "gpu", "model"} <= {one["check"] for one in said["findings"]}


def test_a_storage_that_is_wrong_says_how_to_fix_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["doctor", "--storage", str(tmp_path / "file")]) == FAILED
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("wrong"))
    assert "; expected " in line
    assert "; to fix: " in line


def test_more_than_there_is_room_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--storage", str(tmp_path), "--needs", "100000000", "--quiet", "--json"]) == FAILED
    wrong = [one["check"] for one in _said(capsys)["findings"] if one["verdict"] == "wrong"]
    assert wrong == ["storage.room"]


def test_a_machine_and_a_catalogue(drawn_catalog: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    collection = "drawn-sentinel-2-l2a"
    words = ["doctor", str(drawn_catalog), "--collection", collection, "--storage", str(tmp_path), "--needs", "0.01"]
    assert main([*words, "--json"]) == DONE
    said = _said(capsys)
    assert said["status"] == "healthy"
    assert "storage.create" in {one["check"] for one in said["findings"]}
    close_files()


def test_a_catalogue_alone_is_looked_at_alone(drawn_catalog: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(drawn_catalog), "--collection", "drawn-sentinel-2-l2a", "--quiet", "--json"]) == DONE
    assert "findings" not in _said(capsys)
    close_files()


@pytest.mark.parametrize(
    "words",
    [
        ["--needs", "5"],
        ["--storage", "x", "--needs", "-1"],
        ["--storage", "x", "--needs", "nan"],
        ["--collection", "a"],
        ["--area", "1,2,3,4"],
    ],
)
def test_bad_requests(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", *words]) == BAD_REQUEST
    assert list(tmp_path.iterdir()) == []


def test_logs_at_an_unknown_level(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("EARTHMAP_LOG", "loud")
    assert main(["doctor"]) == BAD_REQUEST
    assert "EARTHMAP_LOG" in capsys.readouterr().err
