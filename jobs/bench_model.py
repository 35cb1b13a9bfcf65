"""The engine beside stock transformers, on random weights, in one run: `python jobs/bench_model.py --preset small`.

    python jobs/bench_model.py                          # 2b in bfloat16 on a GPU; `small` in float32 on a CPU
    python jobs/bench_model.py --preset 2b --pixels 448 --batch 64 --rounds 5

One optical view a tile, three words around it, questions of 24 tokens; tiles are uint8 on the host (pinned for a GPU),
and every timing begins there and ends with the answers on the host. A closed question is yes or no, both scored with
the token that ends them; stock gives the logits of its last token only, and of eight questions it is asked one after
the other. Answers go on for all of their 16 or 64 tokens on both sides. Stock gets its patches from our `patchify`, on
the device, which is the fastest way to feed it. Ours and stock take turns in every round; figures are medians.

The share of the peak is that of the multiply-adds which a side does itself, against the best matrix product that was
measured in the same run. Bars that apply to the machine are checked, and the exit code is 1 where one is missed: those
of one H200 with `2b`, those of two CPU cores with `small`. The last line is JSON. Needs torch, transformers and
shapely; no Ray and no rasterio.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from earthmap.errors import ModelError
from earthmap.model import (
    Closed,
    Engine,
    Preset,
    Slot,
    TokenAutomaton,
    dtype_policy,
    get_preset,
    halving,
    lay_out_stem,
    over_tokens,
    patch_grid,
    patchify,
)
from earthmap.tasks.grammar import END, build_automaton

if TYPE_CHECKING:
    import torch
    from torch import Tensor

QUESTION_TOKENS = 24
NO_END = -1
"""No token has this id, so that answers go on for their whole budget."""

YES, NO, STOP = 7, 8, 9

SMALL = Preset(
    name="small", vocabulary=4096, text_layers=6, text_width=256, heads=4, key_heads=2, head_width=64,
    feed_forward=704, vision_layers=6, vision_width=128, vision_heads=4, vision_feed_forward=512,
    levels=(1, 3), positions=784,
)  # fmt: skip
"""8 million parameters: what an embedded default has."""


# ── arithmetic ───────────────────────────────────────────────────────────────────────────────────────────────────


def vision_products(preset: Preset, pixels: int) -> float:
    """Multiply-adds of the tower for one picture."""
    patches, width, feed = (pixels // 16) ** 2, preset.vision_width, preset.vision_feed_forward
    layer = patches * (4 * width**2 + 2 * width * feed) + 2 * patches**2 * width
    merged = patches // 4 * (16 * width**2 + 4 * width * preset.text_width) * (1 + len(preset.levels))
    return float(patches * 1536 * width + preset.vision_layers * layer + merged)


def text_products(preset: Preset, tokens: int, *, before: int, predicted: int) -> float:
    """Multiply-adds of the decoder for `tokens` behind `before` others, and of its head where tokens are predicted."""
    inner, shared = preset.heads * preset.head_width, preset.key_heads * preset.head_width
    token = preset.text_width * (2 * inner + 2 * shared + 3 * preset.feed_forward)
    looks = tokens * before + tokens * (tokens + 1) // 2
    layers = preset.text_layers * (tokens * token + 2 * looks * inner)
    return float(layers + predicted * preset.text_width * preset.vocabulary)


def closed_products(preset: Preset, pixels: int, questions: int) -> float:
    """Multiply-adds of ours: one stem; for each question its tokens, the first of both choices, three predictions."""
    stem = pixels**2 // 1024 + 2
    branch = text_products(preset, QUESTION_TOKENS, before=stem, predicted=1)
    choices = 2 * text_products(preset, 1, before=stem + QUESTION_TOKENS, predicted=1)
    reading = text_products(preset, stem, before=0, predicted=0)
    return vision_products(preset, pixels) + reading + questions * (branch + choices)


def plain_products(preset: Preset, pixels: int, written: int) -> float:
    """Multiply-adds of one tile and question read as a whole, and of an answer of `written` tokens."""
    prompt = pixels**2 // 1024 + 2 + QUESTION_TOKENS
    reading = vision_products(preset, pixels) + text_products(preset, prompt, before=0, predicted=1)
    return reading + text_products(preset, written - 1, before=prompt, predicted=written - 1)


# ── both sides ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Sides:
    """One model, the engine around it, and stock transformers' own forward."""

    model: Any
    engine: Engine

    @property
    def device(self) -> Any:
        """Where both compute."""
        return self.engine.device

    def question(self, number: int) -> tuple[int, ...]:
        """The tokens of one question; each number is another."""
        return tuple(20 + (number * 31 + place * 7) % 400 for place in range(QUESTION_TOKENS))

    def parts(self, pixels: int) -> list[Any]:
        """A picture between its two marks."""
        config = self.model.config
        slot = Slot(grid=patch_grid(pixels, pixels), token=config.image_token_id)
        return [(config.vision_start_token_id,), slot, (config.vision_end_token_id,)]

    # Ours: tiles are (B, 1, 3, H, W) uint8 on the host.

    def see(self, tiles: Tensor) -> None:
        """Vision only."""
        self.engine.encode(tiles).last[:, -1].float().cpu()

    def score(self, tiles: Tensor, questions: int) -> None:
        """Closed questions."""
        layout = lay_out_stem(self.parts(tiles.shape[-1]), device=self.device)
        stem = self.engine.read_stem(layout, self.engine.encode(tiles))
        closed = [
            Closed(question=self.question(number), choices=((YES, STOP), (NO, STOP))) for number in range(questions)
        ]
        for scores in self.engine.score(stem, closed):
            scores.cpu()

    def write(self, tiles: Tensor, most: int) -> None:
        """An open answer."""
        layout = lay_out_stem(self.parts(tiles.shape[-1]), device=self.device)
        stem = self.engine.read_stem(layout, self.engine.encode(tiles))
        self.engine.write(stem, [self.question(0)], most=most, end=NO_END)

    # Stock.

    def inputs(self, tiles: Tensor, number: int) -> dict[str, Tensor]:
        """What stock's forward and `generate` take."""
        import torch

        stem = lay_out_stem(self.parts(tiles.shape[-1])).tokens
        row = torch.cat([stem, torch.tensor(self.question(number))]).to(self.device)
        rows = row.expand(len(tiles), -1).contiguous()
        grid = patch_grid(*tiles.shape[-2:])
        patches = patchify(tiles.to(self.device, non_blocking=True).flatten(0, 1)).flatten(0, 1)
        return {
            "input_ids": rows,
            "attention_mask": torch.ones_like(rows),
            "pixel_values": patches.to(self.model.dtype),
            "image_grid_thw": torch.tensor([[1, grid.rows, grid.columns]] * len(tiles), device=self.device),
            "mm_token_type_ids": (rows == self.model.config.image_token_id).int(),
        }

    def stock_see(self, tiles: Tensor) -> None:
        """Vision only."""
        given = self.inputs(tiles, 0)
        found = self.model.model.visual(given["pixel_values"], grid_thw=given["image_grid_thw"])
        found.pooler_output[-1].float().cpu()

    def stock_score(self, tiles: Tensor, questions: int) -> None:
        """The whole prompt of each question read, for the logits of its last token."""
        for number in range(questions):
            self.model(**self.inputs(tiles, number), logits_to_keep=1).logits[:, -1, :9].float().cpu()

    def stock_write(self, tiles: Tensor, most: int) -> None:
        """An open answer by `generate`."""
        self.model.generate(
            **self.inputs(tiles, 0), max_new_tokens=most, min_new_tokens=most, do_sample=False, pad_token_id=0
        ).cpu()


def build_sides(preset: Preset, device: torch.device, dtype: torch.dtype, *, plain: bool) -> Sides:
    """Random weights, made on the device in the type that they are computed in."""
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    torch.manual_seed(0)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            model = Qwen3VLForConditionalGeneration(preset.config()).eval()
    finally:
        torch.set_default_dtype(usual)
    model.generation_config.eos_token_id = None
    engine = Engine(model)
    if not plain:
        engine.fuse()
    return Sides(model, engine)


# ── measuring ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class Row:
    """One kind of work on one size of tiles, both sides."""

    work: str
    pixels: int
    ours: Callable[[Tensor], None]
    stock: Callable[[Tensor], None]
    products: tuple[float, float]
    """Multiply-adds a tile, ours and stock's."""
    seconds: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    """Of a batch, one a round."""


def rows_of(sides: Sides, preset: Preset, pixels: int) -> list[Row]:
    """The five kinds of work."""
    vision, plain = vision_products(preset, pixels), partial(plain_products, preset, pixels)
    closed = partial(closed_products, preset, pixels)
    rows = [
        Row("vision", pixels, sides.see, sides.stock_see, (vision, vision)),
        Row(
            "closed question", pixels, partial(sides.score, questions=1), partial(sides.stock_score, questions=1),
            (closed(1), plain(1)),
        ),
        Row(
            "eight questions", pixels, partial(sides.score, questions=8), partial(sides.stock_score, questions=8),
            (closed(8), 8 * plain(1)),
        ),
    ]  # fmt: skip
    for most in (16, 64):
        ours, stock = partial(sides.write, most=most), partial(sides.stock_write, most=most)
        rows.append(Row(f"{most} tokens", pixels, ours, stock, (plain(most), plain(most))))
    return rows


def settle(device: torch.device) -> None:
    """Wait until a GPU has done what it was told."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """How long `work` takes until its last kernel has ended."""
    settle(device)
    started = time.perf_counter()
    work()
    settle(device)
    return time.perf_counter() - started


def matrix_products(device: torch.device, dtype: torch.dtype) -> Callable[[], float]:
    """A measurement of the machine's multiply-adds a second in one large matrix product."""
    import torch

    side, repeats = (8192, 10) if device.type == "cuda" else (1536, 3)
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(one)

    def work() -> None:
        for _ in range(repeats):
            torch.mm(one, other, out=out)

    work()
    return lambda: repeats * side**3 / seconds_of(work, device)


def drawn_tiles(count: int, pixels: int, device: torch.device) -> Tensor:
    """(count, 1, 3, H, W) uint8 on the host, where a GPU can fetch them while it computes."""
    import torch

    tiles = torch.randint(0, 256, (count, 1, 3, pixels, pixels), dtype=torch.uint8)
    return tiles.pin_memory() if device.type == "cuda" else tiles


def fitting_batch(rows: Sequence[Row], wished: int, pixels: int, device: torch.device) -> int:
    """The largest batch, of `wished` halved, with which both sides do all their work; this warms both up."""

    def attempt(chunk: Sequence[int]) -> Sequence[int]:
        tiles = drawn_tiles(len(chunk), pixels, device)
        for row in rows:
            for side in (row.ours, row.stock, row.ours):
                side(tiles)
        settle(device)
        return chunk

    outputs, sizes = halving(attempt, range(wished))
    for output in outputs:
        if isinstance(output, ModelError):
            raise output
    return sizes[-1] if sizes else wished


def spelt_grammar() -> TokenAutomaton:
    """Boxes, polygons and masks of two labels, over one made-up token for each terminal."""
    automaton = build_automaton(["box", "polygon", "mask"], labels=["ship", "building"])
    spelling = {terminal: (100 + number,) for number, terminal in enumerate(automaton.terminals) if terminal != END}
    return over_tokens(automaton, spelling, end=STOP)


def mask_seconds(preset: Preset, rows: int, device: torch.device) -> float:
    """What the grammar adds to a decoding step of so many rows."""
    import torch

    grammar, times = spelt_grammar().to(device), 50
    logits = torch.randn(rows, preset.vocabulary, device=device)
    states = torch.zeros(rows, dtype=torch.long, device=device)

    def chosen() -> None:
        for _ in range(times):
            grammar.ids[grammar.choose(logits, states, budget=40)[0]]

    def likeliest() -> None:
        for _ in range(times):
            logits.argmax(dim=1)

    with torch.inference_mode():
        chosen()
        likeliest()
        found = [seconds_of(chosen, device) - seconds_of(likeliest, device) for _ in range(5)]
    return max(0.0, statistics.median(found)) / times


# ── the table ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Figures:
    """What the rounds said of one row."""

    work: str
    pixels: int
    batch: int
    ours: float
    """Tiles a second."""
    stock: float
    times: float
    """Median over the rounds of stock's seconds over ours."""
    share: float
    """Of the matrix peak, ours."""
    stock_share: float
    step: float
    """Median seconds of a batch, ours."""
    products: float
    """Multiply-adds a tile, ours."""

    @property
    def cells(self) -> tuple[str, ...]:
        """A row of the table."""
        return (
            str(self.pixels), self.work, f"{self.ours:.3g}", f"{self.stock:.3g}", f"{self.times:.2f}",
            f"{self.share:.2f}", f"{self.stock_share:.2f}", f"{self.products / 1e9:.4g}",
        )  # fmt: skip


HEADS = (
    "pixels",
    "work",
    "ours, tiles/s",
    "stock, tiles/s",
    "ours / stock",
    "peak, ours",
    "peak, stock",
    "G mult-adds",
)


def figures_of(row: Row, batch: int, peak: float) -> Figures:
    """Medians of a row's rounds."""
    ours, stock = (batch / statistics.median(seconds) for seconds in row.seconds)
    return Figures(
        row.work, row.pixels, batch, ours, stock,
        statistics.median(theirs / mine for mine, theirs in zip(*row.seconds, strict=True)),
        ours * row.products[0] / peak, stock * row.products[1] / peak,
        statistics.median(row.seconds[0]), row.products[0],
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure that must be reached, or not be passed."""

    name: str
    figure: float
    least: float | None = None
    most: float | None = None

    @property
    def held(self) -> bool:
        """True where it is."""
        return (self.least is None or self.figure >= self.least) and (self.most is None or self.figure <= self.most)

    @property
    def line(self) -> str:
        """The bar in words."""
        wanted = f"at least {self.least:.3g}" if self.least is not None else f"at most {self.most:.3g}"
        return f"{'held' if self.held else 'MISSED'}: {self.name} {self.figure:.3f}, {wanted}"


def bars_of(found: Sequence[Figures], mask: float, *, preset: str, device: str) -> list[Bar]:
    """The bars that apply to this machine and model: a GPU with 2b at 448 pixels, a CPU with `small`."""
    bars = [Bar("the grammar's share of a decoding step", mask, most=0.05)]
    by = {(row.pixels, row.work): row for row in found}
    one, eight, short = (by.get((448, work)) for work in ("closed question", "eight questions", "16 tokens"))
    if (device, preset) == ("cuda", "2b") and one and eight and short:
        products = eight.products / one.products
        bars += [
            Bar("closed question against stock prefill", one.times, least=1.5),
            Bar("closed question, share of the peak", one.share, least=0.5),
            Bar(f"eight questions against one, over {products:.3f} by multiply-adds", eight.step / one.step / products,
                most=1.1),
            Bar("16 tokens against stock generate", short.times, least=2.0),
        ]  # fmt: skip
    if (device, preset) == ("cpu", "small"):
        bars += [
            Bar(f"eight questions against stock asked eight times, {row.pixels} pixels", row.times, least=3.0)
            for row in found
            if row.work == "eight questions"
        ]
    return bars


def measure(sides: Sides, preset: Preset, options: argparse.Namespace) -> tuple[list[Figures], float, float]:
    """The figures, the peak in multiply-adds a second, and the grammar's share of a decoding step."""
    device = sides.device
    multiply = matrix_products(device, sides.model.dtype)
    peak, found, mask = multiply(), [], 0.0
    measured: list[tuple[Row, int]] = []
    for pixels in options.pixels:
        rows = rows_of(sides, preset, pixels)
        batch = fitting_batch(rows, options.batch, pixels, device)
        tiles = drawn_tiles(batch, pixels, device)
        for _ in range(options.rounds):
            for row in rows:
                for side, seconds in ((row.ours, row.seconds[0]), (row.stock, row.seconds[1])):
                    seconds.append(seconds_of(partial(side, tiles), device))
            peak = max(peak, multiply())
        measured += [(row, batch) for row in rows]
        short, long = (statistics.median(row.seconds[0]) for row in rows[-2:])
        mask = max(mask, mask_seconds(preset, batch, device) / ((long - short) / 48))
    found = [figures_of(row, batch, peak) for row, batch in measured]
    return found, peak, mask


def parsed() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=("2b", "small", "tiny"), help="default: 2b on a GPU, small on a CPU")
    parser.add_argument("--device", help="default: cuda where there is a GPU")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: bfloat16 on a GPU, else float32")
    parser.add_argument("--pixels", type=int, nargs="+", default=[224, 448])
    parser.add_argument("--batch", type=int, help="tiles at once; default: 64 on a GPU, 1 on a CPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of a CPU; default: torch's")
    parser.add_argument("--plain", action="store_true", help="do not compile the layers on a GPU")
    return parser.parse_args()


def main() -> int:
    """Print the table, the bars and one JSON line."""
    import torch

    options = parsed()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    gpu = device.type == "cuda"
    options.batch = options.batch or (64 if gpu else 1)
    dtype = dtype_policy(device, getattr(torch, options.dtype) if options.dtype else None)
    name = options.preset or ("2b" if gpu else "small")
    preset = SMALL if name == "small" else get_preset(name)
    sides = build_sides(preset, device, dtype, plain=options.plain)
    with torch.inference_mode():
        found, peak, mask = measure(sides, preset, options)
    return report(found, peak, mask, head={
        "preset": name,
        "parameters": sum(weight.numel() for weight in sides.model.parameters()),
        "device": torch.cuda.get_device_name(device) if gpu else f"CPU, {torch.get_num_threads()} threads",
        "dtype": str(dtype).removeprefix("torch."),
        "compiled": gpu and not options.plain,
        "rounds": options.rounds,
        "torch": torch.__version__,
    }, bars=bars_of(found, mask, preset=name, device=device.type))  # fmt: skip


def report(
    found: Sequence[Figures], peak: float, mask: float, *, head: dict[str, Any], bars: Sequence[Bar]
) -> int:  # fmt: skip
    """Print what was found; 1 where a bar is missed."""
    print(", ".join(f"{name} {value}" for name, value in head.items()))
    print(f"matrix peak {2 * peak / 1e12:.3g} TFLOP/s; the grammar takes {mask:.1%} of a decoding step")
    print(f"| {' | '.join(HEADS)} |\n|{' --- |' * len(HEADS)}")
    for row in found:
        print(f"| {' | '.join(row.cells)} |")
    for bar in bars:
        print(bar.line)
    rows = [
        {name: getattr(row, name) for name in ("work", "pixels", "batch", "ours", "stock", "times", "share")}
        for row in found
    ]
    print(json.dumps({**head, "peak_tflops": 2 * peak / 1e12, "grammar_share": mask, "rows": rows,
                      "missed": [bar.name for bar in bars if not bar.held]}))  # fmt: skip
    return 0 if all(bar.held for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
