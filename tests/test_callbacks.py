"""RetrievalEvaluation inside a real `fit`, on the backend under test."""

import csv
import re

import keras
import numpy as np
import pytest

from kinfold.callbacks import RetrievalEvaluation
from kinfold.metrics import retrieval_metrics

RNG = np.random.default_rng(0)
X = RNG.standard_normal((48, 6)).astype("float32")
Y = np.arange(48) % 4
TARGET = RNG.standard_normal((48, 3)).astype("float32")
METRICS = ("recall@1", "map@r", "mrr", "ndcg@5")


def linear_model(*middle):
    model = keras.Sequential(
        [keras.Input((6,)), *middle, keras.layers.Dense(3, use_bias=False, name="last")]
    )
    model.compile(keras.optimizers.SGD(0.3), loss="mse")
    return model


class Weights(keras.callbacks.Callback):
    """The last layer's weights at the end of each epoch, and the logs seen then."""

    def __init__(self):
        super().__init__()
        self.kernels, self.logs = [], []

    def on_epoch_end(self, epoch, logs=None):
        self.kernels.append(self.model.get_layer("last").get_weights()[0])
        self.logs.append(dict(logs))


def test_history_holds_the_metrics_of_each_epochs_weights():
    model, weights = linear_model(), Weights()
    before = model.get_layer("last").get_weights()[0]
    history = model.fit(
        X,
        TARGET,
        batch_size=16,
        epochs=3,
        verbose=0,
        callbacks=[RetrievalEvaluation(X, Y, metrics=METRICS, batch_size=10), weights],
    )
    assert len(weights.kernels) == 3
    for epoch, kernel in enumerate(weights.kernels):
        expected = retrieval_metrics(X @ kernel, Y, metrics=METRICS)
        for name in METRICS:
            value = history.history["val_" + name][epoch]
            assert value == pytest.approx(expected[name])
            assert weights.logs[epoch]["val_" + name] == value
        # The comparison can fail: the weights before this epoch give other values.
        stale = retrieval_metrics(X @ before, Y, metrics=METRICS)
        assert stale != pytest.approx(expected)
        before = kernel
    assert set(history.history) == {"loss"} | {"val_" + name for name in METRICS}


def test_early_stopping_and_checkpointing_monitor_it(tmp_path):
    model = linear_model()
    evaluation = RetrievalEvaluation(X, Y, metrics=("recall@1", "map@r"))
    values = iter([0.25, 0.75, 0.5, 0.5, 0.9])

    class Scripted(keras.callbacks.Callback):
        """Overwrites the value after it is measured, to make the best epoch the second."""

        def on_epoch_end(self, epoch, logs=None):
            assert 0 <= logs["val_recall@1"] <= 1
            logs["val_recall@1"] = next(values)

    weights = Weights()
    best = keras.callbacks.ModelCheckpoint(
        str(tmp_path / "{epoch}-{val_recall@1:.2f}.keras"),
        monitor="val_recall@1",
        mode="max",
        save_best_only=True,
    )
    stop = keras.callbacks.EarlyStopping(
        "val_recall@1", mode="max", patience=2, restore_best_weights=True
    )
    history = model.fit(
        X,
        TARGET,
        epochs=5,
        verbose=0,
        callbacks=[evaluation, Scripted(), weights, best, stop],
    )
    assert history.history["val_recall@1"] == [0.25, 0.75, 0.5, 0.5]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1-0.25.keras", "2-0.75.keras"]
    np.testing.assert_array_equal(model.get_layer("last").get_weights()[0], weights.kernels[1])
    saved = keras.models.load_model(tmp_path / "2-0.75.keras")
    np.testing.assert_array_equal(saved.get_layer("last").get_weights()[0], weights.kernels[1])


def test_training_is_what_it_would_be_without():
    def train(callbacks):
        keras.utils.set_random_seed(3)
        # Both behave otherwise in training than in inference, and both keep a state.
        model = linear_model(keras.layers.BatchNormalization(), keras.layers.Dropout(0.5))
        history = model.fit(
            X,
            TARGET,
            batch_size=16,
            epochs=3,
            verbose=0,
            validation_data=(X, TARGET),
            callbacks=callbacks,
        )
        return history.history, model.get_weights()

    alone, expected = train([])
    history, weights = train([RetrievalEvaluation(X, Y, X[::3], Y[::3])])
    for ours, theirs in zip(weights, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)
    assert {name: history[name] for name in alone} == {
        name: pytest.approx(values) for name, values in alone.items()
    }
    assert len(history["val_recall@1"]) == len(history["val_loss"]) == 3


def test_the_progress_bar_shows_it_and_the_evaluation_is_silent(capsys):
    model = linear_model()
    evaluation = RetrievalEvaluation(X, Y, metrics=("recall@1",))
    model.fit(X, TARGET, epochs=2, verbose=2, callbacks=[evaluation])
    lines = capsys.readouterr().out.strip().splitlines()
    assert len([line for line in lines if re.search(r"loss: .* val_recall@1: 0\.\d+", line)]) == 2
    assert len(lines) == 4  # "Epoch 1/2" and the result, twice


class Given(keras.callbacks.Callback):
    """Gives the model a kernel at the end of each epoch, the better the larger `quality` is."""

    def __init__(self, quality):
        super().__init__()
        self.quality = quality

    def on_epoch_end(self, epoch, logs=None):
        self.model.get_layer("last").set_weights([kernel_of(self.quality[epoch])])


def kernel_of(quality):
    kernel = np.random.default_rng(1).standard_normal((6, 3)).astype("float32")
    kernel[0] *= 20 * quality
    return kernel


def test_the_callbacks_of_keras_follow_the_metrics(tmp_path):
    x = X.copy()
    x[:, 0] = Y + 0.01 * x[:, 0]
    model = linear_model()
    watched = {"monitor": "val_map@r", "mode": "max"}
    stop = keras.callbacks.EarlyStopping(**watched, patience=3, restore_best_weights=True)
    callbacks = [
        Given([0.1, 0.9, 0.3, 0.0, 0.2, 0.0, 0.0]),
        RetrievalEvaluation(x, Y, distance="euclidean"),
        keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", save_best_only=True, **watched),
        keras.callbacks.ReduceLROnPlateau(**watched, factor=0.5, patience=2),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        stop,
    ]
    history = model.fit(x, TARGET, epochs=7, verbose=0, callbacks=callbacks).history
    assert int(np.argmax(history["val_map@r"])) == 1
    assert len(history["loss"]) == 5
    assert history["learning_rate"] == pytest.approx([0.3, 0.3, 0.3, 0.3, 0.15])
    best = keras.saving.load_model(tmp_path / "best.keras")
    for kept in (best, model):
        np.testing.assert_array_equal(kept.get_layer("last").get_weights()[0], kernel_of(0.9))
    with open(tmp_path / "log.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for name in ("loss", "val_recall@1", "val_map@r"):
        assert [float(row[name]) for row in rows] == pytest.approx(history[name])


def test_backup_and_restore_goes_on_with_the_metrics(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def fit(*more):
        model = linear_model()
        model.get_layer("last").set_weights([kernel_of(0.5)])
        restore = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        callbacks = [RetrievalEvaluation(X, Y), restore, *more]
        history = model.fit(X, TARGET, epochs=4, shuffle=False, verbose=0, callbacks=callbacks)
        return history.history["val_map@r"]

    unbroken = fit()
    with pytest.raises(KeyboardInterrupt):
        fit(Stop())
    assert fit() == unbroken[2:]


def test_a_gallery_a_prefix_and_a_distance():
    model, weights = linear_model(), Weights()
    evaluation = RetrievalEvaluation(
        X[:20], Y[:20, None], X[20:], Y[20:], ("precision@3",), "unseen ", distance="euclidean"
    )
    history = model.fit(X, TARGET, verbose=0, callbacks=[evaluation, weights])
    embeddings = X @ weights.kernels[0]
    expected = retrieval_metrics(
        embeddings[:20],
        Y[:20],
        embeddings[20:],
        Y[20:],
        ("precision@3",),
        "euclidean",
    )
    assert history.history["unseen precision@3"] == [pytest.approx(expected["precision@3"])]


@pytest.mark.parametrize("kind", [dict, list])
def test_models_of_several_inputs(kind):
    inputs = {"a": keras.Input((6,), name="a"), "b": keras.Input((6,), name="b")}
    embedding = keras.layers.Dense(3)(keras.layers.Concatenate()(list(inputs.values())))
    x = {"a": X, "b": X[::-1].copy()}
    if kind is list:
        inputs, x = list(inputs.values()), list(x.values())
    model = keras.Model(inputs, embedding)
    model.compile("sgd", loss="mse")
    history = model.fit(
        x, TARGET, verbose=0, callbacks=[RetrievalEvaluation(x, Y, metrics=("recall@1",))]
    )
    expected = retrieval_metrics(model.predict(x, verbose=0), Y, metrics=("recall@1",))
    assert history.history["val_recall@1"] == [pytest.approx(expected["recall@1"])]


def test_half_precision_models():
    with_policy = keras.layers.Dense(3, dtype="mixed_float16")
    model = keras.Sequential([keras.Input((6,)), with_policy])
    model.compile("sgd", loss="mse")
    history = model.fit(X, TARGET, verbose=0, callbacks=[RetrievalEvaluation(X, Y)])
    assert 0 < history.history["val_map@r"][0] < 1


def test_queries_without_a_match_are_reported_once():
    labels = np.append(Y[:-1], 99)
    with pytest.warns(UserWarning, match="1 of 48 queries"):
        evaluation = RetrievalEvaluation(X, labels, metrics=("recall@1", "queries"))
    # Warnings are errors under pytest: the epochs must not repeat it.
    history = linear_model().fit(X, TARGET, epochs=2, verbose=0, callbacks=[evaluation])
    assert history.history["val_queries"] == [47.0, 47.0]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"y": Y[:-1]}, ValueError, "`x` and `y`.*Received 48 and 47"),
        ({"x": {"a": X, "b": X[:3]}}, ValueError, "`x` and `y`.*Received 3 and 48"),
        ({"x": [[0.0]] * 48}, TypeError, "`x` must be an array.*Received a float"),
        ({"y": Y.astype("float32")}, TypeError, "integer class ids"),
        ({"y": np.arange(48)}, ValueError, "No query has an item"),
        ({"gallery_x": X}, ValueError, "Received only `gallery_x`"),
        ({"gallery_y": Y}, ValueError, "Received only `gallery_y`"),
        ({"gallery_x": X, "gallery_y": Y[:9]}, ValueError, "Received 48 and 9"),
        ({"metrics": ("recall",)}, ValueError, "Unknown metric 'recall'"),
        ({"metrics": ("recall@48",)}, ValueError, "ranked against 47 items"),
        ({"distance": "cosin"}, ValueError, "cosin"),
    ],
)
def test_bad_arguments_at_construction(arguments, error, message):
    with pytest.raises(error, match=message):
        RetrievalEvaluation(**{"x": X, "y": Y, **arguments})


def test_an_output_that_is_no_embedding():
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(3)(inputs)
    pair = keras.Model(inputs, {"a": hidden, "b": hidden})
    deep = keras.Model(inputs, keras.layers.Reshape((3, 1))(hidden))
    for model, received in ((pair, "a dict"), (deep, r"shape \(48, 3, 1\)")):
        evaluation = RetrievalEvaluation(X, Y)
        evaluation.set_model(model)
        with pytest.raises(ValueError, match=rf"one embedding per example.*Received {received}"):
            evaluation.on_epoch_end(0, {})


def several_outputs(kind):
    inputs = keras.Input((6,))
    e = keras.layers.Dense(3, name="e")(inputs)
    c = keras.layers.Dense(4, name="c")(e)
    if kind == "subclass":

        class Pair(keras.Model):
            def __init__(self):
                super().__init__()
                self.e = keras.layers.Dense(3)

            def call(self, x):
                e = self.e(x)
                return [e[:, :1], e]

        model = Pair()
    else:
        model = keras.Model(inputs, {"dict": {"e": e, "c": c}, "list": [c, e]}[kind])
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize(
    ("kind", "output", "y"),
    [
        ("dict", "e", {"e": TARGET, "c": Y}),
        ("list", "e", [Y, TARGET]),
        ("subclass", 1, [TARGET[:, :1], TARGET]),
    ],
)
def test_one_of_several_outputs(kind, output, y):
    """In column order, with ids that JAX itself cannot hold."""
    model, wide = several_outputs(kind), Y * 2**40
    if kind != "subclass":
        y = keras.tree.map_structure(lambda part: np.eye(4)[part] if part is Y else part, y)
    evaluation = RetrievalEvaluation(np.asfortranarray(X), wide, output=output)
    history = model.fit(X, y, batch_size=24, verbose=0, callbacks=[evaluation]).history
    found = model.predict(X, verbose=0)
    expected = retrieval_metrics(found["e"] if kind == "dict" else found[1], Y)
    assert history["val_map@r"] == [pytest.approx(expected["map@r"])]
    steps = []
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: steps.append(1))
    for chosen, message in ((None, "choose one of its outputs"), ("f", "has no output 'f'")):
        evaluation = RetrievalEvaluation(X, Y, output=chosen)
        with pytest.raises(ValueError, match=message):
            model.fit(X, y, batch_size=24, verbose=0, callbacks=[count, evaluation])
    with pytest.raises(ValueError, match=r"cannot embed `x`.*shape \(32, 5\)"):
        model.fit(X, y, verbose=0, callbacks=[count, RetrievalEvaluation(X[:, :5], Y)])
    assert not steps
    # What was refused has done no harm.
    np.testing.assert_allclose(
        keras.tree.flatten(model.predict(X, verbose=0))[0], keras.tree.flatten(found)[0], rtol=1e-6
    )


def test_a_diverged_model_is_an_error():
    model = linear_model()
    model.get_layer("last").set_weights([np.full((6, 3), np.nan)])
    evaluation = RetrievalEvaluation(X, Y)
    evaluation.set_model(model)
    with pytest.raises(
        ValueError, match=r"Epoch 1: .*NaN or infinity in 48 of 48 rows.*lower learning rate"
    ):
        evaluation.on_epoch_end(0, {})
