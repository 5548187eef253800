"""The report: one file, nothing from outside, right numbers, and a page for every odd case."""

import ast
import dataclasses
import os
import re
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from kinfold.datasets import Split
from kinfold.report import Report, measures, page, sections, write_report
from kinfold.report.images import Pictures
from kinfold.report.words import described, number, percent, readable

pytestmark = pytest.mark.once

SECTIONS = ("training", "recall", "gallery", "similarities", "map")
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


def test_a_head_that_is_no_better_than_raw_embeddings_is_called_so(tmp_path: Path) -> None:
    values = {"difference": -0.0101, "errors_removed": -0.5, "low": -0.02, "high": -0.005}
    table = {"raw": {"recall@1": 0.8, "map@r": 0.5}, "trained": {"recall@1": 0.79, "map@r": 0.49}}
    gain = dict.fromkeys(("recall@1", "map@r"), values)
    text = Page(written(tmp_path, some(shape=(6,), table=table, gain=gain))).text
    assert "79% of the queries (raw embeddings: 80%). The trained head is not better" in text
    assert re.search(r"Gain over raw\s*-0.010\s*-0.010", text)
    assert "map@r -1.01 points (95% of resamples of the classes: -2.00 to -0.50)." in text
    assert "pixels" not in text


def test_characters_are_called_so() -> None:
    assert "On 3 characters never seen" in page.render(some(title="glyphs"))


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
    assert described("A") == "A"
    assert described("\u00d5") == "\u00d5 (U+00D5 LATIN CAPITAL LETTER O WITH TILDE)"


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
    "two examples": some((1, 1)),
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
    source = sections.training(page.Subject(some(history=HISTORIES[history])))
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


def test_extras_are_imported_inside_functions() -> None:
    for path in Path(page.__file__).parent.glob("*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = getattr(node, "module", None) or node.names[0].name
                assert module.split(".")[0] not in ("matplotlib", "PIL", "sklearn"), path.name


# The numbers behind the page.


def test_recall_curve_is_that_of_a_loop() -> None:
    report = some((3, 1, 5, 4, 6))
    similarity = report.embeddings @ report.embeddings.T
    np.fill_diagonal(similarity, -np.inf)
    y = report.test.y
    queries = [i for i in range(len(y)) if (y == y[i]).sum() > 1]
    expected = {
        k: np.mean([(y[np.argsort(-similarity[i])[:k]] == y[i]).any() for i in queries])
        for k in (1, 2, 4, 8, 16)
    }
    assert measures.recall_curve(report.embeddings, y) == pytest.approx(expected)


def test_gallery_orders_the_worst_first() -> None:
    angles = np.radians([0, 10, 1, 40, 44, 90, 91, 130, 200])
    y = np.array([0, 0, 1, 1, 2, 3, 3, 2, 4])
    groups = measures.gallery(np.stack([np.cos(angles), np.sin(angles)], axis=1), y)
    worst = groups[0].queries
    # All of these have nothing right. 0 and 2 are nearest, but one confusion: 0 alone is shown.
    assert [q.index for q in worst] == [0, 3, 7]
    assert worst[0].similarities[0] == pytest.approx(np.cos(np.radians(1)), abs=1e-6)
    assert (worst[0].found, worst[0].relevant) == (0, 1)
    assert worst[0].neighbours.tolist() == [2, 1, 3, 4, 5, 6, 7, 8]
    # Example 1 is second, after a wrong one; after it nothing is left to find.
    assert worst[0].states == ["wrong", "right"] + ["over"] * 6
    assert "6 of 8" in groups[0].rule
    shown = [q.index for group in groups for q in group.queries]
    assert 8 not in shown  # alone in its class
    assert max(Counter(shown).values()) == 1


@pytest.mark.parametrize("limit", [10_000, 300])
def test_similarities_are_those_of_a_loop(limit: int) -> None:
    report = some((20, 1, 13, 2, 16))
    x, y = report.embeddings, report.test.y
    i, j = np.triu_indices(len(y), 1)
    values, same = (x[i] * x[j]).sum(axis=1), y[i] == y[j]
    got = measures.similarities(x, y, limit=limit)
    assert (got.positive_pairs, got.negative_pairs) == (same.sum(), (~same).sum())
    auc = roc_auc_score(same, values)
    if limit == 10_000:
        np.testing.assert_allclose(np.sort(got.positive), np.sort(values[same]), atol=1e-6)
        np.testing.assert_allclose(np.sort(got.negative), np.sort(values[~same]), atol=1e-6)
        assert got.separation() == pytest.approx(auc)
    else:  # a sample: members of the same sets, and about the same answer
        assert np.abs(got.positive[:, None] - values[same]).min(axis=1).max() < 1e-6
        assert np.abs(got.negative[:, None] - values[~same]).min(axis=1).max() < 1e-6
        assert got.separation() == pytest.approx(auc, abs=0.05)


def test_examples_of_the_map() -> None:
    y = np.repeat(np.arange(50), 8)
    chosen = measures.some_examples(y, 100)
    assert len(chosen) == len(set(chosen.tolist())) == 100
    assert sorted(Counter(y[chosen].tolist()).values())[1:] == [8] * 12  # whole classes
    few = measures.some_examples(np.repeat(np.arange(50), 8), 100, classes=3)
    assert len(set(y[few].tolist())) == 3
    assert len(measures.some_examples(np.repeat([0, 1], 500), 100)) == 100


def test_map_keeps_clusters_apart_and_repeats() -> None:
    rng = np.random.default_rng(0)
    means = np.eye(3, 6)
    y = np.repeat([0, 1, 2], 12)
    x = unit(means[y] + 0.05 * rng.normal(size=(36, 6)))
    points = measures.plane(x)
    assert points.min() == 0
    assert points.max() == 1
    np.testing.assert_array_equal(points, measures.plane(x))
    collapsed = np.ones((8, 3))
    np.testing.assert_array_equal(measures.plane(collapsed), measures.plane(collapsed))
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert (y[distance.argmin(axis=1)] == y).all()


def test_grid_gives_each_a_place_of_its_own_nearby() -> None:
    points = np.random.default_rng(0).random((60, 2))
    cells = measures.on_grid(points, 12, 10)
    placed = cells[:, 0] >= 0
    assert placed.sum() >= 55
    assert len({tuple(cell) for cell in cells[placed].tolist()}) == placed.sum()
    assert np.abs(cells[placed] - points[placed] * (11, 9)).max() <= 2.5
    assert (measures.on_grid(np.full((30, 2), 0.5), 9, 9)[:, 0] >= 0).sum() == 25


@pytest.mark.parametrize("white_on_black", [True, False])
def test_drawings_become_ink(white_on_black: bool) -> None:
    x = np.zeros((5, 8, 8, 1), "uint8")
    x[:, 3:5, 3:5] = 200
    pictures = Pictures(x if white_on_black else 255 - x)
    assert pictures.drawings
    image = np.asarray(pictures.thumbnail(0, 64))
    np.testing.assert_array_equal(image[..., 1], x[0, ..., 0])  # opacity
    assert image[..., 0].max() == 0


def test_photos_stay_photos_and_get_small() -> None:
    x = np.random.default_rng(0).integers(0, 256, (3, 90, 120, 3)).astype("uint8")
    pictures = Pictures(x)
    assert not pictures.drawings
    assert pictures.thumbnail(0, 64).size == (64, 48)
    assert pictures.uri(0).startswith("data:image/jpeg;base64,")
    noise = np.random.default_rng(0).integers(0, 256, (3, 9, 9, 1)).astype("uint8")
    assert not Pictures(noise).drawings
