"""One HTML file that shows how well an embedding finds classes it never saw in training."""

from kinfold.report.contents import Report as Report
from kinfold.report.writing import write_report as write_report
