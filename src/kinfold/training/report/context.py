"""What all sections share: the examples, what to call them, and their neighbours."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from kinfold.datasets import Split
from kinfold.training.report import measures
from kinfold.training.report.contents import Report
from kinfold.training.report.images import Pictures


class ReportContext:
    """A report's data with the words for it.

    `thing` is what one example is called, `raw` what the input is called without a model.
    """

    def __init__(self, report: Report) -> None:
        x = report.test.x
        self.report = report
        self.y = np.asarray(report.test.y).reshape(-1)
        self.classes = len(np.unique(self.y))
        self.pictures = Pictures(x) if x.ndim in (3, 4) else None
        if self.pictures is None:
            self.thing, self.raw = "example", "raw vectors"
        elif self.pictures.pixels:
            self.thing, self.raw = "image", "raw pixels"
        else:  # spectrograms and the like
            self.thing, self.raw = "example", "raw input"

    @cached_property
    def noun(self) -> str:
        """What one class is called."""
        return "character" if self.report.title == "glyphs" else "class"

    @cached_property
    def trained_on(self) -> int:
        """How many classes of the test training saw too, as far as the report knows."""
        if "training" not in self.report.others:
            return 0
        split = self.report.others["training"][0]
        seen = {class_name(split, label) for label in np.unique(split.y).tolist()}
        return len(seen & {self.name(label) for label in np.unique(self.y).tolist()})

    @cached_property
    def near(self) -> measures.Neighbourhood:
        """The nearest neighbours of each example, by the model."""
        return measures.Neighbourhood.of(self.report.embeddings, self.y)

    @cached_property
    def characters(self) -> bool:
        """True if each class is a single character, as of glyphs."""
        names = [self.name(label) for label in np.unique(self.y).tolist()]
        return all(len(name) == 1 for name in names)

    def name(self, label: int) -> str:
        """The name of a class of the test."""
        return class_name(self.report.test, label)


def class_name(split: Split, label: int) -> str:
    """The name of a class, or its number where the split has no name for it."""
    return str(split.names[label]) if 0 <= label < len(split.names) else f"class {label}"


def file_name(split: Split, index: int) -> str | None:
    """The file that an example came from, where the split knows it."""
    files = getattr(split, "files", None)
    return str(files[index]) if files else None
