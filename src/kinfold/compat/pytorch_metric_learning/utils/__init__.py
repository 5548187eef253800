"""`pytorch_metric_learning.utils`: measuring, search and several processes."""

from kinfold.compat.pytorch_metric_learning.utils import accuracy_calculator as accuracy_calculator
from kinfold.compat.pytorch_metric_learning.utils import distributed as distributed
from kinfold.compat.pytorch_metric_learning.utils import inference as inference
