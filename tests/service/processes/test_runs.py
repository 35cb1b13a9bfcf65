"""From an event to an estimate and a trained model: what workers run, in this process and without Ray."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import shapely
import torch

from earthmap.errors import BadRequestError, JobError
from earthmap.model import read_card
from earthmap.model.earth_onevision import load_earth_onevision, new_earth_onevision
from earthmap.model.words import train_words
from earthmap.service.processes import PROCESSES, Assignment, Offer, Process, Scope, Site
from earthmap.service.processes.estimate import ESTIMATE
from earthmap.service.processes.finetune import FINETUNE
from earthmap.service.processes.map import MAP
from earthmap.service.processes.respond import RESPOND
from earthmap.service.processes.sample import SAMPLE
from earthmap.service.state import JobRecord
from earthmap.storage import Storage
from earthmap.synthetic import World, small_world, write_world
from earthmap.training.data import DataSpec, _cube
from tests.pipeline.cells import run_here
from tests.service.processes.requests import ask, finished, refusal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]

DAY = datetime.timedelta(days=1)

IDS = {name: f"{digit * 8}-0000-4000-8000-000000000000" for name, digit in zip("abcdefgh", "12345678", strict=True)}


@pytest.fixture(scope="module")
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclasses.dataclass(slots=True)
class Desk:
    """Jobs as the service keeps them, each worked on here and at once."""

    root: Path
    offer: Offer
    jobs: dict[str, JobRecord] = dataclasses.field(default_factory=dict)
    told: list[Mapping[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def scope(self) -> Scope:
        return Scope(offer=self.offer, find=self._find, root=str(self.root))

    def _find(self, job_id: str) -> JobRecord:
        if job_id not in self.jobs:
            raise JobError(f"the job {job_id} cannot be used: there is no such job, or it is not yours")
        return self.jobs[job_id]

    def work(self, name: str, process: Process, inputs: Mapping[str, Any], **limits: int) -> Storage:
        """The folder of the finished job."""
        assert process.labour is not None
        job_id, self.told = IDS[name], []
        checked = json.loads(json.dumps(ask(process, inputs, self.scope).inputs))
        site = Site(scope=self.scope, out=str(self.root / job_id), store=str(self.root / "store"))
        values = json.loads(json.dumps(process.labour.prepare(checked, site)))
        process.labour.run(Assignment(out=site.out, values=values, limits=limits, tell=self.told.append))
        self.jobs[job_id] = finished(job_id, process.id, site.out)
        return Storage(site.out)

    def result(self, name: str, output: str) -> Any:
        """An output by value."""
        job = self.jobs[IDS[name]]
        process = PROCESSES[job.process]
        return json.loads(
            Storage(str(job.result)).read(process.place(process.outputs[output], Storage(str(job.result))))
        )


@pytest.fixture(scope="module")
def world() -> World:
    """A valley on two dates before a flood and two in it."""
    small = small_world(3, size_m=1800.0, cloud_share=0.0)
    return dataclasses.replace(small, between=(small.before + 5 * DAY, small.after - 5 * DAY))


@pytest.fixture(scope="module")
def desk(world: World, tmp_path_factory: pytest.TempPathFactory, threads: None) -> Iterator[Desk]:
    """A desk whose runs are made in this process, with an event that was mapped: job `a`."""
    folder = tmp_path_factory.mktemp("desk")
    catalog = write_world(world, folder / "world", sensors=("sentinel-1",))
    model = new_earth_onevision("tiny", train_words(["Is there water?", "yes", "no", "wet", "dry"], size=300), seed=1)
    model.save(folder / "tiny")
    desk = Desk(folder / "runs", Offer(catalogs={"drawn": str(catalog)}, models={"tiny": str(folder / "tiny")}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("earthmap.pipeline.run.run_job", run_here)
        patch.setattr("earthmap.pipeline.cluster.cluster", lambda address: contextlib.nullcontext())
        patch.setattr("earthmap.pipeline.publish._write_pages", lambda *_, **__: None)
        patch.setattr("earthmap.training.data.read_units", _units_here)
        asked = {
            "area": json.loads(json.dumps(world.area.to_geojson())), "event_time": "2024-06-01",
            "queries": ["Where is water?"], "predictor": "oracle", "tile_size": 128,
        }  # fmt: skip
        desk.work("a", RESPOND, asked)
        yield desk


def _units_here(units: Sequence[Any], _: Path) -> Iterator[pa.Table]:
    for unit in units:
        yield from unit.tables()


def test_an_event_is_mapped_pass_by_pass_and_its_outputs_are_those_of_the_latest(desk: Desk) -> None:
    event = desk.result("a", "event")
    assert len(event["runs"]) == 2
    assert all(row["finished"] for row in event["runs"])
    folder = Storage(str(desk.jobs[IDS["a"]].result))
    assert RESPOND.place(RESPOND.outputs["features"], folder) == f"{event['latest']}/features.parquet"
    assert desk.result("a", "summary") == json.loads(folder.read(f"{event['latest']}/summary.json"))
    earlier = event["runs"][0]["folder"]
    assert earlier != event["latest"]
    assert RESPOND.place(RESPOND.outputs["report"], folder, part=earlier) == f"{earlier}/report.html"
    assert str(desk.root) not in json.dumps(event)


def test_what_was_mapped_while_it_worked_is_told(world: World, desk: Desk) -> None:
    desk.work("b", RESPOND, {**_event(world), "after": "2024-06-01/2024-12"})
    assert [line["progress"] for line in desk.told if "progress" in line][-1] == 100
    assert any("mapping 2024-" in line.get("message", "") for line in desk.told)


def _event(world: World) -> dict[str, Any]:
    return {
        "area": json.loads(json.dumps(world.area.to_geojson())), "event_time": "2024-06-01",
        "queries": ["Where is water?"], "predictor": "oracle", "tile_size": 128,
    }  # fmt: skip


def test_quotas_hold_for_all_passes_together_before_any_is_read(world: World, desk: Desk) -> None:
    one_pass = int(desk.result("a", "summary")["planned"])  # one question, one observation
    with pytest.raises(
        JobError, match=f"reads {2 * one_pass} tiles; expected {2 * one_pass - 1} at most, by the quota"
    ):
        desk.work("c", RESPOND, _event(world), tiles=2 * one_pass - 1)
    with pytest.raises(JobError, match="bytes of pixels"):
        desk.work("d", RESPOND, _event(world), read_bytes=1_000)
    assert not list((desk.root / IDS["c"]).rglob("features.parquet"))


def test_labels_of_a_sample_become_an_estimate(desk: Desk) -> None:
    folder = desk.work("e", SAMPLE, {"job": IDS["a"], "units": 120})
    drawn = desk.result("e", "drawn")
    assert drawn["units"] >= 120
    assert str(desk.root) not in json.dumps(drawn) + folder.read("HOW-TO.txt").decode()
    units = json.loads(folder.read("sample.geojson"))
    assert {"mapped", "stratum", "inclusion"} & set(units["features"][0]["properties"]) == set()
    with zipfile.ZipFile(io.BytesIO(folder.read("pictures.zip"))) as pictures:
        assert len(pictures.namelist()) == drawn["chips"]
    for feature in units["features"]:
        feature["properties"]["label"] = "none" if feature["properties"]["id"].endswith("1") else "water"
    desk.work("f", ESTIMATE, {"job": IDS["a"], "labels": units})
    told = desk.result("f", "estimate")
    assert told["labelled"] == drawn["units"]
    assert {one["class"] if "class" in one else one["name"] for one in told["classes"]} >= {"water"}
    assert any("water" in line for line in told["lines"])
    strange = [{**units["features"][0], "properties": {"id": "abc-0001", "label": "water"}}]
    with pytest.raises(BadRequestError, match="has no sample"):
        desk.work("f", ESTIMATE, {"job": IDS["a"], "labels": {**units, "features": strange}})


def _parcels(world: World) -> dict[str, Any]:
    """The western and the eastern half, wet and dry."""
    west, south, east, north = world.area.geometry.bounds
    middle = (west + east) / 2
    halves = {"wet": shapely.box(west, south, middle, north), "dry": shapely.box(middle, south, east, north)}
    features = [
        {"type": "Feature", "properties": {"class": name}, "geometry": shapely.geometry.mapping(shape)}
        for name, shape in halves.items()
    ]
    return json.loads(json.dumps({"type": "FeatureCollection", "features": features}))  # type: ignore[no-any-return]


def test_a_model_learns_from_labelled_ground_and_is_then_named(world: World, desk: Desk) -> None:
    asked = {"job": IDS["a"], "labels": _parcels(world), "model": "tiny", "steps": 2}
    desk.work("g", FINETUNE, asked)
    metrics = desk.result("g", "metrics")
    assert (metrics["model"], metrics["base"], metrics["steps"]) == (f"job:{IDS['g']}", "tiny", 2)
    assert metrics["learned_from"]["counts"]["modality"] == {"sar": metrics["learned_from"]["questions"]}
    assert str(desk.root) not in json.dumps(metrics)
    assert str(desk.root) not in json.dumps(desk.result("g", "card"))
    model = Path(str(desk.jobs[IDS["g"]].result)) / "model"
    assert read_card(model).preset == "tiny"
    load_earth_onevision(model)
    assert [line["progress"] for line in desk.told if "progress" in line] == [50, 100]
    named = {**_event(world), "predictor": "vlm", "model": f"job:{IDS['g']}"}
    assert ask(RESPOND, named, desk.scope).area
    more = {**asked, "model": f"job:{IDS['g']}", "steps": 1}
    assert ask(FINETUNE, more, desk.scope).steps == 1
    for wrong in (f"job:{IDS['a']}", f"job:{IDS['h']}", "/etc", "nano"):
        assert refusal(MAP, {"area": [4, 45, 4.1, 45.1], "queries": ["Where is water?"], "model": wrong}, desk.scope)


def test_only_what_the_run_looked_at_is_learned_from(desk: Desk) -> None:
    event, folder = desk.result("a", "event"), str(desk.jobs[IDS["a"]].result)
    found = []
    for row in event["runs"]:
        store, groups = _cube(DataSpec(path=f"{folder}/{row['folder']}", labels="labels.gpkg"))
        assert store.address == str(desk.root / "store")
        found.append({path for _, path in groups})
    assert all(found)
    assert not found[0] & found[1]
    whole = {path for _, path in _cube(DataSpec(path=str(desk.root / "store"), labels="labels.gpkg"))[1]}
    assert found[0] | found[1] <= whole


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"steps": 0}, "steps"),
        ({"steps": 20_001}, "steps"),
        ({"column": "kind"}, "no column kind"),
        ({"column": "a,cube=/etc"}, "column"),
        ({"label": "a=b"}, "label"),
        ({"things": ["a+b"]}, "things"),
        ({"within": "/etc/passwd"}, "within"),
        ({"within": [0, 0, 0, 0]}, ""),
        ({"model": "other"}, "model"),
        ({"model": None, "labels": {"type": "FeatureCollection", "features": []}}, "0 features"),
        ({"labels": {"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {}}]}}, ""),
        ({"job": IDS["h"]}, "not yours"),
        ({"out": "/etc"}, "out"),
    ],
)
def test_trainings_that_make_no_sense_are_told(world: World, desk: Desk, change: dict[str, Any], word: str) -> None:
    asked = {"job": IDS["a"], "labels": _parcels(world), "model": "tiny", **change}
    assert word in refusal(FINETUNE, asked, desk.scope)
