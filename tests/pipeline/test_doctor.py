"""`earthmap doctor` on catalogues that are well, ill, and in between."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from earthmap.cli import DONE, FAILED, WITH_ERRORS, main
from earthmap.cube import close_files, failures
from earthmap.grid import AreaOfInterest
from earthmap.pipeline.doctor import diagnose
from tests.servers import FileServer, file_server


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(failures, "_PLACES", set())
    for name in ("READ_RETRIES", "RETRIES"):
        monkeypatch.setenv(f"EARTHMAP_{name}", "0")
    yield
    close_files()


@pytest.fixture
def server(drawn_catalog: Path) -> Iterator[FileServer]:
    with file_server(drawn_catalog.parent) as state:
        yield state


def _bands(server: FileServer, folder: Path, fault: str, part: str) -> None:
    for path in folder.rglob("*.tif"):
        if part in str(path.relative_to(folder)):
            server.faults[f"/{path.relative_to(folder)}"] = fault


def test_a_drawn_catalogue_is_well(drawn_catalog: Path) -> None:
    found = diagnose(str(drawn_catalog))
    assert found.status == "healthy"
    assert found.fault is None
    assert {one.collection for one in found.collections} >= {"drawn-sentinel-2-l2a"}
    for one in found.collections:
        assert one.recognised == one.items > 0
        assert one.sensors
        assert one.milliseconds
        assert one.bytes_per_second
        assert one.credentials == "none needed"


def test_the_same_over_http_with_the_clock_of_the_service(server: FileServer, drawn_catalog: Path) -> None:
    found = diagnose(f"{server.address}/{drawn_catalog.name}", collections=["drawn-sentinel-2-l2a"])
    assert found.status == "healthy"
    assert found.clock_skew_s is not None
    assert abs(found.clock_skew_s) <= 2
    assert [one.credentials for one in found.collections] == ["none"]


@pytest.mark.parametrize(
    ("fault", "cause"),
    [("missing", "never_published"), ("busy", "refused"), ("html", "credentials"), ("truncated", "unavailable")],
)
def test_a_service_whose_files_cannot_be_read(fault: str, cause: str, server: FileServer, drawn_catalog: Path) -> None:
    _bands(server, drawn_catalog.parent, fault, "")
    found = diagnose(f"{server.address}/{drawn_catalog.name}", collections=["drawn-sentinel-2-l2a"])
    assert found.status == "ill"
    (one,) = found.collections
    assert one.cause == cause
    assert one.recognised == one.items
    assert one.milliseconds is None
    assert one.fix


def test_one_collection_of_several(server: FileServer, drawn_catalog: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _bands(server, drawn_catalog.parent, "missing", "sentinel-1")
    assert main(["doctor", f"{server.address}/{drawn_catalog.name}", "--json"]) == WITH_ERRORS
    out = capsys.readouterr().out
    said = json.loads(out.splitlines()[-1])
    assert said["status"] == "partly"
    causes = {one["collection"]: one["cause"] for one in said["collections"]}
    assert {cause for name, cause in causes.items() if "sentinel-1" in name} == {"never_published"}
    assert {cause for name, cause in causes.items() if "sentinel-1" not in name} == {None}
    assert "never_published" in out
    assert "to fix: check the catalogue's href" in out


def test_a_catalogue_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "http://127.0.0.1:1/catalog.json", "--quiet", "--json"]) == FAILED
    said = json.loads(capsys.readouterr().out)
    assert said["status"] == "ill"
    assert "cannot be reached" in said["fault"]


def test_an_area_without_items(drawn_catalog: Path) -> None:
    found = diagnose(str(drawn_catalog), area=AreaOfInterest.normalize("100,10,101,11"))
    assert found.status == "ill"
    assert {one.cause for one in found.collections} <= {"no_item", "catalogue"}


def test_a_collection_that_nobody_knows(drawn_catalog: Path) -> None:
    found = diagnose(str(drawn_catalog), collections=["nobody-knows"])
    assert [one.cause for one in found.collections] == ["no_item"]


def test_the_real_catalogue(real_data: Path) -> None:
    found = diagnose(str(real_data / "stac" / "catalog.json"))
    assert found.status == "healthy"
    assert len(found.collections) >= 10


def test_the_command_on_a_catalogue_that_is_well(drawn_catalog: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(drawn_catalog), "--collection", "drawn-sentinel-2-l2a"]) == DONE
    said = capsys.readouterr()
    assert "drawn-sentinel-2-l2a" in said.out
    assert "4 of 4" in said.out
    assert "well" in said.out
