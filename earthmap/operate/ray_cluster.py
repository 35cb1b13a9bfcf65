"""Whether Ray starts on this machine, or a cluster at an address takes work, tried as a run would in another process.

The module imports no Ray: the question is asked in a process of its own, which may hang or be ended by Ray itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from earthmap.errors import IsolatedError
from earthmap.operate.child import Child
from earthmap.operate.findings import Finding, ok, size_text, warning, wrong
from earthmap.operate.storage import judge_skew

SECONDS = 90.0
"""Longest wait for Ray: a cold start takes 20 s, a worker of a cluster that grows longer."""

MAX_NODES = 50
"""Nodes whose clock and packages are looked at."""

_TRY = """
import json, sys, time
from earthmap.errors import EarthmapError
from earthmap.pipeline.cluster import cluster

def look():
    import platform, time
    try:
        import earthmap
        version = earthmap.__version__
    except ImportError:
        version = None
    return {"time": time.time(), "earthmap": version, "python": platform.python_version()}

try:
    with cluster(sys.argv[1] or None):
        import earthmap, ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On
        alive = [node for node in ray.nodes() if node["Alive"]]
        nodes = []
        for node in alive[:int(sys.argv[2])]:
            work = ray.remote(look).options(num_cpus=0, scheduling_strategy=On(node["NodeID"], soft=False))
            asked = time.time()
            said = ray.get(work.remote())
            lead = [said.pop("time") - asked, 0]
            lead[1] = lead[0] - (time.time() - asked)
            nodes.append({"name": node["NodeManagerAddress"], "lead": lead, **said})
        print(json.dumps({
            "ray": ray.__version__, "nodes": nodes, "alive": len(alive), "earthmap": earthmap.__version__,
            "resources": {name: count for name, count in ray.cluster_resources().items() if name in
                          ("CPU", "GPU", "memory", "reader", "predictor")},
        }))
except EarthmapError as error:
    print(json.dumps({"refused": error.what, "fix": error.fix}))
"""


def ask_ray(address: str | None) -> Child:
    """The question to Ray: at `address`, or by starting one here, which is ended with the child."""
    return Child(_TRY, address or "", str(MAX_NODES), seconds=SECONDS)


def check_ray(child: Child, *, address: str | None) -> Finding:
    """Whether Ray answered and its workers work."""
    where = f"the Ray cluster at {address}" if address else "Ray on this machine"
    try:
        found = child.answer()
    except IsolatedError as error:
        return wrong("ray", f"{where}: {error.what}", expected="that a worker answers", fix=_fix(error, address))
    return judge_ray(found, address=address)


def judge_ray(found: Mapping[str, Any], *, address: str | None) -> Finding:
    """The finding for what the child said."""
    name, expected = "ray", "a cluster whose workers have this earthmap"
    if "refused" in found:
        fix = str(found.get("fix") or "start one with `ray start --head`")
        return wrong(name, str(found["refused"]), expected="a Ray that starts", fix=fix)
    others = {node["name"]: node["earthmap"] for node in found["nodes"] if node["earthmap"] != found["earthmap"]}
    if others:
        said = ", ".join(f"{node} has {version or 'none'}" for node, version in sorted(others.items()))
        return wrong(
            name,
            f"earthmap is {found['earthmap']} here, and {said}",
            expected=expected,
            fix="install the same version on every node, in the image or by `ray job submit --working-dir .`",
        )
    if (skewed := _skewed(found)) is not None:
        return skewed
    resources = found["resources"]
    said = f"{found['alive']} node(s), {resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs"
    said = (
        f"Ray {found['ray']} at {address or 'this machine'}: {said}, {size_text(resources.get('memory', 0))} of memory"
    )
    if resources.get("CPU", 0) < 1 and "reader" not in resources:  # one that offers roles grows when work comes
        return warning(name, said, expected="one CPU at least", fix="add a node, or start the head with --num-cpus")
    return ok(name, said)


def _skewed(found: Mapping[str, Any]) -> Finding | None:
    """The finding for the first node whose clock is off this machine's."""
    judged = (judge_skew("ray", f"node {node['name']}", *node["lead"]) for node in found["nodes"])
    return next((finding for finding in judged if finding.expected is not None), None)


def _fix(error: IsolatedError, address: str | None) -> str:
    if address:
        return f"see `ray status --address {address}`: are its nodes up, and do they reach this machine"
    if "No module named 'ray" in error.what:
        return "pip install 'ray[data]>=2.54'"
    return "look at memory, disk and shared memory above, and at session_latest/logs in Ray's temporary folder"
