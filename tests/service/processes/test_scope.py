"""What a request may name, and that it is shown no address."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from earthmap.errors import JobError
from earthmap.service.processes import Offer, Scope
from earthmap.service.processes.map import MAP
from earthmap.service.processes.mapped import pass_folder, run_address
from earthmap.service.processes.respond import RESPOND
from earthmap.storage import Storage
from tests.service.processes.requests import EVENT, MAPPED, NOBODYS, OFFER, TRAINED, scope_on


def test_a_model_is_one_of_the_operator_or_of_a_job_that_trained_one(tmp_path: Path) -> None:
    scope = scope_on(tmp_path)
    assert scope.model("mine") == "/secret/models/mine"
    assert scope.model(f"job:{TRAINED}") == str(tmp_path / TRAINED / "model")
    for name, word in ((f"job:{MAPPED}", "trained no model"), (f"job:{NOBODYS}", "not yours"), ("/etc", "no longer")):
        with pytest.raises(JobError, match=word):
            scope.model(name)


def test_jobs_that_mapped_nothing_have_no_run(tmp_path: Path) -> None:
    scope = scope_on(tmp_path)
    assert run_address(scope.mapped(MAPPED)) == str(tmp_path / MAPPED)
    with pytest.raises(JobError, match="mapped nothing"):
        scope.mapped(TRAINED)
    with pytest.raises(JobError, match="not yours"):
        scope.mapped(NOBODYS)


def test_the_run_of_an_event_is_its_latest_pass_and_while_it_grows_the_one_that_is_mapped(tmp_path: Path) -> None:
    scope, folder = scope_on(tmp_path), tmp_path / EVENT
    folder.mkdir()

    def write(latest: str | None, *runs: tuple[str, str | None]) -> None:
        rows = [{"folder": name, "finished": finished} for name, finished in runs]
        (folder / "event.json").write_text(json.dumps({"latest": latest, "runs": rows}))

    write(None)
    with pytest.raises(JobError, match="mapped no pass"):
        run_address(scope.mapped(EVENT))
    write("b", ("a", None), ("b", "2024-06-08T00:00:00Z"))
    assert run_address(scope.mapped(EVENT)) == str(folder / "b")
    assert pass_folder(Storage(folder), growing=True) == "a/"
    write("b", ("a", "2024-06-09T00:00:00Z"), ("b", "2024-06-08T00:00:00Z"))
    assert pass_folder(Storage(folder), growing=True) == "b/"
    write("b", ("a", None), ("b", "2024-06-08T00:00:00Z"))
    output = RESPOND.outputs["features"]
    assert RESPOND.place(output, Storage(folder), part="b") == "b/features.parquet"
    for process, name, one in ((RESPOND, "features", "a"), (RESPOND, "features", "../b"), (RESPOND, "features", ""),
                               (RESPOND, "event", "b"), (MAP, "features", "b")):  # fmt: skip
        with pytest.raises(FileNotFoundError):
            process.place(process.outputs[name], Storage(folder), part=one)


def test_addresses_are_hidden_behind_names() -> None:
    scope = Scope(offer=Offer(catalogs=OFFER.catalogs, models=OFFER.models), root="/data/runs")
    told = scope.hide("/secret/place/catalog.json, /secret/models/mine, /data/runs/1/job.json, /data/runsaway")
    assert told == "drawn, mine, runs/1/job.json, /data/runsaway"
