"""The benchmarks run and say what they measured; the figures themselves are nobody's promise."""

import json

import keras
import numpy as np
import pytest

from benchmarks import losses, machine, measure, memory, plots, tables, targets

BACKEND = keras.backend.backend()


def row(name: str, backend: str, batch: int, seconds: float, mib: float, step="gradient") -> dict:
    return {
        "implementation": name,
        "backend": backend,
        "batch": batch,
        "step": step,
        "median_seconds": seconds,
        "minimum_seconds": seconds,
        "extra_bytes": int(mib * 2**20),
        "product_gflops": 100.0,
    }


@pytest.fixture
def rows() -> list[dict]:
    """A run in which every target is reached, by a hair."""
    out = []
    for backend in losses.BACKENDS:
        out += [row("kinfold", backend, n, 0.00105, 1) for n in losses.SMALL]
        out += [row("keras", backend, n, 0.001, 1) for n in losses.SMALL]
        out.append(row("kinfold", backend, 8192, 1.0, 100))
        out.append(row("kinfold", backend, 8192, 0.4, 100, "evaluation"))
        out.append(row("keras", backend, 8192, 15.0, 1000))
        out.append(row("kinfold", backend, 65536, 50.0, 256))
    return [*out, row("pytorch-metric-learning", "torch", 8192, 15.0, 2000)]


def test_measures_a_memory_here() -> None:
    """The smallest of the steps with a memory of earlier batches."""
    job = {"backend": BACKEND, "loss": "CircleLoss", "who": memory.OURS, "size": 64}
    row = memory.in_process(job)
    assert 0 < row["seconds"] < 60
    assert row["bank_bytes"] == 64 * memory.DIM * 4
    record = {**machine.describe(), "batch": memory.BATCH, "dim": memory.DIM}
    failed = {**job, "error": "out of memory"}
    lines = memory.report({**record, "rows": [{**job, **row}, failed]}).splitlines()
    assert lines[-2].split()[:4] == ["CircleLoss", BACKEND, "kinfold", "64"]
    assert lines[-1].endswith("out of memory")


def test_measures_here(tmp_path) -> None:
    """The smallest size on this backend, into JSON and a table."""
    steps = [("kinfold", "gradient"), ("kinfold", "evaluation")]
    job = {"backend": BACKEND, "batch": 32, "time": True, "steps": steps}
    measured = measure.in_process(job, budget=0.0)
    record = {**machine.describe(), "rows": measured, "targets": targets.targets(measured)}
    machine.write(tmp_path / "losses.json", record)
    read = json.loads((tmp_path / "losses.json").read_text(encoding="utf-8"))
    assert read["versions"]["keras"] == keras.__version__
    assert read["device"]["cores"] >= 1
    assert [(r["implementation"], r["step"]) for r in read["rows"]] == steps
    for measurement in read["rows"]:
        assert 0 < measurement["minimum_seconds"] <= measurement["median_seconds"] < 60
        assert measurement["product_gflops"] > 0
    assert read["rows"][0]["extra_bytes"] >= 0
    assert len(read["targets"]) == 16
    assert all(target["reached"] is None for target in read["targets"])
    report = tables.report(read)
    assert len([line for line in report.splitlines() if line.startswith(BACKEND)]) == 2


def test_same_loss() -> None:
    """What is timed against each other has one value."""
    y, x = losses.inputs(32)
    ours, peer = (
        losses.loss(name)(y, keras.ops.convert_to_tensor(x)) for name in ("kinfold", "keras")
    )
    np.testing.assert_allclose(*(keras.ops.convert_to_numpy(v) for v in (ours, peer)), rtol=1e-5)


def test_peak() -> None:
    """64 MiB that a step allocates and drops again are seen, and are not seen twice."""
    extra, _ = measure.weighed(lambda: np.ones(2**23).sum())
    nothing, _ = measure.weighed(lambda: None)
    assert 60 < extra / 2**20 < 80
    assert nothing < 2**22


def test_failures_are_rows() -> None:
    job = {"backend": BACKEND, "batch": 8, "time": True, "steps": [("keras", "gradient")]}
    (row,) = measure.failed(job, "out of memory")
    assert "out of memory" in tables.measurements([row])
    assert measure.reason(RuntimeError("can't allocate memory: you tried")) == "out of memory"
    unknown = {**job, "backend": "nonesuch"}
    (row,) = measure.in_process(unknown, budget=0.0)
    assert "nonesuch" in row["error"]


def test_targets(rows: list[dict]) -> None:
    verdicts = targets.targets(rows)
    assert [verdict["reached"] for verdict in verdicts] == [True] * 16
    worse = {
        ("kinfold", 8192, "gradient"): {"median_seconds": 10.0, "extra_bytes": 101 * 2**20},
        ("kinfold", 8192, "evaluation"): {"median_seconds": 4.1},
        ("kinfold", 64, "gradient"): {"median_seconds": 0.00106},
        ("kinfold", 65536, "gradient"): {"extra_bytes": 257 * 2**20},
    }
    worse_rows = [
        {**r, **worse.get((r["implementation"], r["batch"], r["step"]), {})} for r in rows
    ]
    verdicts = targets.targets(worse_rows)
    assert [verdict["reached"] for verdict in verdicts] == [False] * 16
    table = tables.target_table(verdicts)
    assert table.count("missed") == 16
    assert "257, in 50.0 s" in table


def test_jobs() -> None:
    full = list(losses.jobs(losses.BACKENDS, quick=False))
    steps = [(j["backend"], j["batch"], *step) for j in full for step in j["steps"]]
    for backend in losses.BACKENDS:
        assert (backend, 65536, "kinfold", "gradient") in steps
        assert (backend, 65536, "keras", "gradient") not in steps
        assert (backend, 8192, "kinfold", "evaluation") in steps
    assert ("torch", 8192, "pytorch-metric-learning", "gradient") in steps
    assert len(list(losses.jobs(("jax",), quick=True))) < len(full) / 6


def test_plots(tmp_path, rows: list[dict]) -> None:
    """A line a loss in each panel, and an SVG of README width."""
    time = plots.time(rows)
    assert [len(axes.lines) for axes in time.axes] == [2, 3, 2]
    ours = time.axes[0].lines[0]
    assert list(ours.get_xdata()) == [*losses.SMALL, 8192, 65536]
    assert list(ours.get_ydata())[-2:] == [1.0, 50.0]
    for path in plots.draw(rows, tmp_path):
        text = path.read_text(encoding="utf-8")
        assert text.count("<svg") == 1
        assert 'width="648pt"' in text  # 900 pixels at 100 an inch
    assert len(list(tmp_path.iterdir())) == 2
    plots.draw([], tmp_path)  # nothing measured, nothing drawn
