"""`earthmap map`, or another, as a person starts it: a command of its own, which tests watch, end and start again."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import shapely
import yaml

from earthmap.grid import AreaOfInterest
from earthmap.synthetic import World

MARK = "EARTHMAP_TEST_COMMAND"
"""An environment variable that tells a command's processes, Ray's own included, from all others of the machine."""

COMMAND_S = 150.0
"""Longest that a command may take."""

GONE_S = 30.0
"""How long the processes of a killed command may take to notice that it is no more."""


def write_job(folder: Path, world: World, catalog: Path, *, out: str, **changes: Any) -> Path:
    """The job file of a question about nearly all of `world`, as it stands in two observations."""
    west, south, east, north = world.bounds
    box = shapely.box(west, south, east, north).buffer(-0.05 * (east - west), join_style="mitre")
    area = AreaOfInterest.from_geometry(box, f"EPSG:{world.epsg}")
    values = {
        "area": area.to_geojson(),
        "catalog": str(catalog),
        "collections": ["drawn-sentinel-2-l2a"],
        "queries": ["Where is water?"],
        "predictor": "oracle",
        "tile_size": 128,
        "scenes": "all",
        "out": out,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump({**values, **changes}))
    return path


def marked(mark: str) -> dict[int, str]:
    """Command lines of the processes whose environment has `mark`, by id."""
    found = {}
    sign = f"{MARK}={mark}".encode()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if sign not in (folder / "environ").read_bytes().split(b"\0"):
                continue
            if (folder / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def end_marked(mark: str, *, patience: float) -> dict[int, str]:
    """Wait for the processes with `mark`; what is left after `patience` seconds is ended by id, and returned."""
    until = time.monotonic() + patience
    left = marked(mark)
    while left and time.monotonic() < until:
        time.sleep(0.1)
        left = marked(mark)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return left


@dataclass
class Command:
    """One `earthmap map`, or other `verb`, running or ended."""

    arguments: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    verb: str = "map"
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    running: subprocess.Popen[str] = field(init=False)

    def __post_init__(self) -> None:
        # Tests that were started in the background ignore Ctrl-C, and so would what they start.
        former = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            self.running = subprocess.Popen(
                [sys.executable, "-m", "earthmap.cli", self.verb, *self.arguments],
                env={**os.environ, **self.env, MARK: self.mark},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        finally:
            signal.signal(signal.SIGINT, former)

    def finish(self, timeout: float = COMMAND_S) -> tuple[int, str, str]:
        """Exit status, standard output and standard error. Whatever of it is left after `timeout` is ended."""
        try:
            out, err = self.running.communicate(timeout=timeout)
        finally:
            self.end()
        return self.running.returncode, out, err

    def processes(self) -> dict[int, str]:
        """Command lines of its processes, by id."""
        return marked(self.mark)

    def kill(self) -> dict[int, str]:
        """SIGKILL to the driver alone; returns what did not end by itself within GONE_S, and ends that too.

        Ray's agents, which compute and write nothing, are not waited for: they try for a minute to tell a cluster
        that is no more that it is no more.
        """
        self.running.kill()
        self.running.communicate(timeout=GONE_S)
        until = time.monotonic() + GONE_S
        while self._without_agents() and time.monotonic() < until:
            time.sleep(0.1)
        left = self._without_agents()
        self.end(patience=0.0)
        return left

    def _without_agents(self) -> dict[int, str]:
        return {pid: line for pid, line in self.processes().items() if not re.match(r"ray::\w+Agent\b", line)}

    def end(self, *, patience: float = 10.0) -> dict[int, str]:
        """Wait for all of its processes; what is left after `patience` seconds is ended by id, and returned."""
        return end_marked(self.mark, patience=patience)


@contextlib.contextmanager
def command(*arguments: str, env: Mapping[str, str] | None = None, verb: str = "map") -> Iterator[Command]:
    """A started command; nothing of it outlives the context."""
    started = Command(arguments, env or {}, verb)
    try:
        yield started
    finally:
        if started.running.poll() is None:
            started.running.kill()
        started.running.communicate()
        started.end(patience=5.0)


def wait_until(condition: Callable[[], bool], started: Command, *, every: float = 0.01) -> bool:
    """True as soon as `condition` holds; False when the command ends, or takes COMMAND_S, before that."""
    until = time.monotonic() + COMMAND_S
    while time.monotonic() < until and started.running.poll() is None:
        if condition():
            return True
        time.sleep(every)
    return False
