"""Questions to processes that hang, crash, leave others behind, or lose the one that asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from earthmap.errors import IsolatedError
from earthmap.operate.child import Child

HEIRS = """
import json, subprocess, sys, time
code = "import time; time.sleep(100)"
one = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
two = subprocess.Popen([sys.executable, "-c", code], env={}, start_new_session=True)  # forgets its environment
print(json.dumps({"pids": [one.pid, two.pid]}), flush=True)
if len(sys.argv) > 1:
    open(sys.argv[1], "w").write(f"{one.pid} {two.pid}")
    time.sleep(100)
"""


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _wait_until_gone(pids: list[int]) -> None:
    until = time.monotonic() + 20
    while any(map(_runs, pids)) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(map(_runs, pids))


def test_the_last_line_is_the_answer() -> None:
    with Child("print('hello'); print('{\"a\": 1}')", seconds=30) as child:
        assert child.answer() == {"a": 1}


@pytest.mark.parametrize(
    ("code", "reason", "said"),
    [
        ("import os; os.kill(os.getpid(), 11)", "crashed", "signal 11"),
        ("import no_such_package", "crashed", "No module named 'no_such_package'"),
        ("print('[1]')", "crashed", "[1]"),
        ("print('not json')", "crashed", "exit status 0"),
        ("import time; time.sleep(100)", "timeout", "0.5 s"),
    ],
)
def test_what_gives_no_answer_says_why(code: str, reason: str, said: str) -> None:
    with Child(code, seconds=0.5 if reason == "timeout" else 30) as child, pytest.raises(IsolatedError) as caught:
        child.answer()
    assert caught.value.reason == reason
    assert said in str(caught.value)


def test_what_it_started_is_ended_with_it(tmp_path: Path) -> None:
    told = tmp_path / "pids"
    with Child(HEIRS, str(told), seconds=5) as child, pytest.raises(IsolatedError):
        child.answer()
    pids = [int(word) for word in told.read_text().split()]
    _wait_until_gone(pids)


def test_it_ends_when_who_asked_is_killed(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    code = (
        "import sys\nfrom earthmap.operate.child import Child\n"
        "with Child('import os, sys, time; open(sys.argv[1], \"w\").write(str(os.getpid())); time.sleep(100)',"
        " sys.argv[1], seconds=60) as child:\n    child.answer()"
    )
    asking = subprocess.Popen([sys.executable, "-c", code, str(told)], cwd=tmp_path)
    until = time.monotonic() + 20
    while not (told.exists() and told.read_text()) and time.monotonic() < until:
        time.sleep(0.02)
    asking.send_signal(signal.SIGKILL)
    asking.wait()
    _wait_until_gone([int(told.read_text())])


def test_this_process_is_never_taken_for_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    with Child("print('{}')", seconds=30) as child:
        child.answer()
    assert _runs(os.getpid())
