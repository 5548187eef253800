"""Bad input gets one clear sentence that says what was received."""

import numpy as np
import pytest

from cases import CASES, Case, batch
from kinfold import distances, layers, losses
from kinfold.compat.tensorflow_addons import losses as tfa

Y, X = batch(6)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize(
    ("y", "x", "kwargs", "error", "says"),
    [
        (Y.astype("float32"), X, {}, TypeError, "integer class ids.*float32"),
        (np.array(list("abcdef")), X, {}, TypeError, "integer class ids.*np.unique"),
        (np.stack([Y, Y], 1), X, {}, ValueError, r"\[batch, 1\].*\(6, 2\)"),
        (np.int32(3), X, {}, ValueError, r"Received shape \(\)"),
        (Y, X[0], {}, ValueError, r"one embedding per row.*\(8,\)"),
        (Y, X[None], {}, ValueError, r"one embedding per row.*\(1, 6, 8\)"),
        (Y[:5], X, {}, ValueError, "`y_true` and `y_pred`.*5 and 6"),
        (Y, X, {"ref_labels": Y[:4]}, ValueError, "`ref_labels` and `y_pred`.*4 and 6"),
        (Y, X, {"ref_embeddings": X[:4]}, ValueError, "`y_true` and `ref_embeddings`.*6 and 4"),
        (Y, X, {"ref_labels": Y, "ref_embeddings": X[:, :3]}, ValueError, "columns.*8 and 3"),
        (Y, X, {"ref_labels": Y * 1.0}, TypeError, "`ref_labels`.*float64"),
        (Y, X, {"sample_weight": np.ones(5)}, ValueError, r"`sample_weight`.*6.*\(5,\)"),
        (Y, X, {"sample_weight": np.ones((6, 6))}, ValueError, r"`sample_weight`.*\(6, 6\)"),
    ],
)
def test_call(case: Case, y, x, kwargs, error, says) -> None:
    with pytest.raises(error, match=says):
        case.build()(y, x, **kwargs)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize(
    ("kwargs", "error", "says"),
    [
        ({"distance": "chebyshev"}, ValueError, "cosine.*distance='chebyshev'"),
        ({"distance": 3}, TypeError, "distance=3"),
        ({"reduction": "average"}, ValueError, "reduction=average"),
        ({"name": 5}, TypeError, "`name` must be a string.*5"),
    ],
)
def test_construction(case: Case, kwargs, error, says) -> None:
    if "distance" in kwargs and "distance" not in case.build().get_config():
        error, says = (
            TypeError,
            "unexpected keyword argument 'distance'",
        )  # of losses over the angle
    with pytest.raises(error, match=says):
        case.build(**kwargs)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: losses.CircleLoss(gamma=0), ValueError, "`gamma` must be greater than 0.*0.0"),
        (lambda: losses.CircleLoss(gamma=-1.0), ValueError, "gamma=-1.0"),
        (lambda: losses.CircleLoss(gamma=float("nan")), ValueError, "`gamma` must be finite"),
        (lambda: losses.CircleLoss(margin="wide"), TypeError, "`margin` must be a number.*'wide'"),
        (lambda: losses.CircleLoss(margin=None), TypeError, "margin=None"),
        (lambda: losses.CircleLoss(margin=True), TypeError, "margin=True"),
        (lambda: losses.ContrastiveLoss(margin=[1]), TypeError, r"margin=\[1\]"),
        (lambda: losses.ContrastiveLoss(name=1), TypeError, "`name`"),
        (lambda: losses.PairContrastiveLoss(positive_margin="a"), TypeError, "`positive_margin`"),
        (lambda: losses.PairContrastiveLoss(distance="inner_product"), ValueError, "similarity"),
        (lambda: losses.TupletMarginLoss(margin=90), ValueError, "below 90 degrees.*margin=90"),
        (lambda: losses.TupletMarginLoss(margin=-1), ValueError, "`margin` must be at least 0"),
        (
            lambda: losses.PNPLoss("Ob"),
            ValueError,
            "`variant` must.*variant='Ob'",
        ),
        (lambda: losses.PNPLoss(b=0), ValueError, "`b` must be greater than 0"),
        (lambda: losses.SmoothAPLoss(0), ValueError, "`temperature` must be greater than 0"),
        (lambda: losses.RankedListLoss(balance=2), ValueError, "`balance` must be from 0 to 1"),
        (lambda: losses.HistogramLoss(0), ValueError, "`bins` must be a whole number"),
        (lambda: losses.TupletMarginLoss(scale=0), ValueError, "`scale` must be greater than 0"),
        (lambda: losses.NormalizedSoftmaxLoss(3, 4, temperature=0.0), ValueError, "`temperature`"),
        (lambda: losses.SphereFaceLoss(3, 4, margin=2.5), ValueError, "a whole number.*margin=2.5"),
        (lambda: losses.SphereFaceLoss(3, 4, margin=0), ValueError, "`margin` must be at least 1"),
        (lambda: losses.LargeMarginSoftmaxLoss(3, 4, scale=0), ValueError, "`scale`"),
        (lambda: tfa.ContrastiveLoss(margin="1"), TypeError, "`margin`"),
        (lambda: losses.circle_loss(Y, X, gamma=0.0), ValueError, "`gamma`"),
        (lambda: losses.contrastive_loss([0, 1], [0.5, 0.5], "x"), TypeError, "`margin`"),
        (lambda: layers.L2Embedding(4, activation="relu"), ValueError, "`activation`"),
        (lambda: layers.PairDistance("nearest"), ValueError, "distance='nearest'"),
        (lambda: layers.PairDistance()([X, X[:, :3]]), ValueError, "same shape"),
        (lambda: distances.get({"name": "nearest"}), ValueError, "distance='nearest'"),
    ],
)
def test_one_loss(make, error, says) -> None:
    with pytest.raises(error, match=says):
        make()


@pytest.mark.parametrize(
    ("y", "d", "error", "says"),
    [
        ([0.0, 1.0], [0.5, 0.5], TypeError, "`y_true` must hold integer"),
        ([0, 2], [0.5, 0.5], ValueError, "Received the value 2"),
        ([0, 1, 1], [0.5, 0.5], ValueError, "3 and 2"),
        ([0, 1], [[0.5, 0.5], [0.5, 0.5]], ValueError, "one distance per pair.*PairContrastive"),
        ([[0, 1]], [0.5, 0.5], ValueError, r"\[batch, 1\].*\(1, 2\)"),
    ],
)
def test_contrastive(y, d, error, says) -> None:
    with pytest.raises(error, match=says):
        losses.ContrastiveLoss()(np.array(y), np.array(d, "float32"))


def test_addons_contrastive_takes_whole_floats_only() -> None:
    d = np.array([0.5, 0.25], "float32")
    value = float(tfa.ContrastiveLoss()(np.array([1.0, 0.0], "float32"), d))
    assert value == float(tfa.ContrastiveLoss()(np.array([1, 0]), d))
    with pytest.raises(ValueError, match=r"Received the value 0\.5"):
        tfa.ContrastiveLoss()(np.array([1.0, 0.5], "float32"), d)
