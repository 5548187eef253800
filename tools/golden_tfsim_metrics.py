"""Write tests/golden/tfsim_metrics.npz: what TensorFlow Similarity 0.17.1 computes of lookups.

    pip install --no-deps --target peer tensorflow-similarity==0.17.1
    PYTHONPATH=peer python tools/golden_tfsim_metrics.py

Its metrics, matchers, evaluator, pooling, training metrics and schedule run on TensorFlow 2.21 by
themselves; its index does not, as it needs NMSLIB, so the package is entered without its own
`__init__`, and a progress bar that is not there is left out.
"""

import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

CLASSES, QUERIES, NEIGHBOURS, D = 4, 25, 7, 5


def peer(name: str) -> Any:
    """A module of the peer."""
    return importlib.import_module(f"tensorflow_similarity.{name}")


def enter() -> None:
    """Make the package importable without what its `__init__` imports."""
    package = types.ModuleType("tensorflow_similarity")
    package.__path__ = importlib.util.find_spec("tensorflow_similarity").submodule_search_locations
    sys.modules["tensorflow_similarity"] = package
    bar = types.ModuleType("tqdm.auto")
    bar.tqdm = lambda *args, **kwargs: None
    sys.modules |= {"tqdm": types.ModuleType("tqdm"), "tqdm.auto": bar}


RETRIEVAL = [
    *(
        (kind, {"k": k, "average": average, "drop_closest_lookup": drop})
        for kind in ("RecallAtK", "PrecisionAtK")
        for k in (1, 4)
        for average in ("micro", "macro")
        for drop in (False, True)
    ),
    *(("MapAtK", {"k": k, "drop_closest_lookup": drop}) for k in (2, 6) for drop in (False, True)),
    *(
        (kind, {"k": 6, "r": [3, 5, 2, 0], "clip_at_r": clip, "drop_closest_lookup": drop})
        for kind in ("PrecisionAtK", "MapAtK")
        for clip in (False, True)
        for drop in (False, True)
    ),
    *(
        ("BNDCG", {"k": k, "average": average, "distance_threshold": limit})
        for k in (1, 5)
        for average in ("micro", "macro")
        for limit in (0.5, 10.0)
    ),
    ("BNDCG", {"k": 5, "drop_closest_lookup": True}),
]
CLASSIFICATION = ["recall", "precision", "f1", "binary_accuracy", "npv", "fpr"]


def main() -> None:
    enter()
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, QUERIES)
    neighbours = np.where(
        rng.random((QUERIES, NEIGHBOURS)) < 0.6,
        labels[:, None],
        rng.integers(0, CLASSES, (QUERIES, NEIGHBOURS)),
    )
    distances = np.sort(rng.random((QUERIES, NEIGHBOURS)).round(2), 1).astype("float32")
    arrays: dict[str, Any] = {"labels": labels, "neighbours": neighbours, "distances": distances}
    table: list[dict[str, Any]] = []

    metrics = peer("retrieval_metrics")
    mask = neighbours == labels[:, None]
    for kind, kwargs in RETRIEVAL:
        given = dict(kwargs)
        if "r" in given:
            given["r"] = dict(enumerate(given["r"]))
        metric = getattr(metrics, kind)(**given)
        value = metric.compute(
            query_labels=tf.constant(labels),
            lookup_labels=tf.constant(neighbours),
            lookup_distances=tf.constant(distances),
            match_mask=tf.constant(mask),
        )
        row = {"retrieval": kind, "kwargs": kwargs, "name": metric.name, "value": float(value)}
        table.append(row)

    lookup, evaluator = peer("types").Lookup, peer("evaluators").MemoryEvaluator()
    make = peer("classification_metrics").make_classification_metric
    for matcher, width in (("match_nearest", 1), ("match_majority_vote", 5)):
        found = [
            [lookup(rank=i + 1, distance=float(d), label=int(one)) for i, (d, one) in pairs]
            for pairs in (
                list(enumerate(zip(row[:width], names[:width], strict=True)))
                for row, names in zip(distances, neighbours, strict=True)
            )
        ]
        for metric in CLASSIFICATION:
            calibrated = evaluator.calibrate(
                target_labels=labels,
                lookups=found,
                thresholds_targets={"some": 0.6, "most": 0.85, "more than all": 1.5},
                calibration_metric=make(metric),
                matcher=matcher,
                extra_metrics=[make(one) for one in CLASSIFICATION if one != metric],
                verbose=0,
            )
            at = len(table)
            table.append(
                {
                    "calibration": metric,
                    "matcher": matcher,
                    "width": width,
                    "cutpoints": calibrated.cutpoints,
                }
            )
            arrays |= {f"{at}/{name}": x for name, x in calibrated.thresholds.items()}

    x = rng.normal(size=(3, 6, D)).astype("float32")
    maps = rng.normal(size=(3, 4, 5, D)).astype("float32")
    layers = peer("layers")
    arrays |= {"steps": x, "maps": maps}
    for p in (3.0, 1.0, 0.0, -2.0, np.inf, -np.inf):
        for kind, given in (("1D", x), ("2D", maps)):
            layer = getattr(layers, f"GeneralizedMeanPooling{kind}")(p=p)
            arrays[f"pooled {kind} {p}"] = layer(given).numpy()

    embeddings = rng.normal(size=(12, D)).astype("float32")
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    ids = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 0, 1])  # 3 has no positive
    arrays |= {"embeddings": embeddings, "ids": ids}
    algebra, kinds = peer("algebra"), peer("distances")
    for distance in ("cosine", "l2", "l1"):
        pairwise = kinds.distance_canonicalizer(distance)(embeddings, embeddings)
        positive, negative = algebra.build_masks(ids, ids, len(ids))
        for anchor, part in (("positive", positive), ("negative", negative)):
            for mined, found in (
                ("max", algebra.masked_max(pairwise, part)[0]),
                ("min", algebra.masked_min(pairwise, part)[0]),
            ):
                arrays[f"{distance} {anchor} {mined}"] = found.numpy()

    arrays["cases"] = json.dumps(table)
    path = Path(__file__).parent.parent / "tests" / "golden" / "tfsim_metrics.npz"
    np.savez_compressed(path, **arrays)
    print(f"{len(table)} cases: {path}")


if __name__ == "__main__":
    main()
