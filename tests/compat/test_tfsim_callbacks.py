"""The callback, the pictures and the networks of TensorFlow Similarity."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kinfold.compat import tensorflow_similarity as tfsim
from kinfold.compat.tensorflow_similarity import visualization
from kinfold.compat.tensorflow_similarity.callbacks import EvalCallback
from kinfold.compat.tensorflow_similarity.models import SimilarityModel
from kinfold.compat.tensorflow_similarity.retrieval_metrics import RecallAtK
from kinfold.compat.tensorflow_similarity.types import Lookup


def rows(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 4
    return (np.eye(4, 5)[y] + 0.5 * rng.normal(size=(n, 5))).astype("float32"), y


def trained(callback: EvalCallback, model: Any = None) -> tuple[Any, dict[str, list[float]]]:
    inputs = keras.Input((5,))
    model = model or SimilarityModel(inputs, tfsim.layers.MetricEmbedding(3)(inputs))
    model.compile("sgd", tfsim.losses.TripletLoss())
    x, y = rows(16)
    return model, model.fit(x, y, epochs=2, verbose=0, callbacks=[callback]).history


@pytest.mark.parametrize("kind", ["similarity", "keras"])
def test_the_logs_tell_how_queries_find_targets(kind: str) -> None:
    (targets, classes), (queries, truth) = rows(20, 1), rows(12, 2)
    callback = EvalCallback(
        queries,
        truth,
        targets,
        classes,
        metrics=["binary_accuracy", "f1"],
        retrieval_metrics=[RecallAtK(k=3)],
        distance_thresholds=[0.05],
    )
    own = keras.Sequential([keras.Input((5,)), tfsim.layers.MetricEmbedding(3)])
    model, logs = trained(callback, own if kind == "keras" else None)
    r, x = model.predict(targets, verbose=0), model.predict(queries, verbose=0)
    distances = 1 - x @ r.T
    order = np.argsort(distances, axis=1)
    hits = classes[order] == truth[:, None]
    right = hits[:, 0] & (np.sort(distances, 1)[:, 0] <= 0.05)
    assert set(logs) == {"loss", "binary_accuracy", "f1", "recall@3"}
    assert len(logs["f1"]) == 2
    assert logs["binary_accuracy"][-1] == pytest.approx(right.mean())
    assert logs["recall@3"][-1] == pytest.approx(hits[:, :3].any(1).mean())
    if kind == "similarity":
        assert model.index_size() == 0


def test_known_and_unknown_classes_are_told_apart() -> None:
    (targets, classes), (queries, truth) = rows(20, 1), rows(12, 2)
    given = {"metrics": ["binary_accuracy"], "known_classes": [0, 1]}
    _, logs = trained(EvalCallback(queries, truth, targets, classes, **given))
    names = {"binary_accuracy_known_classes", "binary_accuracy_unknown_classes"}
    assert set(logs) == {"loss", *names}
    with pytest.raises(ValueError, match="queries, which must be of both kinds"):
        EvalCallback(queries, truth, targets, classes, known_classes=[0, 1, 2, 3])
    with pytest.raises(ValueError, match=r"keras\.callbacks\.TensorBoard"):
        EvalCallback(queries, truth, targets, classes, tb_logdir="logs")
    with pytest.raises(ValueError, match="pass one threshold"):
        EvalCallback(queries, truth, targets, classes, distance_thresholds=[0.1, 0.2])
    with pytest.raises(ValueError, match="12 examples and 20 labels"):
        EvalCallback(queries, classes, targets, classes)


@pytest.fixture
def no_window() -> Iterator[None]:
    import matplotlib

    before = matplotlib.get_backend()
    matplotlib.use("svg")
    yield
    matplotlib.use(before)


@pytest.mark.once
def test_a_confusion_matrix_has_the_numbers_of_the_peer() -> None:
    truth = np.array([0, 1, 2, 3, 4, 0, 1, 2, 3, 4])
    found = np.array([0, 1, 2, 4, 3, 0, 1, 4, 4, 4])
    axis, matrix = visualization.confusion_matrix(found, truth, show=False)
    expected = np.diag([1.0, 1, 0.5, 0, 0.5])
    expected[2, 4] = expected[4, 3] = 0.5
    expected[3, 4] = 1
    np.testing.assert_array_equal(matrix, expected)
    assert axis.get_xlabel() == "Predicted label\naccuracy=0.6000; misclass=0.4000"
    assert [text.get_text() for text in axis.texts][10:15] == ["0", "0", "0.50", "0", "0.50"]
    axis, matrix = visualization.confusion_matrix(
        found, truth, False, list("ABCDE"), "Mine", show=False
    )
    np.testing.assert_array_equal(matrix.sum(1), [2] * 5)
    assert [one.get_text() for one in axis.get_xticklabels()] == list("ABCDE")
    assert axis.get_title() == "Mine"
    with pytest.raises(ValueError, match=r"0 or more\. Received a negative one"):
        visualization.confusion_matrix([-1], [0], show=False)
    with pytest.raises(ValueError, match="Received 1 and 2"):
        visualization.confusion_matrix([1], [0, 1], show=False)


@pytest.mark.once
def test_neighbours_are_drawn(tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((6, 6, 1))
    found = [Lookup(1, 0.1, 3, data=image), Lookup(2, 0.2, 4, data=image)]
    figure = visualization.viz_neigbors_imgs(image, 3, found, {3: "cat"}, show=False)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["cat", "cat - 0.10000", "4 - 0.20000"]
    assert [axis.images[0].get_cmap().name for axis in figure.axes] == ["viridis"] * 2 + ["Reds"]
    figure.savefig(tmp_path / "neighbours.png")
    assert (tmp_path / "neighbours.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="pass `data=` when indexing"):
        visualization.viz_neigbors_imgs(image, 3, [Lookup(1, 0.1, 3)], show=False)


@pytest.mark.once
def test_views_are_drawn_side_by_side() -> None:
    views = [np.full((5, 4, 4, 3), value) for value in (0, 255)]
    figure = visualization.visualize_views(
        views, labels=[7, 8, 9, 7, 8], num_imgs=5, max_pixel_value=255, show=False
    )
    drawn = [axis for axis in figure.axes if axis.images]
    assert (len(figure.axes), len(drawn)) == (8, 5)
    pair = drawn[0].images[0].get_array()
    assert pair.shape == (4, 8, 3)
    assert (pair[:, :4].max(), pair[:, 4:].min()) == (0, 1)
    assert drawn[1].get_title() == "Label: 8"
    told = visualization.visualize_views(views, predictions=np.ones((5, 1)), show=False)
    assert told.axes[2].get_title() == "Label: 2 | Pred: 1.00000"
    with pytest.raises(ValueError, match="at most 5"):
        visualization.visualize_views(views, num_imgs=6, show=False)


@pytest.mark.once
def test_embeddings_are_drawn_in_a_plane() -> None:
    x, y = rows(30)
    figure = visualization.projector(x, y, ["a", "b", "c", "d"], show=False)
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["a", "b", "c", "d"]
    assert sum(len(one.get_offsets()) for one in axis.collections) == 30
    images = np.random.default_rng(0).random((30, 8, 8, 1))
    with_images = visualization.projector(x, images=images, image_size=16, show=False)
    assert len(with_images.axes[0].artists) == 30
    with pytest.raises(ValueError, match="`densmap` has no use"):
        visualization.projector(x, densmap=True, show=False)
    with pytest.raises(ValueError, match="one for each of the 30 embeddings"):
        visualization.projector(x, y[:3], show=False)


@pytest.mark.once
def test_a_figure_is_shown(no_window: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib import pyplot

    shown = []
    monkeypatch.setattr(pyplot, "show", lambda: shown.append(pyplot.get_fignums()))
    visualization.confusion_matrix([0, 1], [0, 1])
    assert shown == [[1]]
    pyplot.close("all")


def test_networks_end_in_an_embedding(tmp_path: Path) -> None:
    make = tfsim.architectures
    x = np.random.default_rng(0).random((2, 32, 32, 3)).astype("float32")
    model = make.ResNet18Sim((32, 32, 3), embedding_size=6)
    assert isinstance(model, SimilarityModel)
    norms = np.linalg.norm(model.predict(x, verbose=0), axis=1)
    np.testing.assert_allclose(norms, 1, rtol=1e-4)
    assert model.name == "resnet18sim"
    assert 11_000_000 < model.count_params() < 11_400_000
    bare = make.ResNet18Sim((32, 32, 3), include_top=False, pooling=None)
    assert bare.output_shape == (None, 4, 4, 512)
    with pytest.raises(ValueError, match="`pooling` must be one of"):
        make.ResNet18Sim((32, 32, 3), pooling="mean")
    with pytest.raises(ValueError, match="`variant` must be one of"):
        make.EfficientNetSim((32, 32, 3), variant="B9", weights=None)
    with pytest.raises(ValueError, match="`trainable` must be one of"):
        make.ResNet50Sim((32, 32, 3), weights=None, trainable="some")


@pytest.mark.once
@pytest.mark.parametrize("kind", ["EfficientNetSim", "ResNet50Sim"])
def test_what_of_a_network_is_trained(kind: str) -> None:
    make = getattr(tfsim.architectures, kind)
    given = {"input_shape": (32, 32, 3), "embedding_size": 4, "weights": None, "l2_norm": False}
    count = {
        trainable: len(make(**given, trainable=trainable, pooling="avg").trainable_variables)
        for trainable in ("full", "partial", "frozen")
    }
    assert count["frozen"] == 2  # the embedding's
    assert 2 < count["partial"] < count["full"]
