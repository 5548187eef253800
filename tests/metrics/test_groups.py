"""Items of a query's own group left out, and means over classes."""

import keras
import numpy as np
import pytest

from kinfold.callbacks import RetrievalEvaluation
from kinfold.metrics import nearest, retrieval_metrics, retrieval_table

METRICS = ("recall@1", "recall@5", "precision@3", "map@r", "map@5", "mrr", "mrr@2", "ndcg@4")


def data(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings that lie together by class and, more so, by group; some are equal."""
    rng = np.random.default_rng(seed)
    y, group = rng.integers(0, 9, n), rng.integers(0, 4, n)
    of_class = np.random.default_rng(0).normal(size=(9, 6))
    of_group = np.random.default_rng(1).normal(size=(9, 4, 6))
    x = of_class[y] + of_group[y, group] + 0.8 * rng.normal(size=(n, 6))
    x[5::7] = x[4::7][: len(x[5::7])]
    return x.astype("float32"), y, group


def one_by_one(
    query: tuple[np.ndarray, ...], gallery: tuple[np.ndarray, ...], own: bool
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The metrics of each query that has a match, against the items that may be ranked for it."""
    kept, found = [], []
    for i, (one, label, group) in enumerate(zip(*query, strict=True)):
        ranked = ~((gallery[1] == label) & (gallery[2] == group))
        if own:
            ranked[i] = False
        if not np.any(gallery[1][ranked] == label):
            continue
        kept.append(i)
        items = gallery[0][ranked], gallery[1][ranked]
        found.append(retrieval_metrics(one[None], label[None], *items, METRICS))
    return np.array(kept), {name: np.array([one[name] for one in found]) for name in METRICS}


# The larger set is ranked by tiles of nearest items, the smaller one by whole rows.
@pytest.mark.parametrize("n", [60, 700])
@pytest.mark.parametrize("own", [True, False], ids=["own gallery", "gallery"])
def test_as_without_those_items(n: int, own: bool) -> None:
    query = data(n, 2)
    gallery = query if own else data(n + 5, 3)
    assert (n**2 >= nearest.SMALL) == (n == 700)
    kept, right = one_by_one(query, gallery, own)
    given = {"query_groups": query[2]}
    if not own:
        given |= {"gallery": gallery[0], "gallery_labels": gallery[1], "gallery_groups": gallery[2]}
    asked = (*METRICS, "queries", "queries_without_match")
    got = retrieval_metrics(query[0], query[1], metrics=asked, **given)
    assert got["queries"] == len(kept)
    assert got["queries_without_match"] == n - len(kept)
    for name, values in right.items():
        assert got[name] == pytest.approx(values.mean(), abs=1e-6), name
    by_class = retrieval_metrics(query[0], query[1], metrics=asked, average="classes", **given)
    classes = query[1][kept]
    for name, values in right.items():
        means = [values[classes == one].mean() for one in np.unique(classes)]
        assert by_class[name] == pytest.approx(np.mean(means), abs=1e-6), name
    assert by_class["queries"] == len(kept)
    alone = retrieval_metrics(query[0], query[1], metrics=METRICS, **{
        name: value for name, value in given.items() if "groups" not in name
    })  # fmt: skip
    assert alone["recall@1"] > got["recall@1"]  # those of a query's own group are easy


def test_a_group_of_each_item_is_no_group() -> None:
    x, y, _ = data(60, 2)
    every = np.arange(60)
    assert retrieval_metrics(x, y, query_groups=every) == retrieval_metrics(x, y)


def test_while_a_model_trains() -> None:
    x, y, group = data(60, 2)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Activation("linear")])
    evaluation = RetrievalEvaluation(x, y, groups=group, average="classes", metrics=METRICS)
    evaluation.set_model(model)
    logs: dict[str, float] = {}
    evaluation.on_epoch_end(0, logs)
    right = retrieval_metrics(x, y, metrics=METRICS, query_groups=group, average="classes")
    assert logs == pytest.approx({f"val_{name}": value for name, value in right.items()})
    with pytest.raises(ValueError, match="average"):
        RetrievalEvaluation(x, y, average="all")


def test_refused() -> None:
    x, y, group = data(60, 2)
    with pytest.raises(ValueError, match="No query has one in another group"):
        retrieval_metrics(x, y, query_groups=np.zeros(60, int))
    with pytest.raises(ValueError, match="`query_groups` must be given, and"):
        retrieval_metrics(x, y, query_groups=group, gallery_groups=group)
    with pytest.raises(ValueError, match="`query_groups` must be given, and"):
        retrieval_metrics(x, y, x, y, gallery_groups=group)
    with pytest.raises(ValueError, match="Received 59 groups and 60 labels"):
        retrieval_metrics(x, y, query_groups=group[1:])
    with pytest.raises(TypeError, match="query_groups"):
        retrieval_metrics(x, y, query_groups=group + 0.5)
    with pytest.raises(ValueError, match="average"):
        retrieval_metrics(x, y, average="all")


@pytest.mark.parametrize("by", ["class", "group"])
@pytest.mark.parametrize("own", [True, False], ids=["own gallery", "gallery"])
def test_a_table_of_classes_or_groups(by: str, own: bool) -> None:
    query = data(60, 2)
    gallery = query if own else data(65, 3)
    kept, right = one_by_one(query, gallery, own)
    given = {"query_groups": query[2], "metrics": METRICS, "by": by}
    if not own:
        given |= {"gallery": gallery[0], "gallery_labels": gallery[1], "gallery_groups": gallery[2]}
    table = retrieval_table(query[0], query[1], **given)
    assert list(table) == [by, "queries", *METRICS]
    of = query[1 if by == "class" else 2]
    assert np.array_equal(table[by], np.unique(of))
    for row, one in enumerate(table[by]):
        some = of[kept] == one
        assert table["queries"][row] == some.sum()
        for name in METRICS:
            mean = right[name][some].mean() if some.any() else np.nan
            assert table[name][row] == pytest.approx(mean, abs=1e-6, nan_ok=True)


def test_a_table_says_what_is_missing() -> None:
    x, y, group = data(60, 2)
    y[0] = 100  # with nothing to find
    table = retrieval_table(x, y, metrics=["mrr"])
    assert (table["queries"][-1], table["class"][-1]) == (0, 100)
    assert np.isnan(table["mrr"][-1])
    with pytest.raises(ValueError, match="`query_groups`"):
        retrieval_table(x, y, by="group")
    with pytest.raises(ValueError, match="`by` must be one of"):
        retrieval_table(x, y, by="seller", query_groups=group)
    with pytest.raises(ValueError, match="'queries' is a number of queries"):
        retrieval_table(x, y, metrics=["queries"])
    with pytest.raises(ValueError, match="must be given together"):
        retrieval_table(x, y, x)
