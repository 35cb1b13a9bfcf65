"""What the documentation names is there, and what it shows runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _named_paths(page: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"`((?:earthmap|tests|jobs|docs|notebooks)/[\w./-]+)`", text)


PAGES = (
    "README.md",
    "docs/architecture.md",
    "docs/client.md",
    "docs/does-staging-matter.md",
    "docs/job.md",
    "docs/questions.md",
    "CHANGELOG.md",
)


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_a_page_names_exists(page: str) -> None:
    assert [path for path in _named_paths(page) if not (ROOT / path).exists()] == []


def test_the_job_file_in_the_documentation_is_understood(tmp_path: Path) -> None:
    from earthmap.pipeline import read_job

    block = re.search(r"```yaml\n(.*?)```", (ROOT / "docs/job.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    path = tmp_path / "job.yaml"
    path.write_text(block[1])
    (tmp_path / "valley.geojson").write_text(
        json.dumps({"type": "Polygon", "coordinates": [[[3, 45], [3.1, 45], [3.1, 45.1], [3, 45]]]})
    )
    job = read_job(path)
    assert [query.task for query in job.queries] == ["segment", "change"]


def test_every_key_of_a_job_is_documented() -> None:
    from earthmap.pipeline.job import JobSpec

    text = (ROOT / "docs/job.md").read_text(encoding="utf-8")
    assert [name for name in JobSpec.model_fields if f"| `{name}` |" not in text] == []


@pytest.fixture(scope="module")
def drawn_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all notebooks are run in: the first draws the scenes, the others find them."""
    return tmp_path_factory.mktemp("notebooks")


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
@pytest.mark.parametrize("notebook", sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb")))
@pytest.mark.filterwarnings("ignore")  # of the notebook client's own threads
def test_the_notebook_runs(notebook: str, drawn_once: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # several processes share the cores, and the model is tiny
    book = nbformat.read(ROOT / "notebooks" / notebook, as_version=4)
    assert all(not cell.get("outputs") for cell in book.cells), "commit notebooks without outputs"
    NotebookClient(book, timeout=240, resources={"metadata": {"path": str(drawn_once)}}).execute()
    shown = [output for cell in book.cells for output in cell.get("outputs", []) if "data" in output]
    assert any("image/png" in output["data"] for output in shown)
