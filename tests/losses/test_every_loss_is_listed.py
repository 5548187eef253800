"""Every loss has its place in the tests, the benchmarks and the pages, as CONTRIBUTING.md says."""

import inspect
from pathlib import Path

import keras
import pytest
from benchmarks.quality import recipes

from kinfold import losses

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[2]
BASES = (losses.PairLoss, losses.LogSumExpLoss, losses.PrototypeLoss)
NAMES = [
    name
    for name, value in vars(losses).items()
    if inspect.isclass(value) and issubclass(value, keras.losses.Loss) and value not in BASES
]
# Losses that are no row of the table of trainings: of pairs and of given distances; and the peer's
# manifold loss takes no labels.
NOT_TRAINED = {"InfoNCELoss", "SigLIPLoss", "ContrastiveLoss", "ManifoldLoss"}
TABLES = (
    "cases.py",
    "losses/test_prototypes.py",
    "losses/test_whole_batch.py",
    "losses/test_paired.py",
    "losses/test_contrastive.py",
    "rank_checks.py",  # N-pairs, whose own numbers are those of Addons in tests/compat
)


@pytest.mark.parametrize("name", NAMES)
def test_where_it_stands(name: str) -> None:
    for page in ("docs/losses.md", "README.md", "CHANGELOG.md"):
        assert f"`{name}" in (ROOT / page).read_text("utf-8"), f"{name} is not in {page}"
    tested = "".join((ROOT / "tests" / table).read_text("utf-8") for table in TABLES)
    assert f"losses.{name}" in tested or f'"{name}"' in tested, f"{name} has no row in the tests"
    recipe = any(ours.name == name for ours, _ in recipes.LOSSES.values())
    assert recipe or name in NOT_TRAINED, f"{name} has no row in benchmarks/quality/recipes.py"
