"""One training: the same encoder, batches, optimizer and steps whatever the loss; on PyTorch."""

from collections.abc import Iterator
from time import perf_counter

import keras
import torch

from benchmarks.losses import OURS
from benchmarks.quality.recipes import LOSSES
from benchmarks.quality.results import METRICS
from kinfold.datasets import Split
from kinfold.metrics import retrieval_metrics
from kinfold.training import evaluation
from kinfold.training.settings import Settings

CLASSES_PER_BATCH = 16


def train(
    name: str, implementation: str, seed: int, steps: int, splits: tuple[Split, Split]
) -> dict[str, float]:
    """Train with a loss and measure it on the characters that it has not seen.

    Returns:
        The metrics, and the seconds that training and measuring took.
    """
    start = perf_counter()
    training, test = splits
    settings = Settings(
        "glyphs", classes_per_batch=CLASSES_PER_BATCH, steps_per_epoch=steps, epochs=1, seed=seed
    )
    encoder = settings.make_encoder(training.x.shape[1:])  # seeds all generators first
    batches = settings.make_batches(training)
    recipe = LOSSES[name][0 if implementation == OURS else 1]
    loss, parameters = recipe.build(len(training.names), encoder.output_shape[-1])
    weights = [variable.value for variable in encoder.trainable_variables]
    groups = [{"params": group} for group in (weights, parameters) if group]
    optimizer = torch.optim.Adam(groups, eps=keras.config.epsilon())
    for step, rate in enumerate(rates(settings)):
        x, y = batches[step]
        labels = keras.ops.convert_to_tensor(y, "int64")
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        loss(labels, encoder(x, training=True)).backward()
        optimizer.step()
    trained = perf_counter()
    values = retrieval_metrics(evaluation.embed(encoder, test.x), test.y, metrics=METRICS)
    return {
        **values,
        "seconds": round(trained - start, 2),
        "evaluation_seconds": round(perf_counter() - trained, 2),
    }


def rates(settings: Settings) -> Iterator[float]:
    """Yield the learning rate of each step, as `kinfold train` has it."""
    optimizer = settings.make_optimizer()
    for step in range(settings.steps_per_epoch * settings.epochs):
        optimizer.iterations.assign(step)
        yield float(optimizer.learning_rate)
