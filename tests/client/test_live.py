"""A live job over work that is only told of: how it is waited for, and what is said of how it ended."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from earthmap.client.live import DISMISSED, FAILED, LiveJob, Look
from earthmap.errors import CatalogError, JobError
from earthmap.operate import progress


@dataclass(slots=True)
class Told:
    """Work that stands as a list says, look by look; the last for ever."""

    looks: list[Look]
    fetched: int = 0
    cancelled: bool = False
    seen: list[Look] = field(default_factory=list)

    def look(self) -> Look:
        self.seen.append(self.looks.pop(0) if len(self.looks) > 1 else self.looks[0])
        return self.seen[-1]

    def cancel(self) -> None:
        self.cancelled = True

    def fetch(self) -> Any:
        self.fetched += 1
        return {"answer": 7}


def live(*looks: Look) -> tuple[LiveJob, Told]:
    work = Told(list(looks))
    return LiveJob(id="one", process="map", work=work), work


RUNS = Look(status="running", progress=40, messages=("searching", "1 of 2 <tiles>"))
DONE = Look(status="successful", progress=100, messages=("searching", "1 of 2 <tiles>"))


def test_the_result_is_waited_for_and_fetched_once() -> None:
    job, work = live(Look(status="accepted"), RUNS, DONE)
    assert job.result(quiet=True) == {"answer": 7}
    assert job.result() == {"answer": 7}
    assert work.fetched == 1
    assert (job.status, job.progress, job.messages[0]) == ("successful", 100, "searching")


def test_waiting_ends_at_its_time_and_the_job_goes_on() -> None:
    job, work = live(RUNS)
    began = time.monotonic()
    assert job.wait(0.2, quiet=True) is job
    assert 0.15 < time.monotonic() - began < 2.0
    assert not work.cancelled
    with pytest.raises(JobError, match=r"is running after 0\.1 s.*goes on by itself"):
        job.result(0.1, quiet=True)


def test_why_it_failed_is_raised_where_it_is_waited_for() -> None:
    job, _ = live(RUNS, Look(status=FAILED, fault=CatalogError("nothing there", expected="something", fix="look")))
    with pytest.raises(CatalogError, match="nothing there; expected something; to fix: look"):
        job.wait(quiet=True)
    dismissed, _ = live(RUNS, Look(status=DISMISSED))
    with pytest.raises(JobError, match="was dismissed"):
        dismissed.result(quiet=True)


def test_a_terminal_shows_steps_once_and_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    screen = io.StringIO()
    made = lambda stderr=False: Console(file=screen, force_terminal=True, width=100, highlight=False)  # noqa: E731
    monkeypatch.setattr(progress, "open_console", made)
    job, _ = live(RUNS, RUNS, RUNS, DONE)
    job.wait()
    text = screen.getvalue()
    assert text.count("searching") >= 1
    assert text.count("1 of 2 <tiles>") == 1
    assert "40" in text


def test_a_notebook_shows_one_bar_that_is_kept_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    class Handle:
        def update(self, picture: Any) -> None:
            shown.append(picture.data)

    def display(picture: Any, *, display_id: bool) -> Handle:
        assert display_id
        shown.append(picture.data)
        return Handle()

    class Jupyter:
        is_jupyter = True

    monkeypatch.setattr(progress, "open_console", lambda stderr=False: Jupyter())
    monkeypatch.setattr("IPython.display.display", display)
    job, _ = live(RUNS, RUNS, DONE)
    job.wait()
    assert 'value="1.0000"' in shown[-1]
    assert any('value="0.4000"' in one for one in shown)
    assert all("<tiles>" not in one for one in shown)


def test_it_shows_itself_in_a_notebook_without_acting_on_what_it_says() -> None:
    job, _ = live(Look(status="failed", fault=JobError("<script>alert(1)</script>")))
    text = job._repr_html_()
    assert "failed" in text
    assert "<script>" not in text
    assert "<progress" in text
