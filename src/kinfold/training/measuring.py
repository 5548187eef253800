"""Runs measured on other data, and compared with one another."""

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kinfold.core.stored import blocks, take
from kinfold.datasets import Split
from kinfold.encoders.scaling import Scaling, kind_of
from kinfold.training import evaluation, files, records, results, sampling, sources, verdicts
from kinfold.training.evaluation import Table
from kinfold.training.progress import Progress
from kinfold.training.records import Config
from kinfold.training.report import Report, write_report
from kinfold.training.run_folder import RunFolder
from kinfold.training.running import drawn, untrained

Path_ = str | os.PathLike[str]
_READ = 256  # examples compared at once


def evaluate(
    run: Path_,
    data: str,
    progress: Progress | None = None,
    gallery: str | None = None,
    json_path: Path_ | None = None,
    report_path: Path_ | None = None,
) -> Table:
    """Measure the model of a run on other data.

    Args:
        run: the run folder.
        data: "glyphs" (their test characters), a folder of image folders, or an .npz or .parquet
            file (all of it).
        progress: hears what goes on; None for nobody.
        gallery: other such data to search in. Its classes are matched with those of `data` by
            name. None searches each example among all the others.
        json_path: a file for all that is said, as JSON.
        report_path: a file for a report, as `train` writes one; not with a gallery.

    Returns:
        The table, as `train` does; "trained" is the model that the run has kept.

    Raises:
        FileNotFoundError: there is no run in the folder, no model yet, or no such data.
        ValueError: the data does not have the shape that the model takes, or values of which it is
            not clear how the model takes them; or no query has its class in the gallery.
        WriteError: the JSON file or the report could not be written.
    """
    if gallery is not None and report_path is not None:
        raise ValueError(
            "A report shows examples that are searched in one another: leave out the report, or "
            "the gallery."
        )
    if gallery is not None and _same(gallery, data):
        raise ValueError(
            f"DATA and the gallery are both {data}, where each example would find itself: leave "
            "out the gallery, and each searches all the others."
        )
    for path in (json_path, report_path):
        if path is not None and not Path(path).parent.is_dir():
            raise FileNotFoundError(f"There is no folder {Path(path).parent} to write {path} to.")
    progress = progress or Progress()
    kept = Kept.load(run)
    split, which, lines = kept.read(data, progress)
    lines = [line for line in (kept.note, *lines) if line]
    start = untrained(kept.folder, kept.config.settings, kept.shape, kept.config.scaling)
    told = progress.embedding("the examples")
    before = evaluation.embed(start, split.x, told)
    split, (before, embeddings) = sampling.readable(split, before, kept.embed(split, told))
    sample = sampling.sample_of(split)
    other = None
    if gallery is None:
        table, gain, of_sample = evaluation.measure(
            split, before, embeddings, sample.raw, sample.rows
        )
        sampled = of_sample and results.sampled(sample, of_sample)
    else:
        other, searched_in, more = kept.read(gallery, progress)
        lines += [line for line in more if line not in lines]
        told = progress.embedding("the gallery")
        theirs = evaluation.embed(start, other.x, told)
        other, (theirs, found) = sampling.readable(other, theirs, kept.embed(other, told))
        which += f", searched in {verdicts.describe(other)}, {searched_in}"
        lines += verdicts.shared_text(split, other)
        models = {"untrained": (before, theirs), "trained": (embeddings, found)}
        table, gain, sampled = _in_gallery(split, models, other)
    lines = [
        f"On {verdicts.describe(split)}, {which}:",
        *lines,
        *verdicts.table_text(table, gain).splitlines(),
    ]
    if sampled is not None:
        lines.append(verdicts.sampled_text(sampled))
    progress.note("\n".join(lines))
    if json_path is not None:
        content = {
            **table,
            "gain": gain,
            "said": lines,
            "run": str(kept.folder.path),
            "data": data,
            "gallery": gallery,
            "counts": {"queries": results.counts(split)}
            | ({"gallery": results.counts(other)} if other else {}),
            "versions": results.versions(),
            "backend": keras.backend.backend(),
            "settings": vars(kept.config.settings),
        }
        files.write_json(Path(json_path), content)
    if report_path is not None:
        report = Report(
            Path(data).stem,
            {"run": str(kept.folder.path), "data": data, **results.versions()},
            table,
            {},
            sample.split,
            evaluation.unit_rows(embeddings[sample.rows]),
            sample.raw,
            gain,
            verdicts.sampled_text(sampled),
        )
        path = Path(report_path)
        write_report(path, report)
    return table


def _in_gallery(
    split: Split, models: dict[str, tuple[np.ndarray, np.ndarray]], gallery: Split
) -> tuple[Table, evaluation.Gain, dict[str, Any] | None]:
    most = sampling.room(split.x.shape[1:])
    rows = sampling.rows_of_both(*evaluation.matched(split, gallery), most)
    raw = (
        evaluation.pixels(take(split.x, rows[0])),
        evaluation.pixels(take(gallery.x, rows[1])),
    )
    table, gain, trained = evaluation.measure_in_gallery(split, models, gallery, raw, rows)
    if trained is None:
        return table, gain, None
    return table, gain, {"examples": len(rows[0]), "of": len(split), "trained": trained}


def compare(
    first: Path_,
    second: Path_,
    data: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure the models of two runs on the same examples, and how surely they differ.

    Args:
        first: a run folder.
        second: another.
        data: as `evaluate` takes it; None for the test examples of the first run, which the second
            must have kept for its test too.
        progress: hears what goes on; None for nobody.

    Returns:
        {"first": {"recall@1": ..., ...}, "second": ..., "difference": of each metric what
        `evaluation.gain` gives for the second over the first, "counts": ..., "runs": [the
        two folders], "data": ..., "said": the lines that are told}.

    Raises:
        FileNotFoundError: there is no run in a folder, no model yet, or no such data.
        ValueError: the runs have not kept the same classes for their tests and no data is named;
            or the data is not what their models take.
    """
    progress = progress or Progress()
    sides = [Kept.load(first), Kept.load(second)]
    lines = [f"{side.folder.path}: {side.note}" for side in sides if side.note]
    if data is None:
        splits = [_test_of(sides)] * 2
        said = f"the test examples of {sides[0].folder.path}, unseen in the training of both"
    else:
        splits = []
        for side in sides:
            split, said, more = side.read(data, progress)
            splits.append(split)
            lines += [line for line in more if line not in lines]
    if not np.array_equal(splits[0].y, splits[1].y) or splits[0].names != splits[1].names:
        raise ValueError(f"{data} changed while it was read: its examples are not the same twice.")
    rows: dict[str, tuple[np.ndarray, np.ndarray | None]] = {
        name: (side.embed(split), None)
        for name, side, split in zip(("first", "second"), sides, splits, strict=True)
    }
    found, y = evaluation.scores(rows, splits[0].y)
    table = evaluation.averaged(found)
    difference = evaluation.gain(found["first"], found["second"], y)
    paths = [str(side.folder.path) for side in sides]
    less = {name: values["difference"] for name, values in difference.items()}
    labels = {"first": f"first, {paths[0]}", "second": f"second, {paths[1]}"}
    lines = [
        f"On {verdicts.describe(splits[0])}, {said}:",
        *lines,
        *verdicts.rows_text(table, labels, {"difference": less}).splitlines(),
        *verdicts.comparison_text(difference),
    ]
    progress.note("\n".join(lines))
    return {
        **table,
        "difference": difference,
        "counts": results.counts(splits[0]),
        "runs": paths,
        "data": data,
        "versions": results.versions(),
        "said": lines,
    }


def _same(data: str, other: str) -> bool:
    return Path(data).resolve() == Path(other).resolve()


@dataclass(frozen=True)
class Kept:
    """The model that a run has kept, with what it takes.

    Args:
        folder: of the run.
        config: how the run was begun.
        model: that was kept.
    """

    folder: RunFolder
    config: Config
    model: keras.Model

    @classmethod
    def load(cls, run: Path_) -> "Kept":
        """Load it from a run folder."""
        folder = RunFolder(run)
        config = records.read_config(folder)
        if not folder.model.exists():
            raise FileNotFoundError(
                f"There is no model in {folder.path} yet. Go on: kinfold train --resume "
                f"{shlex.quote(str(folder.path))}"
            )
        try:
            model = keras.saving.load_model(folder.model)
        except Exception as error:  # as many kinds as there are layers
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ValueError(
                f"{folder.model} is damaged, or of another version: {first} Remove it, and kinfold "
                f"train --resume {shlex.quote(str(folder.path))} writes it anew."
            ) from error
        return cls(folder, config, model)

    @property
    def note(self) -> str:
        """What the run said if the model is not of an epoch; "" if it is."""
        metrics = records.read_metrics(self.folder.metrics, evaluation.ROWS)
        return str(metrics.get("note") or "")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the inputs that the model takes, without the batch."""
        return tuple(self.model.input_shape[1:])

    def read(self, data: str, progress: Progress) -> tuple[Split, str, list[str]]:
        """Read data in the range of values that the model takes.

        Returns:
            The examples; what they are, in words; and lines of what is to be said of them.
        """
        split, which = sources.load_evaluated(data, self.shape, drawn(progress))
        own = _same(self.config.settings.data, data)
        scaling, said = self.config.scaling, self._trained_on(split) if own else []
        # Older runs name no scaling: their images from 0 to 1 were multiplied by 255.
        if split.x.ndim == 4 and not (own and (scaling or kind_of(split.x) != "unit")):
            x, note = (scaling or Scaling()).convert(split.x, data)
            split = replace(split, x=x)
            said = [*([note] if note else []), *said]
        return split, which, said

    def _trained_on(self, split: Split) -> list[str]:
        """Say so if the run has trained on some of these classes."""
        seen = sources.training_classes(self.folder) & set(split.names)
        return ["The model was trained on some of these classes."] if seen else []

    def own_test(self) -> Split:
        """The test examples of the run."""
        return sources.again(self.folder, self.config.settings)[0].test

    def embed(self, split: Split, told: Callable[[int, int], None] | None = None) -> np.ndarray:
        """Embed examples that `read` gave, or of the run's own data."""
        return evaluation.embed(self.model, split.x, told)


def _test_of(sides: list[Kept]) -> Split:
    """The test examples of the first of two runs, if they are test examples of both."""
    first, second = (side.own_test() for side in sides)
    paths = " and ".join(str(side.folder.path) for side in sides)
    why = ""
    if first.names != second.names:
        why = "do not test on the same classes"
    elif first.x.shape[1:] != second.x.shape[1:]:
        why = "test on examples of different sizes"
    elif not np.array_equal(first.y, second.y) or not _equal(first.x, second.x):
        why = "test on different examples of these classes"
    if why:
        raise ValueError(
            f"The runs {paths} {why}: name DATA to compare them on, of classes that neither was "
            "trained on."
        )
    return first


def _equal(first: Any, second: Any) -> bool:
    pairs = zip(blocks(first, _READ), blocks(second, _READ), strict=True)
    return all(np.array_equal(one, other) for one, other in pairs)
