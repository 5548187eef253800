"""What `kinfold.compat.pytorch_metric_learning` promises beyond the golden values."""

import numpy as np
import pytest

from cases import batch
from kinfold.compat.pytorch_metric_learning import losses
from native import assert_close, number, value_and_gradients, with_gradients

NAMES = [
    "CircleLoss", "ContrastiveLoss", "SignalToNoiseRatioContrastiveLoss", "MultiSimilarityLoss",
    "SupConLoss", "NTXentLoss", "TripletMarginLoss", "LiftedStructureLoss",
    "GeneralizedLiftedStructureLoss", "NPairsLoss", "MarginLoss", "NCALoss", "FastAPLoss",
    "AngularLoss", "TupletMarginLoss",
]  # fmt: skip
every_loss = pytest.mark.parametrize("name", NAMES)


@every_loss
def test_finite_where_pairs_are_missing(name: str) -> None:
    loss = getattr(losses, name)()
    value_at = with_gradients(lambda x, y: loss(x, y))
    for labels in ([0], [0, 0, 0], [0, 1, 2], [0, 0, 1]):
        y, x = np.array(labels, "int32"), batch(len(labels))[1]
        value, (dx,) = value_at(x, y=y)
        assert np.isfinite(value), labels
        assert np.all(np.isfinite(dx)), labels
        if len(labels) == 1:
            assert value == 0


def test_nt_xent_is_exact_where_the_peer_saturates() -> None:
    """At temperature 0.005 the peer gives 87.34 and no gradient; with float16 likewise."""
    x = np.array([[1, 0], [-0.669, 0.743], [0.999, 0.045]], "float32")
    y = np.array([0, 0, 1])
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    s = (unit.astype("float64") @ unit.T.astype("float64")) / 0.005
    pairs = [np.logaddexp(0, s[a, 2] - s[0, 1]) for a in (0, 1)]
    for dtype in ("float32", "float16"):
        loss = losses.NTXentLoss(temperature=0.005)
        value, (dx,) = value_and_gradients(lambda x, loss=loss: loss(x, y), x.astype(dtype))
        assert_close(value, np.mean(pairs), 2e-4 if dtype == "float16" else 1e-5)
        assert np.abs(dx).max() > 10


def test_clear_errors() -> None:
    y, x = batch(6)
    loss = losses.TripletMarginLoss()
    with pytest.raises(ValueError, match="both `ref_emb` and `ref_labels`"):
        loss(x, y, None, x)
    with pytest.raises(ValueError, match="both `ref_emb` and `ref_labels`"):
        loss(x, y, ref_labels=y)
    for name in ("NPairsLoss", "FastAPLoss"):
        with pytest.raises(ValueError, match=f"{name} takes no ref_emb"):
            getattr(losses, name)()(x, y, None, x, y.copy())


@every_loss
def test_the_batch_itself_as_references(name: str) -> None:
    """The same tensors: as without them, none being its own pair."""
    y, x = batch(12)
    loss = getattr(losses, name)()
    assert number(loss(x, y, ref_emb=x, ref_labels=y)) == number(loss(x, y))


def test_labels_of_the_batch_with_other_references() -> None:
    """As in the peer, where the same object of labels alone takes the diagonal out."""
    y, x = batch(12)
    with_own = losses.SupConLoss()(x, y, ref_emb=x, ref_labels=y.copy())
    without = losses.SupConLoss()(x, y, ref_emb=x.copy(), ref_labels=y)
    assert_close(number(without), number(losses.SupConLoss()(x, y)), 1e-6)
    assert abs(number(with_own) - number(without)) > 1e-3
