"""From what distance on two things are of one kind, or a thing is of none that is known."""

from kinfold.thresholds.curves import Curve as Curve
from kinfold.thresholds.pairs import calibrate as calibrate
from kinfold.thresholds.result import Threshold as Threshold
from kinfold.thresholds.unknown import calibrate_search as calibrate_search
