"""Put a trained `nano` into the package: `python jobs/embed_nano.py runs/nano/step-00003000 --data ../shared/data`.

Weights become fp16. What is embedded is what is measured: on held-out drawn tiles and, with `--data`, on real scenes;
the figures go into its card, which decides what it is asked, and as tables into MODEL_CARD.md. So do the temperatures
of its probabilities, fitted on further held-out tiles.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earthmap.errors import EarthmapError, ModelError
from earthmap.evaluation import (
    Measured,
    Paper,
    calibrate_looks,
    calibration_table,
    mark,
    measure_looks,
    measure_real,
    open_unjudged,
    real_tables,
    write_figures,
)
from earthmap.evaluation import table as table_of
from earthmap.model.checkpoint import EMBEDDED_FOLDER
from earthmap.model.evidence import Calibration
from earthmap.model.words import NANO_WORDS, load_words, nano_words
from earthmap.predict import SpectralPredictor

WEIGHTS = ("model.safetensors", "alignment.safetensors")

COPIED = (
    "config.json", "generation_config.json", "earthmap.json", "tokenizer_config.json", "chat_template.jinja",
    "preprocessor_config.json", "video_preprocessor_config.json",
)  # fmt: skip
"""What is embedded as it is. The tokenizer is in the package already, in fewer bytes."""

MOST_BYTES = 15 * 2**20
"""Weights that the package may carry."""


def embed(checkpoint: Path, folder: Path = EMBEDDED_FOLDER) -> int:
    """Write `checkpoint`'s model folder with fp16 weights into `folder`; returns the bytes of its weights.

    Raises:
        ModelError: for a folder that lacks a file, and weights that are too large for the package or for fp16.
    """
    import torch
    from safetensors.torch import load_file, save_file

    missing = [name for name in (*WEIGHTS, *COPIED) if not (checkpoint / name).is_file()]
    if missing:
        raise ModelError(
            f"{checkpoint} has no {', '.join(missing)}", expected="the model of a checkpoint of train_nano.py"
        )
    if load_words(checkpoint).tokenizer.get_vocab() != nano_words().tokenizer.get_vocab():
        raise ModelError(f"{checkpoint} has other words than the package", fix="train it with the words that it ships")
    folder.mkdir(parents=True, exist_ok=True)
    for name in WEIGHTS:
        halved = {key: tensor.to(torch.float16) for key, tensor in load_file(checkpoint / name).items()}
        if not all(bool(torch.isfinite(tensor).all()) for tensor in halved.values()):
            raise ModelError(f"{checkpoint / name} holds numbers beyond fp16", expected="finite weights below 65,504")
        save_file(halved, folder / name, metadata={"format": "pt"})
        (folder / name).chmod(0o644)
    for name in COPIED:
        shutil.copyfile(checkpoint / name, folder / name)
    if folder / NANO_WORDS.name != NANO_WORDS:
        shutil.copyfile(NANO_WORDS, folder / NANO_WORDS.name)
    size = (folder / WEIGHTS[0]).stat().st_size
    if size > MOST_BYTES:
        raise ModelError(f"the weights take {size / 2**20:.1f} MiB", expected=f"at most {MOST_BYTES / 2**20:.0f} MiB")
    return size


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What was measured."""

    drawn: Sequence[Measured]
    """On held-out drawn tiles."""
    real: Sequence[Paper]
    """On real scenes."""
    temperatures: Sequence[Calibration]
    """Of its probabilities, on further held-out drawn tiles."""


def model_card(*, state: Mapping[str, Any], machine: str, size: int, findings: Findings) -> str:
    """MODEL_CARD.md: what it is, what it learned from, and every figure beside its constant."""
    stages = state["table"]["stages"]
    rows = "\n".join(
        f"| {stage['name']} | {', '.join(stage['modalities'])} | {stage['steps']} | {stage['tokens']:,} |"
        f" {stage['replay']:g} | {stage['alignment_weight']:g} |"
        for stage in stages
    )
    done, planned = state["step"], sum(stage["steps"] for stage in stages)
    return f"""# nano

The model that comes with earthmap: Earth-OneVision in the shape of Qwen3-VL, {size / 2**20:.1f} MiB of fp16 weights,
pictures of 128 pixels a side. It opens in stock transformers; `earthmap.json` says what it may be asked.

## What it learned from

Drawn tiles alone (`earthmap/synthetic`): no real pixel, no other model's weights or words. Seed 20261121 of
`jobs/train_nano.py`, rows of key `{state["source"]}`, {done:,} of {planned:,} steps, {machine}. `nano` starts from
nothing, so its first stage crosses no gap from natural pictures. It was taught {", ".join(state["taught"])}; shares by
its alignment heads, the rest in words.

| stage | modalities | steps | tokens a step | replay | weight of alignment |
| --- | --- | --- | --- | --- | --- |
{rows}

## How to read the figures

Scores are means, the higher the better; intervals are 95 %, by drawing places again. The constant is the best single
answer to each question in hindsight. "Proves nothing" stands where too few places were there, or where the constant is
nearly always right. What does not beat the constant, and what it was not taught, is answered "not supported by this
checkpoint"; what was never measured on real scenes is answered with the note `unvalidated`.

## On drawn tiles that were held out

{table_of(findings.drawn)}
{temperatures_text(findings.temperatures)}
## On real scenes

{_real_text(findings.real)}"""


def temperatures_text(temperatures: Sequence[Calibration]) -> str:
    """The section of the page about its probabilities."""
    return f"""## How sure it may call itself

Temperatures of its probabilities, fitted on one half of further drawn tiles and told by the other half, with as many
tiles with what presence is asked about as without. Near 1 it was as sure as it may be. Nothing is known of this on
real scenes.

{calibration_table(temperatures)}"""


def _real_text(real: Sequence[Paper]) -> str:
    if not real:
        return "Not measured.\n"
    text = real_tables(real).replace("## ", "### ")
    return f"Measured only, never learned from; docs/real-scenes.md says what each is.\n\n{text}"


def _measure(arguments: argparse.Namespace, say: Callable[[str], None]) -> Findings:
    model, spectral = open_unjudged(arguments.folder, device="cpu"), SpectralPredictor()
    drawn = measure_looks(model, spectral=spectral, tiles=arguments.tiles, written=arguments.written, say=say)
    real = measure_real(arguments.data, model=model, spectral=spectral, say=say) if arguments.data else []
    return Findings(drawn=drawn, real=real, temperatures=calibrate_looks(model, say=say))


def main() -> int:
    """Convert, measure, write the card and its page."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="a checkpoint of jobs/train_nano.py: the folder of a step")
    parser.add_argument("--data", type=Path, help="the folder of real scenes")
    parser.add_argument("--machine", default="on two cores of a processor", help="what it was trained on, for its page")
    parser.add_argument("--tiles", type=int, default=128, help="drawn tiles of each look (default 128)")
    parser.add_argument("--written", type=int, default=24, help="as of evaluate_drawn.py (default 24)")
    parser.add_argument("--folder", type=Path, default=EMBEDDED_FOLDER, help="where (default: the package's)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of pictures that lie nowhere on the Earth
    try:
        state = json.loads((arguments.checkpoint / "state.json").read_text(encoding="utf-8"))
        size = embed(arguments.checkpoint / "model", arguments.folder)
        found = _measure(arguments, lambda text: print(text, file=sys.stderr))
        write_figures(arguments.folder, drawn=found.drawn, real=mark(found.real), calibrations=found.temperatures)
        page = model_card(state=state, machine=arguments.machine, size=size, findings=found)
        (arguments.folder / "MODEL_CARD.md").write_text(page, encoding="utf-8")
    except (EarthmapError, OSError) as error:
        print(f"embed_nano: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
