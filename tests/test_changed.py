"""What `make changed` runs for a change."""

import pytest
from tools.changed import concerned, targets_of

pytestmark = pytest.mark.once


def test_a_loss_brings_its_room_and_the_tests_that_name_it() -> None:
    chosen = concerned(["src/kinfold/losses/circle.py"])
    for file in (
        "src/kinfold/losses/circle.py",  # its doctests
        "tests/losses/test_pair_losses.py",
        "tests/streaming/test_roads.py",  # names CircleLoss
    ):
        assert file in chosen
    assert "tests/serving/test_load.py" not in chosen
    few = concerned(["src/kinfold/losses/circle.py"], ("compat", "benchmarks"))
    assert few == [file for file in chosen if not file.startswith(("tests/compat", "tests/bench"))]
    assert len(few) < len(chosen)
    call = "src/kinfold/compat/pytorch_metric_learning/call.py"
    assert "tests/compat/test_pml.py" in concerned([call], ("compat",))
    assert targets_of(["src/kinfold/losses/circle.py"]) == ["test-r"]


@pytest.mark.parametrize(
    ("changed", "test"),
    [
        ("src/kinfold_serving/api.py", "tests/serving/test_api.py"),
        ("src/kinfold_cli.py", "tests/command_line/test_cli.py"),
        ("src/_kinfold_settings.py", "tests/command_line/test_cli.py"),
        ("src/kinfold/model.py", "tests/test_fit.py"),
        ("src/kinfold/batches/sampling.py", "tests/test_batches.py"),
        ("benchmarks/losses.py", "tests/benchmarks/test_benchmarks.py"),
        ("tests/rank_checks.py", "tests/distributed/test_equality.py"),
        ("tests/losses/test_several.py", "tests/losses/test_several.py"),
        ("README.md", "tests/test_readme.py"),
        ("docs/losses.md", "tests/test_readme.py"),
        ("examples/jax_loop.py", "tests/test_examples.py"),
    ],
)
def test_where_the_tests_of_a_file_lie(changed: str, test: str) -> None:
    assert test in concerned([changed])


def test_a_file_that_concerns_all_brings_all() -> None:
    everything = concerned(["constraints.txt"])
    assert everything[0] == "src"
    assert set(concerned(["src/kinfold/losses/circle.py"])[1:]) < {*everything}
    assert len(everything) > len(concerned(["src/kinfold/losses/circle.py"]))
    assert concerned(["LICENSE"]) == []
    assert targets_of(["docs/losses.md", "pyproject.toml"]) == [
        "test-pages",
        "test-r",
        "test-wheel",
    ]
