"""What the GPU benchmark measures beside single losses: a step of `fit`, and search."""

import contextlib
import importlib.util
from collections.abc import Iterator
from time import perf_counter
from typing import Any

Row = dict[str, Any]


def rows(small: bool) -> Iterator[Row]:
    """Each measurement; `small` for a rehearsal."""
    for batch in (64,) if small else (4096, 16384):
        yield fit_step(batch)
    sizes = ((600, 600, 16),) if small else ((60000, None, 512), (1000, 1_000_000, 128))
    for queries, items, d in sizes:
        yield search(queries, items, d)


def fit_step(batch: int, d: int = 512) -> Row:
    """A step of a small network in `fit`, in mixed bfloat16: with the kernels, and without."""
    import keras
    import numpy as np

    import kinfold
    from kinfold.streaming import fused_kernels

    x = np.random.default_rng(0).standard_normal((batch, 256)).astype("float32")
    y = np.arange(batch) // 4
    row: Row = {"what": "fit", "batch": batch, "dim": d}
    for name, wanted in (("kernels", None), ("streamed", False)):
        policy = "mixed_bfloat16"
        layers = [keras.layers.Dense(1024, activation="relu", dtype=policy)]
        layers.append(kinfold.layers.L2Embedding(d, dtype=policy))
        model = keras.Sequential([keras.Input((256,)), *layers])
        loss = kinfold.losses.CircleLoss(dtype="bfloat16")
        model.compile(optimizer="sgd", loss=loss, jit_compile=False)
        with contextlib.nullcontext() if wanted is None else fused_kernels(wanted):
            model.train_on_batch(x, y)
            count, start = 10, perf_counter()
            for _ in range(count):
                value = model.train_on_batch(x, y)
            float(value)
            row[name] = (perf_counter() - start) / count
    return row


def search(queries: int, items: int | None, d: int, k: int = 10) -> Row:
    """The nearest of each query, or of each item of a set among themselves; and FAISS beside."""
    import numpy as np

    from kinfold.metrics import neighbours

    rng = np.random.default_rng(0)

    def unit(count: int) -> Any:
        x = rng.standard_normal((count, d), dtype="float32")
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    x, r = unit(queries), None if items is None else unit(items)
    row: Row = {"what": "neighbours", "queries": queries, "items": items, "dim": d}
    neighbours(x[:100], k, r)
    start = perf_counter()
    found, _ = neighbours(x, k, r)
    row["seconds"] = perf_counter() - start
    if importlib.util.find_spec("faiss"):
        import faiss

        index = faiss.IndexFlatIP(d)
        index.add(x if r is None else r)
        start = perf_counter()
        _, theirs = index.search(x, k + (r is None))
        row["faiss_seconds"] = perf_counter() - start
        row["faiss_threads"] = faiss.omp_get_max_threads()
        theirs = theirs[:, 1:] if r is None else theirs
        row["same"] = float(np.mean(np.sort(found, 1) == np.sort(theirs, 1)))
    return row
