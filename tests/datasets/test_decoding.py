"""Images decoded in parallel, and others in the place of those that cannot be read."""

import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kinfold.datasets import _decoders, _decoding

pytestmark = pytest.mark.once


def test_paths_and_open_files_are_decoded_alike(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)
    for k, picture in enumerate(pixels):
        Image.fromarray(picture).save(tmp_path / f"{k}.png")
    paths = [tmp_path / f"{k}.png" for k in range(5)]
    contents = [path.read_bytes() for path in paths]
    from_paths = _decoding.decode_all([lambda p=p: p for p in paths], (8, 8), 3)
    from_bytes = _decoding.decode_all([lambda c=c: io.BytesIO(c) for c in contents], (8, 8), 3)
    np.testing.assert_array_equal(from_paths, pixels)
    np.testing.assert_array_equal(from_bytes, pixels)


def many(folder: Path) -> tuple[list[_decoding.Opener], list[np.ndarray | str]]:
    """More images than this process decodes by itself; each is a file of its own or in another."""
    rng = np.random.default_rng(0)
    openers: list[_decoding.Opener] = []
    turned = Image.Exif()
    turned[0x0112] = 6
    for k in range(_decoding._MANY + 9):
        path = folder / f"{k}\udcff.jpg"
        pixels = rng.integers(0, 256, (300, 40 + k, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(path, exif=turned)
        content = path.read_bytes()
        openers.append(lambda p=path, c=content, k=k: io.BytesIO(c) if k % 2 else p)
    openers[4] = lambda: folder / "no"
    openers[5] = lambda: io.BytesIO(b"text")
    openers[6] = lambda: (folder / "gone").open("rb")
    return openers, [_decoding._decoded(opener, (9, 7), 3) for opener in openers]


def test_other_processes_decode_what_this_one_does(tmp_path: Path) -> None:
    openers, expected = many(tmp_path)
    made = _decoders.Decoders(2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_decoding, "_decoders", lambda: made)
        for _ in range(2):
            found = _decoding.decode_all(openers, (9, 7), 3)
            for one, other in zip(found, expected, strict=True):
                if isinstance(other, str):
                    assert re.sub("0x[0-9a-f]+", "", one) == re.sub("0x[0-9a-f]+", "", other)
                else:
                    np.testing.assert_array_equal(one, other)
    assert sum(isinstance(one, str) for one in expected) == 3


def test_a_process_that_ends_is_told_and_another_takes_its_place(tmp_path: Path) -> None:
    openers, expected = many(tmp_path)
    made = _decoders.Decoders(1)
    path = openers[0]()
    assert isinstance(path, Path)
    made._started[0].kill()
    with pytest.raises(RuntimeError, match=r"decodes images ended with -9.*one of these.*0.*jpg"):
        made([path], (9, 7), 3)
    np.testing.assert_array_equal(made([path], (9, 7), 3)[0], expected[0])


def test_processes_end_with_the_one_that_asks(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from kinfold.datasets._decoders import Decoders\n"
        "made = Decoders(2)\n"
        "print(*(p.pid for p in made._started), flush=True)\n"
        "made([sys.argv[1]], (4, 4), 3)\n"
        "if sys.argv[2] == 'killed': os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    for how in ("killed", "done"):
        command = [sys.executable, "-c", script, str(tmp_path / "a.png"), how]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == (-9 if how == "killed" else 0), done.stderr
        left, end = done.stdout.split(), time.monotonic() + 20
        while left and time.monotonic() < end:
            left = [pid for pid in left if Path(f"/proc/{pid}").exists()]
            time.sleep(0.05)
        assert len(done.stdout.split()) == 2
        assert not left, how


def test_why_an_image_cannot_be_read(tmp_path: Path) -> None:
    def gone() -> Path:
        raise OSError("the disk is gone\nand more")

    openers = [lambda: tmp_path / "no", lambda: tmp_path, lambda: io.BytesIO(b"text"), gone]
    missing, folder, text, error = _decoding.decode_all(openers, (4, 4), 1)
    assert (missing, folder, error) == ("no such file", "a folder or device", "the disk is gone")
    assert "cannot identify image file" in text


def test_a_process_has_its_own_threads() -> None:
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    with pytest.MonkeyPatch.context() as patch:
        here = _decoding._pool()
        assert _decoding._pool() is here
        patch.setattr(os, "getpid", lambda: -1)
        assert _decoding._pool() is not here
    del _decoding._pools[-1]


@pytest.mark.parametrize("block", [1, 3, 256])
def test_the_next_readable_example_of_the_class_stands_in(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(_decoding, "_BLOCK", block)
    rng = np.random.default_rng(0)
    for _ in range(50):
        y = rng.integers(0, 3, 30)
        broken = set(np.flatnonzero(rng.random(30) < 0.5).tolist())
        for label in range(3):
            broken -= set(np.flatnonzero(y == label)[:1].tolist())
        rows = rng.integers(0, 30, 40)
        tried: list[int] = []
        unreadable: dict[int, str] = {}

        def read(some, tried=tried, broken=broken):
            assert len(some) <= block
            tried.extend(some.tolist())
            return ["broken" if row in broken else np.full(2, row) for row in some.tolist()]

        def expected(row, y=y, broken=broken):
            ring = [r % 30 for r in range(row, row + 30) if y[r % 30] == y[row]]
            return next(r for r in ring if r not in broken)

        out = np.empty((40, 2), int)
        _decoding.fill(read, rows, y, unreadable, out, "abc", "data")
        assert out[:, 0].tolist() == [expected(row) for row in rows.tolist()]
        assert set(unreadable) <= broken
        assert set(unreadable) >= broken & set(rows.tolist())
        tried.clear()
        _decoding.fill(read, rows, y, unreadable, out, "abc", "data")
        assert not set(tried) & broken  # what is known is not tried again


def test_a_class_without_a_readable_image_is_named() -> None:
    y = np.array([0, 1, 1, 0])
    for rows in ([2], [0, 1, 2]):
        unreadable: dict[int, str] = {}
        with pytest.raises(ValueError, match=r"data: no image of the class 'b' can be read; row"):
            _decoding.fill(
                lambda some, y=y: ["cut short" if y[row] else np.zeros(1) for row in some],
                np.array(rows), y, unreadable, np.empty((len(rows), 1)), "ab", "data",
            )  # fmt: skip
        assert unreadable == {1: "cut short", 2: "cut short"}
