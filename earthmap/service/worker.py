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
from collections.abc import Callable, Mapping
from typing import IO, Any

from earthmap.errors import EarthmapError, JobError
from earthmap.service.errors import problem_of

_REST = 95
"""Per cent that stand for the cells; merging and writing are the rest."""


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
        run_map(work["job"], limits=work["limits"], tell=tell)
    except EarthmapError as error:
        tell({"fault": problem_of(error)})
        return 1
    tell({"done": True, "progress": 100})
    return 0


def run_map(values: Mapping[str, Any], *, limits: Mapping[str, Any], tell: Callable[[Mapping[str, Any]], None]) -> None:
    """Run a map job within its limits, or what is missing of it.

    Raises:
        EarthmapError: as `earthmap.pipeline.run_job`; JobError for more than the limits allow.
    """
    from earthmap.pipeline import parse_job, run_job

    allowed = limits.get("tiles")
    job = parse_job(dict(values))
    if allowed is not None and allowed < job.spec.max_tiles:
        job = parse_job({**job.to_dict(), "max_tiles": int(allowed)})

    def report(progress: Any) -> None:
        tell({"progress": _REST * progress.tiles // max(progress.tiles_planned, 1)})

    if limits.get("read_bytes") is not None:
        _check_bytes(job, int(limits["read_bytes"]), say=lambda text: tell({"message": text}))
    run_job(job, report=report, say=lambda text: tell({"message": text}))


def _check_bytes(job: Any, most: int, *, say: Callable[[str], None]) -> None:
    """Raises JobError for a plan that reads more; the plan stays in the run folder, where the run finds it."""
    from earthmap.pipeline.estimate import explain
    from earthmap.pipeline.plan import make_plan, read_plan, write_plan
    from earthmap.pipeline.run import claim
    from earthmap.storage import Storage

    storage = Storage(job.spec.out)
    claim(storage, job)
    plan = read_plan(storage)
    if plan is None:
        plan = make_plan(job, say=say)
        write_plan(storage, plan)
    needed = explain(plan).read_bytes
    if needed > most:
        raise JobError(
            f"the job reads {needed:,} bytes of pixels",
            expected=f"{most:,} at most, by the quota of the token",
            fix="ask for less ground, fewer dates or larger pixels",
        )


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
