"""The GPU benchmark's plumbing, at a size that Triton's interpreter does on a CPU."""

import json

import keras
import numpy as np
import pytest

from benchmarks import gpu, gpu_checks, gpu_report, gpu_run
from kinfold.streaming.fused import kernel

torch_only = pytest.mark.skipif(
    keras.backend.backend() != "torch" or not kernel.installed("triton"),
    reason="the kernels serve PyTorch; Triton is there on Linux",
)
OURS = gpu.FUSED, gpu.STREAMED


@torch_only
def test_measures_here() -> None:
    wanted = {
        (job["loss"], job["implementation"], job["dtype"]): gpu_run.smaller(job)
        for job in gpu.jobs()
        if job["implementation"] in (*OURS, gpu.EAGER)
    }
    with np.errstate(all="ignore"):
        rows = [gpu_run.measured(job, {}, budget=0.0) for job in wanted.values()]
    assert len(rows) == 9
    for row in rows:
        assert row.get("error") is None
        assert row["seconds"] > 0
        assert row["evaluation_seconds"] > 0
        if row["implementation"] in OURS:
            assert 0 < row["gradient_error"] < (0.01 if row["dtype"] == gpu.HALF else 1e-5)
    rates = {"bfloat16": 700.0, "float32": 50.0, "copy": 4.0}
    record = {"device": {"cpu": "a CPU"}, "rows": rows, "rates": rates, "checks": []}
    record["targets"] = gpu_report.targets(rows)
    report = gpu_report.report(json.loads(json.dumps(record)))
    assert report.count("not measured") == 18
    assert report.count("kinfold fused") == 5


@torch_only
@pytest.mark.parametrize("name", ["Circle", "InfoNCE", "SigLIP"])
def test_checks_against_float64(name: str) -> None:
    shapes = (50, 20, None), (50, 20, 33)
    with np.errstate(all="ignore"):
        for shape in shapes:
            for dtype in gpu_checks.DTYPES:
                found = gpu_checks.checked(name, shape, dtype)
                assert found["right"], found


@torch_only
def test_a_wrong_gradient_is_found(monkeypatch) -> None:
    from kinfold.streaming.fused.triton import launch

    right = launch.add_product
    monkeypatch.setattr(launch, "add_product", lambda *a: right(*a[:3], 1.05 * a[3]))
    with np.errstate(all="ignore"):
        assert not gpu_checks.checked("Circle", (50, 20, None), "bfloat16")["right"]


@torch_only
def test_says_that_it_needs_a_gpu(tmp_path, monkeypatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="needs an NVIDIA GPU"):
        gpu_run.run(False, 1.0, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_is_worth_most_comes_first() -> None:
    every = list(gpu.jobs())
    assert every[0] == gpu.job(gpu.CIRCLE, gpu.FUSED, 131072)
    assert len({tuple(job.items()) for job in every}) == len(every)
    figures = {"seconds": 1.0, "tflops": 1.0, "peak_bytes": 1, "extra_bytes": 1}
    targets = gpu_report.targets([{**job, **figures, "gradient_error": 1.0} for job in every])
    missing = [t["of"] for t in targets if t["reached"] is None]
    assert missing == ["Circle, 16384", "Circle, 131072"]  # which are those of JAX


def test_targets() -> None:
    def row(loss, name, batch, seconds, dim=512, dtype=gpu.HALF, **more):
        return {**gpu.job(loss, name, batch, dim, dtype), "seconds": seconds, **more}

    rows = [
        row(gpu.CIRCLE, gpu.FUSED, 131072, 1.0, tflops=401.0),
        row(gpu.CIRCLE, gpu.FUSED, 1048576, 19.0, peak_bytes=7 * 2**30),
        row(gpu.CIRCLE, gpu.EAGER, 16384, 9.0, gradient_error=1e-2),
        row(gpu.CIRCLE, gpu.FUSED_JAX, 131072, 1.4),
        row(gpu.CIRCLE, gpu.FUSED_JAX, 16384, 1.4),
    ]
    for dtype in (gpu.HALF, gpu.FULL):
        rows.append(row(gpu.CIRCLE, gpu.FUSED, 16384, 1.0, dtype=dtype, gradient_error=1e-3))
        rows.append(row(gpu.CIRCLE, gpu.COMPILED, 16384, 3.1, dtype=dtype))
    for dim in (512, 768):
        rows.append(row(gpu.SIG_LIP, gpu.FUSED, 65536, 1.0, dim, extra_bytes=10))
        rows.append(row(gpu.SIG_LIP, gpu.SIGLIP_KERNEL, 65536, 1.1, dim, extra_bytes=11))
    for batch in (16384, 65536):
        rows.append(row(gpu.INFO_NCE, gpu.FUSED, batch, 1.0, gradient_error=1e-3))
        for name in (gpu.INF_CL, gpu.MEMEFF):
            rows.append(row(gpu.INFO_NCE, name, batch, 1.4, gradient_error=2e-3))
    assert [t["reached"] for t in gpu_report.targets(rows)] == [True] * 18
    ours = gpu.FUSED, gpu.FUSED_JAX
    slow = [
        {key: 25 * value if type(value) is float else value for key, value in r.items()}
        if r["implementation"] in ours
        else r
        for r in rows
    ]
    reached = {(t["of"], t["target"]): t["reached"] for t in gpu_report.targets(slow)}
    assert reached["Circle, 1048576", "seconds a step"] is False
    assert not any(done for (of, _), done in reached.items() if of.startswith("InfoNCE"))
    failed = [{**r, "error": "out of memory"} for r in rows]
    assert [t["reached"] for t in gpu_report.targets(failed)] == [None] * 18
    assert "out of memory" in gpu_report.line(failed[0])
