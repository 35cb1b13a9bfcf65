"""Old jobs go whole, the rest stays whole, and breaking off in the middle leaves nothing half-listed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from earthmap.cli import main
from earthmap.errors import StorageError
from earthmap.service import retention
from earthmap.service.database import open_database
from earthmap.service.retention import find_old, prune
from earthmap.service.state import JobStore, Status
from earthmap.storage import Storage

DAY = 86_400.0


class Kept:
    """A state whose time passes as a test says, and the folder of its runs."""

    def __init__(self, folder: Path) -> None:
        self.now = 1_000.0 * DAY
        self.root = Storage(folder / "runs")
        self.jobs = JobStore(open_database(folder / "runs" / "state.sqlite"), clock=lambda: self.now)

    def job(self, *, end: str = "successful", inputs: dict[str, object] | None = None) -> str:
        """A job that ends now, with two files."""
        made = self.jobs.submit("map", inputs or {}, owner="ada")
        assert made is not None
        self.root.write(f"{made.id}/summary.json", b"{}")
        self.root.write(f"{made.id}/classes/water.tif", b"II")
        if end != "open":
            assert self.jobs.claim(made.id, lease_s=60) is not None
        if end == "successful":
            self.jobs.finish(made.id, made.id, result=self.root.locate(made.id))
        elif end == "failed":
            self.jobs.fail(made.id, made.id, fault={"status": 500})
        elif end == "dismissed":
            self.jobs.dismiss(made.id)
        return made.id

    def files(self) -> set[str]:
        """Jobs that have files."""
        return {path.partition("/")[0] for path in self.root.list() if "/" in path} - {"store"}

    def status(self, job_id: str) -> Status:
        """Where a job stands."""
        found = self.jobs.get(job_id)
        assert found is not None
        return found.status


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    (tmp_path / "runs").mkdir()
    found = Kept(tmp_path)
    yield found
    found.jobs.database.close()


def test_what_is_old_goes_and_the_rest_stays(kept: Kept) -> None:
    old = [kept.job(end=end) for end in ("successful", "failed", "dismissed")]
    kept.root.write("store/groups/a/manifest.json", b"{}")
    kept.now += 30 * DAY
    young, waiting = kept.job(), kept.job(end="open")
    assert {one.job.id for one in find_old(kept.jobs, kept.root, days=29)} == set(old)
    assert kept.files() == {*old, waiting, young}, "looking changes nothing"
    assert list(find_old(kept.jobs, kept.root, days=31)) == []
    gone = list(prune(kept.jobs, kept.root, days=29))
    assert {(one.job.id, one.objects) for one in gone} == {(job_id, 2) for job_id in old}
    assert kept.files() == {waiting, young}
    assert not any((Path(kept.root.address) / job_id).exists() for job_id in old)
    assert {kept.status(job_id) for job_id in old} == {Status.DISMISSED}
    assert (kept.status(young), kept.status(waiting)) == (Status.SUCCESSFUL, Status.ACCEPTED)
    assert kept.root.exists("store/groups/a/manifest.json")
    assert list(prune(kept.jobs, kept.root, days=29)) == [], "once is enough"


def test_what_an_open_job_names_stays(kept: Kept) -> None:
    named, trained, other = kept.job(), kept.job(), kept.job()
    kept.now += 30 * DAY
    kept.job(end="open", inputs={"job": named, "model": f"job:{trained}"})
    assert [one.job.id for one in prune(kept.jobs, kept.root, days=10)] == [other]
    assert {named, trained} <= kept.files()


def test_broken_off_in_the_middle_nothing_is_half_listed(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [kept.job() for _ in range(3)]
    kept.now += 30 * DAY
    with monkeypatch.context() as broken:
        broken.setattr(retention, "_remove", lambda root, name: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            list(prune(kept.jobs, kept.root, days=10))
    for job_id in jobs:
        whole = len(kept.root.list(job_id)) == 2
        assert kept.status(job_id) is Status.DISMISSED or whole
    left = list(prune(kept.jobs, kept.root, days=10))
    assert {one.job.id for one in left} == set(jobs), "it goes on from there"
    assert kept.files() == set()


def test_many_jobs_are_looked_through(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_PAGE", 2)
    jobs = [kept.job() for _ in range(5)]
    kept.now += 30 * DAY
    assert {one.job.id for one in prune(kept.jobs, kept.root, days=10)} == set(jobs)


def test_what_cannot_be_removed_is_told(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = kept.job()
    (Path(kept.root.address) / job_id / "left#1").write_bytes(b"of an interrupted write, which no storage lists")
    kept.now += 30 * DAY

    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as broken:
        broken.setattr("shutil.rmtree", refuse)
        with pytest.raises(StorageError, match="cannot be removed: Permission denied"):
            list(prune(kept.jobs, kept.root, days=10))


def test_the_command(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    kept.now = 1_000.0 * DAY  # long ago
    job_id = kept.job()
    words = ["jobs", "prune", "--out", kept.root.address, "--older", "30"]
    assert main([*words, "--dry-run"]) == 0
    assert f"{job_id}  map  successful  2 files  would go" in capsys.readouterr().out
    assert kept.files() == {job_id}
    assert main(words) == 0
    assert f"{job_id}  map  successful  2 files  gone" in capsys.readouterr().out
    assert kept.files() == set()
    assert main(words) == 0
    assert capsys.readouterr().out == ""
    for nonsense in (["--older", "0.5"], ["--older", "nan"], ["--older", "x"], []):
        assert main(["jobs", "prune", "--out", kept.root.address, *nonsense]) == 2
    assert main(["jobs", "prune", "--out", f"{kept.root.address}/none", "--older", "30"]) == 2
    assert not Path(f"{kept.root.address}/none").exists()
