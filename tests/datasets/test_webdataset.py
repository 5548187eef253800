"""Images in tars, as WebDataset writes them."""

import io
import json
import multiprocessing
import pickle
import sys
import tarfile
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kinfold.datasets import _webdataset
from kinfold.datasets._source import Source
from kinfold.datasets._tar import members
from kinfold.datasets._webdataset import open_tars

pytestmark = pytest.mark.once

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 6, 5, 3), "uint8")
SIZE = (6, 5)


def encoded(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


PNGS = [encoded(pixels) for pixels in PIXELS]


def write(path: Path, members: Mapping[str, bytes], **options: object) -> Path:
    with tarfile.open(path, "w", **options) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def samples(rows: range, label: str = "cls", folder: str = "") -> dict[str, bytes]:
    members = {}
    for k in rows:
        value = f"{k % 3}".encode()
        content = {"cls": value, "txt": b" " + value + b"\n", "json": b'{"label": %s}' % value}
        members[f"{folder}{k:04}.png"] = PNGS[k]
        members[f"{folder}{k:04}.{label}"] = content[label]
    return members


def opened(path: Path, **options: object) -> Source:
    return open_tars(path, SIZE, 3, **options)


@pytest.mark.parametrize("label", ["cls", "txt", "json"])
@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_images_are_what_was_encoded(tmp_path: Path, label: str, format: int) -> None:
    folder = "" if format == tarfile.USTAR_FORMAT else "f" * 150 + "/"  # a header of its own
    path = write(tmp_path / "a.tar", samples(range(12), label, folder), format=format)
    found = opened(path)
    x = found.split.x
    assert (x.shape, x.dtype) == ((12, *SIZE, 3), np.uint8)
    for rows in (slice(None), slice(5, 9), 7, -1, [11, 3, 3, 0], np.arange(12) % 3 == 2):
        np.testing.assert_array_equal(x[rows], PIXELS[rows])
    assert found.split.y.tolist() == (np.arange(12) % 3).tolist()
    assert found.split.y.dtype == np.int32
    assert found.split.names == ("0", "1", "2")
    assert found.split.files[4] == f"a.tar/{folder}0004.png"
    assert (found.parts, found.groups, found.kept_in) == (None, None, [path])
    assert open_tars(path, (3, 4), 1).split.x[2].shape == (3, 4, 1)


def test_shards_of_parts(tmp_path: Path) -> None:
    for k, name in enumerate(("val-0000", "train-0001", "train-0000")):
        write(tmp_path / f"{name}.tar", samples(range(4 * k, 4 * k + 4)))
    found = opened(tmp_path)
    assert found.parts == ["train"] * 8 + ["validation"] * 4
    order = [8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3]
    np.testing.assert_array_equal(found.split.x[:], PIXELS[order])
    assert found.split.y.tolist() == [k % 3 for k in order]
    assert found.split.files[8] == "val-0000.tar/0000.png"
    assert opened(tmp_path / "val-0000.tar").parts is None
    write(tmp_path / "shard.tar", samples(range(2)))
    assert opened(tmp_path).parts is None


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["10", "9", "-1"], ("-1", "9", "10")),
        (["01", "1", "9"], ("01", "1", "9")),
        (["dog", "cat", "1"], ("1", "cat", "dog")),
        (["a b\n", "é", " c"], ("a b", "c", "é")),
    ],
)
def test_names_of_classes(tmp_path: Path, words: list[str], names: tuple[str, ...]) -> None:
    members = {f"{k}.png": PNGS[k] for k in range(3)}
    members |= {f"{k}.cls": word.encode() for k, word in enumerate(words)}
    split = opened(write(tmp_path / "a.tar", members)).split
    assert split.names == names
    assert [split.names[label] for label in split.y] == [word.strip() for word in words]


def test_which_file_holds_the_label(tmp_path: Path) -> None:
    members = {
        "0.txt": b"a caption", "0.json": b'{"class": "x", "label": "a"}', "0.JPG": PNGS[0],
        "1.txt": b"a caption", "1.json": b'{"category": 7}', "1.cls": b"b", "1.png": PNGS[1],
        "2.txt": b"c", "2.json": b'{"label": [1], "y": true}', "2.png": PNGS[2], "2.jpg": PNGS[3],
        "3.txt": b"c", "3.json": b"{", "3.png": PNGS[3], "3.seg.png": PNGS[4],
    }  # fmt: skip
    found = opened(write(tmp_path / "a.tar", members))
    assert [found.split.names[label] for label in found.split.y] == ["a", "b", "c", "c"]
    np.testing.assert_array_equal(found.split.x[:], PIXELS[:4])


def test_groups(tmp_path: Path) -> None:
    members = samples(range(4), "cls")
    for k, who in enumerate(("ann", 7, "bob", "ann")):
        members[f"{k:04}.json"] = json.dumps({"patient": who}).encode()
    assert opened(write(tmp_path / "a.tar", members), group="patient").groups == [
        "ann", "7", "bob", "ann"
    ]  # fmt: skip
    members["0002.json"] = b"[]"
    with pytest.raises(ValueError, match=r"a.tar: the sample 0002 has no .json with .* 'patient'"):
        opened(write(tmp_path / "a.tar", members), group="patient")


def test_samples_without_image_or_label_are_named_once(tmp_path: Path) -> None:
    members = samples(range(6))
    del members["0001.png"], members["0002.cls"]
    members |= {"README": b"x", ".hidden.png": PNGS[0], "d/.e.cls": b"1", "0003.cls": b" \n"}
    members["0004.cls"] = b"9" * (_webdataset._LONGEST + 1)
    told = (
        r"a: left out: samples without an image \(1\): a.tar/0001; "
        r"samples without a label \(3\): a.tar/0002, a.tar/0003, a.tar/0004\.$"
    )
    (tmp_path / "a").mkdir()
    write(tmp_path / "a" / "a.tar", members)
    write(tmp_path / "a" / "b.tar", samples(range(6, 12)))
    with pytest.warns(UserWarning, match=told) as caught:
        found = opened(tmp_path / "a")
    assert len(caught) == 1
    np.testing.assert_array_equal(found.split.x[:], PIXELS[[0, 5, 6, 7, 8, 9, 10, 11]])


def test_what_is_no_plain_file_is_left_out(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind in (("9.png", tarfile.SYMTYPE), ("9", tarfile.DIRTYPE), ("8.png", b"3")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        for name, content in samples(range(3)).items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    np.testing.assert_array_equal(opened(tmp_path / "a.tar").split.x[:], PIXELS[:3])


def test_another_image_of_the_class_stands_in(tmp_path: Path) -> None:
    members = samples(range(12))
    members["0003.png"], members["0011.png"] = PNGS[3][:70], b"no image"
    x = opened(write(tmp_path / "a.tar", members)).split.x
    expected = PIXELS.copy()
    expected[3], expected[11] = PIXELS[6], PIXELS[2]
    np.testing.assert_array_equal(x[:], expected)
    assert set(x.unreadable) == {3, 11}
    for k in (1, 4, 7, 10):
        members[f"{k:04}.png"] = b""
    x = opened(write(tmp_path / "a.tar", members)).split.x
    np.testing.assert_array_equal(x[[0, 2, 11]], expected[[0, 2, 11]])
    with pytest.raises(ValueError, match=r"a.tar: no image of the class '1' can be read; row 4, "):
        x[4]


def test_only_the_bytes_of_the_images_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = {"big.png": bytes(2**26), "big.cls": b"1", **samples(range(12))}
    path = write(tmp_path / "a.tar", members)
    read: list[int] = []

    class Counted(io.FileIO):
        def readinto(self, buffer: bytearray) -> int:
            read.append(super().readinto(buffer))
            return read[-1]

        def read(self, size: int = -1) -> bytes:
            found = super().read(size)
            read.append(len(found))
            return found

        def readall(self) -> bytes:
            raise AssertionError("all of it is read")

    def counted(path: Path, mode: str) -> object:
        assert mode == "rb"
        return io.BufferedReader(Counted(path))

    monkeypatch.setattr(Path, "open", counted)
    x = opened(path).split.x
    assert 12 * 512 < sum(read) < 2**19  # headers, with what lies beside them
    read.clear()
    np.testing.assert_array_equal(x[[3, 8]], PIXELS[[2, 7]])
    assert len(PNGS[2]) + len(PNGS[7]) <= sum(read) < 2**15


def test_readers_pickle_and_are_read_in_threads_and_processes(tmp_path: Path) -> None:
    x = opened(write(tmp_path / "a.tar", samples(range(12)))).split.x
    np.testing.assert_array_equal(x[[3, 5]], PIXELS[[3, 5]])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(x))[:], PIXELS)
    with ThreadPoolExecutor(4) as pool:
        wanted = [RNG.integers(0, 12, 10) for _ in range(20)]
        for rows, found in zip(wanted, pool.map(x.__getitem__, wanted), strict=True):
            np.testing.assert_array_equal(found, PIXELS[rows])
    if sys.platform == "linux":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a fork beside threads
            with multiprocessing.get_context("fork").Pool(2) as forked:
                wait = [forked.apply_async(x.__getitem__, ([8, k],)) for k in range(8)]
                for k, found in enumerate(wait):
                    np.testing.assert_array_equal(found.get(60), PIXELS[[8, k]])


def test_tars_that_are_cut_short_or_damaged(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", samples(range(12)))
    whole = path.read_bytes()
    x = opened(path).split.x
    told = r"a.tar is not a tar file, is cut short or is damaged: [^\n]*\.$"
    with tarfile.open(path) as tar:
        starts = {member.offset for member in tar.getmembers()}
        end = tar.offset
    for length in range(0, end, 256):
        path.write_bytes(whole[:length])
        if length not in starts:  # else it is a whole tar of fewer files
            with pytest.raises(ValueError, match=told):
                opened(path)
    path.write_bytes(whole[:1000])
    with pytest.raises(ValueError, match=r"no image of the class '1' can be read; .* is cut short"):
        x[4]
    second = whole[:1024] + b"#" + whole[1025:]  # a header
    for content in (b"", b"text", second, b"\xff" * 5000, whole[1:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=told):
            opened(path)
    path.unlink()
    with pytest.raises(ValueError, match=r"a\.tar is not a file"):
        opened(path)


@pytest.mark.parametrize("size", [2**62, 2**40, -1024, -512])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_claims_an_absurd_size(tmp_path: Path, size: int, kind: bytes) -> None:
    info = tarfile.TarInfo("z.png")
    info.type = kind
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = (size % 2**96).to_bytes(12, "big") if size < 0 else (
        b"\x80" + size.to_bytes(11, "big")
    )  # fmt: skip
    checksum = sum(header[:148]) + 8 * 32 + sum(header[156:512])
    header[148:156] = b"%06o\0 " % checksum
    whole = write(tmp_path / "a.tar", samples(range(3))).read_bytes()
    for content in (bytes(header) + whole, whole[: whole.index(b"0002.cls")] + bytes(header)):
        (tmp_path / "a.tar").write_bytes(content)
        with pytest.raises(
            ValueError, match=r"a\.tar is not a tar file, is cut short or is damaged"
        ):
            opened(tmp_path / "a.tar")


def test_files_are_where_tarfile_finds_them(tmp_path: Path) -> None:
    kinds = [b"0", b"0", b"\0", b"7", b"1", b"2", b"3", b"5", b"6"]
    for format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / "a.tar", "w", format=format, encoding="utf-8") as tar:
            for k in range(200):
                info = tarfile.TarInfo("/".join("é" * RNG.integers(1, 30) for _ in range(3)))
                info.type = kinds[RNG.integers(len(kinds))]
                info.name += f".{k}"
                info.linkname = "l" * int(RNG.integers(0, 90))
                info.mtime = k + 0.5
                info.pax_headers = {"comment": "c" * k} if k % 3 == 0 else {}
                info.size = int(RNG.integers(0, 2000)) if info.type in b"0\0007" else 0
                tar.addfile(info, io.BytesIO(bytes(info.size)))
        with tarfile.open(tmp_path / "a.tar") as tar:
            expected = [(m.name, m.offset_data, m.size) for m in tar if m.isreg()]
        assert list(map(tuple, members(tmp_path / "a.tar"))) == expected


def test_files_with_holes_are_left_out(tmp_path: Path) -> None:
    def header(size: int, kind: bytes, **fields: bytes) -> bytes:
        info = tarfile.TarInfo("9.png")
        info.type, info.size = kind, size
        block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        for at, value in fields.items():
            block[int(at[1:]) : int(at[1:]) + len(value)] = value
        block[148:156] = b"%06o\0 " % (sum(block[:148]) + 8 * 32 + sum(block[156:]))
        return bytes(block)

    record = b"22 GNU.sparse.major=1\n"
    holes = {
        "by a map": header(512, b"S", b482=b"\1") + bytes(504) + b"\1" * 8 + bytes(1024),
        "by records": header(len(record), b"x") + record.ljust(512, b"\0")
        + header(512, b"0") + bytes(512),
    }  # fmt: skip
    whole = write(tmp_path / "a.tar", samples(range(12))).read_bytes()
    for content in holes.values():
        (tmp_path / "a.tar").write_bytes(content + whole)
        with tarfile.open(tmp_path / "a.tar") as tar:
            assert len(tar.getmembers()) == 25
        np.testing.assert_array_equal(opened(tmp_path / "a.tar").split.x[:], PIXELS)


@pytest.mark.parametrize(
    "records", [b"8 path=a\n", b"99 path=a\n", b"path", b"0 a=b\n", b"12 size=-99\n", b"9" * 9]
)
def test_records_that_are_damaged(tmp_path: Path, records: bytes) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(records)
    whole = write(tmp_path / "a.tar", samples(range(3))).read_bytes()
    content = info.tobuf(tarfile.GNU_FORMAT) + records.ljust(512, b"\0") + whole
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.tar is not .* the header at byte 0 "):
        opened(tmp_path / "a.tar")


def test_compressed_tars_are_refused(tmp_path: Path) -> None:
    for name, options in (("a.tar.gz", "w:gz"), ("b.tar", "w:gz"), ("c.tgz", "w:gz")):
        with tarfile.open(tmp_path / name, options):
            pass
        for path in (tmp_path / name, tmp_path):
            with pytest.raises(
                ValueError, match=rf"{name} is compressed, and images .* plain .tar"
            ):
                opened(path)
        (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=r"holds no \.tar file"):
        opened(tmp_path)


def test_tars_without_samples_or_classes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no sample with an image and a label\. A"):
        opened(write(tmp_path / "a.tar", {}))
    with pytest.raises(ValueError, match=r"a.tar holds one class only, '0'"):
        opened(write(tmp_path / "a.tar", samples(range(1))))
    with pytest.raises(ValueError, match=r"channels must be 1 \(grey\) or 3"):
        open_tars(tmp_path / "a.tar", SIZE, 4)
