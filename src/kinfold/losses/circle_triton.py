"""Circle loss's logits and slopes in Triton: those of `circle.py`, elementwise in the distance."""

from typing import Any

import triton
import triton.language as tl


@triton.jit
def positive_logit(d, gamma, margin):
    return gamma * tl.maximum(margin + d, 0.0) * (d - margin)


@triton.jit
def negative_logit(d, gamma, margin):
    return gamma * tl.maximum((1.0 + margin) - d, 0.0) * ((1.0 - margin) - d)


@triton.jit
def positive_slope(d, gamma, margin):
    return tl.where(margin + d > 0.0, 2.0 * gamma * d, 0.0)


@triton.jit
def negative_slope(d, gamma, margin):
    return tl.where((1.0 + margin) - d > 0.0, 2.0 * gamma * (d - 1.0), 0.0)


@triton.jit
def detached_positive_slope(d, gamma, margin):
    return gamma * tl.maximum(margin + d, 0.0)


@triton.jit
def detached_negative_slope(d, gamma, margin):
    return -gamma * tl.maximum((1.0 + margin) - d, 0.0)


def functions(positive: bool, detach_weights: bool) -> Any:
    """Value and slope of a logit."""
    if positive:
        return positive_logit, detached_positive_slope if detach_weights else positive_slope
    return negative_logit, detached_negative_slope if detach_weights else negative_slope
