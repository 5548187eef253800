"""Up to which distance two things are of one class, or a query is of a known class."""

from kinfold.thresholds.curves import Curve as Curve
from kinfold.thresholds.pairs import calibrate as calibrate
from kinfold.thresholds.pairs import fnmr_at_fmr as fnmr_at_fmr
from kinfold.thresholds.result import Threshold as Threshold
from kinfold.thresholds.unknown import calibrate_search as calibrate_search
