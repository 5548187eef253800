"""TensorFlow Addons' metric losses on Keras 3: `import kinfold.compat.tensorflow_addons as tfa`.

Importing it also gives Keras the names that Addons registered, "Addons>TripletSemiHardLoss" and the
like, for `compile` and for configs that Keras 2 wrote.
"""

from typing import Any

import keras

from kinfold.compat.tensorflow_addons import layers as layers
from kinfold.compat.tensorflow_addons import losses as losses

try:  # where `compile` looks for a string; Keras has no public way to it
    from keras.src.losses import ALL_OBJECTS_DICT
except ImportError:
    ALL_OBJECTS_DICT: dict[str, Any] = {}  # type: ignore[no-redef]

# A name of a function stands for the loss of the same equation: Keras would cast the labels of a
# function to floats, which merges large class ids.
_LOSSES = {
    "ContrastiveLoss": "contrastive_loss",
    "LiftedStructLoss": "lifted_struct_loss",
    "NpairsLoss": "npairs_loss",
    "NpairsMultilabelLoss": "npairs_multilabel_loss",
    "TripletHardLoss": "triplet_hard_loss",
    "TripletSemiHardLoss": "triplet_semihard_loss",
}
for _kind, _function in _LOSSES.items():
    for _name in (f"Addons>{_kind}", f"Addons>{_function}"):
        keras.saving.get_custom_objects()[_name] = getattr(losses, _kind)
        ALL_OBJECTS_DICT[_name] = getattr(losses, _kind)
keras.saving.get_custom_objects()["Addons>PoincareNormalize"] = layers.PoincareNormalize
