"""Whether embeddings have collapsed, so that distances between them tell nothing."""

import numpy as np

# Of seven networks of `keras.applications` with random weights, the least healthy embeddings there
# are, digits and pieces of two photographs spread by 0.10 to 0.98, at effective ranks of 2.7 to 62,
# and the distances of their pairs vary by 0.19 to 0.81 of the mean. The bounds are well below.
POINT = 0.03
LINE = 1.5
EQUAL = 1e-3
_ROOM = (
    4  # dimensions that a line is told from: of fewer, or of few classes, it may be all there is
)
_ROWS = 512  # drawn from the embeddings: enough to tell, and no cost beside embedding them

ADVICE = (
    "In the first few hundred steps this may be batch normalisation, whose statistics have not "
    "caught up with the weights, and pass. Else the learning rate is too high, or the loss is "
    "easiest met by making all embeddings the same: lower the learning rate, put more classes into "
    "a batch, take a smaller margin or gamma (a higher temperature), and see that the labels are "
    "right."
)


def find(embeddings: np.ndarray, classes: int) -> str:
    """Say in what way embeddings have collapsed.

    Of up to 512 rows, with c the rows less their mean:

    - one point: sqrt(mean |c|^2 / mean |row|^2) is below 0.03;
    - one line: their effective rank, exp(-sum p log p) with p the shares of the variance along its
      principal axes, is below 1.5, where embeddings and classes leave room for 4 or more;
    - one distance: the squared distances of pairs vary by less than 0.001 of their mean.

    Args:
        embeddings: finite [n, d].
        classes: how many classes the rows are of. Embeddings of few classes may be few points.

    Returns:
        A sentence, or "" where nothing is wrong.

    References:
        Roy and Vetterli 2007, The Effective Rank.

    Example:

    >>> import numpy as np
    >>> from kinfold.metrics import collapse
    >>> collapse.find(np.random.default_rng(0).normal(size=(100, 8)), classes=10)
    ''
    >>> collapse.find(np.ones((100, 8)), classes=10)
    'The embeddings have collapsed to one point: they differ by 0 of their length.'
    """
    x = np.asarray(embeddings, np.float64)
    if classes < 2 or len(x) < 2:
        return ""
    if len(x) > _ROWS:
        # Not every k-th: labels that come round would leave one class.
        x = x[np.random.default_rng(0).choice(len(x), _ROWS, replace=False)]
    length = np.sqrt(np.mean(np.sum(x**2, axis=1)))
    centred = x - x.mean(axis=0)
    spread = np.sqrt(np.mean(np.sum(centred**2, axis=1))) / length if length > 0 else 0.0
    if spread < POINT:
        return (
            "The embeddings have collapsed to one point: they differ by "
            f"{spread:.2g} of their length."
        )
    rank = _effective_rank(centred)
    if rank < LINE and min(x.shape[1], classes - 1) >= _ROOM:
        return (
            "The embeddings have collapsed to one line: of their "
            f"{x.shape[1]} dimensions they use {rank:.1f}."
        )
    if len(x) > 8 and _variation(centred) < EQUAL:
        return "The embeddings have collapsed to one distance: all pairs are equally far apart."
    return ""


def _effective_rank(centred: np.ndarray) -> float:
    share = np.linalg.svd(centred, compute_uv=False) ** 2
    share = share[share > 0] / share.sum()
    return float(np.exp(-np.sum(share * np.log(share))))


def _variation(centred: np.ndarray) -> float:
    """Standard deviation of the squared distances of pairs, over their mean."""
    square = np.sum(centred**2, axis=1)
    first, second = np.triu_indices(len(centred), 1)
    pairs = (square[:, None] + square - 2 * centred @ centred.T)[first, second]
    return float(pairs.std() / pairs.mean())
