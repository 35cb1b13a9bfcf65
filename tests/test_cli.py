"""The command: exit codes, one clear line for every bad request, and never a traceback."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from earthmap import cli
from earthmap.cli import BAD_REQUEST, DONE, main
from earthmap.errors import JobError

GOOD = {"--area": "3.49,45.69,3.51,45.71", "--query": "Where is water?"}


def _arguments(**changes: str | None) -> list[str]:
    values = {**GOOD, **{f"--{name.replace('_', '-')}": value for name, value in changes.items()}}
    return [word for flag, value in values.items() if value is not None for word in (flag, value)]


def _refused(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    code = main(words)
    said = capsys.readouterr()
    assert code == BAD_REQUEST
    assert said.out == ""
    lines = said.err.splitlines()
    assert [line for line in lines if line.startswith("earthmap: ")] == lines[-1:]
    assert "Traceback" not in said.err
    return lines[-1]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("earthmap ")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "COMMAND"),
        (["fly"], "fly"),
        (["map"], "--area, --catalog, --out, --query"),
        (["map", "--colour", "red"], "--colour"),
        (["map", "--tile-size", "300"], "tile-size"),
        (["map", "--task", "segment", "--area", "0,0,1,1"], "--task is given without --query"),
        (["map", "--choices", "a,b", "--area", "0,0,1,1"], "--choices is given without --query"),
        (["map", "no-such-job.yaml"], "there is no job file"),
        (["report", "no-such-run"], "there is no folder"),
    ],
)
def test_a_bad_command_line(capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    assert says in _refused(capsys, words)


@pytest.mark.parametrize("area", ["-60.1,-3,-59,-2", "-120,-60,-10,60", "-.5,50,.5,51"])
def test_an_area_in_the_west_is_no_flag(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, drawn_catalog: Path, area: str
) -> None:
    words = _arguments(area=area, catalog=str(drawn_catalog), out=str(tmp_path / "run"))
    assert f"for the area {area.replace('-.5', '-0.5').replace(',.5', ',0.5')}" in _refused(capsys, ["map", *words])


@pytest.mark.parametrize(
    ("area", "says"),
    [
        ("no-such-file.geojson", "no-such-file.geojson"),
        ("45.7,200,45.8,201", "90"),
        ("3,95,4,96", "90"),
        ("POLYGON ((0 0, 1 1", "WKT"),
        ("1,2,3", "four: west, south, east, north"),
        ("3.5,45.7,3.5,45.7", "area"),
        ("nan,0,1,1", "nan"),
        ("", "area"),
    ],
)
def test_a_bad_area(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, drawn_catalog: Path, area: str, says: str
) -> None:
    words = ["map", f"--area={area}", "--catalog", str(drawn_catalog), "--query", "Where is water?"]
    line = _refused(capsys, [*words, "--out", str(tmp_path / "run")])
    assert says.lower() in line.lower()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", ["", "{}", "not json", '{"type": "FeatureCollection", "features": []}', "\x89PNG"])
def test_an_area_file_that_holds_no_area(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, drawn_catalog: Path, content: str
) -> None:
    path = tmp_path / "area.geojson"
    path.write_text(content, encoding="latin-1")
    words = ["map", *_arguments(area=str(path), catalog=str(drawn_catalog), out=str(tmp_path / "run"))]
    assert "area.geojson" in _refused(capsys, words)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"query": ""}, "question"),
        ({"query": "Find the ships"}, "ship"),
        ({"query": "water"}, "--task"),
        ({"task": "caption"}, "vision-language model"),
        ({"targets": "water, ship"}, "'ship' is not a target"),
        ({"shape": "box"}, "mask, polygon"),
        ({"choices": "a,b"}, "choices are given to a segment question"),
        ({"datetime": "2024-06-30/2024-06-01"}, "ends before it starts"),
        ({"datetime": "yesterday"}, "yesterday"),
        ({"datetime": "1990"}, "1990"),
        ({"collection": "sentinel-9"}, "sentinel-9"),
        ({"sensor": "sentinel-9"}, "sentinel-9"),
        ({"area": "100,10,100.1,10.1"}, "catalog"),
        ({"predictor": "spectral", "model": "nano"}, "is given a model"),
        ({"max_tiles": "1", "tile_size": "128"}, "--max-tiles"),
        ({"resolution": "-5"}, "resolution"),
    ],
)
def test_a_request_that_cannot_be_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, drawn_catalog: Path, changes: dict[str, str], says: str
) -> None:
    words = ["map", *_arguments(catalog=str(drawn_catalog), out=str(tmp_path / "run"), **changes), "--quiet"]
    assert says.lower() in _refused(capsys, words).lower()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("missing.json", None),
        ("page.html", "<!DOCTYPE html><html><body>Sign in</body></html>"),
        ("empty.json", ""),
        ("list.json", "[1, 2]"),
        ("other.json", '{"type": "Topology"}'),
        ("cut.json", '{"type": "FeatureCollection", "features": [{"type": "Fea'),
    ],
)
def test_a_catalogue_that_is_none(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, content: str | None
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    words = ["map", *_arguments(catalog=str(path), out=str(tmp_path / "run"))]
    assert name in _refused(capsys, words)


def test_a_catalogue_that_cannot_be_reached(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["map", *_arguments(catalog="http://127.0.0.1:9/stac", out=str(tmp_path / "run"))]
    assert "127.0.0.1:9" in _refused(capsys, words)


def test_explain_runs_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path, drawn_catalog: Path) -> None:
    out = tmp_path / "run"
    words = ["map", *_arguments(catalog=str(drawn_catalog), out=str(out)), "--explain", "--json"]
    assert main(words) == DONE
    said = capsys.readouterr().out.splitlines()
    assert "nothing was run" in said[-2]
    estimate: dict[str, Any] = json.loads(said[-1])
    assert estimate["tiles"] > 0
    assert estimate["read_bytes"] > 0
    assert not out.exists()


def test_a_map_of_vectors_needs_no_words(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, drawn_catalog: Path
) -> None:
    words = _arguments(catalog=str(drawn_catalog), out=str(tmp_path / "run"), query=None)
    assert main(["map", *words, "--task", "embed", "--explain", "--predictor", "spectral"]) == DONE
    assert "tiles in" in capsys.readouterr().out


def test_help_names_every_flag_of_a_job() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "earthmap.cli", "map", "--help"], capture_output=True, text=True, check=True
    )
    from earthmap.cli import _JOB_FLAGS

    flags = {"collections": "collection", "images": "image"}
    assert [name for name in _JOB_FLAGS if f"--{flags.get(name, name).replace('_', '-')}" not in done.stdout] == []


def test_a_cluster_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path, drawn_catalog: Path) -> None:
    words = ["map", *_arguments(catalog=str(drawn_catalog), out=str(tmp_path / "run"), cluster="127.0.0.1:9")]
    assert "there is no Ray cluster at 127.0.0.1:9" in _refused(capsys, [*words, "--quiet"])


@pytest.mark.parametrize(
    ("words", "pictures", "question"),
    [
        (["run", "--task", "embed"], ["run"], "Embed this area."),
        (["--task=embed", "run"], ["run"], "Embed this area."),
        (["run", "Embed it", "--task", "embed"], ["run"], "Embed it"),
        (["run", "--at=3,45", "Where is water?"], ["run"], "Where is water?"),
        (["a.tif", "b.tif", "What changed?", "--task", "change"], ["a.tif", "b.tif"], "What changed?"),
    ],
)
def test_only_a_vector_is_asked_for_without_words(words: list[str], pictures: list[str], question: str) -> None:
    arguments = cli._parsed(["ask", *words])
    assert (arguments.pictures, arguments.question) == (pictures, question)
    with pytest.raises(JobError, match="question"):
        cli._parsed(["ask", "run", "--task", "presence"])


def test_an_interrupt_that_is_dropped_is_heeded_later(monkeypatch: pytest.MonkeyPatch) -> None:
    dropped = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: dropped.append(lost.exc_type))

    class Last:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.01)  # Python looks for signals between two steps

    former = signal.signal(signal.SIGINT, signal.default_int_handler)  # a test's process may ignore it
    with cli._CTRL_C.listening():
        cli._CTRL_C.heed()
        Last()
        assert dropped == [KeyboardInterrupt]
        with pytest.raises(KeyboardInterrupt):
            cli._CTRL_C.heed()
        with pytest.raises(KeyboardInterrupt):
            cli._CTRL_C.sleep(60.0)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with cli._CTRL_C.listening():
        cli._CTRL_C.heed()  # a new command knows nothing of it
    signal.signal(signal.SIGINT, former)
