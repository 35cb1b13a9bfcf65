"""Earth-OneVision (Cai et al., arXiv 2606.10819): the whole model, loaded, new or saved.

It is a Qwen3-VL with the words of its tokenizer, the card that says what it learned from, and the heads that FGVLA
aligned it with. Numbers are bfloat16 on a GPU and float32 on a CPU, unless another type is asked for.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earthmap.content import content_key
from earthmap.errors import ModelError
from earthmap.model.card import Card, card_text, read_card, write_card
from earthmap.model.checkpoint import checkpoint_key, find_checkpoint, load_model, save_model
from earthmap.model.config import MARK_IDS, Preset, get_preset
from earthmap.model.engine import Engine, dtype_policy
from earthmap.model.inspection import first_line
from earthmap.model.words import Words, load_words, save_words

if TYPE_CHECKING:
    import torch

    from earthmap.model.alignment import AlignmentHeads

DTYPES = ("float32", "bfloat16")
"""Names of the types of numbers that it computes in."""


class EarthOneVision:
    """The model with everything that its use takes: `model`, `engine`, `words`, `card`."""

    def __init__(self, model: Any, *, words: Words, card: Card, folder: Path | None = None) -> None:
        _check_words(model.config, words)
        self.model = model
        """A `Qwen3VLForConditionalGeneration` in evaluation mode."""
        self.engine = Engine(model)
        self.words = words
        self.card = card
        self._folder = folder
        self._key = None if folder is None else checkpoint_key(folder)

    @property
    def key(self) -> str:
        """Content key of weights, tokenizer and card: of the files that were loaded, of a new model as it stands."""
        return self._key or content_key("new", _tensor_hash(self.model), self._tokenizer_text(), card_text(self.card))

    def _tokenizer_text(self) -> str:
        text: str = self.words.tokenizer.backend_tokenizer.to_str()
        return text

    def heads(self) -> AlignmentHeads:
        """FGVLA's alignment heads, which class maps are made with. Raises ModelError where the checkpoint has none."""
        from earthmap.model.alignment import ALIGNMENT_FILE, load_heads

        if self._folder is None:
            raise ModelError(
                f"a new model has no {ALIGNMENT_FILE}", expected="a checkpoint that was trained with alignment"
            )
        vision = self.model.config.vision_config
        heads = load_heads(self._folder, width=vision.out_hidden_size, levels=len(vision.deepstack_visual_indexes) + 1)
        return heads.to(self.engine.device)

    def save(self, folder: str | Path) -> None:
        """Write a checkpoint that loads here and in stock transformers, with the heads where there are any.

        Raises ModelError where it cannot be written, as to a full disk.
        """
        from safetensors import SafetensorError

        from earthmap.model.alignment import ALIGNMENT_FILE

        place = Path(folder)
        try:
            save_model(self.model, place)
            save_words(self.words, place, smallest_px=min(self.card.tile_sizes))
            if self._folder is not None and (self._folder / ALIGNMENT_FILE).is_file() and self._folder != place:
                shutil.copyfile(self._folder / ALIGNMENT_FILE, place / ALIGNMENT_FILE)
            write_card(self.card, place)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"the checkpoint cannot be written to {place}: {first_line(error)}") from error


def load_earth_onevision(
    source: str | Path, *, dtype: str | torch.dtype | None = None, device: str | torch.device | None = None
) -> EarthOneVision:
    """The model of a checkpoint's folder, or of the name of a public one.

    Args:
        source: A folder saved by earthmap or by transformers, or a name like `Qwen/Qwen3-VL-2B-Instruct`.
        dtype: One of DTYPES; None for bfloat16 on a GPU and float32 on a CPU.
        device: None for a GPU where there is one.

    Raises:
        ModelError: for a checkpoint that cannot be used, and for a type or device that there is not.
    """
    import torch

    place = resolve_device(device)
    kind = resolve_dtype(dtype, device=place)
    folder = find_checkpoint(source)
    model = load_model(folder, dtype=kind)
    words = load_words(folder)
    card = read_card(folder)
    try:
        model = model.to(place)
    except torch.OutOfMemoryError as error:
        raise ModelError(f"{place} has no room for {source}", fix="use a smaller model, or device cpu") from error
    return EarthOneVision(model, words=words, card=card, folder=folder)


def new_earth_onevision(
    preset: str | Preset, words: Words, *, seed: int, device: str | torch.device | None = "cpu"
) -> EarthOneVision:
    """A model of random weights in float32, equal for equal seeds, in evaluation mode; it knows nothing yet.

    Raises:
        ModelError: for a preset that there is not, or of fewer rows than `words` has entries.
    """
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    row = get_preset(preset) if isinstance(preset, str) else preset
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3VLForConditionalGeneration(row.config(words.marks)).eval()
    card = Card(preset=row.name, tile_sizes=row.tile_sizes, taught=())
    return EarthOneVision(model.to(resolve_device(device)), words=words, card=card)


def resolve_device(device: str | torch.device | None) -> torch.device:
    """The device to compute on: the one asked for, else a GPU where there is one, else the CPU.

    Raises:
        ModelError: for a device that there is not.
    """
    import torch

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"the device {device!r} cannot be used: {first_line(error)}", expected="cpu or cuda"
        ) from error
    return found


def resolve_dtype(dtype: str | torch.dtype | None, *, device: torch.device) -> torch.dtype:
    """`dtype_policy` of a type or of its name. Raises ModelError for another one than those of DTYPES."""
    import torch

    if not isinstance(dtype, str):
        return dtype_policy(device, dtype)
    if dtype not in DTYPES:
        raise ModelError(f"numbers of type {dtype!r}", expected=" or ".join(DTYPES))
    return dtype_policy(device, getattr(torch, dtype))


def _check_words(config: Any, words: Words) -> None:
    """Raises ModelError where a tokenizer is not that of the model."""
    rows, entries = config.text_config.vocab_size, len(words.tokenizer)
    if entries > rows:
        raise ModelError(
            f"a tokenizer of {entries:,} entries for a model of {rows:,}", expected="the model's own tokenizer"
        )
    for name, mark in MARK_IDS.items():
        if getattr(config, name) != words.marks[mark]:
            raise ModelError(
                f"the tokenizer's {mark} is {words.marks[mark]}, the model's is {getattr(config, name)}",
                expected="the model's own tokenizer",
            )


def _tensor_hash(model: Any) -> str:
    """SHA-256 over names, types, shapes and bytes of all tensors."""
    import torch

    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
