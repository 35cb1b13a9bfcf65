"""Work in a process of its own, with limits: what kills it, or never ends, costs that work and nothing else."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earthmap.errors import IsolatedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What isolated work may use."""

    seconds: float = 120.0
    memory_bytes: int = 8 * 2**30
    """Of address space, which exceeds resident memory by what libraries map."""


def isolated(work: Callable[[], Any], limits: Limits) -> Any:
    """What `work()` returns, computed in a fresh interpreter.

    Raises:
        IsolatedError: when the process dies, overruns its time, or runs out of its memory.
        Exception: what `work` itself raised.
    """
    import cloudpickle

    with tempfile.TemporaryDirectory(prefix="earthmap-") as folder:
        task, result = Path(folder) / "task", Path(folder) / "result"
        task.write_bytes(pickle.dumps((sys.path, cloudpickle.dumps(work))))
        command = [sys.executable, "-m", __name__, str(task), str(result), str(limits.memory_bytes)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=limits.seconds, check=False)
        except subprocess.TimeoutExpired:
            raise IsolatedError(f"gave no answer within {limits.seconds:g} s", reason="timeout") from None
        if not result.exists():
            raise _death(done)
        ok, value = pickle.loads(result.read_bytes())
    if ok:
        return value
    raise value


def _death(done: subprocess.CompletedProcess[bytes]) -> IsolatedError:
    text = done.stderr.decode(errors="replace").strip().splitlines()
    if any("MemoryError" in line or "bad_alloc" in line for line in text):
        return IsolatedError("ran out of the memory it may use", reason="memory")
    how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit status {done.returncode}"
    last = f": {text[-1][:200]}" if text else ""
    return IsolatedError(f"the process died with {how}{last}", reason="crashed")


def _main(task: str, result: str, memory_bytes: str) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (int(memory_bytes), int(memory_bytes)))
    sys.path[:], pickled = pickle.loads(Path(task).read_bytes())
    outcome: tuple[bool, Any]
    try:
        outcome = (True, pickle.loads(pickled)())
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - carried to the caller, who decides
        outcome = (False, error)
    import cloudpickle

    whole = Path(f"{result}.part")
    whole.write_bytes(cloudpickle.dumps(outcome))
    whole.rename(result)


if __name__ == "__main__":
    _main(*sys.argv[1:])
