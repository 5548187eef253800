"""Trains on several processes of JAX: `jax_processes.py SIZE FILE [RANK PORT]`; SIZE may be 1.

Writes the shares that each process read, and what `fit` gave: history and weights.
"""

import sys

import jax

SIZE, FILE = int(sys.argv[1]), sys.argv[2]
RANK = int(sys.argv[3]) if SIZE > 1 else 0
if SIZE > 1:
    jax.distributed.initialize(f"localhost:{sys.argv[4]}", SIZE, RANK)

import keras  # noqa: E402
import numpy as np  # noqa: E402

import kinfold  # noqa: E402
from kinfold.batches import ClassBalancedBatches, ClassBalancedIndices  # noqa: E402

LABELS = np.repeat(np.arange(12), 5)
EXAMPLES = np.random.default_rng(0).normal(size=(60, 8)).astype("float32")

if SIZE > 1:
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(
            devices=keras.distribution.list_devices(), auto_shard_dataset=False
        )
    )
keras.utils.set_random_seed(1)
inputs = keras.Input((8,))
model = kinfold.EmbeddingModel(inputs, kinfold.layers.L2Embedding(4)(inputs))
model.compile(keras.optimizers.SGD(0.1), kinfold.losses.TripletLoss())
for i, variable in enumerate(model.trainable_variables):
    variable.assign(np.random.default_rng(i).normal(size=variable.shape).astype("float32"))

uneven = ClassBalancedIndices(LABELS, 5, 3, seed=1)
unseeded = ClassBalancedIndices(LABELS, 5, 3)
try:
    ClassBalancedIndices(LABELS, 5, 3, seed=RANK)
    refused = ""
except ValueError as error:
    refused = str(error)
batches = ClassBalancedBatches(EXAMPLES, LABELS, 4, 3, 5, seed=5)
evaluations = [
    kinfold.callbacks.RetrievalEvaluation(EXAMPLES, LABELS, batch_size=7),
    kinfold.callbacks.RetrievalEvaluation(
        EXAMPLES[:9], LABELS[:9], EXAMPLES[9:], LABELS[9:], prefix="gallery "
    ),
    keras.callbacks.EarlyStopping("val_map@r", mode="max", patience=2),
]
history = model.fit(batches, epochs=3, verbose=0, callbacks=evaluations).history
np.savez(
    f"{FILE}{RANK}.npz",
    share=np.array(batches.indices.share),
    uneven=uneven.epoch(0),
    seed=np.array(unseeded.seed),
    unseeded=unseeded.epoch(0),
    refused=np.array(refused),
    names=np.array(list(history)),
    history=np.array(list(history.values())),
    kernel=np.asarray(model.trainable_variables[0].value.addressable_data(0)),
)
