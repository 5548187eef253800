"""Parquet files of which only the row groups that are asked for are read."""

import io
import json
import multiprocessing
import pickle
import re
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from kinfold.core.stored import Stored
from kinfold.datasets import _row_groups, parquet
from kinfold.datasets._parquet_images import holds_encoded_images, open_parquet_images
from kinfold.datasets._parquet_rows import open_embeddings

pytestmark = pytest.mark.once

RNG = np.random.default_rng(0)
X = RNG.normal(size=(500, 4)).astype("float32")
Y = RNG.integers(0, 9, 500)
TEXT = [f"c{label}" for label in Y]
LISTS = pa.array(list(X))
FORMS = {
    "lists": {"embedding": LISTS, "label": TEXT},
    "float16": {"embedding": pa.array(list(X.astype("float16"))), "label": TEXT},
    "float64": {"x": pa.array(list(X.astype("float64"))), "y": Y},
    "fixed size": {"e": pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), 4), "target": TEXT},
    "large": {"e": LISTS.cast(pa.large_list(pa.float32())), "class": pa.array(TEXT)},
    "categories": {"e": LISTS, "label": pa.array(TEXT).dictionary_encode()},
    "columns": {**{f"dim_{i}": X[:, i] for i in range(3, -1, -1)}, "row7": Y, "label": Y},
}
ASKED = (slice(None), slice(120, 130), slice(None, None, -7), 7, -1, [499, 5, 5, 0], Y == 2)


def write(path: Path, columns: dict[str, object], size: int = 64, **metadata: object) -> Path:
    table = pa.table(columns)
    if metadata:
        table = table.replace_schema_metadata({k: json.dumps(v) for k, v in metadata.items()})
    pq.write_table(table, path, row_group_size=size)
    return path


def halves(folder: Path, columns: dict[str, object], names: tuple[str, str]) -> Path:
    folder.mkdir()
    table = pa.table(columns)
    half = len(table) // 2
    for name, part in zip(names, (table[:half], table[half:]), strict=True):
        pq.write_table(part, folder / name, row_group_size=30)
    return folder


@pytest.fixture
def groups_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The row groups that are decoded."""
    read: list[int] = []
    original = _row_groups.RowGroups._read

    def counted(self: _row_groups.RowGroups, group: int) -> object:
        read.append(group)
        return original(self, group)

    monkeypatch.setattr(_row_groups.RowGroups, "_read", counted)
    return read


# Embeddings


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_rows_are_those_of_the_whole(tmp_path: Path, form: str, kind: str) -> None:
    whole = parquet(write(tmp_path / "a.parquet", FORMS[form]))
    path = tmp_path / "a.parquet"
    if kind == "folder":
        path = halves(tmp_path / "a", FORMS[form], ("b0.parquet", "b1.parquet"))
    found = open_embeddings(path)
    x = found.split.x
    assert isinstance(x, Stored)
    assert (x.shape, x.dtype) == (whole.x.shape, whole.x.dtype)
    assert (found.parts, found.groups, found.split.files) == (None, None, None)
    assert found.split.names == whole.names
    np.testing.assert_array_equal(found.split.y, whole.y)
    for rows in ASKED:
        np.testing.assert_array_equal(x[rows], whole.x[rows])
    assert x[np.array([], int)].shape == (0, 4)


def test_only_the_row_groups_of_the_rows_are_read(tmp_path: Path, groups_read: list[int]) -> None:
    path = write(tmp_path / "a.parquet", FORMS["lists"])  # 8 groups, of 1 KiB each but the last
    x = open_embeddings(path).split.x
    assert groups_read == []
    np.testing.assert_array_equal(x[60:70], X[60:70])
    assert groups_read == [0, 1]
    np.testing.assert_array_equal(x[[127, 3]], X[[127, 3]])
    assert groups_read == [0, 1]
    groups_read.clear()
    x = open_embeddings(path, kept=2048).split.x  # two groups
    for rows, read in (
        ([0], [0]), ([64], [1]), ([1], []), ([128], [2]), ([2, 129], []), ([65], [1]), ([3], [0])
    ):  # fmt: skip
        x[rows]
        assert groups_read == read, rows
        groups_read.clear()
    x = open_embeddings(path, kept=10).split.x  # less than one, which is kept all the same
    np.testing.assert_array_equal(x[:], X)
    assert groups_read == list(range(8))
    x[499]
    assert groups_read == list(range(8))


def test_bytes_that_are_kept_are_counted(tmp_path: Path) -> None:
    x = open_embeddings(write(tmp_path / "a.parquet", FORMS["lists"]), kept=3000).split.x
    for row in RNG.integers(0, 500, 100):
        x[[row]]
        kept = x.reader.groups._kept
        assert kept.size == sum(group.nbytes for group in kept.groups.values()) <= 3000


def test_parts_and_groups(tmp_path: Path) -> None:
    columns = {"e": LISTS, "label": Y, "split": ["train", "val"] * 250, "Patient": Y * 7}
    found = open_embeddings(write(tmp_path / "a.parquet", columns), group="patient")
    assert found.parts == ["train", "validation"] * 250
    assert found.groups == [str(7 * label) for label in Y]
    names = ("test-00000-of-00001.parquet", "train-00000-of-00001.parquet")
    by_name = halves(tmp_path / "b", {"e": LISTS, "label": Y}, names)
    assert open_embeddings(by_name).parts == ["test"] * 250 + ["train"] * 250
    assert open_embeddings(by_name / names[0]).parts is None
    pq.write_table(pa.table({"e": LISTS, "label": Y}), by_name / "more.parquet")
    found = open_embeddings(by_name)
    assert found.parts is None
    assert found.split.x.shape == (1000, 4)
    np.testing.assert_array_equal(found.split.x[:], np.concatenate([X, X]))
    assert [path.name for path in found.kept_in] == ["more.parquet", *names]
    for group, told in (("nobody", "one column named nobody, to"), ("e", "integers or strings")):
        with pytest.raises(ValueError, match=told):
            open_embeddings(tmp_path / "a.parquet", group=group)


def test_readers_pickle_and_are_read_in_threads_and_processes(tmp_path: Path) -> None:
    x = open_embeddings(write(tmp_path / "a.parquet", FORMS["lists"])).split.x
    np.testing.assert_array_equal(x[3:5], X[3:5])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(x))[:], X)
    with ThreadPoolExecutor(4) as pool:
        wanted = [RNG.integers(0, 500, 30) for _ in range(40)]
        for rows, found in zip(wanted, pool.map(x.__getitem__, wanted), strict=True):
            np.testing.assert_array_equal(found, X[rows])
    rows = [8, 1, 499]
    with x.reader.groups._kept.lock:  # as if another thread were reading now
        np.testing.assert_array_equal(in_fork(x, rows), X[rows])


def in_fork(x: Stored, rows: list[int]) -> np.ndarray:
    if sys.platform != "linux":
        pytest.skip("no fork here")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a fork beside threads
        with multiprocessing.get_context("fork").Pool(1) as forked:
            return forked.apply_async(x.__getitem__, (rows,)).get(60)


NONE = pa.array([], pa.list_(pa.float32()))
AT_OPENING = [
    {"vec": [[1.0]]},
    {"e": [[1.0]], "label": [1], "class": [1]},
    {"label": [1, 2], "embedding": ["[1]", "[2]"]},
    {"a": [[1.0]], "b": [[1.0]], "y": [1]},
    {"a": [[1.0], [2.0]], "y": [1, None]},
    {"a": [[1.0]], "y": [1.0]},
    {"a": [[1.0], [2.0]], "y": [1, 1]},
    {"e": NONE, "y": pa.array([], pa.int64())},
    {"e": pa.array([[], []], NONE.type), "y": [1, 2]},
    {"a": [None, [1.0]], "y": [1, 2]},
]
AT_READING = [
    {"a": [[1.0], [1.0, 2.0]], "y": [1, 2]},
    {"a": [[1.0], None], "y": [1, 2]},
    {"a": [[1.0, 2.0], [None, 1.0]], "y": [1, 2]},
    {"d0": [1.0, 2.0], "d1": [1.0, None], "y": [1, 2]},
    {"a": [[1.0], [1e300]], "y": [1, 2]},
    {"a": [[1.0], [float("nan")]], "y": [1, 2]},
]


@pytest.mark.parametrize("columns", AT_OPENING + AT_READING, ids=str)
@pytest.mark.parametrize("size", [1, 2])
def test_bad_columns_get_the_sentence_that_reading_the_whole_gives(
    tmp_path: Path, columns: dict[str, object], size: int
) -> None:
    path = write(tmp_path / "a.parquet", columns, size)
    with pytest.raises(ValueError, match=r"a\.parquet") as eager:
        parquet(path)
    told = re.escape(str(eager.value))
    if columns in AT_OPENING:
        with pytest.raises(ValueError, match=told):
            open_embeddings(path)
        return
    x = open_embeddings(path).split.x
    with pytest.raises(ValueError, match=told):
        x[:]
    if size == 1:
        assert np.isfinite(x[:1]).all()  # the row before is read


def test_folders_of_several_kinds(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no \.parquet file"):
        open_embeddings(tmp_path)
    with pytest.raises(ValueError, match=r"no\.parquet is not a file"):
        open_embeddings(tmp_path / "no.parquet")
    write(tmp_path / "a.parquet", {"e": LISTS, "label": Y})
    for other in ({"e": LISTS, "label": TEXT}, {"f": LISTS, "label": Y}, {"e": LISTS}):
        write(tmp_path / "b.parquet", other)
        with pytest.raises(ValueError, match=r"same columns .* a.parquet has others than b.parq"):
            open_embeddings(tmp_path)
    named = {"info": {"features": {"label": {"names": list("abcdefghi")}}}}
    write(tmp_path / "b.parquet", {"e": LISTS, "label": Y}, huggingface=named)
    with pytest.raises(ValueError, match="same columns and names of classes"):
        open_embeddings(tmp_path)
    (tmp_path / "a.parquet").unlink()
    assert open_embeddings(tmp_path).split.names == tuple("abcdefghi")


def test_lists_of_a_later_file_are_of_the_length_of_the_first(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"e": [[1.0, 2.0]], "y": [0]})
    write(tmp_path / "b.parquet", {"e": [[1.0]], "y": [1]})
    x = open_embeddings(tmp_path).split.x
    assert x[0].tolist() == [1, 2]
    with pytest.raises(ValueError, match=r"b.parquet: the lists .* row 0, from 0 on, is 1 long, n"):
        x[1]


def damaged(whole: bytes) -> Iterator[bytes]:
    yield from (b"", b"x,y\n1,2\n" * 9, whole[:300], whole[:-9], b"PAR1" + whole[400:])


def test_files_that_are_cut_short_or_changed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", FORMS["lists"])
    whole = path.read_bytes()
    x = open_embeddings(path).split.x
    for content in damaged(whole):
        path.write_bytes(content)
        for call in (lambda: open_embeddings(path), lambda: x[3]):
            with pytest.raises(ValueError, match="is not a Parquet file, is cut short or is dama"):
                call()
    write(path, FORMS["lists"], 65)
    with pytest.raises(ValueError, match=r"a.parquet was changed since it was opened"):
        x[3]
    path.unlink()
    with pytest.raises(ValueError, match=r"a.parquet is not a file"):
        x[3]


# Images


PIXELS = RNG.integers(0, 256, (30, 6, 5, 3), "uint8")
LABELS = np.arange(30) % 4


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


PNGS = [encoded(pixels) for pixels in PIXELS]
STRUCTS = [{"bytes": png, "path": f"{k}.png"} for k, png in enumerate(PNGS)]
SIZE = (6, 5)
IMAGES = {
    "structs": {"image": STRUCTS, "label": LABELS},
    "another name": {"scan": STRUCTS, "label": LABELS, "image": ["text"] * 30},
    "two structs": {"Img": STRUCTS, "mask": STRUCTS[::-1], "label": LABELS},
    "bytes alone": {"image": [{"bytes": png} for png in PNGS], "label": LABELS},
    "plain": {"image": PNGS, "label": LABELS},
    "large": {"jpg": pa.array(PNGS, pa.large_binary()), "label": LABELS},
}


@pytest.mark.parametrize("form", IMAGES)
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_images_are_what_was_encoded(tmp_path: Path, form: str, kind: str) -> None:
    path = write(tmp_path / "a.parquet", IMAGES[form], 7)
    if kind == "folder":
        names = ("test-00000-of-00001.parquet", "train-00000-of-00001.parquet")
        path = halves(tmp_path / "a", IMAGES[form], names)
    assert holds_encoded_images(path)
    found = open_parquet_images(path, SIZE, 3)
    x = found.split.x
    assert (x.shape, x.dtype) == ((30, *SIZE, 3), np.uint8)
    for rows in (slice(None), slice(5, 9), 7, [29, 3, 3, 0], LABELS == 2):
        np.testing.assert_array_equal(x[rows], PIXELS[rows])
    assert found.split.y.tolist() == LABELS.tolist()
    assert found.parts == (None if kind == "file" else ["test"] * 15 + ["train"] * 15)
    files = found.split.files
    assert len(set(files)) == 30
    if form in ("structs", "another name", "two structs"):
        assert files[17] == "17.png"
    else:
        assert files[17] == ("a.parquet/17" if kind == "file" else f"{names[1]}/2")
    assert x.unreadable == {}


def test_other_tables_hold_no_images(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    for columns in (
        {"image": ["a.png", "b.png"], "label": [0, 1]},
        {"image": [b"a.png", b"b.png"], "label": [0, 1]},
        {"e": [[1.0], [2.0]], "label": [0, 1]},
        {"a": STRUCTS, "b": STRUCTS, "label": LABELS},
        {"image": PNGS, "img": PNGS, "label": LABELS},
    ):
        write(path, columns)
        assert not holds_encoded_images(path)
        with pytest.raises(ValueError, match=r"must have one column of encoded images, named ima"):
            open_parquet_images(path, SIZE, 3)


def test_names_parts_and_groups_of_images(tmp_path: Path) -> None:
    columns = {**IMAGES["structs"], "split": ["test", "train"] * 15, "animal": LABELS}
    named = {"info": {"features": {"label": {"names": ["cat", "cow", "dog", "owl"]}}}}
    path = write(tmp_path / "a.parquet", columns, huggingface=named)
    found = open_parquet_images(path, (3, 3), 1, group="animal")
    assert found.split.names == ("cat", "cow", "dog", "owl")
    assert found.parts == ["test", "train"] * 15
    assert found.groups == LABELS.astype(str).tolist()
    assert found.split.x[4].shape == (3, 3, 1)
    assert found.kept_in == [path]
    with pytest.raises(ValueError, match=r"size must be \(height, width\)"):
        open_parquet_images(path, 3, 1)
    write(path, {**columns, "label": [-1] * 30}, huggingface=named)
    with pytest.raises(ValueError, match="4 names serve labels 0 to 3, but y holds labels from -1"):
        open_parquet_images(path, SIZE, 3)


def test_only_the_row_groups_of_the_images_are_read(
    tmp_path: Path, groups_read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.parquet", IMAGES["structs"], 3)
    x = open_parquet_images(path, SIZE, 3).split.x
    assert groups_read == []
    np.testing.assert_array_equal(x[[4, 29, 5]], PIXELS[[4, 29, 5]])
    assert groups_read == [1, 9]
    x = open_parquet_images(path, SIZE, 3, kept=1).split.x
    np.testing.assert_array_equal(x[[4, 29, 5]], PIXELS[[4, 29, 5]])
    x[3]
    assert groups_read == [1, 9, 1, 9, 1]
    monkeypatch.setattr("kinfold.datasets._parquet_images._AT_ONCE", 300)
    np.testing.assert_array_equal(x[::-1], PIXELS[::-1])


def test_images_beside_the_table_are_read(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "3.png").write_bytes(PNGS[3])
    structs = list(STRUCTS)
    structs[3] = {"bytes": None, "path": "files/3.png"}
    path = write(tmp_path / "a.parquet", {"image": structs, "label": LABELS})
    np.testing.assert_array_equal(open_parquet_images(path, SIZE, 3).split.x[:], PIXELS)


def test_another_image_of_the_class_stands_in(tmp_path: Path) -> None:
    structs: list[object] = list(STRUCTS)
    structs[3] = {"bytes": PNGS[3][:60], "path": "3.png"}
    structs[7] = {"bytes": None, "path": "nowhere.png"}
    structs[27] = {"bytes": None, "path": None}
    structs[26] = {"bytes": b"", "path": "26.png"}
    structs[25] = None
    structs[24] = {"bytes": None, "path": "a\0b"}
    path = write(tmp_path / "a.parquet", {"image": structs, "label": LABELS}, 4)
    x = open_parquet_images(path, SIZE, 3).split.x
    expected = PIXELS.copy()
    expected[[3, 7, 27]] = PIXELS[[11, 11, 11]]
    expected[27] = PIXELS[11]  # 31 would be next; after the last row the first, 3, then 7
    expected[[24, 25, 26]] = PIXELS[[28, 29, 2]]
    np.testing.assert_array_equal(x[:], expected)
    np.testing.assert_array_equal(x[[27, 3]], expected[[27, 3]])
    assert set(x.unreadable) == {3, 7, 24, 25, 26, 27}
    assert x.unreadable[7] == "no such file"
    assert x.unreadable[27] == x.unreadable[25] == "null"
    broken = [dict(s, bytes=b"no image") if k % 4 == 1 else s for k, s in enumerate(STRUCTS)]
    write(path, {"image": broken, "label": LABELS})
    x = open_parquet_images(path, SIZE, 3).split.x
    np.testing.assert_array_equal(x[[0, 2]], PIXELS[[0, 2]])
    with pytest.raises(ValueError, match=r"a.parquet: no image of the class '1' can be read; row"):
        x[:4]


def test_no_image_of_another_part_stands_in(tmp_path: Path) -> None:
    structs = list(STRUCTS)
    structs[3] = {"bytes": b"", "path": "3.png"}
    x = open_parquet_images(
        write(tmp_path / "a.parquet", {"image": structs, "label": LABELS}), SIZE, 3
    ).split.x
    parts = np.zeros(30, int)
    parts[[3, 15]] = 2
    x.reader.keep_apart(parts)
    np.testing.assert_array_equal(x[3], PIXELS[15])
    assert pickle.loads(pickle.dumps(x)).unreadable.keys() == {3}


def test_image_readers_pickle_and_are_read_in_threads_and_processes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", IMAGES["structs"], 4)
    x = open_parquet_images(path, SIZE, 3).split.x
    np.testing.assert_array_equal(x[[3, 5]], PIXELS[[3, 5]])
    copied = pickle.dumps(x)
    assert len(copied) < 5000
    np.testing.assert_array_equal(pickle.loads(copied)[:], PIXELS)
    with ThreadPoolExecutor(4) as pool:
        wanted = [RNG.integers(0, 30, 10) for _ in range(20)]
        for rows, found in zip(wanted, pool.map(x.__getitem__, wanted), strict=True):
            np.testing.assert_array_equal(found, PIXELS[rows])
    np.testing.assert_array_equal(in_fork(x, [8, 1]), PIXELS[[8, 1]])


def test_tables_of_images_that_are_cut_short(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", IMAGES["structs"])
    x = open_parquet_images(path, SIZE, 3).split.x
    for content in damaged(path.read_bytes()):
        path.write_bytes(content)
        for call in (lambda: open_parquet_images(path, SIZE, 3), lambda: x[3]):
            with pytest.raises(ValueError, match="is not a Parquet file, is cut short or is dama"):
                call()
