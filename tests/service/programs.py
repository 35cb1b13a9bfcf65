"""Small real programs that stand where a run stands: they speak as `earthmap.service.worker` does."""

from __future__ import annotations

import sys

_HEAD = """
import json, pathlib, signal, sys, threading, time
work = json.loads(sys.stdin.readline())
def tell(**line):
    print(json.dumps(line), flush=True)
out = pathlib.Path(work["out"])
"""


def program(body: str) -> tuple[str, ...]:
    """The command of a program with `body`, in which `work`, `tell` and `out` stand."""
    return (sys.executable, "-c", _HEAD + body)


MAPS = program(
    """
tell(message="searching the catalogue")
out.mkdir(parents=True, exist_ok=True)
(out / "summary.json").write_text(json.dumps({"asked": [q["text"] for q in work["values"]["queries"]]}))
(out / "run.json").write_text(json.dumps({"groups": {"read": 1, "reused": 0}}))
(out / "features.parquet").write_bytes(b"PAR1")
(out / "report.html").write_text("<script>1</script>")
print("what a library prints")
tell(progress=50)
tell(done=True, progress=100)
"""
)

WAITS = program(
    """
out.mkdir(parents=True, exist_ok=True)
(out / "pid").write_text(str(__import__("os").getpid()))
tell(progress=10, message="waiting")
time.sleep(300)
"""
)

STUBBORN = program(
    """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
out.mkdir(parents=True, exist_ok=True)
(out / "pid").write_text(str(__import__("os").getpid()))
while True:
    time.sleep(1)
"""
)

FAILS = program(
    """
tell(fault={"type": "urn:earthmap:problem:catalog", "title": "t", "status": 400, "detail": "nothing in " + str(out)})
sys.exit(1)
"""
)

DIES = program("import os; print('traceback of a defect', file=sys.stderr, flush=True); os.kill(os.getpid(), 9)")
