"""Where the fused kernels are chosen, and why not."""

from typing import Any

import keras
from keras import ops

from kinfold.core import backends
from kinfold.core.checks import Tensor
from kinfold.core.numerics import at_least_float32, log_sum_exp, softplus
from kinfold.streaming import forced
from kinfold.streaming.family import refusal
from kinfold.streaming.fused.kernel import DISTANCES, LARGEST
from kinfold.streaming.problem import Part, Problem, Streamed


def cannot(loss: Any, problem: Problem) -> str | None:
    """Why the kernels cannot serve, in a sentence; None where they can."""
    if why := refusal(loss):
        return why
    if not problem.with_one_set():
        return "the kernels take one set of references, without `ref_mask` or a memory."
    if not problem.of_class_ids:
        return "the kernels compare class ids; pass `y_true` as integers [batch]."
    family = loss.family()
    if family.positive.numbers is None or family.negative.numbers is None:
        return "its logits have no form for the kernels; see `kinfold.streaming.family`."
    name = family.distance.name
    if name not in DISTANCES:
        return f"distance={name!r} is none of theirs, which are {', '.join(DISTANCES)}."
    if 0 in (*problem.x.shape, *problem.parts[0].embeddings.shape):
        return "there is nothing to compare."
    return _of_tensors(problem.x)


def rather_not(loss: Any, problem: Problem) -> str | None:
    """Why another road is better, in a sentence; None where none is."""
    if why := _backend().unmeasured(problem.x):
        return why
    kernels, dense = _kernels(loss), _dense(loss)
    if _backend().on_trial(loss, problem.x, lambda *a: kernels(*a)[0], dense):
        return None
    return "the kernels failed their trial; see the warning."


def rows(loss: Any, problem: Problem) -> tuple[Tensor, Tensor]:
    """Loss and validity of each anchor by the fused kernels."""
    part = problem.parts[0]
    if problem.with_itself():
        return _kernels(loss)((problem.x,), (problem.labels,))
    first = problem.rows.first if problem.rows else 0
    return _kernels(loss, first)((problem.x, part.embeddings), (problem.labels, part.labels))


def _kernels(loss: Any, first: int = 0) -> Any:
    def kernels(sides: Any, labels: Any) -> Any:
        other, ref_y = (sides[1], labels[1]) if len(sides) > 1 else (None, None)
        ids, diagonal = (labels[0], ref_y), not loss.remove_diagonal
        return _backend().rows(loss, sides[0], other, ids, diagonal, first)

    return kernels


def _dense(loss: Any) -> Any:
    def dense(sides: Any, labels: Any) -> Tensor:
        problem = Problem(sides[0], labels[0], (Part(sides[-1], labels[-1], offset=0),))
        block, *tensors = Streamed.of(loss, problem, loss.row)
        return block(*(tensor for side in tensors for tensor in side))[0]

    return dense


def pairs(loss: Any, x: Tensor, r: Tensor, scale: Tensor, both: bool) -> Tensor | None:
    """For pairs (x_i, r_i): -log softmax of s_ii over s_i., and where `both` the mean with s_.i.

    Args:
        loss: whose pairs they are.
        x: one side [n, d].
        r: the other side [n, d].
        scale: s is the dot product times this scalar, which gets a gradient too.
        both: whether the second sum is wanted.

    Returns:
        The loss of each pair [n]; None where the kernels do not serve.

    Raises:
        RuntimeError: they were asked for and do not serve.
    """
    if not _serve(loss, x):
        return None
    backend = _backend()

    def kernels(x: Tensor, r: Tensor, scale: Any) -> Tensor:
        found = backend.pairs(x, r, scale, both)
        return sum(found) / len(found)

    def tried(sides: Any, labels: Any) -> Tensor:
        return kernels(*_partners(sides), ops.ones((), "float32"))

    def dense(sides: Any, labels: Any) -> Tensor:
        logit = _products(*_partners(sides))
        sums = [log_sum_exp(logit, axis=axis) for axis in (1, 0)[: 1 + both]]
        return sum(sums) / len(sums) - ops.diagonal(logit)

    if not (asked() or backend.on_trial(loss, x, tried, dense)):
        return None
    return kernels(x, r, scale)


def sigmoids(
    loss: Any, x: Tensor, r: Tensor, scale: Any, bias: Any, weights: Tensor | None = None
) -> Tensor | None:
    """For pairs (x_i, r_i): sum_j softplus(-z_ij s_ij), z being 1 for partners and -1 else.

    Args:
        loss: whose pairs they are.
        x: one side [n, d].
        r: the other side [n, d].
        scale: s is the dot product times this scalar, which gets a gradient too,
        bias: and this one more.
        weights: floating [n], where the sum of the losses times them is wanted.

    Returns:
        The loss of each pair [n], or the sum; None where the kernels do not serve.

    Raises:
        RuntimeError: they were asked for and do not serve.
    """
    if not _serve(loss, x, "sigmoids"):
        return None
    backend = _backend()

    def tried(sides: Any, labels: Any) -> Tensor:
        return backend.sigmoids(*_partners(sides), 5.0, -2.0, None)

    def dense(sides: Any, labels: Any) -> Tensor:
        logit = 5.0 * _products(*_partners(sides)) - 2.0
        own = ops.eye(*logit.shape, dtype=logit.dtype)
        return ops.sum(softplus(logit - 2.0 * own * logit), axis=1)

    if not (asked() or backend.on_trial(loss, x, tried, dense)):
        return None
    return backend.sigmoids(x, r, scale, bias, weights)


def _partners(sides: Any) -> tuple[Tensor, Tensor]:
    count = len(sides[-1])
    return sides[0][:count], sides[-1]


def _products(x: Tensor, r: Tensor) -> Tensor:
    return at_least_float32(x) @ ops.transpose(at_least_float32(r))


def _serve(loss: Any, x: Tensor, name: str = "pairs") -> bool:
    """Whether the kernels are asked for or the first choice, and serve.

    Raises:
        RuntimeError: they were asked for and do not serve.
    """
    if not wanted(x) or 0 in x.shape:
        return False
    why = _of_tensors(x)
    if why is None and not hasattr(_backend(), name):
        why = "there are none of its kind for JAX."
    if why and asked():
        raise RuntimeError(forced.refused(loss, why))
    return why is None


def asked() -> bool:
    return forced.only() == "fused"


def wanted(x: Tensor) -> bool:
    """Whether the kernels are asked for, or are the first choice where `x` lies."""
    if forced.only():
        return asked()
    if forced.without("fused") or not _on_gpu(x):
        return False
    return keras.backend.backend() != "tensorflow" and not _backend().unmeasured(x)


def _on_gpu(x: Tensor) -> bool:
    return backends.module("kinfold.streaming").on_gpu(x)


def _of_tensors(x: Tensor) -> str | None:
    d, dtype = x.shape[1], keras.backend.standardize_dtype(x.dtype)
    if d is None or d > LARGEST:
        return f"the kernels take embeddings of at most {LARGEST} numbers. Received: {d}."
    if dtype not in ("float32", "bfloat16", "float16"):
        return (
            f"the kernels compute in float32, bfloat16 or float16. Received embeddings of {dtype}."
        )
    if keras.backend.backend() == "tensorflow":
        return "there are none for TensorFlow, whose blocks run under XLA."
    if not (asked() or _on_gpu(x)):  # then the kernels are not even loaded
        return "the embeddings are on no GPU."
    return _backend().refusal(x)


def _backend() -> Any:
    if keras.backend.backend() == "jax":
        from kinfold.streaming.fused.pallas import road as pallas

        return pallas
    from kinfold.streaming.fused.triton import road as triton

    return triton
