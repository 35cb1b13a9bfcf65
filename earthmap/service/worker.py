"""One job in a process of its own: `python -m earthmap.service.worker`, its work a line of JSON on the standard input.

It tells of progress, messages and its end on the standard output, a line of JSON each. When the standard input ends,
whoever started it is gone, and so is it: the job is claimed again, and two must not work in one run folder.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from typing import IO, Any

from earthmap.errors import EarthmapError, JobError
from earthmap.service.errors import problem_of
from earthmap.service.processes import PROCESSES, Assignment


def main() -> int:
    """Run the job of the standard input; 0 where it came to its end, 1 where it failed."""
    told = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is not taken for ours
    work = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with, args=(sys.stdin, float(work["grace_s"])), daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))

    def tell(line: Mapping[str, Any]) -> None:
        print(json.dumps(line), file=told, flush=True)

    try:
        run(Assignment(out=work["out"], values=work["values"], limits=work["limits"], tell=tell), work["process"])
    except EarthmapError as error:
        tell({"fault": problem_of(error)})
        return 1
    tell({"done": True, "progress": 100})
    return 0


def run(assignment: Assignment, process: str) -> None:
    """Work on a job of `process` to its end. Raises EarthmapError."""
    known = PROCESSES.get(process)
    if known is None or known.labour is None:
        raise JobError(f"this worker cannot run {process!r}", fix="use service and workers of one version")
    known.labour.run(assignment)


def _end_with(stdin: IO[str], grace_s: float) -> None:
    """End this process, by force after a while, when `stdin` ends."""
    while stdin.read(4096):
        pass
    last = threading.Timer(grace_s, os._exit, args=(1,))
    last.daemon = True
    last.start()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
