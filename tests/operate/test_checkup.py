"""All checks together: each fault is told, and none hides the others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from earthmap.operate import Verdict, Wanted, check_up
from tests.servers import free_port


@pytest.mark.usefixtures("quick")
def test_every_part_is_looked_at(tmp_path: Path) -> None:
    heard: list[str] = []
    found = check_up(Wanted(storage=str(tmp_path), needs_bytes=1), heard=lambda one: heard.append(one.check))
    names = [one.check for one in found.findings]
    assert heard == names
    assert names[0] == "packages"
    assert {"memory", "processors", "disk.temporary", "disk.shared_memory", "clock", "connection"} <= set(names)
    assert {"storage.write", "storage.create", "storage.room", "model", "ray", "gpu"} <= set(names)
    assert found.verdict is not Verdict.WRONG, found
    said = json.loads(json.dumps(found.to_dict()))
    assert said["verdict"] == found.verdict.value
    assert all(one["fix"] for one in said["findings"] if one["verdict"] != "ok")


@pytest.mark.usefixtures("quick")
def test_one_fault_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("https_proxy", f"http://u:s3cret@127.0.0.1:{free_port()}")
    found = check_up(Wanted(storage=str(tmp_path / "file"), catalog="https://stac.example.org"))
    wrong = {one.check for one in found.findings if one.verdict is Verdict.WRONG}
    assert wrong >= {"connection", "storage"}
    assert "clock.service" not in {one.check for one in found.findings}
    assert {"ray", "gpu", "model"} <= {one.check for one in found.findings}
    assert "s3cret" not in json.dumps(found.to_dict())


def test_where_a_package_is_missing_the_machine_is_still_looked_at(tmp_path: Path) -> None:
    code = (
        "import sys, json\n"
        "for name in ('numpy', 'pydantic', 'requests', 'obstore', 'pyproj'): sys.modules[name] = None\n"
        "from earthmap.operate import check_up\nprint(json.dumps(check_up().to_dict()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=60
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["verdict"] == "wrong"
    names = [one["check"] for one in said["findings"]]
    assert names.count("packages") == 2  # by what is installed, and by what can be loaded
    assert {"memory", "disk.temporary", "clock"} <= set(names)


def _asked() -> set[int]:
    """Processes that a checkup started, by the mark in their environment."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            marked = b"EARTHMAP_CHECKUP=" in path.read_bytes()
        except OSError:
            continue
        found |= {int(path.parent.name)} if marked else set()
    return found


@pytest.mark.slow
@pytest.mark.ray
def test_this_machine_for_real_and_nothing_is_left(tmp_path: Path) -> None:
    before = _asked()
    found = check_up(Wanted(storage=str(tmp_path)))
    assert found.verdict is not Verdict.WRONG, found
    said = {one.check: one.found for one in found.findings}
    assert said["ray"].startswith("Ray 2.")
    assert said["model"].startswith("nano is whole")
    assert "torch" in said["gpu"]
    assert _asked() <= before
    assert list(tmp_path.iterdir()) == []
