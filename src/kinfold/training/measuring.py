"""Runs measured on other data, and compared with one another."""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from kinfold.core import files
from kinfold.core.stored import blocks, take
from kinfold.datasets import Split
from kinfold.training import evaluation, raw_input, results, sampling, verdicts
from kinfold.training.evaluation import Table
from kinfold.training.kept import Kept, Path_, same_data
from kinfold.training.progress import Progress
from kinfold.training.report import Report, write_report
from kinfold.training.untrained import untrained

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
        ValueError: the data does not have the shape that the model takes, or
            values that the model may take in more than one way; or no query has its class in the
            gallery.
        WriteError: the JSON file or the report could not be written.
    """
    if gallery is not None and report_path is not None:
        raise ValueError(
            "A report shows examples that are searched in one another: leave out the report, or "
            "the gallery."
        )
    if gallery is not None and same_data(gallery, data):
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
    found = evaluation.embed_by([start, kept.model], split.x, told)
    split, (before, embeddings) = sampling.readable(split, *found)
    sample = sampling.sample_of(split)
    other = None
    if gallery is None:
        table, gain, of_sample = evaluation.measure(
            split, before, embeddings, lambda: sample.raw, sample.rows
        )
        sampled = results.sampled(sample.rows, len(split), of_sample)
    else:
        other, searched_in, more = kept.read(gallery, progress)
        lines += [line for line in more if line not in lines]
        told = progress.embedding("the gallery")
        found = evaluation.embed_by([start, kept.model], other.x, told)
        other, theirs = sampling.readable(other, *found)
        which += f", searched in {verdicts.describe(other)}, {searched_in}"
        lines += verdicts.shared_text(split, other)
        models = {"untrained": (before, theirs[0]), "trained": (embeddings, theirs[1])}
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
            raw_input.unit_rows(embeddings[sample.rows]),
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
        raw_input.pixels(take(split.x, rows[0])),
        raw_input.pixels(take(gallery.x, rows[1])),
    )
    table, gain, trained = evaluation.measure_in_gallery(split, models, gallery, raw, rows)
    return table, gain, results.sampled(rows[0], len(split), trained)


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
