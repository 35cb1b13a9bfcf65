"""What the tests of the service share."""

from __future__ import annotations

import pytest

from tests.service.standard import Standard, find_standard


@pytest.fixture(scope="session")
def standard() -> Standard:
    """The standard's own schemas."""
    return find_standard()
