"""How the model learns: PCMA's stages, and one training step for a laptop, a notebook, a lent GPU and a cluster."""

from __future__ import annotations

from earthmap.training.checkpoints import load_learner, newest_checkpoint, save_checkpoint
from earthmap.training.data import DataSpec, prepare
from earthmap.training.data_rows import DataRows, Weights
from earthmap.training.loop import begin, train
from earthmap.training.packing import Batch, layout_of, pack
from earthmap.training.parameters import freeze, optimiser_groups, parameters_by_group
from earthmap.training.peers import Alone, Peers, agree
from earthmap.training.row_files import Prepared, read_prepared
from earthmap.training.rows import Asked, Row
from earthmap.training.sources import RowSource
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
from earthmap.training.step import Learned, Learner
from earthmap.training.validation import ValidationFigure, validate

__all__ = [
    "DEFAULT_TABLE",
    "GROUPS",
    "MODALITIES",
    "Alone",
    "Asked",
    "Batch",
    "DataRows",
    "DataSpec",
    "Learned",
    "Learner",
    "Peers",
    "Prepared",
    "Row",
    "RowSource",
    "Stage",
    "StageTable",
    "ValidationFigure",
    "Weights",
    "agree",
    "begin",
    "default_table",
    "freeze",
    "layout_of",
    "load_learner",
    "load_table",
    "newest_checkpoint",
    "optimiser_groups",
    "pack",
    "parameters_by_group",
    "parse_table",
    "prepare",
    "read_prepared",
    "save_checkpoint",
    "train",
    "validate",
]
