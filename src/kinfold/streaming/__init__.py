"""How the loss of a batch of any size is computed in little memory, and fast."""

from kinfold.streaming.blocks import BlockSizeRule as BlockSizeRule
from kinfold.streaming.blocks import per_anchor as per_anchor
from kinfold.streaming.blocks import sum_and_log_sum as sum_and_log_sum
from kinfold.streaming.blocks import weighted_sum as weighted_sum
from kinfold.streaming.family import Family as Family
from kinfold.streaming.family import Linear as Linear
from kinfold.streaming.forced import fused_kernels as fused_kernels
from kinfold.streaming.forced import road as road
from kinfold.streaming.loops import repeated as repeated
from kinfold.streaming.loops import with_equation as with_equation
from kinfold.streaming.problem import Part as Part
from kinfold.streaming.problem import Problem as Problem
from kinfold.streaming.roads import explain as explain
