"""What `benchmarks.search` measures, each part in a process of its own; the last line is JSON."""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

K, QUERIES = 10, 1000
MIB = 2**20

Row = dict[str, Any]


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def own(way: str, count: str) -> Row:
    """Seconds, and memory beyond the set, of a set of `count` x 512 searched in itself."""
    n = int(count)
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(max(2, n // 12), 512)).astype(np.float32)
    y = np.arange(n) % len(centres)
    x = centres[y] + rng.normal(size=(n, 512)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    if way == "faiss":
        import faiss

        before = _status("VmRSS")
        start = time.perf_counter()
        index = faiss.IndexFlatIP(512)
        index.add(x)
        index.search(x, K + 1)
        return {"neighbours_s": time.perf_counter() - start, "extra_mib": _status("VmHWM") - before}
    from kinfold.metrics import neighbours, retrieval_metrics

    before = _status("VmRSS")
    start = time.perf_counter()
    neighbours(x, K)
    middle = time.perf_counter()
    retrieval_metrics(x, y)
    return {
        "neighbours_s": middle - start,
        "metrics_s": time.perf_counter() - middle,
        "extra_mib": _status("VmHWM") - before,
    }


def large(way: str, path: str) -> Row:
    """Seconds of 1,000 queries in all the others, the index being ready."""
    x = np.load(path)
    x, queries = x[:-QUERIES], x[-QUERIES:]
    if way == "faiss":
        import faiss

        index = faiss.IndexFlatIP(x.shape[1])
        index.add(x)
        index.search(queries[:8], K)
        start = time.perf_counter()
        index.search(queries, K)
        return {"search_s": time.perf_counter() - start}
    import kinfold

    known = kinfold.Index(engine="exact")
    known.add(x)
    known.search(queries[:8], K)
    start = time.perf_counter()
    known.search(queries, K)
    return {"search_s": time.perf_counter() - start}


def engine(way: str, path: str, name: str) -> Row:
    """recall@10 against exact, seconds and memory of an engine."""
    import kinfold

    x = np.load(path, mmap_mode="r")
    queries = np.array(x[-QUERIES:])
    truth = kinfold.Index(engine="exact")
    truth.add(x[:-QUERIES])
    expected = truth.search(queries, K).ids
    del truth
    given: dict[str, Any] = {"engine": name}
    if name in ("int8", "binary"):
        given = {"engine": "exact", "compress": name}
    with tempfile.TemporaryDirectory() as folder:
        known = kinfold.Index(**given)
        known.add(x[:-QUERIES])
        known.save(Path(folder, "index"))  # from here on the vectors stay on the disk
        start = time.perf_counter()
        known.search(queries[:1], K)
        built = time.perf_counter() - start
        start = time.perf_counter()
        found = known.search(queries, K)
        together = (time.perf_counter() - start) / QUERIES
        start = time.perf_counter()
        for query in queries[:50]:
            known.search(query[None], K)
        one = (time.perf_counter() - start) / 50
    same = [len(set(a) & set(b)) for a, b in zip(found.ids, expected, strict=True)]
    return {
        "recall@10": float(np.mean(same)) / K,
        "build_s": built,
        "together_ms": 1e3 * together,
        "one_ms": 1e3 * one,
        "memory_mib": _bytes(known) / MIB,
        "floats_mib": (len(x) - QUERIES) * x.shape[1] * 4 / MIB,
    }


def _bytes(index: Any) -> float:
    """What the engine holds in this process."""
    engine = index._engine
    if hasattr(engine, "_codes"):
        return sum(part.nbytes for part in engine._codes)
    if hasattr(engine, "faiss"):
        return len(engine.faiss.serialize_index(engine.index))
    if hasattr(engine, "_gallery"):
        return engine._gallery.rows.nbytes
    return 0.0  # Milvus: in a process of its own


def make(way: str, run: str, count: str, path: str) -> Row:
    """Embeddings of distorted glyphs by the model of a run."""
    import kinfold

    trained, n = kinfold.load(run), int(count)
    _, test = kinfold.datasets.glyphs()
    rng = np.random.default_rng(0)
    out = np.lib.format.open_memmap(
        path + ".partial.npy", "w+", np.float32, (n, trained.model.output_shape[-1])
    )
    height, width, channels = trained.kept.shape
    for start in range(0, n, 256):
        rows = rng.integers(len(test), size=min(256, n - start))
        x = test.x[rows]
        x = np.stack([np.roll(one, rng.integers(-2, 3, 2), (0, 1)) for one in x])
        x = np.clip(x * rng.uniform(0.7, 1, (len(x), 1, 1, 1)) + rng.normal(0, 6, x.shape), 0, 255)
        x = np.repeat(x.astype(np.uint8), channels, axis=-1) if channels > 1 else x.astype(np.uint8)
        out[start : start + len(x)] = trained.embedder.scaled(x[:, :height, :width])
    out.flush()
    Path(path + ".partial.npy").rename(path)
    return {"rows": n}


if __name__ == "__main__":
    parts = {"own": own, "large": large, "engine": engine, "make": make}
    print(json.dumps(parts[sys.argv[2]](sys.argv[1], *sys.argv[3:])))
