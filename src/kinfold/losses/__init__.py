"""Losses that bring things of one kind together."""

from kinfold.losses.angular import AngularLoss as AngularLoss
from kinfold.losses.arc_face import ArcFaceLoss as ArcFaceLoss
from kinfold.losses.base import PairLoss as PairLoss
from kinfold.losses.circle import CircleLoss as CircleLoss
from kinfold.losses.circle import circle_loss as circle_loss
from kinfold.losses.contrastive import ContrastiveLoss as ContrastiveLoss
from kinfold.losses.contrastive import PairContrastiveLoss as PairContrastiveLoss
from kinfold.losses.contrastive import contrastive_loss as contrastive_loss
from kinfold.losses.cos_face import CosFaceLoss as CosFaceLoss
from kinfold.losses.fast_ap import FastAPLoss as FastAPLoss
from kinfold.losses.histogram import HistogramLoss as HistogramLoss
from kinfold.losses.info_nce import InfoNCELoss as InfoNCELoss
from kinfold.losses.intra_pair_variance import IntraPairVarianceLoss as IntraPairVarianceLoss
from kinfold.losses.large_margin_softmax import LargeMarginSoftmaxLoss as LargeMarginSoftmaxLoss
from kinfold.losses.lifted_structure import (
    GeneralizedLiftedStructureLoss as GeneralizedLiftedStructureLoss,
)
from kinfold.losses.lifted_structure import LiftedStructureLoss as LiftedStructureLoss
from kinfold.losses.log_sum_exp import LogSumExpLoss as LogSumExpLoss
from kinfold.losses.manifold import ManifoldLoss as ManifoldLoss
from kinfold.losses.margin import MarginLoss as MarginLoss
from kinfold.losses.multi_similarity import MultiSimilarityLoss as MultiSimilarityLoss
from kinfold.losses.n_pairs import NPairsLoss as NPairsLoss
from kinfold.losses.normalized_softmax import NormalizedSoftmaxLoss as NormalizedSoftmaxLoss
from kinfold.losses.nt_xent import NTXentLoss as NTXentLoss
from kinfold.losses.p2s_grad import P2SGradLoss as P2SGradLoss
from kinfold.losses.pnp import PNPLoss as PNPLoss
from kinfold.losses.prototypes import PrototypeLoss as PrototypeLoss
from kinfold.losses.proxy_anchor import ProxyAnchorLoss as ProxyAnchorLoss
from kinfold.losses.proxy_nca import ProxyNCALoss as ProxyNCALoss
from kinfold.losses.ranked_list import RankedListLoss as RankedListLoss
from kinfold.losses.sig_lip import SigLIPLoss as SigLIPLoss
from kinfold.losses.smooth_ap import SmoothAPLoss as SmoothAPLoss
from kinfold.losses.soft_nearest_neighbor import SoftNearestNeighborLoss as SoftNearestNeighborLoss
from kinfold.losses.soft_triple import SoftTripleLoss as SoftTripleLoss
from kinfold.losses.sphere_face import SphereFaceLoss as SphereFaceLoss
from kinfold.losses.sup_con import SupConLoss as SupConLoss
from kinfold.losses.threshold_consistent_margin import (
    ThresholdConsistentMarginLoss as ThresholdConsistentMarginLoss,
)
from kinfold.losses.triplet import TripletLoss as TripletLoss
from kinfold.losses.tuplet_margin import TupletMarginLoss as TupletMarginLoss
