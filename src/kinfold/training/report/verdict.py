"""Whether the model is better than its raw input: the headline of the page."""

from __future__ import annotations

import math
from typing import NamedTuple

from kinfold.training.report.context import ReportContext
from kinfold.training.verdicts import JUDGED, judge


class Verdict(NamedTuple):
    """The headline, and its kind for the colour: "better", "worse" or "unsure"."""

    kind: str
    words: str


def verdict(context: ReportContext) -> Verdict | None:
    """Judge by the gain, or without one by the table; None where neither has the metrics."""
    report, raw = context.report, context.raw
    said = {
        "": Verdict("better", f"Better than {raw}"),
        "worse": Verdict("worse", f"Worse than {raw}"),
        "worse here": Verdict("worse", f"Worse than {raw}"),
        "no better": Verdict("unsure", f"No better than {raw}"),
        "uncertain": Verdict("unsure", f"Not certain to be better than {raw}"),
    }
    if all(name in report.gain for name in JUDGED):
        return said[judge(report.gain)]
    rows = report.table
    first, last = rows.get("raw", rows.get("pixels", {})), rows.get("trained", {})
    changes = [last.get(name, math.nan) - first.get(name, math.nan) for name in JUDGED]
    changes = [change for change in changes if math.isfinite(change)]
    if not changes:
        return None
    if max(changes) <= 0:
        return said["worse" if min(changes) < 0 else "no better"]
    return said["uncertain" if min(changes) < 0 else ""]
