"""One HTML file that shows how well an embedding finds classes it never saw in training."""

from kinfold.training.report.contents import Report as Report
from kinfold.training.report.writing import write_report as write_report
