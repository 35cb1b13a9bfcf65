"""Groups and what they are worth, against what the definitions say."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap.errors import BadRequestError
from earthmap.metrics.clustering import FITTED, adjusted_rand, kmeans, shuffled, silhouette
from earthmap.metrics.likeness import chance, precision_at

groupings = st.lists(st.integers(0, 3), min_size=2, max_size=30).map(np.array)


def blobs(count: int, *, apart: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    dice = np.random.default_rng(seed)
    kinds = dice.integers(0, 3, count)
    return (np.eye(3)[kinds] * apart + dice.normal(0.0, 0.1, (count, 3))).astype(np.float32), kinds


def test_far_groups_are_found_and_numbered_by_size() -> None:
    vectors, kinds = blobs(300, apart=3.0)
    found = kmeans(vectors, 3)
    assert adjusted_rand(found.labels, kinds) == 1.0
    assert np.bincount(found.labels).tolist() == sorted(np.bincount(kinds).tolist(), reverse=True)
    within = sum(((vectors[kinds == kind] - vectors[kinds == kind].mean(axis=0)) ** 2).sum() for kind in range(3))
    assert found.explained == pytest.approx(1 - within / ((vectors - vectors.mean(axis=0)) ** 2).sum(), abs=1e-6)


def test_the_same_seed_gives_the_same_groups_and_a_group_is_never_empty() -> None:
    vectors, _ = blobs(60, apart=1.0, seed=4)
    copies = np.concatenate([vectors[:5]] * 8)  # many copies: first centres may fall on the same place
    for data, k in ((vectors, 7), (copies, 5)):
        one, other = kmeans(data, k, seed=3), kmeans(data, k, seed=3)
        np.testing.assert_array_equal(one.labels, other.labels)
        assert np.bincount(one.labels, minlength=k).min() > 0


def test_more_vectors_than_are_fitted_join_the_nearest() -> None:
    vectors, kinds = blobs(FITTED + 5_000, apart=3.0)
    assert adjusted_rand(kmeans(vectors, 3, starts=2).labels, kinds) == 1.0


@pytest.mark.parametrize(("count", "k", "says"), [(4, 1, "1 clusters"), (4, 5, "different vectors"), (1, 2, "2 cl")])
def test_too_few_are_refused(count: int, k: int, says: str) -> None:
    with pytest.raises(BadRequestError, match=says):
        kmeans(blobs(count, apart=1.0)[0], k)


def test_shuffled_numbers_keep_their_spread_and_lose_their_company() -> None:
    vectors, kinds = blobs(400, apart=3.0)
    mixed = shuffled(vectors)
    np.testing.assert_array_equal(np.sort(mixed, axis=0), np.sort(vectors, axis=0))
    assert abs(adjusted_rand(kmeans(mixed, 3).labels, kinds)) < 0.1


def test_silhouette_is_rousseeuws() -> None:
    vectors, _ = blobs(25, apart=0.3)
    labels = kmeans(vectors, 4).labels
    apart = np.linalg.norm(vectors[:, None].astype(float) - vectors[None], axis=2)
    each = []
    for i, own in enumerate(labels):
        if (labels == own).sum() == 1:
            each.append(0.0)
            continue
        a = apart[i][(labels == own) & (np.arange(25) != i)].mean()
        b = min(apart[i][labels == other].mean() for other in set(labels.tolist()) - {own})
        each.append((b - a) / max(a, b))
    assert silhouette(vectors, labels) == pytest.approx(np.mean(each), abs=1e-6)
    assert np.isnan(silhouette(vectors, np.zeros(25, int)))


@given(groupings, st.randoms())
def test_agreement_does_not_depend_on_names_and_order(labels: np.ndarray, dice: object) -> None:
    other = np.random.default_rng(len(labels)).integers(0, 3, len(labels))
    turned = np.random.default_rng(1).permutation(len(labels))
    plain = adjusted_rand(labels, other)
    assert adjusted_rand(labels, labels) == 1.0
    assert adjusted_rand(7 - labels, other) == pytest.approx(plain)
    assert adjusted_rand(labels[turned], other[turned]) == pytest.approx(plain)
    assert adjusted_rand(other, labels) == pytest.approx(plain)


def test_agreement_is_that_of_pairs() -> None:
    one, other = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 1, 1])
    pairs = list(itertools.combinations(range(6), 2))
    both = sum(one[a] == one[b] and other[a] == other[b] for a, b in pairs)
    first, second = (sum(each[a] == each[b] for a, b in pairs) for each in (one, other))
    expected = first * second / len(pairs)
    assert adjusted_rand(one, other) == pytest.approx((both - expected) / ((first + second) / 2 - expected))


def test_precision_counts_the_own_kind_among_the_nearest() -> None:
    vectors, kinds = blobs(90, apart=3.0)
    assert precision_at(vectors, kinds, 10).mean() == 1.0
    random = precision_at(np.random.default_rng(0).normal(size=(90, 3)), kinds, 10).mean()
    assert random == pytest.approx(chance(kinds), abs=0.06)
