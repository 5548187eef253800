"""What a model with an index can do: index, look up, calibrate, match and evaluate examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kinfold import distances
from kinfold.compat.tensorflow_similarity.classification_metrics import ClassificationMetric
from kinfold.compat.tensorflow_similarity.distances import get
from kinfold.compat.tensorflow_similarity.indexer import Indexer
from kinfold.compat.tensorflow_similarity.matchers import ClassificationMatch
from kinfold.compat.tensorflow_similarity.retrieval_metrics import RetrievalMetric
from kinfold.compat.tensorflow_similarity.types import CalibrationResults, Lookup
from kinfold.compat.tensorflow_similarity.utils import table
from kinfold.metrics.task import to_numpy


class Indexed:
    """Methods of a Keras model over an `Indexer` of what it predicts.

    Every method that takes examples embeds them with `predict`. `index_of()` is the `Indexer`.
    """

    _indexer: Indexer | None = None
    predict: Any

    def index_of(self) -> Indexer:
        """Return the index.

        Raises:
            ValueError: there is none yet.
        """
        if self._indexer is None:
            raise ValueError("This model has no index: call compile() or create_index() first.")
        return self._indexer

    def index(
        self,
        x: Any,
        y: Sequence[int] | None = None,
        data: Sequence[Any] | None = None,
        build: bool = True,
        verbose: int = 1,
    ) -> None:
        """Add examples to the index.

        Args:
            x: n examples, as the model takes them.
            y: their class ids [n], or None.
            data: what belongs to each of them, such as the images themselves, or None.
            build: as of `Indexer.add`.
            verbose: 1 tells how many.
        """
        if verbose:
            print(f"Indexing {len(x)} examples.")
        self.index_of().batch_add(self._embedded(x), y, data, build, verbose)

    def index_single(
        self, x: Any, y: int | None = None, data: Any = None, build: bool = True, verbose: int = 1
    ) -> None:
        """Add one example to the index; see `index`."""
        self.index_of().add(self._embedded(to_numpy(x)[None]), y, data, build, verbose)

    def lookup(self, x: Any, k: int = 5, verbose: int = 1) -> list[list[Lookup]]:
        """Find the k nearest in the index of each of n examples."""
        return self.index_of().batch_lookup(self._embedded(x), k, verbose)

    def single_lookup(self, x: Any, k: int = 5) -> list[Lookup]:
        """Find the k nearest in the index of one example."""
        return self.index_of().single_lookup(self._embedded(to_numpy(x)[None]), k)

    def index_summary(self) -> None:
        """Print what the index is."""
        self.index_of().print_stats()

    def calibrate(
        self,
        x: Any,
        y: Sequence[int],
        thresholds_targets: Mapping[str, float] | None = None,
        k: int = 1,
        calibration_metric: str | ClassificationMetric = "f1",
        matcher: str | ClassificationMatch = "match_nearest",
        extra_metrics: Sequence[str | ClassificationMetric] = ("precision", "recall"),
        rounding: int = 2,
        verbose: int = 1,
    ) -> CalibrationResults:
        """Find the distances up to which an example is matched; see `Indexer.calibrate`."""
        return self.index_of().calibrate(
            predictions=self._embedded(x),
            target_labels=y,
            thresholds_targets=thresholds_targets or {},
            calibration_metric=calibration_metric,
            k=k,
            matcher=matcher,
            extra_metrics=extra_metrics,
            rounding=rounding,
            verbose=verbose,
        )

    def match(
        self,
        x: Any,
        cutpoint: str = "optimal",
        no_match_label: int = -1,
        k: int = 1,
        matcher: str | ClassificationMatch = "match_nearest",
        verbose: int = 0,
    ) -> Any:
        """Match examples with classes at a cutpoint of `calibrate`.

        Args:
            x: n examples.
            cutpoint: its name, or "all" for a dictionary of all of them.
            no_match_label, k, matcher, verbose: as of `Indexer.match`.

        Returns:
            n class ids.

        Raises:
            ValueError: the index is not calibrated, or has no such cutpoint.
        """
        index = self.index_of()
        if index.is_calibrated and cutpoint not in ("all", *index.cutpoints):
            raise ValueError(
                f"`cutpoint` must be 'all' or one of {list(index.cutpoints)}. Received: "
                f"cutpoint={cutpoint!r}."
            )
        matches = index.match(self._embedded(x), no_match_label, k, matcher, verbose)
        return matches if cutpoint == "all" else matches[cutpoint]

    def evaluate_retrieval(
        self,
        x: Any,
        y: Sequence[int],
        retrieval_metrics: Sequence[RetrievalMetric],
        verbose: int = 1,
    ) -> dict[str, Any]:
        """Measure how well examples find their own class; see `Indexer.evaluate_retrieval`."""
        index = self._filled()
        found = index.evaluate_retrieval(self._embedded(x), y, retrieval_metrics, verbose)
        if verbose:
            print(table(list(found.items()), ["metric", "value"]))
        return found

    def evaluate_classification(
        self,
        x: Any,
        y: Sequence[int],
        k: int = 1,
        extra_metrics: Sequence[str | ClassificationMetric] = ("precision", "recall"),
        matcher: str | ClassificationMatch = "match_nearest",
        verbose: int = 1,
    ) -> dict[str, dict[str, Any]]:
        """Measure how well examples are matched at each cutpoint of `calibrate`.

        Args:
            x: n examples.
            y: their class ids [n].
            k, matcher: as of `Indexer.match`.
            extra_metrics: metrics beside the one that decided.
            verbose: 1 prints them.

        Returns:
            For each cutpoint the metrics [1], its "distance" [1] and its "name".

        Raises:
            IndexError: the index is empty.
            ValueError: the index is not calibrated.
        """
        index = self._filled()
        if not index.is_calibrated:
            raise ValueError(
                "Evaluating needs the thresholds of calibrate(), which was not called."
            )
        embeddings = self._embedded(x)
        results: dict[str, dict[str, Any]] = {}
        for name, cutpoint in index.cutpoints.items():
            found = index.evaluate_classification(
                embeddings,
                y,
                [float(cutpoint["distance"])],
                [*extra_metrics, index.calibration_metric],
                matcher,
                k,
                verbose,
            )
            results[name] = {**found, "name": name}
        if verbose:
            first = ["name", index.calibration_metric.name]
            headers = list(dict.fromkeys([*first, *results["optimal"]]))
            print(table([[row[one] for one in headers] for row in results.values()], headers))
        return results

    def reset_index(self) -> None:
        """Empty the index."""
        self.index_of().reset()

    def index_size(self) -> int:
        """Return the number of examples in the index."""
        return self.index_of().size()

    def save_index(self, filepath: str | Path, compression: bool = True) -> None:
        """Write the index beside a model.

        Args:
            filepath: of the model, "model.keras": the index lies in the folder "model/index".
            compression: whether the records are compressed.
        """
        self.index_of().save(_folder(filepath), compression=compression)

    def load_index(self, filepath: str | Path, verbose: int = 1) -> None:
        """Read the index that lies beside a model; see `save_index`."""
        self._indexer = Indexer.load(_folder(filepath), verbose)

    def to_data_frame(self, num_items: int = 0) -> Any:
        """Return the first records of the index, all for 0, as a `pandas.DataFrame`."""
        return self.index_of().to_data_frame(num_items)

    def save(
        self,
        filepath: str | Path,
        save_index: bool = True,
        compression: bool = True,
        overwrite: bool = True,
        **kwargs: Any,
    ) -> None:
        """Write the model, and its index beside it if there is anything in it.

        Args:
            filepath: of the model, "model.keras".
            save_index: whether the index is written too.
            compression: whether its records are compressed.
            overwrite: whether a file may take the place of another.
            **kwargs: those of `keras.Model.save`.
        """
        super().save(filepath, overwrite=overwrite, **kwargs)  # type: ignore[misc]
        if save_index and self._indexer is not None and self._indexer.size():
            self.save_index(filepath, compression)

    def _filled(self) -> Indexer:
        index = self.index_of()
        if not index.size():
            raise IndexError("The index is empty: call index() first.")
        return index

    def _embedded(self, x: Any) -> np.ndarray | list[np.ndarray]:
        return self.predict(x, verbose=0)


def index_config(
    distance: Any, search: Any, kv_store: Any, evaluator: Any, stat_buffer_size: int
) -> dict[str, Any]:
    """Return those arguments of `compile` that say what the index is, where they have a name."""
    parts = {"search": search, "kv_store": kv_store, "evaluator": evaluator}
    named = {name: value for name, value in parts.items() if isinstance(value, str)}
    kind = distances.serialize(get(distance))
    return {"distance": kind, "stat_buffer_size": stat_buffer_size, **named}


def _folder(filepath: str | Path) -> Path:
    path = Path(filepath)
    return (path.with_suffix("") if path.suffix else path) / "index"
