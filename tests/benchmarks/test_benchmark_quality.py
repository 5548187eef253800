"""The quality benchmark: its table, its verdicts and its going on; no training."""

import importlib.util
import json

import pytest
from benchmarks.quality import picture, recipes, results

from benchmarks import machine

OURS, PML = recipes.IMPLEMENTATIONS


def run(loss: str, implementation: str, seed: int, recall: float, map_r: float) -> dict:
    metrics = {"recall@1": recall, "map@r": map_r}
    return {"loss": loss, "implementation": implementation, "seed": seed, **metrics}


@pytest.fixture
def runs() -> list[dict]:
    """SupConLoss: a better recall@1 of ours, and a map@r worse by more than the spreads."""
    return [
        run("SupConLoss", OURS, 0, 0.90, 0.40),
        run("SupConLoss", OURS, 1, 0.92, 0.42),
        run("SupConLoss", PML, 0, 0.80, 0.50),
        run("SupConLoss", PML, 1, 0.84, 0.54),
        run("CircleLoss", OURS, 0, 0.95, 0.60),
        {"loss": "CircleLoss", "implementation": PML, "seed": 0, "error": "not finite"},
    ]


@pytest.fixture
def record(runs: list[dict]) -> dict:
    data = {"training_images": 7, "test_images": 3, "test_classes": 2}
    described = {"benchmark": "quality", "steps": 10, "data": data, **machine.describe()}
    return results.filled(described, runs)


def test_summary(runs: list[dict]) -> None:
    """Means and sample standard deviations, the best map@r of ours first."""
    circle, sup_con = results.summary(runs)
    assert (circle["loss"], sup_con["loss"]) == ("CircleLoss", "SupConLoss")
    assert sup_con[OURS]["recall@1"] == pytest.approx({"mean": 0.91, "spread": 0.02 / 2**0.5})
    assert sup_con[PML]["map@r"] == pytest.approx({"mean": 0.52, "spread": 0.04 / 2**0.5})
    assert sup_con["worse"] == {"recall@1": False, "map@r": True}
    assert circle[OURS]["map@r"] == {"mean": 0.60, "spread": None}
    assert circle[PML] == {"seeds": 0, "recall@1": None, "map@r": None, "error": "not finite"}
    assert circle["worse"] == {"recall@1": None, "map@r": None}


@pytest.mark.parametrize(
    ("ours", "peer", "expected"),
    [
        ((0.50, 0.01), (0.52, 0.01), True),
        ((0.50, 0.03), (0.52, 0.01), False),  # within our spread
        ((0.50, 0.01), (0.52, 0.03), False),  # within the peer's
        ((0.52, 0.00), (0.50, 0.00), False),
        ((0.50, 0.00), (0.50, 0.00), False),
        ((0.50, None), (0.60, 0.01), None),
    ],
)
def test_worse(ours, peer, expected) -> None:
    sides = [{"mean": mean, "spread": spread} for mean, spread in (ours, peer)]
    assert results.worse(*sides) is expected
    assert results.worse(None, sides[1]) is None


def test_report(record: dict) -> None:
    circle, sup_con = (
        next(line for line in results.report(record).splitlines() if line.startswith(name))
        for name in ("CircleLoss", "SupConLoss")
    )
    assert sup_con.split("  ")[-1] == "map@r"
    assert "0.9100 ± 0.0141" in sup_con
    assert circle.split()[-1] == "?"
    assert circle.split().count("failed") == 2


def test_goes_on(tmp_path, record: dict) -> None:
    """What ended well is kept where steps and versions agree; a failure is run again."""
    path = tmp_path / "quality.json"
    assert results.resumed(path, record) == []
    machine.write(path, record)
    assert json.loads(path.read_text(encoding="utf-8"))["summary"] == record["summary"]
    assert results.resumed(path, record) == record["runs"][:-1]
    assert results.resumed(path, {**record, "steps": 11}) == []
    versions = {**record["versions"], "torch": "0.0"}
    assert results.resumed(path, {**record, "versions": versions}) == []


def test_jobs() -> None:
    jobs = recipes.jobs(["CircleLoss", "FastAPLoss"], seeds=2)
    assert len(jobs) == len(set(jobs)) == 8
    assert jobs[:2] == [("CircleLoss", OURS, 0), ("CircleLoss", PML, 0)]
    assert [seed for _, _, seed in jobs] == [0] * 4 + [1] * 4


def test_recipes() -> None:
    """Each builds with its arguments; one that is not there says so."""
    assert not any("," in name for name in recipes.LOSSES)  # --losses is split at commas
    assert not recipes.Ours("NoSuchLoss").exists()
    there = [ours for ours, _ in recipes.LOSSES.values() if ours.exists()]
    assert len(there) >= 16
    for ours in there:
        if not ours.per_class:
            loss, parameters = ours.build(5, 8)
            assert type(loss).__name__ == ours.name
            assert parameters == []
    assert recipes.LOSSES["CircleLoss(margin=0.25)"][0].build(5, 8)[0].margin == 0.25


@pytest.mark.skipif(
    importlib.util.find_spec("pytorch_metric_learning") is None, reason="the peer is not installed"
)
def test_peers() -> None:
    for _, peer in recipes.LOSSES.values():
        assert peer is None or len(peer.build(5, 8)[1]) == peer.per_class


def test_picture(tmp_path, record: dict) -> None:
    """Dots and bars for what was measured, in both panels, and an SVG of README width."""
    recall, map_r = picture.figure(record["summary"]).axes
    ours, peer = map_r.containers
    assert list(ours[0].get_xdata()) == pytest.approx([0.60, 0.41])
    assert list(peer[0].get_xdata()) == pytest.approx([0.52])
    assert [label.get_text() for label in recall.get_yticklabels()] == ["CircleLoss", "SupConLoss"]
    text = picture.draw(record["summary"], tmp_path).read_text(encoding="utf-8")
    assert text.count("<svg") == 1
    assert 'width="648pt"' in text
    assert [path.name for path in tmp_path.iterdir()] == ["quality.svg"]
    picture.draw([], tmp_path)  # nothing measured, nothing drawn
