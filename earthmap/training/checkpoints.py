"""A learner on the disk: whole or not at all, and read again it goes on as if nothing had happened.

A checkpoint is the folder `step-00000500` of a run: a model that loads like any other, or the adapters of one that is
not trained itself, the optimiser, and where in the table it stands. It is written beside its place, its manifest with
the checksums of all files last, and moved there in one step, so that a process that dies or a disk that is full leaves
the checkpoints before it as they were.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earthmap.errors import ModelError, StorageError, TrainingError
from earthmap.training.lora import is_adapted, load_adapters, save_adapters
from earthmap.training.stages import StageTable
from earthmap.training.step import Learner

if TYPE_CHECKING:
    from torch import Tensor

    from earthmap.model.alignment import AlignmentHeads
    from earthmap.model.earth_onevision import EarthOneVision
    from earthmap.training.peers import Peers

Start = Callable[[], "tuple[EarthOneVision, AlignmentHeads]"]
"""Makes the model that a new run begins with, and its alignment heads."""

ADAPTERS = "adapters"
"""Folder in a checkpoint of what LoRA learned."""

KEPT = 2
"""Checkpoints that stay; older ones are removed when a new one is whole."""

MANIFEST = "manifest.json"
"""Written last: the checksum of every other file."""

_MODEL, _OPTIMISER, _STATE = "model", "optimiser.safetensors", "state.json"
_NAME, _WRITING = "step-{:08d}", ".writing-"


def save_checkpoint(learner: Learner, folder: Path) -> Path:
    """Write where `learner` stands into `folder`, and return the new checkpoint.

    Raises:
        StorageError: where it cannot be written whole; those before it stay.
    """
    from safetensors import SafetensorError

    place = folder / _NAME.format(learner.step)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{_WRITING}*"):  # by a process that died; nobody else writes here
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(prefix=_WRITING, dir=folder) as scratch:
            whole = Path(scratch) / place.name
            _write(learner, whole)
            if place.exists():
                shutil.rmtree(place)
            whole.rename(place)
    except (OSError, ModelError, SafetensorError) as error:
        raise StorageError(
            f"the checkpoint {place} cannot be written: {error}",
            fix=f"make room and go on from {learner.last_good or 'the start'}",
        ) from error
    learner.last_good = str(place)
    for older in _checkpoints(folder)[:-KEPT]:
        shutil.rmtree(older, ignore_errors=True)
    return place


def _write(learner: Learner, folder: Path) -> None:
    from safetensors.torch import save_file

    from earthmap.model.alignment import save_heads

    adapted = is_adapted(learner.model.model)
    weights = folder / (ADAPTERS if adapted else _MODEL)
    weights.mkdir(parents=True)
    if adapted:
        save_adapters(learner.model.model, weights)
    else:
        learner.model.save(weights)
    save_heads(learner.heads, weights)
    save_file(_moments(learner), folder / _OPTIMISER)
    state = {
        "step": learner.step,
        "losses": list(learner.losses),
        "table": learner.table.model_dump(mode="json"),
        "source": learner.source,
        "taught": learner.model.card.taught,
    }
    (folder / _STATE).write_text(json.dumps(state), encoding="utf-8")
    sums = {str(path.relative_to(folder)): _sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    (folder / MANIFEST).write_text(json.dumps(sums, indent=1), encoding="utf-8")


def _moments(learner: Learner) -> dict[str, Tensor]:
    """The optimiser's tensors by parameter and name; of parameters that never learned there are none."""
    import torch

    state: dict[int, dict[str, Any]] = learner.optimiser.state_dict()["state"]
    return {
        f"{number}.{name}": torch.as_tensor(value).detach().cpu().contiguous()
        for number, values in state.items()
        for name, value in values.items()
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checkpoints(folder: Path) -> list[Path]:
    """By step."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def newest_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint of a run whose files are all as they were written; None where there is none."""
    return next((path for path in reversed(_checkpoints(folder)) if _is_whole(path)), None)


def _is_whole(place: Path) -> bool:
    try:
        sums = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
        return bool(sums) and all(_sha256(place / name) == wanted for name, wanted in sums.items())
    except (OSError, ValueError, AttributeError):
        return False


def load_learner(
    place: Path,
    *,
    table: StageTable,
    source: str = "",
    start: Start | None = None,
    at_once: int = 64,
    peers: Peers | None = None,
) -> Learner:
    """The learner of a checkpoint, to go on along the same table with the same rows.

    `start` makes what it began from, which a checkpoint of adapters needs.

    Raises:
        TrainingError: for a table that is not the one it has learned along so far, with what differs; for other rows.
        ModelError: for a checkpoint that cannot be read.
    """
    import torch
    from safetensors.torch import load_file

    try:
        state = json.loads((place / _STATE).read_text(encoding="utf-8"))
        before, rows = StageTable.model_validate(state["table"]), str(state["source"])
        moments = load_file(place / _OPTIMISER)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{place} is no checkpoint of a training: {error}", expected="what a run wrote") from error
    changed = before.differences(table)
    if changed:
        raise TrainingError(
            f"the table of stages is not the one that {place} was trained along: {'; '.join(changed)}",
            expected="the same table",
            fix="give that table, or start a new run from the checkpoint's model",
        )
    if rows != source:
        raise TrainingError(
            f"the rows are not those that {place} was trained on: {rows!r} then, {source!r} now",
            expected="the same data, seed and mixture",
            fix="give those, or start a new run from the checkpoint's model",
        )
    model, heads = _adapted(place, start) if (place / ADAPTERS).is_dir() else _whole(place)
    learner = Learner(model, heads, table=table, source=source, at_once=at_once, peers=peers)
    # Adapters come without a card; a state of before tasks were noted tells of what is asked from here on.
    taught = state.get("taught", ())
    learner.model.card = replace(learner.model.card, taught=None if taught is None else tuple(taught))
    learner.step = int(state["step"])
    learner.losses.extend(state["losses"])
    learner.last_good = str(place)
    by_parameter: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in moments.items():
        number, _, what = name.partition(".")
        by_parameter.setdefault(int(number), {})[what] = tensor
    groups = learner.optimiser.state_dict()["param_groups"]
    learner.optimiser.load_state_dict({"state": by_parameter, "param_groups": groups})
    return learner


def _whole(place: Path) -> tuple[EarthOneVision, AlignmentHeads]:
    from earthmap.model.earth_onevision import load_earth_onevision

    model = load_earth_onevision(place / _MODEL, dtype="float32")
    return model, model.heads()


def _adapted(place: Path, start: Start | None) -> tuple[EarthOneVision, AlignmentHeads]:
    from earthmap.model.alignment import load_heads

    if start is None:
        raise TrainingError(f"{place} holds adapters alone", expected="the model that they were trained on")
    model, heads = start()
    load_adapters(model.model, place / ADAPTERS)
    found = load_heads(place / ADAPTERS, width=model.model.config.vision_config.out_hidden_size, levels=heads.levels)
    return model, found.to(model.engine.device)
