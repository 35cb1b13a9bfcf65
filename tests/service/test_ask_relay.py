"""The process that passes questions on: replies, faults, its death and its new start, and who no longer waits."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from earthmap.errors import AreaError, ClusterError
from earthmap.service.ask_relay import DefectError, Relay
from earthmap.service.asking import Asked, BusyError

_PROGRAM = """
import base64, json, os, pickle, sys, time
from earthmap.errors import AreaError
settings = json.loads(sys.stdin.readline())
folder = settings["address"]
open(f"{folder}/pid-{os.getpid()}", "w").close()
def tell(**line):
    print(json.dumps(line), flush=True)
if os.path.exists(f"{folder}/broken"):
    sys.exit("no cluster")
tell(ready=True)
held = []
for line in sys.stdin:
    said = json.loads(line)
    number = said["number"]
    if "asked" not in said:
        open(f"{folder}/gone-{number}", "w").close()
        continue
    word = said["asked"]["question"]["text"]
    if word == "die":
        os._exit(9)
    elif word == "area":
        error = AreaError("no ground", expected="some", fix="go elsewhere")
        tell(number=number, error=base64.b64encode(pickle.dumps(error)).decode())
    elif word == "busy":
        tell(number=number, busy="enough")
    elif word == "defect":
        tell(number=number, defect="ZeroDivisionError")
    elif word == "hold":
        held.append(number)
    elif word == "release":
        for other in [*held, number]:
            tell(number=other, reply={"number": other, "workers": settings["workers"]})
        held.clear()
    elif word != "never":
        tell(number=number, reply={"at": said["asked"]["at"], "model": said["asked"]["model"], "long": "x" * 200_000})
"""


def relay_in(folder: Path) -> Relay:
    return Relay(lambda: str(folder), workers=3, command=(sys.executable, "-c", _PROGRAM))


def asked(word: str) -> Asked:
    return Asked(run="run", at=(3.5, 45.7), question={"text": word}, model="spectral")


def pids(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("pid-")) for path in folder.glob("pid-*"))


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def run(folder: Path, scenario: Any) -> None:
    async def whole() -> None:
        relay = relay_in(folder)
        try:
            await scenario(relay)
        finally:
            await relay.close()

    asyncio.run(whole())
    assert not [pid for pid in pids(folder) if is_there(pid)]


def test_what_is_answered_comes_to_who_asked(tmp_path: Path) -> None:
    async def scenario(relay: Relay) -> None:
        assert pids(tmp_path) == [], "nothing is started before somebody asks"
        reply = await relay.answer(asked("word"))
        assert (reply["at"], reply["model"], len(reply["long"])) == ([3.5, 45.7], "spectral", 200_000)
        held = [asyncio.create_task(relay.answer(asked("hold"))) for _ in range(20)]
        await asyncio.sleep(0.05)
        last = await relay.answer(asked("release"))
        numbers = [(await one)["number"] for one in held]
        assert [*numbers, last["number"]] == list(range(2, 23))
        assert last["workers"] == 3
        with pytest.raises(AreaError) as caught:
            await relay.answer(asked("area"))
        assert (caught.value.what, caught.value.expected, caught.value.fix) == ("no ground", "some", "go elsewhere")
        with pytest.raises(BusyError, match="enough"):
            await relay.answer(asked("busy"))
        with pytest.raises(DefectError, match="ZeroDivision"):
            await relay.answer(asked("defect"))
        assert len(pids(tmp_path)) == 1

    run(tmp_path, scenario)


def test_when_it_dies_nobody_waits_and_the_next_question_starts_it_anew(tmp_path: Path) -> None:
    async def scenario(relay: Relay) -> None:
        waiting = [asyncio.create_task(relay.answer(asked("never"))) for _ in range(5)]
        await relay.answer(asked("word"))
        with pytest.raises(BusyError, match="has ended"):
            await relay.answer(asked("die"))
        told = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(one) for one in told] == [BusyError] * 5
        assert (await relay.answer(asked("word")))["model"] == "spectral"
        assert len(pids(tmp_path)) == 2

    run(tmp_path, scenario)


def test_who_no_longer_waits_is_told_on(tmp_path: Path) -> None:
    async def scenario(relay: Relay) -> None:
        await relay.answer(asked("word"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(relay.answer(asked("never")), 0.1)
        await relay.answer(asked("word"))
        assert [path.name for path in tmp_path.glob("gone-*")] == ["gone-2"]

    run(tmp_path, scenario)


def test_a_cluster_that_is_not_there_is_told_and_tried_again(tmp_path: Path) -> None:
    (tmp_path / "broken").touch()

    def nowhere() -> str:
        raise ClusterError("there is no cluster")

    async def scenario(relay: Relay) -> None:
        told = await asyncio.gather(*(relay.answer(asked("word")) for _ in range(3)), return_exceptions=True)
        assert [type(one) for one in told] == [BusyError] * 3
        assert len(pids(tmp_path)) == 1
        (tmp_path / "broken").unlink()
        assert (await relay.answer(asked("word")))["model"] == "spectral"
        with pytest.raises(BusyError, match="no cluster"):
            await Relay(nowhere).answer(asked("word"))

    run(tmp_path, scenario)


def test_it_ends_while_it_starts(tmp_path: Path) -> None:
    async def scenario(relay: Relay) -> None:
        task = asyncio.create_task(relay.answer(asked("word")))
        await asyncio.sleep(0.05)
        task.cancel()

    run(tmp_path, scenario)
