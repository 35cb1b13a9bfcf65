"""Ray that starts, Ray that is not there, and clusters whose nodes do not fit."""

from __future__ import annotations

from typing import Any

import pytest

from earthmap.operate.child import Child
from earthmap.operate.findings import Verdict
from earthmap.operate.ray_cluster import ask_ray, check_ray, judge_ray
from tests.operate.clusters import NODE, WELL
from tests.servers import free_port


@pytest.mark.parametrize(
    ("change", "verdict", "said"),
    [
        ({}, Verdict.OK, "4 CPUs"),
        ({"resources": {}}, Verdict.WARNING, "0 CPUs"),
        ({"nodes": [NODE, NODE | {"name": "10.0.0.3", "earthmap": None}]}, Verdict.WRONG, "10.0.0.3 has none"),
        ({"nodes": [NODE | {"earthmap": "0.5"}]}, Verdict.WRONG, "10.0.0.2 has 0.5"),
        ({"nodes": [NODE, NODE | {"lead": [95.0, 93.5]}]}, Verdict.WRONG, "behind that of node 10.0.0.2"),
        ({"nodes": [NODE | {"lead": [25.0, -0.1]}]}, Verdict.OK, "4 CPUs"),  # a worker that took 25 s to start
        ({"refused": "there is no Ray cluster at x", "fix": "start one"}, Verdict.WRONG, "no Ray cluster"),
    ],
)
def test_clusters(change: dict[str, Any], verdict: Verdict, said: str) -> None:
    found = judge_ray(WELL | change, address="10.0.0.1:6379")
    assert found.verdict is verdict
    assert said in found.found


def test_ray_that_is_not_installed_or_hangs() -> None:
    with Child("import ray.no_such_module", seconds=30) as child:
        found = check_ray(child, address=None)
    assert found.verdict is Verdict.WRONG
    assert found.fix == "pip install 'ray[data]>=2.54'"
    with Child("import time; time.sleep(100)", seconds=0.3) as child:
        found = check_ray(child, address="10.0.0.1:6379")
    assert found.verdict is Verdict.WRONG
    assert "no answer within 0.3 s" in found.found
    assert found.fix
    assert "ray status" in found.fix


@pytest.mark.slow
@pytest.mark.ray
def test_no_cluster_at_an_address() -> None:
    with ask_ray(f"127.0.0.1:{free_port()}") as child:
        found = check_ray(child, address="127.0.0.1")
    assert found.verdict is Verdict.WRONG
    assert "no Ray cluster" in found.found
