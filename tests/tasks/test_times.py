"""Times in SLIS: each text means the time that it was made of."""

from __future__ import annotations

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from earthmap.tasks.serialization import is_time
from earthmap.tasks.times import numbers_by_text, time_texts

INSTANTS = st.datetimes(dt.datetime(1990, 1, 1), dt.datetime(2040, 1, 1), timezones=st.just(dt.UTC))


@given(st.lists(INSTANTS.map(lambda time: time.replace(microsecond=0)), min_size=1, max_size=12, unique=True))
def test_each_text_means_its_time(times: list[dt.datetime]) -> None:
    times = sorted(times)
    texts = time_texts(times)
    assert all(map(is_time, texts))
    numbers = numbers_by_text(times)
    assert [numbers[text] for text in texts] == list(range(len(times)))


def test_a_day_with_two_times_means_neither() -> None:
    times = [dt.datetime(2024, 6, 1, hour, tzinfo=dt.UTC) for hour in (9, 15)]
    assert time_texts(times) == ("2024-06-01T09:00:00Z", "2024-06-01T15:00:00Z")
    numbers = numbers_by_text(times)
    assert "2024-06-01" not in numbers
    assert (numbers["0s"], numbers["21600s"]) == (0, 1)
