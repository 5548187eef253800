"""Processes of jax.distributed read and train what one process reads and trains."""

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kinfold.batches import ClassBalancedIndices
from native import BACKEND, assert_close

pytestmark = pytest.mark.skipif(BACKEND != "jax", reason="a feature of JAX alone")

WORKER = Path(__file__).parents[1] / "jax_processes.py"
LABELS = np.repeat(np.arange(12), 5)


def ran(size: int, folder: Path) -> list[dict[str, np.ndarray]]:
    """What each process wrote."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    file = str(folder / f"of_{size}_")
    ranks = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(size), file, str(rank), str(port)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    try:
        errors = [one.communicate(timeout=600)[1] for one in ranks]
    finally:
        for one in ranks:
            one.kill()
    for one, error in zip(ranks, errors, strict=True):
        assert one.returncode == 0, error[-4000:]
    return [dict(np.load(f"{file}{rank}.npz")) for rank in range(size)]


def test_two_processes(tmp_path: Path) -> None:
    (alone,), (first, second) = ran(1, tmp_path), ran(2, tmp_path)
    assert [one["share"].tolist() for one in (alone, first, second)] == [[0, 1], [0, 2], [1, 2]]
    expected = ["loss", "val_recall@1", "val_map@r", "gallery recall@1", "gallery map@r"]
    assert alone["names"].tolist() == first["names"].tolist() == expected
    for name in ("history", "kernel"):
        assert_close(first[name], alone[name], 1e-5, name)
        assert np.array_equal(first[name], second[name])
    assert first["uneven"].shape == (4, 8)
    both = np.concatenate([first["uneven"], second["uneven"]], axis=1)
    assert np.array_equal(both, alone["uneven"])
    assert first["seed"] == second["seed"]
    expected = ClassBalancedIndices(LABELS, 5, 3, seed=int(first["seed"])).epoch(0)
    both = np.concatenate([first["unseeded"], second["unseeded"]], axis=1)
    assert np.array_equal(both, expected)
    assert str(alone["refused"]) == ""
    for one in (first, second):
        assert "must agree on the seed of the batches. Rank 0 has 0, and" in str(one["refused"])
