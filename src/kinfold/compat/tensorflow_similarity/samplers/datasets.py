"""`tensorflow_similarity.samplers.TFDatasetMultiShotMemorySampler`: batches of a named dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from kinfold.compat.tensorflow_similarity.samplers.memory import MultiShotMemorySampler
from kinfold.metrics.task import to_numpy

_SPLITS = ("train", "test")


class TFDatasetMultiShotMemorySampler(MultiShotMemorySampler):
    """Batches of a dataset whose examples are dictionaries; see `MultiShotMemorySampler`.

    Args:
        dataset_name: the name of a TensorFlow dataset, which `tensorflow_datasets` downloads; or a
            dictionary of splits, each an iterable of dictionaries, such as Hugging Face's.
        classes_per_batch: classes of a batch.
        x_key, y_key: under which a dictionary holds the example and its class id.
        splits: the splits to read, one or several.
        examples_per_class_per_batch, steps_per_epoch, class_list, total_examples_per_class,
            augmenter, warmup: as there.
        preprocess_fn: takes an example and its class id, and returns both; None for none.

    Raises:
        ImportError: a name is given, and tensorflow_datasets is not installed.
        ValueError: a split or a key that is not there.
    """

    def __init__(
        self,
        dataset_name: str | Mapping[str, Iterable[Mapping[str, Any]]],
        classes_per_batch: int,
        x_key: str = "image",
        y_key: str = "label",
        splits: str | Sequence[str] = _SPLITS,
        examples_per_class_per_batch: int = 2,
        steps_per_epoch: int = 1000,
        class_list: Sequence[int] | None = None,
        total_examples_per_class: int | None = None,
        preprocess_fn: Callable[[Any, Any], tuple[Any, Any]] | None = None,
        augmenter: Any = None,
        warmup: int = -1,
    ) -> None:
        x, y = [], []
        for split in [splits] if isinstance(splits, str) else splits:
            for example in _examples(dataset_name, split):
                for name, key in (("x_key", x_key), ("y_key", y_key)):
                    if key not in example:
                        raise ValueError(
                            f"`{name}` must be one of {sorted(example)}. Received: {name}={key!r}."
                        )
                one = to_numpy(example[x_key]), to_numpy(example[y_key])
                one = one if preprocess_fn is None else preprocess_fn(*one)
                x.append(to_numpy(one[0]))
                y.append(to_numpy(one[1]))
        super().__init__(
            x,
            y,
            classes_per_batch=classes_per_batch,
            examples_per_class_per_batch=examples_per_class_per_batch,
            steps_per_epoch=steps_per_epoch,
            class_list=class_list,
            total_examples_per_class=total_examples_per_class,
            augmenter=augmenter,
            warmup=warmup,
        )


def _examples(dataset: Any, split: str) -> Iterable[Any]:
    if isinstance(dataset, str):
        try:
            import tensorflow_datasets
        except ImportError as error:
            raise ImportError(
                "A dataset by its name needs tensorflow_datasets: pip install tensorflow_datasets. "
                "Or pass the splits themselves, {'train': an iterable of dictionaries}."
            ) from error
        return tensorflow_datasets.as_numpy(tensorflow_datasets.load(dataset, split=split))
    if split not in dataset:
        raise ValueError(f"`splits` must be of {sorted(dataset)}. Received: {split!r}.")
    return dataset[split]
