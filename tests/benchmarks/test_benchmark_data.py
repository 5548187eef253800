"""`python -m benchmarks data`, on a few small images."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import data, data_parts

pytestmark = pytest.mark.once


def test_parts_measure_what_they_say(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    data_parts.make_images(photos, 160)
    assert sum(1 for _ in photos.rglob("*.jpg")) == 160
    found = data_parts.waiting(photos, 160)
    assert 0 <= found["share"] < 1
    listed = data_parts.listing(tmp_path / "list.csv", 600)
    assert sum(listed["splits"]) == listed["rows"] == 600


def test_the_report_names_every_number_and_what_failed() -> None:
    record: dict[str, Any] = {
        "files": 200_000,
        "backend": "jax",
        "run": {"peak_mib": 900.0, "folder_mib": 20.5, "first_step_s": 21.0, "scan_s": 50.0}
        | {"whole_s": 600.0},
        "decoding": {"ours": 600.0, "threads": 500.0, "data_loader": 400.0, "grain_threads": 300.0},
        "waiting": {"share": 0.021, "step_s": 0.3},
        "kills": {"error": "the process ended with 1"},
        "listing": {"rows": 1_000_000, "seconds": 9.5, "mib": 290.0, "splits": []},
    }
    said = data.report(record)
    for part in (
        "900 MiB (under 1,536)",
        "20.5 MiB (under 100)",
        "21.0 s (under 30)",
        "600; bare Pillow threads 500 (1.20, at least 0.9)",
        "DataLoader 400 (1.50, at least 1)",
        "2.1% of the time",
        "kills: the process ended with 1",
        "9.5 s (under 60), 290 MiB (under 500)",
    ):
        assert part in said
    record["kills"] = {"kills": 20, "starts": 21, "same": True}
    assert "killed 20 times within epochs: weights the same bit for bit" in data.report(record)
