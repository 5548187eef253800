"""`tfa.losses`, under its names, with its signatures and numbers."""

from kinfold.compat.tensorflow_addons.losses.contrastive import ContrastiveLoss as ContrastiveLoss
from kinfold.compat.tensorflow_addons.losses.contrastive import contrastive_loss as contrastive_loss
from kinfold.compat.tensorflow_addons.losses.lifted import LiftedStructLoss as LiftedStructLoss
from kinfold.compat.tensorflow_addons.losses.lifted import lifted_struct_loss as lifted_struct_loss
from kinfold.compat.tensorflow_addons.losses.npairs import NpairsLoss as NpairsLoss
from kinfold.compat.tensorflow_addons.losses.npairs import (
    NpairsMultilabelLoss as NpairsMultilabelLoss,
)
from kinfold.compat.tensorflow_addons.losses.npairs import npairs_loss as npairs_loss
from kinfold.compat.tensorflow_addons.losses.npairs import (
    npairs_multilabel_loss as npairs_multilabel_loss,
)
from kinfold.compat.tensorflow_addons.losses.triplet import TripletHardLoss as TripletHardLoss
from kinfold.compat.tensorflow_addons.losses.triplet import (
    TripletSemiHardLoss as TripletSemiHardLoss,
)
from kinfold.compat.tensorflow_addons.losses.triplet import triplet_hard_loss as triplet_hard_loss
from kinfold.compat.tensorflow_addons.losses.triplet import (
    triplet_semihard_loss as triplet_semihard_loss,
)
