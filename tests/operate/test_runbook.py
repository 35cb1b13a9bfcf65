"""Everything that the runbook names is there: commands and their flags, files, messages, variables, numbers."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from earthmap import cli
from earthmap.cube.failures import Cause
from earthmap.operate.metrics import Metrics
from earthmap.pipeline import folder
from earthmap.pipeline.job import JobSpec
from earthmap.service.egress_counts import EgressCounts
from earthmap.service.metrics import ServiceMetrics
from earthmap.service.state import Tally

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")
SOURCE = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "earthmap").rglob("*.py"))

SYSTEM = {"df -h", "df -i", "dmesg", "kill -TERM", "timedatectl set-ntp true"}
"""Commands of the system that the page may name."""

WORDS = {"failed", "lease/", ".beat", "TMPDIR", "store/", "debug", "warning", "credentials", "--nearest DATE"}
FIELDS = {"time", "level", "event", "run", "execution", "cell", "tile", "reason", "address", "message"}
REASONS = {"crashed", "timeout", "memory"}


def _blocks() -> Iterator[str]:
    for block in re.findall(r"```\n(.*?)```", PAGE, re.DOTALL):
        yield from (line.partition("  #")[0].strip() for line in block.splitlines())


def _inline() -> set[str]:
    return set(re.findall(r"`([^`]+)`", re.sub(r"```\n.*?```", "", PAGE, flags=re.DOTALL)))


def _commands() -> list[str]:
    named = [re.sub(r"^(?:EARTHMAP_\w+=\S+ )+", "", text) for text in [*_blocks(), *_inline()]]
    return sorted({text for text in named if text.startswith("earthmap ")})


@pytest.mark.parametrize("command", _commands())
def test_every_command_is_understood(command: str) -> None:
    words = shlex.split(command.replace("LON,LAT", "15.0,47.3"))[1:]
    if words in (["scenes"],):
        assert words[0] in cli._COMMANDS  # named as such, without what it needs
        return
    cli._parsed(cli._joined(words))


def _numbers() -> str:
    """All names of numbers, of runs and of the service."""
    empty = EgressCounts(allowed=0, refused={}, bytes_up=0, bytes_down=0, open=0)
    of_service = ServiceMetrics().render(Tally(counts={}, waiting_s=0.0), egress=empty)
    return (Metrics().render() + of_service).decode()


def _is_there(name: str) -> bool:
    if name in SYSTEM | WORDS | FIELDS | REASONS or name in JobSpec.model_fields or name in list(Cause):
        return True
    if name.startswith("docs/"):
        return (ROOT / name).is_file()
    if name.startswith("ray "):
        spec = find_spec("ray")
        assert spec is not None
        assert spec.origin is not None
        scripts = (Path(spec.origin).parent / "scripts/scripts.py").read_text(encoding="utf-8")
        return f"\ndef {name.split()[1].replace('-', '_')}(" in scripts
    if name.endswith((".parquet", ".json", ".html", ".png")):
        return name in {value for value in vars(folder).values() if isinstance(value, str)}
    if name.startswith("earthmap_"):
        return re.sub(r"\{.*", "", name).removesuffix("_total") in _numbers()
    return name.rstrip(" …").split(" 30 s")[0] in SOURCE  # a message


def test_every_other_name_is_there() -> None:
    names = {name for name in _inline() if not re.match(r"(?:EARTHMAP_\w+=\S+ )?earthmap ", name)}
    assert sorted(name for name in names if not _is_there(name)) == []
    assert len(names) > 20


def test_variables_and_exit_codes() -> None:
    for name in re.findall(r"EARTHMAP_[A-Z]+", PAGE):
        assert f'"{name}"' in SOURCE
    assert "exit code 130" in PAGE
    assert cli.STOPPED == 130


def test_it_is_one_page() -> None:
    assert len(PAGE.split()) < 1_100
