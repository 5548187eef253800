"""Four processes that share each batch, with the loss of the whole batch in each of them.

torchrun --standalone --nproc-per-node 4 examples/four_processes.py [STEPS]
"""

import os
import sys

os.environ["KERAS_BACKEND"] = "torch"
import torch
import torch.distributed as dist

import kinfold

torch.set_num_threads(1)
steps = int(sys.argv[1]) if len(sys.argv) > 1 else 100
dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
rank, size = dist.get_rank(), dist.get_world_size()
train, test = kinfold.datasets.glyphs()


def pixels(images: object) -> torch.Tensor:
    return torch.as_tensor(images, dtype=torch.float32)[..., 0][:, None] / 255


torch.manual_seed(0)  # the same weights everywhere
encoder = torch.nn.Sequential(
    torch.nn.Conv2d(1, 32, 3, 2),
    torch.nn.ReLU(),
    torch.nn.Conv2d(32, 64, 3, 2),
    torch.nn.ReLU(),
    torch.nn.Flatten(),
    torch.nn.Linear(64 * 7 * 7, 64),
)
model = torch.nn.parallel.DistributedDataParallel(encoder)
loss = kinfold.losses.CircleLoss(margin=0.25, normalize=True)
optimizer = torch.optim.Adam(model.parameters(), 1e-3)
# Every process draws the same batches, and takes its own part of each.
batches = kinfold.batches.ClassBalancedBatches(
    *train, classes_per_batch=32, examples_per_class=4, seed=0
)
for step in range(steps):
    x, y = batches[step % len(batches)]
    own = slice(rank * len(y) // size, (rank + 1) * len(y) // size)
    optimizer.zero_grad()
    value = loss(torch.as_tensor(y[own]), model(pixels(x[own])))
    value.backward()
    optimizer.step()
    if rank == 0 and step % 20 == 0:
        print(f"step {step}: {value.item():.3f}", flush=True)  # the same number on every rank
if rank == 0:
    with torch.no_grad():
        found = encoder(pixels(test.x))
    value = kinfold.metrics.retrieval_metrics(found, test.y)["recall@1"]
    print(f"recall@1 {value:.3f}", flush=True)
dist.barrier()
del model  # before the group: its last reference would wait for it
dist.destroy_process_group()
