"""How a tester embeds data sets, and what it hands to what measures."""

from collections import defaultdict
from typing import Any

import numpy as np
from keras import ops

from kinfold.compat.pytorch_metric_learning.utils import embedding
from kinfold.compat.pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from kinfold.compat.pytorch_metric_learning.utils.embedding import as_numpy
from kinfold.core import checks
from kinfold.core.numerics import unit_rows


class BaseTester:
    """Embeds data sets; subclass it with `do_knn_and_accuracies`.

    Args:
        normalize_embeddings: whether embeddings are scaled to unit norm.
        use_trunk_output: whether the embedder is left out.
        batch_size: items that are embedded at once.
        dataloader_num_workers: processes that read, with PyTorch; None for 2 there.
        pca: dimensions that embeddings are brought down to; None for all.
        data_device: for PyTorch, where batches are moved to.
        dtype: what batches are cast to.
        data_and_label_getter: makes (data, labels) of a batch; None if it is that.
        label_hierarchy_level: the column of the labels that is measured, several, or "all".
        end_of_testing_hook: called with the tester after a test.
        dataset_labels: all labels, for `set_min_label_to_zero`.
        set_min_label_to_zero: whether labels are numbered from 0 by their order.
        accuracy_calculator: what measures; None for `AccuracyCalculator()`.
        visualizer: its `fit_transform` is called on the embeddings [n, d] of each split.
        visualizer_hook: called with the visualizer, what it returned, the labels, the name of the
            split, a key and the epoch.
    """

    def __init__(
        self,
        normalize_embeddings: bool = True,
        use_trunk_output: bool = False,
        batch_size: int = 32,
        dataloader_num_workers: int | None = None,
        pca: int | None = None,
        data_device: Any = None,
        dtype: Any = None,
        data_and_label_getter: Any = None,
        label_hierarchy_level: Any = 0,
        end_of_testing_hook: Any = None,
        dataset_labels: Any = None,
        set_min_label_to_zero: bool = False,
        accuracy_calculator: Any = None,
        visualizer: Any = None,
        visualizer_hook: Any = None,
    ) -> None:
        self.normalize_embeddings, self.use_trunk_output = normalize_embeddings, use_trunk_output
        self.batch_size = checks.count(batch_size, "batch_size")
        self.dataloader_num_workers = dataloader_num_workers
        self.pca = None if not pca else checks.count(pca, "pca")
        self.data_device, self.dtype = data_device, dtype
        self.data_and_label_getter = data_and_label_getter or (lambda batch: batch)
        self.label_hierarchy_level = label_hierarchy_level
        self.end_of_testing_hook = end_of_testing_hook
        self._classes: list[np.ndarray] | None = None
        if set_min_label_to_zero:
            if dataset_labels is None:
                raise ValueError("set_min_label_to_zero=True needs `dataset_labels`.")
            levels = as_numpy(dataset_labels)
            levels = levels.reshape(len(levels), -1)
            self._classes = [np.unique(column) for column in levels.T]
        self.accuracy_calculator = accuracy_calculator or AccuracyCalculator()
        self.visualizer, self._visualizer_hook = visualizer, visualizer_hook
        self.reference_split_names: dict[str, list[str]] = {}

    def get_all_embeddings(
        self,
        dataset: Any,
        trunk_model: Any,
        embedder_model: Any = None,
        collate_fn: Any = None,
        eval: bool = True,
        return_as_numpy: bool = False,
    ) -> tuple[Any, Any]:
        """Embed a data set.

        Args:
            dataset: has a length, and items (data, label) by position.
            trunk_model, embedder_model: anything that can be called on a batch.
            collate_fn: makes a batch of a list of items.
            eval: True; models are always put into the mode of inference.
            return_as_numpy: whether arrays are returned, not tensors.

        Returns:
            Embeddings [n, d] and labels [n, levels].
        """
        if not eval:
            raise NotImplementedError("Models embed in the mode of inference: leave `eval` out.")
        parts = []
        for batch in self._batches(dataset, collate_fn):
            data, label = self.data_and_label_getter(batch)
            rows = self.get_embeddings_for_eval(trunk_model, embedder_model, data)
            parts.append((as_numpy(rows), self._labels(label)))
        embeddings, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
        return self._returned(self.maybe_normalize(embeddings), labels, return_as_numpy)

    def _batches(self, dataset: Any, collate_fn: Any) -> Any:
        if not len(dataset):
            raise ValueError("There is nothing in the data set.")
        return embedding.batches(dataset, self.batch_size, collate_fn, self.dataloader_num_workers)

    def _labels(self, label: Any) -> np.ndarray:
        """The labels of a batch [n, levels]."""
        if isinstance(label, list | tuple):
            label = np.stack([as_numpy(level) for level in label], axis=1)
        levels = as_numpy(label)
        levels = levels.reshape(len(levels), -1)
        if self._classes is None:
            return levels
        columns = zip(self._classes, levels.T, strict=True)
        return np.stack([np.searchsorted(known, column) for known, column in columns], axis=1)

    def _returned(self, embeddings: Any, labels: np.ndarray, numpy: bool) -> tuple[Any, Any]:
        if numpy:
            return as_numpy(embeddings), labels
        return ops.convert_to_tensor(embeddings), embedding.native(labels)

    def get_embeddings_for_eval(self, trunk_model: Any, embedder_model: Any, data: Any) -> Any:
        """The embeddings of a batch."""
        models = (trunk_model, None if self.use_trunk_output else embedder_model)
        return embedding.embedded(models, data, self.data_device, self.dtype)

    def maybe_normalize(self, embeddings: Any) -> Any:
        """Fewer dimensions and unit norm, where these are asked for."""
        rows = as_numpy(embeddings)
        if self.pca:
            rows = _principal(rows, self.pca)
        return unit_rows(ops.convert_to_tensor(rows)) if self.normalize_embeddings else rows

    def test(
        self,
        dataset_dict: dict[str, Any],
        epoch: Any,
        trunk_model: Any,
        embedder_model: Any = None,
        splits_to_eval: Any = None,
        collate_fn: Any = None,
    ) -> dict[str, dict[str, Any]]:
        """Embed the splits, and measure them.

        Args:
            dataset_dict: a data set of each split.
            epoch: kept among the numbers.
            trunk_model, embedder_model: anything that can be called on a batch.
            splits_to_eval: [(split of queries, splits of references)]; None for each with itself.
            collate_fn: makes a batch of a list of items.

        Returns:
            {split: {"epoch", "<metric>_level<column>", ...}}.
        """
        pairs = splits_to_eval or [(split, [split]) for split in dataset_dict]
        queries = [split for split, _ in pairs]
        if len(set(queries)) < len(queries):
            raise ValueError(f"Each split may be the queries once. Received: {queries}.")
        used = {split for query, refs in pairs for split in (query, *refs)}
        if unknown := used - set(dataset_dict):
            raise ValueError(
                f"There is no split {sorted(unknown)}. Received: {list(dataset_dict)}."
            )
        self.embeddings_and_labels = {
            split: self.get_all_embeddings(
                dataset_dict[split], trunk_model, embedder_model, collate_fn
            )
            for split in dataset_dict
            if split in used
        }
        self._visualize(epoch)
        self.all_accuracies: dict[str, dict[str, Any]] = defaultdict(dict)
        for query, refs in pairs:
            # The queries come first among the references, as the calculator expects.
            refs = [query, *(split for split in refs if split != query)] if query in refs else refs
            self.all_accuracies[query]["epoch"] = epoch
            self.reference_split_names[query] = refs
            found = self.all_accuracies[query]
            self.do_knn_and_accuracies(found, self.embeddings_and_labels, query, refs)
        if self.end_of_testing_hook:
            self.end_of_testing_hook(self)
        del self.embeddings_and_labels
        return self.all_accuracies

    def _visualize(self, epoch: Any) -> None:
        if self.visualizer is None:
            return
        for split, (embeddings, labels) in self.embeddings_and_labels.items():
            reduced = self.visualizer.fit_transform(as_numpy(embeddings))
            for level in self.label_levels_to_evaluate(labels):
                key = self.accuracies_keyname(type(self.visualizer).__name__, level)
                if self._visualizer_hook is not None:
                    column = as_numpy(labels)[:, level]
                    self._visualizer_hook(self.visualizer, reduced, column, split, key, epoch)

    def do_knn_and_accuracies(
        self,
        accuracies: dict[str, Any],
        embeddings_and_labels: dict[str, tuple[Any, Any]],
        query_split_name: str,
        reference_split_names: list[str],
    ) -> None:
        """Put numbers into `accuracies`."""
        raise NotImplementedError

    def set_reference_and_query(
        self,
        embeddings_and_labels: dict[str, tuple[Any, Any]],
        query_split_name: str,
        reference_split_names: list[str],
    ) -> tuple[Any, Any, Any, Any]:
        """Embeddings and labels of the queries, and of the references, as arrays."""
        x, y = map(as_numpy, embeddings_and_labels[query_split_name])
        parts = [map(as_numpy, embeddings_and_labels[split]) for split in reference_split_names]
        r, of_references = (np.concatenate(part) for part in zip(*parts, strict=True))
        return x, y, r, of_references

    def ref_includes_query(self, query_split_name: str, reference_split_names: list[str]) -> bool:
        return query_split_name in reference_split_names

    def label_levels_to_evaluate(self, query_labels: Any) -> list[int]:
        """The columns of the labels that are measured."""
        number, level = query_labels.shape[1], self.label_hierarchy_level
        levels = range(number) if level == "all" else np.atleast_1d(level).tolist()
        if max(levels) >= number:
            raise ValueError(
                f"The labels have {number} columns. Received: label_hierarchy_level={level}."
            )
        return list(levels)

    def accuracies_keyname(self, metric: str, level: Any = 0, average: bool = False) -> str:
        return f"AVERAGE_{metric}" if average else f"{metric}_level{level}"

    def calculate_average_accuracies(
        self, accuracies: dict[str, Any], metrics: list[str], label_levels: list[int]
    ) -> None:
        """Put the mean over columns of the labels beside their numbers."""
        for metric in metrics:
            found = [accuracies[self.accuracies_keyname(metric, level)] for level in label_levels]
            accuracies[self.accuracies_keyname(metric, average=True)] = sum(found) / len(found)

    def _keep(self, accuracies: dict[str, Any], of_levels: dict[int, dict[str, Any]]) -> None:
        self.label_levels = list(of_levels)
        for level, found in of_levels.items():
            for metric, value in found.items():
                accuracies[self.accuracies_keyname(metric, level)] = value
        if len(of_levels) > 1:
            metrics = self.accuracy_calculator.get_curr_metrics()
            self.calculate_average_accuracies(accuracies, metrics, self.label_levels)


def _principal(rows: np.ndarray, number: int) -> np.ndarray:
    """The first principal components [n, number] of columns of unit variance."""
    if not number <= min(rows.shape):
        raise ValueError(f"`pca` must be at most {min(rows.shape)} here. Received: pca={number}.")
    wide = rows.astype("float64")
    wide = (wide - wide.mean(0)) / wide.std(0, ddof=1)
    axes = np.linalg.eigh(wide.T @ wide)[1][:, ::-1][:, :number]
    return (wide @ axes).astype(rows.dtype)
