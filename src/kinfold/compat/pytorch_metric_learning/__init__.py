"""`pytorch_metric_learning`, under its names, with its arguments and numbers."""

from kinfold.compat.pytorch_metric_learning import distances as distances
from kinfold.compat.pytorch_metric_learning import losses as losses
from kinfold.compat.pytorch_metric_learning import miners as miners
from kinfold.compat.pytorch_metric_learning import reducers as reducers
from kinfold.compat.pytorch_metric_learning import regularizers as regularizers
from kinfold.compat.pytorch_metric_learning import samplers as samplers
from kinfold.compat.pytorch_metric_learning import testers as testers
from kinfold.compat.pytorch_metric_learning import utils as utils
