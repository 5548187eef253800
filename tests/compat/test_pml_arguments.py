"""pytorch-metric-learning's numbers with its distances, reducers, miner's pairs and options."""

import copy
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import kinfold
from cases import batch
from golden_cases import Golden, cases
from kinfold.compat.pytorch_metric_learning import distances, losses, reducers, regularizers
from native import BACKEND, assert_close, float64, number, value_and_gradients

CASES = cases("pml_arguments")
REGULARIZERS = [golden for golden in CASES if "regularizer" in golden.case]
LOSSES = [golden for golden in CASES if "loss" in golden.case]
if BACKEND != "torch":  # which compiles nothing: elsewhere a third of the cases of each loss
    _of = [golden.case["loss"] for golden in LOSSES]
    LOSSES = [g for i, g in enumerate(LOSSES) if _of[:i].count(_of[i]) % 3 == 0]


def built(golden: Golden) -> Any:
    case = golden.case
    kwargs = dict(case["kwargs"])
    if case["distance"]:
        name, given = case["distance"]
        kwargs["distance"] = getattr(distances, name)(**given)
    if case["reducer"]:
        name, given = case["reducer"]
        if name == "MultipleReducers":
            parts = {part: getattr(reducers, kind)() for part, kind in given["reducers"].items()}
            given = {"reducers": parts}
        kwargs["reducer"] = getattr(reducers, name)(**given)
    return getattr(losses, case["loss"])(**kwargs)


@pytest.mark.parametrize("golden", LOSSES, ids=str)
def test_the_peers_numbers(golden: Golden) -> None:
    loss = built(golden)
    parts = (golden.get(f"t{i}") for i in range(4))
    mined = tuple(part for part in parts if part is not None) or None
    inputs, expected = [golden["x"]], [golden["dx"]]
    if golden.case["refs"]:
        inputs, expected = [*inputs, golden["ref_x"]], [*expected, golden["dref"]]

    def of(x: Any, *refs: Any) -> Any:
        return loss(x, golden["y"], mined, *refs, *([golden["ref_y"]] if refs else []))

    with float64():
        value, gradients = value_and_gradients(of, *inputs)
    assert_close(value, golden["value"], 1e-9)
    for got, right in zip(gradients, expected, strict=True):
        assert_close(got, right, 1e-7)


@pytest.mark.parametrize("golden", [g for g in CASES if "manifold" in g.case], ids=str)
def test_manifold_loss(golden: Golden) -> None:
    with float64():
        loss = losses.ManifoldLoss(golden["x"].shape[1], len(golden["w"]), **golden.case["kwargs"])
        (variable,) = loss.trainable_variables
        variable.assign(golden["w"])
        value, (dx,) = value_and_gradients(lambda x: loss(x, None, golden["y"]), golden["x"])
    assert_close(value, golden["value"], 1e-5)  # the peer inverts in float32
    assert_close(dx, golden["dx"], 1e-4)


@pytest.mark.parametrize("golden", REGULARIZERS, ids=lambda golden: golden.case["regularizer"])
def test_regularizers(golden: Golden) -> None:
    regularizer = getattr(regularizers, golden.case["regularizer"])(**golden.case["kwargs"])
    with float64():
        value, (dx,) = value_and_gradients(regularizer, golden["x"])
    assert_close(value, golden["value"], 1e-9)
    assert_close(dx, golden["dx"], 1e-7)
    y, x = batch(12)
    loss = losses.ContrastiveLoss(embedding_regularizer=regularizer, embedding_reg_weight=0.5)
    alone = number(losses.ContrastiveLoss()(x, y))
    if golden.case["regularizer"] != "SparseCentersRegularizer":
        assert_close(number(loss(x, y)) - alone, 0.5 * number(regularizer(x)), 1e-4)


def test_each_element_has_the_weight_of_its_own_class() -> None:
    """The peer multiplies [n, 1] by [n] here, and so every loss by every weight."""
    y, x = batch(12)
    y = y % 3
    loss = losses.CircleLoss(reducer=reducers.DoNothingReducer())
    every = ops.convert_to_numpy(loss(x, y)["loss"]["losses"])
    weights = np.array([0.5, 2.0, 1.0])
    weighted = losses.CircleLoss(reducer=reducers.ClassWeightedReducer(weights))
    assert_close(number(weighted(x, y)), np.mean(every * weights[y]), 1e-5)


def test_elements_without_reduction() -> None:
    y, x = batch(12)
    nothing = reducers.DoNothingReducer()
    found = losses.ContrastiveLoss(reducer=nothing)(x, y)
    assert {name: part["reduction_type"] for name, part in found.items()} == {
        "pos_loss": "pos_pair", "neg_loss": "neg_pair"
    }  # fmt: skip
    means = []
    for name, part in found.items():
        a, b = (ops.convert_to_numpy(i) for i in part["indices"])
        assert np.all((y[a] == y[b]) == (name == "pos_loss"))
        each = ops.convert_to_numpy(part["losses"])
        means.append(each[each > 0].mean())
    assert_close(number(losses.ContrastiveLoss()(x, y)), sum(means), 1e-5)
    for kind in (losses.TripletMarginLoss, losses.MarginLoss):
        (part,) = kind(reducer=nothing)(x, y).values()
        a, p, n = (ops.convert_to_numpy(i) for i in part["indices"])
        assert np.all((y[a] == y[p]) & (y[a] != y[n]) & (a != p))
        each = ops.convert_to_numpy(part["losses"])
        right = number(kind(reducer=reducers.MeanReducer())(x, y))
        assert_close(each.mean(), right, 1e-5)
    (part,) = losses.NPairsLoss(reducer=nothing)(x, y).values()
    each = ops.convert_to_numpy(part["losses"])
    assert_close(each.mean(), number(losses.NPairsLoss()(x, y)), 1e-5)


def test_random_triplets() -> None:
    y, x = batch(12)
    keras.utils.set_random_seed(1)
    loss = losses.TripletMarginLoss(triplets_per_anchor=3, reducer=reducers.DoNothingReducer())
    (part,) = loss(x, y).values()
    a, p, n = (ops.convert_to_numpy(i) for i in part["indices"])
    with_pairs = [i for i in range(12) if (y == y[i]).sum() > 1]
    assert np.array_equal(a, np.repeat(with_pairs, 3))
    assert np.all((y[a] == y[p]) & (y[a] != y[n]) & (a != p))
    keras.utils.set_random_seed(1)
    (again,) = loss(x, y).values()
    assert np.array_equal(ops.convert_to_numpy(again["indices"][2]), n)


def peers(kind: str, **attributes: Any) -> Any:
    """An object of the peer's, which need not be installed."""
    module = "pytorch_metric_learning.of_the_peer"
    return type(kind, (), {"__module__": module, **attributes})()


def test_the_peers_own_objects() -> None:
    y, x = batch(12)
    lp = peers("LpDistance", normalize_embeddings=True, p=1, power=1)
    reducer = peers("ThresholdReducer", low=0.1, high=None)
    got = losses.ContrastiveLoss(distance=peers("BatchedDistance", distance=lp), reducer=reducer)
    ours = losses.ContrastiveLoss(
        distance=distances.LpDistance(p=1), reducer=reducers.ThresholdReducer(low=0.1)
    )
    assert number(got(x, y)) == number(ours(x, y))
    assert number(ours(x, y)) != number(losses.ContrastiveLoss()(x, y))
    with pytest.raises(TypeError, match="`distance` must be one of"):
        losses.ContrastiveLoss(distance=3)
    with pytest.raises(TypeError, match="`reducer` must be one of"):
        losses.ContrastiveLoss(reducer=peers("Unheard"))


def test_a_distance_of_ones_own() -> None:
    class Largest(distances.BaseDistance):
        def compute_mat(self, x: Any, r: Any) -> Any:
            return ops.max(ops.abs(x[:, None] - r[None]), axis=-1)

    y, x = batch(12)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    d = np.abs(unit[:, None] - unit).max(-1)
    same = (y[:, None] == y) & ~np.eye(12, dtype=bool)
    near, far = d[same], np.maximum(0, 1 - d[y[:, None] != y])
    got = number(losses.ContrastiveLoss(distance=Largest())(x, y))
    assert_close(got, near[near > 0].mean() + far[far > 0].mean(), 1e-5)


def test_matrices_of_distances() -> None:
    _, x = batch(9)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    seen = []
    distances.BatchedDistance(
        distances.CosineSimilarity(), lambda mat, *at: seen.append((at, mat)), batch_size=4
    )(x)
    assert [at for at, _ in seen] == [(0, 4), (4, 8), (8, 12)]
    got = np.concatenate([ops.convert_to_numpy(mat) for _, mat in seen])
    np.testing.assert_allclose(got, unit @ unit.T, atol=1e-6)
    assert copy.deepcopy(distances.BatchedDistance(distances.LpDistance())).power == 1


def test_in_a_memory() -> None:
    y, x = batch(12)
    loss = losses.ContrastiveLoss()
    memory = kinfold.CrossBatchMemory(loss, 8, x.shape[1])
    assert_close(number(memory(y, x)), number(loss(x, y)), 1e-6)
    later = number(memory(y, x))
    assert abs(later - number(loss(x, y))) > 1e-4
    with pytest.raises(TypeError, match="the distance and the reducer that it has by itself"):
        kinfold.CrossBatchMemory(losses.ContrastiveLoss(reducer=reducers.MeanReducer()), 8, 4)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="nn.Module is PyTorch's")
def test_modules_of_pytorch() -> None:
    import torch

    loss = losses.MarginLoss(learn_beta=True, num_classes=4, nu=0.1).to("cpu")
    assert isinstance(loss, torch.nn.Module)
    assert list(loss.state_dict()) == ["beta"]
    y, x = batch(12)
    loss(torch.tensor(x), torch.tensor(y % 4)).backward()
    assert loss.beta.grad.abs().sum() > 0


def test_refused() -> None:
    y, x = batch(12)
    i = np.arange(3)
    with pytest.raises(ValueError, match=r"positions from 0 to 11\. Received 0 to 12"):
        losses.TripletMarginLoss()(x, y, (i, i, np.array([0, 1, 12])))
    with pytest.raises(ValueError, match="Received 2 arrays"):
        losses.TripletMarginLoss()(x, y, (i, i))
    with pytest.raises(ValueError, match=r"arrays of one length. Received \[3, 2, 3\]"):
        losses.TripletMarginLoss()(x, y, (i, i[:2], i))
    with pytest.raises(ValueError, match="`labels` or `indices_tuple`"):
        losses.TripletMarginLoss()(x)
    with pytest.raises(ValueError, match="CircleLoss is written for CosineSimilarity"):
        losses.CircleLoss(distance=distances.LpDistance())
    with pytest.raises(NotImplementedError, match="DivisorReducer divides by what MarginLoss"):
        losses.SupConLoss(reducer=reducers.DivisorReducer())(x, y)
    with pytest.raises(NotImplementedError, match="the elements are triplets"):
        losses.TripletMarginLoss(reducer=reducers.PerAnchorReducer())(x, y)
    with pytest.raises(NotImplementedError, match="has no divisor"):
        losses.AngularLoss(reducer=reducers.DivisorReducer())(x, y)
    for loss in (losses.AngularLoss(), losses.NCALoss(), losses.NPairsLoss()):
        with pytest.raises(ValueError, match="needs `labels`"):
            loss(x, indices_tuple=(i, i, i))
