"""Peers that are not one class of a package: a loss with its miner, and dense references."""

from typing import Any

import keras


def mined_multi_similarity(epsilon: float) -> Any:
    """Multi-similarity of pytorch-metric-learning, of the pairs that its miner chooses."""
    from pytorch_metric_learning import losses, miners

    loss, miner = losses.MultiSimilarityLoss(), miners.MultiSimilarityMiner(epsilon=epsilon)
    return lambda embeddings, labels: loss(embeddings, labels, miner(embeddings, labels))


def softmax(temperature: float = 0.07) -> Any:
    """InfoNCE of pairs x_i, r_i [batch, d], in both directions, from the matrix of all cosines."""
    if keras.backend.backend() == "jax":
        import jax

        def loss(x: Any, r: Any) -> Any:
            logits = x @ r.T / temperature
            both = (jax.nn.log_softmax(logits, axis=axis) for axis in (0, 1))
            return -sum(jax.numpy.mean(jax.numpy.diagonal(part)) for part in both) / 2

    elif keras.backend.backend() == "torch":
        import torch

        def loss(x: Any, r: Any) -> Any:
            logits = x @ r.T / temperature
            own = torch.arange(len(x))
            entropy = torch.nn.functional.cross_entropy
            return (entropy(logits, own) + entropy(logits.T, own)) / 2

    else:
        import tensorflow as tf

        def loss(x: Any, r: Any) -> Any:
            logits = tf.matmul(x, r, transpose_b=True) / temperature
            own = tf.range(tf.shape(x)[0])
            entropy = tf.nn.sparse_softmax_cross_entropy_with_logits
            return tf.reduce_mean(entropy(own, logits) + entropy(own, tf.transpose(logits))) / 2

    return loss


def sigmoid(scale: float = 10.0, bias: float = -10.0) -> Any:
    """SigLIP of pairs x_i, r_i [batch, d], from the matrix of all cosines; the mean over i."""
    if keras.backend.backend() == "jax":
        import jax

        def loss(x: Any, r: Any) -> Any:
            sign = 2.0 * jax.numpy.eye(len(x), dtype=x.dtype) - 1.0
            every = jax.nn.softplus(-sign * (scale * (x @ r.T) + bias))
            return jax.numpy.sum(every) / len(x)

    elif keras.backend.backend() == "torch":
        import torch

        def loss(x: Any, r: Any) -> Any:
            sign = 2.0 * torch.eye(len(x), dtype=x.dtype) - 1.0
            every = torch.nn.functional.softplus(-sign * (scale * (x @ r.T) + bias))
            return every.sum() / len(x)

    else:
        import tensorflow as tf

        def loss(x: Any, r: Any) -> Any:
            count = tf.shape(x)[0]
            sign = 2.0 * tf.eye(count, dtype=x.dtype) - 1.0
            logits = scale * tf.matmul(x, r, transpose_b=True) + bias
            return tf.reduce_sum(tf.nn.softplus(-sign * logits)) / tf.cast(count, x.dtype)

    return loss
