"""Checkpoints: plain Qwen3-VL folders, read and written so that stock transformers reads and writes the same.

A folder holds `config.json`, weights in safetensors, the tokenizer's files, and what is ours: `earthmap.json` (its
card) and `alignment.safetensors`, which other programs pass over. Code in a checkpoint is never run.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earthmap.content import content_key
from earthmap.errors import ModelError
from earthmap.model.fetched import FETCHED, fetch_checkpoint
from earthmap.model.inspection import FIX, first_line, inspect_folder, weight_files

if TYPE_CHECKING:
    import torch

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
EMBEDDED = "nano"
"""Name of the checkpoint that comes with the package."""

EMBEDDED_FOLDER = Path(__file__).parent / EMBEDDED

_KEYED = (
    "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "earthmap.json", "alignment.safetensors",
)  # fmt: skip
"""What answers depend on beside the weights."""


def find_checkpoint(source: str | Path) -> Path:
    """The folder of a checkpoint: the one named, or the local copy of one on S3 or of a public one, fetched where it is
    not there yet.

    `nano` is the one that comes with the package; a folder of that name here is `./nano`.

    Raises:
        ModelError: for one that cannot be fetched, and for `nano` in a copy of the package without weights.
    """
    if source == EMBEDDED:
        return _embedded()
    if isinstance(source, str) and source.startswith("s3://"):
        return fetch_checkpoint(source)
    folder = Path(source).expanduser()
    if isinstance(source, Path) or folder.exists() or not _HUB_NAME.fullmatch(source):
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, allow_patterns=list(FETCHED)))
    except Exception as error:  # the hub's client, httpx and sockets share no base class
        raise ModelError(
            f"{source} is no folder here, and cannot be fetched as a public checkpoint: {first_line(error)}", fix=FIX
        ) from error


def has_embedded() -> bool:
    """True where the package came with the weights of `nano`."""
    return (EMBEDDED_FOLDER / "model.safetensors").is_file()


def _embedded() -> Path:
    if not has_embedded():
        raise ModelError(
            f"this copy of earthmap came without the weights of {EMBEDDED}",
            expected=f"model.safetensors in {EMBEDDED_FOLDER}",
            fix="name another checkpoint with --model, or train one with jobs/train_nano.py",
        )
    return EMBEDDED_FOLDER


def load_model(folder: Path, *, dtype: torch.dtype) -> Any:
    """The `Qwen3VLForConditionalGeneration` in a folder, in evaluation mode and in `dtype`, on the CPU.

    Raises:
        ModelError: for a folder without a checkpoint, one of another model, one that lacks tensors or has others,
            damaged files, and pickles.
    """
    from transformers import Qwen3VLForConditionalGeneration

    config = inspect_folder(folder)
    try:
        with _quietly():
            model, found = Qwen3VLForConditionalGeneration.from_pretrained(
                str(folder),
                config=config,
                dtype=dtype,
                attn_implementation="sdpa",
                local_files_only=True,
                output_loading_info=True,
                trust_remote_code=False,
                use_safetensors=True,
            )
    except Exception as error:  # transformers and safetensors share no base class of their errors
        raise ModelError(f"the checkpoint {folder} cannot be loaded: {first_line(error)}", fix=FIX) from error
    _check_tensors(folder, found)
    return model.eval()


@contextmanager
def _quietly() -> Iterator[None]:
    """transformers without its progress bar and its table of tensors, for what is wrong is raised."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _check_tensors(folder: Path, found: Mapping[str, Any]) -> None:
    for key, what in (("missing_keys", "lacks"), ("unexpected_keys", "has besides"), ("mismatched_keys", "misshapes")):
        names = sorted(str(name) for name in found.get(key) or ())
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ModelError(
                f"the checkpoint {folder} {what} {', '.join(names[:3])}{more}",
                expected="the tensors that its config.json describes",
                fix="save it again, or take its config.json from where the weights come from",
            )


def save_model(model: Any, folder: Path) -> None:
    """Write weights and configuration as stock transformers does, the same whether the model was loaded or is new."""
    folder.mkdir(parents=True, exist_ok=True)
    for config in (model.config, model.config.text_config, model.config.vision_config):
        config.dtype = model.dtype
    with _quietly():
        model.save_pretrained(folder)


def checkpoint_key(folder: Path) -> str:
    """Content key of the checkpoint in a folder: its weights' bytes, configuration, tokenizer, card and heads.

    Files are read once in a process, and again when their size or time of change differs.

    Raises:
        ModelError: where there are no weights.
    """
    files = [*weight_files(folder), *(path for name in _KEYED if (path := folder / name).is_file())]
    hashes = {}
    for path in files:
        state = path.stat()
        hashes[path.name] = _file_hash(str(path.resolve()), state.st_size, state.st_mtime_ns)
    return content_key("checkpoint", hashes)


@lru_cache(maxsize=256)
def _file_hash(path: str, size: int, changed_ns: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
