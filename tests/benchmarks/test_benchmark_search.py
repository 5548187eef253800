"""`python -m benchmarks search`: its parts on small vectors, and its tables."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import search, search_parts

pytestmark = pytest.mark.once


@pytest.fixture
def small(tmp_path: Path) -> str:
    x = np.random.default_rng(0).normal(size=(1400, 16)).astype(np.float32)
    np.save(tmp_path / "v.npy", x)
    return str(tmp_path / "v.npy")


def test_what_the_parts_measure(small: str) -> None:
    assert set(search_parts.own("torch", "120")) == {"neighbours_s", "metrics_s", "extra_mib"}
    assert set(search_parts.own("faiss", "120")) == {"neighbours_s", "extra_mib"}
    for way in ("torch", "faiss"):
        assert search_parts.large(way, small)["search_s"] > 0


@pytest.mark.parametrize("name", ["exact", "int8", "binary", "faiss"])
def test_what_an_engine_finds(small: str, name: str) -> None:
    row = search_parts.engine("torch", small, name)
    assert row["recall@10"] > 0.9
    assert row["floats_mib"] == pytest.approx(400 * 16 * 4 / 2**20)


def test_the_tables() -> None:
    ours = {"neighbours_s": 2.0, "metrics_s": 3.0, "extra_mib": 10.0}
    record = {
        "own": {"faiss": {"neighbours_s": 4.0, "extra_mib": 5.0}, "jax": ours},
        "large": {"faiss": {"search_s": 2.0}, "jax": {"search_s": 1.0}},
        "engines": {"exact": {"recall@10": 1.0}, "milvus": {"error": "the process ended with 1"}},
    }
    text = search.report(record)
    assert "neighbours_s 2.0 (0.50)" in text
    assert "1.00 (0.50)" in text
    assert "milvus  the process ended with 1" in text
