"""LoRA (Hu et al. 2021, arXiv 2106.09685), through `peft`: small matrices beside those of a model that stays as it is.

Adapted are the linear layers of the groups that learn in some stage; the patch embedding, word embeddings, norms and
biases are not. The alignment heads, which are no part of the model, learn as ever. What is written peft reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earthmap.errors import ModelError, TrainingError
from earthmap.training.parameters import ADAPTED, group_of

if TYPE_CHECKING:
    from earthmap.training.stages import StageTable

NAME = "default"
"""peft's name for the only adapter."""

ALPHA = 2.0
"""Adapters are scaled by ALPHA: their `lora_alpha` is this times their rank."""

_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
"""Before each tensor's name in peft's files."""


def adapt(model: Any, *, rank: int, table: StageTable, seed: int) -> None:
    """Put adapters of `rank` into `model`, in its place; they change nothing before they have learned.

    Raises:
        TrainingError: for a rank below 1, and where no group that learns has linear layers.
    """
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    if rank < 1:
        raise TrainingError(f"adapters of rank {rank}", expected="1 or more, such as 16")
    learning = {group for stage in table.stages for group, rate in stage.rates.items() if rate}
    names = [name for name, _ in _linear(model) if group_of(f"{name}.weight") in learning]
    if not names:
        raise TrainingError(
            f"none of {', '.join(sorted(learning))} has layers that LoRA adapts",
            expected="a rate for vision_blocks, mergers, deepstack_mergers or decoder",
        )
    config = LoraConfig(r=rank, lora_alpha=int(ALPHA * rank), target_modules=names)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model, adapter_name=NAME)


def _linear(model: Any) -> Iterator[tuple[str, Any]]:
    """What can be adapted: every linear layer but the one that makes words."""
    from torch import nn

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name != "lm_head":
            yield name, module


def is_adapted(model: Any) -> bool:
    """Whether `model` holds adapters."""
    return any(ADAPTED in name for name, _ in model.named_parameters())


def save_adapters(model: Any, folder: Path) -> None:
    """Write the adapters into `folder`, as `peft.PeftModel.from_pretrained` reads them."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    model.peft_config[NAME].save_pretrained(folder)
    state = {
        _PREFIX + name.replace(f".{NAME}.", "."): weight.detach().cpu().contiguous()
        for name, weight in model.named_parameters()
        if ADAPTED in name
    }
    save_file(state, folder / _WEIGHTS, metadata={"format": "pt"})


def load_adapters(model: Any, folder: Path) -> None:
    """Read into an adapted `model` what was saved of one like it. Raises ModelError where it is another."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    mine = {name: weight for name, weight in model.named_parameters() if ADAPTED in name}
    try:
        state = load_file(folder / _WEIGHTS)
        found = {_PREFIX + name.replace(f".{NAME}.", "."): weight for name, weight in mine.items()}
        if state.keys() != found.keys():
            raise ModelError(f"{folder} holds {len(state)} tensors", expected=f"the {len(found)} of these adapters")
        with torch.no_grad():
            for name, weight in found.items():
                weight.copy_(state[name])
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(f"{folder} holds no adapters of this model: {error}") from error


def merge(model: Any) -> None:
    """Make `model` in its place a plain one again, with what its adapters learned added to its own weights."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = [(name, module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]
    for name, module in adapted:
        module.merge()
        above, _, own = name.rpartition(".")
        setattr(model.get_submodule(above), own, module.get_base_layer())
    if adapted:
        del model.peft_config
