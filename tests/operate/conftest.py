"""What the tests of operating share."""

from __future__ import annotations

import json

import pytest

from earthmap.operate import checkup, job_api, model
from earthmap.operate.child import Child
from tests.operate.clusters import WELL


@pytest.fixture(autouse=True)
def no_other_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever Ray else runs on the machine is not looked at."""
    monkeypatch.setattr(job_api, "find_places", lambda beside: sorted(beside))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children that answer at once, without Ray and torch."""

    def saying(content: object) -> Child:
        return Child(f"print({json.dumps(json.dumps(content))})", seconds=30)

    monkeypatch.setattr(checkup, "ask_ray", lambda address: saying(WELL))
    monkeypatch.setattr(job_api, "probe_head", lambda address: job_api.Guard.CLOSED)
    monkeypatch.setattr(model, "ask_gpu", lambda: saying({"torch": "2.13.0", "cuda": None, "devices": []}))
    monkeypatch.setattr(model, "ask_checkpoint", lambda folder: saying({"key": "abc"}))
    monkeypatch.setattr(model, "resolve_folder", lambda source: model.EMBEDDED_FOLDER)
    monkeypatch.setattr(model, "_size", lambda folder: 14_000_000)
    monkeypatch.setenv("EARTHMAP_RETRIES", "0")
    monkeypatch.delenv("https_proxy", raising=False)
