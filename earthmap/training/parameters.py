"""The model's parameters by the groups of the stage table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from earthmap.errors import TrainingError
from earthmap.training.stages import GROUPS

if TYPE_CHECKING:
    from torch import nn

    from earthmap.training.stages import Stage

_PREFIXES = (
    ("model.visual.patch_embed.", "patch_embedding"),
    ("model.visual.pos_embed.", "patch_embedding"),
    ("model.visual.blocks.", "vision_blocks"),
    ("model.visual.merger.", "mergers"),
    ("model.visual.deepstack_merger_list.", "deepstack_mergers"),
    ("model.language_model.", "decoder"),
    ("lm_head.", "decoder"),
)
"""Where the names of a group's tensors begin (transformers' Qwen3-VL)."""


ADAPTED = ".lora_"
"""In the names of the tensors that LoRA adds."""


def group_of(name: str) -> str:
    """The group that a tensor of the model belongs to. Raises TrainingError for one that belongs to none."""
    group = next((group for prefix, group in _PREFIXES if name.startswith(prefix)), None)
    if group is None:
        raise TrainingError(f"the tensor {name} belongs to no group", expected="the tensors of a Qwen3-VL model")
    return group


def parameters_by_group(model: Any, heads: nn.Module | None = None) -> dict[str, list[nn.Parameter]]:
    """Every parameter that may learn, once, by group: all of model and heads; of an adapted model the adapters alone.

    Raises TrainingError for one that belongs to no group.
    """
    found: dict[str, list[nn.Parameter]] = {group: [] for group in GROUPS}
    named = list(model.named_parameters())
    adapted = any(ADAPTED in name for name, _ in named)
    for name, parameter in named:
        if ADAPTED in name or not adapted:
            found[group_of(name)].append(parameter)
    found["alignment_heads"] = list(heads.parameters()) if heads is not None else []
    return found


def optimiser_groups(groups: dict[str, list[nn.Parameter]]) -> list[dict[str, Any]]:
    """The optimiser's groups, by group and whether they decay: matrices do, vectors (norms, biases) do not."""
    chosen = []
    for name, parameters in groups.items():
        for decays in (True, False):
            members = [parameter for parameter in parameters if (parameter.ndim > 1) == decays]
            if members:
                chosen.append({"params": members, "name": name, "decays": decays})
    return chosen


def freeze(groups: dict[str, list[nn.Parameter]], stage: Stage) -> None:
    """Let those groups learn that have a rate in the stage, and no others."""
    for name, parameters in groups.items():
        for parameter in parameters:
            parameter.requires_grad_(stage.rates.get(name, 0.0) > 0.0)
