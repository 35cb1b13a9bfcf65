"""What every test shares: no network beyond this machine, one hypothesis profile, the real scenes where they are."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

pytest_plugins = ["tests.rays", "tests.worlds"]

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: workers share the cores, and tensors are tiny
    os.environ.setdefault("OMP_NUM_THREADS", "1")

hypothesis.settings.register_profile("default", deadline=None, max_examples=50, derandomize=True, database=None)
hypothesis.settings.register_profile("ci", deadline=None, max_examples=200, derandomize=True, database=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_runtest_setup() -> None:
    """Refuse any connection that leaves this machine."""
    import pytest_socket

    pytest_socket.socket_allow_hosts(["127.0.0.1", "::1", "localhost"], allow_unix_socket=True)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real scenes; the test is skipped where there is none."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("EARTHMAP_TEST_DATA", default))
    if not (folder / "stac" / "catalog.json").is_file():
        pytest.skip(f"no real scenes at {folder}; set EARTHMAP_TEST_DATA to the folder that holds them")
    return folder
