"""Whether GPUs and checkpoints can be used, asked in processes of their own: drivers hang, and torch takes memory."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from earthmap.errors import IsolatedError, ModelError
from earthmap.model.card import read_card
from earthmap.model.checkpoint import EMBEDDED, EMBEDDED_FOLDER, find_checkpoint
from earthmap.model.inspection import weight_files
from earthmap.operate.child import Child
from earthmap.operate.findings import Finding, ok, size_text, warning, wrong

SECONDS = 90.0
"""Longest wait for torch or for a checkpoint: both are read from disk, cold perhaps."""

LEAST_GPU_BYTES = 8 * 10**9
"""Free memory of a GPU below which preset `2b` in bfloat16 does not fit."""

_GPU = """
import json, torch
devices = []
for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
    free, total = torch.cuda.mem_get_info(number)
    ones = torch.ones(16, 16, device=f"cuda:{number}")
    name = torch.cuda.get_device_name(number)
    devices.append({"name": name, "free": free, "total": total, "right": float((ones @ ones).sum()) == 4096.0})
print(json.dumps({"torch": torch.__version__, "cuda": torch.version.cuda, "devices": devices}))
"""

_CHECKPOINT = """
import json, sys
from pathlib import Path
from earthmap.errors import ModelError
from earthmap.model.checkpoint import checkpoint_key
from earthmap.model.inspection import inspect_folder
try:
    inspect_folder(Path(sys.argv[1]))
    print(json.dumps({"key": checkpoint_key(Path(sys.argv[1]))}))
except ModelError as error:
    print(json.dumps({"refused": error.what, "expected": error.expected, "fix": error.fix}))
"""


# ── GPU ──────────────────────────────────────────────────────────────────────────────────────────────────────


def ask_gpu() -> Child:
    """The question which GPUs torch sees, and whether they compute."""
    return Child(_GPU, seconds=SECONDS)


def check_gpu(child: Child, *, driver: Path = Path("/proc/driver/nvidia/version")) -> Finding:
    """Whether torch can use the GPUs that are there; to have none is no fault."""
    try:
        found = child.answer()
    except IsolatedError as error:
        fix = "pip install 'torch>=2.13,<2.14'" if "No module named" in error.what else "see `nvidia-smi` and `dmesg`"
        return wrong("gpu", f"torch: {error.what}", expected="that torch loads and the GPU computes", fix=fix)
    return judge_gpu(found, has_driver=driver.is_file())


def judge_gpu(found: Mapping[str, Any], *, has_driver: bool) -> Finding:
    """The finding for what torch said."""
    name, devices, build = "gpu", found["devices"], f"torch {found['torch']}"
    if not devices:
        if not has_driver:
            return ok(name, f"none; {build} computes on the processors")
        if found["cuda"] is None:
            return warning(
                name,
                f"there is an NVIDIA driver, and {build} is built without CUDA",
                expected="a build for CUDA",
                fix="install torch from the index for your CUDA version (pytorch.org, Get started)",
            )
        return warning(
            name,
            f"there is an NVIDIA driver, and {build} for CUDA {found['cuda']} sees no GPU",
            expected="a driver as new as CUDA, and GPUs that are not hidden",
            fix="see `nvidia-smi`; check CUDA_VISIBLE_DEVICES, and in a container --gpus all",
        )
    said = ", ".join(f"{one['name']} ({size_text(one['free'])} of {size_text(one['total'])} free)" for one in devices)
    if not all(one["right"] for one in devices):
        return wrong(name, f"{said}: a sum comes out wrong", expected="right sums", fix="take this GPU out of use")
    if max(one["free"] for one in devices) < LEAST_GPU_BYTES:
        return warning(
            name, said, expected=f"{size_text(LEAST_GPU_BYTES)} free", fix="end what else holds it (`nvidia-smi`)"
        )
    return ok(name, f"{said}; {build}, CUDA {found['cuda']}")


# ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────


def ask_checkpoint(folder: Path) -> Child:
    """The question whether the checkpoint is whole and its numbers agree, and for its key."""
    return Child(_CHECKPOINT, str(folder), seconds=SECONDS)


def resolve_folder(source: str) -> Path | Finding:
    """The folder of a checkpoint that is here, with a card that can be read and whole weight files; nothing is fetched.

    The finding where it is not.
    """
    try:
        folder = find_checkpoint(source) if source == EMBEDDED else find_checkpoint(Path(source))
        read_card(folder)
        weight_files(folder)
    except ModelError as error:
        return wrong(
            "model",
            error.what,
            expected=error.expected or "a checkpoint with its card",
            fix=error.fix or "name the folder of a checkpoint",
        )
    if damaged := damaged_files(_installed_files(folder)):
        return wrong(
            "model",
            f"{', '.join(damaged)} of {folder} differ from what was installed",
            expected="the checksums of the package",
            fix="pip install --force-reinstall --no-deps earthmap",
        )
    return folder


def check_checkpoint(child: Child, *, source: str, folder: Path, available_bytes: int | None) -> Finding:
    """Whether the checkpoint is whole, and fits into memory."""
    try:
        found = child.answer()
    except IsolatedError as error:
        return wrong(
            "model", f"{source}: {error.what}", expected="a checkpoint that can be read", fix="fetch or save it again"
        )
    return judge_checkpoint(found, source=source, size=_size(folder), available_bytes=available_bytes)


def judge_checkpoint(
    found: Mapping[str, Any], *, source: str, size: int, available_bytes: int | None
) -> Finding:  # fmt: skip
    """The finding for what was said of a checkpoint whose weights take `size` bytes."""
    name = "model"
    if "refused" in found:
        expected = str(found.get("expected") or "a whole checkpoint")
        return wrong(name, str(found["refused"]), expected=expected, fix=str(found.get("fix") or "fetch it again"))
    said = f"{source} is whole: {size_text(size)} of weights, key {found['key']}"
    if available_bytes is not None and 2 * size > available_bytes:  # kept in 16 bits, computed in 32 without a GPU
        return warning(
            name,
            f"{said}; {size_text(available_bytes)} of memory are available",
            expected=f"{size_text(2 * size)} for each predictor",
            fix="take a machine with more memory, or a smaller checkpoint such as nano",
        )
    return ok(name, said)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in weight_files(folder))


def _installed_files(folder: Path) -> Iterable[importlib.metadata.PackagePath]:
    """The files in `folder` whose checksums the installed package names; none of another folder, or a source tree."""
    if folder != EMBEDDED_FOLDER:
        return []
    files = importlib.metadata.files("earthmap") or []
    return [file for file in files if Path(str(file.locate())).parent == folder]


def damaged_files(files: Iterable[importlib.metadata.PackagePath]) -> list[str]:
    """Names of those that are gone, or whose bytes are not those of the package's RECORD (PEP 376, 427)."""
    damaged = []
    for file in files:
        if file.hash is None or file.hash.mode != "sha256":
            continue
        try:
            with Path(str(file.locate())).open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").digest()
        except OSError:
            damaged.append(file.name)
            continue
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value.rstrip("="):
            damaged.append(file.name)
    return damaged
