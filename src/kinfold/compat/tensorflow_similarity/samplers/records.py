"""`tensorflow_similarity.samplers.TFRecordDatasetSampler`: batches of shards of records."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kinfold.core import checks


def TFRecordDatasetSampler(  # noqa: N802
    shard_path: str | os.PathLike[str],
    deserialization_fn: Callable[[Any], Any],
    example_per_class: int = 2,
    batch_size: int = 32,
    shards_per_cycle: int | None = None,
    compression: str | None = None,
    parallelism: int = -1,
    async_cycle: bool = False,
    prefetch_size: int | None = None,
    shard_suffix: str = "*.tfrec",
    num_repeat: int = -1,
) -> Any:
    """Read shards of TFRecords in turn, some examples of a class at a time.

    Within a shard the examples of a class must follow one another, their number a multiple of
    `example_per_class`: a batch then holds so many of each of its classes. The result is a
    `tf.data.Dataset`, which `fit` takes on every backend; TensorFlow must be installed.

    Args:
        shard_path: folder of the shards.
        deserialization_fn: makes an example, (x, y), of a record.
        example_per_class: examples that are read of a shard before the next one.
        batch_size: examples of a batch.
        shards_per_cycle: how many shards are read in turn; None for all.
        compression: None, "ZLIB" or "GZIP".
        parallelism: how many records are made examples at once; -1 lets TensorFlow choose.
        async_cycle: whether shards are read by threads.
        prefetch_size: batches read ahead; None for 10.
        shard_suffix: what the names of shards look like.
        num_repeat: how often all shards are read; -1 for ever.

    Raises:
        ImportError: TensorFlow is not installed.
        FileNotFoundError: the folder holds no shard.
        ValueError: an unknown compression, or a count below 1.
    """
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ImportError(
            "TFRecords are read by TensorFlow: pip install tensorflow. Without it, convert them to "
            "a WebDataset or Parquet for kinfold.datasets."
        ) from error
    shards = sorted(map(str, Path(shard_path).glob(shard_suffix)))
    if not shards:
        raise FileNotFoundError(f"There is no {shard_suffix} in {str(shard_path)!r}.")
    checks.choice(compression, "compression", (None, "ZLIB", "GZIP"))  # type: ignore[arg-type]
    cycle = len(shards)
    if shards_per_cycle is not None:
        cycle = checks.count(shards_per_cycle, "shards_per_cycle")
    records = (
        tf.data.Dataset.from_tensor_slices(shards)
        .shuffle(len(shards))
        .interleave(
            lambda shard: tf.data.TFRecordDataset(shard, compression_type=compression),
            cycle_length=cycle,
            block_length=checks.count(example_per_class, "example_per_class"),
            num_parallel_calls=cycle if async_cycle else 1,
            deterministic=True,  # or a batch would not hold so many examples of a class
        )
    )
    batches = records.map(deserialization_fn, num_parallel_calls=parallelism)
    batches = batches.repeat(num_repeat).batch(checks.count(batch_size, "batch_size"))
    return batches.prefetch(10 if prefetch_size is None else prefetch_size)
