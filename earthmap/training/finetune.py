"""`earthmap finetune`: a model, rows to learn from and a table of stages → a trained model in a run folder.

The run folder says what it is a run of (`finetune.json`). The same command takes it up where its newest checkpoint
stands; another model, other data or another table are refused, with what differs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earthmap.errors import RunFolderError, TrainingError
from earthmap.storage import Storage
from earthmap.training.drawn import DrawnRows
from earthmap.training.origin import Origin
from earthmap.training.peers import Alone
from earthmap.training.stages import OWN_RATE, StageTable, default_table, load_table, own_table
from earthmap.training.working import DONE, MODEL, Work, work

if TYPE_CHECKING:
    from earthmap.training.sources import RowSource
    from earthmap.training.step import Learned

CLAIM, ROWS = "finetune.json", "rows"


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneSpec:
    """What is asked for. Raises TrainingError where it makes no sense."""

    out: str
    """Run folder, or s3:// address."""
    data: tuple[str, ...] = ()
    """Data sets as `earthmap.training.DataSpec.parse` reads them; () for drawn tiles."""
    preset: str | None = None
    """Size of a new model."""
    model: str | None = None
    """Checkpoint to start from: a folder, or a public one's name."""
    stages: str | None = None
    """File with the table of stages; None for PCMA's, or for `own`."""
    own: int | None = None
    """Steps of the one stage of a model that learns from somebody's own data, instead of a table."""
    rate: float | None = None
    """Its peak learning rate; None for what suits small models and adapters."""
    seed: int = 0
    """Of a new model's weights, and of what is drawn and in which order."""
    lora: int | None = None
    """Rank of adapters; None to train the model itself."""
    every: int = 500
    """Steps between checkpoints."""
    steps: int | None = None
    """Stop after these; None for the end of the table."""
    at_once: int = 64
    """Rows of one forward; fewer take less memory."""
    validate: int = 128
    """Rows that are held out and asked at each checkpoint; 0 for none."""
    workers: int = 1
    """Processes that share each step, on a Ray cluster where they are more than one."""
    cluster: str | None = None
    """Address of that cluster; None for this machine."""
    rows: str | None = None
    """Folder of prepared rows; None for one in the run folder."""
    weights: str = ""
    """How often what of the data is learned, as `earthmap.training.Weights.parse` reads it; empty for all alike."""

    def __post_init__(self) -> None:
        if self.weights and not self.data:
            raise TrainingError("--weights is given without --data", expected="data sets that it is of")
        if self.own is not None and (self.stages is not None or not self.data or self.model is None):
            raise TrainingError("--own needs --data and --model, and takes no --stages")
        if self.rate is not None and self.own is None:
            raise TrainingError("--rate is given without --own", expected="the table of stages to say the rates")
        counts = {
            "own": 1 if self.own is None else self.own,
            "every": self.every,
            "at-once": self.at_once,
            "workers": self.workers,
            "steps": 1 if self.steps is None else self.steps,
        }
        wrong = [f"--{name} {count}" for name, count in counts.items() if count < 1]
        if self.validate < 0:
            raise TrainingError(f"--validate {self.validate} is given", expected="0 or more")
        if wrong:
            raise TrainingError(f"{wrong[0]} is given", expected="1 or more")
        if (self.preset is None) == (self.model is None):
            raise TrainingError(
                "--preset and --model are both given" if self.preset else "nothing says --preset or --model",
                expected="a preset for a new model, or a checkpoint to start from",
            )
        if self.lora is not None and self.model is None:
            raise TrainingError("--lora is given without --model", expected="a model that its adapters are for")

    @property
    def table(self) -> StageTable:
        """What is learned. Raises TrainingError for a file that is no table."""
        if self.own is not None:
            return own_table(self.own, rate=OWN_RATE if self.rate is None else self.rate)
        return load_table(self.stages) if self.stages else default_table()

    @property
    def until(self) -> int:
        """Steps after which it stops."""
        steps = self.table.steps
        return steps if self.steps is None else min(self.steps, steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finetuned:
    """What a run came to."""

    run: str
    """Its address."""
    step: int
    """Steps that are done."""
    steps: int
    """Steps of the table."""
    model: str | None
    """Where the trained model lies; None before the end of the table."""
    last: Learned | None
    """The last step; None where there was none left to do."""

    def lines(self) -> list[str]:
        """For people."""
        how = "" if self.last is None else f": loss {self.last.loss:.3f}, {self.last.right:.0%} of the tokens right"
        left = "the same command goes on" if self.model is None else f"the model is {self.model}"
        return [f"{self.step:,} of {self.steps:,} steps{how}", left]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        last = None if self.last is None else {"loss": self.last.loss, "right": self.last.right}
        return {"run": self.run, "step": self.step, "steps": self.steps, "model": self.model, "last": last}


def finetune(
    spec: FinetuneSpec,
    *,
    watch: Callable[[Learned], None] = lambda learned: None,
    say: Callable[[str], None] = lambda text: None,
) -> Finetuned:
    """Train, or go on training; `watch` is told of every step, `say` of what happens between them.

    Raises:
        TrainingError: for a table or data that nothing can be learned from, a run folder of another training, and a
            loss that leaps or is not a number.
        ModelError: for a preset or a checkpoint that cannot be used.
        RunFolderError: while another process writes the run folder.
        StorageError: for a run folder that cannot be read or written; checkpoints that are whole stay.
        ClusterError: where workers die again and again, or the cluster is lost.
    """
    from earthmap.pipeline.lease import Lease

    storage = Storage(spec.out)
    table = spec.table
    _claim(storage, spec, table)
    last: list[Learned] = []

    def told(learned: Learned) -> None:
        last[:] = [learned]
        watch(learned)

    with Lease(storage):
        source = _source(spec, storage, say)
        origin = Origin(
            table=table, source=source, preset=spec.preset, model=_located(spec.model), seed=spec.seed, lora=spec.lora
        )
        task = Work(
            out=storage.address,
            table=table,
            source=source,
            origin=origin,
            every=spec.every,
            until=spec.until,
            at_once=spec.at_once,
            validate=spec.validate,
        )
        step = _run(task, spec, watch=told, say=say)
    done = storage.exists(DONE)
    return Finetuned(
        run=storage.address,
        step=step,
        steps=table.steps,
        model=storage.locate(MODEL) if done else None,
        last=last[0] if last else None,
    )


def _run(task: Work, spec: FinetuneSpec, *, watch: Callable[[Learned], None], say: Callable[[str], None]) -> int:
    """In this process, or on a cluster; the steps that are done."""
    if spec.workers == 1 and spec.cluster is None:
        return work(task, peers=Alone(), watch=watch, say=say)
    from earthmap.training.distributed import work_on_cluster

    return work_on_cluster(task, workers=spec.workers, address=spec.cluster, watch=watch, say=say)


def _located(model: str | None) -> str | None:
    """A folder by its whole path, since workers stand elsewhere; a public name as it is."""
    return str(Path(model).expanduser().resolve()) if model and Path(model).expanduser().exists() else model


def _source(spec: FinetuneSpec, storage: Storage, say: Callable[[str], None]) -> RowSource:
    if not spec.data:
        return DrawnRows(seed=spec.seed)
    from earthmap.training.data import DataSpec, prepare
    from earthmap.training.data_rows import DataRows, Weights

    weights = Weights.parse(spec.weights)
    if spec.rows is None and not storage.is_local:
        raise TrainingError(
            f"nothing says where rows are prepared for {storage.address}", expected="--rows with a folder"
        )
    folder = Path(spec.rows or f"{storage.address}/{ROWS}").expanduser().resolve()
    say("reading the data sets")
    found = prepare([DataSpec.parse(text) for text in spec.data], folder, side_px=_side_px(spec), address=spec.cluster)
    for line in found.lines():
        say(line)
    rows = DataRows(folder=folder, seed=spec.seed, weights=weights)
    return rows if spec.own is None else replace(rows, held_out_share=rows.own_share())


def _side_px(spec: FinetuneSpec) -> int:
    """Side of the largest picture that the model knows."""
    from earthmap.model.card import read_card
    from earthmap.model.checkpoint import find_checkpoint
    from earthmap.model.config import get_preset

    if spec.preset:
        return max(get_preset(spec.preset).tile_sizes)
    return max(read_card(find_checkpoint(str(spec.model))).tile_sizes)


# ── whose folder it is ───────────────────────────────────────────────────────────────────────────────────────


def _identity(spec: FinetuneSpec, table: StageTable) -> dict[str, Any]:
    """What may not change while a run is taken up again. Raises ModelError for a model that cannot be used."""
    from earthmap.model.checkpoint import checkpoint_key, find_checkpoint
    from earthmap.model.config import get_preset

    model = f"a new {get_preset(spec.preset).name}" if spec.preset else checkpoint_key(find_checkpoint(str(spec.model)))
    return {
        "model": model,
        "data": list(spec.data) or "drawn",
        "weights": spec.weights,
        "seed": spec.seed,
        "lora": spec.lora,
        "table": table.model_dump(mode="json"),
    }


def _claim(storage: Storage, spec: FinetuneSpec, table: StageTable) -> None:
    """Make the folder this training's, or find that it is. Raises TrainingError with what differs."""
    mine = _identity(spec, table)
    if storage.create(CLAIM, json.dumps(mine, indent=1).encode()):
        return
    try:
        before: Mapping[str, Any] = json.loads(storage.read(CLAIM))
        changed = StageTable.model_validate(before["table"]).differences(table)
        changed += [
            f"{name}: {before[name]} → {mine[name]}" for name in mine if name != "table" and before[name] != mine[name]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"{storage.locate(CLAIM)} is not what earthmap wrote: {error}", fix="give another --out"
        ) from error
    if changed:
        raise TrainingError(
            f"{storage.address} holds another training: {'; '.join(changed)}",
            expected="the same model, data, seed and table of stages",
            fix="give those, or another --out with --model to start from what was trained",
        )
