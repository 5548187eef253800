"""Data in the layouts that people have: parts, tables of images, and names of any bytes."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import struct
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from _kinfold_text import DATA_FORMS
from kinfold.core import files, installed_memory
from kinfold.datasets import (
    Split,
    Splits,
    arrays,
    image_folder,
    image_list,
    parquet,
    parts,
    shown,
    split_classes,
)
from kinfold.training import listing, sources

pytestmark = pytest.mark.once

SIZE = (4, 4)


def save(path: Path, grey: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:  # not by name, which Pillow needs as UTF-8
        Image.new("L", (4, 4), grey).save(file, "png")


def save_classes(folder: Path, classes: Iterable[int], count: int = 2) -> None:
    """Image i of class k is 10 k + i grey."""
    for k in classes:
        for i in range(count):
            save(folder / f"c{k}" / f"{i}.png", 10 * k + i)


def contents(split: Split) -> list[tuple[str, int]]:
    """The class and the grey of each example."""
    return [(split.names[k], int(x.flat[0])) for x, k in zip(*split, strict=True)]


# Parts in folders


def test_folders_of_parts_are_the_splits(tmp_path: Path) -> None:
    for folder, classes in (("Train", (0, 1)), ("valid", (2, 3)), ("test", (4, 5, 6))):
        save_classes(tmp_path / folder, classes)
    found = parts(tmp_path, SIZE)
    assert list(found) == ["train", "validation", "test"]
    assert contents(found["validation"]) == [("c2", 20), ("c2", 21), ("c3", 30), ("c3", 31)]
    assert found["test"].y.tolist() == [0, 0, 1, 1, 2, 2]
    assert found["train"].files == tuple(f"Train/c{k}/{i}.png" for k in (0, 1) for i in (0, 1))
    splits = sources.load_splits(str(tmp_path), 8)
    assert [split.names for split in splits] == [("c0", "c1"), ("c2", "c3"), ("c4", "c5", "c6")]
    assert splits.classes_are_unseen
    evaluated, which = sources.load_evaluated(str(tmp_path), (4, 4, 3))
    assert evaluated.names == splits.test.names
    assert which == f"the test part of {tmp_path}"


def test_of_a_test_part_the_others_are_not_read(tmp_path: Path) -> None:
    save_classes(tmp_path / "test", (0, 1))
    (tmp_path / "train" / "c7").mkdir(parents=True)
    (tmp_path / "train" / "c7" / "0.png").touch()  # which would be warned of
    done: list[tuple[int, int]] = []
    found = parts(tmp_path, SIZE, only="test", progress=lambda *args: done.append(args))
    assert list(found) == ["test"]
    assert done[-1] == (4, 4)


def test_without_a_test_part_all_is_evaluated(tmp_path: Path) -> None:
    save_classes(tmp_path / "train", (0, 1))
    save_classes(tmp_path / "val", (1, 2))
    split, which = sources.load_evaluated(str(tmp_path), (4, 4, 3))
    assert split.names == ("c0", "c1", "c2")
    assert len(split) == 8
    assert which == f"all of {tmp_path}"


def test_missing_parts_are_held_out_by_class(tmp_path: Path) -> None:
    save_classes(tmp_path / "both" / "train", range(8))
    shutil.copytree(tmp_path / "both" / "train", tmp_path / "both" / "test")
    train, validation, test = splits = sources.load_splits(str(tmp_path / "both"), 8)
    assert not splits.classes_are_unseen  # as the owner's parts have the same classes
    assert len(test.names) == 8
    assert len(validation.names) == 2
    assert not set(train.names) & set(validation.names)
    (tmp_path / "both" / "test").rename(tmp_path / "both" / "val")
    train, validation, test = splits = sources.load_splits(str(tmp_path / "both"), 8)
    assert splits.classes_are_unseen
    assert len(test.names) == 2
    assert set(train.names) == set(validation.names)  # without those that are tested
    for few, message in (
        ((0, 1, 2), "at least 4: two to train on, two others to test on."),
        ((), "has no part to train on. Its parts are validation"),
    ):
        shutil.rmtree(tmp_path / "both" / "train")
        save_classes(tmp_path / "both" / "train", few)
        with pytest.raises(ValueError, match=re.escape(message)):
            sources.load_splits(str(tmp_path / "both"), 8)
        (tmp_path / "both" / "train").mkdir(exist_ok=True)


def test_what_is_beside_the_parts_is_told(tmp_path: Path) -> None:
    save_classes(tmp_path / "train", (0, 1))
    save(tmp_path / "test" / "unlabelled.png")
    (tmp_path / "train" / "empty").mkdir()
    save(tmp_path / "train" / "c0" / "deeper" / "0.png")
    told = (
        "classes without a readable image (1): empty; folders inside a class folder (1): "
        "train/c0/deeper; folders that are no part (1): test."
    )
    with pytest.warns(UserWarning, match=re.escape(told)):
        assert list(parts(tmp_path, SIZE)) == ["train"]
    save_classes(tmp_path / "training", (0, 1))
    with pytest.raises(ValueError, match=r"two folders for train: train and training\. Leave one"):
        parts(tmp_path, SIZE)


def test_a_class_may_be_named_after_a_part(tmp_path: Path) -> None:
    for name in ("train", "bus", "test"):  # vehicles, and a test picture
        save(tmp_path / name / "0.png")
    assert parts(tmp_path, SIZE)["all"].names == ("bus", "test", "train")


def test_images_without_classes_get_one_line(tmp_path: Path) -> None:
    save(tmp_path / "flat" / "0.png")
    with pytest.raises(ValueError, match=r"flat holds images without class .*or list them in"):
        parts(tmp_path / "flat", SIZE)
    for name in ("train", "test"):
        save(tmp_path / "parts" / name / "0.png")
    message = r"test holds images without .* with the columns path, label and split\."
    with pytest.raises(ValueError, match=message):
        parts(tmp_path / "parts", SIZE)
    save_classes(tmp_path / "wrapped" / "inner", (0, 1))
    with (
        pytest.warns(UserWarning, match="folders inside a class folder"),
        pytest.raises(ValueError, match=r"is it .*wrapped.inner that you mean\?"),
    ):
        parts(tmp_path / "wrapped", SIZE)


# Tables of images


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    for n in range(8):
        save(tmp_path / "images" / f"{n}.png", n)
    return tmp_path


ROWS = [(f"{n}.png", "ba"[n % 2]) for n in range(8)]
EXPECTED = [("ba"[n % 2], n) for n in range(8)]


def text(head: str, rows: Iterable[Iterable[str]], by: str = ",") -> str:
    return "\n".join([head, *(by.join(row) for row in rows)]) + "\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.csv", text("filename,label", ROWS)),
        ("Labels.CSV", text("id;Image;Class", [("7", *row) for row in ROWS], ";")),
        ("labels.tsv", text("y\tpath", [row[::-1] for row in ROWS], "\t")),
        ("spaced.csv", text("file , target", [(a, " " + b) for a, b in ROWS]) + "\n\n"),
    ],
)
def test_a_table_of_images_is_read(flat: Path, name: str, content: str) -> None:
    for folder in (flat, flat / "images"):  # the images beside it in a folder, or with it
        for encoding in ("utf-8", "utf-8-sig", "utf-16"):
            (folder / name).write_text(content, encoding=encoding)
            split = image_list(folder / name, SIZE)
            assert contents(split) == EXPECTED
            assert split.files == tuple(path for path, _ in ROWS)
        assert contents(parts(folder, SIZE)["all"]) == EXPECTED  # of the folder that it is in
        (folder / name).unlink()


def test_a_parquet_table_of_images_is_read(flat: Path) -> None:
    path = flat / "images" / "table.parquet"
    labels = {"strings": ["b", "a"] * 4, "integers": [1, 0] * 4}
    for kind, values in labels.items():
        table = pa.table({"path": [name for name, _ in ROWS], "label": values})
        if kind == "integers":
            known = {"info": {"features": {"label": {"names": ["a", "b"]}}}}
            table = table.replace_schema_metadata({"huggingface": json.dumps(known)})
        pq.write_table(table, path)
        assert contents(parts(path, SIZE)["all"]) == EXPECTED
    sources.check_source(str(path), 64)  # a size may be asked for


def test_the_parts_of_a_table_are_the_splits(flat: Path) -> None:
    kinds = ["train", "TRAIN", "val", " dev", "testing", "test", "train", "train"]
    rows = [(*row, kind) for row, kind in zip(ROWS, kinds, strict=True)]
    (flat / "labels.csv").write_text(text("path,label,split", rows))
    found = parts(flat / "labels.csv", SIZE)
    assert {name: contents(split) for name, split in found.items()} == {
        "train": [EXPECTED[n] for n in (0, 1, 6, 7)],
        "validation": EXPECTED[2:4],
        "test": EXPECTED[4:6],
    }
    split, which = sources.load_evaluated(str(flat / "labels.csv"), (4, 4, 3))
    assert contents(split) == EXPECTED[4:6]
    assert which.startswith("the test part of")
    assert len(image_list(flat / "labels.csv", SIZE)) == 8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty. Its first line must name the columns."),
        ("0.png,a\n1.png,b\n", "must have one column of paths, named path, file, image,"),
        ("path,name\n0.png,a\n", "one column of labels, named label, labels, class, target or y,"),
        ("path,file,label\n0.png,0,a\n", "one column of paths"),
        ("path,label\n", "lists no images: it has no rows."),
        ("path,label\n0.png,a\n,b\n", "row 1, from 0 on, has no path."),
        ("path,label\n0.png, \n", "row 0, from 0 on, has no label."),
        ("path,label\n0.png,a,b\n", "row 0, from 0 on, has 3 fields, and the first line names 2"),
        ("path,path,label\n", "two columns have the same name"),
        ("path,label,split\n0.png,a,fold 1\n", "must hold train, val or test. Received in row 0,"),
        ("path,label\n0.png,a\n./0.png,b\n", "lists ./0.png with two labels, a and b."),
        ("path,label,split\n0.png,a,val\n0.png,a,test\n", "two parts, validation and test."),
        ("path,label\n0.png,a\n1.png,a\n", "holds one class only, 'a'"),
        ('path,label\n"0.png,' + "a" * 200_000, "field larger than field limit"),
    ],
)
def test_bad_tables_are_one_sentence(flat: Path, content: str, message: str) -> None:
    path = flat / "images" / "labels.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        parts(path, SIZE)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_rows_that_cannot_be_used_are_told(flat: Path) -> None:
    table = flat / "labels.csv"
    table.write_text(text("path,label", [*ROWS, ROWS[0], ("gone.png", "a"), ("/dev/zero", "a")]))
    told = r"unreadable \(2\): gone.png \(no such file\), /dev/zero \(a folder or device\); files "
    with pytest.warns(UserWarning, match=told + r"that are listed again \(1\): 0.png"):
        assert contents(image_list(table, SIZE)) == EXPECTED
    table.write_text("path,label\nx.png,a\ny.png,b\n")
    with (
        pytest.warns(UserWarning, match=r"unreadable \(2\)"),
        pytest.raises(ValueError, match=f"lists no image .* Paths are relative to {flat}, and"),
    ):
        image_list(table, SIZE)


# Arrays


X = np.arange(48, dtype="float32").reshape(12, 4)
Y = np.arange(12) // 2


@pytest.mark.parametrize("names", [("x_{}", "y_{}"), ("{}_images", "{}_labels"), ("X_{}", "Y_{}")])
def test_arrays_of_parts(tmp_path: Path, names: tuple[str, str]) -> None:
    path = tmp_path / "data.npz"
    saved = {}
    for part, low, high in (("train", 0, 6), ("val", 4, 8), ("test", 8, 12)):
        for name, array in zip(names, (X, Y), strict=True):
            saved[name.format(part)] = array[low:high]
    np.savez(path, **saved)
    found = parts(path)
    assert list(found) == ["train", "validation", "test"]
    assert found["validation"].x.tolist() == X[4:8].tolist()
    assert found["validation"].y.tolist() == [0, 0, 1, 1]
    assert found["validation"].names == ("2", "3")
    assert parts(path, only="test")["test"].names == ("4", "5")
    splits = sources.load_splits(str(path), None)
    assert splits.classes_are_unseen
    assert len(splits.validation) == 4
    with pytest.raises(ValueError, match=r"its own \(train, validation, test\). Read it with kin"):
        arrays(path)
    del saved[names[0].format("test")]
    np.savez(path, **saved)
    with pytest.warns(UserWarning, match=r"arrays without their labels or examples \(1\)"):
        whole = parts(path, only="test")["all"]
    assert whole.names == ("0", "1", "2", "3")
    assert whole.x.tolist() == [*X[:6].tolist(), *X[4:8].tolist()]
    assert whole.y.tolist() == [*Y[:6], *Y[4:8]]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x_test": X[:, :3]}, "one shape. Received (4,) (train), (3,) (test)."),
        ({"y_test": Y.astype(str)}, "the labels of one part are integers and those of another str"),
        ({"train_x": X}, "two arrays for one part, x_train and train_x"),
        ({"y_train": Y * 0, "y_test": Y * 0}, "holds one class only, '0'"),
    ],
)
def test_bad_arrays_of_parts(tmp_path: Path, changed: dict[str, np.ndarray], message: str) -> None:
    saved = {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y}
    np.savez(tmp_path / "data.npz", **saved | changed)
    with pytest.raises(ValueError, match=re.escape(message)):
        parts(tmp_path / "data.npz")


def test_parts_of_embeddings_in_a_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    kinds = ["train"] * 8 + ["test"] * 4
    pq.write_table(pa.table({"e": list(X), "y": Y, "split": kinds}), path)
    splits = sources.load_splits(str(path), None)
    assert splits.test.x[:].tolist() == X[8:].tolist()
    assert len(splits.train.names) == len(splits.validation.names) == 2
    assert len(parquet(path)) == 12
    pq.write_table(pa.table({"e": list(X), "y": Y, "split": Y}), path)
    with pytest.raises(ValueError, match=r"'split' must hold train, val or test. Received: 0, 1,"):
        parts(path)


# Claims


def npy(shape: tuple[int, ...], held: int, dtype: str = "<f4") -> bytes:
    head = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode()
    head += b" " * (-(11 + len(head)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + b"0" * held


def small_npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    ("member", "claim"),
    [
        ("x", npy((10**9, 10**6), 100)),
        ("x", npy((3, 2), 23)),
        ("x", npy((-3, 2), 100)),
        ("y", npy((10**15,), 100, "<i8")),
        ("y", npy((3,), 100, "<U500000000")),
        ("names", npy((10**15,), 100, "<U8")),
        ("x", b"no array"),
    ],
)
def test_a_claim_that_the_file_does_not_hold_is_one_line(
    tmp_path: Path, member: str, claim: bytes
) -> None:
    members = {"x": small_npy(np.eye(3)), "y": small_npy(np.arange(3)), member: claim}
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    with pytest.raises(ValueError, match=f"a.npz cannot be read, the array '{member}' is damaged"):
        parts(tmp_path / "a.npz")


def test_what_memory_does_not_hold_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installed_memory, "_installed", lambda: 2**20)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x.npy", npy((2**19, 1), 2**21))  # some kilobytes in the file
        file.writestr("y.npy", small_npy(np.arange(3)))
    with pytest.raises(ValueError, match=r"a.npz: the array 'x' needs 0.0 GiB, and this machine"):
        arrays(tmp_path / "a.npz")
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"e": [[0.0] * 2**19, [1.0] * 2**19], "y": [0, 1]}), path)
    assert path.stat().st_size < 2**15
    with pytest.raises(ValueError, match=r"a.parquet: its embeddings need 0.0 GiB, and this"):
        parquet(path)
    pq.write_table(pa.table({"path": ["a"] * 2**14, "label": ["b"] * 2**14}), path)
    with pytest.raises(ValueError, match=r"a.parquet: its 16,384 rows need"):
        parts(path)


def test_a_picture_of_absurd_size_is_left_out(tmp_path: Path) -> None:
    save_classes(tmp_path, (0, 1))
    bomb = (tmp_path / "c0" / "0.png").read_bytes()
    header = b"IHDR" + struct.pack(">II", 10**6, 10**6) + bomb[24:29]
    bomb = bomb[:12] + header + struct.pack(">I", zipfile.crc32(header)) + bomb[33:]
    (tmp_path / "c0" / "bomb.png").write_bytes(bomb)
    with pytest.warns(UserWarning, match=r"unreadable \(1\): c0/bomb.png \(Image size"):
        assert len(image_folder(tmp_path, SIZE)) == 4


def test_lists_of_many_numbers_are_read_a_few_rows_at_once(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((6, 5000), "float32")
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"e": list(x), "y": [0, 1] * 3}), path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kinfold.datasets._parquet._NUMBERS", 10_000)
        np.testing.assert_array_equal(parquet(path).x, x)


# Kinds of data


def test_other_files_get_one_line(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", X)
    with pytest.raises(ValueError, match=r"a.npy holds one array, and no labels. Put both in an"):
        sources.check_source(str(tmp_path / "a.npy"), None)
    (tmp_path / "a.h5").touch()
    with pytest.raises(ValueError, match=re.escape(DATA_FORMS)):
        sources.check_source(str(tmp_path / "a.h5"), None)
    with pytest.raises(FileNotFoundError, match="train/, val/ and test/"):
        sources.check_source(str(tmp_path / "gone"), None)
    np.savez(tmp_path / "A.NPZ.npz", x=X, y=Y)
    (tmp_path / "A.NPZ.npz").rename(tmp_path / "A.NPZ")
    assert len(sources.load_whole(str(tmp_path / "A.NPZ"), (4,))) == 12
    with pytest.raises(ValueError, match="An image size is for image files and glyphs"):
        sources.check_source(str(tmp_path / "A.NPZ"), 32)


# Names

ODD = [b"a\x1b[31mred", b"caf\xc3\xa9", b"cafe\xcc\x81", b"caf\xe9", b"n\nl", b"s ", b"s",
       b"\xe2\x80\xaeevil", b"x" * 200]  # fmt: skip


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    for n, name in enumerate(ODD):
        for file in (b"0.png", b"\xff\x1b.png"):
            save(tmp_path / "odd" / os.fsdecode(name) / os.fsdecode(file), n)
    return tmp_path / "odd"


def test_names_of_any_bytes_stay_apart_and_can_be_written(odd: Path, tmp_path: Path) -> None:
    split = image_folder(odd, SIZE)
    assert len(split.names) == len(set(split.names)) == len(ODD)
    assert {"caf\xe9", "cafe\u0301", "caf\\xe9", "s ", "s"} < set(split.names)
    order = sorted(range(len(ODD)), key=lambda n: os.fsdecode(ODD[n]))
    assert split.x[::2, 0, 0, 0].tolist() == order
    assert split.y.tolist() == np.repeat(np.arange(len(ODD)), 2).tolist()
    for name in (*split.names, *(split.files or ())):
        name.encode("utf-8")
    pq.write_table(pa.table({"e": [[1.0]] * len(split), "y": [split.names[k] for k in split.y]}),
                   tmp_path / "a.parquet")  # fmt: skip
    assert parquet(tmp_path / "a.parquet").names == tuple(sorted(split.names))
    rest, held = split_classes(parts(odd, (8, 8), as_needed=True)["all"], 0.3)
    listing.write(tmp_path / "listing.npz", Splits(rest, held, held), None)
    (train, validation, _), notes = listing.images(listing.read(tmp_path / "listing.npz"))
    assert not notes
    for ours, theirs in ((train, rest), (validation, held)):
        assert (ours.names, ours.files) == (theirs.names, theirs.files)
        np.testing.assert_array_equal(ours.x, theirs.x)


def test_names_are_escaped_in_messages(odd: Path) -> None:
    for folder in sorted(os.listdir(os.fsencode(odd))):
        (odd / os.fsdecode(folder) / "bad.png").touch()
    (odd / os.fsdecode(b"empty\xe9\x07")).mkdir()
    with pytest.warns(UserWarning, match="left out") as caught:
        image_folder(odd, SIZE)
    said = str(caught[0].message)
    assert said.isprintable()
    for part in (r"a\x1b[31mred/bad.png", r"caf\xe9/bad.png", r"\u202eevil/bad.png", r"n\nl/bad",
                 "xxx...xxx", r"(1): empty\xe9\x07"):  # fmt: skip
        assert part in said
    odd.rename(odd.with_name(os.fsdecode(b"d\xff\x1b[0m")))
    with pytest.raises(ValueError, match=r"d\\xff\\x1b\[0m.no is not a folder"):
        image_folder(odd.with_name(os.fsdecode(b"d\xff\x1b[0m")) / "no", SIZE)
    assert shown("") == "''"


def test_two_names_that_become_one_text_are_refused(tmp_path: Path) -> None:
    for name in (b"caf\xe9", rb"caf\xe9"):
        save(tmp_path / os.fsdecode(name) / "0.png")
    with pytest.raises(ValueError, match="the names of two classes differ only in how bytes"):
        image_folder(tmp_path, SIZE)


def test_labels_of_any_bytes_stay_apart(tmp_path: Path) -> None:
    labels = [b"caf\xe9", "café".encode(), b"a", b"a ", b""]
    expected = {"caf\\xe9", "café", "a", "a ", ""}
    np.savez(tmp_path / "a.npz", x=np.eye(5), y=labels)
    assert set(arrays(tmp_path / "a.npz").names) == expected
    for values in (labels, pa.array(labels).dictionary_encode()):
        pq.write_table(pa.table({"e": list(np.eye(5)), "y": values}), tmp_path / "a.parquet")
        assert set(parquet(tmp_path / "a.parquet").names) == expected
    surrogate = np.array([[0xD800], [97]], np.uint32).view("<U1")[:, 0]
    np.savez(tmp_path / "a.npz", x=np.eye(2), y=surrogate)
    assert set(arrays(tmp_path / "a.npz").names) == {"a", "\\ud800"}
    surrogate = np.array([[0x7FFFFFFF], [97]], np.uint32).view("<U1")[:, 0]
    np.savez(tmp_path / "a.npz", x=np.eye(2), y=surrogate)
    with pytest.raises(ValueError, match="y holds strings that are not Unicode"):
        arrays(tmp_path / "a.npz")


def test_labels_that_differ_in_a_nul_stay_apart(tmp_path: Path) -> None:
    labels = ["a", "a\0", "b", "b\0"]
    pq.write_table(pa.table({"e": list(np.eye(4)), "y": labels}), tmp_path / "a.parquet")
    split = parquet(tmp_path / "a.parquet")
    assert split.names == tuple(labels)
    listing.write(tmp_path / "listing.npz", Splits(split, split, split), None)
    assert listing.read(tmp_path / "listing.npz").names("train") == tuple(labels)
    table = pa.table({"e": list(np.eye(4)), "y": [0, 1, 2, 3]})
    known = {"info": {"features": {"y": {"names": labels}}}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(known)})
    pq.write_table(table, tmp_path / "a.parquet")
    assert parquet(tmp_path / "a.parquet").names == tuple(labels)


def test_columns_of_one_number_stay_apart(tmp_path: Path) -> None:
    columns = {"dim_1": X[:, 1], "dim_01": X[:, 0], "dim_2": X[:, 2], "label": Y}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert parquet(tmp_path / "a.parquet").x.tolist() == X[:, :3].tolist()


# What a run keeps


def test_files_are_kept_when_a_split_is_cut_and_written(tmp_path: Path) -> None:
    save_classes(tmp_path / "data", range(6))
    splits = sources.load_splits(str(tmp_path / "data"), 8)
    for split in splits:
        assert split.files is not None
        assert [file[:2] for file in split.files] == [split.names[k] for k in split.y]
    listing.write(tmp_path / "listing.npz", splits, None)
    again, _ = listing.images(listing.read(tmp_path / "listing.npz"))
    assert [split.files for split in again] == [split.files for split in splits]
    assert again.classes_are_unseen


def test_a_path_of_any_bytes_is_kept_in_json(tmp_path: Path) -> None:
    path = os.fsdecode(b"photos\xe9")
    files.write_json(tmp_path / "config.json", {"data": path})
    assert files.read_json(tmp_path / "config.json") == {"data": path}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        json.loads((tmp_path / "config.json").read_bytes())
