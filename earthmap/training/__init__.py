"""How the model learns: PCMA's stages, and one training step for a laptop, a notebook, a lent GPU and a cluster."""

from __future__ import annotations

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
    "Stage",
    "StageTable",
    "default_table",
    "load_table",
    "parse_table",
]
