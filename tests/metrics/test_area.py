"""Areas and accuracies from labelled samples: published examples, laws, and that intervals cover the truth."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earthmap.errors import BadRequestError
from earthmap.metrics.area import NOTHING, AreaEstimate, LabelledSample, Stratum, estimate_areas
from earthmap.metrics.sampling import BOUNDARY, StratifiedDraw, boundary_strata

HECTARE_PX = 0.09
"""Of a 30 m pixel."""

# Olofsson et al. 2014, table 8 and section 5.3: map classes in rows, labels in columns.
CLASSES = ("deforestation", "forest gain", "stable forest", "stable non-forest")
MATRIX = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
MAPPED_PX = (200_000, 150_000, 3_200_000, 6_450_000)


def _of_matrix(matrix: np.ndarray, sizes: tuple[int, ...], *, unit: float, classes: tuple[str, ...]) -> LabelledSample:
    """A sample whose strata are the map's classes."""
    strata = tuple(
        Stratum(name=name, area=size * unit, size=size, mapped={name: size * unit})
        for name, size in zip(classes, sizes, strict=True)
    )
    mapped, label = (np.repeat(places, matrix.ravel()) for places in np.indices(matrix.shape).reshape(2, -1))
    counts = matrix.sum(axis=1)
    weight = np.array([sizes[row] * unit / counts[row] for row in mapped])
    return LabelledSample(
        classes=classes, strata=strata, stratum=mapped.astype(np.int64), mapped=mapped.astype(np.int64),
        label=label.astype(np.int64), weight=weight,
    )  # fmt: skip


@pytest.fixture(scope="module")
def olofsson() -> AreaEstimate:
    return estimate_areas(_of_matrix(MATRIX, MAPPED_PX, unit=HECTARE_PX, classes=CLASSES))


def test_the_worked_example_of_olofsson_et_al_2014(olofsson: AreaEstimate) -> None:
    areas = [one.area.value for one in olofsson.classes]
    assert areas == pytest.approx([21_158, 11_686, 285_770, 581_386], abs=0.6)
    margins = [1.96 * (one.area.se or 0) for one in olofsson.classes]
    assert margins == pytest.approx(
        [6_158, 3_756, 15_510, 16_282], abs=1.0
    )  # the finite population moves the last digit
    assert [round(one.users.value, 2) for one in olofsson.classes if one.users] == [0.88, 0.73, 0.93, 0.96]
    assert [round(one.producers.value, 2) for one in olofsson.classes if one.producers] == [0.75, 0.85, 0.93, 0.96]
    assert olofsson.overall is not None
    assert round(olofsson.overall.value, 2) == 0.95
    for kind, margin in (("users", [0.07, 0.10, 0.04, 0.02]), ("producers", [0.21, 0.25, 0.03, 0.02])):
        figures = [getattr(one, kind) for one in olofsson.classes]
        assert [1.96 * figure.se for figure in figures] == pytest.approx(margin, abs=0.0051)


def test_few_errors_in_much_ground_reach_further_up_than_down(olofsson: AreaEstimate) -> None:
    lost = olofsson.classes[0].area
    assert lost.low < lost.value - 2_000
    assert lost.high - lost.value > lost.value - lost.low


def test_the_worked_example_of_stehman_2014() -> None:
    strata, mapped, label = (
        "A" * 10 + "B" * 10 + "C" * 10 + "D" * 10,
        "A" * 7 + "B" * 3 + "A" + "B" * 11 + "C" * 6 + "BB" + "D" * 10,
        "A" * 5 + "CBABCA" + "B" * 5 + "AABB" + "C" * 5 + "DDBBA" + "D" * 7 + "CCB",
    )
    sizes = {"A": 40_000, "B": 30_000, "C": 20_000, "D": 10_000}

    def places(text: str) -> np.ndarray:
        return np.array(["ABCD".index(letter) for letter in text], np.int64)

    found = estimate_areas(
        LabelledSample(
            classes=tuple("ABCD"),
            strata=tuple(
                Stratum(name=name, area=size, size=size * 10**6, mapped=dict.fromkeys("ABCD", size / 4))
                for name, size in sizes.items()
            ),
            stratum=places(strata), mapped=places(mapped), label=places(label), weight=np.ones(40),
        )
    )  # fmt: skip
    a, b, c, _ = found.classes
    assert (a.area.value / 1e5, c.area.value / 1e5) == pytest.approx((0.35, 0.20))
    assert (a.area.se, c.area.se) == pytest.approx((8_200, 6_400), abs=50)
    assert found.overall
    assert (found.overall.value, found.overall.se) == pytest.approx((0.63, 0.085), abs=0.0005)
    assert b.users
    assert (b.users.value, b.users.se) == pytest.approx((0.574, 0.125), abs=0.0005)
    assert b.producers
    assert (b.producers.value, b.producers.se) == pytest.approx((0.794, 0.117), abs=0.0006)


# ── laws ─────────────────────────────────────────────────────────────────────────────────────────────────────

_matrices = st.integers(2, 4).flatmap(
    lambda size: st.lists(st.lists(st.integers(0, 30), min_size=size, max_size=size), min_size=size, max_size=size)
)


def _sample(rows: list[list[int]], unit: float = 100.0) -> LabelledSample:
    matrix = np.array(rows)
    matrix[:, 0] += matrix.sum(axis=1) == 0  # a label in each stratum
    sizes = tuple(int(value) for value in matrix.sum(axis=1) + 1000 * (1 + np.arange(len(matrix))))
    return _of_matrix(matrix, sizes, unit=unit, classes=tuple("abcd"[: len(matrix)]))


@settings(max_examples=25)
@given(_matrices)
def test_classes_add_up_to_all_ground_and_lie_in_their_intervals(rows: list[list[int]]) -> None:
    sample = _sample(rows)
    found = estimate_areas(sample)
    assert sum(one.area.value for one in found.classes) == pytest.approx(found.total)
    assert found.estimated == pytest.approx(found.total)
    for one in found.classes:
        figures = [figure for figure in (one.area, one.users, one.producers) if figure is not None]
        assert all(figure.low <= figure.value + 1e-9 and figure.value <= figure.high + 1e-9 for figure in figures)
        assert one.area.low >= 0
        assert one.area.high <= found.total * (1 + 1e-12)
        assert all(figure.low >= -1e-12 and figure.high <= 1 + 1e-12 for figure in figures[1:])
        assert one.bounds == pytest.approx((one.area.low, one.area.high))


@settings(max_examples=25)
@given(_matrices, st.floats(1e-3, 1e6))
def test_another_unit_of_area_changes_nothing_else(rows: list[list[int]], scale: float) -> None:
    ours, scaled = estimate_areas(_sample(rows)), estimate_areas(_sample(rows, unit=100.0 * scale))
    for one, other in zip(ours.classes, scaled.classes, strict=True):
        assert (other.area.low, other.area.value, other.area.high) == pytest.approx(
            tuple(value * scale for value in (one.area.low, one.area.value, one.area.high)), abs=1e-9 * scale
        )
        assert (one.users is None) == (other.users is None)
        if one.users and other.users:
            assert (other.users.low, other.users.high) == pytest.approx((one.users.low, one.users.high))


@settings(max_examples=25)
@given(_matrices, st.randoms(use_true_random=False))
def test_the_order_of_units_and_strata_means_nothing(rows: list[list[int]], random: object) -> None:
    sample = _sample(rows)
    order = np.random.default_rng(random.randrange(2**32)).permutation(len(sample.label))  # type: ignore[attr-defined]
    turned = np.arange(len(sample.strata))[::-1]
    again = LabelledSample(
        classes=sample.classes, strata=sample.strata[::-1], stratum=turned[sample.stratum[order]],
        mapped=sample.mapped[order], label=sample.label[order], weight=sample.weight[order],
    )  # fmt: skip
    for one, other in zip(estimate_areas(sample).classes, estimate_areas(again).classes, strict=True):
        assert (other.area.low, other.area.value, other.area.high) == pytest.approx(
            (one.area.low, one.area.value, one.area.high), abs=1e-6
        )


def test_a_stratum_that_is_labelled_whole_leaves_no_doubt() -> None:
    matrix = np.array([[7, 3], [1, 4]])
    sample = _of_matrix(matrix, (10, 5), unit=2.0, classes=("a", "b"))
    found = estimate_areas(sample)
    first = found.classes[0].area
    assert (first.low, first.value, first.high, first.se) == pytest.approx((16.0, 16.0, 16.0, 0.0))
    assert found.classes[0].users
    assert found.classes[0].users.low == pytest.approx(0.7)


def test_units_of_unequal_ground_in_a_whole_stratum_count_by_their_ground() -> None:
    sample = LabelledSample(
        classes=("a", "b"), strata=(Stratum(name="s", area=10.0, size=3, mapped={"a": 10.0}),),
        stratum=np.zeros(3, np.int64), mapped=np.zeros(3, np.int64), label=np.array([0, 1, 0]),
        weight=np.array([1.0, 6.0, 3.0]),
    )  # fmt: skip
    found = estimate_areas(sample)
    assert (found.classes[0].area.value, found.classes[0].area.high) == pytest.approx((4.0, 4.0))


def test_a_perfect_map_gives_the_mapped_areas_and_an_interval_that_shrinks_with_labels() -> None:
    widths = []
    for count in (50, 200, 800):
        found = estimate_areas(_of_matrix(np.diag([count, count]), (10_000, 90_000), unit=1.0, classes=("a", "b")))
        first = found.classes[0]
        assert first.area.value == first.mapped == 10_000
        assert found.overall
        assert found.overall.value == 1.0
        assert found.overall.high == 1.0
        widths.append(first.area.high - first.area.low)
    assert widths[0] > 3 * widths[1] > 9 * widths[2] > 0


# ── what is missing ──────────────────────────────────────────────────────────────────────────────────────────


def _with(labels: list[list[int]], *, strata: tuple[Stratum, ...]) -> AreaEstimate:
    """An estimate of two classes from the labels of each stratum; the first two strata are the mapped classes."""
    stratum = np.concatenate([np.full(len(own), place) for place, own in enumerate(labels)]).astype(np.int64)
    label = np.array([value for own in labels for value in own], np.int64)
    return estimate_areas(
        LabelledSample(
            classes=("a", "b"), strata=strata, stratum=stratum, label=label, weight=np.ones(len(label)),
            mapped=np.where(stratum < 2, stratum, NOTHING),
        )
    )  # fmt: skip


A = Stratum(name="a", area=100.0, size=1000, mapped={"a": 100.0})
B = Stratum(name="b", area=300.0, size=3000, mapped={"b": 300.0})
SKIPPED = Stratum(name="skipped", area=50.0, size=500)


def test_a_stratum_without_labels_is_named_and_only_in_the_bounds() -> None:
    found = _with([[0] * 20, []], strata=(A, B))
    assert (found.total, found.estimated) == (400.0, 100.0)
    first = found.classes[0]
    assert first.area.value == 100.0
    assert first.bounds == pytest.approx((first.area.low, first.area.high + 300.0))
    assert any("stratum b has no label" in note for note in found.notes)


def test_one_label_gives_no_standard_error_and_a_wide_interval() -> None:
    found = _with([[0], [1] * 50], strata=(A, B))
    first = found.classes[0].area
    assert first.se is None
    assert first.high - first.low > 50.0
    assert any("stratum a has one label" in note for note in found.notes)


def test_cannot_tell_is_counted_and_bounded() -> None:
    found = _with([[0] * 8 + [NOTHING] * 2, [1] * 10], strata=(A, B))
    assert found.classes[0].area.value == pytest.approx(100.0)
    assert found.classes[0].undecided == pytest.approx((80.0, 100.0))
    assert found.classes[1].undecided == pytest.approx((300.0, 320.0))
    assert [one.cannot_tell for one in found.strata] == [2, 0]
    assert any("2 labels say `cannot tell`" in note for note in found.notes)


def test_ground_that_was_not_mapped_is_in_the_areas_and_in_no_accuracy() -> None:
    found = _with([[0] * 50, [1] * 50, [0] * 25 + [1] * 25], strata=(A, B, SKIPPED))
    assert found.classes[0].area.value == pytest.approx(125.0)
    assert found.overall
    assert found.overall.value == 1.0
    assert found.classes[0].producers
    assert found.classes[0].producers.value == 1.0
    assert found.constant == ("b", 0.75)
    alone = _with([[], [], [0] * 10], strata=(A, B, SKIPPED))
    assert alone.overall is None
    assert alone.constant is None
    assert alone.classes[0].users is None


def test_nothing_that_tells_a_class_is_refused() -> None:
    with pytest.raises(BadRequestError, match="no unit has a label"):
        _with([[NOTHING], []], strata=(A, B))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"label": np.array([5])}, "label"),
        ({"stratum": np.array([-1])}, "stratum"),
        ({"weight": np.array([0.0])}, "weight"),
    ],
)
def test_columns_that_mean_nothing_are_refused(change: dict[str, np.ndarray], what: str) -> None:
    columns = {"stratum": np.array([0]), "mapped": np.array([0]), "label": np.array([0]), "weight": np.ones(1)}
    with pytest.raises(BadRequestError, match=what):
        LabelledSample(classes=("a", "b"), strata=(A, B), **(columns | change))


# ── coverage ─────────────────────────────────────────────────────────────────────────────────────────────────

SIDE_PX = 128


def _smooth(random: np.random.Generator, width_px: int) -> np.ndarray:
    from scipy.ndimage import uniform_filter

    field = random.standard_normal((SIDE_PX, SIDE_PX))
    for _ in range(2):
        field = uniform_filter(field, width_px, mode="wrap")
    scaled: np.ndarray = field / field.std()
    return scaled


def _world(random: np.random.Generator, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """A true field of classes and a biased map of it, with errors at borders and a few anywhere."""
    truth_field = _smooth(random, int(random.integers(6, 30)))
    shares = np.maximum(random.dirichlet(np.full(classes, random.choice([0.5, 2.0, 5.0]))), 0.01)
    borders = np.quantile(truth_field, np.cumsum(np.sort(shares / shares.sum())[::-1])[:-1])
    truth = np.digitize(truth_field, borders)
    blurred = truth_field + random.uniform(0, 0.4) * _smooth(random, 3) + random.choice([-0.3, 0.3])
    mapped = np.digitize(blurred, borders)
    anywhere = random.random(truth.shape) < random.uniform(0, 0.02, classes)[truth]
    mapped[anywhere] = random.integers(0, classes, int(anywhere.sum()))
    return truth.astype(np.uint8), mapped.astype(np.uint8)


def _drawn(truth: np.ndarray, mapped: np.ndarray, area: np.ndarray, *, classes: int, seed: int) -> AreaEstimate:
    """A sample of 300 pixels of the map, labelled with the truth."""
    draw = StratifiedDraw(total=300, seed=seed)
    draw.add("world", boundary_strata(mapped), mapped, area)
    units, numbers = draw.finish(), sorted(draw.sizes)
    names = tuple(f"class {code}" for code in range(classes))
    strata = tuple(
        Stratum(
            name="boundary" if number == BOUNDARY else names[number], area=draw.areas[number], size=draw.sizes[number],
            mapped={names[code]: value for code, value in draw.mapped[number].items()},
        )
        for number in numbers
    )  # fmt: skip
    return estimate_areas(
        LabelledSample(
            classes=names, strata=strata, stratum=np.array([numbers.index(one.stratum) for one in units]),
            mapped=np.array([one.mapped for one in units]),
            label=np.array([truth[one.row, one.column] for one in units], np.int64),
            weight=np.array([one.area_m2 / one.inclusion for one in units]),
        )
    )  # fmt: skip


def _worlds(classes: int) -> Iterator[tuple[AreaEstimate, np.ndarray, np.ndarray, np.ndarray]]:
    """The estimate, the truth, the map and the ground of each pixel in 200 worlds."""
    random = np.random.default_rng(classes)
    area = 100.0 * np.linspace(0.99, 1.01, SIDE_PX)[:, None] * np.ones(SIDE_PX)
    for seed in range(200):
        truth, mapped = _world(random, classes)
        yield _drawn(truth, mapped, area, classes=classes, seed=seed), truth, mapped, area


@pytest.mark.parametrize("classes", [2, 4])
def test_95_percent_intervals_cover_the_truth_of_200_worlds_with_a_biased_map(classes: int) -> None:
    rarest, right, off = [], [], []
    for found, truth, mapped, area in _worlds(classes):
        last = found.classes[-1].area
        rarest.append(last.low <= area[truth == classes - 1].sum() <= last.high)
        off.append(abs(area[mapped == classes - 1].sum() / area[truth == classes - 1].sum() - 1))
        assert found.overall is not None
        right.append(found.overall.low <= area[truth == mapped].sum() / area.sum() <= found.overall.high)
    assert 0.92 <= np.mean(rarest) <= 0.98
    assert np.mean(right) >= 0.92
    assert np.median(off) > 0.25  # how far the map itself is from the true area
