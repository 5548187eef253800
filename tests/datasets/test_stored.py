"""Examples that are read as they are asked for."""

import pickle
import threading
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from kinfold.batches import ClassBalancedBatches
from kinfold.callbacks import RetrievalEvaluation
from kinfold.core import stored
from kinfold.core.readers import Cached, Changed, InMemory, change
from kinfold.core.stored import Stored, blocks, some
from kinfold.datasets import _decoding, image_folder, parts
from runs import damage

pytestmark = pytest.mark.once


def write_images(folder: Path, classes: int = 4, each: int = 3, suffix: str = "png") -> Path:
    rng = np.random.default_rng(0)
    for k in range(classes):
        (folder / f"class {k}").mkdir(parents=True)
        for i in range(each):
            pixels = rng.integers(0, 256, (10 + k, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"class {k}" / f"{i}.{suffix}")
    return folder


def test_images_are_those_that_are_read_at_once(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "photos")
    whole = image_folder(folder, (8, 9))
    x, y = split = parts(folder, (8, 9), as_needed=True)["all"]
    assert isinstance(x, Stored)
    assert (x.shape, x.dtype, x.ndim, len(x)) == ((12, 8, 9, 3), np.uint8, 4, 12)
    assert (split.names, split.files, y.tolist()) == (whole.names, whole.files, whole.y.tolist())
    rows = np.array([[5, 0], [11, 5]])[:, 0]
    mask = np.arange(12) % 5 == 0
    for index in (3, -1, np.int64(4), slice(2, 9, 3), slice(0, 0), rows, rows.tolist(), mask):
        np.testing.assert_array_equal(x[index], whole.x[index])
    np.testing.assert_array_equal(np.asarray(x), whole.x)
    np.testing.assert_array_equal(x.take(rows)[::-1], whole.x[rows][::-1])
    np.testing.assert_array_equal(np.concatenate(list(blocks(x, 5))), whole.x)
    np.testing.assert_array_equal(some(x, 3), whole.x[[0, 6, 11]])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(x))[[1, 2]], whole.x[[1, 2]])
    with pytest.raises(TypeError, match=r"indexed along the first axis alone"):
        x[:, 0]
    with pytest.raises(IndexError):
        x[12]


def test_opening_decodes_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_images(tmp_path / "photos")
    decoded: list[Any] = []
    decode = _decoding.decode
    monkeypatch.setattr(_decoding, "decode", lambda *a: decoded.append(a[0]) or decode(*a))
    x, _ = parts(folder, (8, 8), as_needed=True)["all"]
    assert not decoded
    x[[3, 7, 3]]
    assert sorted(path.name for path in decoded) == ["0.png", "1.png"]


def test_several_threads_read_the_same(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "photos", 6, 5)
    x, _ = parts(folder, (8, 8), as_needed=True)["all"]
    whole = np.asarray(x)
    found: dict[int, np.ndarray] = {}

    def read(k: int) -> None:
        found[k] = x[np.random.default_rng(k).permutation(30)]

    threads = [threading.Thread(target=read, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, images in found.items():
        np.testing.assert_array_equal(images, whole[np.random.default_rng(k).permutation(30)])


def test_the_next_of_its_class_stands_in_for_an_unreadable_image(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "photos")
    damage(folder / "class 1" / "2.png")
    (folder / "class 2" / "0.png").write_bytes(b"no image")
    whole = np.asarray(parts(write_images(tmp_path / "good"), (8, 8), as_needed=True)["all"].x)
    with pytest.warns(UserWarning, match=r"unreadable \(1\): class 2/0.png"):
        split = parts(folder, (8, 8), as_needed=True)["all"]
    x = split.x
    assert isinstance(x, Stored)
    assert len(x) == 11
    assert not x.unreadable
    np.testing.assert_array_equal(x[[5, 4, 5]], whole[[3, 4, 3]])
    assert list(x.unreadable) == [5]
    np.testing.assert_array_equal(x[5], whole[3])
    assert list(x.take(np.arange(3, 7)).unreadable) == [2]

    for k in (0, 1):
        damage(folder / "class 1" / f"{k}.png")
    with (
        pytest.warns(UserWarning, match="unreadable"),
        pytest.raises(ValueError, match=r"no image of the class 'class 1' can be read"),
    ):
        parts(folder, (8, 8), as_needed=True)["all"].x[4]


def test_nothing_stands_in_for_an_image_of_another_part(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write_images(tmp_path / part)
    damage(tmp_path / "train" / "class 1" / "2.png")
    found = parts(tmp_path, (8, 8), as_needed=True)
    np.testing.assert_array_equal(found["train"].x[5], found["train"].x[3])
    for k in (0, 1):
        damage(tmp_path / "train" / "class 1" / f"{k}.png")
    found = parts(tmp_path, (8, 8), as_needed=True)
    with pytest.raises(ValueError, match=r"no image of the class 'class 1' can be read"):
        found["train"].x[5]


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp", "webp", "tif"])
def test_a_file_that_is_cut_short_is_found_when_it_is_opened(tmp_path: Path, suffix: str) -> None:
    folder = write_images(tmp_path / "photos", suffix=suffix)
    path = folder / "class 3" / f"1.{suffix}"
    whole = path.read_bytes()
    path.write_bytes(whole[: 2 * len(whole) // 3])
    with pytest.warns(UserWarning, match=r"unreadable \(1\): class 3/1"):
        split = parts(folder, (8, 8), as_needed=True)["all"]
    assert len(split) == 11


def test_bytes_after_the_end_of_a_jpeg_do_no_harm(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "photos", suffix="jpg")
    path = folder / "class 3" / "1.jpg"
    path.write_bytes(path.read_bytes() + b"what a phone appends" * 50)
    assert len(parts(folder, (8, 8), as_needed=True)["all"]) == 12


class Counting(InMemory):
    """Counts what is read."""

    def __init__(self, x: np.ndarray) -> None:
        super().__init__(x)
        self.rows: list[int] = []

    def read(self, rows: np.ndarray) -> np.ndarray:
        self.rows += rows.tolist()
        return super().read(rows)


def test_a_cache_keeps_what_fits_its_bound_and_no_more() -> None:
    x = np.arange(40.0, dtype="float32").reshape(10, 4)
    reader = Counting(x)
    cached = Stored(Cached(reader, bound=6 * 16 + 3))
    for rows in ([0, 1, 2, 1], [2, 5, 9], [7, 8, 0], [7, 8, 5], [3]):
        np.testing.assert_array_equal(cached[rows], x[rows])
    assert reader.rows == [0, 1, 2, 1, 5, 9, 7, 8, 8, 3]
    nothing = Counting(x)
    without = Stored(Cached(nothing, bound=15))
    for _ in range(2):
        np.testing.assert_array_equal(without[[4, 4]], x[[4, 4]])
    assert nothing.rows == [4] * 4
    copy = pickle.loads(pickle.dumps(cached))
    np.testing.assert_array_equal(copy[[1, 6]], x[[1, 6]])


def test_a_change_is_made_as_examples_are_read() -> None:
    x = np.arange(12, dtype=np.uint8).reshape(4, 3)
    scaled = change(Stored(InMemory(x)), lambda block: block / np.float32(2))
    assert isinstance(scaled, Stored)
    assert isinstance(scaled.reader, Changed)
    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(scaled[[2, 0]], x[[2, 0]] / np.float32(2))


def test_stored_examples_that_memory_does_not_hold_are_not_read_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stored, "check_fits", lambda needed, *_: 1 / (needed - 48))
    with pytest.raises(ZeroDivisionError):
        np.asarray(Stored(InMemory(np.zeros((4, 3), np.float32))))


def test_batches_and_measures_are_those_of_arrays(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "photos", 6, 5)
    whole = image_folder(folder, (8, 8))
    x, y = parts(folder, (8, 8), as_needed=True)["all"]
    batches = [
        ClassBalancedBatches(images, y, 3, 2, 4, seed=1, workers=workers)
        for images, workers in ((whole.x, 1), (x, 1), (x, 3), (pickle.loads(pickle.dumps(x)), 2))
    ]
    for k in range(4):
        first, *others = [one[k] for one in batches]
        for other in others:
            np.testing.assert_array_equal(other[0], first[0])
            np.testing.assert_array_equal(other[1], first[1])

    model = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
    )
    model.compile("sgd", "mse")
    logs: list[dict[str, float]] = [{}, {}]
    for images, log in zip((whole.x, x), logs, strict=True):
        evaluation = RetrievalEvaluation(images, y, batch_size=7)
        evaluation.set_model(model)
        evaluation.on_epoch_end(0, log)
    assert logs[0] == logs[1]
    assert logs[0].keys() == {"val_recall@1", "val_map@r"}
