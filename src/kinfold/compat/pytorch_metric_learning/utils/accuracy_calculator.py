"""`pytorch_metric_learning.utils.accuracy_calculator`: numbers of how well a class is found.

`kinfold.retrieval_metrics` measures the same without lists of all neighbours, and gives items at
equal distances the mean of all their orders.
"""

import warnings
from typing import Any

import numpy as np
from keras import ops

from kinfold.compat.pytorch_metric_learning.calls import Module
from kinfold.compat.pytorch_metric_learning.utils import ranked
from kinfold.compat.pytorch_metric_learning.utils.embedding import as_numpy, native
from kinfold.compat.pytorch_metric_learning.utils.inference import FaissKMeans, FaissKNN

EQUALITY = ranked.equality
precision_at_k, r_precision = ranked.precision_at_k, ranked.r_precision
mean_average_precision = ranked.mean_average_precision
mean_reciprocal_rank = ranked.mean_reciprocal_rank

# Those that look no further than at as many neighbours as there are of a class.
_SHALLOW = {"precision_at_1", "r_precision", "mean_average_precision_at_r"}


class AccuracyCalculator:
    """Measures embeddings; subclass it with more `calculate_<name>(**kwargs)`.

    These get query, reference, query_labels, reference_labels, ref_includes_query; with a name in
    `requires_knn()` also knn_labels [n, k], knn_distances, label_counts, lone_query_labels and
    not_lone_query_mask; with one in `requires_clustering()` also cluster_labels. They are tensors
    on PyTorch, else arrays of NumPy.

    Args:
        include, exclude: names of what is measured and what is not; nothing for all.
        avg_of_avgs: the mean of the means of classes, not of queries.
        return_per_class: a list with the mean of each class.
        k: neighbours that are looked at: a number, None for all, or "max_bin_count" for the size of
            the largest class.
        label_comparison_fn: called on labels that broadcast, tells which match; None for equality.
        device: of PyTorch, the one that Keras uses; None.
        knn_func: finds neighbours; None for an exact `FaissKNN()`.
        kmeans_func: finds clusters for AMI and NMI; None for `FaissKMeans(niter=20)`.
    """

    def __init__(
        self,
        include: Any = (),
        exclude: Any = (),
        avg_of_avgs: bool = False,
        return_per_class: bool = False,
        k: Any = None,
        label_comparison_fn: Any = None,
        device: Any = None,
        knn_func: Any = None,
        kmeans_func: Any = None,
    ) -> None:
        start = "calculate_"
        names = sorted(name.removeprefix(start) for name in dir(self) if name.startswith(start))
        self.original_function_dict = {name: getattr(self, start + name) for name in names}
        self.original_function_dict = self.get_function_dict(include, exclude)
        self.curr_function_dict = self.original_function_dict
        if avg_of_avgs and return_per_class:
            raise ValueError("Pass avg_of_avgs or return_per_class, not both.")
        self.avg_of_avgs, self.return_per_class = bool(avg_of_avgs), bool(return_per_class)
        if k not in (None, "max_bin_count") and not (isinstance(k, int) and k > 0):
            raise ValueError(
                f"`k` must be a number above 0, None or 'max_bin_count'. Received: {k}."
            )
        _check_device(device)
        self.k, self.knn_func = k, FaissKNN() if knn_func is None else knn_func
        self._of_ours = knn_func is None
        self.kmeans_func = FaissKMeans(niter=20) if kmeans_func is None else kmeans_func
        self.label_comparison_fn = label_comparison_fn or EQUALITY
        if label_comparison_fn and set(self.requires_clustering()) & set(self.curr_function_dict):
            raise NotImplementedError(
                "Clusters are compared by equal labels: exclude "
                f"{self.requires_clustering()} with a label_comparison_fn."
            )

    def get_function_dict(self, include: Any = (), exclude: Any = ()) -> dict[str, Any]:
        """What measures each of the chosen names."""
        known = list(self.original_function_dict)
        for given in (include, exclude):
            if not isinstance(given, tuple | list):
                raise TypeError(f"Names must be in a tuple or a list. Received: {given!r}.")
            if not set(given) <= set(known):
                raise ValueError(f"Names must be of {known}. Received: {list(given)}.")
        chosen = [name for name in include or known if name not in exclude]
        return {k: v for k, v in self.original_function_dict.items() if k in chosen}

    def get_curr_metrics(self) -> list[str]:
        return list(self.curr_function_dict)

    def requires_clustering(self) -> list[str]:
        return ["NMI", "AMI"]

    def requires_knn(self) -> list[str]:
        return [
            *("precision_at_1", "mean_average_precision", "mean_average_precision_at_r"),
            *("r_precision", "mean_reciprocal_rank"),
        ]

    def get_cluster_labels(self, query: Any, query_labels: Any, **kwargs: Any) -> Any:
        return self.kmeans_func(query, len(np.unique(as_numpy(query_labels))))

    def calculate_NMI(self, query_labels: Any, cluster_labels: Any, **kwargs: Any) -> float:  # noqa: N802
        from sklearn.metrics import normalized_mutual_info_score

        return float(normalized_mutual_info_score(as_numpy(query_labels), as_numpy(cluster_labels)))

    def calculate_AMI(self, query_labels: Any, cluster_labels: Any, **kwargs: Any) -> float:  # noqa: N802
        from sklearn.metrics import adjusted_mutual_info_score

        return float(adjusted_mutual_info_score(as_numpy(query_labels), as_numpy(cluster_labels)))

    def calculate_precision_at_1(self, **kwargs: Any) -> Any:
        return self._of_ranks(precision_at_k, kwargs, 1)

    def calculate_mean_reciprocal_rank(self, **kwargs: Any) -> Any:
        return self._of_ranks(mean_reciprocal_rank, kwargs)

    def calculate_r_precision(self, **kwargs: Any) -> Any:
        return self._of_ranks(r_precision, kwargs, *_counts(kwargs))

    def calculate_mean_average_precision(self, **kwargs: Any) -> Any:
        return self._of_ranks(mean_average_precision, kwargs, *_counts(kwargs))

    def calculate_mean_average_precision_at_r(self, **kwargs: Any) -> Any:
        return self._of_ranks(mean_average_precision, kwargs, *_counts(kwargs), at_r=True)

    def _of_ranks(self, measure: Any, found: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        kept = found["not_lone_query_mask"]
        if not as_numpy(kept).any():
            nothing = float("nan")
            return [nothing] * len(found["label_counts"][0]) if self.return_per_class else nothing
        labels, own = found["knn_labels"][kept], found["query_labels"][kept][:, None]
        average = self.avg_of_avgs, self.return_per_class, self.label_comparison_fn
        return measure(labels, own, *args, *average, **kwargs)

    def get_accuracy(
        self,
        query: Any,
        query_labels: Any,
        reference: Any = None,
        reference_labels: Any = None,
        ref_includes_query: bool = False,
        include: Any = (),
        exclude: Any = (),
    ) -> dict[str, Any]:
        """Measure the embeddings of queries, searched among references.

        Args:
            query: [n, d].
            query_labels: [n], or [n, ...] for a label_comparison_fn.
            reference, reference_labels: the same of references; None for the queries.
            ref_includes_query: whether the references begin with the queries, each of which is
                left out of its own neighbours.
            include, exclude: names, among those of the calculator.

        Returns:
            {name: number}, or a list of a number of each class. Queries whose class is not among
            the references do not count; where none counts, the number is NaN.
        """
        if reference is None:
            reference, reference_labels, ref_includes_query = query, query_labels, True
        x, r = (as_numpy(rows).astype("float32") for rows in (query, reference))
        y, of_references = as_numpy(query_labels), as_numpy(reference_labels)
        if len(x) != len(y) or len(r) != len(of_references):
            raise ValueError(
                "There must be a label for each embedding. Received "
                f"{len(x)} and {len(y)}, {len(r)} and {len(of_references)}."
            )
        if y.ndim > 1 and self.label_comparison_fn is EQUALITY:
            raise ValueError(
                "Labels of several numbers take a label_comparison_fn. Received query_labels of "
                f"shape {y.shape}."
            )
        if ref_includes_query:
            same = len(r) >= len(x) and np.allclose(x, r[: len(x)])
            if not (same and np.allclose(y, of_references[: len(y)])):
                raise ValueError(
                    "With ref_includes_query=True, the references and their labels must begin with "
                    "the queries and theirs."
                )
        self.curr_function_dict = self.get_function_dict(include, exclude)
        names = set(self.curr_function_dict)
        kwargs = {
            "query": native(x),
            "reference": native(r),
            "query_labels": native(y),
            "reference_labels": native(of_references),
            "ref_includes_query": bool(ref_includes_query),
            "label_comparison_fn": self.label_comparison_fn,
        }
        if names & set(self.requires_knn()):
            kwargs |= self._nearest(y, of_references, kwargs)
        if names & set(self.requires_clustering()):
            kwargs["cluster_labels"] = self.get_cluster_labels(**kwargs)
        return {name: measure(**kwargs) for name, measure in self.curr_function_dict.items()}

    def _nearest(self, y: np.ndarray, of_references: np.ndarray, given: Any) -> dict[str, Any]:
        """What those get that look at neighbours."""
        own = given["ref_includes_query"]
        labels, counts = ranked.matching_counts(y, of_references, self.label_comparison_fn)
        k = self.determine_k(counts, len(of_references), own)
        values, at = self.knn_func(given["query"], k, given["reference"], own)
        lone = labels[counts <= int(own)]
        return {
            "knn_labels": native(of_references[as_numpy(at)]),
            "knn_distances": values,
            "label_counts": (native(labels), native(counts)),
            "lone_query_labels": native(lone),
            "not_lone_query_mask": native(~np.asarray(ranked.same(y, lone).any(1))),
        }

    def determine_k(self, bin_counts: Any, num_reference_embeddings: int, own: bool) -> int:
        """How many neighbours are looked at."""
        largest = int(np.max(as_numpy(bin_counts)))
        names = set(self.curr_function_dict)
        if self.k == "max_bin_count":
            return max(largest - own, 1)
        if self.k is None:
            of_knn = names & set(self.requires_knn())
            if self._of_ours and of_knn <= _SHALLOW and not names - set(_OWN):
                return max(largest - own, 1)
            return num_reference_embeddings - own
        if self.k < largest - own and (
            cut := names & {"r_precision", "mean_average_precision_at_r"}
        ):
            warnings.warn(
                f"{sorted(cut)} look at as many neighbours as there are of a class, up to "
                f"{largest - own}, and k={self.k} cuts them off. Pass k='max_bin_count'.",
                stacklevel=2,
            )
        return self.k

    def description(self) -> str:
        return "avg_of_avgs" if self.avg_of_avgs else ""


_OWN = [name.removeprefix("calculate_") for name in dir(AccuracyCalculator) if "calculate_" in name]


def _counts(found: dict[str, Any]) -> tuple[Any, Any]:
    return found["ref_includes_query"], found["label_counts"]


def _check_device(device: Any) -> None:
    if device is None:
        return
    there = None if Module is object else ops.zeros(()).device.type
    if str(device).split(":")[0] != there:
        raise NotImplementedError(
            f"Neighbours are found where Keras is: leave `device` out. Received: device={device!r}."
        )
