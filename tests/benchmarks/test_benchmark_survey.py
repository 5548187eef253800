"""The benchmark of all losses has each in it, and tells the slow and the heavy from the rest."""

import keras
import numpy as np
import pytest
from keras import ops

from benchmarks import catalogue, losses, machine, measure, peers, steps, survey
from kinfold import losses as ours

BACKEND = keras.backend.backend()
BASES = {"PrototypeLoss", "PairLoss", "LogSumExpLoss"}
OF_DISTANCES = {"ContrastiveLoss"}  # takes no embeddings
CIRCLE, MARGIN = (
    next(e for e in catalogue.CATALOGUE if e.name == name) for name in ("CircleLoss", "MarginLoss")
)


class Prototypes(keras.losses.Loss):
    """The mean squared distance of embeddings to a prototype that is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.prototype = keras.Variable(np.full((1, 4), 2.0), dtype="float32")
        self.trainable_variables = [self.prototype]

    def stateless_call(self, values, y, x):
        with keras.StatelessScope([(self.prototype, values[0])]):
            return self(y, x)

    def __call__(self, y, x):
        return ops.mean(ops.square(x - self.prototype))


def row(name: str, backend: str, batch: int, seconds: float, mib: float, loss="CircleLoss") -> dict:
    return {
        "implementation": name,
        "loss": loss,
        "backend": backend,
        "batch": batch,
        "step": "gradient",
        "first_seconds": seconds,
        "median_seconds": seconds,
        "extra_bytes": int(mib * 2**20),
    }


def test_every_loss() -> None:
    """A new loss is a row of the catalogue."""
    kinds = {
        name
        for name, value in vars(ours).items()
        if isinstance(value, type) and issubclass(value, keras.losses.Loss)
    }
    listed = {e.ours.kind for e in catalogue.CATALOGUE if e.ours.module == "kinfold.losses"}
    assert kinds - BASES - OF_DISTANCES - {"ManifoldLoss"} <= listed  # which refuses 8,192
    assert len({entry.name for entry in catalogue.CATALOGUE}) == len(catalogue.CATALOGUE)


@pytest.mark.parametrize("entry", catalogue.CATALOGUE, ids=lambda entry: entry.name)
def test_builds(entry: catalogue.Entry) -> None:
    if not entry.ours.exists():
        pytest.skip("not in this version")
    built = entry.ours(batch=32)
    assert (len(built.trainable_variables) > 0) >= entry.ours.by_class


@pytest.mark.parametrize("name", ["CircleLoss", "compat Barlow"])
def test_step(name: str) -> None:
    """A value, and a gradient of each array of embeddings."""
    value, *gradients = keras.tree.flatten(catalogue.step(BACKEND, name, "kinfold", batch=8)())
    assert np.ndim(ops.convert_to_numpy(value)) == 0
    assert [tuple(g.shape) for g in gradients] == [(8, 128)] * (2 if "Barlow" in name else 1)


def test_gradient_of_prototypes() -> None:
    y, x = np.zeros(2, "int32"), np.ones((2, 4), "float32")
    called = catalogue.Called(Prototypes(), catalogue.of_labels)
    step = steps.prepare(BACKEND, called, y, [x], gradient=True)
    for _ in range(2):  # nothing is added up over steps
        value, *gradients = keras.tree.flatten(step())
        assert float(value) == 1.0
        found = {tuple(g.shape): float(ops.sum(g)) for g in gradients}
        assert found == {(2, 4): pytest.approx(-2.0), (1, 4): pytest.approx(2.0)}


def test_dense() -> None:
    """The dense references are the losses that they say they are."""
    rng = np.random.default_rng(3)
    x, r = rng.standard_normal((2, 5, 4)).astype("float32")
    s = (x @ r.T).astype("float64")
    rows, columns = (np.log(np.sum(np.exp(s / 0.5), axis=axis)) for axis in (1, 0))
    softmax = np.mean(rows + columns - 2 * np.diag(s) / 0.5) / 2
    sigmoid = np.sum(np.log1p(np.exp((1 - 2 * np.eye(5)) * (2 * s - 1)))) / 5
    x, r = ops.convert_to_tensor(x), ops.convert_to_tensor(r)
    np.testing.assert_allclose(float(peers.softmax(0.5)(x, r)), softmax, rtol=1e-5)
    np.testing.assert_allclose(float(peers.sigmoid(2.0, -1.0)(x, r)), sigmoid, rtol=1e-5)


def test_peers() -> None:
    assert CIRCLE.beside("torch") == ["keras", "pytorch-metric-learning"]
    assert CIRCLE.beside("jax") == ["keras"]
    assert MARGIN.beside("tensorflow") == []


def test_slow_and_failing_peers_run_alone(monkeypatch) -> None:
    """Of two peers, one is out of memory and one slow; the slow one is near ours only at 8192."""
    asked = []

    def fake(job: dict) -> list[dict]:
        asked.append([name for name, _ in job["steps"]])
        taken = {"kinfold": job["batch"] / 4096, "keras": 3.0}
        if asked[-1] == ["pytorch-metric-learning"]:
            return measure.failed(job, "out of memory")
        return [
            {**row, "first_seconds": taken[name], "median_seconds": taken[name]}
            for row, name in zip(measure.unmeasured(job), asked[-1], strict=True)
        ]

    monkeypatch.setattr(measure, "in_subprocess", fake)
    first = list(survey.measured(CIRCLE, "torch", 1024))
    alone = [["keras"], ["pytorch-metric-learning"], ["kinfold"]]
    assert asked == alone
    assert [r.get("median_seconds") for r in first] == [3.0, None, 0.25]
    asked.clear()
    assert len(list(survey.measured(CIRCLE, "torch", 8192))) == 5
    assert asked == [*alone, ["kinfold", "keras"]]


def test_a_run_goes_on(monkeypatch, tmp_path) -> None:
    """What was measured with this code is not measured again; what other code did, is."""
    asked = []

    def fake(job: dict) -> list[dict]:
        asked.append((job["loss"], job["batch"], *(name for name, _ in job["steps"])))
        if len(asked) == 5:
            raise KeyboardInterrupt
        return [
            {**row, "median_seconds": 1.0, "first_seconds": 1.0} for row in measure.unmeasured(job)
        ]

    monkeypatch.setattr(measure, "in_subprocess", fake)
    monkeypatch.setattr(survey, "CATALOGUE", (MARGIN, CIRCLE))
    with pytest.raises(KeyboardInterrupt):
        survey.run(["jax"], tmp_path)
    assert asked[:3] == [
        ("MarginLoss", 1024, "kinfold"),
        ("CircleLoss", 1024, "keras"),
        ("CircleLoss", 1024, "kinfold", "keras"),
    ]
    begun = asked[4]
    asked.clear()
    rows = survey.run(["jax"], tmp_path)["rows"]
    assert asked[0] == begun
    assert len(rows) == 6
    asked.clear()
    monkeypatch.setattr(machine, "describe", lambda: {"commit": "x", "versions": {}, "device": {}})
    with pytest.raises(KeyboardInterrupt):
        survey.run(["jax"], tmp_path)
    assert len(asked) == 5


def test_report() -> None:
    rows = [
        row("kinfold", "torch", 8192, 1.0, 257),
        row("keras", "torch", 8192, 0.9, 1000),
        measure.failed(
            {
                "loss": "CircleLoss",
                "backend": "torch",
                "batch": 8192,
                "steps": [("pytorch-metric-learning", losses.GRADIENT)],
            },
            "out of memory",
        )[0],
        row("kinfold", "jax", 8192, 1.0, 256, "MarginLoss"),
    ]
    lines = survey.measurements(rows).splitlines()[2:]
    assert [line.split()[0] for line in lines] == ["jax", "torch", "torch"]
    assert lines[1].endswith("0.90")
    assert "out of memory" in lines[2]
    assert survey.verdicts(rows) == [
        "Slower than a namesake (peer/ours below 1/1.05): CircleLoss on torch, 8192 (keras 0.90)",
        "Over 256 MiB at batch 8192: CircleLoss on torch, 8192 (257)",
    ]
    good = [row("kinfold", "torch", 8192, 1.0, 256), row("keras", "torch", 8192, 0.96, 1000)]
    assert [line.rsplit(": ")[1] for line in survey.verdicts(good)] == ["none", "none"]
