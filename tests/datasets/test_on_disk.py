"""Arrays that are mapped into memory: the values that reading the whole gives, and no more read."""

import io
import multiprocessing
import pickle
import re
import struct
import sys
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from kinfold.core import installed_memory
from kinfold.core.readers import InMemory, Joined
from kinfold.core.stored import Stored
from kinfold.datasets import _on_disk, arrays, parts
from kinfold.datasets._on_disk import OnDisk, holds_arrays, open_arrays

pytestmark = pytest.mark.once

RNG = np.random.default_rng(0)
Y = np.arange(40) % 7
FORMS = {
    "float32": RNG.normal(size=(40, 5)).astype("float32"),
    "float64": RNG.normal(size=(40, 5)),
    "big endian": RNG.normal(size=(40, 5)).astype(">f4"),
    "float16": RNG.normal(size=(40, 3, 2)).astype("float16"),
    "bool": RNG.random((40, 5)) < 0.5,
    "uint8 vectors": RNG.integers(0, 256, (40, 5), "uint8"),
    "grey": RNG.integers(0, 256, (40, 4, 6), "uint8"),
    "colour": RNG.integers(0, 256, (40, 4, 6, 3), "uint8"),
    "uint16": RNG.integers(0, 2**16, (40, 4, 6), "uint16"),
    "Fortran": np.asfortranarray(RNG.normal(size=(40, 5)).astype("float32")),
    "Fortran images": np.asfortranarray(RNG.integers(0, 256, (40, 4, 6, 3), "uint8")),
    "one number": RNG.normal(size=(40, 1)),
}
ASKED = (
    slice(None),
    slice(3, 9),
    slice(None, None, -3),
    7,
    -1,
    [5, 5, 0, 39],
    np.array([], int),
    Y == 2,
)


def write_folder(folder: Path, **saved: object) -> Path:
    folder.mkdir(exist_ok=True)
    for name, array in saved.items():
        np.save(folder / f"{name}.npy", np.asarray(array))
    return folder


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["npz", "folder", "file"])
def test_rows_are_those_of_the_whole(tmp_path: Path, form: str, kind: str) -> None:
    np.savez(tmp_path / "a.npz", x=FORMS[form], y=Y)
    folder = write_folder(tmp_path / "a", x=FORMS[form], y=Y)
    path = {"npz": tmp_path / "a.npz", "folder": folder, "file": folder / "x.npy"}[kind]
    whole = arrays(tmp_path / "a.npz")
    found = open_arrays(path)
    x = found.split.x
    assert isinstance(x, Stored)
    assert isinstance(x.reader, OnDisk)
    assert (x.shape, x.dtype) == (whole.x.shape, whole.x.dtype)
    assert (found.parts, found.groups, found.split.files) == (None, None, None)
    assert found.split.names == whole.names
    np.testing.assert_array_equal(found.split.y, whole.y)
    for rows in ASKED:
        assert x[rows].dtype == whole.x.dtype
        np.testing.assert_array_equal(x[rows], whole.x[rows])
    assert type(x[[1, 2]]) is np.ndarray
    assert x.unreadable == {}


@pytest.mark.parametrize("block", [1, 7, 64])
def test_values_do_not_depend_on_how_many_are_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(_on_disk, "_NUMBERS", block)
    np.savez(tmp_path / "a.npz", x=FORMS["float64"], y=Y)
    x = np.asarray(open_arrays(tmp_path / "a.npz").split.x)
    np.testing.assert_array_equal(x, FORMS["float64"].astype("float32"))


@pytest.mark.parametrize("form", ["float64", "fortran"])
def test_a_file_that_changes_while_it_is_read_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    values = np.asfortranarray(FORMS["float64"]) if form == "fortran" else FORMS["float64"]
    np.savez(tmp_path / "a.npz", x=values, y=Y)
    x = open_arrays(tmp_path / "a.npz").split.x
    with (tmp_path / "a.npz").open("r+b") as file:
        file.truncate(400)
    with pytest.raises(ValueError, match=r"a.npz cannot be read any more: it is another file now"):
        x[:]
    monkeypatch.setattr(_on_disk, "_identity", lambda _: x.reader._known)  # it was just cut short
    with pytest.raises(ValueError, match=r"a.npz cannot be read any more: .*(ends|length)"):
        x[:]
    (tmp_path / "a.npz").unlink()
    with pytest.raises(ValueError, match=r"a.npz cannot be read any more: .*No such file"):
        x[3]


def test_parts_of_a_file_and_of_a_folder(tmp_path: Path) -> None:
    x = FORMS["colour"]
    saved = {
        "x_train": x[:20], "y_train": Y[:20], "test_images": x[30:], "test_labels": Y[30:],
        "x_val": x[20:30], "y_val": Y[20:30], "names": list("abcdefg"),
    }  # fmt: skip
    np.savez(tmp_path / "a.npz", **saved)
    eager = parts(tmp_path / "a.npz")
    for path in (tmp_path / "a.npz", write_folder(tmp_path / "a", **saved)):
        found = open_arrays(path)
        assert isinstance(found.split.x.reader, Joined)
        for part, expected in eager.items():
            rows = np.flatnonzero(np.array(found.parts) == part)
            np.testing.assert_array_equal(found.split.x[rows], expected.x)
            names = [found.split.names[label] for label in found.split.y[rows]]
            assert names == [expected.names[label] for label in expected.y]
        mixed = RNG.permutation(len(found.parts))
        np.testing.assert_array_equal(found.split.x[mixed], np.asarray(found.split.x)[mixed])
    one = open_arrays(tmp_path / "a" / "x_val.npy")
    assert one.parts is None
    np.testing.assert_array_equal(one.split.x[:], x[20:30])


def test_compressed_arrays_are_read_whole(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=FORMS["grey"], y=Y)
    found = open_arrays(tmp_path / "a.npz").split
    assert isinstance(found.x, Stored)
    assert isinstance(found.x.reader, InMemory)
    np.testing.assert_array_equal(found.x[:][..., 0], FORMS["grey"])
    halves = {"x_train": FORMS["grey"][:20], "y_train": Y[:20]}
    np.savez_compressed(tmp_path / "b.npz", **halves, x_test=FORMS["grey"][20:], y_test=Y[20:])
    found = open_arrays(tmp_path / "b.npz").split
    np.testing.assert_array_equal(found.x[:], FORMS["grey"][..., np.newaxis])


def test_readers_pickle_and_are_read_in_threads_and_processes(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=FORMS["float64"], y=Y)
    expected = FORMS["float64"].astype("float32")
    x = open_arrays(tmp_path / "a.npz").split.x
    np.testing.assert_array_equal(x[3:5], expected[3:5])
    copied = pickle.dumps(x)
    assert len(copied) < 2000
    np.testing.assert_array_equal(pickle.loads(copied)[:], expected)
    with ThreadPoolExecutor(4) as pool:
        wanted = [RNG.integers(0, 40, 30) for _ in range(40)]
        for rows, found in zip(wanted, pool.map(x.__getitem__, wanted), strict=True):
            np.testing.assert_array_equal(found, expected[rows])
    if sys.platform == "linux":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a fork beside threads
            with multiprocessing.get_context("fork").Pool(1) as forked:
                np.testing.assert_array_equal(
                    forked.apply(x.__getitem__, ([8, 1],)), expected[[8, 1]]
                )


def test_ten_rows_of_a_large_file_are_ten_rows(tmp_path: Path) -> None:
    # 64 GiB of holes, which no machine here could read whole.
    count, size = 2**24, 1024
    folder = write_folder(tmp_path, y=np.arange(count) % 2)
    with (folder / "x.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (count, size)}
        )
        start = file.tell()
        file.seek(4 * size * 9_999_999, 1)
        file.write(np.arange(size, dtype="<f4").tobytes())
        file.truncate(start + 4 * size * count)
    x = open_arrays(folder).split.x
    assert x.shape == (count, size)
    found = x[9_999_990:10_000_000]
    assert found.nbytes == 10 * 4 * size
    assert found[9].tolist() == list(range(size))
    assert not found[:9].any()
    with pytest.raises(ValueError, match=r"These 16,777,216 stored examples need 64.0 GiB, and"):
        np.asarray(x)


def test_values_that_are_not_finite_are_refused_as_they_are_read(tmp_path: Path) -> None:
    bad = FORMS["float64"].copy()
    bad[17, 2] = 1e300
    bad[30, 0] = np.nan
    np.savez(tmp_path / "a.npz", x=bad, y=Y)
    x = open_arrays(tmp_path / "a.npz").split.x
    assert np.isfinite(x[:17]).all()
    message = r"a.npz: x holds values that are NaN or infinite in float32, the first in row {}, fro"
    with pytest.raises(ValueError, match=message.format(17)):
        x[[3, 17, 4]]
    with pytest.raises(ValueError, match=message.format(30)):
        x[20:]


EYE = np.eye(2)
BAD = [
    {"a": EYE, "y": [0, 1]},
    {},
    {"emb": EYE, "vector": EYE, "y": [0, 1]},
    {"x": EYE, "y": [0.0, 1.0]},
    {"x": EYE, "y": [0, 1, 1]},
    {"x": EYE, "y": [[0, 1], [0, 1]]},
    {"x": EYE, "y": np.array([0, "a"], object)},
    {"x": np.array([[None], [1]]), "y": [0, 1]},
    {"x": [["a"], ["b"]], "y": [0, 1]},
    {"x": [1.0, 2.0], "y": [0, 1]},
    {"x": np.zeros((0, 2)), "y": np.zeros(0, int)},
    {"x": EYE, "y": [3, 3]},
    {"x": EYE, "y": [0, 2], "names": ["a", "b"]},
    {"x": EYE, "y": [0, 1], "names": [1, 2]},
    {"x_train": EYE, "y_train": [0, 1], "x_test": np.eye(3), "y_test": [0, 1, 2]},
    {"x_train": EYE, "train_x": EYE, "y_train": [0, 1]},
]


@pytest.mark.parametrize("saved", BAD, ids=lambda saved: ",".join(saved) or "none")
def test_bad_arrays_get_the_sentence_that_reading_the_whole_gives(
    tmp_path: Path, saved: dict[str, object]
) -> None:
    np.savez(tmp_path / "a.npz", **saved)
    with pytest.raises(ValueError, match=r"a\.npz") as eager:
        parts(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=re.escape(str(eager.value))):
        open_arrays(tmp_path / "a.npz")
    folder = write_folder(tmp_path / "a", **saved)
    own = str(eager.value).replace(str(tmp_path / "a.npz"), str(folder))
    # A folder lists its files in order of name.
    with pytest.raises(ValueError, match=re.escape(re.split("Found:|two arrays|shape.", own)[0])):
        open_arrays(folder)


def npy(shape: tuple[int, ...], held: int, dtype: str = "<f4") -> bytes:
    head = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode()
    head += b" " * (-(11 + len(head)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + b"0" * held


@pytest.mark.parametrize(
    "claim",
    [npy((10**9, 10**6), 100), npy((3, 2), 23), npy((-3, 2), 100), npy((-3, -2), 100), b"no array",
     b"\x93NUMPY\x09\x00" + npy((3, 2), 24)[8:], b"\x93NUMPY\x01\x00\xff\xff{", b""],
)  # fmt: skip
@pytest.mark.parametrize("member", ["x", "y"])
def test_a_claim_that_the_file_does_not_hold_is_one_line(
    tmp_path: Path, claim: bytes, member: str
) -> None:
    folder = write_folder(tmp_path / "a", x=np.eye(3), y=np.arange(3))
    (folder / f"{member}.npy").write_bytes(claim)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        for name in ("x.npy", "y.npy"):
            file.writestr(name, (folder / name).read_bytes())
    for path in (folder, tmp_path / "a.npz"):
        told = f"{path} cannot be read, the array '{member}' is damaged: "
        with pytest.raises(ValueError, match=re.escape(told)) as caught:
            open_arrays(path)
        assert "\n" not in str(caught.value)


def test_files_that_are_cut_short_or_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=FORMS["float64"], y=Y)
    whole = path.read_bytes()
    x = open_arrays(path).split.x
    path.write_bytes(whole[:500])
    for call in (lambda: x[:3], lambda: open_arrays(path)):
        with pytest.raises(ValueError, match=r"a.npz (cannot be read any more|is not an .npz)"):
            call()
    path.write_bytes(whole[:10] + b"XX" + whole[:100])
    with pytest.raises(ValueError, match=r"is not an .npz file, or is cut short"):
        open_arrays(path)
    for damaged, told in (
        (b"#" * 77 + whole, "is not an .npz file, or is cut short"),
        (
            b"PK\x03\x05" + whole[4:],
            "is not an .npz file, or is cut short",
        ),  # the local header of x
        (whole[:30] + b"z" + whole[31:], "cannot be read, the array 'x' is damaged"),  # its name
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=told):
            open_arrays(path)
    # What lies before all moves all of it.
    path.write_bytes(whole[:80] + whole)
    expected = FORMS["float64"].astype("float32")
    np.testing.assert_array_equal(open_arrays(path).split.x[:], expected)
    # Labels are read, and need memory.
    monkeypatch.setattr(installed_memory, "_installed", lambda: 100)
    folder = write_folder(tmp_path / "a", x=np.eye(40), y=Y)
    with pytest.raises(ValueError, match=r"a: the array 'y' needs 0.0 GiB, and this machine"):
        open_arrays(folder)


def test_one_array_alone(tmp_path: Path) -> None:
    told = r"holds one array, and no labels. Put both in an"
    folder = write_folder(tmp_path, data=EYE)
    with pytest.raises(ValueError, match=told):
        open_arrays(folder / "data.npy")
    write_folder(folder, y=[1, 0])
    assert open_arrays(folder / "data.npy").split.names == ("0", "1")
    write_folder(folder, names=["cat", "dog"])
    found = open_arrays(folder / "data.npy")
    assert found.split.names == ("cat", "dog")
    assert {path.name for path in found.kept_in} == {"data.npy", "y.npy", "names.npy"}
    write_folder(folder, other=EYE)  # which of the two are the labels of?
    for name in ("data", "y", "names"):
        with pytest.raises(ValueError, match=told + r".* found there: data, names, other, y\."):
            open_arrays(folder / f"{name}.npy")
    write_folder(folder, x=EYE)
    assert open_arrays(folder / "x.npy").split.y.tolist() == [1, 0]
    write_folder(folder, labels=[0, 1])
    with pytest.raises(ValueError, match=told):
        open_arrays(folder / "x.npy")
    with pytest.raises(ValueError, match=r"no.npy is not a file"):
        open_arrays(folder / "no.npy")


def test_folders_of_arrays_are_known(tmp_path: Path) -> None:
    assert not holds_arrays(tmp_path)
    (tmp_path / ".x.npy").touch()
    (tmp_path / "y.npy").mkdir()
    assert not holds_arrays(tmp_path)
    np.save(tmp_path / "x.npy", EYE)
    assert holds_arrays(tmp_path)
    assert not holds_arrays(tmp_path / "x.npy")


def test_parts_of_two_types_are_refused(tmp_path: Path) -> None:
    saved = {"x_train": FORMS["grey"], "y_train": Y, "y_test": Y}
    np.savez(tmp_path / "a.npz", **saved, x_test=FORMS["uint16"])
    with pytest.raises(ValueError, match=r"must have one type, .* uint8 \(train\), float32 \(test"):
        open_arrays(tmp_path / "a.npz")
    buffer = io.BytesIO()
    np.savez(buffer, **saved, x_test=FORMS["grey"])
    (tmp_path / "a.npz").write_bytes(buffer.getvalue())
    assert len(open_arrays(tmp_path / "a.npz").split) == 80
