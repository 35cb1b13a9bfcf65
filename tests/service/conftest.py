"""What the tests of the service share."""

from __future__ import annotations

import pytest

from earthmap.operate import job_api
from tests.service.standard import Standard, find_standard


@pytest.fixture(scope="session")
def standard() -> Standard:
    """The standard's own schemas."""
    return find_standard()


@pytest.fixture(autouse=True)
def no_other_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever Ray else runs on the machine keeps no service of a test from starting."""
    monkeypatch.setattr(job_api, "find_places", lambda beside: sorted(beside))
