"""The report: one file, nothing from outside, right numbers, and a page for every odd case."""

import ast
import dataclasses
import os
import re
import sys
from graphlib import TopologicalSorter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browser import SCREENS, assert_accessible, assert_fits, opened, started
from kinfold.datasets import Split
from kinfold.training.evaluation import gain_text
from kinfold.training.report import Report, measures, page, write_report
from kinfold.training.report.context import ReportContext
from kinfold.training.report.images import Pictures
from kinfold.training.report.sections import gallery, head, training
from kinfold.training.report.sections.pairs import pairs as pairs_section
from kinfold.training.report.verdict import verdict
from kinfold.training.report.words import described, number, percent, readable, shortened

pytestmark = pytest.mark.once

SECTIONS = ("training", "recall", "gallery", "confusions", "pairs", "data", "map")
VOID = {"meta", "img", "source", "link"}


class Page(HTMLParser):
    """Tags, attributes and visible text of a page; refuses tags that are not closed in order."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text += data

    def values(self, tag: str, attribute: str) -> list[str]:
        return [a[attribute] or "" for t, a in self.tags if t == tag and attribute in a]


def external(source: str) -> list[str]:
    """Everything in a page that would make a browser ask for something."""
    found = []
    for tag, attributes in Page(source).tags:
        if tag in ("script", "link", "iframe", "object", "embed", "base"):
            found.append(tag)
        for name, value in attributes.items():
            loads = name in ("src", "srcset", "href", "data", "poster", "action", "xlink:href")
            if loads and not (value or "").startswith(("data:", "#")):
                found.append(f"{name}={value}")
    without_pictures = re.sub(r"data:image/[^\"]*", "", source)
    found += re.findall(r"https?://\S+|@import[^;]*|url\((?!#)[^)]*\)", without_pictures)
    return found


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)).astype("float32")


def some(
    sizes: tuple[int, ...] = (4, 4, 4),
    shape: tuple[int, ...] = (8, 8, 1),
    names: tuple[str, ...] | None = None,
    noise: float = 0.6,
    **changes: object,
) -> Report:
    """A small report; the embedding is the class plus noise."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(len(sizes), dtype="int32"), sizes)
    if len(shape) == 1:
        x = rng.normal(size=(len(y), *shape)).astype("float32")
    else:
        x = rng.integers(0, 256, (len(y), *shape)).astype("uint8")
    means = rng.normal(size=(len(sizes), 5))
    report = Report(
        title="some data",
        settings={"command": "kinfold train some", "seed": 3, "versions": {"keras": "3.15"}},
        table={
            "pixels": {"recall@1": 0.6571, "map@r": 0.3512},
            "untrained": {"recall@1": 0.7004, "map@r": 0.4444},
            "trained": {"recall@1": 0.9123, "map@r": 0.7334},
        },
        history={
            "epoch": [1, 2, 3],
            "loss": [3.0, 2.0, 1.5],
            "val_recall@1": [0.5, 0.8, 0.9],
            "val_map@r": [0.3, 0.5, 0.7],
        },
        test=Split(x, y, names or tuple(f"kind {i}" for i in range(len(sizes)))),
        embeddings=unit(means[y] + noise * rng.normal(size=(len(y), 5))),
        baseline=unit(x.reshape(len(x), -1).astype("float32")),
    )
    return dataclasses.replace(report, **changes)


def written(folder: Path, report: Report) -> str:
    path = folder / "report.html"
    write_report(path, report)
    return path.read_text(encoding="utf-8")


def test_page(tmp_path: Path) -> None:
    source = written(tmp_path, some())
    parsed = Page(source)

    assert external(source) == []
    assert tuple(parsed.values("section", "id")) == SECTIONS
    assert parsed.values("html", "lang") == ["en"]
    assert "viewport" in parsed.values("meta", "name")
    for value in ("0.657", "0.351", "0.700", "0.444", "0.912", "0.733"):
        assert value in parsed.text
    assert "kinfold train some" in parsed.text
    assert "keras 3.15" in parsed.text
    assert (
        "On 3 classes never seen in training, the nearest neighbour is of the same kind for 91% of "
        "the queries (raw pixels: 66%; the model before training: 70%)."
    ) in parsed.text
    assert all(text.strip() for text in parsed.values("img", "alt"))
    assert len(parsed.values("img", "alt")) == len(parsed.values("img", "src"))
    charts = parsed.values("svg", "aria-label")
    assert any("loss" in text.lower() and "1.5 at epoch 3" in text for text in charts)
    assert any("map@r" in text and "0.7 at epoch 3" in text for text in charts)
    ids = [a["id"] for _, a in parsed.tags if a.get("id", "").startswith(SECTIONS)]
    assert len(ids) == len(set(ids))
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert written(tmp_path, some()) == source


@pytest.mark.parametrize(
    "bad",
    [
        '<img src="https://example.org/a.png">',
        '<link rel="stylesheet" href="style.css">',
        "<script>1</script>",
        "<style>@import 'a.css';</style>",
        "<style>p { background: url(a.png) }</style>",
        '<svg><image href="a.png"></image></svg>',
    ],
)
def test_external_is_found(bad: str) -> None:
    assert external(bad)


WORSE = {"difference": -0.0101, "errors_removed": -0.5, "low": -0.02, "high": -0.005}


@pytest.mark.parametrize(
    ("shape", "row", "raw"),
    [((6,), "raw", "raw vectors"), ((8, 8, 1), "pixels", "raw pixels")],
)
def test_a_worse_model_is_called_worse(
    tmp_path: Path, shape: tuple[int, ...], row: str, raw: str
) -> None:
    table = {row: {"recall@1": 0.8, "map@r": 0.5}, "trained": {"recall@1": 0.79, "map@r": 0.49}}
    gain = dict.fromkeys(("recall@1", "map@r"), WORSE)
    text = Page(written(tmp_path, some(shape=shape, table=table, gain=gain))).text
    assert f"Worse than {raw}" in text
    assert f"79% of the queries ({raw}: 80%). {gain_text(gain)[1]}" in text
    assert re.search(r"Gain over raw\s*-0.010\s*-0.010", text)
    assert "map@r -1.01 points (95% of resamples of the classes: -2.00 to -0.50)." in text
    assert ("pixels" in text) == (raw == "raw pixels")


SURE, HOLDS_0 = {"low": 0.01, "high": 0.03}, {"low": -0.01, "high": 0.03}
UNKNOWN = {"low": None, "high": None}


@pytest.mark.parametrize(
    ("recall", "ranked", "words"),
    [
        ({"difference": 0.02, **SURE}, {"difference": 0.01, **HOLDS_0}, "Better than"),
        ({"difference": 0.02, **SURE}, {"difference": -0.01, **HOLDS_0}, "Not certain"),
        (WORSE, {"difference": 0.01, **HOLDS_0}, "Worse than"),
        (WORSE, {"difference": 0.02, **SURE}, "Not certain"),
        ({"difference": 0.01, **HOLDS_0}, {"difference": 0.01, **HOLDS_0}, "No better than"),
        ({"difference": 0.0, **UNKNOWN}, {"difference": 0.0, **UNKNOWN}, "No better than"),
        ({"difference": -0.1, **UNKNOWN}, {"difference": -0.1, **UNKNOWN}, "Worse than"),
        ({"difference": 0.1, **UNKNOWN}, {"difference": 0.1, **UNKNOWN}, "Not certain"),
        (None, (0.7, 0.4), "Better than"),
        (None, (0.6, 0.3), "Worse than"),
        (None, (0.7, 0.3), "Not certain"),
        (None, (0.6571, 0.3512), "No better than"),
        (None, (float("nan"), float("nan")), None),
    ],
)
def test_headline(recall: Any, ranked: Any, words: str | None) -> None:
    report = some()
    if recall:
        report = dataclasses.replace(report, gain={"recall@1": recall, "map@r": ranked})
    else:
        trained = dict(zip(("recall@1", "map@r"), ranked, strict=True))
        report = dataclasses.replace(report, table={**report.table, "trained": trained})
    judged = verdict(ReportContext(report))
    assert (
        judged is None if words is None else judged is not None and judged.words.startswith(words)
    )


def test_characters_are_spelled_out() -> None:
    names = ("O", "\u041e", "\u00d5")
    text = Page(page.render(some(title="glyphs", names=names))).text
    assert "On 3 characters never seen" in text
    for spelled in (
        "U+004F LATIN CAPITAL LETTER O",
        "U+041E CYRILLIC CAPITAL LETTER O",
        "U+00D5 LATIN CAPITAL LETTER O WITH TILDE",
    ):
        assert spelled in text
    vectors = gallery.queries(ReportContext(some(shape=(6,), names=names)))
    assert "U+041E CYRILLIC CAPITAL LETTER O" in Page(vectors).text


@dataclasses.dataclass(frozen=True)
class Filed(Split):
    files: tuple[str, ...] | None = None


def planted() -> Report:
    """A report with a copy in two classes and in two splits, and an example that is mislabelled."""
    report = some((9,) * 6, noise=0.3)
    x, y = report.test.x, report.test.y
    e = report.embeddings.astype("float64")
    x[20], e[20] = x[2], e[2]
    e[50] = e[29] + 0.01  # labelled "kind 5" among "kind 3"
    files = tuple(f"kind {c}/IMG_{i:04d}.jpg" for i, c in enumerate(y))
    training = Filed(x[40:42].copy(), y[:2], ("old kind",), ("old/one.jpg", "old/two.jpg"))
    e = unit(e)
    return dataclasses.replace(
        report,
        test=Filed(x, y, report.test.names, files),
        embeddings=e,
        baseline=unit(x.reshape(len(x), -1).astype("float32")),
        best_epoch=2,
        validation_baseline={"val_recall@1": 0.61, "val_map@r": 0.27, "val_mrr": 0.7},
        others={"training": (training, e[40:42])},
    )


@pytest.fixture(scope="module")
def planted_page() -> tuple[Report, str]:
    report = planted()
    return report, page.render(report)


def part(source: str, name: str) -> str:
    found = re.search(rf'<section id="{name}".*?</section>', source, re.S)
    assert found
    return found[0]


def test_curves_show_the_best_epoch_and_the_raw_input(planted_page: tuple[Report, str]) -> None:
    curves = part(planted_page[1], "training")
    loss, retrieval = Page(curves).values("svg", "aria-label")
    assert "Marked: best, epoch 2." in loss
    assert "Marked: best, epoch 2." in retrieval
    assert "raw pixels, recall@1: 0.610. raw pixels, map@r: 0.270." in retrieval
    drawn = curves[curves.index("Retrieval on validation data") :]
    for label in ("recall@1, raw", "map@r, raw", "best, epoch 2"):
        assert f">{label}</text>" in drawn
    assert "mrr" not in Page(curves).text
    # The axes hold all from 0 to 1, and the loss from 0.
    ticks = re.findall(r">(\d\.\d)</text>", drawn)
    assert {"0.0", "1.0"} <= set(ticks)
    assert re.search(r">0(\.0)?</text>", curves[: curves.index("Retrieval on")])
    assert "The model of epoch 2 did best on the validation classes" in Page(curves).text


def test_gallery_says_what_each_picture_is(planted_page: tuple[Report, str]) -> None:
    report, source = planted_page
    shown_queries = part(source, "gallery")
    titles = re.findall(r"<h3>(\w+)</h3>", shown_queries)
    assert titles[:2] == ["Typical", "Worst"]
    files = report.test.files
    assert files
    query = re.findall(r'<div class="query">.*?</ol>', shown_queries, re.S)[0]
    shown = re.findall(r'<bdi class="file" title="([^"]*)">([^<]*)<', query)
    indices = [files.index(full) for full, _ in shown]
    assert [short for _, short in shown] == [files[i].split("/")[1] for i in indices]
    similarity = report.embeddings.astype("float64") @ report.embeddings[indices[0]]
    similarity[indices[0]] = -np.inf
    assert indices[1:] == np.argsort(-similarity, kind="stable")[:8].tolist()
    values = re.findall(r"</b> (-?\d\.\d{3})<", query)
    assert [float(v) for v in values] == pytest.approx(similarity[indices[1:]], abs=0.0006)
    # The mark stands beside the picture: no frame holds anything but the picture.
    for frame in re.findall(r'<div class="frame">(.*?)</div>', shown_queries):
        assert re.fullmatch(r"<img [^>]*>", frame)
    right = report.test.y[indices[1:]] == report.test.y[indices[0]]
    assert re.findall(r'<li class="(\w+)">', query) == ["right" if r else "wrong" for r in right]


def test_confusions_and_pairs_are_tables(planted_page: tuple[Report, str]) -> None:
    report, source = planted_page
    rows = re.findall(r"<tr><th scope=\"row\">.*?</tr>", part(source, "confusions"), re.S)
    pairs = measures.confusions(measures.Neighbourhood.of(report.embeddings, report.test.y))
    assert len(rows) == len(pairs) > 1
    for row, pair in zip(rows, pairs, strict=True):
        assert row.count("<img") == 2
        counts = re.findall(r"<td>(\d+ of \d+)</td>", row)
        assert counts == [f"{w} of {n}" for w, n in zip(pair.wrong, pair.queries, strict=True)]
    text = Page(part(source, "pairs")).text
    found = measures.similarities(report.embeddings, report.test.y).accepts(0.01)
    assert found
    assert found.threshold
    assert re.search(rf"1%{percent(found.found, 1)}{found.threshold:.3f}", text)
    assert "0.1% is rough: of 1,215 pairs of different classes it allows 1 false accept." in text
    few = Page(pairs_section(ReportContext(some()))).text
    assert "0.1% cannot be measured: that takes at least 1,000 pairs" in few


def test_suspicious_data_are_listed(planted_page: tuple[Report, str]) -> None:
    data = part(planted_page[1], "data")
    text = Page(data).text
    assert "3 pairs of nearly equal images were found between classes of the test, and" in text
    assert text.count("Copies; similarity 1.000") == 2
    assert "the second is in the training data; 2 such pairs of these classes." in text
    for file in ("IMG_0002.jpg", "IMG_0020.jpg", "one.jpg", "IMG_0050.jpg"):
        assert file in text
    assert re.search(r"Labelled kind 5 but \d+% of its nearest are kind 3 and", text)
    assert text.count("What to do:") == 2
    unknown = dataclasses.replace(planted(), others={})
    assert "never seen in training" in Page(head.head(ReportContext(unknown))).text


def test_classes_that_training_saw_are_not_called_unseen() -> None:
    report = some()
    report = dataclasses.replace(report, others={"training": (report.test, report.embeddings)})
    text = Page(head.head(ReportContext(report))).text
    assert "On 3 classes (3 of them also trained on), the nearest" in text
    assert "never seen" not in text


@pytest.mark.parametrize(
    ("best", "words"),
    [
        ("start", "the untrained network was kept"),
        ("raw", "No network did better on the validation classes than the raw pixels"),
    ],
)
def test_what_was_kept_is_said(best: str, words: str) -> None:
    context = ReportContext(some(best=best, best_epoch=2, history={}))
    assert words in Page(training.training(context)).text
    assert "After training (not kept)" in Page(head.head(context)).text


def test_the_page_can_be_read(planted_page: tuple[Report, str]) -> None:
    source = planted_page[1]
    style = source[source.index("<style>") : source.index("</style>")]
    sizes = [int(size) for size in re.findall(r"font(?:-size)?:[^;}]*?(\d+)px", style)]
    sizes += [int(float(size)) for size in re.findall(r"font-size: ([\d.]+)px", source)]
    assert len(sizes) > 20
    assert min(sizes) >= 13
    levels = [int(tag[1]) for tag, _ in Page(source).tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert max(after - before for before, after in pairwise(levels)) <= 1
    assert set(Page(source).values("a", "href")) == {f"#{name}" for name in SECTIONS}
    light, dark = (
        dict(re.findall(r"--(\w+): (#\w{6})", block))
        for block in re.findall(r":root \{(.*?)\}", style, re.S)
    )
    for colours in (light, dark):
        for name in ("ink", "muted", "first", "second", "third", "fourth", "bad"):
            for ground in ("paper", "panel"):
                assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)


@pytest.mark.pages
def test_the_page_in_a_browser(tmp_path: Path, planted_page: tuple[Report, str]) -> None:
    pages = {"images": planted_page[1], "vectors": page.render(some(shape=(6,)))}
    with started() as browser:
        for kind, source in pages.items():
            (tmp_path / f"{kind}.html").write_text(source, "utf-8")
            for screen in SCREENS:
                with opened(browser, screen) as shown:
                    shown.goto((tmp_path / f"{kind}.html").as_uri())
                    assert_fits(shown)
                    assert_accessible(shown)


def contrast(first: str, second: str) -> float:
    """The ratio of WCAG 2."""
    lights = []
    for colour in (first, second):
        channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
        lights.append(float(linear @ (0.2126, 0.7152, 0.0722)))
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_names_are_escaped(tmp_path: Path) -> None:
    names = (
        "<script>alert(1)</script>",
        "a & b",
        "שלום",
        '"quoted"',
        "\u0301",
        " ",
        "$x$",
        "\udcff",
    )
    for shape in ((8, 8, 1), (6,)):
        source = written(tmp_path, some((3,) * len(names), shape, names, title="<b>&"))
        parsed = Page(source)
        assert external(source) == []
        for name in ("<script>alert(1)</script>", "a & b", "שלום", '"quoted"', "$x$"):
            assert name in parsed.text
        assert "\N{DOTTED CIRCLE}\u0301" in parsed.text
        assert "U+0020" in parsed.text
        assert "<b>&" in parsed.text


def test_readable_names() -> None:
    assert readable("plain") == "plain"
    assert readable("\u0301") == "\N{DOTTED CIRCLE}\u0301"
    assert readable("\u200b") == "U+200B"
    assert readable("") == "(no name)"
    assert readable("a\nb\x1b\u202e") == "a\\nb\\x1b\\u202e"
    assert readable("caf\udce9.jpg") == "caf\\xe9.jpg"
    assert readable("\U0001f469\u200d\U0001f52c") == "\U0001f469\u200d\U0001f52c"
    assert described("two words") == "two words"
    assert described("A") == "A (U+0041 LATIN CAPITAL LETTER A)"
    assert described("\u200b") == "U+200B ZERO WIDTH SPACE"
    assert described("\u00d5") == "\u00d5 (U+00D5 LATIN CAPITAL LETTER O WITH TILDE)"


def test_long_file_names_lose_their_middle() -> None:
    assert shortened("short.jpg") == "short.jpg"
    name = shortened("a" * 40 + "_0123.jpg", 24)
    assert len(name) == 24
    assert name.startswith("aaaa")
    assert name.endswith("…aa_0123.jpg")


def test_numbers() -> None:
    assert [number(v) for v in (0.12345, 1.0, float("nan"), float("inf"), None)] == [
        "0.123",
        "1.000",
        "-",
        "-",
        "-",
    ]
    assert percent(0.912) == "91%"
    assert percent(1.0) == "100%"
    assert percent(0.9996) == "over 99.9%"
    assert percent(0.996) == "99.6%"
    assert percent(0.0) == "0%"
    assert percent(0.0001) == "under 0.1%"


@pytest.mark.parametrize("step", ["render", "fsync", "replace"])
def test_an_error_half_way_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "report.html"
    path.write_text("the old one")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(page if step == "render" else os, step, fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(path, some())
    assert path.read_text() == "the old one"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


NAN = float("nan")
HISTORIES: dict[str, dict[str, list[float]]] = {
    "one epoch": {"epoch": [0], "loss": [1.0], "val_recall@1": [0.5]},
    "none": {},
    "empty columns": {"epoch": [], "loss": [], "val_recall@1": []},
    "nan": {"epoch": [1, 2, 3], "loss": [NAN, 1.0, float("inf")], "val_mrr": [NAN] * 3},
    "columns of two lengths": {"epoch": [1, 2], "loss": [2.0, 1.0, 0.5]},
    "five metrics": {f"val_{m}": [0.1, 0.2] for m in ("recall@1", "map@r", "mrr", "map", "ndcg@5")},
}
TABLES: dict[str, dict[str, dict[str, float]]] = {
    "none": {},
    "nan": {"trained": {"recall@1": NAN, "map@r": 0.5}},
    "another metric": {"pixels": {"map@r": 0.1}, "trained": {"map@r": 0.5}},
}
ODD = {
    "no right neighbour": some((2,) * 6, noise=50.0),
    "all right": some((6, 6), noise=0.0),
    "one class": some((6,)),
    "one example": some((1,)),
    "classes of one": some((1,) * 9),
    "some classes of one": some((1, 1, 5, 3)),
    "ten images": some((5, 5), (12, 16, 3)),
    "collapsed": some((4, 4), embeddings=np.tile(np.eye(1, 5, dtype="float32"), (8, 1))),
    "one dimension": some((4, 4), embeddings=np.ones((8, 1), "float32")),
    "many classes of vectors": some((2,) * 14, (6,)),
    "one vector": some((1,), (6,)),
    "no channel axis": some((4, 4), (8, 8)),
    "large photos": some((3, 3), (200, 120, 3)),
    "four channels": some((4, 4), (8, 8, 4)),
    "two channels": some((4, 4), (8, 8, 2)),
    "float images": some(test=Split(np.full((12, 8, 8, 3), 0.5, "float32"), some().test.y, ("a",))),
}


@pytest.mark.parametrize("history", HISTORIES)
def test_odd_histories(history: str) -> None:
    report = some(history=HISTORIES[history], best_epoch=1, validation_baseline={"val_mrr": NAN})
    source = training.training(ReportContext(report))
    charts = Page(source).values("svg", "aria-label")
    drawn = {"one epoch": 2, "nan": 1, "columns of two lengths": 1, "five metrics": 1}
    assert len(charts) == drawn.get(history, 0)
    assert not re.search(r"nan|inf", " ".join(charts))
    if history == "nan":
        assert "5 values not finite" in Page(source).text
        assert "training 1 at epoch 2" in charts[0]
    if not charts:
        assert "no history" in Page(source).text


@pytest.mark.parametrize("case", ODD)
def test_odd_data_write_a_page(tmp_path: Path, case: str) -> None:
    number = list(ODD).index(case)
    table = list(TABLES.values())[number % len(TABLES)]
    history = list(HISTORIES.values())[number % len(HISTORIES)]
    source = written(tmp_path, dataclasses.replace(ODD[case], table=table, history=history))
    parsed = Page(source)
    assert tuple(parsed.values("section", "id")) == SECTIONS
    assert external(source) == []
    assert not re.search(r"\b(nan|inf|None)\b", parsed.text)
    assert not re.search(r"\b(nan|inf)\b", " ".join(parsed.values("svg", "aria-label")))
    assert len(source) < 400_000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embeddings": np.ones((11, 2), "float32")}, r"`embeddings` must have shape \[12, d\]"),
        ({"embeddings": np.full((12, 2), NAN, "float32")}, "`embeddings` must be finite"),
        ({"baseline": np.ones(12, "float32")}, r"`baseline` must have shape \[12, d\]"),
        ({"best": "last"}, "`best` must be one of trained, start, raw"),
        (
            {"others": {"training": (some().test, np.ones((12, 2), "float32"))}},
            r"`others\['training'\]` must have shape \[12, 5\]",
        ),
        (
            {"others": {"training": (some(shape=(6,)).test, some().embeddings)}},
            "examples of the same shape",
        ),
        ({"test": Split(np.ones((0, 2)), np.ones(0, "int32"), ())}, "at least one example"),
    ],
)
def test_bad_input(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_report(tmp_path / "report.html", some(**changes))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"sklearn.*pip install kinfold\[train\]"):
        write_report(tmp_path / "report.html", some())


def test_modules_import_one_way() -> None:
    folder = Path(page.__file__).parent
    paths = {}
    for path in folder.rglob("*.py"):
        name = ".".join(
            ("kinfold.training.report", *path.relative_to(folder).with_suffix("").parts)
        )
        paths[name.removesuffix(".__init__")] = path
    graph: dict[str, set[str]] = {name: set() for name in paths}
    for name, path in paths.items():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "") in paths:
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    graph[name].add(whole if whole in paths else node.module or "")
    assert sum(len(found) for found in graph.values()) > 40
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert order[-1] == "kinfold.training.report"


def test_extras_are_imported_inside_functions() -> None:
    for path in Path(page.__file__).parent.rglob("*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = getattr(node, "module", None) or node.names[0].name
                assert module.split(".")[0] not in ("matplotlib", "PIL", "sklearn"), path.name


@pytest.mark.parametrize("white_on_black", [True, False])
def test_drawings_become_ink(white_on_black: bool) -> None:
    x = np.zeros((5, 8, 8, 1), "uint8")
    x[:, 3:5, 3:5] = 200
    pictures = Pictures(x if white_on_black else 255 - x)
    assert pictures.drawings
    image = np.asarray(pictures.thumbnail(0, 64))
    np.testing.assert_array_equal(image[..., 1], x[0, ..., 0])  # opacity
    assert image[..., 0].max() == 0


@pytest.mark.parametrize(("low", "high", "pixels"), [(0, 1, True), (0, 255, True), (-80, 3, False)])
def test_floats_are_shown_on_the_scale_of_their_set(low: float, high: float, pixels: bool) -> None:
    x = np.linspace(low, high, 3 * 64, dtype="float32").reshape(3, 8, 8, 1)
    pictures = Pictures(x)
    assert pictures.pixels == pixels
    shown = np.stack([np.asarray(pictures.thumbnail(i, 64)) for i in range(3)]).astype(float)
    np.testing.assert_allclose(shown.ravel(), np.linspace(0, 255, 192), atol=2.5)
    raw = ReportContext(some(test=Split(x, np.arange(3, dtype="int32"), ("a", "b", "c")))).raw
    assert raw == ("raw pixels" if pixels else "raw input")
    x[0, 0, 0] = np.nan
    assert np.asarray(Pictures(x).thumbnail(0, 64)).shape == (8, 8)


def test_photos_stay_photos_and_get_small() -> None:
    x = np.random.default_rng(0).integers(0, 256, (3, 90, 120, 3)).astype("uint8")
    pictures = Pictures(x)
    assert not pictures.drawings
    assert pictures.thumbnail(0, 64).size == (64, 48)
    assert pictures.uri(0).startswith("data:image/jpeg;base64,")
    noise = np.random.default_rng(0).integers(0, 256, (3, 9, 9, 1)).astype("uint8")
    assert not Pictures(noise).drawings
