"""Paired losses of several partners, hard negatives and a guide, against plain loops."""

import keras
import numpy as np
import pytest
from keras import ops

from cases import batch
from kinfold import losses
from kinfold.streaming import road
from native import assert_close, float64, number, value_and_gradients

N, D = 7, 5


def made(columns: int, seed: int = 0) -> np.ndarray:
    """Embeddings of unit norm, [N, columns, D]."""
    return batch(N * columns, d=D, seed=seed, dtype="float64")[1].reshape(N, columns, D)


def candidates(given: np.ndarray, positives: int) -> list[tuple[int, bool, np.ndarray]]:
    """Whose it is, whether it is a partner, and the embedding."""
    return [(j, c < positives, row) for j, rows in enumerate(given) for c, row in enumerate(rows)]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def counts(g: np.ndarray, other: np.ndarray, partners: np.ndarray, margin: float) -> bool:
    """Whether the guide leaves `other` among the negatives of what it gives `g` to."""
    return cosine(g, other) <= max(cosine(g, one) for one in partners) - margin


def info_nce(both: np.ndarray, p: int, guide: np.ndarray, margin: float) -> np.ndarray:
    x, r, g, of_r = both[:, 0], both[:, 1:], guide[:, 0], guide[:, 1:]
    rows = np.zeros(N)
    for i in range(N):
        far = [
            x[i] @ row / 0.2
            for (j, partner, row), (_, _, other) in zip(
                candidates(r, p), candidates(of_r, p), strict=True
            )
            if not (j == i and partner) and counts(g[i], other, of_r[i, :p], margin)
        ]
        near = [x[i] @ r[i, c] / 0.2 for c in range(p)]
        rows[i] += np.mean([np.logaddexp.reduce([s, *far]) - s for s in near]) / 2
        for c in range(p):
            far = [
                x[j] @ r[i, c] / 0.2
                for j in range(N)
                if j != i and counts(of_r[i, c], g[j], g[i : i + 1], margin)
            ]
            rows[i] += (np.logaddexp.reduce([near[c], *far]) - near[c]) / p / 2
    return rows


def sig_lip(both: np.ndarray, p: int, guide: np.ndarray, margin: float) -> np.ndarray:
    x, r, g, of_r = both[:, 0], both[:, 1:], guide[:, 0], guide[:, 1:]
    rows = np.zeros(N)
    for i in range(N):
        both_kinds = zip(candidates(r, p), candidates(of_r, p), strict=True)
        for (j, partner, row), (_, _, other) in both_kinds:
            s = x[i] @ row - 2
            if j == i and partner:
                rows[i] += np.logaddexp(0, -s)
            elif counts(g[i], other, of_r[i, :p], margin):
                rows[i] += np.logaddexp(0, s)
    return rows


LOSSES = {
    "info_nce": (lambda **k: losses.InfoNCELoss(0.2, **k), info_nce),
    "sig_lip": (lambda **k: losses.SigLIPLoss(1.0, -2.0, False, **k), sig_lip),
    "sig_lip_trained": (lambda **k: losses.SigLIPLoss(1.0, -2.0, **k), sig_lip),
}
F64 = {"dtype": "float64"}
weight = np.linspace(0.0, 2.0, N)


SHAPES = [(2, 2, 0.1), (2, 1, None), (1, 2, None), (3, 0, None), (1, 0, 0.0), (1, 0, -0.3)]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("positives", "hard", "margin"),
    # JAX and TensorFlow compile each anew: with a guard, and without.
    SHAPES if keras.backend.backend() == "torch" else SHAPES[:2],
)
@pytest.mark.parametrize("block_size", [None, 3])
def test_values_and_gradients(
    name: str, positives: int, hard: int, margin: float | None, block_size: int | None
) -> None:
    build, equation = LOSSES[name]
    both = made(1 + positives + hard)
    guide = None if margin is None else made(1 + positives + hard, seed=3)
    with float64():
        loss = build(positives=positives, guide_margin=margin, block_size=block_size, **F64)
        assert loss.trainable_variables or name != "sig_lip_trained"
        value, (gradient,) = value_and_gradients(lambda both: loss(guide, both, weight), both)
        rows = ops.convert_to_numpy(loss.call(guide, both))
        apart = loss(guide, both[:, 0], ref_embeddings=both[:, 1:])
    of_guide = (both, -9.0) if guide is None else (guide, margin)  # of which none is left out
    expected = equation(both, positives, *of_guide)
    assert_close(rows, expected, 1e-12)
    assert_close(value, (expected * weight).mean(), 1e-12)
    assert_close(number(apart), expected.mean(), 1e-12)
    step, direction = 1e-6, np.random.default_rng(2).normal(size=both.shape)
    up, down = (
        (equation(b, positives, *of_guide) * weight).mean()
        for b in (both + step * direction, both - step * direction)
    )
    assert_close((gradient * direction).sum(), (up - down) / (2 * step), 1e-6)


def test_a_guide_that_finds_no_false_negative_changes_nothing() -> None:
    both = made(2).astype("float32")
    alone = number(losses.InfoNCELoss()(None, both))
    assert_close(number(losses.InfoNCELoss(guide_margin=-2.0)(both, both)), alone, 1e-6)
    same = np.repeat(np.eye(N, D + 2)[:, None], 2, axis=1)  # the partner is the nearest of all
    assert_close(number(losses.InfoNCELoss(guide_margin=0.5)(same, both)), alone, 1e-6)
    nothing = np.ones((N, 2, 3))  # everything is as near as the partner
    assert number(losses.InfoNCELoss(guide_margin=0.1)(nothing, both)) == 0


def test_fit_and_config() -> None:
    both, guide = made(3).astype("float32"), made(3, seed=1).astype("float32")
    loss = losses.InfoNCELoss(positives=2, guide_margin=0.1)
    kept = losses.InfoNCELoss.from_config(loss.get_config())
    assert (kept.positives, kept.guide_margin) == (2, 0.1)
    model = keras.Sequential([keras.layers.Dense(4), keras.layers.UnitNormalization()])
    model.compile("sgd", loss=kept)
    history = model.fit(both, guide, batch_size=4, epochs=2, verbose=0)
    assert np.all(np.isfinite(history.history["loss"]))


def test_bad_input() -> None:
    both = made(3).astype("float32")
    with pytest.raises(ValueError, match=r"`y_true` must hold the embeddings.*Received None"):
        losses.InfoNCELoss(guide_margin=0.0)(None, both)
    with pytest.raises(ValueError, match=r"\[batch, 3, size\].*shape \(7, 2, 4\)"):
        losses.InfoNCELoss(guide_margin=0.0)(np.ones((N, 2, 4)), both)
    with pytest.raises(ValueError, match=r"at least 4 columns.*\(7, 3, 5\)"):
        losses.InfoNCELoss(positives=3)(None, both)
    with pytest.raises(ValueError, match="`positives` must be a whole number"):
        losses.SigLIPLoss(positives=0)
    with pytest.raises(TypeError, match="`guide_margin` must be a number"):
        losses.SigLIPLoss(guide_margin="no")
    for loss in (losses.InfoNCELoss(), losses.InfoNCELoss(positives=2)):  # hard negatives, too
        with road("symmetric"), pytest.raises(RuntimeError, match="InfoNCELoss"):
            loss(None, both)
