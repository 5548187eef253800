"""Shares of batches and of evaluation, on ranks of torch.distributed, against one process."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kinfold import EmbeddingModel, losses
from kinfold.batches import ClassBalancedBatches, ClassBalancedIndices
from kinfold.callbacks import RetrievalEvaluation
from kinfold.datasets import Split
from kinfold.training.devices.one import Devices
from kinfold.training.hard_negatives import HardNegatives
from kinfold.training.progress import Progress
from native import BACKEND
from rank_processes import on_ranks

pytestmark = pytest.mark.skipif(BACKEND != "torch", reason="a feature of PyTorch alone")

LABELS = np.repeat(np.arange(12), 5)
EXAMPLES = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
EPOCHS = 2


# Every way in which batches are read: (epoch, batch) -> the examples of this process.


def by_indices(seed: int | None) -> list:
    indices = ClassBalancedIndices(LABELS, 5, 3, seed=seed)
    assert len(indices) == 4
    return [[EXAMPLES[rows] for rows in indices] for _ in range(EPOCHS)]


def by_dataset(seed: int | None, workers: int = 1) -> list:
    batches = ClassBalancedBatches(EXAMPLES, LABELS, 5, 3, seed=seed, workers=workers)
    found = []
    for _ in range(EPOCHS):
        found.append([x for x, y in batches])
        batches.on_epoch_end()
    return found


def by_threads(seed: int | None) -> list:
    return by_dataset(seed, workers=3)


def by_sampler(seed: int | None) -> list:
    import torch

    data = torch.utils.data.TensorDataset(torch.tensor(EXAMPLES))
    indices = ClassBalancedIndices(LABELS, 5, 3, seed=seed)
    loader = torch.utils.data.DataLoader(data, batch_sampler=indices)
    assert len(loader) == 4
    return [[x.numpy() for (x,) in loader] for _ in range(EPOCHS)]


def by_workers(seed: int | None) -> list:
    """Worker processes that are started anew have no process group."""
    import torch

    loader = torch.utils.data.DataLoader(
        ClassBalancedBatches(EXAMPLES, LABELS, 5, 3, seed=seed),
        batch_size=None,
        num_workers=1,
        multiprocessing_context="spawn",
    )
    return [[x.numpy() for x, y in loader]]


def by_grain(seed: int | None) -> list:
    import grain

    indices = ClassBalancedIndices(LABELS, 5, 3, seed=seed)
    source = [grain.MapDataset.source(indices.epoch(k)) for k in range(EPOCHS)]
    return [list(one.map(lambda rows: EXAMPLES[rows]).to_iter_dataset()) for one in source]


def by_copy(seed: int | None) -> list:
    """Pickled in one epoch, and read by a rank that has another's copy."""
    import torch.distributed as dist

    batches = ClassBalancedBatches(EXAMPLES, LABELS, 5, 3, seed=seed)
    next(iter(batches))
    told = [pickle.dumps(batches)]
    if dist.is_initialized():
        dist.broadcast_object_list(told, 0)
    copy = pickle.loads(told[0])
    copy.current_epoch = 1
    return [[x for x, y in copy]]


WAYS = [by_indices, by_dataset, by_threads, by_sampler, by_workers, by_grain, by_copy]


def read(rank: int) -> dict[str, Any]:
    return {way.__name__: way(3) for way in WAYS}


def unseeded(rank: int) -> tuple[int, list]:
    indices = ClassBalancedIndices(LABELS, 5, 3)
    assert indices.share == (rank, 2)
    return indices.seed, list(indices)


def other_seeds(rank: int) -> None:
    ClassBalancedIndices(LABELS, 5, 3, seed=rank)


def other_labels(rank: int) -> None:
    ClassBalancedBatches(EXAMPLES, LABELS[:: 1 - 2 * rank] // (1 + rank), 5, 3, seed=0)


def other_sizes(rank: int) -> None:
    ClassBalancedIndices(LABELS, 5, 3 + rank)


def too_small(rank: int) -> None:
    ClassBalancedIndices(LABELS, 1, 1, seed=0)


def whole(rank: int) -> list:
    # The ranks ask each other nothing: they may have different seeds.
    return list(ClassBalancedIndices(LABELS, 5, 3, seed=rank, share=(0, 1)))


class Before:
    """A check with batches that were made before the ranks joined, and pickled for them."""

    __name__ = "before"

    def __init__(self) -> None:
        self.indices = ClassBalancedIndices(LABELS, 5, 3)

    def __call__(self, rank: int) -> list:
        return list(self.indices)


def made_before(rank: int) -> None:
    own = ClassBalancedIndices(LABELS, 5, 3)
    own._seed_is_shared = False  # as if drawn before this rank joined
    next(iter(own))


# RetrievalEvaluation

ROWS = 75
GALLERY = 41


def model_and_callback(rank: int, **kwargs: Any) -> tuple[Any, RetrievalEvaluation]:
    keras.utils.set_random_seed(5)
    rng = np.random.default_rng(1)
    inputs = keras.Input((6,))
    outputs = keras.layers.Dense(3)(keras.layers.BatchNormalization()(inputs))
    model = EmbeddingModel(inputs, outputs)
    # Prototypes that are not the same on every rank, and have other shapes.
    model.compile("sgd", losses.ArcFaceLoss(5, 3, shard_classes=True))
    # Ranks gather averages of their own rows; the model of rank 0 is the one that is measured.
    normalisation = model.layers[1]
    normalisation.moving_mean.assign(np.arange(6) * (1.0 + rank))
    x = rng.normal(size=(ROWS, 6)).astype("float32")
    gallery = rng.normal(size=(GALLERY, 6)).astype("float32")
    x[:, 0] += np.arange(ROWS) % 5
    gallery[:, 0] += np.arange(GALLERY) % 5
    if kwargs.pop("gallery", False):
        kwargs.update(gallery_x=gallery, gallery_y=np.arange(GALLERY) % 5)
    metrics = ("recall@1", "map@r", "mrr", "ndcg@5")
    callback = RetrievalEvaluation(x, np.arange(ROWS) % 5, metrics=metrics, **kwargs)
    callback.set_model(model)
    return model, callback


OPTIONS: list[dict[str, Any]] = [
    {},
    {"batch_size": 10},
    {"batch_size": 4, "gallery": True, "distance": "euclidean"},
    {"batch_size": 100},  # one batch for several ranks
]


def evaluated(rank: int) -> list[dict[str, float]]:
    found = []
    for options in OPTIONS:
        model, callback = model_and_callback(rank, **options)
        rows: list[int] = []
        predict = model.predict

        def counted(x: Any, rows: Any = rows, predict: Any = predict, **kwargs: Any) -> Any:
            rows.append(len(x))
            return predict(x, **kwargs)

        model.predict = counted
        logs: dict[str, float] = {}
        callback.on_train_begin()
        rows.clear()
        callback.on_epoch_end(0, logs)
        averages = model.layers[1].moving_mean.numpy()
        np.testing.assert_array_equal(averages, np.arange(6) * (1.0 + rank))
        found.append({**logs, "rows": sum(rows)})
    return found


def stopped(rank: int) -> tuple[list[int], list[dict]]:
    """Which epochs EarlyStopping and ModelCheckpoint choose, as the weights change."""
    model, callback = model_and_callback(rank)
    stop = keras.callbacks.EarlyStopping("val_map@r", mode="max", patience=2)
    stop.set_model(model)
    stop.on_train_begin()
    seen, epochs = [], []
    for epoch in range(20):
        rng = np.random.default_rng(epoch)
        kernel = rng.normal(size=(6, 3))
        model.layers[2].kernel.assign(kernel)
        logs: dict[str, float] = {}
        callback.on_epoch_end(epoch, logs)
        stop.on_epoch_end(epoch, logs)
        seen.append(logs)
        epochs.append(stop.best_epoch)
        if model.stop_training:
            break
    return epochs, seen


def diverged(rank: int) -> None:
    model, callback = model_and_callback(rank)
    model.layers[2].kernel.assign(np.full((6, 3), np.nan))
    callback.on_epoch_end(0, {})


def other_examples(rank: int) -> None:
    _, callback = model_and_callback(rank)
    if rank:
        callback.task = callback.task._replace(query_classes=callback.task.query_classes[::-1])
    callback.on_epoch_end(0, {})


def collapsed(rank: int) -> list[str]:
    model, callback = model_and_callback(rank)
    model.layers[2].kernel.assign(np.zeros((6, 3)))
    model.layers[2].bias.assign(np.ones(3))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for epoch in range(2):
            callback.on_epoch_end(epoch, {})
    return [str(one.message) for one in told if issubclass(one.category, UserWarning)]


def mined(rank: int) -> list[np.ndarray]:
    """The epochs that hard negatives deal, of a model whose averages are a rank's own."""
    model, _ = model_and_callback(rank)
    x = np.random.default_rng(0).normal(size=(60, 6)).astype("float32")
    train = Split(x, LABELS, tuple("abcdefghijkl"))
    batches = ClassBalancedBatches(x, LABELS, 4, 3, seed=0)
    callback = HardNegatives(model, train, batches, Devices(), Progress())
    epochs = []
    for epoch in range(3):
        callback.on_epoch_begin(epoch)
        epochs.append(batches.indices.epoch(epoch))
    return epochs


def other_tables(rank: int) -> None:
    ClassBalancedIndices(LABELS, 4, 3, seed=0).set_confused(np.full((12, 1), rank))


# Starting a process takes far longer than a check, so two ranks run all checks, one by one.


class Checks:
    """Runs checks and tells what each returns or raises, by its name."""

    __name__ = "checks"

    def __init__(self, *checks: Any) -> None:
        self.checks = checks

    def __call__(self, rank: int) -> dict[str, Any]:
        found = {}
        for check in self.checks:
            try:
                found[check.__name__] = check(rank)
            except Exception as error:
                found[check.__name__] = f"{type(error).__name__}: {error}"
        return found


BEFORE = Before()
REFUSED = {
    other_seeds: "ValueError: The ranks of this run must agree on the seed of the batches. "
    "Rank 0 has 0, and rank 1 has 1.",
    other_labels: "must agree on the labels to deal batches from (a digest). Rank 0 has ",
    other_sizes: "must agree on examples_per_class. Rank 0 has 3, and rank 1 has 4.",
    too_small: "examples_per_class 1, 1 rows in all, for 2 ranks.",
    made_before: "RuntimeError: These batches were made with seed=None before the ranks joined",
    other_examples: "must agree on the labels of the examples to embed",
    other_tables: "ValueError: The ranks of this run must agree on the confused classes (a digest)",
}
CHECKS = Checks(
    read, unseeded, whole, BEFORE, evaluated, stopped, diverged, collapsed, mined, *REFUSED
)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return on_ranks(CHECKS, tmp_path_factory.mktemp("two"))


def test_shares_put_together_are_the_batches_of_one_process(two: list) -> None:
    alone, of_ranks = read(0), [found["read"] for found in two]
    assert [[len(x) for x in found["by_indices"][0]] for found in of_ranks] == [[8] * 4, [7] * 4]
    for way, epochs in alone.items():
        for epoch, batches in enumerate(epochs):
            parts = [found[way][epoch] for found in of_ranks]
            for expected, *shares in zip(batches, *parts, strict=True):
                np.testing.assert_array_equal(np.concatenate(shares), expected, way)


def test_without_a_seed_the_ranks_take_that_of_rank_0(two: list) -> None:
    (seed, first), (other, second) = [found["unseeded"] for found in two]
    assert seed == other
    alone = list(ClassBalancedIndices(LABELS, 5, 3, seed=seed))
    assert [a + b for a, b in zip(first, second, strict=True)] == alone


def test_whole_batches_on_every_rank(two: list) -> None:
    expected = [list(ClassBalancedIndices(LABELS, 5, 3, seed=rank)) for rank in range(2)]
    assert [found["whole"] for found in two] == expected


def test_copies_of_batches_made_before_the_ranks_joined(two: list) -> None:
    first, second = [found["before"] for found in two]
    alone = list(BEFORE.indices)
    assert [a + b for a, b in zip(first, second, strict=True)] == alone


@pytest.mark.parametrize("check", REFUSED)
def test_what_cannot_be_shared_is_refused_on_every_rank(check: Any, two: list) -> None:
    for found in two:
        assert REFUSED[check] in found[check.__name__]


def test_ranks_deal_by_one_table(two: list) -> None:
    alone, other = mined(0), mined(1)
    for epoch, expected in enumerate(alone):
        shares = [found["mined"][epoch] for found in two]
        np.testing.assert_array_equal(np.concatenate(shares, axis=1), expected)
    # The comparison can fail: another rank's averages confuse other classes.
    assert not np.array_equal(alone[1], other[1])


def test_evaluation_is_that_of_one_process(two: list, tmp_path: Path) -> None:
    three = on_ranks(evaluated, tmp_path, 3)
    alone = evaluated(0)
    embedded = [one.pop("rows") for one in alone]
    assert embedded == [ROWS, ROWS, ROWS + GALLERY, ROWS]
    for of_ranks in ([found["evaluated"] for found in two], three):
        for found in of_ranks:
            rows = [one.pop("rows") for one in found]
            assert found == alone  # to the last bit
            # No rank embeds all, where there are batches enough.
            assert all(n < every for n, every in zip(rows[:3], embedded[:3], strict=True))
    # The comparison can fail: another rank's averages give other numbers.
    assert [{**one, "rows": None} for one in alone] != [
        {**one, "rows": None} for one in evaluated(1)
    ]


def test_ranks_stop_at_the_same_epoch(two: list) -> None:
    alone = stopped(0)
    assert len(alone[0]) < 20
    assert [found["stopped"] for found in two] == [alone, alone]


def test_an_error_of_rank_0_reaches_the_others(two: list) -> None:
    message = "ValueError: Epoch 1: the embeddings hold NaN or infinity in 75 of 75"
    assert two[0]["diverged"].startswith(message)
    assert two[1]["diverged"].startswith(f"RuntimeError: Rank 0 stopped with {message}")


def test_a_collapse_is_told_once_by_rank_0(two: list) -> None:
    (told,) = two[0]["collapsed"]
    assert told.startswith("Epoch 1: ")
    assert two[1]["collapsed"] == []
