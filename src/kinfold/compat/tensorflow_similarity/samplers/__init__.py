"""`tensorflow_similarity.samplers`: batches with several examples of each of several classes.

Each is a `keras.utils.PyDataset`, which `fit` takes on every backend. Draws follow
`keras.utils.set_random_seed`. `kinfold.ClassBalancedBatches` deals every example evenly, resumes,
and serves several processes; prefer it.
"""

from kinfold.compat.tensorflow_similarity.samplers.datasets import (
    TFDatasetMultiShotMemorySampler as TFDatasetMultiShotMemorySampler,
)
from kinfold.compat.tensorflow_similarity.samplers.files import (
    MultiShotFileSampler as MultiShotFileSampler,
)
from kinfold.compat.tensorflow_similarity.samplers.memory import (
    MultiShotMemorySampler as MultiShotMemorySampler,
)
from kinfold.compat.tensorflow_similarity.samplers.memory import (
    SingleShotMemorySampler as SingleShotMemorySampler,
)
from kinfold.compat.tensorflow_similarity.samplers.records import (
    TFRecordDatasetSampler as TFRecordDatasetSampler,
)
from kinfold.compat.tensorflow_similarity.samplers.selection import (
    select_examples as select_examples,
)
