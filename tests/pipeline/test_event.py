"""What is looked at before an event ends at it, and what is looked at after begins at it."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap.errors import JobError
from earthmap.pipeline.event import BEFORE_DAYS, parse_event

TICK = datetime.timedelta(microseconds=1)
DAYS = st.dates(datetime.date(2023, 1, 1), datetime.date(2025, 12, 31))


@given(day=DAYS, early=st.tuples(DAYS, DAYS).map(sorted), late=st.tuples(DAYS, DAYS).map(sorted))
def test_dates_are_cut_at_the_event_or_refused(
    day: datetime.date, early: list[datetime.date], late: list[datetime.date]
) -> None:
    before, after = (f"{first}/{last}" for first, last in (early, late))
    if early[0] >= day or late[1] < day:
        with pytest.raises(JobError, match="the event"):
            parse_event(str(day), before=before, after=after)
        return
    event = parse_event(str(day), before=before, after=after)
    assert event.before.end is not None
    assert event.after.start is not None
    assert event.before.end < event.time <= event.after.start
    cut = [early[1] >= day, late[0] < day]
    assert [event.before.end == event.time - TICK, event.after.start == event.time] == [
        early[1] >= day - datetime.timedelta(days=1),
        late[0] <= day,
    ]
    assert len(event.notes) == sum(cut)
    assert all("cut at the event" in note for note in event.notes)


def test_without_dates_half_a_year_before_and_all_after() -> None:
    event = parse_event("2024-06-07T03:30Z", before=None, after=None)
    assert event.before.end == event.time - TICK
    assert event.before.start == event.time - datetime.timedelta(days=BEFORE_DAYS)
    assert str(event.after) == "2024-06-07T03:30:00Z/.."
    assert event.span == "2023-12-10T03:30:00Z/.."
    assert "180 days" in event.notes[0]
    assert not event.before_named


@pytest.mark.parametrize("time", ["../2024", "soon", "2024-13", ""])
def test_a_time_that_is_none_is_refused(time: str) -> None:
    with pytest.raises(JobError):
        parse_event(time, before=None, after=None)
