"""`tensorflow_similarity.augmenters`: views of images, by layers of Keras.

`augmenter(x, y, num_augmentations_per_example, is_warmup)` gives a list of views, arrays
[batch, height, width, channels]. Draws follow `keras.utils.set_random_seed`.
"""

from kinfold.compat.tensorflow_similarity.augmenters.augmenter import Augmenter as Augmenter
from kinfold.compat.tensorflow_similarity.augmenters.barlow import (
    BarlowAugmenter as BarlowAugmenter,
)
from kinfold.compat.tensorflow_similarity.augmenters.contrastive import (
    ContrastiveAugmenter as ContrastiveAugmenter,
)
from kinfold.compat.tensorflow_similarity.augmenters.simclr import (
    SimCLRAugmenter as SimCLRAugmenter,
)
