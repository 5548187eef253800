"""pytorch-metric-learning's weights, memory, testers and search, and losses of one's own."""

import contextlib
import os
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from cases import batch
from golden_cases import Golden, cases
from kinfold.compat.pytorch_metric_learning import (
    distances,
    losses,
    miners,
    reducers,
    regularizers,
    samplers,
    testers,
)
from kinfold.compat.pytorch_metric_learning.utils import accuracy_calculator, distributed, inference
from native import assert_close, float64, number, value_and_gradients

CASES = cases("pml_names")
JAX = keras.backend.backend() == "jax"
TORCH = keras.backend.backend() == "torch"


def of(kind: str) -> list[Golden]:
    return [golden for golden in CASES if kind in golden.case]


def reducer_of(golden: Golden) -> Any:
    kind = golden.case["reducer"]
    return kind and getattr(reducers, kind)(**golden.case.get("kwargs", {}))


@pytest.mark.parametrize("golden", of("weights"), ids=lambda golden: golden.case["weights"])
def test_weights_have_the_peers_shape_and_gradient(golden: Golden) -> None:
    kind, kwargs = golden.case["weights"], dict(golden.case["kwargs"])
    if "distance" in kwargs:
        kwargs["distance"] = getattr(distances, kwargs["distance"])()
    size = {"descriptors_dim" if kind == "P2SGradLoss" else "embedding_size": 5}
    x, y, w = golden["x"].astype("float32"), golden["y"], golden["w"].astype("float32")
    loss = getattr(losses, kind)(num_classes=4, **size, **kwargs)
    (variable,) = loss.trainable_variables
    assert variable.shape == w.shape
    variable.assign(w)
    value, (dx,) = value_and_gradients(lambda x: loss(x, y), x)
    assert_close(value, golden["value"], 1e-5)
    assert_close(dx, golden["dx"], 1e-4)
    assert_close(gradient_of_weights(loss, x, y), golden["dw"], 1e-4)
    if golden.get("logits") is not None:
        assert_close(ops.convert_to_numpy(loss.get_logits(x)), golden["logits"], 1e-5)


def gradient_of_weights(loss: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    (variable,) = loss.trainable_variables
    if TORCH:
        loss(x, y).backward()
        return variable.value.grad.numpy()
    if JAX:
        import jax

        def of_weights(w: Any) -> Any:
            with keras.StatelessScope(state_mapping=[(variable, w)]):
                return loss(x, y)

        return np.asarray(jax.grad(of_weights)(variable.value))
    import tensorflow as tf

    with tf.GradientTape() as tape:
        value = loss(x, y)
    return tape.gradient(value, variable.value).numpy()


@pytest.mark.skipif(not TORCH, reason="parameters are PyTorch's")
def test_the_peers_state_and_gradient_on_pytorch() -> None:
    import torch

    (golden,) = (g for g in of("weights") if g.case["weights"] == "P2SGradLoss")
    loss = losses.P2SGradLoss(5, 4)
    loss.load_state_dict({"weight": torch.tensor(golden["w"], dtype=torch.float32)})
    loss(torch.tensor(golden["x"], dtype=torch.float32), torch.tensor(golden["y"])).backward()
    np.testing.assert_allclose(loss.weight.grad.numpy(), golden["dw"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(loss.weight.detach().norm(dim=0).numpy(), 1, rtol=1e-6)
    filled = losses.ArcFaceLoss(4, 5, weight_init_func=torch.nn.init.ones_)
    assert filled.W.shape == (5, 4)
    assert bool((filled.W == 1).all())


def test_weights_begin_as_asked_for() -> None:
    loss = losses.ProxyNCALoss(3, 4, weight_init_func=keras.initializers.Constant(2.0))
    assert np.all(ops.convert_to_numpy(loss.prototypes) == 2)
    with pytest.raises(TypeError, match="an initializer of Keras"):
        losses.ProxyNCALoss(3, 4, weight_init_func=3)
    with pytest.raises(NotImplementedError, match="compares by CosineSimilarity"):
        losses.ArcFaceLoss(3, 4, distance=distances.LpDistance())


def test_outliers() -> None:
    loss = losses.SubCenterArcFaceLoss(2, 2, sub_centers=2)
    centers = np.array([[[1, 0], [-1, 0]], [[0, 1], [0, -1]]], "float32")
    loss.trainable_variables[0].assign(centers.reshape(4, 2).T)
    x = np.array([[2, 0.1], [1, 0], [-1, 0], [0, 3], [0.9, 0.1]], "float32")
    outliers, dominant = loss.get_outliers(x, np.array([0, 0, 0, 1, 1]), threshold=75)
    assert ops.convert_to_numpy(outliers).tolist() == [2, 4]
    assert ops.convert_to_numpy(dominant).tolist() == [[1, 0], [0, 1]]
    only = loss.get_outliers(x, np.array([0, 0, 0, 1, 1]), return_dominant_centers=False)
    assert ops.convert_to_numpy(only).tolist() == [2, 4]


@pytest.mark.parametrize(
    "golden", of("pairs"), ids=lambda g: f"{g.case['pairs']}-{g.case['reducer']}"
)
def test_a_miners_pairs(golden: Golden) -> None:
    loss = getattr(losses, golden.case["pairs"])(reducer=reducer_of(golden))
    chosen = tuple(golden[f"t{i}"] for i in range(4))
    with float64():
        value, (dx,) = value_and_gradients(lambda x: loss(x, golden["y"], chosen), golden["x"])
    assert_close(value, golden["value"], 1e-9)
    assert_close(dx, golden["dx"], 1e-7)


@pytest.mark.parametrize(
    "golden", of("memory"), ids=lambda g: f"{g.case['memory']}-{g.case['miner']}"
)
def test_a_memory(golden: Golden) -> None:
    miner = golden.case["miner"]
    with float64():
        memory = losses.CrossBatchMemory(
            getattr(losses, golden.case["memory"])(),
            golden["x"].shape[2],
            memory_size=27,
            miner=getattr(miners, miner)() if miner else None,
        )
        for x, y, value, dx in zip(*(golden[k] for k in ("x", "y", "value", "dx")), strict=True):
            if JAX:  # whose gradients cannot be written down
                assert_close(number(memory(x, y)), value, 1e-6)
                continue
            got, (gradient,) = value_and_gradients(lambda x, y=y: memory(x, y), x)
            assert_close(got, value, 1e-6)
            assert_close(gradient, dx, 1e-5)


def test_what_a_memory_takes() -> None:
    y, x = batch(12)
    memory = losses.CrossBatchMemory(losses.ContrastiveLoss(), x.shape[1], memory_size=20)
    mask = np.arange(12) < 5
    memory(x, y, enqueue_mask=mask)
    assert memory.queue_idx == 5
    assert np.array_equal(ops.convert_to_numpy(memory.label_memory)[:5], y[mask])
    with pytest.raises(ValueError, match="not both"):
        memory(x, y, (y, y, y), mask)
    with pytest.raises(ValueError, match="must fit into the memory of 4"):
        losses.CrossBatchMemory(losses.ContrastiveLoss(), x.shape[1], memory_size=4)(x, y)
    with pytest.raises(
        TypeError, match=r"CrossBatchMemory is for AngularLoss.*Received: NPairsLoss"
    ):
        losses.CrossBatchMemory(losses.NPairsLoss(), 4)


@pytest.mark.parametrize("golden", of("vicreg"), ids=lambda g: str(g.case["reducer"]))
def test_vicreg(golden: Golden) -> None:
    loss = losses.VICRegLoss(**golden.case["vicreg"], reducer=reducer_of_name(golden))
    with float64():
        value, (dx, dr) = value_and_gradients(
            lambda x, r: loss(x, ref_emb=r), golden["x"], golden["r"]
        )
    assert_close(value, golden["value"], 1e-9)
    assert_close(dx, golden["dx"], 1e-7)
    assert_close(dr, golden["dr"], 1e-7)
    with pytest.raises(ValueError, match="takes no labels"):
        loss(golden["x"], np.arange(12), ref_emb=golden["r"])
    with pytest.raises(ValueError, match="takes no distance"):
        losses.VICRegLoss(distance=distances.LpDistance())


def reducer_of_name(golden: Golden) -> Any:
    kind = golden.case["reducer"]
    return kind and getattr(reducers, kind)()


@pytest.mark.parametrize("golden", of("soft_margin"), ids=lambda g: str(g.case["soft_margin"]))
def test_dynamic_soft_margin(golden: Golden) -> None:
    def call(loss: Any, x: Any) -> Any:
        return loss(x, golden["y"]) if golden.case["soft_margin"] else loss(x, ref_emb=golden["r"])

    with float64():
        loss = losses.DynamicSoftMarginLoss(num_bins=8)
        if JAX:
            assert_close(number(call(loss, golden["x"])), golden["value"], 1e-6)
            return
        value, (dx,) = value_and_gradients(lambda x: call(loss, x), golden["x"])
        assert_close(value, golden["value"], 1e-6)
        if golden.case["soft_margin"]:
            assert_close(dx, golden["dx"], 1e-5)
        assert_close(ops.convert_to_numpy(loss.hist_), golden["hist"], 1e-5)
        again, _ = value_and_gradients(lambda x: call(loss, x), golden["x"])  # the peer fails
        assert np.isfinite(again)


class OfOnesOwn(losses.BaseMetricLossFunction):
    """As one writes it for the peer."""

    def compute_loss(self, embeddings: Any, labels: Any, indices: Any, ref: Any, _: Any) -> Any:
        mat = self.distance(embeddings, ref)
        losses_ = ops.mean(mat, axis=1)
        where = ops.arange(losses_.shape[0])
        return {"loss": {"losses": losses_, "indices": where, "reduction_type": "element"}}

    def get_default_distance(self) -> Any:
        return distances.CosineSimilarity()


class Pairs(losses.WeightRegularizerMixin, losses.GenericPairLoss):
    """Hinges, of a matrix or of lists."""

    def compute_loss(self, *args: Any) -> Any:
        found = super().compute_loss(*args)
        self.add_weight_regularization_to_loss_dict(found, np.ones((2, 3), "float32"))
        return found

    def _compute_loss(self, *given: Any) -> Any:
        if self.of_matrix:
            mat, near, far = given
            total = ops.sum(mat * near) - ops.sum(mat * far)
        else:
            near, far, _ = given
            total = ops.sum(near) - ops.sum(far)
        return {"loss": {"losses": total, "indices": None, "reduction_type": "already_reduced"}}


def test_losses_of_ones_own() -> None:
    y, x = batch(12)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    rows = (unit @ unit.T).mean(1)
    assert_close(number(OfOnesOwn()(x, y)), rows.mean(), 1e-5)
    loss = OfOnesOwn(
        reducer=reducers.SumReducer(), embedding_regularizer=regularizers.LpRegularizer()
    )
    assert_close(number(loss(x, y)), rows.sum() + np.linalg.norm(x, axis=1).mean(), 1e-5)
    norms = regularizers.LpRegularizer()
    one, other = (
        Pairs(mat_based_loss=of_matrix, weight_regularizer=norms)(x, y)
        for of_matrix in (True, False)
    )
    assert_close(number(one), number(other), 1e-5)
    d = np.linalg.norm(unit[:, None] - unit, axis=-1)
    same = y[:, None] == y
    assert_close(number(one), d[same].sum() - d[~same].sum() + np.sqrt(3), 1e-4)
    with pytest.raises(ValueError, match="one for each embedding"):
        OfOnesOwn()(x, y[:3])


@pytest.mark.parametrize("golden", of("accuracy"), ids=str)
def test_accuracies(golden: Golden) -> None:
    pytest.importorskip("faiss")
    calculator = accuracy_calculator.AccuracyCalculator(**golden.case["accuracy"])
    refs: tuple[Any, ...] = ()
    if golden.case["refs"]:
        refs = golden["r"], golden["ref_y"], golden.case["own"]
    k = golden.case["accuracy"].get("k")
    cut = pytest.warns(UserWarning, match="cuts them off") if k == 3 else contextlib.nullcontext()
    with cut:
        found = calculator.get_accuracy(golden["x"], golden["y"], *refs)
    assert set(found) == set(golden.case["found"])
    for name, value in golden.case["found"].items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
    custom = inference.CustomKNN(distances.LpDistance(normalize_embeddings=False), batch_size=7)
    of_ranks = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
    calculator = accuracy_calculator.AccuracyCalculator(
        include=of_ranks, knn_func=custom, **golden.case["accuracy"]
    )
    with pytest.warns(UserWarning, match="cuts them off") if k == 3 else contextlib.nullcontext():
        found = calculator.get_accuracy(golden["x"], golden["y"], *refs)
    for name in of_ranks:
        np.testing.assert_allclose(found[name], golden.case["found"][name], rtol=1e-5)


class Two(accuracy_calculator.AccuracyCalculator):
    """With a number of one's own, as the peer's pages show it."""

    def calculate_precision_at_2(self, knn_labels: Any, query_labels: Any, **_: Any) -> Any:
        own = query_labels[:, None]
        average = self.avg_of_avgs, self.return_per_class, self.label_comparison_fn
        return accuracy_calculator.precision_at_k(knn_labels, own, 2, *average)

    def requires_knn(self) -> list[str]:
        return [*super().requires_knn(), "precision_at_2"]


def test_numbers_of_ones_own() -> None:
    x, y = np.array([[0.0], [1], [1.5], [9], [8]], "float32"), np.array([0, 0, 1, 1, 1])
    calculator = Two(include=("precision_at_1", "precision_at_2"))
    assert calculator.get_accuracy(x, y) == {"precision_at_1": 0.6, "precision_at_2": 0.6}
    near = accuracy_calculator.AccuracyCalculator(
        include=("precision_at_1",), label_comparison_fn=lambda a, b: abs(a - b) <= 1
    )
    assert near.get_accuracy(x, y) == {"precision_at_1": 1.0}
    lone = accuracy_calculator.AccuracyCalculator(include=("r_precision",))
    assert np.isnan(lone.get_accuracy(x, np.arange(5))["r_precision"])
    with pytest.raises(ValueError, match="Names must be of"):
        Two(include=("recall",))
    with pytest.raises(ValueError, match="must begin with the queries"):
        calculator.get_accuracy(x, y, x[::-1].copy(), y[::-1].copy(), True)
    with pytest.raises(ValueError, match="a label for each embedding"):
        calculator.get_accuracy(x, y[:2])


class Points:
    """A data set of (x, label)."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Any:
        return self.x[i], self.y[i]


def test_testers() -> None:
    y, x = batch(40)
    levels = np.stack([y, y // 2], axis=1)
    model = keras.Sequential([keras.layers.Dense(3)])
    embedded = ops.convert_to_numpy(model(x))
    embedded /= np.linalg.norm(embedded, axis=1, keepdims=True)
    calculator = accuracy_calculator.AccuracyCalculator(include=("precision_at_1", "r_precision"))
    shared: dict[str, Any] = {"accuracy_calculator": calculator, "dataloader_num_workers": 0}
    tester = testers.GlobalEmbeddingSpaceTester(label_hierarchy_level="all", **shared)
    found = tester.test({"test": Points(x, levels)}, 3, model)["test"]
    right = calculator.get_accuracy(embedded, y)
    assert found["epoch"] == 3
    assert found["precision_at_1_level0"] == right["precision_at_1"]
    both = found["precision_at_1_level0"], found["precision_at_1_level1"]
    assert found["AVERAGE_precision_at_1"] == np.mean(both)
    tester = testers.WithSameParentLabelTester(**shared)
    found = tester.test({"test": Points(x, levels)}, 3, model)["test"]
    parts = [
        calculator.get_accuracy(embedded[rows], y[rows])["r_precision"]
        for rows in (levels[:, 1] == parent for parent in np.unique(levels[:, 1]))
    ]
    assert_close(found["r_precision_level0"], np.mean(parts), 1e-9)
    splits = {"a": Points(x[:20], y[:20]), "b": Points(x[20:], y[20:])}
    tester = testers.GlobalEmbeddingSpaceTester(pca=2, **shared)
    found = tester.test(splits, 0, model, splits_to_eval=[("a", ["b", "a"])])
    assert list(found) == ["a"]
    with pytest.raises(ValueError, match="There is no split"):
        tester.test(splits, 0, model, splits_to_eval=[("a", ["c"])])

    class Two(Points):
        def __getitem__(self, i: int) -> Any:
            return self.x[i], self.x[i], self.y[i]

    tester = testers.GlobalTwoStreamEmbeddingSpaceTester(**shared)
    found = tester.test({"test": Two(x, y)}, 0, model)["test"]
    assert found["precision_at_1_level0"] == 1.0  # each is nearest to itself


def test_drawn_as_often_as_a_miner_chooses() -> None:
    y, x = batch(30)
    keras.utils.set_random_seed(0)
    miner = miners.BatchHardMiner()
    sampler = samplers.TuplesToWeightsSampler(
        lambda x: x, miner, Points(x, y), dataloader_num_workers=0, normalize_embeddings=False
    )
    drawn = list(sampler)
    assert len(drawn) == 30
    times = np.bincount(
        np.concatenate([ops.convert_to_numpy(p) for p in miner(x, y)]), minlength=30
    )
    np.testing.assert_allclose(sampler.weights, times / times.max())
    assert all(times[i] for i in drawn)
    few = samplers.TuplesToWeightsSampler(
        lambda x: x, miner, Points(x, y), 10, dataloader_num_workers=0
    )
    assert len(list(few)) == 10


def test_inference(tmp_path: Any) -> None:
    _, x = batch(20)
    model = inference.InferenceModel(lambda x: 2 * x)
    model.train_knn(x, batch_size=7)
    values, at = (ops.convert_to_numpy(part) for part in model.get_nearest_neighbors(x[:5], 3))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    d = ((unit[:5, None] - unit) ** 2).sum(-1)
    assert np.array_equal(at, np.argsort(d, axis=1)[:, :3])
    np.testing.assert_allclose(values, np.sort(d, axis=1)[:, :3], atol=1e-5)
    model.save_knn_func(os.fspath(tmp_path / "index"))
    model.add_to_knn(Points(x, np.arange(20)))
    assert len(ops.convert_to_numpy(model.get_nearest_neighbors(x[:1], 40)[1])[0]) == 40
    model.load_knn_func(os.fspath(tmp_path / "index"))
    again = ops.convert_to_numpy(model.get_nearest_neighbors(x[:5], 3)[1])
    assert np.array_equal(again, at)
    matches = model.get_matches(x[:4])
    assert np.array_equal(matches, unit[:4] @ unit[:4].T >= 0.9)
    assert model.get_matches(x[:4], return_tuples=True) == list(
        zip(*np.nonzero(matches), strict=True)
    )
    assert model.is_match(x[:1], x[:1]) is True
    with pytest.raises(TypeError, match="a dataset of tuples"):
        model.train_knn(3)
    with pytest.raises(ValueError, match="Pass `threshold`"):
        inference.MatchFinder(distances.LpDistance()).is_match(x, x)
    with pytest.raises(NotImplementedError, match="leave `gpus` out"):
        inference.FaissKNN(gpus=[0])


def test_wrappers_in_one_process() -> None:
    y, x = batch(12)
    miner, loss = miners.BatchHardMiner(), losses.TripletMarginLoss()
    chosen = distributed.DistributedMinerWrapper(miner)(x, y)
    got = distributed.DistributedLossWrapper(loss)(x, y, chosen)
    assert number(got) == number(loss(x, y, miner(x, y)))
    memory = losses.CrossBatchMemory(loss, x.shape[1])
    assert_close(number(distributed.DistributedLossWrapper(memory)(x, y)), number(loss(x, y)), 1e-5)
    with pytest.raises(TypeError, match="must be one of `losses`"):
        distributed.DistributedLossWrapper(losses.MultipleLosses([loss]))
    with pytest.raises(ValueError, match="takes no enqueue_mask"):
        distributed.DistributedLossWrapper(loss)(x, y, enqueue_mask=y > 0)
