"""The words of preset `nano`: gather the text that they are learned from, or train them from the text as it stands.

    python jobs/train_words.py --gather     # jobs/nano_words.txt from prompts, tables, captions and documentation
    python jobs/train_words.py              # earthmap/model/nano/tokenizer.json from jobs/nano_words.txt

Training is deterministic: equal text gives equal bytes. Words are gathered again only for a model that is trained anew,
because weights belong to the ids that they were trained with.
"""

from __future__ import annotations

import argparse
import ast
import datetime as dt
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from earthmap.model.config import get_preset
from earthmap.model.words import NANO_WORDS, train_words
from earthmap.sensors import VIEWS
from earthmap.tasks import CHANGES, SYNONYMS, TARGETS, TASKS, make_query, picture_name, question_prompt
from earthmap.tasks.serialization import KINDS, WORDS

ROOT = Path(__file__).parent.parent
TEXT = ROOT / "jobs" / "nano_words.txt"
"""What the words are learned from: how often, and after a tab a text whose line breaks are written as backslash n."""

THINGS = (
    "aircraft airplane airport basketball-court boat bridge building bus car chimney container-crane dam dam-wall"
    " excavator expressway-service-area farmland field forest golf-course greenhouse ground-track-field harbor"
    " harbour helicopter helipad house industrial-area lake mine motorway oil-tank orchard parking-lot park pier pond"
    " pool"
    " port power-plant quarry railway river road roundabout runway school ship soccer-field solar-panel stadium station"
    " storage-tank street swimming-pool tanker tennis-court tower train train-station tree truck vehicle village"
    " wind-turbine yacht"
)
"""Things that people look for in pictures from above."""

SAID_WEIGHT = 5
"""How often prompts, names and answers count, for a text of the documentation that counts once."""

SAYINGS = (
    "There is a residential area in the north and a commercial district in the south.",
    "There are several damaged buildings near the road after the earthquake.",
    "Most of the district was destroyed by the hurricane, and the others have minor or major damage.",
    "An oil spill, a landslide, an explosion, a volcano, a drought, a storm, a tornado, a tsunami or a wildfire?",
    "The left and the right picture show the same place before and after the event.",
    "What is the purpose of the large white building at the top of the picture, beside the parking lot?",
    "How many small vehicles are parked along the street, and what colour are they?",
    "Is the airport rural or urban? Which object is the smallest, the darkest or the brightest?",
    "Describe the picture in detail. Compare both pictures. What type of change can be seen?",
    "The image is a satellite image with dense forest, cropland, a lake in the center and a town in the upper corner.",
    "It was taken from above by radar at night, in the thermal infrared, or in visible light under clouds and shadow.",
    "Deforestation, mining, construction, irrigation, farming, harvest, erosion, sedimentation and melting ice.",
    "Two ships are moving towards the harbour, behind them a third one is anchored.",
)
"""Words of pictures from above that no table holds."""

ANSWERS = (
    "yes",
    "no",
    "none",
    "gained",
    "lost",
    "cannot be seen",
    "too coarse to tell",
    "north",
    "south",
    "east",
    "west",
)
"""Short answers, which stand at the beginning of a text."""


def things() -> list[str]:
    """THINGS and land cover, each in words."""
    return [*TARGETS, *(name.replace("-", " ") for name in THINGS.split())]


def prompts() -> Iterator[str]:
    """Every template with land cover, and with lists of choices."""
    for task in (row for row in TASKS.values() if row.template):
        for target in TARGETS:
            choices = (task.choices or tuple(dict.fromkeys((target, "water", "snow")))) if task.chooses else None
            targets = None if task.chooses else (target,)
            for shape in task.shapes or (None,):
                query = make_query(
                    task.example, task=task.id, targets=targets, choices=choices, shape=shape, open_vocabulary=True
                )
                yield question_prompt(query)


def names() -> Iterator[str]:
    """What stands before pictures."""
    for number, view in enumerate(VIEWS):
        day = dt.datetime(2015 + number % 12, 1 + number % 12, 1 + number % 28, tzinfo=dt.UTC)
        yield picture_name(view)
        yield picture_name(view, datetime=day)
        yield picture_name(view, datetime=day, seen_share=0.5)


def answers() -> Iterator[str]:
    """What a text begins with: choices, labels and spatial answers."""
    yield from SAYINGS
    for text in (*ANSWERS, *things(), *CHANGES, *SYNONYMS, *KINDS):
        yield from (text, text.capitalize())
    for thing in things():
        yield f"Is there any {thing}? How many {thing}s are there? Where is the largest {thing}? Find the {thing}s."
        for word in WORDS.values():
            yield f"{thing}:{word}[1,2]"


def literals(part: str) -> Iterator[str]:
    """Texts in the modules of a part: captions, questions, names and what is said of them."""
    for path in sorted((ROOT / "earthmap" / part).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def documents() -> Iterator[str]:
    """Paragraphs for users."""
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        yield from path.read_text(encoding="utf-8").split("\n\n")


def gather() -> str:
    """The text with how often it is read: what is said to the model weighs more than the documentation."""
    told = [text for part in ("sensors", "synthetic", "tasks") for text in literals(part) if _is_prose(text)]
    said = [*answers(), *names(), *prompts(), *told]
    counts = Counter(said * SAID_WEIGHT) + Counter(filter(_is_prose, documents()))
    return "".join("{}\t{}\n".format(count, text.replace("\n", "\\n")) for text, count in sorted(counts.items()))


def _is_prose(text: str) -> bool:
    """True for words; False for code, tables, patterns and addresses."""
    letters = len(re.findall(r"[A-Za-z ,.?]", text))
    return letters >= 0.9 * len(text) > 2 and not re.search(r"[|\\{}<>=_/]{2}|://|```", text)


def read_text() -> list[str]:
    """The texts that were gathered, each as often as it counts."""
    lines = [line.split("\t", 1) for line in TEXT.read_text(encoding="utf-8").split("\n") if line]
    return [text.replace("\\n", "\n") for count, text in lines for _ in range(int(count))]


def train() -> str:
    """The tokenizer as JSON."""
    words = train_words(read_text(), size=get_preset("nano").vocabulary)
    found: str = words.tokenizer.backend_tokenizer.to_str()
    return found + "\n"


def main() -> None:
    """Gather, or train."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gather", action="store_true", help="write the text anew from prompts, tables and documents")
    if parser.parse_args().gather:
        TEXT.write_text(gather(), encoding="utf-8")
        print(f"{TEXT.name}: {len(read_text()):,} texts")
        return
    NANO_WORDS.parent.mkdir(exist_ok=True)
    NANO_WORDS.write_text(train(), encoding="utf-8")
    print(f"{NANO_WORDS.name}: {NANO_WORDS.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
