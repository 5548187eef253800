"""How the loss of a batch of any size is computed in little memory, and fast."""

from kinfold.streaming.blocks import fits_one_block as fits_one_block
from kinfold.streaming.blocks import per_anchor as per_anchor
from kinfold.streaming.blocks import repeated as repeated
from kinfold.streaming.blocks import sum_and_log_sum as sum_and_log_sum
from kinfold.streaming.blocks import weighted_sum as weighted_sum
from kinfold.streaming.blocks import with_equation as with_equation
from kinfold.streaming.fused.choice import fused_kernels as fused_kernels
from kinfold.streaming.fused.kernel import Fused as Fused
from kinfold.streaming.symmetric import symmetric as symmetric
