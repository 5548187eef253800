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


SCRIPTS = {  # its arguments, and what its last lines must say
    "fit_on_glyphs.py": (["1"], r"recall@1 \S+ -> 0\.[89]"),
    "pytorch_loop.py": (["40"], r"recall@1 0\.[6789]"),
    "jax_loop.py": (["100"], r"recall@1 0\.6\S+ -> 0\.[789]"),
    "fine_tune.py": (["2"], r"recall@1 0\.\d+"),
    "head_on_text.py": (["3"], r"texts of \d+ modules[^$]*map@r 0\.\d+ -> 0\.\d+"),
    "two_towers.py": (["20"], r"InfoNCE: .*recall@5[^$]*SigLIP: .*recall@5"),
    "open_set.py": (["1"], r"strangers: [0-9]\.\d% taken for known"),
}


@pytest.mark.once
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script(name: str, tmp_path: Path) -> None:
    arguments, says = SCRIPTS[name]
    assert re.search(says, told(name, tmp_path, *arguments))


@pytest.mark.once
def test_the_script_of_four_processes(tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4"]
    command = [sys.executable, *launcher, str(EXAMPLES / "four_processes.py"), "21"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr
    first, last = map(float, re.findall(r"^step \d+: (\S+)$", done.stdout, re.M))
    assert last < first
    assert re.search(r"recall@1 0\.[678]", done.stdout)
