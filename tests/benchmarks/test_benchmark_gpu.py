"""The GPU benchmark's plumbing, at a size that Triton's interpreter does on a CPU."""

import json

import keras
import numpy as np
import pytest

from benchmarks import gpu, gpu_run
from kinfold.streaming.fused import kernel

torch_only = pytest.mark.skipif(
    keras.backend.backend() != "torch" or not kernel.installed("triton"),
    reason="the kernels serve PyTorch; Triton is there on Linux",
)


def job(loss: str, name: str, **changes) -> dict:
    what = {"loss": loss, "implementation": name, "batch": 64, "dim": 16, "dtype": "float32"}
    return {**what, "precision": "highest", **changes}


@torch_only
def test_measures_here(monkeypatch) -> None:
    monkeypatch.setattr(gpu, "COMPILED", "not here: it would take a compiler")
    losses = [(loss, name) for loss in gpu.IMPLEMENTATIONS for name in gpu.IMPLEMENTATIONS[loss]]
    rows = []
    with np.errstate(all="ignore"):
        for loss, name in losses:
            if name in (gpu.FUSED, gpu.STREAMED, gpu.EAGER):
                rows.append(gpu_run.measured(job(loss, name), budget=0.0))
    assert [row.get("error") for row in rows] == [None] * 5
    for row in rows:
        assert row["seconds"] > 0
        assert row["share"] > 0
        assert 0 < row["gradient_error"] < 1e-5
    record = {"device": {"cpu": "a CPU"}, "rows": rows, "targets": gpu_run.targets(rows)}
    report = gpu_run.report(json.loads(json.dumps(record)))
    assert report.count("not measured") == 13
    assert report.count("kinfold fused") == 2


@torch_only
def test_says_that_it_needs_a_gpu(tmp_path, monkeypatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="needs an NVIDIA GPU"):
        gpu_run.run(True, tmp_path)
    assert not list(tmp_path.iterdir())


def test_jobs() -> None:
    everything = list(gpu.jobs(False, 141 * 2**30))
    assert len(everything) == 6 * 3 * 2 * (5 + 3)
    by_size = {(j["implementation"], j["batch"], j["dtype"]): j.get("skip") for j in everything}
    assert by_size["keras eager", 16384, "float32"] is None
    assert "GiB" in by_size["keras eager", 1048576, "bfloat16"]
    assert by_size["kinfold fused", 1048576, "float32"] is None
    assert by_size["kinfold streamed", 1048576, "float32"] == "would take many minutes"
    assert len(list(gpu.jobs(True, 141 * 2**30))) == 3 * 2 * 8


def test_targets() -> None:
    def row(loss, name, batch, dtype, seconds, **more):
        return {**job(loss, name, batch=batch, dim=512, dtype=dtype), "seconds": seconds, **more}

    rows = [
        row("circle", "kinfold fused", 131072, "bfloat16", 0.1, share=0.46),
        row("circle", "kinfold fused", 1048576, "bfloat16", 19.0, peak_bytes=7 * 2**30),
    ]
    for dtype in gpu.DTYPES:
        rows += [
            row("circle", "kinfold fused", 16384, dtype, 1.0, gradient_error=1e-4),
            row("circle", "keras compiled", 16384, dtype, 3.1),
            row("circle", "keras eager", 16384, dtype, 10.1, gradient_error=1e-3),
            row("info_nce", "kinfold fused", 4096, dtype, 1.0, gradient_error=1e-3),
            row("info_nce", "inf-cl", 4096, dtype, 1.4, gradient_error=2e-3),
        ]
    assert [t["reached"] for t in gpu_run.targets(rows)] == [True] * 13
    worse = [{**r, "seconds": 30.0, "share": 0.4, "peak_bytes": 9 * 2**30} for r in rows[:2]]
    worse += [{**r, "seconds": 1.0, "gradient_error": 1.0 / r["seconds"]} for r in rows[2:]]
    assert [t["reached"] for t in gpu_run.targets(worse)] == [False] * 13
    failed = [{**r, "error": "out of memory"} for r in rows]
    assert [t["reached"] for t in gpu_run.targets(failed)] == [None] * 13
    assert "out of memory" in gpu_run.line(failed[0])
