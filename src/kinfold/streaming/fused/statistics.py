"""What the fused kernels hand over between their passes, for PyTorch and JAX alike.

A kernel returns of each anchor [n]: the largest logit of its positives and the sum of exp(logit -
largest) beside it, the same of its negatives, the extra statistic, and what that pulls at the
negatives. A `unit` of ln 2 says that logits come as exponents of 2. `xp` is torch or jax.numpy: the
operations of Keras would take the processor longer than a small batch takes the GPU.
"""

from typing import Any, NamedTuple

from kinfold.core.checks import Tensor


class Counts(NamedTuple):
    positives: Tensor  # integers [n], how many of each anchor
    valid: Tensor  # boolean [n], anchors of both kinds of pairs


def merged(xp: Any, parts: Any, power: Any) -> Any:
    """Of sums [parts, 4, n] over parts of the references, those over all, [4, n].

    Args:
        parts: largest logit and total of positives, and of negatives.
        power: exp, or 2 to the power of, as the logits are.
    """
    largest = xp.amax(parts[:, 0::2], 0)
    shift = xp.where(largest == -float("inf"), 0.0, largest)
    total = (parts[:, 1::2] * power(parts[:, 0::2] - shift)).sum(0)
    return xp.stack([largest[0], total[0], largest[1], total[1]])


def values(xp: Any, stats: Any, counts: Counts, extra: str, unit: float) -> list[Tensor]:
    """Both log-sum-exps and the extra statistic, [n] each; 0 for an invalid anchor."""
    p_largest, p_total, n_largest, n_total, more, _ = stats
    if extra == "mean":
        more = unit * (p_largest + more / counts.positives)
    elif extra == "each":
        more = more / counts.positives
    p = unit * p_largest + xp.log(p_total)
    n = unit * n_largest + xp.log(n_total)
    return [xp.where(counts.valid, value, 0.0) for value in (p, n, more)]


def scaled(xp: Any, gradients: Any, counts: Counts) -> tuple[Tensor, Any]:
    """The largest of some gradients [n], and all of them as parts of it.

    In half precision the second product's entries must neither overflow nor vanish.
    """
    every = xp.where(counts.valid, xp.stack(list(gradients)), 0.0)
    largest = xp.max(xp.abs(every))
    factor = xp.where(largest > 0, largest, 1.0)
    return factor, every / factor


def terms(
    xp: Any, stats: Any, counts: Counts, extra: str, unit: float, gradients: tuple[Any, Any, Any]
) -> list[Tensor]:
    """What the second kernel takes of each anchor, six times [n]: nothing of an invalid one.

    Args:
        gradients: with respect to both log-sum-exps and the extra statistic.
    """
    p_largest, p_total, n_largest, n_total, _, pull = stats
    gp, gn, ge = gradients
    each = ge / counts.positives
    if extra == "each":
        gn = gn + each * pull
    n = n_largest + xp.log(n_total) / unit
    p_shift, n_shift, n = (
        xp.where(counts.valid, shift, float("inf")) for shift in (p_largest, n_largest, n)
    )
    p_weight, n_weight, each = (
        xp.where(counts.valid, weight, 0.0) for weight in (gp / p_total, gn / n_total, each)
    )
    return [p_shift, p_weight, n_shift, n_weight, each, n]
