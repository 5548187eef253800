"""The models of TensorFlow Similarity on each backend."""

import json
import pickle
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import kinfold
from kinfold.compat import tensorflow_similarity as tfsim
from kinfold.compat.tensorflow_similarity.losses import XBM, Barlow, SimCLRLoss, SimSiamLoss, VicReg
from kinfold.compat.tensorflow_similarity.models import (
    ContrastiveModel,
    SimilarityModel,
    create_contrastive_model,
)
from kinfold.compat.tensorflow_similarity.models.heads import get_predictor, get_projector
from kinfold.compat.tensorflow_similarity.retrieval_metrics import RecallAtK

D = 5


def rows(n: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 4
    x = 3 * np.eye(4, D)[y] + rng.normal(size=(n, D))
    return x.astype("float32"), y


def similarity(loss: Any = None, **kwargs: Any) -> SimilarityModel:
    inputs = keras.Input((D,))
    model = SimilarityModel(inputs, tfsim.layers.MetricEmbedding(3)(inputs), name="mine")
    model.compile("sgd", loss or tfsim.losses.TripletLoss("l2"), **kwargs)
    return model


def test_a_similarity_model_trains_and_finds(tmp_path: Path) -> None:
    x, y = rows()
    model = similarity()
    assert isinstance(model, kinfold.EmbeddingModel)
    assert model.index_of().distance.name == "euclidean"
    model.fit(x, y, batch_size=24, epochs=3, verbose=0)
    model.index(x, y, data=x, verbose=0)
    found = model.lookup(x, k=2)
    assert [row[0].label for row in found] == y.tolist()
    np.testing.assert_array_equal(found[5][0].data, x[5])
    assert model.single_lookup(x[5], k=2)[0].label == y[5]
    queries, truth = rows(12, seed=1)
    embedded = model.predict(queries, verbose=0)
    distances = np.linalg.norm(embedded[:, None] - model.predict(x, verbose=0), axis=2)
    right = y[distances.argmin(1)] == truth
    told = model.evaluate_retrieval(queries, truth, [RecallAtK(k=1)], verbose=0)
    assert told["recall@1"] == pytest.approx(right.mean())
    with pytest.raises(ValueError, match="calibrate"):
        model.evaluate_classification(queries, truth)
    model.calibrate(queries, truth, {"some": 0.5}, verbose=0)
    assert np.mean(np.array(model.match(queries)) == truth) > 0
    assert set(model.match(queries, cutpoint="all")) == {"optimal", "some"}
    rates = model.evaluate_classification(queries, truth, verbose=0)
    assert set(rates["optimal"]) == {"distance", "precision", "recall", "f1", "name"}
    with pytest.raises(ValueError, match="`cutpoint` must be"):
        model.match(queries, cutpoint="best")

    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(again, SimilarityModel)
    assert again.index_of().distance.name == "euclidean"
    assert again.index_size() == 0
    again.load_index(tmp_path / "model.keras", verbose=0)
    assert again.index_size() == 24
    assert again.match(queries) == model.match(queries)
    again.index_single(x[0], 7, verbose=0)
    assert again.index_size() == 25
    again.reset_index()
    with pytest.raises(IndexError, match="empty"):
        again.evaluate_retrieval(queries, truth, [RecallAtK(k=1)])


def test_models_of_inputs_stay_models_of_a_call() -> None:
    """Keras would turn the class into a model of inputs, with all of its subclasses."""

    class Called(SimilarityModel):
        def __init__(self) -> None:
            super().__init__()
            self.layer = keras.layers.Dense(3)

        def call(self, x: Any) -> Any:
            return self.layer(x)

    model = similarity()
    called = Called()
    x, _ = rows()
    assert tuple(called(x).shape) == (24, 3)
    copy = pickle.loads(pickle.dumps(model))
    assert isinstance(copy, SimilarityModel)
    np.testing.assert_allclose(copy.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-6)
    cloned = keras.models.clone_model(model)
    assert isinstance(cloned, SimilarityModel)


def test_a_memory_of_earlier_batches() -> None:
    loss = tfsim.losses.MultiSimilarityLoss()
    model = similarity(XBM(loss, memory_size=16, warmup_steps=1))
    plain = kinfold.EmbeddingModel(model.inputs, model.outputs)
    plain.compile("sgd", loss, memory_size=16, memory_warmup=1)
    weights = model.layers[-1].get_weights()
    x, y = rows()
    told = []
    for one in (model, plain):
        model.layers[-1].set_weights(weights)
        told.append(one.fit(x, y, batch_size=8, shuffle=False, epochs=2, verbose=0).history["loss"])
    assert told[0] == pytest.approx(told[1], rel=1e-5)
    assert told[0] != told[1][::-1]
    with pytest.raises(RuntimeError, match="needs a memory"):
        XBM(loss, 4)(y, x)
    with pytest.raises(ValueError, match="pass `reduction` to the loss"):
        XBM(loss, 4, reduction="sum")
    again = keras.saving.deserialize_keras_object(
        json.loads(json.dumps(keras.saving.serialize_keras_object(XBM(loss, 4, 2))))
    )
    assert (again.memory_size, again.warmup_steps, type(again.loss)) == (4, 2, type(loss))


def test_what_a_similarity_model_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match="this one has none"):
        similarity("mse")
    with pytest.raises(ValueError, match="of which there is one"):
        similarity(embedding_output=1)
    inputs = keras.Input((D,))
    model = SimilarityModel(inputs, inputs)
    with pytest.raises(ValueError, match="no index"):
        model.index(rows()[0])
    two = SimilarityModel(inputs, [keras.layers.Dense(2)(inputs), keras.layers.Dense(3)(inputs)])
    with pytest.warns(UserWarning, match="2 outputs, of which 0 is indexed"):
        two.compile("sgd")
    two.compile("sgd", embedding_output=1)
    two.index(rows()[0], rows()[1], verbose=0)
    assert two.single_lookup(rows()[0][3])[0].label == 3


def test_a_loss_of_ones_own() -> None:
    x, y = rows(6)

    def pull(labels: Any, queries: Any, key_labels: Any, keys: Any, power: float) -> Any:
        same = ops.cast(ops.expand_dims(labels, 1) == ops.expand_dims(key_labels, 0), "float32")
        squares = ops.sum((ops.expand_dims(queries, 1) - ops.expand_dims(keys, 0)) ** 2, axis=2)
        return ops.sum(same * squares**power, axis=1)

    loss = tfsim.losses.MetricLoss(pull, power=2.0)
    squares = ((x[:, None].astype("float64") - x) ** 2).sum(2)
    expected = ((y[:, None] == y) * squares**2).sum(1)
    assert float(loss(y, x)) == pytest.approx(expected.mean(), rel=1e-5)
    weights = np.arange(6.0)
    assert float(loss(y, x, weights)) == pytest.approx((weights * expected).mean(), rel=1e-5)
    bare = tfsim.losses.MetricLoss(pull, "none", power=2.0)
    np.testing.assert_allclose(ops.convert_to_numpy(bare(y, x)), expected, rtol=1e-5)
    large = y.astype("int64") + 2**25 if keras.backend.backend() != "jax" else y + 2**25
    large = large + np.array([0, 0, 0, 0, 1, 1])  # as float32 they would merge
    apart = float(loss(large, x))
    assert apart != pytest.approx(expected.mean(), rel=1e-3)
    with pytest.raises(TypeError, match="must be a function"):
        tfsim.losses.MetricLoss("mse")  # type: ignore[arg-type]


ALGORITHMS = {
    "simsiam": SimSiamLoss(),
    "simclr": SimCLRLoss(),
    "barlow": Barlow(),
    "vicreg": VicReg(),
}


def contrastive(algorithm: str, regular: Any = None) -> ContrastiveModel:
    backbone = keras.Sequential(
        [keras.Input((D,)), keras.layers.Dense(6, "tanh", kernel_regularizer=regular)]
    )
    predictor = get_predictor(4, 3) if algorithm == "simsiam" else None
    return ContrastiveModel(backbone, get_projector(6, 4, num_layers=2), predictor, algorithm)


def number(value: Any) -> float:
    return float(np.mean(ops.convert_to_numpy(ops.stop_gradient(value))))


def expected_loss(model: ContrastiveModel, views: Any, training: bool) -> float:
    """The equation, part by part."""
    loss = ALGORITHMS[model.algorithm]
    z1, z2 = (
        model.projector(model.backbone(v, training=training), training=training) for v in views
    )
    if model.predictor is None:
        return number(loss(z1, z2))
    p1, p2 = (model.predictor(z, training=training) for z in (z1, z2))
    return number(loss(z1, p2)) + number(loss(z2, p1))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_contrastive_model_minimises_its_equation(algorithm: str, tmp_path: Path) -> None:
    x, y = rows()
    rng = np.random.default_rng(1)
    views = [x + 0.1 * rng.normal(size=x.shape).astype("float32") for _ in range(2)]
    model = contrastive(algorithm)
    model.compile(keras.optimizers.SGD(0.0), ALGORITHMS[algorithm])
    first = expected_loss(model, views, training=True)
    history = model.fit(*views, batch_size=24, epochs=1, verbose=0).history
    assert history["loss"][0] == pytest.approx(first, rel=1e-4, abs=1e-5)
    names = {"loss", "proj_std", *(["pred_std"] if algorithm == "simsiam" else [])}
    assert set(history) == names
    assert 0 < history["proj_std"][0] < 1
    still = expected_loss(model, views, training=False)
    told = model.evaluate(*views, batch_size=24, verbose=0, return_dict=True)
    assert told["loss"] == pytest.approx(still, rel=1e-4, abs=1e-5)

    before = [w.copy() for w in model.get_weights()]
    model.compile(keras.optimizers.Adam(0.01), ALGORITHMS[algorithm])
    losses = model.fit(*views, batch_size=24, epochs=15, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    for part in (model.backbone, model.projector, *([model.predictor] * bool(model.predictor))):
        for weight in part.trainable_weights:
            moved = any(
                old.shape == weight.shape and np.array_equal(old, ops.convert_to_numpy(weight))
                for old in before
            )
            assert not moved, weight.path

    embedded = model.predict(x, verbose=0)
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, rtol=1e-5)
    model.index(x, y, verbose=0)
    assert max(row[0].distance for row in model.lookup(x, k=1)) < 1e-5
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again) is ContrastiveModel
    np.testing.assert_allclose(again.predict(x, verbose=0), embedded, rtol=1e-5, atol=1e-6)
    again.load_index(tmp_path / "model.keras", verbose=0)
    assert again.index_size() == 24
    more = again.fit(*views, batch_size=24, epochs=1, verbose=0).history["loss"][0]
    assert more < losses[0]


def test_the_gradient_of_simsiam_stops_at_the_target() -> None:
    """With a predictor that is not trained and gives zeros, nothing is left to learn from."""
    model = contrastive("simsiam")
    assert model.predictor is not None
    last = model.predictor.layers[-1]
    last.set_weights([np.zeros_like(w) for w in last.get_weights()])
    model.predictor.trainable = False
    model.compile(keras.optimizers.SGD(1.0), SimSiamLoss())
    before = [ops.convert_to_numpy(w).copy() for w in model.trainable_variables]
    x, _ = rows()
    model.fit(x, x, batch_size=24, epochs=1, verbose=0)
    for old, new in zip(before, model.trainable_variables, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(new), old, atol=1e-6)


def test_what_the_parts_regularise_is_added() -> None:
    x, _ = rows()
    model = contrastive("simclr", regular=keras.regularizers.L2(0.1))
    model.compile(keras.optimizers.SGD(0.0), SimCLRLoss())
    told = model.fit(x, x, batch_size=24, epochs=1, verbose=0).history
    penalty = 0.1 * float(np.sum(model.backbone.layers[0].get_weights()[0] ** 2))
    assert told["regularization_loss"][0] == pytest.approx(penalty, rel=1e-5)
    assert told["loss"][0] == pytest.approx(told["contrastive_loss"][0] + penalty, rel=1e-5)


def test_one_view_is_both() -> None:
    x, _ = rows()
    model = contrastive("barlow")
    model.compile(keras.optimizers.SGD(0.0), Barlow())
    one = model.evaluate(x, batch_size=24, verbose=0, return_dict=True)["loss"]
    two = model.evaluate(x, x, batch_size=24, verbose=0, return_dict=True)["loss"]
    assert one == pytest.approx(two, rel=1e-5)


def test_heads_are_made_for_the_backbone(capsys: pytest.CaptureFixture[str]) -> None:
    backbone = keras.Sequential([keras.Input((D,)), keras.layers.Dense(6)])
    model = create_contrastive_model(backbone=backbone)
    assert model.algorithm == "simsiam"
    assert model.projector.output_shape == model.predictor.output_shape == (None, 512)
    model.summary()
    assert "predictor" in capsys.readouterr().out
    assert create_contrastive_model(backbone=backbone, algorithm="vicreg").predictor is None


def test_what_a_contrastive_model_cannot_do_is_refused() -> None:
    x, y = rows()
    model = contrastive("simclr")
    with pytest.raises(ValueError, match="needs a loss of two views"):
        model.compile("sgd")
    with pytest.raises(ValueError, match="no labels to use `metrics` with"):
        model.compile("sgd", SimCLRLoss(), metrics=["mse"])
    model.compile("sgd", SimCLRLoss())
    with pytest.raises(ValueError, match=r"same shape: pass fit\(view1, view2\), without labels"):
        model.fit(x, y, verbose=0)
    with pytest.raises(ValueError, match="SimSiam needs a `predictor`"):
        ContrastiveModel(model.backbone, model.projector)
    with pytest.raises(ValueError, match="`algorithm` must be one of"):
        ContrastiveModel(model.backbone, model.projector, algorithm="byol")
    with pytest.raises(ValueError, match="takes no `inputs`"):
        ContrastiveModel(model.backbone, model.projector, algorithm="simclr", inputs=1)
    image = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 3)])
    with pytest.raises(ValueError, match="end it in a pooling layer"):
        create_contrastive_model(backbone=image)


@pytest.mark.parametrize(
    "kind",
    ["CircleLoss", "MultiSimilarityLoss", "TripletLoss", "PNLoss", "SoftNearestNeighborLoss"],
)
def test_a_loss_takes_the_other_names_of_a_distance(kind: str) -> None:
    loss = getattr(tfsim.losses, kind)(distance="SQL2")
    assert loss.distance is kinfold.distances.get("squared_euclidean")
    again = type(loss).from_config(json.loads(json.dumps(loss.get_config())))
    assert again.distance is loss.distance
