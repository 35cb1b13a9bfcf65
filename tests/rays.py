"""One Ray for all tests in a row that run in this process: to start it and its workers takes longer than most do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from earthmap.pipeline.cluster import cluster

_running = contextlib.ExitStack()


@pytest.fixture(scope="module")
def ray_cluster() -> None:
    """Ray on this machine, with its defaults. It ends before the first test that does not ask for it."""
    import ray

    if not ray.is_initialized():
        _running.enter_context(cluster(None))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that use it go first, in their order."""
    items.sort(key=lambda item: not _uses(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> Iterator[None]:
    """End it when the next test is none of those, after all fixtures of the last one."""
    try:
        yield
    finally:
        if nextitem is None or not _uses(nextitem):
            _running.close()


def _uses(item: pytest.Item) -> bool:
    return "ray_cluster" in getattr(item, "fixturenames", ())
