"""Retrieval metrics against golden values, brute force and scikit-learn, and their promises."""

import contextlib
import itertools
import json
import math
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from scipy.spatial.distance import cdist
from sklearn.metrics import average_precision_score, ndcg_score

import native
from kinfold import distances
from kinfold.metrics import neighbours, retrieval, retrieval_metrics
from kinfold.metrics.ranking import smallest

GOLDEN = Path(__file__).parent.parent / "golden" / "pml.npz"
SIX = ("cosine", "euclidean", "squared_euclidean", "inner_product", "manhattan", "snr")
EVERY = ("recall@1", "recall@3", "precision@1", "precision@3", "r_precision", "map@r", "map@1")
EVERY += ("map@3", "mrr", "mrr@2", "ndcg@1", "ndcg@3")


def random_case(n=60, m=97, d=5, classes=6, seed=0):
    rng = np.random.default_rng(seed)
    query, gallery = rng.standard_normal((n, d)), rng.standard_normal((m, d))
    return query, rng.integers(0, classes, n), gallery, rng.integers(0, classes, m)


def distance_matrix(name, x, r):
    """Float64, by SciPy or by the definition; smaller is closer."""
    x, r = np.asarray(x, np.float64), np.asarray(r, np.float64)
    if name == "inner_product":
        return -(x @ r.T)
    if name == "snr":
        return np.var(x[:, None] - r[None], axis=-1) / np.var(x, axis=-1)[:, None]
    same = {"squared_euclidean": "sqeuclidean", "manhattan": "cityblock"}
    return cdist(x, r, same.get(name, name))


def score(hits, name, relevant):
    """One query's metric from its ranking, as the table of definitions says."""
    kind, _, k = name.partition("@")
    k = relevant if name == "r_precision" or k == "r" else int(k or len(hits))
    precision = [sum(hits[:i]) / i for i in range(1, len(hits) + 1)]
    if kind == "recall":
        return float(any(hits[:k]))
    if kind in ("precision", "r_precision"):
        return sum(hits[:k]) / k
    if kind == "map":
        return sum(precision[i] * hits[i] for i in range(k)) / min(relevant, k)
    if kind == "map_found":
        return sum(precision[i] * hits[i] for i in range(k)) / max(sum(hits[:k]), 1)
    if kind == "mrr":
        return next((1 / (i + 1) for i in range(k) if hits[i]), 0.0)
    gain = sum(hits[i] / math.log2(i + 2) for i in range(k))
    return gain / sum(1 / math.log2(i + 2) for i in range(min(relevant, k)))


def brute_force(matrix, query_labels, gallery_labels, names, own_gallery, orders=False):
    """Mean over queries; with `orders`, also over all orders of the gallery (a stable sort)."""
    totals, queries = dict.fromkeys(names, 0.0), 0
    for i, row in enumerate(matrix):
        others = [j for j in range(len(row)) if not (own_gallery and i == j)]
        relevant = sum(gallery_labels[j] == query_labels[i] for j in others)
        if relevant == 0:
            continue
        queries += 1
        every = list(itertools.permutations(others)) if orders else [others]
        for order in every:
            ranking = sorted(order, key=lambda j: row[j])
            hits = [int(gallery_labels[j] == query_labels[i]) for j in ranking]
            for name in names:
                totals[name] += score(hits, name, relevant) / len(every)
    return {name: total / queries for name, total in totals.items()}


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("name", ["retrieval0", "retrieval1", "retrieval2"])
def test_values_of_pytorch_metric_learning(name, distance):
    file = np.load(GOLDEN)
    case = next(case for case in json.loads(str(file["cases"])) if case["name"] == name)
    own_gallery = case["gallery_is_query"]
    gallery = () if own_gallery else (file[f"{name}/g"], file[f"{name}/gy"])
    # It ranks as many items as the largest class has: `max_bin_count` there.
    k = np.bincount(file[f"{name}/gy"]).max() - own_gallery
    names = {
        "precision_at_1": "recall@1",
        "r_precision": "r_precision",
        "mean_average_precision_at_r": "map@r",
        "mean_average_precision": f"map@{k}",
        "mean_reciprocal_rank": f"mrr@{k}",
    }
    asked = [*names.values(), "precision@1", "queries_without_match"]
    values = retrieval_metrics(
        file[f"{name}/q"], file[f"{name}/qy"], *gallery, metrics=asked, distance=distance
    )
    assert set(case["accuracy"]) == set(names)
    for theirs, ours in names.items():
        assert values[ours] == pytest.approx(case["accuracy"][theirs], rel=1e-6)
    assert values["precision@1"] == values["recall@1"]
    assert values["queries_without_match"] == {"retrieval2": 10}.get(name, 0)


@pytest.mark.parametrize("own_gallery", [False, True])
@pytest.mark.parametrize("distance", SIX)
def test_every_metric_against_a_plain_loop(distance, own_gallery):
    x, y, r, ry = random_case()
    if own_gallery:
        r, ry = x, y
    names = [*EVERY, "recall@40", "precision@40", "map@40", "ndcg@40", "mrr@40"]
    names += ["map_found@r", "map_found@3"]
    expected = brute_force(distance_matrix(distance, x, r), y, ry, names, own_gallery)
    gallery = () if own_gallery else (r, ry)
    values = retrieval_metrics(x, y, *gallery, metrics=names, distance=distance)
    assert list(values) == names
    assert all(type(value) is float for value in values.values())
    assert values == pytest.approx(expected, rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    points=st.lists(st.integers(0, 2), min_size=10, max_size=10),
    labels=st.lists(st.sampled_from([-5, 2**24, 2**24 + 1]), min_size=10, max_size=10),
    own_gallery=st.booleans(),
)
def test_ties_score_the_mean_over_all_their_orders(points, labels, own_gallery):
    x, y = np.array(points, "float32")[:, None], np.array(labels)
    x, r = (x[:5], x[:5]) if own_gallery else (x[:5], x[5:])
    y, ry = (y[:5], y[:5]) if own_gallery else (y[:5], y[5:])
    if not any(np.sum(ry == label) > own_gallery for label in y):
        return
    matrix = np.abs(x - r.T)
    expected = brute_force(matrix, y, ry, EVERY, own_gallery, orders=True)
    gallery = () if own_gallery else (r, ry)
    asked = [*EVERY, "queries_without_match"]
    values = retrieval_metrics(x, y, *gallery, metrics=asked, distance="manhattan")
    del values["queries_without_match"]
    assert values == pytest.approx(expected, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(labels=st.lists(st.integers(0, 3), min_size=12, max_size=12), seed=st.integers(0, 99))
def test_values_of_scikit_learn(labels, seed):
    labels = np.array(labels)
    rng = np.random.default_rng(seed)
    x, r = rng.integers(-3, 4, (1, 2)), rng.permutation(49)[:12]
    r = np.stack([r // 7, r % 7], axis=1) - 3
    query_label = labels[:1]
    relevant = (labels == query_label)[None]
    distance = distance_matrix("squared_euclidean", x, r)
    values = retrieval_metrics(
        x, query_label, r, labels, ("ndcg@4", "ndcg@12"), distance="squared_euclidean"
    )
    # scikit-learn's NDCG averages over ties too.
    assert values["ndcg@4"] == pytest.approx(ndcg_score(relevant, -distance, k=4))
    assert values["ndcg@12"] == pytest.approx(ndcg_score(relevant, -distance))
    r = rng.standard_normal((12, 2))  # its average precision treats ties otherwise: have none
    values = retrieval_metrics(x, query_label, r, labels, ("map@12",), distance="euclidean")
    distance = distance_matrix("euclidean", x, r)
    assert values["map@12"] == pytest.approx(average_precision_score(relevant[0], -distance[0]))


@pytest.mark.parametrize("distance", SIX)
@pytest.mark.parametrize("elements", [40, 170])
def test_results_do_not_depend_on_the_blocks(monkeypatch, distance, elements):
    # Small integers, so that arithmetic in float32 is exact and ties are many.
    rng = np.random.default_rng(1)
    x, y = rng.integers(-2, 3, (23, 4)), rng.integers(0, 5, 23)
    whole = retrieval_metrics(x, y, metrics=EVERY, distance=distance)
    indices, values = neighbours(x, 5, distance=distance)
    monkeypatch.setattr(retrieval, "_BLOCK_ELEMENTS", elements)
    monkeypatch.setattr(retrieval, "_WORK_ELEMENTS", 4 * elements)
    assert retrieval_metrics(x, y, metrics=EVERY, distance=distance) == pytest.approx(whole)
    blocked_indices, blocked_values = neighbours(x, 5, distance=distance)
    np.testing.assert_allclose(blocked_values, values, rtol=1e-5, atol=1e-6)
    if distance not in ("cosine", "snr"):  # these divide, so ties may be rounded apart
        np.testing.assert_array_equal(blocked_indices, indices)


class Recorder(distances.Distance):
    """Squared Euclidean, remembering the size of each block it was asked for."""

    name = "recorder"

    def __init__(self):
        self.asked = []

    def pairwise(self, x, r):
        self.asked.append(x.shape[0] * r.shape[0])
        return distances.get("squared_euclidean")(x, r)


def test_memory_is_bounded(monkeypatch):
    x, y, r, ry = random_case(n=60, m=80)
    monkeypatch.setattr(retrieval, "_BLOCK_ELEMENTS", 2000)
    monkeypatch.setattr(retrieval, "_WORK_ELEMENTS", 5 * 500)
    recorder = Recorder()
    retrieval_metrics(x, y, r, ry, distance=recorder)
    assert max(recorder.asked) <= 500
    assert sum(recorder.asked) == 60 * 80


@pytest.mark.parametrize("distance", SIX)
def test_a_collapsed_model_scores_as_chance(distance):
    y = np.repeat(np.arange(5), 8)  # sorted by class, which an order by index would reward
    x = np.full((40, 7), 0.1) + np.arange(7) * 0.3
    values = retrieval_metrics(
        x, y, metrics=("recall@1", "recall@3", "precision@5", "r_precision"), distance=distance
    )
    chance = 7 / 39
    missed = math.comb(32, 3) / math.comb(39, 3)
    assert values == pytest.approx(
        {
            "recall@1": chance,
            "recall@3": 1 - missed,
            "precision@5": chance,
            "r_precision": chance,
        }
    )


@pytest.mark.parametrize("distance", SIX)
def test_the_order_of_the_gallery_does_not_matter(distance):
    x, y, r, ry = random_case()
    r = np.concatenate([r, r, r[:50]])  # every item has a copy, under other labels
    ry = np.random.default_rng(3).integers(0, 6, len(r))
    values = retrieval_metrics(x, y, r, ry, EVERY, distance)
    order = np.random.default_rng(4).permutation(len(r))
    again = retrieval_metrics(x, y, r[order], ry[order], EVERY, distance)
    assert again == pytest.approx(values)
    by_class = np.argsort(ry)
    sorted_again = retrieval_metrics(x, y, r[by_class], ry[by_class], EVERY, distance)
    assert sorted_again == pytest.approx(values)


class RoundsByColumn(distances.Distance):
    """Manhattan with an error that depends on the column, as in a blocked matrix product."""

    name = "rounds_by_column"

    def pairwise(self, x, r):
        return distances.get("manhattan")(x, r) + 1e-3 * ops.arange(r.shape[0], dtype="float32")


def test_equal_embeddings_tie_whatever_the_rounding():
    x, y, r, ry = random_case()
    r = np.concatenate([r, r])
    r[0], r[97] = 0.0, -0.0
    ry = np.concatenate([ry, (ry + 1) % 6])
    order = np.arange(97) + 97 * np.arange(2)[::-1, None]  # the copies first
    values = retrieval_metrics(x, y, r, ry, EVERY, RoundsByColumn())
    order = order.reshape(-1)
    again = retrieval_metrics(x, y, r[order], ry[order], EVERY, RoundsByColumn())
    assert again == pytest.approx(values)
    indices, found = neighbours(x, 2, r, distance=RoundsByColumn())
    np.testing.assert_array_equal(indices[:, 1], indices[:, 0] + 97)
    np.testing.assert_array_equal(found[:, 1], found[:, 0])


def test_a_query_is_removed_by_index_and_not_by_rank():
    # Each item has an exact copy in the other class: a self-match by rank would call these hits.
    x = np.array([[0.0], [0.0], [1.0], [1.0]])
    y = np.array([0, 1, 0, 1])
    values = retrieval_metrics(x, y, metrics=("recall@1", "mrr"), distance="euclidean")
    assert values == {"recall@1": 0.0, "mrr": pytest.approx((1 / 2 + 1 / 3) / 2)}
    indices, _ = neighbours(x, 1, distance="euclidean")
    assert indices[:, 0].tolist() == [1, 0, 3, 2]


def test_the_same_set_as_a_gallery_keeps_the_queries():
    x, y, _, _ = random_case()
    values = retrieval_metrics(x, y, x, y, ("recall@1", "precision@1"))
    assert values == {"recall@1": 1.0, "precision@1": 1.0}


@pytest.mark.parametrize(
    "near",
    [(2**24, 2**24 + 1), (2**53, 2**53 + 1), (-(2**62), -(2**62) - 1), (256, 257)],
)
def test_labels_keep_every_bit(near):
    x = np.array([[0.0], [1.0], [5.0], [6.0]])
    values = retrieval_metrics(x, np.array(near * 2), metrics=("recall@1",), distance="euclidean")
    assert values == {"recall@1": 0.0}


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "int64", "uint64"])
def test_labels_of_any_integer_dtype_and_both_shapes(dtype):
    x, y, _, _ = random_case()
    expected = retrieval_metrics(x, y)
    assert retrieval_metrics(x, y.astype(dtype)) == expected
    assert retrieval_metrics(x, y.astype(dtype)[:, None]) == expected
    assert retrieval_metrics(x, y, x[::2], y[::2].astype(dtype)) == retrieval_metrics(
        x, y[:, None], x[::2], y[::2].tolist()
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_arrays_and_tensors_of_every_precision(dtype):
    x = np.random.default_rng(0).integers(-9, 9, (40, 3)).astype("float32")  # exact in each dtype
    y = np.random.default_rng(1).integers(0, 4, 40)
    expected = retrieval_metrics(x, y, metrics=EVERY)
    with native.float64() if dtype == "float64" else contextlib.nullcontext():
        tensor = ops.convert_to_tensor(x, dtype)
        assert keras.backend.standardize_dtype(tensor.dtype) == dtype
    assert retrieval_metrics(tensor, ops.convert_to_tensor(y), metrics=EVERY) == expected
    if dtype != "bfloat16":
        assert retrieval_metrics(x.astype(dtype), y, metrics=EVERY) == expected


def test_a_tensor_with_a_gradient_is_welcome():
    x, y, _, _ = random_case()
    variable = keras.Variable(x.astype("float32"))
    assert retrieval_metrics(variable.value, y) == retrieval_metrics(x, y)


def test_cosine_does_not_look_at_norms():
    x, y, _, _ = random_case()
    expected = retrieval_metrics(x, y, metrics=EVERY)
    scale = 10.0 ** np.random.default_rng(0).integers(-30, 31, (len(x), 1))
    assert retrieval_metrics(x * scale, y, metrics=EVERY) == pytest.approx(expected)
    _, values = neighbours(x * scale, 59)
    np.testing.assert_allclose(values, np.sort(cdist(x, x, "cosine"))[:, 1:], atol=1e-6)


def test_zero_embeddings_are_far_from_everything_under_cosine():
    x = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.1]])
    indices, values = neighbours(x, 2)
    assert indices.tolist() == [[1, 2], [2, 0], [1, 0]]
    np.testing.assert_allclose(values[0], [1.0, 1.0])


def test_queries_without_a_match_are_left_out_and_counted():
    x = np.array([[0.0], [1.0], [5.0], [6.0]])
    y = np.array([0, 0, 1, 2])
    with pytest.warns(UserWarning, match="2 of 4 queries have no item of their class"):
        values = retrieval_metrics(x, y, metrics=("recall@1", "queries"), distance="euclidean")
    assert values == {"recall@1": 1.0, "queries": 2.0}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = retrieval_metrics(x, y, metrics=("recall@1", "queries_without_match"))
    assert values["queries_without_match"] == 2.0
    assert retrieval_metrics(x, y, metrics=("queries_without_match",)) == {
        "queries_without_match": 2.0
    }


def test_classes_of_very_different_sizes():
    x, _, _, _ = random_case(n=80)
    y = np.array([0] * 70 + [1] * 2 + [2] * 8)
    expected = brute_force(distance_matrix("euclidean", x, x), y, y, EVERY, True)
    assert retrieval_metrics(x, y, metrics=EVERY, distance="euclidean") == pytest.approx(expected)


@pytest.mark.parametrize("m", [200, 1000, 5003])
@pytest.mark.parametrize("kinds", [2, 40, 10**6])
def test_smallest_against_a_full_sort(m, kinds):
    block = np.random.default_rng(m).integers(0, kinds, (7, m)).astype("float32")
    block[0] = np.inf  # what is to be left out
    block[1, : m // 2] = np.inf
    for k in (1, 3, m // 200, m // 3, m):
        indices = smallest(block, k)
        assert all(len(set(row)) == k for row in indices.tolist())
        found = np.sort(np.take_along_axis(block, indices, axis=1))
        assert np.array_equal(found, np.sort(block)[:, :k])


@pytest.mark.parametrize("distance", SIX)
def test_neighbours_against_a_full_sort(distance):
    x, _, r, _ = random_case(n=31)
    matrix = distance_matrix(distance, x, r)
    order = np.argsort(matrix, axis=1)[:, :10]
    indices, values = neighbours(x, 10, r, distance=distance)
    np.testing.assert_array_equal(indices, order)
    sign = -1 if distance == "inner_product" else 1
    expected = sign * np.take_along_axis(matrix, order, axis=1)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    assert (indices.dtype, values.dtype) == (np.int64, np.float32)


@settings(max_examples=25, deadline=None)
@given(points=st.lists(st.integers(0, 2), min_size=4, max_size=9), data=st.data())
def test_neighbours_order_ties_by_index(points, data):
    x = np.array(points, "float32")[:, None]
    k = data.draw(st.integers(1, len(x) - 1))
    indices, values = neighbours(x, k, distance="manhattan")
    for i, row in enumerate(np.abs(x - x.T)):
        expected = sorted((j for j in range(len(x)) if j != i), key=lambda j: (row[j], j))[:k]
        assert indices[i].tolist() == expected
        assert values[i].tolist() == row[expected].tolist()


X, Y = np.eye(4), np.array([0, 0, 1, 1])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"metrics": ("recall@1", "recal@1")},
            ValueError,
            r"'recal@1'. Known are recall@k, .*mrr",
        ),
        ({"metrics": ("recall@0",)}, ValueError, "Unknown metric 'recall@0'"),
        ({"metrics": ("recall@",)}, ValueError, "Unknown metric 'recall@'"),
        ({"metrics": ("recall@4",)}, ValueError, "4 ranks, but each query is ranked against 3"),
        ({"metrics": ()}, ValueError, "at least one name"),
        ({"metrics": "recall@1"}, TypeError, "sequence of names"),
        ({"metrics": (1,)}, TypeError, "sequence of names"),
        ({"distance": "cosin"}, ValueError, "cosin"),
        ({"query_labels": Y.astype("float32")}, TypeError, "integer class ids. Received.*float32"),
        ({"query_labels": np.array(list("aabb"))}, TypeError, "integer class ids"),
        ({"query_labels": Y == 1}, TypeError, "integer class ids. Received dtype bool"),
        ({"query_labels": np.array([2**63] * 4, "uint64")}, ValueError, "64-bit signed"),
        ({"query_labels": Y[:3]}, ValueError, "Received 4 and 3"),
        ({"query_labels": Y.reshape(2, 2)}, ValueError, r"shape \[n\] or \[n, 1\].*\(2, 2\)"),
        ({"query_labels": Y[:0]}, ValueError, "n at least 1"),
        ({"query_labels": np.arange(4)}, ValueError, "No query has an item of its class"),
        ({"query": X[:, 0]}, ValueError, r"\[n, d\].*Received shape \(4,\)"),
        ({"query": X[:0]}, ValueError, r"Received shape \(0, 4\)"),
        ({"query": X.astype(str)}, TypeError, "must hold numbers"),
        ({"query": np.where(X == 1, np.nan, 0)}, ValueError, "NaN or infinity in 4 of 4 rows"),
        ({"query": X * 1e39}, ValueError, "finite in float32"),
        (
            {"query": X * 1e30, "distance": "euclidean"},
            ValueError,
            "not finite.*up to 1e\\+30",
        ),
        ({"gallery": X}, ValueError, "Received only `gallery`"),
        ({"gallery_labels": Y}, ValueError, "Received only `gallery_labels`"),
        ({"gallery": X[:, :3], "gallery_labels": Y}, ValueError, r"\(4, 4\) and \(4, 3\)"),
        (
            {"gallery": X, "gallery_labels": Y[:2]},
            ValueError,
            "`gallery_labels` must have",
        ),
        ({"gallery": X, "gallery_labels": Y + 2}, ValueError, "4 queries and 4 gallery items"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        retrieval_metrics(**{"query": X, "query_labels": Y, **arguments})


@pytest.mark.parametrize(
    ("k", "error", "message"),
    [
        (0, ValueError, "at least 1 and at most 3"),
        (4, ValueError, "at most 3, .*Received: k=4"),
        (1.0, TypeError, "whole number"),
        (True, TypeError, "whole number"),
    ],
)
def test_bad_k(k, error, message):
    with pytest.raises(error, match=message):
        neighbours(X, k)


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "squared_euclidean", "snr"])
@pytest.mark.parametrize("clusters", [1, 2])
def test_close_embeddings_far_from_the_origin(distance, clusters):
    rng = np.random.default_rng(0)
    centres = 100.0 * rng.standard_normal((clusters, 6))
    x = (centres[np.arange(60) % clusters] + 1e-2 * rng.standard_normal((60, 6))).astype("float32")
    unit = x / np.linalg.norm(x.astype("float64"), axis=1, keepdims=True)
    right = (
        distance_matrix("squared_euclidean", unit, unit) / 2
        if distance == "cosine"
        else distance_matrix(distance, x, x)
    )
    np.fill_diagonal(right, np.inf)
    indices, values = neighbours(x, 3, distance=distance)
    # Two clusters have no common centre: unit rows, and rows less their means, are rounded there.
    rtol = 1e-3 if clusters == 1 else {"cosine": 5e-2, "snr": 5e-3}.get(distance, 1e-3)
    np.testing.assert_allclose(values, np.sort(right, axis=1)[:, :3], rtol=rtol)
    if rtol < 1e-2:
        assert np.mean(indices[:, 0] == right.argmin(1)) > 0.98


LAYOUTS = {
    "fortran": np.asfortranarray,
    "every other column": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "backwards": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_embeddings_of_any_memory_layout(layout):
    x, y, r, ry = random_case()
    x, r = x.astype("float32"), r.astype("float32")
    expected = retrieval_metrics(x, y, r, ry)
    change = LAYOUTS[layout]
    assert retrieval_metrics(change(x), y, change(r), ry) == expected
    tensor = ops.transpose(ops.convert_to_tensor(x.T.copy()))
    assert retrieval_metrics(tensor, y, change(r), ry) == expected
    np.testing.assert_array_equal(neighbours(change(x), 2)[0], neighbours(x, 2)[0])
