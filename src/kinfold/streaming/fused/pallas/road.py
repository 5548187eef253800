"""The fused kernels in JAX, through Pallas: what they are given, and the gradient.

As in PyTorch (`triton`), but that a loss combines the statistics in float32.
"""

import os
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas import triton as plgpu

from kinfold.core.checks import is_concrete
from kinfold.streaming import devices as over_devices
from kinfold.streaming.family import Family
from kinfold.streaming.fused import trial
from kinfold.streaming.fused.kernel import PAIRS
from kinfold.streaming.fused.pallas import gradient, launch
from kinfold.streaming.fused.pallas.launch import Setup
from kinfold.streaming.fused.statistics import Counts, scaled, terms, values
from kinfold.streaming.jax import on_gpu

# Values of jax.default_matmul_precision that ask for float32 products without TF32.
EXACT = ("highest", "float32", "F32_F32_F32")


def on_trial(loss: Any, x: Any, kernels: trial.Rows, dense: trial.Rows) -> bool:
    """Whether the kernels give what the dense equation gives."""
    setting = jax.config.jax_default_matmul_precision, jax.config.jax_default_device

    def evaluated(
        fn: trial.Rows, arrays: Sequence[np.ndarray], labels: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        with jax.default_matmul_precision(setting[0]), jax.default_device(setting[1]):
            ids = [jnp.asarray(y) for y in labels]
            sides = [jnp.asarray(a, x.dtype) for a in arrays]
            found, pull = jax.vjp(lambda *sides: fn(sides, ids), *sides)
            every = found, *pull(jnp.ones_like(found))
            return [np.asarray(part, "float64") for part in every]

    return trial.passes(loss, x, setting, evaluated, kernels, dense)


def refusal(x: Any) -> str | None:
    """Why arrays cannot be served, in a sentence."""
    if not hasattr(plgpu, "dot"):
        return f"they are written for the Pallas of a newer JAX than {jax.__version__}."
    if not _interpreted(x) and not on_gpu(x):
        return (
            "JAX computes with these embeddings on no GPU, and they run on one (elsewhere only in "
            "Pallas's interpreter, for tests: TRITON_INTERPRET=1)."
        )
    if on_gpu(x) and jax.device_count() > 1 and not _on_one_device(x):
        return (
            f"there are {jax.device_count()} GPUs, and the compiled function does not tell on "
            "which the arrays lie. Compile it within `jax.set_mesh`."
        )
    return None


def unmeasured(x: Any) -> str | None:
    """Why the kernels must be asked for, in a sentence."""
    return "they were not timed in JAX yet; `with fused_kernels():` asks for them."


def _on_one_device(x: Any) -> bool:
    """Whether `x` lies on one device, or each of several can be given its part."""
    if over_devices.of(x) is not None or jax.sharding.get_abstract_mesh().manual_axes:
        return True
    return is_concrete(x) and len(x.devices()) == 1


def _interpreted(x: Any) -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1" and not on_gpu(x)


def _precision() -> str:
    """Of float32 products; where the user has chosen none, those of float32 as such."""
    return jax.config.jax_default_matmul_precision or "highest"


def rows(loss: Any, x: Any, r: Any, labels: Any, diagonal: bool, first: Any = 0) -> tuple[Any, Any]:
    """Loss and validity of each anchor; without `r` the anchors are the references.

    The reference at place `first` is the first anchor itself.
    """
    setup = _setup(loss.family(), diagonal, False, x)
    y, ref_y = labels
    if (found := over_devices.of(x)) is None:
        return _rows(setup, x, r, y, ref_y, None if r is None else jnp.int32(first))
    y, ref_y = ((a if a is None else a.astype(jnp.int32)) for a in labels)
    ref = (x, y) if r is None else (r, ref_y)
    at = jnp.arange(len(x), dtype=jnp.int32)
    return over_devices.shared(_OnDevice(setup), found, (x, y, at), ref, ())


class _OnDevice(NamedTuple):
    """The kernels on the anchors of one device."""

    setup: Setup

    def __call__(self, rows: Any, references: Any, _: Any) -> tuple[Any, Any]:
        x, y, at = rows
        r, ref_y = references
        return _rows(self.setup, x, r, y, ref_y, at[0])


@partial(jax.jit, static_argnums=0)
def _rows(setup: Setup, x: Any, r: Any, y: Any, ref_y: Any, first: Any) -> tuple[Any, Any]:
    every = y if ref_y is None else jnp.concatenate([y, ref_y])
    order = jnp.argsort(every)
    new = jnp.concatenate([jnp.zeros(1, bool), every[order][1:] != every[order][:-1]])
    ranks = jnp.zeros(len(every), jnp.int32).at[order].set(jnp.cumsum(new).astype(jnp.int32))
    classes, ref_classes = ranks[: len(y)], None if ref_y is None else ranks[len(y) :]
    p, n, extra = _statistics(setup, x, r, None, classes, ref_classes, first)
    _, valid = _counts(setup, classes, ref_classes, first)
    losses = setup.family.combined(p, n, extra)
    return jnp.where(valid, losses, 0.0), valid


def pairs(x: Any, r: Any, scale: Any, both: bool) -> Any:
    """-log softmax of each pair among its row and, where `both`, among its column."""
    return _paired(_setup(PAIRS, True, both, x), x, r, scale)


def _setup(family: Family, diagonal: bool, both: bool, x: Any) -> Setup:
    chosen = launch.tiles_of(x)
    return Setup(family, diagonal, both, _precision(), chosen, _interpreted(x))


@partial(jax.jit, static_argnums=0)
def _paired(setup: Setup, x: Any, r: Any, scale: Any) -> Any:
    at = jnp.arange(len(x), dtype=jnp.int32)
    p, n, _, *of_columns = _statistics(setup, x, r, scale, at, at, jnp.int32(0))
    sums = n, *of_columns[1:]
    if setup.precision not in EXACT and x.dtype == jnp.float32:
        p = scale * jnp.sum(x * r, axis=1)  # it leads the gradient: not in TF32
    return tuple(jax.nn.softplus(n - p) if len(x) > 1 else p * 0.0 for n in sums)


def _counts(setup: Setup, classes: Any, ref_classes: Any, first: Any) -> Counts:
    """How many positives each anchor has, and whether it has some and negatives."""
    other = classes if ref_classes is None else ref_classes
    run = jnp.sort(other)
    same = jnp.searchsorted(run, classes, side="right") - jnp.searchsorted(run, classes)
    positives = same
    if not setup.diagonal:
        at = jnp.arange(len(classes)) + (0 if first is None else first)
        own = (classes == other[jnp.minimum(at, len(other) - 1)]) & (at < len(other))
        positives = same - own.astype(same.dtype)
    return Counts(positives, (positives > 0) & (same < len(other)))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _statistics(
    setup: Setup, x: Any, r: Any, scale: Any, classes: Any, ref: Any, first: Any
) -> Any:
    return _statistics_forward(setup, x, r, scale, classes, ref, first)[0]


def _statistics_forward(setup: Setup, *primals: Any) -> Any:
    _, _, scale, classes, ref_classes, first = primals
    sides = launch.sides_of(setup, primals)
    counts = _counts(setup, classes, ref_classes, first)
    stats = launch.forward(setup, sides, scale)
    same = counts, setup.family.extra, 1.0
    out = values(jnp, stats, *same)
    ref_stats = None
    if setup.both:
        ref_stats = launch.forward(setup, sides[::-1], scale)
        out += values(jnp, ref_stats, *same)[:2]
    return out, (primals, stats, ref_stats)


def _statistics_backward(setup: Setup, saved: Any, gradients: Any) -> Any:
    primals, stats, ref_stats = saved
    x, r, scale, classes, ref_classes, first = primals
    sides = launch.sides_of(setup, primals)
    counts = _counts(setup, classes, ref_classes, first)
    factor, (gp, gn, ge, *of_columns) = scaled(jnp, gradients, counts)
    same = counts, setup.family.extra, 1.0
    of_anchors = ref_terms = terms(jnp, stats, *same, (gp, gn, ge))
    if setup.both:
        ref_terms = terms(jnp, ref_stats, *same, (*of_columns, jnp.zeros_like(ge)))
    of = True, r is None or setup.both
    found = gradient.gradients(setup, sides, (of_anchors, ref_terms), of, scale)
    dx, *dr = (total[:, : x.shape[1]] * factor for total in found)
    ds = None
    if scale is not None:
        ds = (jnp.sum(dx * x.astype(jnp.float32)) / scale).astype(scale.dtype)
    return dx.astype(x.dtype), dr[0].astype(r.dtype) if dr else None, ds, None, None, None


_statistics.defvjp(_statistics_forward, _statistics_backward)
