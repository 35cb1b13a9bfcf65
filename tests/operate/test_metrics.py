"""Numbers that Prometheus reads back: names, units, labels that stay few, and what is left after a failed run."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families as parse

from earthmap.errors import JobError, StorageError
from earthmap.operate.metrics import MAX_REASONS, Metrics
from earthmap.pipeline import Progress
from tests.operate.runs import finished

ROWS = [{"status": "answered"}] * 5 + [{"status": "skipped", "reason": "cloud"}] * 2
ROWS += [{"status": "failed", "reason": "timeout"}]


def _values(metrics: Metrics) -> dict[str, float]:
    """Samples by name and labels, as Prometheus' own parser reads them."""
    families: list[Metric] = list(parse(metrics.render().decode()))
    samples = [sample for family in families for sample in family.samples]
    return {
        sample.name + "".join(f"|{name}={sample.labels[name]}" for name in sorted(sample.labels)): sample.value
        for sample in samples
        if not sample.name.endswith("_created")
    }


def _progress(cells: int) -> Progress:
    return Progress(
        cells=cells, tiles=16 * cells, tiles_planned=64, km2=1.0, failed=0, cell_id=f"cell-{cells}", execution=2
    )


def test_a_run_is_counted_and_read_back(tmp_path: Path) -> None:
    metrics = Metrics()
    with metrics.run() as meter:
        meter.report(_progress(1))
        meter.report(_progress(3))
        assert _values(metrics)["earthmap_runs_running"] == 1
        meter.finished(finished(tmp_path, ROWS))
    values = _values(metrics)
    assert values["earthmap_runs_running"] == 0
    assert values["earthmap_runs_total|outcome=finished"] == 1
    assert (values["earthmap_cells_total"], values["earthmap_tiles_total"]) == (3, 48)
    assert values["earthmap_answers_total|reason=|status=answered"] == 5
    assert values["earthmap_answers_total|reason=cloud|status=skipped"] == 2
    assert values["earthmap_answers_total|reason=timeout|status=failed"] == 1
    assert values["earthmap_worker_seconds_total|stage=predict"] == 3.0
    assert values["earthmap_step_seconds_total|step=plan"] == 0.5
    assert values["earthmap_provider_wait_seconds_total"] == 31.5
    assert values["earthmap_groups_total|origin=reused"] == 1
    assert values["earthmap_run_duration_seconds_bucket|le=30.0"] == 1
    assert values["earthmap_run_duration_seconds_bucket|le=10.0"] == 0


def test_two_runs_add_up_and_no_run_tile_or_cell_is_named(tmp_path: Path) -> None:
    metrics = Metrics()
    with metrics.run() as one, metrics.run() as two:
        one.report(_progress(2))
        two.report(_progress(1))
        two.report(_progress(2))
        for number, meter in enumerate((one, two)):
            meter.finished(finished(tmp_path / str(number), ROWS))
    values = _values(metrics)
    assert values["earthmap_cells_total"] == 4
    assert values["earthmap_answers_total|reason=|status=answered"] == 10
    text = metrics.render().decode()
    assert "tile-" not in text
    assert "cell-" not in text
    assert str(tmp_path) not in text


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (JobError("no"), "refused"),
        (StorageError("full"), "failed"),
        (KeyboardInterrupt(), "stopped"),
        (None, "stopped"),
    ],
)
def test_how_a_run_ends(error: BaseException | None, outcome: str) -> None:
    metrics = Metrics()
    with contextlib.suppress(BaseException), metrics.run():
        if error is not None:
            raise error
    values = _values(metrics)
    assert values[f"earthmap_runs_total|outcome={outcome}"] == 1
    assert values["earthmap_runs_running"] == 0


def test_reasons_stay_few_whatever_is_written_there(tmp_path: Path) -> None:
    metrics = Metrics()
    rows = [{"status": "failed", "reason": f"reason_{'abcdefghij'[n % 10]}{'x' * (n // 10)}"} for n in range(200)]
    rows += [{"status": "failed", "reason": 'Weird "reason"\nwith lines'}]
    with metrics.run() as meter:
        meter.finished(finished(tmp_path, rows))
    failed = {name: value for name, value in _values(metrics).items() if name.endswith("status=failed")}
    assert len(failed) == MAX_REASONS + 1
    assert sum(failed.values()) == 201


def test_a_run_of_an_older_version_is_counted(tmp_path: Path) -> None:
    metrics = Metrics()
    run = finished(tmp_path, ROWS)
    (tmp_path / "run.json").write_text('{"seconds": {"total": 3.0}}')
    with metrics.run() as meter:
        meter.finished(run)
    assert _values(metrics)["earthmap_runs_total|outcome=finished"] == 1


def test_registries_are_apart() -> None:
    one, two = Metrics(), Metrics()
    one.cells.inc()
    assert (_values(one)["earthmap_cells_total"], _values(two)["earthmap_cells_total"]) == (1, 0)


def test_a_file_for_node_exporter(tmp_path: Path) -> None:
    metrics = Metrics()
    metrics.write(tmp_path / "earthmap.prom")
    assert (tmp_path / "earthmap.prom").read_bytes() == metrics.render()
    assert [path.name for path in tmp_path.iterdir()] == ["earthmap.prom"]
    with pytest.raises(JobError, match="cannot be written"):
        metrics.write(tmp_path / "no" / "folder.prom")


def test_names_and_units_are_prometheus() -> None:
    for family in parse(Metrics().render().decode()):
        assert family.name.startswith("earthmap_")
        assert family.documentation
        if family.type == "counter":
            assert all(sample.name.endswith(("_total", "_created")) for sample in family.samples)


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(JobError, match="pip install prometheus_client"):
        Metrics()
