"""What the trainings came to: means, spreads, and where ours finds less than its namesake."""

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import tables
from benchmarks.losses import OURS, PML
from benchmarks.quality.recipes import IMPLEMENTATIONS, LOSSES

METRICS = ("recall@1", "map@r")
SAME = ("benchmark", "steps", "versions")  # in which runs agree that go into one table

Run = dict[str, Any]


def key(run: Run) -> tuple[str, str, int]:
    return run["loss"], run["implementation"], run["seed"]


def resumed(path: Path, record: dict[str, Any]) -> list[Run]:
    """Read the runs of an earlier start that need no repeat.

    Returns:
        Those that ended well, and none where steps or versions differ from those of `record`.
    """
    if not path.exists():
        return []
    earlier = json.loads(path.read_text(encoding="utf-8"))
    if any(earlier.get(name) != record[name] for name in SAME):
        return []
    return [run for run in earlier["runs"] if "error" not in run and run["loss"] in LOSSES]


def filled(record: dict[str, Any], runs: Iterable[Run]) -> dict[str, Any]:
    """Add the runs and their summary to what the record says of the machine and the data."""
    return {**record, "runs": list(runs), "summary": summary(runs)}


def summary(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """Summarise each loss, the best map@r of ours first.

    Returns:
        A row a loss: for both implementations {"seeds", "recall@1", "map@r"}, a metric being
        {"mean", "spread"} or None; `worse` says for each metric whether ours is worse.
    """
    runs, rows = list(runs), []
    for name in dict.fromkeys(run["loss"] for run in runs):
        row: dict[str, Any] = {"loss": name}
        for implementation in IMPLEMENTATIONS:
            own = [run for run in runs if key(run)[:2] == (name, implementation)]
            done = [run for run in own if "error" not in run]
            row[implementation] = {
                "seeds": len(done),
                **{metric: _spread([run[metric] for run in done]) for metric in METRICS},
            }
            if errors := [run["error"] for run in own if "error" in run]:
                row[implementation]["error"] = errors[0]
        row["worse"] = {m: worse(row[OURS][m], row[PML][m]) for m in METRICS}
        rows.append(row)
    return sorted(rows, key=lambda row: -(row[OURS]["map@r"] or {"mean": -1.0})["mean"])


def worse(ours: dict[str, Any] | None, peer: dict[str, Any] | None) -> bool | None:
    """Whether our mean is below the peer's by more than the larger spread of the two.

    None where one was not measured, or with a single seed, which has no spread.
    """
    if ours is None or peer is None or None in (ours["spread"], peer["spread"]):
        return None
    return ours["mean"] - peer["mean"] < -max(ours["spread"], peer["spread"])


def report(record: dict[str, Any]) -> str:
    """Everything that the terminal shows."""
    device, commit = record["device"], record["commit"] or {"id": "unknown", "dirty": False}
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    head = ["loss", *(f"{metric} {who}" for metric in METRICS for who in ("ours", "peer"))]
    lines = [_line(row) for row in record["summary"]]
    data = record["data"]
    return "\n".join(
        (
            f"Glyphs, {record['steps']} steps; {data['test_images']} images of "
            f"{data['test_classes']} characters unseen in training; {device['cpu']}",
            f"{record['date']}, commit {commit['id'][:10]}{' (dirty)' if commit['dirty'] else ''}",
            versions,
            "",
            tables.table([*head, "worse"], lines, left=(0, 5)),
            "",
            "Mean and sample standard deviation over seeds. peer: the loss of that name in",
            "pytorch-metric-learning, both with their own defaults. worse: the metrics in which",
            "our mean is below the peer's by more than the larger standard deviation of the two.",
        )
    )


def _spread(values: Sequence[float]) -> dict[str, Any] | None:
    if not values:
        return None
    spread = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "spread": spread}


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    cells = [_cell(row[who], metric) for metric in METRICS for who in IMPLEMENTATIONS]
    verdicts = row["worse"].values()
    names = ", ".join(metric for metric, verdict in row["worse"].items() if verdict)
    return row["loss"], *cells, names or ("?" if None in verdicts else "no")


def _cell(values: dict[str, Any], metric: str) -> str:
    measured = values[metric]
    if measured is None:
        return "failed" if "error" in values else ""
    spread = "" if measured["spread"] is None else f" ± {measured['spread']:.4f}"
    return f"{measured['mean']:.4f}{spread}"
