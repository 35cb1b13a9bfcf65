"""GPUs and checkpoints that can be used, and those that cannot."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import shutil
from pathlib import Path

import pytest

from earthmap.model.checkpoint import EMBEDDED_FOLDER, has_embedded
from earthmap.operate.child import Child
from earthmap.operate.findings import Finding, Verdict
from earthmap.operate.model import (
    ask_checkpoint,
    check_checkpoint,
    check_gpu,
    damaged_files,
    judge_checkpoint,
    judge_gpu,
    resolve_folder,
)

H200 = {"name": "NVIDIA H200", "free": 140 * 10**9, "total": 150 * 10**9, "right": True}
needs_nano = pytest.mark.skipif(not has_embedded(), reason="this copy came without the weights of nano")


@pytest.mark.parametrize(
    ("cuda", "devices", "driver", "verdict"),
    [
        (None, [], False, Verdict.OK),
        (None, [], True, Verdict.WARNING),
        ("12.8", [], True, Verdict.WARNING),
        ("12.8", [H200], True, Verdict.OK),
        ("12.8", [H200 | {"free": 10**9}], True, Verdict.WARNING),
        ("12.8", [H200, H200 | {"right": False}], True, Verdict.WRONG),
    ],
)
def test_gpus(cuda: str | None, devices: list[dict[str, object]], driver: bool, verdict: Verdict) -> None:
    found = judge_gpu({"torch": "2.13.0", "cuda": cuda, "devices": devices}, has_driver=driver)
    assert found.verdict is verdict
    assert (found.fix is None) is (verdict is Verdict.OK)


def test_a_torch_that_is_missing_or_kills_the_process() -> None:
    with Child("import no_such_torch", seconds=30) as child:
        found = check_gpu(child)
    assert found.verdict is Verdict.WRONG
    assert found.fix
    assert "pip install" in found.fix
    with Child("import os; os.abort()", seconds=30) as child:
        assert "signal 6" in check_gpu(child).found


def test_no_checkpoint_is_fetched_and_none_is_wrong(tmp_path: Path) -> None:
    for source in ("Qwen/Qwen3-VL-2B-Instruct", str(tmp_path), str(tmp_path / "none")):
        found = resolve_folder(source)
        assert isinstance(found, Finding)
        assert found.verdict is Verdict.WRONG
        assert found.fix


@needs_nano
def test_a_card_that_is_damaged_and_weights_that_are_gone(tmp_path: Path) -> None:
    assert resolve_folder("nano") == EMBEDDED_FOLDER
    copy = tmp_path / "copy"
    shutil.copytree(EMBEDDED_FOLDER, copy)
    assert resolve_folder(str(copy)) == copy
    (copy / "model.safetensors").unlink()
    assert isinstance(resolve_folder(str(copy)), Finding)
    shutil.copy(EMBEDDED_FOLDER / "model.safetensors", copy)
    (copy / "earthmap.json").write_text("{")
    assert isinstance(resolve_folder(str(copy)), Finding)


def _installed(folder: Path, files: dict[str, bytes]) -> list[importlib.metadata.PackagePath]:
    """A package as pip leaves it."""
    info = folder / "drawn-1.0.dist-info"
    info.mkdir()
    lines = []
    for name, data in files.items():
        (folder / name).write_bytes(data)
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(data)}")
    (info / "RECORD").write_text("\n".join([*lines, "drawn-1.0.dist-info/RECORD,,"]))
    return list(importlib.metadata.PathDistribution(info).files or [])


def test_a_file_with_another_checksum_than_was_installed(tmp_path: Path) -> None:
    files = _installed(tmp_path, {"model.safetensors": b"weights" * 100, "config.json": b"{}", "card.json": b"{}"})
    assert damaged_files(files) == []
    data = bytearray(b"weights" * 100)
    data[50] ^= 1  # one bit
    (tmp_path / "model.safetensors").write_bytes(bytes(data))
    (tmp_path / "card.json").unlink()
    assert sorted(damaged_files(files)) == ["card.json", "model.safetensors"]


def test_a_model_larger_than_the_memory() -> None:
    found = judge_checkpoint({"key": "k"}, source="big", size=4 * 10**9, available_bytes=6 * 10**9)
    assert found.verdict is Verdict.WARNING
    assert judge_checkpoint({"key": "k"}, source="big", size=10**9, available_bytes=6 * 10**9).verdict is Verdict.OK
    assert judge_checkpoint({"key": "k"}, source="big", size=10**9, available_bytes=None).verdict is Verdict.OK


@pytest.mark.slow
@needs_nano
def test_a_checkpoint_that_is_cut_short(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(EMBEDDED_FOLDER, copy)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with ask_checkpoint(copy) as child:
        found = check_checkpoint(child, source=str(copy), folder=copy, available_bytes=10**10)
    assert found.verdict is Verdict.WRONG
    assert "damaged" in found.found
