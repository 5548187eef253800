"""The tutorials in examples/ run, with fewer steps."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def told(name: str, folder: Path, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def fell(output: str) -> bool:
    first, last = map(float, re.findall(r"^loss (\S+) -> (\S+)$", output, re.M)[0])
    return last < first


def test_the_supervised_tutorial(tmp_path: Path) -> None:
    output = told(
        "supervised_hello_world.py", tmp_path, "--epochs=2", "--steps=12", "--out=pictures"
    )
    assert fell(output)
    assert float(re.findall(r"^recall@1 (\S+)$", output, re.M)[0]) > 0.6
    written = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert {"confusion.png", "neighbours.png", "model.keras", "model"} <= written


@pytest.mark.parametrize("algorithm", ["simsiam", "simclr"])
def test_the_self_supervised_tutorial(algorithm: str, tmp_path: Path) -> None:
    output = told(
        *("unsupervised_hello_world.py", tmp_path, "--epochs=2", "--steps=8"),
        f"--algorithm={algorithm}",
    )
    assert fell(output)
    before, after = re.findall(r"^recall@1 (\S+) -> (\S+)$", output, re.M)[0]
    assert float(before) > 0.3
    assert float(after) > 0.3
    assert float(re.findall(r"^spread of the projections (\S+),", output, re.M)[0]) > 0.01
