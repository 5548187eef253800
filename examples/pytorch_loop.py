"""A loop of one's own in PyTorch, with a memory of earlier batches.

python examples/pytorch_loop.py [STEPS]
"""

import os
import sys

os.environ["KERAS_BACKEND"] = "torch"
import numpy as np
import torch

import kinfold

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 200
train, test = kinfold.datasets.glyphs()
encoder = torch.nn.Sequential(
    torch.nn.Conv2d(1, 32, 3, 2),
    torch.nn.ReLU(),
    torch.nn.Conv2d(32, 64, 3, 2),
    torch.nn.ReLU(),
    torch.nn.Flatten(),
    torch.nn.LazyLinear(64),
)


def pixels(images: np.ndarray) -> torch.Tensor:
    return torch.tensor(images[..., 0], dtype=torch.float32)[:, None] / 255


encoder(pixels(train.x[:1]))  # so that the lazy layer knows its size
loss = kinfold.CrossBatchMemory(
    kinfold.losses.SupConLoss(normalize=True), size=2048, embedding_size=64
)
optimizer = torch.optim.Adam(encoder.parameters(), 1e-3)
batches = kinfold.batches.ClassBalancedBatches(*train, classes_per_batch=32, examples_per_class=4)
for step in range(steps):
    x, y = batches[step % len(batches)]
    optimizer.zero_grad()
    value = loss(torch.as_tensor(y), encoder(pixels(np.asarray(x))))
    value.backward()
    optimizer.step()
    if step % 20 == 0:
        print(f"step {step}: {value.item():.3f}")
with torch.no_grad():
    found = encoder(pixels(test.x))
print(f"recall@1 {kinfold.metrics.retrieval_metrics(found, test.y)['recall@1']:.3f}")
