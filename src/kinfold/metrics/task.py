"""What is asked of an evaluation: metrics, and which items are of a query's class."""

import re
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kinfold.core.labels import integer_labels

AVERAGES = ("queries", "classes")

_AT_K = ("recall", "precision", "map", "map_found", "ndcg", "mrr")

# Names without a number: their kind, and the ranks they look at (None for R, 0 for all or none).
_PLAIN = {
    "r_precision": ("precision", None),
    "map@r": ("map", None),
    "map_found@r": ("map_found", None),
    "mrr": ("mrr", 0),
    "queries": ("count", 0),
    "queries_without_match": ("count", 0),
}


class Task(NamedTuple):
    """The labels' side of an evaluation, checked before any embedding is computed."""

    asked: dict[str, tuple[str, int | None]]  # name -> its kind, and the ranks it looks at
    query_classes: np.ndarray  # int64 [n], 0..classes-1
    gallery_classes: np.ndarray  # int64 [m]
    relevant: np.ndarray  # int64 [n], R of each query
    own_gallery: bool
    # Class and group in one number, int64 [n] and [m]: no item is ranked for a query of its own.
    query_kinds: np.ndarray | None = None
    gallery_kinds: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        query_labels: Any,
        gallery_labels: Any | None,
        metrics: Sequence[str],
        query_groups: Any | None = None,
        gallery_groups: Any | None = None,
    ) -> "Task":
        asked = _kinds(metrics)
        own_gallery = gallery_labels is None
        query = _labels(query_labels, "query_labels")
        gallery = query if own_gallery else _labels(gallery_labels, "gallery_labels")
        classes = np.unique(np.concatenate([query, gallery]), return_inverse=True)[1]
        query, gallery = classes[: len(query)], classes[-len(gallery) :]
        relevant = np.bincount(gallery, minlength=classes.max() + 1)[query]
        kinds = _with_groups(query, gallery, query_groups, gallery_groups, own_gallery)
        if kinds is None:
            relevant = relevant - own_gallery
        else:
            relevant = relevant - np.bincount(kinds[1], minlength=kinds[0].max() + 1)[kinds[0]]
        if not relevant.any():
            found = "one in another group" if kinds else "an item of its class"
            raise ValueError(
                f"No query has {found} in the gallery, so there is nothing to measure. "
                f"Received {len(query)} queries"
                + (" of as many classes." if own_gallery else f" and {len(gallery)} gallery items.")
            )
        size = len(gallery) - own_gallery
        for name, (_, k) in asked.items():
            if k is not None and k > size:
                raise ValueError(
                    f"{name!r} looks at {k} ranks, but each query is ranked against {size} items. "
                    "Ask for a smaller k."
                )
        return cls(asked, query, gallery, relevant, own_gallery, *(kinds or ()))

    def depth(self, rows: np.ndarray) -> int:
        """How many ranks of these queries are looked at, without those of a whole ranking."""
        most = int(self.relevant[rows].max(initial=0))
        ranks = max([most if k is None else k for _, k in self.asked.values()], default=0) or 1
        return ranks + self._most_left_out()

    def _most_left_out(self) -> int:
        """The most items that are not ranked for a query, beyond the query itself."""
        if self.query_kinds is None or self.gallery_kinds is None:
            return 0
        count = np.bincount(self.gallery_kinds, minlength=self.query_kinds.max() + 1)
        return int(count[self.query_kinds].max()) - self.own_gallery

    def without_own_group(
        self, rows: np.ndarray, block: np.ndarray, items: np.ndarray | slice = slice(None)
    ) -> tuple[np.ndarray, np.ndarray]:
        """Distances [rows, w] of items, infinite where none is ranked, and which are hits.

        Args:
            rows: int [rows], the queries.
            block: distances [rows, w].
            items: int [rows, w], or all.
        """
        hits = self.gallery_classes[items] == self.query_classes[rows, None]
        if self.query_kinds is None or self.gallery_kinds is None:
            return block, hits
        own = self.gallery_kinds[items] == self.query_kinds[rows, None]
        return np.where(own, np.float32(np.inf), block), hits & ~own

    def of_whole_rankings(self) -> "Task":
        """The part of the task that asks for the first hit, wherever it is."""
        asked = self.asked.items()
        return self._replace(asked={name: what for name, what in asked if what == ("mrr", 0)})

    def warn_of_left_out(self) -> None:
        left_out = np.count_nonzero(self.relevant == 0)
        if left_out:
            warnings.warn(
                f"{left_out} of {len(self.relevant)} queries have no item of their class in the "
                "gallery and are left out of the metrics.",
                stacklevel=3,
            )


def _with_groups(
    query: np.ndarray,
    gallery: np.ndarray,
    query_groups: Any | None,
    gallery_groups: Any | None,
    own_gallery: bool,
) -> tuple[np.ndarray, np.ndarray] | None:
    """A number for the class and group of each query [n] and gallery item [m]; None for none."""
    if query_groups is None and gallery_groups is None:
        return None
    if query_groups is None or (gallery_groups is None) != own_gallery:
        raise ValueError(
            "`query_groups` must be given, and `gallery_groups` exactly when there is a gallery."
        )
    of_query = _labels(query_groups, "query_groups")
    of_gallery = of_query if own_gallery else _labels(gallery_groups, "gallery_groups")
    for name, labels, groups in (
        ("query", query, of_query),
        ("gallery", gallery, of_gallery),
    ):
        if len(labels) != len(groups):
            raise ValueError(
                f"`{name}_groups` must have one group for each label. Received {len(groups)} "
                f"groups and {len(labels)} labels."
            )
    both = np.stack([np.concatenate([query, gallery]), np.concatenate([of_query, of_gallery])])
    kinds = np.unique(both, axis=1, return_inverse=True)[1].reshape(-1)
    return kinds[: len(query)], kinds[-len(gallery) :]


def _kinds(metrics: Sequence[str]) -> dict[str, tuple[str, int | None]]:
    """Metric name -> its kind, and the ranks it looks at: a number, None for R, 0 for all."""
    if isinstance(metrics, str) or not all(isinstance(name, str) for name in metrics):
        raise TypeError(
            "`metrics` must be a sequence of names, for example ('recall@1', 'map@r'). "
            f"Received: metrics={metrics!r}."
        )
    kinds: dict[str, tuple[str, int | None]] = {}
    for name in metrics:
        at_k = re.fullmatch(rf"({'|'.join(_AT_K)})@([1-9][0-9]*)", name)
        if at_k:
            kinds[name] = (at_k[1], int(at_k[2]))
        elif name in _PLAIN:
            kinds[name] = _PLAIN[name]
        else:
            known = ", ".join([f"{kind}@k" for kind in _AT_K] + list(_PLAIN))
            raise ValueError(
                f"Unknown metric {name!r}. Known are {known}, with k a positive whole number."
            )
    if not kinds:
        raise ValueError("`metrics` must hold at least one name. Received none.")
    return kinds


def _labels(value: Any, name: str) -> np.ndarray:
    """int64 [n], every bit kept."""
    labels = integer_labels(to_numpy(value), name)
    if labels.dtype == np.uint64 and labels.max() >= 2**63:
        raise ValueError(f"`{name}` must fit 64-bit signed integers. Received {labels.max()}.")
    return labels.astype(np.int64)


def to_numpy(value: Any) -> np.ndarray:
    """An array of an array or a tensor; Keras's own way warns on torch with NumPy 2.4."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if "bfloat16" in str(value.dtype) else value
    return np.asarray(value)
