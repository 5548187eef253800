"""`pytorch_metric_learning.testers`, under its names: embed data sets and measure them."""

from collections import defaultdict
from typing import Any

import numpy as np

from kinfold.compat.pytorch_metric_learning.base_tester import BaseTester as BaseTester
from kinfold.compat.pytorch_metric_learning.utils.embedding import as_numpy


class GlobalEmbeddingSpaceTester(BaseTester):
    """Searches each query among all references."""

    def do_knn_and_accuracies(
        self, accuracies: Any, embeddings: Any, query: Any, refs: Any
    ) -> None:
        x, y, r, of_references = self.set_reference_and_query(embeddings, query, refs)
        own = self.ref_includes_query(query, refs)
        self._keep(
            accuracies,
            {
                level: self.accuracy_calculator.get_accuracy(
                    x, y[:, level], r, of_references[:, level], own
                )
                for level in self.label_levels_to_evaluate(y)
            },
        )


class WithSameParentLabelTester(BaseTester):
    """Searches each query among references that share the label of the column above."""

    def do_knn_and_accuracies(
        self, accuracies: Any, embeddings: Any, query: Any, refs: Any
    ) -> None:
        x, y, r, of_references = self.set_reference_and_query(embeddings, query, refs)
        own = self.ref_includes_query(query, refs)
        levels = [one for one in self.label_levels_to_evaluate(y) if one < y.shape[1] - 1]
        if not levels:
            raise ValueError(
                f"Only a column with another one above can be measured here, of {y.shape[1]}. "
                f"Received: label_hierarchy_level={self.label_hierarchy_level}."
            )
        of_levels = {}
        for level in levels:
            found = defaultdict(list)
            for parent in np.unique(y[:, level + 1]):
                rows, others = y[:, level + 1] == parent, of_references[:, level + 1] == parent
                labels = y[rows, level], of_references[others, level]
                numbers = self.accuracy_calculator.get_accuracy(
                    x[rows], labels[0], r[others], labels[1], own
                )
                for metric, value in numbers.items():
                    found[metric].append(value)
            of_levels[level] = {metric: float(np.mean(values)) for metric, values in found.items()}
        self._keep(accuracies, of_levels)


class GlobalTwoStreamEmbeddingSpaceTester(GlobalEmbeddingSpaceTester):
    """Items are (anchor, other, label): searches each anchor among the others."""

    def get_all_embeddings(  # type: ignore[override]
        self, dataset: Any, trunk_model: Any, embedder_model: Any = None, collate_fn: Any = None
    ) -> tuple[Any, Any]:
        """The embeddings of the anchors, then of the others [2n, d], and their labels."""
        parts = []
        for batch in self._batches(dataset, collate_fn):
            anchors, others, label = self.data_and_label_getter(batch)
            both = (
                as_numpy(self.get_embeddings_for_eval(trunk_model, embedder_model, data))
                for data in (anchors, others)
            )
            parts.append((*both, self._labels(label)))
        *streams, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
        rows = np.concatenate([as_numpy(self.maybe_normalize(stream)) for stream in streams])
        return self._returned(rows, np.concatenate([labels, labels]), False)

    def set_reference_and_query(
        self, embeddings_and_labels: Any, query_split_name: str, reference_split_names: list[str]
    ) -> tuple[Any, Any, Any, Any]:
        if reference_split_names != [query_split_name]:
            raise ValueError(
                "Anchors are searched among the others of their own split. Received: "
                f"{query_split_name} among {reference_split_names}."
            )
        x, y = map(as_numpy, embeddings_and_labels[query_split_name])
        half = len(x) // 2
        return x[:half], y[:half], x[half:], y[:half]

    def ref_includes_query(self, query_split_name: str, reference_split_names: list[str]) -> bool:
        return False
