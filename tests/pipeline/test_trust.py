"""Every number of a run says how far it can be trusted: intervals from held-out scenes, seen ground, calibration."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from earthmap.model import Card, checkpoint_key, read_card, write_card
from earthmap.model.evidence import Bin, Calibration, Change, SceneErrors
from earthmap.outputs.numbers import headlines, read_numbers
from earthmap.pipeline.demands import Demands
from earthmap.pipeline.job import Job, parse_job
from earthmap.pipeline.trust import HeldOut, calibrations_of, held_out, lacking, with_trust
from earthmap.predict import SpectralPredictor
from earthmap.predict import held_out as files

LINE = {
    "observation": "sentinel-2-l2a_20240504T105031_61142ec1", "sensor": "sentinel-2-l2a", "area_km2": 110.0,
    "datetime_min": "2024-05-04T10:50:31+00:00", "datetime_max": "2024-05-04T10:50:31+00:00", "seen_km2": 100.0,
    "planned": 20, "answered": 18, "skipped": {"cloud": 2}, "failed": {}, "notes": [],
    "km2": {"water": 27.5}, "bounds_km2": {"water": [27.5, 37.5]},
}  # fmt: skip
PRESENCE = {name: value for name, value in LINE.items() if not name.endswith("km2") or name in ("area_km2", "seen_km2")}


def _errors(count: int, *, sensor: str = "sentinel-2-l2a", target: str = "water") -> tuple[SceneErrors, ...]:
    return tuple(
        SceneErrors(
            scene=f"s{place}", sensor=sensor, target=target, hits=800 + place, misses=200 - place,
            false_alarms=500 + place, rejections=4500 - place, data="drawn",
        )
        for place in range(count)
    )  # fmt: skip


def _job(tmp_path: Path, **values: Any) -> Job:
    asked = ["Where is water?", "Is there any water?"]
    return parse_job(
        {"area": [3.0, 45.0, 3.1, 45.1], "catalog": "catalog.json", "out": str(tmp_path / "run"), "queries": asked}
        | {"predictor": "spectral", **values}
    )


def _summary(job: Job, *lines: dict[str, Any]) -> dict[str, Any]:
    queries = [
        {
            "query_key": query.content_key(), "text": query.text, "task": query.task,
            "targets": list(query.targets), "observations": [line],
        }
        for query, line in zip(job.queries, lines, strict=True)
    ]  # fmt: skip
    return {"queries": queries, "planned": 40, "answered": 36, "skipped": {"cloud": 4}, "failed": {}}


def _told(job: Job, **changes: Any) -> list[dict[str, Any]]:
    told = with_trust(_summary(job, LINE | changes, {**PRESENCE, **changes, "yes_tiles": 3}), job)
    return [query["observations"][0] for query in told["queries"]]


# ── the real table ───────────────────────────────────────────────────────────────────────────────────────────


def test_the_table_of_spectral_is_of_these_rules_and_tells_of_too_few_places(tmp_path: Path) -> None:
    table = files.spectral_errors()
    assert table.key == SpectralPredictor().key, "run jobs/evaluate_real.py spectral again"
    by_kind: dict[tuple[str, str], int] = {}
    for one in table.scenes:
        by_kind[one.sensor, one.target] = by_kind.get((one.sensor, one.target), 0) + 1
    assert max(by_kind.values()) < 8, "an interval appears: docs/trust.md says that there is none"
    (water, presence) = _told(_job(tmp_path))
    assert water["model_based"] == {"water": {"reason": "no evidence with the class"}}  # the desert has no water
    assert "model_based" not in presence
    (optical, _) = _told(_job(tmp_path), sensor="sentinel-2-l1c")
    assert optical["model_based"]["water"]["reason"] == "1 held-out scene with the class, of 8 that are needed"
    (thermal, _) = _told(_job(tmp_path), sensor="thermal")
    assert thermal["model_based"]["water"]["reason"].startswith("no evidence for thermal: the error matrices are of")


def test_a_table_of_other_rules_is_no_evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = dataclasses.replace(files.spectral_errors(), key="of older rules")
    monkeypatch.setattr("earthmap.pipeline.trust.spectral_errors", lambda: stale)
    assert "other rules" in _told(_job(tmp_path))[0]["model_based"]["water"]["reason"]


# ── a card's own ─────────────────────────────────────────────────────────────────────────────────────────────

CALIBRATION = Calibration(
    task="presence", sensor=None, temperature=1.4, domain="drawn tiles, somewhere", fitted=200, tested=190, places=90,
    log_loss=Change(before=0.5, after=0.4, low=-0.15, high=-0.05),
    error=Change(before=0.1, after=0.05, low=-0.09, high=0.01),
    before=(Bin(stated=0.9, right=80, answers=100),), after=(Bin(stated=0.82, right=80, answers=100),),
)  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A card, and weights that nobody loads."""
    folder = tmp_path_factory.mktemp("checkpoint")
    (folder / "model.safetensors").write_bytes(b"weights")
    write_card(Card(errors=_errors(9), calibrations=(CALIBRATION,)), folder)
    return folder


def test_a_cards_errors_and_temperatures_reach_the_summary(checkpoint: Path, tmp_path: Path) -> None:
    job = _job(tmp_path, predictor="vlm", model=str(checkpoint), tile_size=128)
    water, presence = _told(job)
    low, high = water["model_based"]["water"]["interval_km2"]
    assert water["model_based"]["water"]["scenes"] == 9
    assert low < water["model_based"]["water"]["km2"] < high < 27.5
    assert presence["probabilities"] == "calibrated on drawn tiles, somewhere"
    assert water["probabilities"] == "not calibrated"
    summary = with_trust(_summary(job, LINE, PRESENCE | {"yes_tiles": 3}), job)
    assert json.loads(json.dumps(summary)) == summary
    assert calibrations_of(summary, job) == [CALIBRATION]
    assert "model_based 90 % water" in headlines(summary)[0]


def test_another_card_is_another_checkpoint_and_no_evidence_for_what_answered(checkpoint: Path, tmp_path: Path) -> None:
    job = _job(tmp_path, predictor="vlm", model=str(checkpoint), tile_size=128)
    assert job.spec.model_key == checkpoint_key(checkpoint)
    card = read_card(checkpoint)
    try:
        write_card(dataclasses.replace(card, calibrations=()), checkpoint)
        assert checkpoint_key(checkpoint) != job.spec.model_key
        assert held_out(job) == HeldOut(name="vlm", why="the checkpoint that answered is not here any more")
    finally:
        write_card(card, checkpoint)


def test_errors_and_temperatures_of_other_prompts_do_not_count() -> None:
    card = Card(errors=_errors(9), calibrations=(CALIBRATION,), prompt_version="0")
    assert card.current_errors == ()
    assert card.calibration("presence", ["sentinel-2-l2a"]) is None


def test_a_sensors_own_temperature_comes_before_that_of_all() -> None:
    own = dataclasses.replace(CALIBRATION, sensor="sentinel-2-l2a+sentinel-1-db", temperature=2.0)
    card = Card(calibrations=(CALIBRATION, own))
    assert card.calibration("presence", ["sentinel-2-l2a", "sentinel-1-db"]) == own
    assert card.calibration("presence", ["sentinel-2-l2a"]) == CALIBRATION
    assert card.calibration("choose", ["sentinel-2-l2a"]) is None
    assert Card(calibrations=(CALIBRATION, own)).unmeasured == Card()


# ── enough evidence ──────────────────────────────────────────────────────────────────────────────────────────


def test_little_seen_is_not_enough_evidence_and_the_numbers_stay(tmp_path: Path) -> None:
    job = _job(tmp_path)
    water, presence = _told(job, seen_km2=30.0, skipped={"cloud": 9, "triage": 2})
    why = "only 27% of the ground was seen, 50% are asked for (tiles passed over: cloud 9, triage 2)"
    assert water["evidence"] == presence["evidence"] == f"not enough evidence: {why}"
    assert (water["km2"], water["bounds_km2"]) == (LINE["km2"], LINE["bounds_km2"])
    summary = with_trust(_summary(job, LINE | {"seen_km2": 30.0}, PRESENCE | {"yes_tiles": 3}), job)
    (row, _) = read_numbers(summary)
    assert row.lacking.startswith("only 27% of the ground was seen")
    assert headlines(summary)[0].split("  ")[1].endswith("27.5 km² of 30.0 km² seen (91.7 %)")
    assert "not enough evidence: only 27%" in headlines(summary)[0]
    assert "not enough evidence" not in headlines(summary)[1]


def test_the_job_says_how_much_is_enough(tmp_path: Path) -> None:
    job = _job(tmp_path, seen=0.95)
    assert _told(job)[0]["evidence"].startswith("not enough evidence: only 91% of the ground was seen, 95%")
    assert _told(_job(tmp_path, seen=0.9))[0]["evidence"] == "enough evidence"
    assert _told(_job(tmp_path, seen=0.0), seen_km2=0.001)[0]["evidence"] == "enough evidence"
    assert _job(tmp_path).content_key() == job.content_key(), "what is asked is the same"


def test_nothing_seen_is_never_enough() -> None:
    line = LINE | {"seen_km2": 0.0, "answered": 0, "skipped": {"nodata": 20}}
    assert lacking(line, Demands(seen=0.0)) == "nothing was seen (tiles passed over: nodata 20)"


def test_what_triage_passed_over_was_seen_only_where_its_audit_bounds_what_is_there() -> None:
    line = LINE | {"seen_km2": 22.0, "planned": 20, "skipped": {"triage": 16}}
    bound = {"skipped_tiles": 16, "skipped_with_target_at_most": 0.02}
    assert lacking(line | {"triage": bound}, Demands()) == ""
    assert lacking(line | {"triage": {**bound, "skipped_with_target_at_most": None}}, Demands()).startswith("only 20%")
    assert lacking(line | {"triage": {**bound, "skipped_tiles": 5}}, Demands()).startswith("only 20%")


@pytest.mark.parametrize(
    ("certainty", "interval", "expected"),
    [
        (0.2, [20.0, 30.0], ""),
        (0.2, [15.0, 36.0], "the interval of water is ± 10.5 km² of 25 km²; at most ± 20% of it, or ± 2%"),
        (0.01, [23.5, 26.5], ""),  # 2 % of the ground, whatever is asked
        (0.2, None, "no interval of water is known (too few), and ± 20% is asked for"),
    ],
)
def test_less_certain_than_asked_is_not_enough(certainty: float, interval: list[float] | None, expected: str) -> None:
    one: dict[str, Any] = {"reason": "too few"} if interval is None else {"km2": 25.0, "interval_km2": interval}
    found = lacking(LINE | {"model_based": {"water": one}}, Demands(certainty=certainty))
    assert found.startswith(expected)
    assert bool(found) == bool(expected)
    assert lacking(LINE | {"model_based": {"water": one}}, Demands()) == ""


def test_what_has_no_interval_is_never_as_certain_as_asked() -> None:
    assert lacking(PRESENCE, Demands(certainty=0.3)).startswith("no interval is known of it without labels")


def test_what_was_not_seen_at_all_is_said_once(tmp_path: Path) -> None:
    job = _job(tmp_path)
    nothing = {"seen_km2": 0.0, "answered": 0, "skipped": {"nodata": 20}}
    lines = headlines(with_trust(_summary(job, LINE | nothing, PRESENCE | nothing | {"yes_tiles": 0}), job))
    where = "2024-05-04, sentinel-2-l2a"
    assert lines[0] == f"Where is water?  {where}: not enough evidence: nothing was seen (tiles passed over: nodata 20)"
