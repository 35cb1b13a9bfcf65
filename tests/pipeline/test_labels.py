"""Labels that come back: read from what people save, checked, and told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import geopandas
import pytest
import shapely

from earthmap.errors import BadRequestError, StorageError
from earthmap.metrics.area import Stratum
from earthmap.pipeline.area_estimate import assess
from earthmap.pipeline.count_estimate import assess_counts
from earthmap.pipeline.demands import ENOUGH, Demands
from earthmap.pipeline.design import CANNOT_TELL, Design, Unit, read_design
from earthmap.pipeline.labels import Labels, labelled_sample, read_labels
from earthmap.storage import Storage


def _unit(number: int, stratum: str, mapped: str) -> Unit:
    return Unit(
        id=f"00ab12cd-{number:04d}", stratum=stratum, mapped=mapped, area_m2=100.0, inclusion=0.01, cell_id="c",
        tile_id="t", row=number, column=0, lon=3.0, lat=45.0, date="2024-05-01",
    )  # fmt: skip


def _design(*, unseen: float = 0.0, skipped: bool = False) -> Design:
    """Fifty units of water, fifty of none, and if `skipped` ten that nobody mapped, of a km² or nine each."""
    strata = [
        Stratum(name="none", area=9e6, size=90_000, mapped={"none": 9e6}),
        Stratum(name="water", area=1e6, size=10_000, mapped={"water": 1e6}),
    ]
    units = [_unit(number, "none", "none") for number in range(50)]
    units += [_unit(number, "water", "water") for number in range(50, 100)]
    if skipped:
        strata.append(Stratum(name="skipped", area=1e6, size=10_000))
        units += [_unit(number, "skipped", "") for number in range(100, 110)]
    return Design(
        key="00ab12cd", question=1, text="Where is water?", query_key="q", observation="o", dates=("2024-05-01T10:50",),
        seed=0, classes=("none", "water"), files={"classes/1.tif": "abc"}, strata=tuple(strata), units=tuple(units),
        unsampled=(Stratum(name="unseen", area=unseen, size=10),) if unseen else (),
    )  # fmt: skip


def _labels(design: Design, **changes: str) -> Labels:
    """What the map says as labels, with changes by the number of a unit (`n7`); an empty one is none."""
    by_unit = {unit.id: unit.mapped or "none" for unit in design.units}
    by_unit |= {f"{design.key}-{int(name[1:]):04d}": label for name, label in changes.items()}
    told = {name: label for name, label in by_unit.items() if label}
    return Labels(key=design.key, by_unit=told, empty=len(by_unit) - len(told))


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────


def _saved(folder: Path, kind: str, ids: list[str], labels: list[str | None]) -> str:
    frame = geopandas.GeoDataFrame(
        {"id": ids, "label": labels, "more": 1}, geometry=[shapely.box(0, 0, 1, 1)] * len(ids), crs="EPSG:4326"
    )
    path = folder / f"labels.{kind}"
    if kind in ("csv", "tsv"):
        frame.drop(columns="geometry").to_csv(path, index=False, sep="\t" if kind == "tsv" else ";")
    elif kind == "gpkg":
        frame.to_file(path, layer="sample")
        frame.assign(label="water").to_file(path, layer="design")
    else:
        frame.to_file(path, driver="GeoJSON")
    return str(path)


@pytest.mark.parametrize("kind", ["gpkg", "geojson", "csv", "tsv"])
def test_labels_are_read_from_what_people_save(kind: str, tmp_path: Path) -> None:
    path = _saved(tmp_path, kind, ["ab-1", "ab-2", "ab-3"], ["water", None, "  Cannot  tell "])
    assert read_labels(path) == Labels(key="ab", by_unit={"ab-1": "water", "ab-3": "Cannot tell"}, empty=1)


@pytest.mark.parametrize(
    ("ids", "what"),
    [
        (["ab-1", "ab-1"], "ab-1 more than once"),
        (["ab-1", ""], "1 rows without an id"),
        (["ab-1", "cd-1"], "ids of 2 samples"),
        (["1", "2"], "no rows of a sample"),
        ([], "no rows of a sample"),
    ],
)
def test_ids_that_cannot_be_matched_are_refused(ids: list[str], what: str, tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match=what):
        read_labels(_saved(tmp_path, "csv", ids, ["water"] * len(ids)))


@pytest.mark.parametrize("content", [b"", b"\x00\xff\x00\x01", b"name;label\na;water\n", b"{]"])
@pytest.mark.parametrize("name", ["labels.csv", "labels.gpkg", "labels.geojson"])
def test_files_that_are_no_labels_are_refused(content: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadRequestError, match="labels"):
        read_labels(str(tmp_path / name))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match="there is no file"):
        read_labels(str(tmp_path / "nothing.gpkg"))


# ── against the sample ───────────────────────────────────────────────────────────────────────────────────────


def test_labels_are_matched_by_id_whatever_their_case_and_order() -> None:
    design = _design()
    sample = labelled_sample(design, _labels(design, n0="WATER", n1="Cannot_Tell", n2=""))
    assert len(sample.label) == 99
    assert sample.label[:2].tolist() == [1, -1]
    assert sample.weight.tolist() == [10_000.0] * 99


@pytest.mark.parametrize(
    ("changes", "what"),
    [({"n3": "lava"}, "labels that there are not: lava"), ({"n777": "water"}, "no unit 00ab12cd-0777")],
)
def test_labels_that_are_not_of_the_sample_are_refused(changes: dict[str, str], what: str) -> None:
    design = _design()
    with pytest.raises(BadRequestError, match=what):
        labelled_sample(design, _labels(design, **changes))


def test_labels_that_tell_nothing_are_refused() -> None:
    design = _design()
    with pytest.raises(BadRequestError, match="tells a class"):
        labelled_sample(design, Labels(key=design.key, by_unit={design.units[0].id: CANNOT_TELL}, empty=99))


def test_a_design_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    storage, design = Storage(tmp_path), _design(unseen=1e5)
    design.write(storage)
    assert read_design(storage, design.key) == design
    with pytest.raises(
        BadRequestError, match="no sample 'ffffffff'; expected labels of a sample of this run: 00ab12cd"
    ):
        read_design(storage, "ffffffff")
    storage.write("samples/00ab12cd/design.json", b'{"format": 1}')
    with pytest.raises(StorageError, match="damaged"):
        read_design(storage, design.key)


# ── what is told ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_estimate_corrects_the_map_and_stands_beside_a_constant() -> None:
    design = _design()
    told = assess(design, _labels(design, n0="water", n50="none", n51=CANNOT_TELL), demands=Demands()).to_dict()
    none, water = told["classes"]
    assert water["mapped_km2"] == 1.0
    assert water["km2"] == pytest.approx(9 / 50 + 48 / 49, abs=1e-6)
    assert water["interval_km2"][0] < water["km2"] < water["interval_km2"][1]
    assert none["km2"] + water["km2"] == pytest.approx(10.0)
    assert told["constant"] == {"answer": "none", "overall_accuracy": pytest.approx(none["km2"] / 10, abs=1e-4)}
    assert told["overall_accuracy"]["value"] == pytest.approx((49 * 9 / 50 + 48 / 49) / 10, abs=1e-4)
    assert told["strata"][1] == {
        "name": "water", "km2": 1.0, "pixels": 10_000, "drawn": 50, "labelled": 49, "cannot_tell": 1,
    }  # fmt: skip
    assert json.loads(json.dumps(told)) == told


def test_unseen_ground_and_strata_without_labels_are_in_the_bounds_alone() -> None:
    design = _design(unseen=2e6, skipped=True)
    trust = assess(design, _labels(design, **{f"n{number}": "" for number in range(100, 110)}), demands=Demands())
    told = trust.to_dict()
    water = told["classes"][1]
    assert (told["area_km2"], told["estimated_km2"], told["unseen_km2"]) == (13.0, 10.0, 2.0)
    assert water["bounds_km2"] == pytest.approx([water["interval_km2"][0], water["interval_km2"][1] + 3.0])
    assert any("skipped has no label" in note for note in told["notes"])
    assert any("3.000 of 13.000 km² have no estimate" in line for line in trust.lines())


def test_too_little_is_not_enough_evidence_with_the_reason() -> None:
    design = _design(unseen=15e6)
    little = assess(design, _labels(design), demands=Demands())
    assert "only 40% of the ground" in little.answers["water"]
    assert "not enough evidence for water: only 40%" in "\n".join(little.lines())
    assert little.to_dict()["classes"][1]["answer"].startswith("not enough evidence: only 40%")
    few = Labels(key=design.key, by_unit={design.units[0].id: "none", design.units[60].id: "water"}, empty=98)
    assert "the interval is ±" in assess(_design(), few, demands=Demands()).answers["water"]
    assert set(assess(_design(), _labels(design), demands=Demands()).answers.values()) == {ENOUGH}


@pytest.mark.parametrize(("certainty", "seen"), [(0.0, 0.5), (0.5, 1.5), (float("nan"), 0.5), (0.5, -0.1)])
def test_demands_that_mean_nothing_are_refused(certainty: float, seen: float) -> None:
    with pytest.raises(BadRequestError, match="a certainty of"):
        Demands(certainty=certainty, seen=seen)


# ── counts ───────────────────────────────────────────────────────────────────────────────────────────────────


def _counted_design() -> Design:
    """Of 100 tiles without finds twenty were drawn, of ten with two finds each all."""
    strata = (Stratum(name="none found", area=9e6, size=100), Stratum(name="few found", area=1e6, size=10))
    units = [replace(_unit(number, "none found", ""), found=0) for number in range(20)]
    units += [replace(_unit(number, "few found", ""), found=2) for number in range(20, 30)]
    found = {"none found": 0, "few found": 20, "unseen": 0}
    return replace(
        _design(unseen=1e6),
        classes=(),
        strata=strata,
        units=tuple(units),
        found=found,
        text="How many ships are there?",
    )


def _counts(design: Design, **changes: str) -> Labels:
    by_unit = {unit.id: str(unit.found) for unit in design.units}
    by_unit |= {f"{design.key}-{int(name[1:]):04d}": label for name, label in changes.items()}
    return Labels(key=design.key, by_unit=by_unit, empty=0)


def test_counts_correct_what_was_found_and_stand_beside_a_constant() -> None:
    design = _counted_design()
    assert design.counts
    trust = assess_counts(design, _counts(design, n0="1", n20="3.0", n21=CANNOT_TELL), demands=Demands())
    told = trust.to_dict()
    assert told["found"] == 20
    assert told["count"] == pytest.approx(20 + 100 / 20 + 10 / 9, abs=0.01)
    assert told["interval_count"][0] < told["count"] < told["interval_count"][1]
    assert told["error_per_tile"] == pytest.approx((100 / 20 + 10 / 9) / 110, abs=1e-4)
    assert told["constant"]["answer"] == 0.0
    assert told["constant"]["error_per_tile"] == pytest.approx((100 / 20 + 10 / 9 * 19) / 110, abs=1e-4)
    assert (told["area_km2"], told["estimated_km2"]) == (11.0, 10.0)
    assert any("1 tiles say `cannot tell`" in note for note in told["notes"])
    assert any("10 tiles (1.000 km²) were not seen" in note for note in told["notes"])
    assert json.loads(json.dumps(told)) == told
    assert "found 20; there are 26.1" in "\n".join(trust.lines())


def test_counts_that_are_too_few_are_not_enough_evidence() -> None:
    design = _counted_design()
    some = {unit.id: str(unit.found) for unit in design.units[19:]}  # one tile of those without finds
    few = assess_counts(design, Labels(key=design.key, by_unit=some, empty=19), demands=Demands())
    assert few.left_out == ("none found",)
    assert "only 9% of the ground" in few.answer
    assert any("none found has too few counts" in line for line in few.lines())
    wide = assess_counts(design, _counts(design, n0="40"), demands=Demands())
    assert "the interval is ±" in wide.answer
    assert assess_counts(design, _counts(design), demands=Demands()).answer == ENOUGH
    with pytest.raises(BadRequestError, match="no stratum has two counts"):
        assess_counts(design, Labels(key=design.key, by_unit={design.units[0].id: "1"}, empty=29), demands=Demands())


@pytest.mark.parametrize("label", ["many", "-1", "1.5", "1e3", "²", "99999999999"])
def test_labels_that_are_no_counts_are_refused(label: str) -> None:
    design = _counted_design()
    with pytest.raises(BadRequestError, match="no counts"):
        assess_counts(design, _counts(design, n3=label), demands=Demands())
    with pytest.raises(BadRequestError, match="no unit has a count"):
        assess_counts(
            design, Labels(key=design.key, by_unit={design.units[0].id: CANNOT_TELL}, empty=29), demands=Demands()
        )
