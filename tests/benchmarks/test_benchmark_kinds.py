"""`python -m benchmarks kinds`: its data, and its table."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import kinds, kinds_data
from kinfold.datasets import parts

pytestmark = pytest.mark.once


def test_data_is_made_in_a_form_that_a_run_takes(tmp_path: Path) -> None:
    fonts = Path(pytest.importorskip("matplotlib").get_data_path(), "fonts", "ttf")
    made = parts(kinds_data.typefaces(tmp_path, fonts), (16, 16))["all"]
    assert len(made.names) > 20
    assert np.ptp(made.x.astype(int), axis=(1, 2, 3)).min() > 40
    made = parts(kinds_data.digits(tmp_path))["all"]
    assert (made.x.shape, made.x.max(), len(made.names)) == ((1797, 8, 8, 1), 255, 10)


def test_what_was_made_is_found_again(tmp_path: Path) -> None:
    calls: list[Path] = []

    def make(folder: Path) -> str:
        calls.append(folder)
        return "data"

    assert [kinds._made(tmp_path, "a", make) for _ in range(2)] == ["data", "data"]
    assert calls == [tmp_path]


def test_the_table_has_means_spreads_and_differences() -> None:
    def row(seed: int, trained: float) -> dict[str, Any]:
        found = {"raw": 0.5, "untrained": 0.25, "trained": trained, "peer": 0.625}
        metrics = {name: dict.fromkeys(kinds.METRICS, value) for name, value in found.items()}
        return {"data": "words", "seed": seed, **metrics}

    device = {"cpu": "a processor"}
    record = {"rows": [row(0, 0.75), row(1, 0.875)], "device": device, "date": "today"}
    (line, _) = (text for text in kinds.report(record).splitlines() if text.startswith("words"))
    assert line.split() == [
        "words",
        "map@r",
        "2",
        "0.500",
        "(0.000)",
        "0.250",
        "(0.000)",
        "0.812",
        "(0.125)",
        "0.625",
        "(0.000)",
        "+0.312",
        "+0.188",
    ]
