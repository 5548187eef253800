"""pytorch-metric-learning's losses with weights, losses made of losses, and samplers."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from cases import batch
from golden_cases import Golden, cases
from kinfold.compat.pytorch_metric_learning import losses, miners, reducers, regularizers, samplers
from native import assert_close, number, value_and_gradients

WITH_WEIGHTS = [golden for golden in cases("pml_arguments") if "with_weights" in golden.case]
PROTOTYPES = [golden for golden in cases("prototypes") if golden.get("w") is not None]


def with_prototypes(name: str, w: np.ndarray, d: int, **kwargs: Any) -> Any:
    size = "descriptors_dim" if name == "P2SGradLoss" else "embedding_size"
    loss = getattr(losses, name)(num_classes=len(w), **{size: d}, **kwargs)
    assign(loss, w)
    return loss


def assign(loss: Any, w: np.ndarray) -> None:
    """Give a loss prototypes [classes, d] or [classes, centers, d], in the peer's shape."""
    (variable,) = loss.trainable_variables
    rows = w.reshape(-1, w.shape[-1])
    variable.assign(rows if loss.rows_are_classes else rows.T)


@pytest.mark.parametrize("golden", PROTOTYPES, ids=str)
def test_losses_with_weights(golden: Golden) -> None:
    x = golden["x"].astype("float32")
    arguments = golden.case["arguments"]
    loss = with_prototypes(golden.case["loss"], golden["w"], x.shape[1], **arguments)
    value, (dx,) = value_and_gradients(lambda x: loss(x, golden["y"]), x)
    assert_close(value, golden["value"], 1e-5)
    assert_close(dx, golden["dx"], 1e-4)


@pytest.mark.parametrize("golden", WITH_WEIGHTS, ids=lambda golden: golden.case["with_weights"])
def test_a_miner_weighs_examples(golden: Golden) -> None:
    x, chosen = golden["x"].astype("float32"), [golden[f"t{i}"] for i in range(3)]
    kind = golden.case["with_weights"]
    loss = with_prototypes(kind, golden["w"], x.shape[1], **golden.case["kwargs"])
    value, (dx,) = value_and_gradients(lambda x: loss(x, golden["y"], chosen), x)
    assert_close(value, golden["value"], 1e-5)
    assert_close(dx, golden["dx"], 1e-4)


def test_reducers_and_regularizers_of_losses_with_weights() -> None:
    y, x = batch(12)
    y = y % 3
    loss = losses.CosFaceLoss(3, x.shape[1])
    w = ops.convert_to_numpy(loss.prototypes)

    def other(**kwargs: Any) -> Any:
        return with_prototypes("CosFaceLoss", w, x.shape[1], **kwargs)

    assert_close(number(other(reducer=reducers.MeanReducer())(x, y)), number(loss(x, y)), 1e-5)
    found = other(reducer=reducers.DoNothingReducer())(x, y)["loss"]
    rows, weights = ops.convert_to_numpy(found["losses"]), np.array([0.5, 2.0, 1.0])
    weighted = other(reducer=reducers.ClassWeightedReducer(weights))
    assert_close(number(weighted(x, y)), np.mean(rows * weights[y]), 1e-5)
    regularized = other(
        weight_regularizer=regularizers.LpRegularizer(),
        weight_reg_weight=2.0,
        embedding_regularizer=regularizers.LpRegularizer(p=1),
    )
    added = 2 * np.linalg.norm(w, axis=1).mean() + np.abs(x).sum(1).mean()
    assert_close(number(regularized(x, y)) - number(loss(x, y)), added, 1e-4)
    with pytest.raises(ValueError, match="CosFaceLoss takes no ref_emb"):
        loss(x, y, ref_emb=x.copy(), ref_labels=y.copy())
    with pytest.raises(NotImplementedError, match="takes no other reducer"):
        losses.ProxyAnchorLoss(3, 4, reducer=reducers.MeanReducer())


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="parameters are PyTorch's")
def test_an_optimizer_of_pytorch_trains_the_weights() -> None:
    import torch

    y, x = (torch.tensor(part) for part in batch(12))
    loss = losses.ArcFaceLoss(num_classes=4, embedding_size=x.shape[1], scale=8).to("cpu")
    both = losses.MultipleLosses([loss, losses.TripletMarginLoss()])
    (parameter,) = both.parameters()
    assert list(loss.state_dict()) == ["W"]
    before = loss(x, y % 4).item()
    optimizer = torch.optim.SGD(both.parameters(), lr=0.1)
    both(x, y % 4).backward()
    assert parameter.grad.abs().sum() > 0
    optimizer.step()
    assert loss(x, y % 4).item() < before


def test_sums_of_losses() -> None:
    y, x = batch(12)
    one, other = losses.ContrastiveLoss(), losses.TripletMarginLoss()
    miner = miners.BatchHardMiner()
    alone, mined = number(one(x, y)), number(other(x, y, miner(x, y)))
    for given in (
        {"losses": [one, other], "miners": [None, miner], "weights": [1, 0.5]},
        {
            "losses": {"a": one, "b": other},
            "miners": {"b": miner},
            "weights": {"a": 1, "b": 0.5},
        },
    ):
        assert_close(number(losses.MultipleLosses(**given)(x, y)), alone + 0.5 * mined, 1e-6)
    both = losses.MultipleLosses([one, other])
    chosen = miner(x, y)
    right = number(one(x, y, chosen)) + number(other(x, y, chosen))
    assert_close(number(both(x, y, chosen)), right, 1e-6)
    for wrong in ({"weights": [1]}, {"miners": [miner]}, {"miners": {"a": miner}}):
        with pytest.raises(ValueError, match="must be like `losses`"):
            losses.MultipleLosses([one, other], **wrong)
    with pytest.raises(ValueError, match="not both"):
        losses.MultipleLosses([one], [miner])(x, y, chosen)


def test_two_views_of_each_example() -> None:
    _, x = batch(6)
    other, labels = x[::-1].copy(), np.arange(len(x))
    loss = losses.NTXentLoss(temperature=0.5)
    both = number(loss(np.concatenate([x, other]), np.concatenate([labels, labels])))
    assert_close(number(losses.SelfSupervisedLoss(loss)(x, other)), both, 1e-6)
    one_way = number(loss(x, labels, None, other, labels.copy()))
    got = number(losses.SelfSupervisedLoss(loss, symmetric=False)(x, other))
    assert_close(got, one_way, 1e-6)
    with pytest.raises(ValueError, match="two views of the same examples"):
        losses.SelfSupervisedLoss(loss)(x, other[:-1])


LABELS = np.repeat(np.arange(6), [5, 3, 8, 1, 4, 9])


def test_m_per_class() -> None:
    keras.utils.set_random_seed(2)
    sampler = samplers.MPerClassSampler(LABELS, 4, batch_size=12, length_before_new_iter=100)
    found = np.array(list(sampler))
    assert len(found) == len(sampler) == 96
    for rows in found.reshape(-1, 3, 4):
        classes = LABELS[rows]
        assert np.all(classes == classes[:, :1])
        assert len(np.unique(classes[:, 0])) == 3
        assert all(len(set(row)) == min(4, np.sum(LABELS[row[0]] == LABELS)) for row in rows)
    assert list(sampler) != found.tolist()  # every pass draws anew
    free = samplers.MPerClassSampler(LABELS, 2, length_before_new_iter=100)
    assert len(list(free)) == len(free) == 96
    with pytest.raises(ValueError, match="must be a multiple of m"):
        samplers.MPerClassSampler(LABELS, 5, batch_size=12)
    with pytest.raises(ValueError, match="at most m times the number of classes, 12"):
        samplers.MPerClassSampler(LABELS, 2, batch_size=14)


def test_batches_of_super_classes() -> None:
    levels = np.stack([LABELS, LABELS // 2], axis=1)
    sampler = samplers.HierarchicalSampler(levels, 8, 2, batches_per_super_tuple=3)
    batches = list(sampler)
    assert len(batches) == len(sampler) == 9  # three pairs of super-classes
    for rows in batches:
        above, number_of = np.unique(levels[rows, 1], return_counts=True)
        assert len(above) == 2
        assert np.all(number_of <= 4)
        assert np.all(np.unique(LABELS[rows], return_counts=True)[1] % 2 == 0)
    with pytest.raises(ValueError, match="multiple of super_classes_per_batch"):
        samplers.HierarchicalSampler(levels, 9, 2)
    with pytest.raises(ValueError, match="multiple of samples_per_class"):
        samplers.HierarchicalSampler(levels, 8, 3)


def test_triplets_drawn_once() -> None:
    sampler = samplers.FixedSetOfTriplets(LABELS, 20)
    found = np.array(list(sampler)).reshape(-1, 3)
    assert len(sampler) == 60
    y = LABELS[found]
    assert np.all((y[:, 0] == y[:, 1]) & (y[:, 0] != y[:, 2]))
    again = np.array(list(sampler)).reshape(-1, 3)
    assert sorted(map(tuple, again)) == sorted(map(tuple, found))
    with pytest.raises(ValueError, match=r"two classes\. Received 1"):
        samplers.FixedSetOfTriplets(np.zeros(4, int), 2)
