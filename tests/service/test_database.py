"""The database of the service: who may read it, what is refused, several processes that make it at once."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from earthmap.errors import JobError, StorageError
from earthmap.service.database import JOBS, open_database

_OPEN = "import sys; from earthmap.service.database import open_database; open_database(sys.argv[1]).close()"


def test_only_its_owner_may_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state.sqlite"
    open_database(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_processes_that_make_it_at_once_make_it_once(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    makers = [subprocess.Popen([sys.executable, "-c", _OPEN, str(path)], stderr=subprocess.PIPE) for _ in range(4)]
    told = [maker.communicate(timeout=120)[1] for maker in makers]
    assert [maker.returncode for maker in makers] == [0] * 4, told
    database = open_database(path)
    with database.read() as connection:
        assert connection.execute(sa.text("select version from earthmap_schema")).all() == [(1,)]
    database.close()


def test_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    database = open_database(path)
    with database.write() as connection:
        connection.execute(sa.text("update earthmap_schema set version = 99"))
    database.close()
    with pytest.raises(StorageError, match="version 99, this earthmap of 1"):
        open_database(path)


@pytest.mark.parametrize("address", ["mysql://u:geheim@h/d", "sqlite://", "sqlite:///:memory:", "nothing://geheim", ""])
def test_what_names_no_database_is_refused_without_its_password(address: str) -> None:
    with pytest.raises(JobError) as caught:
        open_database(address)
    assert "geheim" not in str(caught.value)
    assert "expected" in str(caught.value)


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are notes, " * 100)
    with pytest.raises(StorageError, match="not a database"):
        open_database(path)
    with pytest.raises(StorageError, match="cannot be made"):
        open_database(path / "below")


def test_a_block_that_raises_leaves_nothing(tmp_path: Path) -> None:
    database = open_database(tmp_path / "state.sqlite")
    row = {"id": "1", "process": "map", "inputs": "{}", "limits": "{}", "owner": "a", "status": "accepted"}

    def write_and_fall() -> None:
        with database.write() as connection:
            connection.execute(JOBS.insert().values(**row, progress=0, created=0.0, updated=0.0, attempts=0))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fall()
    with database.read() as connection:
        assert connection.execute(sa.select(JOBS)).all() == []
    database.close()
