"""`tensorflow_similarity.losses`, under its names, with its signatures and numbers."""

from kinfold.compat.tensorflow_similarity.losses.barlow import Barlow as Barlow
from kinfold.compat.tensorflow_similarity.losses.circle_loss import CircleLoss as CircleLoss
from kinfold.compat.tensorflow_similarity.losses.metric_loss import MetricLoss as MetricLoss
from kinfold.compat.tensorflow_similarity.losses.multi_similarity_loss import (
    MultiSimilarityLoss as MultiSimilarityLoss,
)
from kinfold.compat.tensorflow_similarity.losses.multineg import (
    MultiNegativesRankLoss as MultiNegativesRankLoss,
)
from kinfold.compat.tensorflow_similarity.losses.simclr import SimCLRLoss as SimCLRLoss
from kinfold.compat.tensorflow_similarity.losses.simsiam import SimSiamLoss as SimSiamLoss
from kinfold.compat.tensorflow_similarity.losses.soft_nearest_neighbor_loss import (
    SoftNearestNeighborLoss as SoftNearestNeighborLoss,
)
from kinfold.compat.tensorflow_similarity.losses.triplet_loss import PNLoss as PNLoss
from kinfold.compat.tensorflow_similarity.losses.triplet_loss import TripletLoss as TripletLoss
from kinfold.compat.tensorflow_similarity.losses.vicreg import VicReg as VicReg
from kinfold.compat.tensorflow_similarity.losses.xbm import XBM as XBM
