"""The index of TensorFlow Similarity, its searches and its stores."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinfold import distances
from kinfold.compat import tensorflow_similarity as tfsim
from kinfold.compat.tensorflow_similarity.indexer import Indexer
from kinfold.compat.tensorflow_similarity.retrieval_metrics import BNDCG, MapAtK, RecallAtK
from kinfold.compat.tensorflow_similarity.search import FaissSearch, LinearSearch, NMSLibSearch
from kinfold.compat.tensorflow_similarity.stores import MemoryStore

pytestmark = pytest.mark.once
CLASSES, D = 5, 6


def rows(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of unit norm around a centre for each class, and their labels."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % CLASSES
    centres = np.random.default_rng(9).normal(size=(CLASSES, D))
    x = centres[y] + rng.normal(scale=1.2, size=(n, D))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype("float32"), y


def dense(distance: str, x: np.ndarray, r: np.ndarray) -> np.ndarray:
    x, r = x.astype("float64"), r.astype("float64")
    if distance == "cosine":
        x, r = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, r))
        return 1 - x @ r.T
    difference = x[:, None] - r
    squares = (difference**2).sum(2)
    return {
        "l1": np.abs(difference).sum(2),
        "l2": np.sqrt(squares),
        "sql2": squares,
    }[distance]


@pytest.mark.parametrize("search", ["nmslib", "linear", "faiss"])
@pytest.mark.parametrize("distance", ["cosine", "l2", "sql2", "l1"])
def test_a_lookup_finds_the_nearest(distance: str, search: str) -> None:
    if (search, distance) == ("faiss", "l1"):
        with pytest.raises(ValueError, match="computed exactly alone"):
            Indexer(D, distance, search=search)
        return
    x, y = rows(60)
    queries, _ = rows(9, seed=1)
    x, queries = 2 * x, 3 * queries  # a cosine needs no unit norm
    index = Indexer(D, distance, search=search)
    index.batch_add(x[:-1], labels=y[:-1], data=[f"row {i}" for i in range(59)], verbose=0)
    index.add(x[-1:], label=y[-1], data="row 59", verbose=0, build=False)
    found = index.batch_lookup(queries, k=4, verbose=0)
    expected = dense(distance, queries, x)
    for i, row in enumerate(found):
        nearest = np.argsort(expected[i])[:4]
        assert [one.data for one in row] == [f"row {j}" for j in nearest]
        assert [one.label for one in row] == y[nearest].tolist()
        assert [one.rank for one in row] == [1, 2, 3, 4]
        np.testing.assert_allclose([one.distance for one in row], expected[i, nearest], rtol=1e-4)
        np.testing.assert_array_equal(row[0].embedding, x[nearest[0]])
        assert index.single_lookup(queries[i : i + 1], k=4) == row
    assert index.size() == 60
    stats = index.stats()
    assert (stats["num_lookups"], stats["size"]) == (18, 60)
    assert stats["query_performance"]["max"] > 0


def test_more_neighbours_than_there_are() -> None:
    index = Indexer(D)
    index.batch_add(rows(3)[0], verbose=0)
    found = index.single_lookup(rows(1)[0], k=5)
    assert len(found) == 3
    assert [one.label for one in found] == [None] * 3


def test_the_metrics_of_an_index_are_those_of_its_lookups() -> None:
    (x, y), (queries, truth) = rows(80), rows(30, seed=1)
    index = Indexer(D)
    index.batch_add(x, labels=y, verbose=0)
    order = np.argsort(dense("cosine", queries, x), axis=1, kind="stable")
    hits = y[order] == truth[:, None]
    counts = {c: int(np.sum(y == c)) for c in range(CLASSES)}
    found = index.evaluate_retrieval(
        queries, truth, [RecallAtK(k=1), RecallAtK(k=3), MapAtK(r=counts, k=20), BNDCG(k=5)]
    )
    ranks = np.arange(1, 21)
    precision = hits[:, :20].cumsum(1) / ranks
    weights = 1 / np.log2(np.arange(2, 7))
    best = np.sort(hits[:, :5], 1)[:, ::-1] @ weights
    ndcg = np.divide(hits[:, :5] @ weights, best, out=np.zeros(30), where=best > 0)
    assert found == pytest.approx(
        {
            "recall@1": hits[:, 0].mean(),
            "recall@3": hits[:, :3].any(1).mean(),
            "map@20": ((precision * hits[:, :20]).sum(1) / 16).mean(),
            "ndcg@5": ndcg.mean(),
        }
    )
    limits = [0.05, 0.2, 2.0]
    told = index.evaluate_classification(queries, truth, limits, ["precision", "recall"])
    nearest, right = np.sort(dense("cosine", queries, x), 1)[:, 0], hits[:, 0]
    for i, limit in enumerate(limits):
        near = nearest <= limit
        assert told["precision"][i] == pytest.approx((right & near).sum() / near.sum())
        assert told["recall"][i] == pytest.approx((right & near).sum() / right.sum())


def test_calibrate_match_save_and_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (x, y), (queries, truth) = rows(80), rows(30, seed=1)
    index = Indexer(D)
    index.batch_add(x, labels=y, data=x, verbose=0)
    with pytest.raises(ValueError, match="calibrate"):
        index.match(queries)
    found = index.calibrate(queries, truth, {"precise": 0.9}, "precision", extra_metrics=["fpr"])
    assert "optimal" in capsys.readouterr().out
    assert index.is_calibrated
    limit = found.cutpoints["precise"]["distance"]
    matches = index.match(queries, no_match_label=-7, verbose=0)
    nearest = dense("cosine", queries, x)
    expected = np.where(nearest.min(1) <= float(limit) + 1e-6, y[nearest.argmin(1)], -7)
    assert matches["precise"] == expected.tolist()
    assert -7 in matches["precise"]
    for compression in (True, False):
        index.save(tmp_path / "index", compression=compression)
        again = Indexer.load(tmp_path / "index", verbose=0)
        assert again.batch_lookup(queries, 3) == index.batch_lookup(queries, 3)
        assert again.match(queries, no_match_label=-7) == matches
        assert again.cutpoints == index.cutpoints
        assert again.get_calibration_metric().get_config() == index.calibration_metric.get_config()
        for name, column in index.calibration_thresholds.items():
            np.testing.assert_array_equal(again.calibration_thresholds[name], column)
    again.batch_add(queries, labels=truth, data=queries, verbose=0)
    assert (again.size(), index.size()) == (110, 80)
    assert again.batch_lookup(queries, 1)[3][0].distance == pytest.approx(0, abs=1e-6)
    again.print_stats()
    assert "110" in capsys.readouterr().out
    index.reset()
    assert index.size() == 0
    assert not index.is_calibrated


def test_an_empty_index_saves_and_loads(tmp_path: Path) -> None:
    Indexer(D, search="linear").save(tmp_path / "empty")
    again = Indexer.load(tmp_path / "empty")
    again.batch_add(rows(3)[0], labels=[1, 2, 3], verbose=0)
    assert again.single_lookup(rows(1)[0], 1)[0].label == 1
    assert type(again.search) is LinearSearch


def test_a_store_keeps_what_it_was_given(tmp_path: Path) -> None:
    store = MemoryStore()
    image = np.arange(12, dtype="uint8").reshape(2, 2, 3)
    assert store.batch_add(rows(2)[0], labels=[2**40, 1]) == [0, 1]
    assert store.add(rows(3)[0][2], None, image) == 2
    store.save(str(tmp_path))
    again = MemoryStore()
    assert again.load(str(tmp_path)) == 3
    embeddings, labels, data = again.batch_get([2, 0])
    np.testing.assert_array_equal(embeddings[0], rows(3)[0][2])
    assert labels == [None, 2**40]
    np.testing.assert_array_equal(data[0], image)
    assert data[1] is None
    frame = again.to_data_frame(2)
    assert frame["labels"].tolist() == [2**40, 1]
    store.add(rows(1)[0][0], 0, {"a": object()})
    with pytest.raises(TypeError, match="arrays of one shape and dtype, or strings"):
        store.save(str(tmp_path))
    assert again.load(str(tmp_path)) == 3  # what was there before still is
    with pytest.raises(ValueError, match="entry for each of the 2 embeddings"):
        store.batch_add(rows(2)[0], labels=[1])
    with pytest.raises(ValueError, match="no store of an index"):
        store.load(str(tmp_path / "nowhere"))


class Backwards(LinearSearch):
    """A search of one's own, which finds the same in the opposite order."""

    def batch_lookup(self, embeddings: Any, k: int = 5) -> Any:
        numbers, found = super().batch_lookup(embeddings, k)
        return [row[::-1] for row in numbers], [row[::-1] for row in found]


def test_parts_of_ones_own(tmp_path: Path) -> None:
    store = MemoryStore()
    index = Indexer(D, search=Backwards("cosine", D), kv_store=store)
    index.batch_add(rows(5)[0], labels=range(5), verbose=0)
    assert store.size() == 5
    found = index.single_lookup(rows(1)[0], k=2)
    assert found[0].distance > found[1].distance
    assert found[1].label == 0
    with pytest.raises(ValueError, match="cannot be reset"):
        index.reset()
    with pytest.raises(ValueError, match="cannot be saved"):
        index.save(tmp_path / "index")


def test_what_an_index_cannot_take_is_refused() -> None:
    with pytest.raises(ValueError, match=r"smaller is closer.*'inner_product'"):
        Indexer(D, "ip")
    with pytest.raises(ValueError, match="`search` must be one of"):
        Indexer(D, search="annoy")
    with pytest.raises(ValueError, match="`kv_store` must be a Store"):
        Indexer(D, kv_store=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"takes no parameters of NMSLIB.*index_params"):
        NMSLibSearch("cosine", D, index_params={"M": 16})
    with pytest.raises(TypeError, match="takes no argument 'algo'"):
        FaissSearch("cosine", D, algo="ivfpq")
    with pytest.raises(ValueError, match="Unknown search"):
        tfsim.search.make_search({"canonical_name": "Annoy"})
    index = Indexer(D)
    with pytest.raises(ValueError, match=r"embeddings \[n, 6\]. Received shape \(2, 5\)"):
        index.batch_add(np.ones((2, 5)))
    index.batch_add(rows(9)[0], labels=range(9), verbose=0)
    with pytest.raises(ValueError, match="such as RecallAtK"):
        index.evaluate_retrieval(rows(2)[0], [0, 1], ["recall@1"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"recall@20 needs 20 neighbours.*Received\s9"):
        index.evaluate_retrieval(rows(2)[0], [0, 1], [RecallAtK(k=20)])
    with pytest.raises(FileNotFoundError, match="no index at"):
        Indexer.load("nowhere")
    assert index.search.distance is distances.get("cosine")
    again = tfsim.search.make_search(FaissSearch("l2", D, factory="Flat").get_config())
    assert isinstance(again, FaissSearch)
    assert again.factory == "Flat"


def test_one_of_several_outputs() -> None:
    index = Indexer(D, embedding_output=1)
    other, x = np.ones((4, 2)), rows(4)[0]
    index.batch_add([other, x], labels=range(4), verbose=0)
    assert index.single_lookup([other[:1], x[2:3]], k=1)[0].label == 2
