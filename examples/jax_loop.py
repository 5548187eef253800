"""A loop of one's own in JAX, with the loss as a function and plain arrays as parameters.

python examples/jax_loop.py [STEPS]
"""

import itertools
import os
import sys

os.environ["KERAS_BACKEND"] = "jax"
import jax
import jax.numpy as jnp
import numpy as np

import kinfold

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 300
train, test = kinfold.datasets.glyphs()
rng = np.random.default_rng(0)
sizes = (32 * 32, 256, 64)
weights = [
    jnp.asarray(rng.normal(size=size) / size[0] ** 0.5, "float32")
    for size in itertools.pairwise(sizes)
]


def embed(weights: list, images: jax.Array) -> jax.Array:
    x = images.reshape(len(images), -1).astype("float32") / 255
    for w in weights[:-1]:
        x = jax.nn.relu(x @ w)
    x = x @ weights[-1]
    return x / jnp.linalg.norm(x, axis=1, keepdims=True)


@jax.jit
def step(weights: list, x: jax.Array, y: jax.Array) -> tuple:
    def value(weights: list) -> jax.Array:
        return kinfold.losses.circle_loss(y, embed(weights, x), gamma=80, margin=0.25).mean()

    found, gradients = jax.value_and_grad(value)(weights)
    return found, [w - 0.01 * g for w, g in zip(weights, gradients, strict=True)]


batches = kinfold.batches.ClassBalancedBatches(*train, classes_per_batch=32, examples_per_class=4)
before = kinfold.metrics.retrieval_metrics(embed(weights, test.x), test.y)["recall@1"]
for i in range(steps):
    x, y = batches[i % len(batches)]
    value, weights = step(weights, jnp.asarray(x), jnp.asarray(y))
    if i % 50 == 0:
        print(f"step {i}: {float(value):.3f}")
after = kinfold.metrics.retrieval_metrics(embed(weights, test.x), test.y)["recall@1"]
print(f"recall@1 {before:.3f} -> {after:.3f}")
