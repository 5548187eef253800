"""Write the page whole, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from kinfold.core.files import write_text
from kinfold.training.report import page
from kinfold.training.report.contents import Report, check


def write_report(path: str | os.PathLike[str], report: Report) -> None:
    """Write the report as one HTML file that asks for nothing from outside itself.

    The file is written beside `path` and renamed, so that a crash leaves the old file whole.

    Args:
        path: where the file goes; its folder exists.
        report: what to show, see `Report`.

    Raises:
        ValueError: if embeddings are not finite, or do not have one row per example.
        WriteError: the disk is full, or the folder cannot be written to.
        ImportError: if matplotlib, pillow or scikit-learn is missing.

    Example:

    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from kinfold.datasets import Split
    >>> from kinfold.training.report import Report, write_report
    >>> x = np.eye(4, dtype="float32")
    >>> test = Split(x, np.array([0, 0, 1, 1], "int32"), ("one", "two"))
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "report.html"
    >>> write_report(path, Report("example", {}, {"trained": {"recall@1": 1.0}}, {}, test, x, x))
    >>> path.read_text(encoding="utf-8").splitlines()[0]
    '<!doctype html>'
    """
    check(report)
    try:
        import matplotlib  # noqa: F401
        import PIL  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"The report needs matplotlib, pillow and scikit-learn, and {error.name} is missing: "
            "pip install kinfold[train]"
        ) from error

    # Names that are not valid UTF-8 (file names may be anything) must not lose the report.
    write_text(Path(path), page.render(report), errors="replace")
