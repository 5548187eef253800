"""The nearest by tiles: the same as by whole rows, on the cases that could tell them apart."""

import numpy as np
import pytest

from kinfold import distances
from kinfold.metrics import nearest, neighbours, product, retrieval_metrics
from kinfold.metrics.copies import Copies
from kinfold.metrics.shortlists import Shortlists, TooManyTiesError

EVERY = ("recall@1", "recall@10", "map@r", "mrr", "mrr@2", "ndcg@5", "precision@3", "r_precision")
EVERY += ("queries_without_match",)
DISTANCES = ("cosine", "euclidean", "squared_euclidean", "inner_product")


def plain(rng, n):
    return rng.normal(size=(n, 16))


def copies(rng, n):
    x = plain(rng, n)
    x[100:160] = x[200:260]
    x[5:9] = x[4]
    return x


def far(rng, n):
    return 100 + 0.01 * plain(rng, n)


def whole_numbers(rng, n):
    return 1 + np.abs(np.rint(plain(rng, n)))


def near(rng, n):
    """Groups whose members are nearer than a product can tell."""
    return np.repeat(plain(rng, n // 10), 10, axis=0) + 1e-4 * plain(rng, n)


@pytest.fixture(params=(True, False), ids=("own", "gallery"))
def own(request):
    return request.param


@pytest.mark.parametrize("case", [plain, copies, far, whole_numbers, near])
@pytest.mark.parametrize("distance", DISTANCES)
def test_the_same_as_by_whole_rows(monkeypatch, distance, case, own):
    monkeypatch.setattr(nearest, "_ROWS", 128)
    monkeypatch.setattr(nearest, "_COLUMNS", 256)
    rng = np.random.default_rng(0)
    x = case(rng, 600).astype(np.float32)
    gallery = None if own else np.concatenate([case(rng, 700), x[:40]]).astype(np.float32)
    y = rng.integers(0, 90, 600)
    z = None if own else rng.integers(0, 90, 740)
    found = []
    for small in (1, 1 << 60):
        monkeypatch.setattr(nearest, "SMALL", small)
        found.append(
            (neighbours(x, 10, gallery, distance),
             retrieval_metrics(x, y, gallery, z, EVERY, distance))
        )  # fmt: skip
    (tiles, scores), (rows, expected) = found
    largest = float(np.abs(rows[1]).max())
    np.testing.assert_allclose(tiles[1], rows[1], rtol=2e-6, atol=2e-6 * largest)
    if case not in (far, near) or distance != "inner_product":  # which differ by less than rounding
        assert np.mean(tiles[0] == rows[0]) > 0.99
        assert scores == pytest.approx(expected, abs=2e-4)


def test_against_a_full_sort_in_float64(monkeypatch, own):
    monkeypatch.setattr(nearest, "SMALL", 1)
    rng = np.random.default_rng(1)
    x = plain(rng, 500).astype(np.float32)
    r = x if own else plain(rng, 300).astype(np.float32)
    squares = np.sum((x[:, None].astype(np.float64) - r) ** 2, axis=-1)
    if own:
        np.fill_diagonal(squares, np.inf)
    items, values = neighbours(x, 7, None if own else r, "squared_euclidean")
    assert (items == np.argsort(squares, axis=1)[:, :7]).all()
    np.testing.assert_allclose(values, np.sort(squares, axis=1)[:, :7], rtol=1e-5)


def test_rows_that_tie_too_often_are_ranked_whole(monkeypatch):
    monkeypatch.setattr(nearest, "SMALL", 1)
    x = np.repeat(np.eye(4, dtype=np.float32), 200, axis=0)
    items, values = neighbours(x, 3)
    assert items[0].tolist() == [1, 2, 3]
    assert (values == 0).all()
    scores = retrieval_metrics(np.ones((50, 2)), np.arange(50) // 2, metrics=["recall@1"])
    assert scores["recall@1"] == pytest.approx(1 / 49)


def test_memory_of_a_large_set_is_bounded(monkeypatch):
    sizes = []

    class Watched(product.InTurn):
        def of(self, x, r):
            tile = super().of(x, r)
            sizes.append(tile.size)
            return tile

    monkeypatch.setattr(nearest.product, "InTurn", Watched)
    monkeypatch.setattr(nearest, "SMALL", 1)
    monkeypatch.setattr(nearest, "_ROWS", 100)
    neighbours(np.random.default_rng(0).normal(size=(1000, 4)), 3)
    assert len(sizes) == 55  # the upper half of 10 x 10
    assert max(sizes) == 100 * 100


@pytest.mark.once
def test_a_product_stays_until_the_one_after_the_next():
    x, r = (
        np.random.default_rng(i).normal(size=(n, 4)).astype("float32") for i, n in enumerate((5, 7))
    )
    products = product.InTurn()
    first = products.of(x, r)
    kept = first.copy()
    second = products.of(r, x[:3])
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_allclose(second, r @ x[:3].T, rtol=1e-6)
    products.of(x, r)
    np.testing.assert_array_equal(second.shape, (7, 3))


@pytest.mark.once
def test_shortlists_keep_the_best_and_their_ties():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 40, (20, 900)).astype(np.float32)
    lists = Shortlists(20, 5, np.full(20, np.inf, np.float32))
    with pytest.raises(TooManyTiesError):
        lists.offer(scores, 0, 0)
    scores += rng.normal(size=scores.shape).astype(np.float32)
    lists = Shortlists(20, 5, np.full(20, np.inf, np.float32))
    other = Shortlists(20, 5, np.full(20, np.inf, np.float32))
    for start in range(0, 900, 100):
        lists.offer(scores[:, start : start + 100], 0, start)
        other.offer_transposed(np.ascontiguousarray(scores[:, start : start + 100].T), 0, start)
    for found in (lists, other):
        found.tighten()
        assert (found.counts == 5).all()
        assert (found.items[:, :5] == np.argsort(-scores, axis=1)[:, :5]).all()


@pytest.mark.once
def test_equal_rows_are_found():
    rows = np.array([[1, 2], [0.0, 3], [1, 2], [-0.0, 3], [5, 5]], np.float32)
    found = Copies.of(rows)
    assert found.different.tolist() == [[1, 2], [0, 3], [5, 5]]
    assert found.which.tolist() == [0, 1, 0, 1, 2]
    assert found.most == 2


@pytest.mark.once
def test_rows_with_one_checksum_are_still_told_apart(monkeypatch):
    from kinfold.metrics import copies

    monkeypatch.setattr(copies, "_checksums", lambda rows: np.zeros(len(rows), np.uint64))
    rows = np.array([[1, 2], [3, 4], [1, 2]], np.float32)
    assert Copies.of(rows).which.tolist() == [0, 1, 0]


@pytest.mark.once
@pytest.mark.parametrize("width", [1, 63, 64, 65, 200])
def test_equal_rows_are_found_by_all_their_columns(width):
    rng = np.random.default_rng(width)
    r = rng.integers(0, 2, (40, width)).astype("float32")
    r[10:20] = r[:10]
    r[20:30] = r[:10]
    r[20:30, -1] = 2.0  # the last column alone differs
    signed = np.where(r == 0, np.copysign(r, rng.normal(size=r.shape)), r)  # 0.0 and -0.0
    found = Copies.of(signed.astype("float32"))
    np.testing.assert_array_equal(found.different[found.which], r)
    assert len(found.different) == len({row.tobytes() for row in r})


class Renamed(distances.Euclidean):
    """A distance of somebody's own, that keeps its base's equation."""

    name = "renamed"


def both_ways(monkeypatch, measure):
    found = []
    for small in (1, 1 << 60):
        monkeypatch.setattr(nearest, "SMALL", small)
        found.append(measure())
    return found


def test_a_distance_that_inherits_its_equation(monkeypatch):
    x = plain(np.random.default_rng(0), 600).astype(np.float32)
    tiles, rows = both_ways(monkeypatch, lambda: neighbours(x, 5, distance=Renamed()))
    np.testing.assert_array_equal(tiles[0], rows[0])
    expected = neighbours(x, 5, distance="euclidean")
    np.testing.assert_allclose(tiles[1], expected[1], rtol=1e-5)


def test_copies_that_lie_beyond_a_shortlist(monkeypatch):
    x = np.array([[1.0]] * 4 + [[2 + 0.001 * k] for k in range(700)], np.float32)
    y = np.array([0] * 4 + list(range(1, 701)))
    names = ("mrr", "queries_without_match")
    tiles, rows = both_ways(
        monkeypatch, lambda: retrieval_metrics(x, y, metrics=names, distance="inner_product")
    )
    assert tiles == pytest.approx(rows)


def test_zero_rows_are_far_from_their_copies_under_cosine(monkeypatch):
    rng = np.random.default_rng(0)
    x = np.concatenate([np.repeat(rng.normal(size=(199, 8)), 3, 0), np.zeros((10, 8))])
    tiles, rows = both_ways(monkeypatch, lambda: neighbours(x.astype(np.float32), 110))
    np.testing.assert_allclose(tiles[1], rows[1], atol=1e-5)
