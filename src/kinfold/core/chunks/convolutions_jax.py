"""Gradients of convolutions in forms that XLA computes well inside a loop on a CPU.

Outside of loops it rewrites the ones that JAX asks for into those of its library; inside, it
computes them by plain loops, ten times as slowly (https://github.com/jax-ml/jax/issues/12868).
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core
from jax.extend.core.primitives import conv_general_dilated_p

# Positions of a kernel that are worth a product each.
TAPS = 64


def replaced(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn`, the gradients of whose convolutions are those of `_convolution` where it has them."""

    def run(*args: Any) -> Any:
        program, outputs = jax.make_jaxpr(fn, return_shape=True)(*args)
        flat = _evaluated(program.jaxpr, program.consts, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(outputs), flat)

    return run


def _evaluated(jaxpr: Any, constants: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
    values = dict(zip(jaxpr.constvars, constants, strict=True))
    values.update(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for equation in jaxpr.eqns:
        primitive, arguments = equation.primitive, [read(atom) for atom in equation.invars]
        if primitive is conv_general_dilated_p and _has_gradients(equation):
            found = _convolution(*arguments, tuple(equation.params.items()))
        else:
            options = primitive.get_bind_params(equation.params)
            if isinstance(options, tuple):  # before JAX 0.10
                arguments, options = [*options[0], *arguments], options[1]
            found = primitive.bind(*arguments, **options)
        found = found if primitive.multiple_results else [found]
        values.update(zip(equation.outvars, found, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _has_gradients(equation: Any) -> bool:
    options, (x, w) = equation.params, (atom.aval for atom in equation.invars)
    inputs, *window = (w.shape[axis] for axis in options["dimension_numbers"].rhs_spec[1:])
    return (
        (options["feature_group_count"] == 1 or inputs == 1)
        and math.prod(window) <= TAPS
        and options["batch_group_count"] == 1
        and all(step == 1 for step in options["lhs_dilation"])
        and equation.outvars[0].aval.dtype == x.dtype
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolution(x: Any, w: Any, options: Any) -> Any:
    return conv_general_dilated_p.bind(x, w, **dict(options))


def _forward(x: Any, w: Any, options: Any) -> Any:
    return _convolution(x, w, options), (x, w)


def _backward(options: Any, kept: Any, g: Any) -> Any:
    options = dict(options)
    spec = options["dimension_numbers"]
    of_x, of_g = ((part[0], *part[2:], part[1]) for part in (spec.lhs_spec, spec.out_spec))
    of_w = (*spec.rhs_spec[2:], spec.rhs_spec[1], spec.rhs_spec[0])
    x, w, g = (
        jnp.transpose(*pair) for pair in zip((*kept, g), (of_x, of_w, of_g), strict=True)
    )  # channels last
    dx, dw = _of_inputs(x, w, g, options), _of_kernel(x, w, g, options)
    return jnp.transpose(dx, _inverse(of_x)), jnp.transpose(dw, _inverse(of_w))


_convolution.defvjp(_forward, _backward)


def _inverse(order: Sequence[int]) -> list[int]:
    return sorted(range(len(order)), key=order.__getitem__)


def _of_inputs(x: Any, w: Any, g: Any, options: Any) -> Any:
    """A convolution of the gradient, its rows spread by the strides, with the kernel turned."""
    groups, spread = options["feature_group_count"], options["window_strides"]
    dilation, space = options["rhs_dilation"], range(w.ndim - 2)
    w = lax.rev(w, tuple(space))
    if groups == 1:
        w = jnp.swapaxes(w, -1, -2)
    else:  # [..., 1, c * m] to [..., m, c]
        w = jnp.swapaxes(w.reshape(*w.shape[:-2], groups, -1), -1, -2)
    padding = []
    for axis in space:
        reach = (w.shape[axis] - 1) * dilation[axis]
        width = (g.shape[axis + 1] - 1) * spread[axis] + 1
        before = reach - options["padding"][axis][0]
        padding.append((before, x.shape[axis + 1] + reach - width - before))
    dims = "DHW"[-len(space) :]
    return lax.conv_general_dilated(
        g,
        w,
        window_strides=(1,) * len(space),
        padding=padding,
        lhs_dilation=spread,
        rhs_dilation=dilation,
        dimension_numbers=(f"N{dims}C", f"{dims}IO", f"N{dims}C"),
        feature_group_count=groups,
        precision=options["precision"],
    )


def _of_kernel(x: Any, w: Any, g: Any, options: Any) -> Any:
    """For each position of the kernel, what it saw of the inputs times the gradient."""
    groups, strides = options["feature_group_count"], options["window_strides"]
    edge = (0, 0, 0)
    x = lax.pad(x, jnp.zeros((), x.dtype), [edge, *((*p, 0) for p in options["padding"]), edge])
    wide = jnp.promote_types(x.dtype, jnp.float32)
    rows = tuple(range(x.ndim - 1))
    reach = [(n - 1) * step + 1 for n, step in zip(g.shape[1:-1], strides, strict=True)]

    def part(start: Any) -> Any:
        seen = lax.dynamic_slice(x, (0, *start, 0), (len(x), *reach, x.shape[-1]))
        seen = lax.slice(seen, (0,) * x.ndim, seen.shape, (1, *strides, 1))
        if groups == 1:
            over = ((rows, rows), ((), ()))
            return lax.dot_general(seen, g, over, options["precision"], preferred_element_type=wide)
        each = g.reshape(*g.shape[:-1], groups, -1).astype(wide)
        return jnp.sum(seen[..., None] * each, rows).reshape(1, -1)

    # One position at a time: all at once, each would keep its copy of the inputs.
    window = [range(size) for size in w.shape[:-2]]
    starts = jnp.array(list(itertools.product(*window))) * jnp.array(options["rhs_dilation"])
    return lax.map(part, starts).reshape(w.shape).astype(w.dtype)
