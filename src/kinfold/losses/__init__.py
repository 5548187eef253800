"""Losses that bring things of one kind together."""

from kinfold.losses.base import PairLoss as PairLoss
from kinfold.losses.circle import CircleLoss as CircleLoss
from kinfold.losses.circle import circle_loss as circle_loss
from kinfold.losses.contrastive import ContrastiveLoss as ContrastiveLoss
from kinfold.losses.contrastive import PairContrastiveLoss as PairContrastiveLoss
from kinfold.losses.contrastive import contrastive_loss as contrastive_loss
from kinfold.losses.log_sum_exp import LogSumExpLoss as LogSumExpLoss
