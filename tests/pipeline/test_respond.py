"""An event's passes: each mapped by itself, the latest first; new ones found, known ones left alone, and all named."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from earthmap import cli
from earthmap.errors import CatalogError, JobError, QueryError, RunFolderError
from earthmap.pipeline import Run
from earthmap.pipeline.event import Event, parse_event
from earthmap.pipeline.respond import EVENT_PATH, Follow, Watcher, dated_questions, respond
from earthmap.storage import Storage
from earthmap.synthetic import World, small_world, true_km2, write_world
from earthmap.tasks.vocabulary import FLOOD
from tests.pipeline.cells import run_here
from tests.pipeline.commands import command, wait_until

DAY = datetime.timedelta(days=1)
EVENT = "2024-06-01"


@pytest.fixture(scope="module")
def world() -> World:
    """A valley on two dates before a flood and two in it."""
    small = small_world(3, size_m=1800.0, cloud_share=0.0)
    return dataclasses.replace(small, between=(small.before + 5 * DAY, small.after - 5 * DAY))


@pytest.fixture(scope="module")
def items(world: World, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The items of its scenes by time, two to a pass, their files' addresses absolute."""
    folder = tmp_path_factory.mktemp("event")
    write_world(world, folder, sensors=("sentinel-1",), columns=2)
    found = []
    for path in folder.glob("*/*/*.json"):
        item = json.loads(path.read_text())
        for asset in item["assets"].values():
            asset["href"] = str((path.parent / asset["href"]).resolve())
        found.append({**item, "links": []})
    assert len(found) == 8
    return sorted(found, key=lambda item: str(item["id"]))


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are made in this process, without pages."""
    monkeypatch.setattr("earthmap.pipeline.run.run_job", run_here)
    monkeypatch.setattr("earthmap.pipeline.cluster.cluster", lambda address: contextlib.nullcontext())
    monkeypatch.setattr("earthmap.pipeline.publish._write_pages", lambda *_, **__: None)


def written(path: Path, items: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return path


def values_of(world: World, catalog: Path, out: Path, **changes: Any) -> dict[str, Any]:
    values = {
        "area": world.area, "catalog": str(catalog), "queries": ["What is flooded?"], "predictor": "oracle",
        "tile_size": 128, "out": str(out),
    }  # fmt: skip
    return {**values, **changes}


def event_of(time: str = EVENT, *, before: str | None = None, after: str | None = None) -> Event:
    return parse_event(time, before=before, after=after)


def index_of(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / EVENT_PATH).read_text())
    return content


def km2_of(run: Run) -> dict[str, float]:
    (layer,) = run.summary["queries"][0]["observations"]
    km2: dict[str, float] = layer["km2"]
    return km2


def test_each_pass_is_mapped_by_itself_the_latest_first(
    world: World, items: list[dict[str, Any]], tmp_path: Path
) -> None:
    catalog, out, mapped = written(tmp_path / "items.json", items), tmp_path / "event", list[str]()
    watcher = Watcher(mapped=lambda run: mapped.append(run.address))
    runs = respond(values_of(world, catalog, out), event_of(), watcher=watcher)
    names = [Path(run.address).name for run in runs]
    assert [name[:8] for name in names] == ["20240603", "20240608"]
    assert [Path(address).name for address in mapped] == names[::-1]
    flood = true_km2(world, world.after)["water"] - true_km2(world, world.before)["water"]
    for run, day in zip(runs, ("2024-06-03", "2024-06-08"), strict=True):
        assert km2_of(run) == {FLOOD: pytest.approx(flood, abs=2e-4)}
        (layer,) = run.summary["queries"][0]["observations"]
        assert layer["datetime_min"][:10] == layer["datetime_max"][:10] == day
    content = index_of(out)
    assert content["latest"] == names[1]
    assert [row["folder"] for row in content["runs"]] == names
    assert "2024-06-08 17:50 UTC" in content["runs"][1]["answers"][0]
    # The dates before are read and asked once for both.
    parts = [path for path in Storage(out / "store").list("parts") if path.endswith("/manifest.json")]
    cells = len({path.split("/")[1] for path in parts})
    assert len(parts) == cells * (2 + 2 + 2)
    # Started again, nothing is left to do.
    mapped.clear()
    assert [run.address for run in respond(values_of(world, catalog, out), event_of(), watcher=watcher)] == [
        run.address for run in runs
    ]
    assert not mapped
    # A pass of which tiles failed is tried again, once at each start.
    content["runs"][0]["failed"] = 1
    (out / EVENT_PATH).write_text(json.dumps(content))
    again = respond(values_of(world, catalog, out), event_of(), watcher=watcher)
    assert [Path(address).name for address in mapped] == names[:1]
    assert index_of(out)["runs"] == [{**row, "failed": 0} for row in content["runs"]]
    assert [run.address for run in again] == [run.address for run in runs]


def test_followed_it_maps_what_comes_and_goes_on_where_it_was_stopped(
    world: World, items: list[dict[str, Any]], tmp_path: Path
) -> None:
    catalog, out = written(tmp_path / "items.json", items[:4]), tmp_path / "event"
    said, steps = list[str](), list[Callable[[], object]]()

    def sleep(seconds: float) -> None:
        assert seconds == 5.0
        steps.pop(0)()

    def stop() -> None:
        raise KeyboardInterrupt

    follow = Follow(every_s=5.0, sleep=sleep)
    watcher = Watcher(say=said.append)

    def followed(*these: Callable[[], object]) -> list[str]:
        steps[:] = [*these, stop]
        with pytest.raises(KeyboardInterrupt):
            respond(values_of(world, catalog, out), event_of(), follow=follow, watcher=watcher)
        return [row["folder"][:8] for row in index_of(out)["runs"] if row["finished"]]

    assert not (out / EVENT_PATH).exists()
    # Nothing yet; half of a pass; a catalogue that is gone; all of that pass; another one.
    found = followed(
        lambda: None,
        lambda: written(catalog, items[:5]),
        catalog.unlink,
        lambda: written(catalog, items[:6]),
    )
    assert found == ["20240603", "20240603"]
    first, second = index_of(out)["runs"]
    half, whole = sorted((first, second), key=lambda row: len(row["scenes"]))
    assert (half["superseded_by"], whole["superseded_by"]) == (whole["folder"], None)
    assert index_of(out)["latest"] == whole["folder"]
    assert any("could not be searched" in text for text in said)
    assert followed(lambda: written(catalog, items)) == ["20240603", "20240603", "20240608"]
    runs = respond(values_of(world, catalog, out), event_of())
    assert [Path(run.address).name for run in runs] == [whole["folder"], index_of(out)["latest"]]


def test_following_ends_at_its_time(world: World, items: list[dict[str, Any]], tmp_path: Path) -> None:
    past = datetime.datetime.now(datetime.UTC) - DAY
    assert not Follow(until=past).wait()
    slept = list[float]()
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=30)
    assert Follow(until=soon, sleep=slept.append).wait()
    assert 0 < slept[0] <= 30
    catalog = written(tmp_path / "items.json", items[:4])
    assert respond(values_of(world, catalog, tmp_path / "event"), event_of(), follow=Follow(until=past)) == []


def test_questions_get_the_events_dates(world: World, items: list[dict[str, Any]], tmp_path: Path) -> None:
    catalog, event = written(tmp_path / "items.json", items), event_of(before="2024-05")
    asked = ["What is flooded?", "Where is water?", "Where did water appear or disappear?"]
    found = dated_questions(values_of(world, catalog, tmp_path / "event", queries=asked), event)
    early = str(event.before)
    assert [one.get("before") for one in found] == [early, None, early]
    assert {one["after"] for one in found} == {str(event.after)}


@pytest.mark.parametrize(
    ("changes", "event", "says"),
    [
        ({}, {"time": "2024-07-01"}, "after it .*before it there is .*2024-06-08.*--follow"),
        ({}, {"time": "2026-01-01"}, "other times.*--before or --after"),
        ({}, {"before": "2023"}, "before it .*after it there is 2024-06-03.*--reference-water"),
        ({"queries": ["Where did water appear?"]}, {"before": "2023"}, "before it"),
        ({"queries": [{"text": "What is flooded?", "before": "2023"}]}, {}, "its own before"),
    ],
    ids=["nothing after", "nothing at all", "nothing before", "no pair", "own dates"],
)
def test_dates_without_observations_are_refused_before_anything_is_read(
    world: World,
    items: list[dict[str, Any]],
    tmp_path: Path,
    changes: dict[str, Any],
    event: dict[str, str],
    says: str,
) -> None:
    catalog, out = written(tmp_path / "items.json", items), tmp_path / "event"
    with pytest.raises((JobError, CatalogError), match=says):
        respond(values_of(world, catalog, out, **changes), event_of(**{"time": EVENT, **event}))
    assert not Storage(out / "store").list()


def test_one_folder_is_of_one_event(world: World, items: list[dict[str, Any]], tmp_path: Path) -> None:
    catalog, out = written(tmp_path / "items.json", items), tmp_path / "event"
    respond(values_of(world, catalog, out), event_of(after="2024-06-08"))
    with pytest.raises(RunFolderError, match="another event"):
        respond(values_of(world, catalog, out, queries=["Where is water?"]), event_of(after="2024-06-08"))
    (out / EVENT_PATH).write_text("{")
    with pytest.raises(RunFolderError, match="damaged"):
        respond(values_of(world, catalog, out), event_of(after="2024-06-08"))


def test_too_few_dates_before_are_said(world: World, items: list[dict[str, Any]], tmp_path: Path) -> None:
    catalog, said = written(tmp_path / "items.json", items[2:]), list[str]()
    (run,) = respond(
        values_of(world, catalog, tmp_path / "event"), event_of(after="2024-06-08"), watcher=Watcher(say=said.append)
    )
    assert any("includes permanent water" in text for text in said)
    assert list(km2_of(run)) == ["flood, includes permanent water"]


def test_nothing_at_all_is_an_error_even_when_following(world: World, tmp_path: Path) -> None:
    missing, out = tmp_path / "missing.json", tmp_path / "event"
    with pytest.raises(CatalogError):
        respond(values_of(world, missing, out), event_of(), follow=Follow(sleep=lambda s: None))
    with pytest.raises(QueryError):
        respond(values_of(world, tmp_path / "missing.json", tmp_path / "event", queries=["Why?"]), event_of())


def test_the_command_says_what_is_wrong_in_one_line(
    world: World, items: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = written(tmp_path / "items.json", items)
    bounds = ",".join(map(str, world.area.bounds))
    given = ["respond", "--event", bounds, "--query", "What is flooded?", "--predictor", "oracle", "--quiet"]
    given += ["--catalog", str(catalog), "--tile-size", "128", "--out", str(tmp_path / "event")]
    for more, says in (
        (["--event-time", EVENT, "--before", "2024-07"], "begin after the event"),
        (["--event-time", EVENT, "--after", "2024-05"], "end before the event"),
        (["--event-time", "soon"], "cannot be read"),
        (["--event-time", EVENT, "--until", "2024-07"], "--until is given without --follow"),
        (["--event-time", EVENT, "--follow", "--every", "0"], "more than none"),
        (["--event-time", EVENT, "--points", str(tmp_path / "missing.csv")], "the points in"),
    ):
        status = cli.main([*given, *more])
        error = capsys.readouterr().err
        assert status == 2
        assert says in error
        assert error.count("\n") == 1
    status = cli.main([*given, "--event-time", EVENT, "--json"])
    out = capsys.readouterr().out
    assert status == 0
    assert len(json.loads(out)["runs"]) == 2


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(200)
def test_the_command_follows_until_it_is_stopped_from_the_keyboard(
    world: World, items: list[dict[str, Any]], tmp_path: Path
) -> None:
    catalog, out = written(tmp_path / "items.json", items[:6]), tmp_path / "event"
    given = ["--event", ",".join(map(str, world.area.bounds)), "--event-time", EVENT, "--query", "What is flooded?"]
    given += ["--catalog", str(catalog), "--predictor", "oracle", "--tile-size", "128", "--out", str(out)]

    def mapped() -> int:
        with contextlib.suppress(FileNotFoundError):
            return sum(row["finished"] is not None for row in index_of(out)["runs"])
        return 0

    with command(*given, "--follow", "--every", "1", verb="respond") as running:
        assert wait_until(lambda: mapped() == 1, running, every=0.1)
        written(catalog, items)
        assert wait_until(lambda: mapped() == 2, running, every=0.1)
        running.running.send_signal(signal.SIGINT)
        status, said, error = running.finish()
    assert status == 130
    assert error.splitlines()[-1].startswith("earthmap: stopped")
    assert said.count("What is flooded?") == 2
    assert [row["folder"][:8] for row in index_of(out)["runs"]] == ["20240603", "20240608"]
