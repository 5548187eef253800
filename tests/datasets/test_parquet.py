"""Embeddings from Parquet files, as pandas, Hugging Face datasets and others write them."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kinfold.datasets import parquet
from kinfold.training import sources

pytestmark = pytest.mark.once

RNG = np.random.default_rng(0)
X = RNG.normal(size=(500, 4)).astype("float32")
Y = RNG.integers(0, 9, 500)
TEXT = np.array([f"c{label}" for label in Y])
LISTS = pa.array(list(X))
WIDE = {f"dim_{i}": X[:, i] for i in range(3, -1, -1)}
CLASS_LABEL = {"info": {"features": {"label": {"names": list("abcdefghi"), "_type": "ClassLabel"}}}}

GOOD = {
    "pandas": {"embedding": LISTS, "label": TEXT},
    "float16": {"embedding": pa.array(list(X.astype("float16"))), "label": TEXT},
    "float64": {"x": pa.array(list(X.astype("float64"))), "y": Y},
    "fixed size": {"e": pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), 4), "target": TEXT},
    "large": {"e": LISTS.cast(pa.large_list(pa.float32())), "class": pa.array(TEXT, "string_view")},
    "categories": {"e": LISTS, "label": pa.array(["unused", *TEXT]).dictionary_encode()[1:]},
    "two lists": {"Embedding": LISTS, "tokens": [[1, 2]] * 500, "Labels": Y.astype("uint64")},
    "columns": {**WIDE, "score": X[:, 0], "row7": Y, "label": Y},
    "numbers": {**{str(i): X[:, i] for i in range(4)}, "label": TEXT},
}


def write(path: Path, columns: dict[str, object], **options: object) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


@pytest.mark.parametrize("case", GOOD)
def test_a_file_is_what_was_written(tmp_path: Path, case: str) -> None:
    path = write(tmp_path / "a.parquet", GOOD[case], row_group_size=123)
    split = parquet(path)
    expected = X.astype("float16").astype("float32") if case == "float16" else X
    assert split.x.dtype == np.float32
    assert split.y.dtype == np.int32
    np.testing.assert_array_equal(split.x, expected)
    text = any(isinstance(name, str) and name.startswith("c") for name in split.names)
    assert [split.names[label] for label in split.y] == (TEXT if text else Y.astype(str)).tolist()
    assert len(split.names) == 9


def test_rows_that_are_read_in_blocks_stay_in_order(tmp_path: Path) -> None:
    x = np.arange(40_000, dtype="float32").reshape(-1, 2)
    split = parquet(write(tmp_path / "a.parquet", {"e": list(x), "label": np.arange(20_000) // 2}))
    np.testing.assert_array_equal(split.x, x)
    assert split.y[[0, 1, 2, 19_999]].tolist() == [0, 0, 1, 9_999]


def test_names_of_hugging_face_labels_are_kept(tmp_path: Path) -> None:
    table = pa.table({"e": LISTS, "label": Y})
    table = table.replace_schema_metadata({"huggingface": json.dumps(CLASS_LABEL)})
    pq.write_table(table, tmp_path / "a.parquet")
    split = parquet(tmp_path / "a.parquet")
    assert split.names == tuple("abcdefghi")
    assert split.y.tolist() == Y.tolist()


NONE = pa.array([], pa.list_(pa.float32()))
BAD = {
    "must have one column of labels, named label, labels, class, target or y. Found: vec (list<": {
        "vec": [[1.0]]
    },
    "one column of labels, named": {"e": [[1.0]], "label": [1], "class": [1]},
    "must have one column of embeddings": {"label": [1, 2], "embedding": ["[1]", "[2]"]},
    "Found: a (list<element: double>), b (list<element: double>), y (int64).": {
        "a": [[1.0]], "b": [[1.0]], "y": [1]
    },
    "such as dim_0, dim_1. Found: a0 (double), b0 (double)": {"a0": [1.0], "b0": [1.0], "y": [1]},
    "and 9 more.": {**{f"c{i}_": [1] for i in range(20)}, "y": [1]},
    "the lists in 'a' must be of one length, and that of row 1, from 0 on, is 2 long, not 1": {
        "a": [[1.0], [1.0, 2.0]], "y": [1, 2]
    },
    "the column 'a' is null in row 1": {"a": [[1.0], None], "y": [1, 2]},
    "the list of 'a' in row 1 holds a null": {"a": [[1.0, 2.0], [None, 1.0]], "y": [1, 2]},
    "the column 'd1' is null in row 0": {"d0": [1.0, 2.0], "d1": [None, 1.0], "y": [1, 2]},
    "infinite in float32, the first in row 1": {"a": [[1.0], [1e300]], "y": [1, 2]},
    "NaN or infinite in float32, the first in row 0": {"a": [[float("nan")], [1.0]], "y": [1, 2]},
    "1 of 2 labels are null": {"a": [[1.0], [2.0]], "y": [1, None]},
    "labels must be integers or strings. Received the type double": {"a": [[1.0]], "y": [1.0]},
    "labels must be integers or strings. Received the type bool": {"a": [[1.0]], "y": [True]},
    "holds one class only, '1'": {"a": [[1.0], [2.0]], "y": [1, 1]},
    "holds no embeddings. It has 0 rows": {"a": NONE, "y": pa.array([], pa.int64())},
    "holds no embeddings. It has 2 rows": {"a": pa.array([[], []], NONE.type), "y": [1, 2]},
}  # fmt: skip


@pytest.mark.parametrize("message", BAD)
def test_bad_columns_are_one_sentence(tmp_path: Path, message: str) -> None:
    path = write(tmp_path / "a.parquet", BAD[message])
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        parquet(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_files_that_are_no_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with pytest.raises(ValueError, match=r"a.parquet is not a file"):
        parquet(path)
    whole = write(path, GOOD["pandas"]).read_bytes()
    for damaged in (b"", b"x,y\n1,2\n" * 9, whole[:300], whole[:-9], b"PAR1" + whole[400:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"is not a Parquet file, is cut short or is damaged"):
            parquet(path)


def test_missing_pyarrow_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.parquet", GOOD["pandas"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"needs pyarrow: pip install kinfold\[parquet\]"):
        parquet(path)


def test_a_parquet_file_gives_the_splits_of_the_same_npz(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", GOOD["pandas"])
    np.savez(tmp_path / "a.npz", x=X, y=TEXT)
    for ours, theirs in zip(
        sources.load_splits(str(path), None),
        sources.load_splits(str(tmp_path / "a.npz"), None),
        strict=True,
    ):
        np.testing.assert_array_equal(ours.x, theirs.x)
        np.testing.assert_array_equal(ours.y, theirs.y)
        assert ours.names == theirs.names
    assert sources.load_whole(str(path), (4,)).x.shape == (500, 4)
    with pytest.raises(ValueError, match=r"holds vectors of 4; the model takes vectors of 5"):
        sources.load_whole(str(path), (5,))
