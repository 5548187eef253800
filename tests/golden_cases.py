"""The golden files: published values of the peers."""

import json
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parent / "golden"


class Golden:
    """One case of a golden file."""

    def __init__(self, file: str, case: dict[str, Any]) -> None:
        self.case = case
        self.id = f"{file}-{case['name']}-{case.get('loss', 'Circle')}"
        self._prefix = case["name"] + "/"
        with np.load(GOLDEN / f"{file}.npz") as f:
            self._arrays = {
                key.removeprefix(self._prefix): f[key] for key in f if key.startswith(self._prefix)
            }

    def __getitem__(self, key: str) -> np.ndarray:
        return self._arrays[key]

    def get(self, key: str) -> np.ndarray | None:
        return self._arrays.get(key)

    def __str__(self) -> str:
        return self.id


def cases(file: str, names: set[str] | None = None) -> list[Golden]:
    with np.load(GOLDEN / f"{file}.npz") as f:
        table = json.loads(str(f["cases"]))
    return [Golden(file, c) for c in table if names is None or c.get("loss") in names]
