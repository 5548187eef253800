"""The index: what it finds on every engine, against a plain sort; what it keeps and refuses."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from scipy.spatial.distance import cdist

import kinfold
from kinfold.core import files
from kinfold.metrics import nearest
from kinfold.search import choice, index, store

pytestmark = pytest.mark.once  # the exact engine on each backend: tests/metrics

N, D = 300, 12
ENGINES: list[dict[str, Any]] = [
    {"engine": "exact"},
    {"engine": "exact", "compress": "int8"},
    {"engine": "exact", "compress": "binary"},
    {"engine": "faiss"},
    {"engine": "faiss", "options": {"factory": "IVF8,Flat"}},
    {"engine": "milvus"},
]
NAMES = ["exact", "int8", "binary", "graph", "lists", "milvus"]


@pytest.fixture(params=ENGINES, ids=NAMES)
def made(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Makes an index of the engine, which then searches itself, however few items there are."""
    monkeypatch.setattr(index, "_FEW", 1)
    given = dict(request.param)
    if given["engine"] == "milvus":
        pytest.importorskip("milvus_lite")  # which Windows has not

    def make(distance: str = "cosine", **more: Any) -> kinfold.Index:
        if given["engine"] == "milvus":
            more["options"] = {"uri": str(tmp_path / "vectors.db")}
        return kinfold.Index(distance, **given, **more)

    return make


def vectors(n: int = N, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(12, D))
    return (centres[np.arange(n) % 12] + 0.4 * rng.normal(size=(n, D))).astype(np.float32)


def sorted_rows(distance: str, x: np.ndarray, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows by distance in float64, and the sorted distances."""
    names = {"squared_euclidean": "sqeuclidean", "manhattan": "cityblock"}
    x, r = x.astype(np.float64), r.astype(np.float64)
    d = -(x @ r.T) if distance == "inner_product" else cdist(x, r, names.get(distance, distance))
    order = np.argsort(d, axis=1, kind="stable")
    return order, np.take_along_axis(d, order, axis=1)


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "squared_euclidean", "inner_product"])
def test_every_engine_finds_the_nearest_and_measures_them_alike(made: Any, distance: str) -> None:
    x, queries = vectors(), vectors(20, 1)
    known = made(distance)
    known.add(x, labels=np.arange(N) % 12)
    found = known.search(queries, 5)
    rows, values = sorted_rows(distance, queries, x)
    same = np.mean([len(set(a) & set(b)) for a, b in zip(found.ids, rows[:, :5], strict=True)]) / 5
    assert same >= 0.95
    sign = -1 if distance == "inner_product" else 1
    at = np.array([[list(row).index(one) for one in ids]
                   for row, ids in zip(rows, found.ids, strict=True)])  # fmt: skip
    expected = sign * np.take_along_axis(values, at, axis=1)
    np.testing.assert_allclose(found.distances, expected, rtol=1e-5, atol=1e-6)
    assert (found.labels == found.ids % 12).all()
    assert (np.diff(sign * found.distances, axis=1) >= 0).all()


def test_items_are_replaced_and_removed(made: Any) -> None:
    x = vectors()
    known = made()
    known.add(x)
    known.search(x[:1], 1)  # the engine has them
    known.add(-x[:2], ids=[0, 1], labels=["new", "new"])
    known.remove([5, np.int64(6)])
    known.add(x[5:6], ids=[1000])
    assert len(known) == N - 1
    assert known.search(x[5:6], 1).ids[0, 0] == 1000
    assert known.search(-x[:1], 1).ids[0, 0] == 0
    assert known.search(-x[:1], 1).labels[0, 0] == "new"
    assert known.search(x[6:7], 1).ids[0, 0] != 6
    known.remove(7)
    known.add(x[7:8], ids=[7])
    with pytest.raises(ValueError, match=r"There is no id 5 and 1 more in this index"):
        known.remove([5, 6])
    known.add(x[7:8])  # numbered on
    assert known.ids[-1] == 1001


def test_filters_on_every_engine(made: Any) -> None:
    x = vectors()
    known = made()
    known.add(x, labels=np.arange(N) % 12, metadata={"shop": np.arange(N) % 7})
    found = known.search(x[:9], 4, where={"shop": 3})
    assert all(one["shop"] == 3 for one in found.metadata.ravel())
    rows = np.flatnonzero(np.arange(N) % 7 == 3)
    expected = rows[sorted_rows("cosine", x[:9], x[rows])[0][:, :4]]
    assert np.mean(found.ids == expected) >= 0.9
    both = known.search(x[:2], N, where={"label": [1, 2], "shop": [0, 1, 2]})
    there = sum(k % 12 in (1, 2) and k % 7 in (0, 1, 2) for k in range(N))
    assert (both.ids != None).sum(axis=1).tolist() == [there, there]  # noqa: E711
    assert np.isinf(both.distances[:, there:]).all()
    with pytest.raises(ValueError, match=r"No item has the field 'price'"):
        known.search(x[:1], 1, where={"price": 1})
    assert known.search(x[:1], 1, where={"label": 99}).ids.tolist() == [[None]]


def test_a_radius_and_more_than_there_are(made: Any) -> None:
    known = made("euclidean")
    known.add(np.arange(8, dtype=np.float32)[:, None] * np.ones((1, D), np.float32))
    found = known.search(np.zeros((1, D)), 20, radius=3 * D**0.5)
    assert found.ids[0, :5].tolist() == [0, 1, 2, 3, None]
    assert found.ids.shape == (1, 20)
    assert np.isinf(found.distances[0, 4:]).all()


def test_a_similarity_and_its_radius() -> None:
    known = kinfold.Index("inner_product")
    known.add([[1.0, 0], [2, 0], [3, 0]], ids=["a", "b", "c"])
    found = known.search([[1.0, 0]], 3, radius=2)
    assert found.ids.tolist() == [["c", "b", None]]
    assert found.distances.tolist() == [[3, 2, -np.inf]]


@pytest.mark.parametrize("distance", ["manhattan", "snr"])
def test_other_distances_are_exact(distance: str) -> None:
    x, queries = vectors(), vectors(5, 1)
    known = kinfold.Index(distance)
    known.add(x)
    found = known.search(queries, 3)
    expected = kinfold.metrics.neighbours(queries, 3, x, distance)
    assert found.ids.tolist() == expected[0].tolist()
    np.testing.assert_allclose(found.distances, expected[1], rtol=1e-5)
    with pytest.raises(ValueError, match="is computed exactly alone"):
        kinfold.Index(distance, "faiss")


def test_an_empty_index_finds_nothing() -> None:
    found = kinfold.Index().search(np.ones((2, 3)), 2)
    assert found.ids.tolist() == [[None, None]] * 2


def test_equal_items_come_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "SMALL", 1)
    known = kinfold.Index()
    known.add(np.repeat(vectors(4), 50, axis=0))
    assert known.search(vectors(4)[2:3], 5).ids.tolist() == [[100, 101, 102, 103, 104]]


def test_what_was_saved_is_found_again(made: Any, tmp_path: Path) -> None:
    x = vectors()
    known = made("euclidean", model="abc")
    known.add(x, ids=[f"item {k}" for k in range(N)], labels=["ä", None, "c"] * 100,
              metadata=[{"k": k} if k % 2 else None for k in range(N)])  # fmt: skip
    before = known.search(x[:30], 3)
    known.save(tmp_path / "index")
    known.add(x[:1] + 9, ids=["later"])
    again = kinfold.Index.load(tmp_path / "index")
    assert (len(again), again.dimension, again.model) == (N, D, "abc")
    after = again.search(x[:30], 3)
    for name in ("ids", "labels", "metadata"):
        assert getattr(after, name).tolist() == getattr(before, name).tolist()
    np.testing.assert_array_equal(after.distances, before.distances)
    known.save(tmp_path / "index")
    assert kinfold.Index.load(tmp_path / "index").search(x[:1] + 9, 1).ids[0, 0] == "later"
    names = sorted(path.name.split("-")[0] for path in (tmp_path / "index").iterdir())
    of_engine = ("faiss", "milvus.db", ".milvus.db")
    assert [name for name in names if not name.startswith(of_engine)] == [
        "index.json", "items", "vectors"
    ]  # fmt: skip


def test_numbers_go_on_after_loading(tmp_path: Path) -> None:
    known = kinfold.Index()
    known.add(vectors(3))
    known.remove([2])
    known.save(tmp_path / "i")
    again = kinfold.Index.load(tmp_path / "i")
    again.add(vectors(1, 5))
    assert again.ids.tolist() == [0, 1, 3]
    assert again.search(vectors(1, 5), 1).ids[0, 0] == 3


def test_a_full_disk_leaves_the_index_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    known = kinfold.Index()
    known.add(vectors(3))
    known.save(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    known.add(vectors(5, 3))
    for name in ("_table", "_write_vectors"):
        with (
            mock.patch.object(store, name, side_effect=OSError(28, "No space left on device")),
            pytest.raises(OSError, match="No space left"),
        ):
            known.save(folder)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    real = os.replace

    def full(source: Any, target: Any) -> None:
        if str(target).endswith("index.json"):
            raise OSError(28, "No space left on device")
        real(source, target)

    with mock.patch.object(os, "replace", full), pytest.raises(files.WriteError):
        known.save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert len(kinfold.Index.load(folder)) == 3
    known.save(folder)
    assert len(kinfold.Index.load(folder)) == 8


def damage_json(folder: Path) -> None:
    (folder / "index.json").write_text("{")


def other_version(folder: Path) -> None:
    (folder / "index.json").write_text(json.dumps({"format": 99}))


def cut_vectors(folder: Path) -> None:
    path = next(folder.glob("vectors-*"))
    path.write_bytes(path.read_bytes()[:-4])


def cut_items(folder: Path) -> None:
    path = next(folder.glob("items-*"))
    path.write_bytes(path.read_bytes()[:-4])


def no_vectors(folder: Path) -> None:
    next(folder.glob("vectors-*")).unlink()


def fewer_items(folder: Path) -> None:
    path = folder / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"items": 2}))


@pytest.mark.parametrize(
    "damage", [damage_json, other_version, cut_vectors, cut_items, no_vectors, fewer_items]
)
def test_a_damaged_index_is_one_sentence(tmp_path: Path, damage: Any) -> None:
    folder = tmp_path / "index"
    known = kinfold.Index()
    known.add(vectors(3))
    known.save(folder)
    damage(folder)
    with pytest.raises(ValueError, match=r"damaged|of another version"):
        kinfold.Index.load(folder)


def test_folders_that_are_no_index(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no index in"):
        kinfold.Index.load(tmp_path)
    (tmp_path / "photo.jpg").write_text("")
    known = kinfold.Index()
    known.add(vectors(3))
    with pytest.raises(ValueError, match="something else than an index"):
        known.save(tmp_path)
    with pytest.raises(ValueError, match="is a file"):
        known.save(tmp_path / "photo.jpg")


def test_other_models_and_dimensions_are_refused() -> None:
    known = kinfold.Index(model="a" * 64)
    known.add(vectors(3))
    with pytest.raises(ValueError, match=r"vectors of 12 dimensions. Received embeddings of 5"):
        known.add(np.ones((1, 5)))
    with pytest.raises(ValueError, match=r"vectors of 12 dimensions. Received embeddings of 5"):
        known.search(np.ones((1, 5)))
    with pytest.raises(ValueError, match="embeddings of another model"):
        known.check(D, "b" * 64)
    known.check(D, "a" * 64)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"ids": [1, 1, 2]}, ValueError, "must all be different. Received 1 twice"),
        ({"ids": [1, 2]}, ValueError, "Received 2 ids and 3 embeddings"),
        ({"ids": [1, "b", 2]}, TypeError, "all integers or all strings"),
        ({"ids": [1.5, 2, 3]}, TypeError, "Received 1.5"),
        ({"ids": [True, False, True]}, TypeError, "Received True"),
        ({"labels": [1.5, 2, 3]}, TypeError, "`labels` must be integers, strings"),
        ({"labels": [1]}, ValueError, "Received 1 labels and 3 embeddings"),
        ({"metadata": [{"a": object()}, None, None]}, TypeError, "what JSON can hold"),
        ({"metadata": {"a": [1, 2]}}, ValueError, "The metadata 'a' must have one value"),
        ({"metadata": ["x", "y", "z"]}, TypeError, "`metadata` must be dictionaries"),
        ({"embeddings": np.ones(3)}, ValueError, "one embedding per row"),
        ({"embeddings": np.full((3, 2), np.nan)}, ValueError, "`embeddings` must be finite"),
    ],
)
def test_bad_items(given: dict[str, Any], error: type[Exception], message: str) -> None:
    known = kinfold.Index()
    with pytest.raises(error, match=message):
        known.add(**{"embeddings": vectors(3), **given})
    assert len(known) == 0


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"k": 0}, ValueError, "`k` must be at least 1"),
        ({"k": 2.5}, TypeError, "whole number"),
        ({"queries": np.ones(D)}, ValueError, "`queries` must hold one embedding per row"),
        ({"where": "label"}, TypeError, "must be a dictionary"),
    ],
)
def test_bad_searches(given: dict[str, Any], error: type[Exception], message: str) -> None:
    known = kinfold.Index()
    known.add(vectors(3))
    with pytest.raises(error, match=message):
        known.search(**{"queries": vectors(1), **given})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"engine": "fais"}, "Did you mean faiss"),
        ({"compress": "int4"}, "`compress` must be None, 'int8' or 'binary'"),
        ({"engine": "faiss", "compress": "int8"}, "for the engine exact"),
        ({"options": {"factory": "Flat"}}, "takes the options none"),
        ({"engine": "milvus", "options": {"url": "x"}}, "collection, token, uri. Received: url"),
        ({"distance": "cosin"}, "Unknown distance"),
    ],
)
def test_bad_indexes(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kinfold.Index(**given)


@pytest.fixture(params=["faiss", "milvus"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """An engine that keeps what it has built, and that searches however few items there are."""
    if request.param == "milvus":
        pytest.importorskip("milvus_lite")
    monkeypatch.setattr(index, "_FEW", 1)
    return str(request.param)


@contextlib.contextmanager
def counted_adds(engine: str) -> Iterator[mock.Mock]:
    """Counts how often vectors are given to the engine: never, where it has them already."""
    kind = {"faiss": choice.Faiss, "milvus": choice.Milvus}[engine]
    with mock.patch.object(kind, "add", autospec=True, side_effect=kind.add) as adds:
        yield adds


def found_again(folder: Path, adds: int, expected: np.ndarray) -> kinfold.Index:
    """A later process's index, whose engine was given vectors so many times to find its items.

    What is restored is not kept once more: it takes as long as the graph is large.
    """
    again = kinfold.Index.load(folder)
    kind = {"faiss": choice.Faiss, "milvus": choice.Milvus}[again.engine]
    keeping = mock.patch.object(kind, "keep", autospec=True, side_effect=kind.keep)
    with counted_adds(again.engine) as counted, keeping as kept:
        assert (again.search(expected, 1).ids[:, 0] == again.ids).all()
    assert counted.call_count == kept.call_count == adds
    return again


def saved(engine: str, x: np.ndarray, folder: Path) -> kinfold.Index:
    known = kinfold.Index(engine=engine)
    known.add(x)
    known.save(folder)
    return known


def closed(known: kinfold.Index) -> None:
    known._forget_engine()  # as at the end of a process


def test_an_engine_is_built_once(tmp_path: Path, engine: str) -> None:
    x = vectors(40)
    known = saved(engine, x[:30], tmp_path)
    known.build()
    closed(known)
    again = found_again(tmp_path, 0, x[:30])

    again.add(x[30:])
    assert (again.search(x, 1).ids[:, 0] == np.arange(40)).all()
    closed(again)  # unsaved: what was kept is of the thirty, or gone
    again = found_again(tmp_path, {"faiss": 0, "milvus": 1}[engine], x[:30])

    again.add(x[30:])
    again.save(tmp_path)
    closed(again)
    again = found_again(tmp_path, 0, x)

    again.remove(list(range(10)))
    again.save(tmp_path)
    assert (again.search(x[10:], 1).ids[:, 0] == np.arange(10, 40)).all()
    closed(again)
    closed(found_again(tmp_path, 1, x[10:]))
    closed(found_again(tmp_path, 0, x[10:]))


def test_an_engine_that_another_index_left_is_not_taken(tmp_path: Path, engine: str) -> None:
    for seed in (0, 1):
        x = vectors(40, seed)
        known = saved(engine, x, tmp_path)
        with counted_adds(engine) as counted:
            assert (known.search(x, 1).ids[:, 0] == np.arange(40)).all()
        assert counted.call_count == 1
        closed(known)
        closed(found_again(tmp_path, 0, x))


def test_an_index_answers_while_another_process_saves_it_anew(tmp_path: Path, engine: str) -> None:
    x = vectors(40)
    first = saved(engine, x[:30], tmp_path)
    first.build()
    second = kinfold.Index.load(tmp_path)
    second.add(x[30:])
    second.save(tmp_path)
    second.build()
    assert (first.search(x[:30], 1).ids[:, 0] == np.arange(30)).all()
    assert (second.search(x, 1).ids[:, 0] == np.arange(40)).all()


def test_a_graph_that_is_damaged_or_cannot_be_kept_is_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "_FEW", 1)
    x = vectors(40)
    known = saved("faiss", x, tmp_path)
    with mock.patch.object(files.os, "replace", side_effect=OSError("no room")):
        known.search(x, 1)
    assert not list(tmp_path.glob("*faiss*"))
    found_again(tmp_path, 1, x)
    (graph,) = tmp_path.glob("faiss-*.index")
    graph.write_bytes(graph.read_bytes()[:100])
    found_again(tmp_path, 1, x)
    graph.rename(tmp_path / graph.name.replace("faiss-", "faiss-0"))  # of another version
    found_again(tmp_path, 1, x)
    known.save(tmp_path)
    assert len(list(tmp_path.glob("faiss-*.index"))) == 1


def test_a_collection_that_is_not_ours_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    milvus_lite = pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    monkeypatch.setattr(index, "_FEW", 1)
    uri = str(tmp_path / "milvus.db")
    client = milvus_lite.MilvusClient(uri=uri)
    for name in ("theirs", "kinfold_0123456789ab"):
        client.create_collection(name, dimension=12)
    client.close()
    other = kinfold.Index(engine="milvus", options={"uri": uri, "collection": "theirs"})
    other.add(vectors(3))
    with pytest.raises(ValueError, match=r"'theirs' at .+ is not of Kinfold"):
        other.search(vectors(1), 1)
    known = kinfold.Index(engine="milvus", options={"uri": uri})
    known.add(vectors(3))
    known.search(vectors(3), 1)
    there = known._engine.client.list_collections()  # type: ignore[union-attr]
    assert {"theirs", "kinfold_0123456789ab"} < set(there)


def test_an_unknown_factory_of_faiss() -> None:
    known = kinfold.Index(engine="faiss", options={"factory": "Nonsense"})
    known.add(vectors(3))
    with mock.patch.object(index, "_FEW", 1), pytest.raises(ValueError, match="knows no index"):
        known.search(vectors(1), 1)


def test_the_automatic_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "EXACT_UP_TO", 100)
    monkeypatch.setattr(index, "_FEW", 1)
    known = kinfold.Index()
    known.add(vectors())
    with pytest.warns(UserWarning, match="FAISS searches it"):
        known.search(vectors(1), 1)
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: None)
    known = kinfold.Index()
    known.add(vectors())
    with pytest.warns(UserWarning, match=r"pip install kinfold\[faiss\]"):
        known.search(vectors(1), 1)


def test_many_items_of_which_a_filter_leaves_many(made: Any) -> None:
    """A filter that the engine has to heed, since the index does not compare all it leaves."""
    x = vectors(600)
    known = made()
    known.add(x, labels=np.arange(600) % 12)
    found = known.search(x[:12], 5, where={"label": list(range(6))})
    assert (found.labels < 6).all()
    rows = np.flatnonzero(np.arange(600) % 12 < 6)
    expected = rows[sorted_rows("cosine", x[:12], x[rows])[0][:, :5]]
    assert np.mean(found.ids == expected) >= 0.9


def test_the_index_keeps_its_own_vectors() -> None:
    x = vectors(5)
    known = kinfold.Index()
    known.add(x)
    x[:] = 99
    np.testing.assert_array_equal(known.vectors(), vectors(5))
    known.ids[0] = 7
    assert known.ids.tolist() == [0, 1, 2, 3, 4]
    known.remove([])
    assert len(known) == 5


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "inner_product"])
@pytest.mark.parametrize("compress", ["int8", "binary"])
def test_codes_of_vectors_that_lie_off_the_origin(
    monkeypatch: pytest.MonkeyPatch, compress: str, distance: str
) -> None:
    monkeypatch.setattr(index, "_FEW", 1)
    x, queries = vectors(2000) + 10, vectors(50, 1) + 10
    found = []
    for given in (compress, None):
        known = kinfold.Index(distance, "exact", compress=given)
        known.add(x)
        found.append(known.search(queries, 5).ids)
    same = [len(set(a) & set(b)) for a, b in zip(*found, strict=True)]
    assert np.mean(same) / 5 >= (0.99 if compress == "int8" else 0.8)


@pytest.mark.parametrize("scale", [1e-24, 1e24])
@pytest.mark.parametrize("given", [{"engine": "faiss"}, {"compress": "int8"}])
def test_any_norm_under_cosine(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], scale: float
) -> None:
    monkeypatch.setattr(index, "_FEW", 1)
    known = kinfold.Index(**given)
    known.add(vectors() * scale)
    assert (known.search(vectors()[:20] * scale, 1).ids[:, 0] == np.arange(20)).all()


def test_a_first_batch_far_away_spoils_nothing() -> None:
    known = kinfold.Index()
    known.add(np.full((1, 8), 1e8))
    known.search(np.ones((1, 8)), 1)
    x = np.random.default_rng(0).normal(size=(500, 8))
    known.add(x)
    assert (known.search(x, 1).ids[:, 0] == np.arange(1, 501)).all()


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text('{"my": 1}')
    (tmp_path / "vectors-mine.npy").write_text("mine")
    known = kinfold.Index()
    known.add(vectors(3))
    with pytest.raises(ValueError, match=r"index.json is not of an index"):
        known.save(tmp_path)
    assert (tmp_path / "vectors-mine.npy").read_text() == "mine"


def test_a_token_is_not_saved(tmp_path: Path) -> None:
    known = kinfold.Index(engine="milvus", options={"uri": "x.db", "token": "secret"})
    known.add(vectors(3))
    known.save(tmp_path / "i")
    assert "secret" not in (tmp_path / "i" / "index.json").read_text()


def test_labels_and_metadata_that_could_not_be_saved() -> None:
    known = kinfold.Index()
    known.add(vectors(2), labels=[1, 2])
    with pytest.raises(TypeError, match="labels of an index must be all integers or all strings"):
        known.add(vectors(1), labels=["a"])
    with pytest.raises(TypeError, match="named by strings"):
        known.add(vectors(1), metadata=[{1: "a"}])
    with pytest.raises(TypeError, match="`ids` must be"):
        known.add(vectors(1), ids=[2**63])


def test_an_index_of_faiss_that_cannot_serve_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_FEW", 1)
    known = kinfold.Index(engine="faiss", options={"factory": "IVF1024,Flat"})
    known.add(vectors(600))
    with pytest.raises(ValueError, match="of FAISS cannot be used here"):
        known.search(vectors(1), 1)
