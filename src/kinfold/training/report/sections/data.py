"""What in the data deserves a look: near-duplicates, and labels that are likely wrong."""

from __future__ import annotations

import numpy as np

from kinfold.datasets import Split
from kinfold.training.raw_input import pixels
from kinfold.training.report import measures
from kinfold.training.report.context import ReportContext, class_name
from kinfold.training.report.markup import note, section
from kinfold.training.report.tiles import name, tile, tile_of
from kinfold.training.report.words import count, percent, text


def data(context: ReportContext) -> str:
    """The section: near-duplicates, then likely wrong labels."""
    return section("data", "Data to check", _duplicates(context), _suspects(context))


def _duplicates(context: ReportContext) -> str:
    report = context.report
    baseline = np.asarray(report.baseline)
    others = {
        name: measures.Other(vectors, _rows(np.asarray(split.x)), _classes(split))
        for name, (split, vectors) in report.others.items()
    }
    found = measures.duplicates(
        np.asarray(report.embeddings), lambda rows: baseline[rows], _classes(report.test), others
    )
    where = "between classes of the test" + (
        f", and between the test and the {' and '.join(text(name) for name in others)} data"
        if others
        else ""
    )
    sampled = " ".join(
        f"Of the {text(name) or 'test'} data {part:,} of {whole:,} {context.thing}s were drawn at "
        "random to be compared."
        for name, (part, whole) in found.compared.items()
        if part < whole
    )
    title = "<h3>Near-duplicates</h3>\n"
    if not found.shown:
        return title + note(f"No near-duplicates were found {where}. {sampled}")
    said = (
        f"{count(found.pairs, 'pair')} of nearly equal {context.thing}s "
        f"{'was' if found.pairs == 1 else 'were'} found {where}"
    )
    if found.groups < found.pairs or len(found.shown) < found.groups:
        said += f", in {count(found.groups, 'pair')} of classes"
    if len(found.shown) < found.groups:
        said += f"; the {len(found.shown)} most alike are shown"
    said += (
        f". The difference compares {context.raw}: 0% for copies, about 100% for two "
        f"{context.thing}s at random. <strong>What to do:</strong> where both labels are right, no "
        "model can tell the two classes apart by them: merge the classes, or leave these "
        f"{context.thing}s out. Where one label is wrong, correct it."
    )
    if any(pair.split for pair in found.shown):
        said += (
            " A copy in two splits makes the test look better than it is: keep it in one of them."
        )
    cards = "".join(_duplicate(context, pair) for pair in found.shown)
    return f'{title}{note(f"{said} {sampled}")}<ul class="cards">\n{cards}</ul>\n'


def _duplicate(context: ReportContext, pair: measures.Duplicate) -> str:
    if pair.split:
        split, _ = context.report.others[pair.split]
        pictures = context.pictures.like(np.asarray(split.x)) if context.pictures else None
        second = tile_of(context, split, pictures, pair.other)
    else:
        second = tile(context, pair.other)
    difference = "copies" if pair.difference == 0 else f"difference {percent(pair.difference, 1)}"
    said = f"{difference}; similarity {pair.similarity:.3f}"
    if pair.split:
        said += f"; the second is in the {text(pair.split)} data"
    if pair.pairs > 1:
        said += f"; {pair.pairs:,} such pairs of these classes"
    return _card(context, tile(context, pair.index), second, f"{said[0].upper()}{said[1:]}.")


def _suspects(context: ReportContext) -> str:
    found, total = measures.suspects(context.near)
    title = "<h3>Labels that are likely wrong</h3>\n"
    if not found:
        said = f"No {context.thing} of the test has neighbours that agree on another class."
        return title + note(said)
    what = f"such {context.thing}"
    listed = (
        f"{count(total, what)} {'is' if total == 1 else 'are'}"
        if total == len(found)
        else f"{len(found)} of {count(total, what)} are"
    )
    said = (
        "Here the nearest neighbours agree on another class, while the rest of the "
        f"{context.thing}'s own class holds together. {listed} listed, the likeliest first, each "
        "beside its nearest neighbour of the other class. The score is the share of its first R "
        "neighbours that are of the other class, less that of its own class (R is how many there "
        "are to find, at most 10), times the share of right ones that the rest of its class has. "
        "<strong>What to do:</strong> look at each, and correct the label where it is wrong."
    )
    cards = "".join(_suspect(context, suspect) for suspect in found)
    return f'{title}{note(said)}<ul class="cards">\n{cards}</ul>\n'


def _suspect(context: ReportContext, suspect: measures.Suspect) -> str:
    other = context.name(suspect.label)
    said = (
        f"Labelled {name(context, context.name(int(context.y[suspect.index])))} but "
        f"{percent(suspect.other)} of its nearest are {name(context, other)} and "
        f"{percent(suspect.own)} of its own class. Score {suspect.score:.2f}."
    )
    return _card(context, tile(context, suspect.index), tile(context, suspect.witness), said)


def _card(context: ReportContext, first: str, second: str, said: str) -> str:
    shape = "" if context.pictures else ' class="text"'
    return f"<li{shape}><div>{first}</div><div>{second}</div><p>{said}</p></li>\n"


def _rows(x: np.ndarray) -> measures.Rows:
    return lambda indices: pixels(x[indices])


def _classes(split: Split) -> list[str]:
    return [class_name(split, label) for label in np.asarray(split.y).reshape(-1).tolist()]
