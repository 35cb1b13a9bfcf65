"""How the model learns: PCMA's stages, and one training step for a laptop, a notebook, a lent GPU and a cluster."""

from __future__ import annotations

from earthmap.training.packing import Batch, layout_of, pack
from earthmap.training.parameters import freeze, optimiser_groups, parameters_by_group
from earthmap.training.rows import Asked, Row
from earthmap.training.stages import (
    DEFAULT_TABLE,
    GROUPS,
    MODALITIES,
    Stage,
    StageTable,
    default_table,
    load_table,
    parse_table,
)

__all__ = [
    "DEFAULT_TABLE",
    "GROUPS",
    "MODALITIES",
    "Asked",
    "Batch",
    "Row",
    "Stage",
    "StageTable",
    "default_table",
    "freeze",
    "layout_of",
    "load_table",
    "optimiser_groups",
    "pack",
    "parameters_by_group",
    "parse_table",
]
