"""Train on several machines with Ray Train: python examples/ray_train.py DATA RUN WORKERS

RUN is on a disk that all machines see. Where a worker is lost, Ray starts all of them again, and
the run goes on after its last whole epoch.
"""

import sys
from pathlib import Path

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer


def work(config: dict) -> None:
    from kinfold.training import Settings, resume, train
    from kinfold.training.progress import Lines

    run = Path(config["run"])
    if (run / "config.json").exists():
        resume(run, progress=Lines())
    else:
        train(Settings(config["data"], epochs=20), run, progress=Lines())


if __name__ == "__main__":
    data, run, workers = sys.argv[1:]
    TorchTrainer(
        work,
        train_loop_config={"data": str(Path(data).resolve()), "run": str(Path(run).resolve())},
        scaling_config=ScalingConfig(num_workers=int(workers), use_gpu=False),
        run_config=RunConfig(failure_config=FailureConfig(max_failures=3)),
    ).fit()
