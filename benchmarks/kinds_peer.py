"""pytorch-metric-learning's own example trains the network of a run, on the classes of that run.

Its example for MNIST: batches of 256 at random, triplets that a miner finds among semi-hard ones, a
margin of 0.2, cosine similarity, the mean over triplets above zero, Adam at 0.01. It takes as many
steps as the run, and its last step is measured, as there. The network's weights begin as the run's.
"""

import json
import sys
from pathlib import Path

import keras
import numpy as np
import torch
from pytorch_metric_learning import distances, losses, miners, reducers

from kinfold.training import evaluation, records, sources
from kinfold.training.run_folder import RunFolder
from kinfold.training.untrained import untrained

BATCH, LEARNING_RATE, MARGIN = 256, 0.01, 0.2


def train(run: Path) -> dict[str, float]:
    """Train beside a run; return the metrics of its test classes."""
    folder = RunFolder(run)
    config = records.read_config(folder)
    settings = config.settings
    (training, _, test), _ = sources.again(folder, settings)
    model = untrained(folder, settings, training.x.shape[1:], config.scaling)
    x, y = np.asarray(training.x), torch.tensor(training.y.astype("int64"))
    distance = distances.CosineSimilarity()
    loss = losses.TripletMarginLoss(
        margin=MARGIN, distance=distance, reducer=reducers.ThresholdReducer(low=0)
    )
    miner = miners.TripletMarginMiner(margin=MARGIN, distance=distance, type_of_triplets="semihard")
    weights = [variable.value for variable in model.trainable_variables]
    optimizer = torch.optim.Adam(weights, lr=LEARNING_RATE)
    rng, order = np.random.default_rng(settings.seed), np.zeros(0, int)
    for _ in range(settings.epochs * settings.steps_per_epoch):
        if len(order) < min(BATCH, len(x)):
            order = rng.permutation(len(x))
        rows, order = order[:BATCH], order[BATCH:]
        optimizer.zero_grad()
        embeddings = model(keras.ops.convert_to_tensor(x[rows]), training=True)
        value = loss(embeddings, y[rows], miner(embeddings, y[rows]))
        value.backward()
        optimizer.step()
    embeddings = evaluation.embed(model, test.x)
    found, _ = evaluation.scores({"peer": (embeddings, None)}, test.y)
    return evaluation.averaged(found)["peer"]


if __name__ == "__main__":
    print(json.dumps(train(Path(sys.argv[1]))))
