"""Circle loss's logits and slopes in Triton: those of `circle.py`, elementwise in the distance."""

import triton
import triton.language as tl

from kinfold.streaming.fused.kernel import Functions


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


def functions(detach_weights: bool) -> Functions:
    slopes = (positive_slope, negative_slope)
    if detach_weights:
        slopes = (detached_positive_slope, detached_negative_slope)
    return Functions(positive_logit, negative_logit, *slopes)
