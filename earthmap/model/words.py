"""Words: text to token ids and back, with the marks of a conversation, and SLIS spelt terminal by terminal.

What a person asks is text and never control: a question that contains the model's own marks is read as these letters.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earthmap.errors import ModelError
from earthmap.model.decoding import TokenAutomaton, over_tokens
from earthmap.model.inspection import first_line
from earthmap.tasks.grammar import END, Automaton
from earthmap.tasks.serialization import tokenize_spatial

if TYPE_CHECKING:
    from earthmap.model.engine import Slot
    from earthmap.model.processing import PatchGrid

MARKS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>",
)  # fmt: skip
"""Qwen3-VL's marks, in the order in which a small vocabulary ends with them."""

CHAT_TEMPLATE = (
    "{%- for message in messages -%}{{ '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.content is string -%}{{ message.content }}{%- else -%}"
    "{%- for part in message.content -%}"
    "{%- if part.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>"
    "{%- elif part.type == 'video' -%}<|vision_start|><|video_pad|><|vision_end|>"
    "{%- elif part.type == 'text' -%}{{ part.text }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}{{ '<|im_end|>\\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)
"""How other programs lay out a conversation with what is trained here: as `Words.opening` and `Words.asking` do."""

NANO_WORDS = Path(__file__).parent / "nano" / "tokenizer.json"
"""The tokenizer of preset `nano`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """A tokenizer, and the ids of its marks."""

    tokenizer: Any
    """A `PreTrainedTokenizerFast`."""
    marks: dict[str, int]
    """Id of each of MARKS."""

    @classmethod
    def of(cls, tokenizer: Any) -> Words:
        """The words of a tokenizer. Raises ModelError where it lacks one of the marks."""
        known = tokenizer.get_added_vocab()
        lost = [mark for mark in MARKS if mark not in known]
        if lost:
            raise ModelError(
                f"the tokenizer has no {', '.join(lost)}", expected="the marks of Qwen3-VL", fix="use its own tokenizer"
            )
        return cls(tokenizer=tokenizer, marks={mark: int(known[mark]) for mark in MARKS})

    @property
    def end(self) -> int:
        """The id that ends an answer."""
        return self.marks["<|im_end|>"]

    def encode(self, text: str) -> tuple[int, ...]:
        """The ids of plain text; marks in it are letters."""
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return tuple(int(id) for id in ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def spell(self, text: str) -> tuple[int, ...]:
        """The ids of a SLIS text, each terminal by itself, so that no merge hides a digit."""
        terminals = tokenize_spatial(text)
        spelt = {terminal: self.encode(terminal) for terminal in set(terminals)}
        return tuple(id for terminal in terminals for id in spelt[terminal])

    def grammar(self, automaton: Automaton) -> TokenAutomaton:
        """`automaton` over these words."""
        spelling = {terminal: self.encode(terminal) for terminal in automaton.terminals if terminal != END}
        return over_tokens(automaton, spelling, end=self.end)

    # ── a conversation ───────────────────────────────────────────────────────────────────────────────────────

    def opening(
        self, pictures: Sequence[tuple[str, PatchGrid]], *, video: bool = False
    ) -> list[tuple[int, ...] | Slot]:
        """What a tile's questions share: a user's turn begins, and each picture stands behind its name."""
        from earthmap.model.engine import Slot

        pad = self.marks["<|video_pad|>" if video else "<|image_pad|>"]
        parts: list[tuple[int, ...] | Slot] = [(self.marks["<|im_start|>"], *self.encode("user\n"))]
        for name, grid in pictures:
            parts += [
                (*self.encode(name), self.marks["<|vision_start|>"]),
                Slot(grid=grid, token=pad),
                (self.marks["<|vision_end|>"],),
            ]
        return parts

    def asking(self, question: str) -> tuple[int, ...]:
        """What each question adds: its text, the end of the user's turn, and the beginning of the answer."""
        start, end = self.marks["<|im_start|>"], self.marks["<|im_end|>"]
        return (*self.encode(question), end, *self.encode("\n"), start, *self.encode("assistant\n"))

    def answering(self, answer: str, *, spatial: bool = False) -> tuple[int, ...]:
        """A whole answer with the mark that ends it."""
        return (*(self.spell(answer) if spatial else self.encode(answer)), self.end)


def train_words(texts: Iterable[str], *, size: int) -> Words:
    """A byte-level BPE of at most `size` entries, digits kept single, the marks last; equal texts give equal words."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(MARKS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
        min_frequency=2,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(list(MARKS))
    return _small_words(tokenizer)


def nano_words() -> Words:
    """The words of preset `nano`, which come with the package (`jobs/train_words.py`)."""
    from tokenizers import Tokenizer

    return _small_words(Tokenizer.from_str(NANO_WORDS.read_text(encoding="utf-8")))


def _small_words(tokenizer: Any) -> Words:
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = CHAT_TEMPLATE
    return Words.of(fast)


def load_words(folder: Path) -> Words:
    """The words of a checkpoint. Raises ModelError where it has no tokenizer that can be read."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers, tokenizers and safetensors share no base class of their errors
        raise ModelError(
            f"the tokenizer of {folder} cannot be loaded: {first_line(error)}",
            expected="tokenizer.json and tokenizer_config.json",
        ) from error
    return Words.of(tokenizer)


_PATCHES = {
    "processor_class": "Qwen3VLProcessor",
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "patch_size": 16,
    "merge_size": 2,
    "temporal_patch_size": 2,
}
_PICTURE_PIXELS = {"shortest_edge": 65_536, "longest_edge": 16_777_216}
_VIDEO_PIXELS = {"shortest_edge": 4_096, "longest_edge": 25_165_824}
"""Fewest and most pixels of a picture and of a video: the values of the public Qwen3-VL checkpoints."""


def save_words(words: Words, folder: Path, *, smallest_px: int = 256) -> None:
    """Write the tokenizer, the chat template and the processors' settings beside the weights.

    With these other programs make the same patches. `smallest_px` is the side of the smallest picture that the model
    was trained on, so that they do not enlarge it.
    """
    for name in ("is_local", "local_files_only"):  # how it was loaded is nothing of what it is
        words.tokenizer.init_kwargs.pop(name, None)
    words.tokenizer.save_pretrained(folder)
    sizes = _PICTURE_PIXELS | {"shortest_edge": min(smallest_px**2, _PICTURE_PIXELS["shortest_edge"])}
    for name, own in (
        ("preprocessor_config.json", {"image_processor_type": "Qwen2VLImageProcessorFast", "size": sizes}),
        ("video_preprocessor_config.json", {"video_processor_type": "Qwen3VLVideoProcessor", "size": _VIDEO_PIXELS}),
    ):
        (folder / name).write_text(json.dumps(_PATCHES | own, indent=1), encoding="utf-8")
