"""What connecting to a cluster sets in the environment is gone with it: the process may be somebody's notebook."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest

from earthmap.errors import JobError
from earthmap.pipeline.cluster import cluster

NAMES = ("RAY_AUTH_MODE", "RAY_BACKEND_LOG_LEVEL")


def _settings() -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in NAMES}


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(
    ("before", "seen"),
    [({}, ["token", "fatal"]), ({"RAY_AUTH_MODE": "disabled", "RAY_BACKEND_LOG_LEVEL": "info"}, ["disabled", "info"])],
)
def test_the_environment_is_as_before(
    monkeypatch: pytest.MonkeyPatch, before: dict[str, str], seen: list[str], fails: bool
) -> None:
    import ray

    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    former, met = _settings(), list[dict[str, str | None]]()

    def init(**options: Any) -> None:
        met.append(_settings())
        if fails:
            raise ConnectionError("nobody is there")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        if fails:
            with pytest.raises(JobError, match="nobody is there"), cluster(address):
                pass
        else:
            with cluster(address):
                assert os.environ["RAY_AUTH_MODE"] == seen[0]
                assert os.environ.get("RAY_BACKEND_LOG_LEVEL") == former["RAY_BACKEND_LOG_LEVEL"]
    assert [list(one.values()) for one in met] == [seen]
    assert _settings() == former
