"""What `collect_stats=True` keeps of a call, against the peer; and results in half precision."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from kinfold.compat.pytorch_metric_learning import (
    distances,
    losses,
    miners,
    reducers,
    regularizers,
)
from native import BACKEND

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "pml_statistics.json").read_text())
Y, X, WEIGHTS = (np.array(GOLDEN["inputs"][name]) for name in ("y", "x", "weights"))


def name_of(case: dict[str, Any]) -> str:
    kind = next(case[name] for name in ("loss", "miner", "regularizer") if name in case)
    return "-".join([kind, *(case[part][0] for part in ("distance", "reducer") if part in case)])


def given(case: dict[str, Any]) -> dict[str, Any]:
    found = dict(case.get("arguments", {}))
    for name, module in (("distance", distances), ("reducer", reducers)):
        if name in case:
            kind, arguments = case[name]
            found[name] = getattr(module, kind)(collect_stats=True, **arguments)
    return found


def called(case: dict[str, Any]) -> Any:
    """What collects numbers, after a call."""
    if "miner" in case:
        miner = getattr(miners, case["miner"])(collect_stats=True, **given(case))
        miner(X.astype("float32"), Y)
        return miner
    if "regularizer" in case:
        regularizer = getattr(regularizers, case["regularizer"])(3, 3, collect_stats=True)
        regularizer(WEIGHTS.T.astype("float32"))
        return regularizer
    sizes = {"num_classes": 3, "embedding_size": X.shape[1]} if case.get("classes") else {}
    kind = getattr(losses, case["loss"])
    loss = kind(collect_stats=bool(case.get("own")), **given(case), **sizes)
    if case.get("classes"):
        (variable,) = loss.trainable_variables
        variable.assign(WEIGHTS[:, : variable.shape[1]])
    loss(X.astype("float32"), Y)
    return loss


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=name_of)
def test_the_peers_statistics(case: dict[str, Any]) -> None:
    one = called(case)
    compared = 0
    for name, found in case["found"].items():
        part = {"self": one, "distance": getattr(one, "distance", None)}.get(name)
        if part is None:
            _, *of = name.split()
            part = one.reducer.reducers[of[0]] if of else one.reducer
        # As the peer names it; it keeps the number as `num_above_high`.
        found.pop("num_below_high", None)
        for stat, value in found.items():
            assert getattr(part, stat, 0) == pytest.approx(value, rel=2e-5, abs=1e-6), stat
            compared += value != 0
    assert compared


def test_the_comparison_rejects_another_number() -> None:
    (case,) = (c for c in GOLDEN["cases"] if c.get("loss") == "NPairsLoss")
    with pytest.raises(AssertionError):
        test_the_peers_statistics({**case, "found": {"self": {"num_pairs": 4.0}}})


def test_the_number_below_the_upper_bound_is_kept() -> None:
    loss = losses.TripletMarginLoss(reducer=reducers.ThresholdReducer(high=0.3, collect_stats=True))
    loss(X.astype("float32"), Y)
    assert loss.reducer.num_above_high == loss.reducer.num_past_filter == 283


def test_nothing_is_kept_unless_it_is_asked_for() -> None:
    loss = losses.TupletMarginLoss(reducer=reducers.AvgNonZeroReducer())
    loss(X.astype("float32"), Y)
    for one in (loss, loss.distance, loss.reducer):
        kept = {name for name in vars(one) if "avg" in name or "num_" in name or "size" in name}
        assert not kept


def test_numbers_of_a_compiled_step_are_refused() -> None:
    if BACKEND == "torch":
        pytest.skip("PyTorch's numbers are known in every step")
    loss = losses.TupletMarginLoss(collect_stats=True)
    with pytest.raises(NotImplementedError, match="compiled step"):
        compiled(lambda x: loss(x, Y))(X.astype("float32"))


def compiled(fn: Any) -> Any:
    if BACKEND == "jax":
        import jax

        return jax.jit(fn)
    import tensorflow as tf

    return tf.function(fn)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", ["CircleLoss", "TripletMarginLoss", "ArcFaceLoss"])
def test_the_result_has_the_half_precision_of_the_embeddings(kind: str, dtype: str) -> None:
    sizes = {"num_classes": 3, "embedding_size": X.shape[1]} if kind == "ArcFaceLoss" else {}
    loss = getattr(losses, kind)(**sizes)
    x = ops.cast(ops.convert_to_tensor(X.astype("float32")), dtype)
    value = loss(x, ops.convert_to_tensor(Y.astype("int32")))
    assert keras.backend.standardize_dtype(value.dtype) == dtype
    exact = float(ops.convert_to_numpy(loss(ops.cast(x, "float32"), Y)))
    step = {"float16": 2**-10, "bfloat16": 2**-7}[dtype]  # between neighbouring numbers
    assert float(ops.convert_to_numpy(ops.cast(value, "float32"))) == pytest.approx(exact, rel=step)
