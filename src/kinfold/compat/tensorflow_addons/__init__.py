"""TensorFlow Addons' metric losses on Keras 3: `import kinfold.compat.tensorflow_addons as tfa`."""

from kinfold.compat.tensorflow_addons import losses as losses
