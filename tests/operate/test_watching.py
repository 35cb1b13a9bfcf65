"""A run that is watched: callbacks are passed on, logs and numbers come where the environment asks."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path

import pytest

from earthmap.errors import JobError
from earthmap.operate import watching
from earthmap.operate.logs import MAX_FAILURES, log_outcome, log_progress, log_step, logging_as_asked, logging_to
from earthmap.pipeline import Progress
from tests.operate.runs import finished

PROGRESS = Progress(cells=1, tiles=16, tiles_planned=32, km2=1.0, failed=0, cell_id="cell-1", execution=2)
FAILED = {"status": "failed", "reason": "timeout", "stage": "read", "cell_id": "cell-1", "message": "no answer"}


@pytest.fixture(autouse=True)
def off(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EARTHMAP_LOG", "EARTHMAP_METRICS"):
        monkeypatch.delenv(name, raising=False)


def test_nothing_is_added_unless_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Progress] = []
    with caplog.at_level(logging.DEBUG), watching.watching("run", report=seen.append) as watch:
        watch.report(PROGRESS)
        watch.finished(finished(tmp_path, [FAILED]))
    assert seen == [PROGRESS]
    assert caplog.records == []
    with watching.watching("run", report=None) as watch:
        watch.report(PROGRESS)


def test_logs_and_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARTHMAP_LOG", "info")
    monkeypatch.setenv("EARTHMAP_METRICS", str(tmp_path / "earthmap.prom"))
    monkeypatch.setattr(watching, "EVERY_S", 0.0)
    stream = io.StringIO()
    run = finished(tmp_path / "run", [{"status": "answered"}, {**FAILED, "address": "https://h/a.tif?sig=abcdef"}])
    with logging_as_asked(stream), watching.watching("runs/valley", report=log_progress) as watch:
        log_step("searching the catalogue")
        watch.report(PROGRESS)
        assert "earthmap_runs_running 1.0" in (tmp_path / "earthmap.prom").read_text()
        watch.finished(run)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["searching the catalogue", "cell done", "tile failed", "run finished"]
    assert lines[1]["run"] == str(Path("runs/valley").resolve())
    assert lines[1]["cell"] == "cell-1"
    failed = lines[2]
    assert (failed["tile"], failed["cell"], failed["execution"]) == ("tile-1", "cell-1", 2)
    assert (failed["reason"], failed["why"], failed["level"]) == ("timeout", "no answer", "warning")
    assert "abcdef" not in stream.getvalue()
    assert lines[3]["answered"] == 1
    text = (tmp_path / "earthmap.prom").read_text()
    assert 'earthmap_runs_total{outcome="finished"} 1.0' in text
    assert "earthmap_runs_running 0.0" in text


def test_a_run_with_very_many_failures_does_not_flood_the_log(tmp_path: Path) -> None:
    run, stream = finished(tmp_path, [FAILED] * (MAX_FAILURES + 50)), io.StringIO()
    with logging_to(stream):
        log_outcome(run)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert sum(line["event"] == "tile failed" for line in lines) == MAX_FAILURES
    assert lines[-1]["failed"] == {"timeout": MAX_FAILURES + 50}


def test_a_file_that_cannot_be_written_is_told_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setenv("EARTHMAP_METRICS", str(tmp_path / "no" / "folder.prom"))
    with pytest.raises(JobError, match="cannot be written"), watching.watching("r", report=None):
        pytest.fail("the run began")


def test_a_file_that_can_no_longer_be_written_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARTHMAP_METRICS", str(tmp_path / "folder" / "a.prom"))
    monkeypatch.setattr(watching, "EVERY_S", 0.0)
    (tmp_path / "folder").mkdir()
    with watching.watching("r", report=None) as watch:
        (tmp_path / "folder" / "a.prom").unlink()
        (tmp_path / "folder").rmdir()
        watch.report(PROGRESS)
