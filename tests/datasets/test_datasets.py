"""Glyphs, image folders, arrays, and the division of classes."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from matplotlib.ft2font import FT2Font
from PIL import Image

from kinfold.datasets import Split, _glyphs, arrays, glyphs, image_folder, split_classes

pytestmark = pytest.mark.once

# Glyphs


@pytest.fixture(scope="module")
def drawn():
    """All of the set, at a quarter of the pixels, and the progress that was reported."""
    calls = []
    return *glyphs(size=16, progress=lambda done, total: calls.append((done, total))), calls


def test_glyphs_are_enough_to_ask_about_unseen_characters(drawn):
    train, test, calls = drawn
    assert train.x.dtype == test.x.dtype == np.uint8
    assert train.x.shape[1:] == test.x.shape[1:] == (16, 16, 1)
    assert train.y.dtype == np.int32
    assert len(train) == len(train.x) == len(train.y)
    assert len(test.names) >= 500
    for split in (train, test):
        assert split.y.min() == 0
        assert split.y.max() == len(split.names) - 1
        assert np.bincount(split.y).min() >= 8
    assert len(test.names) == round(0.3 * (len(train.names) + len(test.names)))
    assert calls == sorted(calls)
    assert calls[-1][0] == calls[-1][1] > len(train) + len(test)


def test_no_character_and_no_picture_is_in_both_splits(drawn):
    train, test, _ = drawn
    assert not set(train.names) & set(test.names)
    seen = {picture.tobytes() for picture in train.x}
    unseen = {picture.tobytes() for picture in test.x}
    assert not seen & unseen
    # Nor one picture twice, in one class or in two.
    assert len(seen) == len(train)
    assert len(unseen) == len(test)
    # Nor one that differs by rasterisation only: by loops, on a part of the test.
    pictures = np.concatenate([train.x, test.x]).astype(float)
    for picture in test.x[::200].astype(float):
        difference = np.sqrt(np.square(pictures - picture).mean(axis=(1, 2, 3)))
        assert np.sum(difference < 1) == 1


def test_hard_characters_stay(drawn):
    names = {*drawn[0].names, *drawn[1].names}
    # Small marks, look-alikes and rows of strokes, as well as letters.
    assert names.issuperset("Aa.,:;'\"`^~-|/\\()cCoOxX=\u2208\u220b\u2264\u2265\u1ea4\u1ea6\u1ea8")
    assert not names & {" ", "\u00a0", "\u200b", "\ue000"}
    # Greek Alpha and Cyrillic A are drawn as Latin A: one class, with its lowest code point.
    assert not names & {"\N{GREEK CAPITAL LETTER ALPHA}", "\N{CYRILLIC CAPITAL LETTER A}"}


def test_the_picture_is_the_character():
    # Against FreeType as matplotlib wraps it: the ink has the glyph's size, and its height above
    # the baseline, in every face.
    codes = [ord(c) for c in "Aagj.-˙ß%"]
    faces = {
        path: [c for c in codes if c in held]
        for path, held in _glyphs._faces().items()
        if "Display" not in path.name
    }
    pictures, drawn, numbers = _glyphs._draw_faces(faces, 32, None)
    assert len(pictures) == sum(map(len, faces.values())) > 150
    for picture, code, number in zip(pictures, drawn, numbers, strict=True):
        font = FT2Font(str(list(faces)[number]))
        font.set_size(32, 72)
        left, bottom, right, top = (edge / 64 for edge in font.load_char(code).bbox)
        rows, columns = np.nonzero(picture)
        assert abs(columns.max() - columns.min() + 1 - (right - left)) <= 3
        assert abs(rows.max() - rows.min() + 1 - (top - bottom)) <= 3
        assert abs(rows.min() - (0.77 * 32 - top)) <= 3
        assert abs(columns.max() + columns.min() - 31) <= 3  # centred


def test_only_true_characters_of_each_face():
    faces = {path.name: held for path, held in _glyphs._faces().items()}
    assert list(faces) == sorted(faces)
    # cmex10 and others draw something else under the code of a letter; cmr10 does under "<".
    assert not any(name.startswith(("LastResort", "cmex", "cmsy", "STIXNon")) for name in faces)
    assert "".join(map(chr, faces["cmr10.ttf"])) == (
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    )
    assert len(faces["DejaVuSans.ttf"]) > 5000
    categories = {unicodedata.category(chr(c)) for held in faces.values() for c in held}
    assert not categories & {"Cc", "Cf", "Co", "Zs"}


def small_set(monkeypatch):
    faces = {p: [c for c in held if 64 < c < 123] for p, held in _glyphs._faces().items()}
    monkeypatch.setattr(_glyphs, "_faces", lambda: faces)


def test_glyphs_repeat_and_follow_the_seed(monkeypatch):
    small_set(monkeypatch)
    (x, y), test = glyphs(seed=1)
    assert x.shape[1:] == (32, 32, 1)
    again, _ = glyphs(seed=1)
    np.testing.assert_array_equal(x, again.x)
    np.testing.assert_array_equal(y, again.y)
    assert set(glyphs(seed=2)[1].names) != set(test.names)
    assert len(glyphs(test_fraction=0.5)[1].names) > len(test.names)


def test_pictures_are_white_on_black_and_antialiased(monkeypatch):
    small_set(monkeypatch)
    (x, _), _ = glyphs()
    assert np.median(x) == 0
    assert x.max(axis=(1, 2, 3)).min() > 128
    assert len(np.unique(x)) > 200
    # Size is kept: in one face an "o" is smaller than an "O".
    faces = {path: [ord("o"), ord("O")] for path in list(_glyphs._faces())[:1]}
    (small, large), _, _ = _glyphs._draw_faces(faces, 32, None)
    assert 1.2 < np.sum(large > 0) / np.sum(small > 0) < 2


def test_a_glyph_larger_than_the_tile_is_made_smaller():
    path = next(path for path in _glyphs._faces() if path.name == "DejaVuSans.ttf")
    (wide,), _, _ = _glyphs._draw_faces({path: [0x1C4]}, 32, None)
    assert not wide[:, [0, -1]].any()
    assert wide[:, 1:3].any()
    assert wide[:, -3:-1].any()


def test_same_pictures_make_one_class():
    # Characters 1 and 2 share a picture in one face, 2 and 3 in another, 4 stands alone.
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (32, 8, 8)).astype(np.uint8)
    codes, faces = np.repeat([1, 2, 3, 4], 8), np.tile(np.arange(8), 4)
    pictures[8] = pictures[0]
    pictures[17] = pictures[9]
    pictures[17, 0, 0] ^= 1  # a difference of rasterisation
    split = _glyphs._classes(pictures, codes, faces)
    assert split.names == (chr(1), chr(4))
    assert np.bincount(split.y).tolist() == [22, 8]  # two copies are gone
    # A face less, and a class is left out.
    split = _glyphs._classes(pictures[:-1], codes[:-1], faces[:-1])
    assert split.names == (chr(1),)


def test_union_find_against_loops():
    rng = np.random.default_rng(0)
    for count, pairs in ((1, 0), (30, 10), (30, 25), (200, 150), (200, 400)):
        first, second = rng.integers(0, count, (2, pairs))
        root = list(range(count))
        for _ in range(count):
            for a, b in zip(first, second, strict=True):
                root[a] = root[b] = min(root[a], root[b])
        np.testing.assert_array_equal(_glyphs._components(count, first, second), root)


def test_same_pictures_against_loops():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 3, (60, 3, 3)).astype(np.uint8)
    expected = {
        (a, b)
        for a in range(60)
        for b in range(a + 1, 60)
        if np.mean((pictures[a] - pictures[b].astype(float)) ** 2) < 1
    }
    first, second = _glyphs._same_pictures(pictures, block=7)
    found = {tuple(sorted(pair)) for pair in zip(first.tolist(), second.tolist(), strict=True)}
    assert found == expected
    assert 100 < len(found) == len(first) < 60 * 59 / 2


def test_bad_glyph_arguments():
    for size in (7, 257):
        with pytest.raises(ValueError, match=f"size must be from 8 to 256 pixels. Received {size}"):
            glyphs(size=size)
    for fraction in (0, 1, -0.1, float("nan")):
        with pytest.raises(ValueError, match="test_fraction must be between 0 and 1"):
            glyphs(test_fraction=fraction)


# Division of classes


def test_split_classes():
    y = np.random.default_rng(0).integers(0, 10, 200).astype(np.int32)
    split = Split(np.arange(200), y, tuple("abcdefghij"))
    rest, held = split_classes(split, 0.3, seed=5)
    assert (len(rest.names), len(held.names)) == (7, 3)
    assert {*rest.names, *held.names} == set(split.names)
    np.testing.assert_array_equal(np.sort(np.concatenate([rest.x, held.x])), split.x)
    for part in (rest, held):
        assert part.y.dtype == np.int32
        assert [part.names[k] for k in part.y] == [split.names[y[row]] for row in part.x]
        assert (np.diff(part.x) > 0).all()  # the order stays
    again = split_classes(split, 0.3, seed=5)[1]
    assert again.names == held.names
    assert any(split_classes(split, 0.3, seed=s)[1].names != held.names for s in range(3))


@pytest.mark.parametrize(
    ("fraction", "message"),
    [
        (0.0, "fraction must be between 0 and 1, both excluded. Received 0.0"),
        (1.5, "Received 1.5"),
        (0.1, "A fraction of 0.1 of 3 classes is 0; each part needs at least one class"),
        (0.9, "A fraction of 0.9 of 3 classes is 3;"),
    ],
)
def test_bad_fraction(fraction, message):
    split = Split(np.zeros(3), np.arange(3, dtype=np.int32), ("a", "b", "c"))
    with pytest.raises(ValueError, match=re.escape(message)):
        split_classes(split, fraction)


# Image folders


def save(image, path, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **kwargs)


def plain(colour, size=(8, 8), mode="RGB"):
    return Image.new(mode, size, colour)


@pytest.fixture
def folder(tmp_path):
    """Two classes, so that a third may be the one under test."""
    save(plain("red"), tmp_path / "b" / "1.png")
    save(plain("blue"), tmp_path / "a" / "1.png")
    return tmp_path


def test_image_folder(folder):
    save(plain("green"), folder / "b" / "0.PNG")
    save(plain("white"), folder / "b" / "é 中.JpEg")
    save(plain("white"), folder / "Ünïcode 類" / "x.webp", lossless=True)
    save(plain("white"), folder / "a" / ".hidden.png")
    save(plain("white"), folder / ".hidden" / "x.png")
    (folder / "a" / "notes.txt").write_text("not an image")
    (folder / "README.md").write_text("not a class")
    calls = []
    split = image_folder(folder, size=(4, 6), progress=lambda *args: calls.append(args))
    assert split.names == ("a", "b", "Ünïcode 類")
    assert split.y.dtype == np.int32
    assert split.y.tolist() == [0, 1, 1, 1, 2]
    assert split.x.shape == (5, 4, 6, 3)
    assert split.x.dtype == np.uint8
    colours = [[0, 0, 255], [0, 128, 0], [255, 0, 0], [255, 255, 255], [255, 255, 255]]
    assert split.x[:, 2, 3].tolist() == colours
    assert calls == [(done, 5) for done in (1, 2, 3, 4, 5)]


def grey16():
    return Image.fromarray(np.full((8, 8), 0x8080, np.uint16))


def indexed():
    image = plain(1, mode="P")
    image.putpalette([0, 0, 0, 10, 20, 30])
    return image


@pytest.mark.parametrize(
    ("image", "name", "expected"),
    [
        (plain(100, mode="L"), "grey.png", 100),
        (plain(1, mode="1"), "bits.png", 255),
        (indexed(), "palette.png", (10, 20, 30)),
        (indexed(), "palette.gif", (10, 20, 30)),
        (plain((10, 20, 30, 255), mode="RGBA"), "opaque.png", (10, 20, 30)),
        (plain((10, 20, 30, 0), mode="RGBA"), "clear.png", 255),
        (plain((100, 0), mode="LA"), "clear grey.png", 255),
        (plain((100, 255), mode="LA"), "opaque grey.png", 100),
        (plain((0, 255, 255, 0), mode="CMYK"), "cmyk.tif", (255, 0, 0)),
        (plain((0, 0, 0, 0), mode="CMYK"), "cmyk.jpg", 255),
        (grey16(), "grey16.png", 128),
        (grey16(), "grey16.tiff", 128),
        (plain(0x8080, mode="I"), "grey32.tiff", 128),
    ],
)
def test_modes(folder, image, name, expected):
    save(image, folder / "c" / name)
    x = image_folder(folder, size=(4, 4)).x[-1]
    np.testing.assert_array_equal(x, np.broadcast_to(expected, (4, 4, 3)))
    grey = image_folder(folder, size=(4, 4), channels=1).x[-1]
    luma = np.dot(np.broadcast_to(expected, 3), [0.299, 0.587, 0.114])  # ITU-R 601
    assert grey.shape == (4, 4, 1)
    np.testing.assert_allclose(grey, luma, atol=1)


def test_transparent_palette(folder):
    image = indexed()
    save(image, folder / "c" / "clear.png", transparency=1)
    assert image_folder(folder, size=(4, 4)).x[-1].min() == 255


def test_exif_orientation(folder):
    image = plain("black", (40, 20))
    image.paste("white", (0, 0, 20, 20))  # stored: the left half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees for viewing
    save(image, folder / "c" / "turned.jpg", exif=exif, quality=95)
    x = image_folder(folder, size=(40, 20)).x[-1].astype(int)
    assert x[:15].min() > 240  # seen: the upper half
    assert x[25:].max() < 15


def test_centre_is_cut_after_scaling_the_shorter_side(folder):
    stripes = np.repeat([0, 50, 100, 150, 200, 250], 10).astype(np.uint8)
    save(Image.fromarray(np.tile(stripes, (20, 1))), folder / "c" / "wide.png")
    x = image_folder(folder, size=(10, 10), channels=1).x[-1, ..., 0]
    # The middle 20 of 60 columns.
    np.testing.assert_allclose(x[5, [1, 3, 6, 8]], [100, 100, 150, 150], atol=2)
    save(Image.fromarray(np.tile(stripes, (20, 1)).T), folder / "c" / "wide.png")
    np.testing.assert_array_equal(image_folder(folder, (10, 10), 1).x[-1, ..., 0], x.T)


def test_unreadable_files_are_named_and_left_out(folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    save(plain("red", (40, 40)), folder / "c" / "bomb.png")
    (folder / "c" / "empty.png").touch()
    (folder / "c" / "text.jpg").write_text("not an image")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3)).astype(np.uint8))
    for name in ("cut.jpg", "cut.png", "cut.tif"):
        save(noise, folder / "c" / name)
        path = folder / "c" / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    save(Image.fromarray(np.ones((8, 8), np.float32)), folder / "c" / "float.tif")
    save(plain("green"), folder / "c" / "good.png")
    with pytest.warns(UserWarning, match=r"left out: unreadable \(7\): c.bomb.png \(") as caught:
        split = image_folder(folder, size=(4, 4))
    (warning,) = caught
    for name in ("bomb.png", "cut.jpg", "cut.png", "cut.tif", "empty.png", "float.tif", "text.jpg"):
        assert f"c/{name}" in str(warning.message)
    assert warning.filename == __file__
    assert split.names == ("a", "b", "c")
    assert split.y.tolist() == [0, 1, 2]
    assert split.x[:, 0, 0].tolist() == [[0, 0, 255], [255, 0, 0], [0, 128, 0]]
    with pytest.raises(ValueError, match=r"unreadable \(7\): c.bomb.png \("):
        image_folder(folder, size=(4, 4), strict=True)


def test_a_long_list_is_cut(folder):
    for n in range(13):
        (folder / "a" / f"bad{n:02}.png").touch()
    with pytest.warns(
        UserWarning, match=r"unreadable \(13\): a.bad00.*bad09.png \(.*\) and 3 more\."
    ):
        assert len(image_folder(folder, size=(4, 4))) == 2


def test_empty_classes_and_nested_folders_are_reported(folder):
    (folder / "0 empty").mkdir()
    (folder / "c").mkdir()
    (folder / "c" / "broken.png").touch()
    save(plain("red"), folder / "b" / "more" / "1.png")
    message = (
        r"classes without a readable image \(2\): 0 empty, c; "
        r"folders inside a class folder \(1\): b/more\."
    )
    with pytest.warns(UserWarning, match=message):
        split = image_folder(folder, size=(4, 4))
    assert split.names == ("a", "b")
    assert split.y.tolist() == [0, 1]


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere is not a folder .* There is nothing there"):
        image_folder(tmp_path / "nowhere")
    (tmp_path / "file.png").touch()
    with pytest.raises(
        ValueError, match=r"file.png is not a folder of class folders. It is a file"
    ):
        image_folder(tmp_path / "file.png")
    (tmp_path / "file.png").unlink()
    with pytest.raises(ValueError, match=r"holds no folder. Put the images of each class"):
        image_folder(tmp_path)
    (tmp_path / "only").mkdir()
    with (
        pytest.warns(UserWarning, match="classes without a readable image"),
        pytest.raises(ValueError, match="has class folders but no readable image in them"),
    ):
        image_folder(tmp_path)
    save(plain("red"), tmp_path / "only" / "1.png")
    with pytest.raises(ValueError, match=r"holds one class only, 'only'. Metric learning needs at"):
        image_folder(tmp_path, size=(4, 4))


def test_bad_image_arguments(folder):
    for size in (32, (32,), (0, 4), (4.0, 4), "ab", None):
        with pytest.raises(ValueError, match=r"size must be \(height, width\)"):
            image_folder(folder, size=size)
    with pytest.raises(ValueError, match=r"channels must be 1 \(grey\) or 3 \(RGB\). Received 4"):
        image_folder(folder, channels=4)
    # Refused before reading, not when memory runs out.
    with pytest.raises(ValueError, match=r"2 images of this size need 5587935.4 GiB, and this"):
        image_folder(folder, size=(10**6, 10**9))


# Arrays


def test_arrays(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=np.arange(6.0).reshape(3, 2), y=np.array([[7], [-2], [7]], np.int8))
    x, y = split = arrays(path)
    assert x.dtype == np.float32
    assert y.dtype == np.int32
    assert y.tolist() == [1, 0, 1]
    assert split.names == ("-2", "7")
    np.savez_compressed(path, x=np.zeros((3, 5, 4), np.uint8), y=["dog", "cat", "dog"], z=[None])
    split = arrays(str(path))
    assert split.x.shape == (3, 5, 4, 1)
    assert split.x.dtype == np.uint8
    assert split.y.tolist() == [1, 0, 1]
    assert split.names == ("cat", "dog")


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint32", "int64", "uint64"])
def test_integer_labels_are_never_merged(tmp_path, dtype):
    y = np.array([np.iinfo(dtype).max, np.iinfo(dtype).max - 1, 0], dtype)
    np.savez(tmp_path / "data.npz", x=np.eye(3), y=y)
    split = arrays(tmp_path / "data.npz")
    assert split.y.tolist() == [2, 1, 0]
    assert split.names[2] == str(np.iinfo(dtype).max)


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (np.zeros((2, 3), np.uint8), ("float32", (2, 3))),
        (np.zeros((2, 3), np.float16), ("float32", (2, 3))),
        (np.zeros((2, 3), bool), ("float32", (2, 3))),
        (np.zeros((2, 4, 4, 3), np.uint8), ("uint8", (2, 4, 4, 3))),
        (np.zeros((2, 4, 4, 3)), ("float32", (2, 4, 4, 3))),
        (np.zeros((2, 4, 4), np.uint16), ("float32", (2, 4, 4, 1))),
    ],
)
def test_types_of_examples(tmp_path, x, expected):
    np.savez(tmp_path / "data.npz", x=x, y=[0, 1])
    split = arrays(tmp_path / "data.npz")
    assert (split.x.dtype.name, split.x.shape) == expected


def test_arrays_go_by_other_names_where_there_is_no_x_or_y(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, embeddings=np.eye(3), labels=["b", "a", "b"], ids=[7, 8, 9])
    split = arrays(path)
    assert split.x.tolist() == np.eye(3).tolist()
    assert split.y.tolist() == [1, 0, 1]
    np.savez(path, embeddings=np.eye(3), x=np.ones((3, 2)), labels=[5, 5, 5], y=[1, 0, 1])
    split = arrays(path)
    assert split.x.shape == (3, 2)
    assert split.names == ("0", "1")


def test_names(tmp_path):
    np.savez(tmp_path / "data.npz", x=np.eye(3), y=[2, 0, 2], names=["cat", "cow", "dog"])
    split = arrays(tmp_path / "data.npz")
    assert split.names == ("cat", "dog")
    assert split.y.tolist() == [1, 0, 1]


EYE = np.eye(2)


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (
            {"a": EYE, "y": [0, 1]},
            "must hold the arrays 'x' and 'y', or 'embeddings' and 'labels'. Found: a, y.",
        ),
        ({}, "must hold the arrays 'x' and 'y', or 'embeddings' and 'labels'. Found: none."),
        ({"emb": EYE, "vector": EYE, "y": [0, 1]}, "Found: emb, vector, y."),
        ({"x": EYE, "y": [0.0, 1.0]}, "y must hold integers or strings. Received the type float64"),
        ({"x": EYE, "y": [True, False]}, "Received the type bool"),
        ({"x": EYE, "y": [0, 1, 1]}, "x holds 2 examples but y holds 3 labels"),
        ({"x": EYE, "y": [[0, 1], [0, 1]]}, "y must be [n] or [n, 1]. Received the shape (2, 2)"),
        ({"x": EYE, "y": 1}, "Received the shape ()"),
        ({"x": EYE, "y": np.array([0, "a"], object)}, "'y' holds Python objects"),
        ({"x": np.array([[None], [1]]), "y": [0, 1]}, "'x' holds Python objects"),
        ({"x": [["a"], ["b"]], "y": [0, 1]}, "x must hold numbers. Received the type <U1"),
        ({"x": EYE * 1j, "y": [0, 1]}, "x must hold numbers. Received the type complex128"),
        ({"x": [1.0, 2.0], "y": [0, 1]}, "Received the shape (2,)"),
        ({"x": np.zeros((0, 2)), "y": np.zeros(0, int)}, "Received the shape (0, 2)"),
        (
            {"x": np.array([[np.nan, 0], [1, 0]]), "y": [0, 1]},
            "x holds values that are NaN or infinite in float32, the first in row 0",
        ),
        ({"x": EYE * 1e300, "y": [0, 1]}, "x holds values that are NaN or infinite in float32"),
        ({"x": EYE, "y": [3, 3]}, "holds one class only, '3'"),
        ({"x": EYE, "y": [0, 2], "names": ["a", "b"]}, "2 names serve labels 0 to 1, but y holds"),
        ({"x": EYE, "y": ["a", "b"], "names": ["a", "b"]}, "to name integer labels"),
        ({"x": EYE, "y": [0, 1], "names": [1, 2]}, "names must be a list of strings"),
    ],
)
def test_bad_arrays(tmp_path, saved, message):
    np.savez(tmp_path / "data.npz", **saved)
    with pytest.raises(ValueError, match=re.escape(message)):
        arrays(tmp_path / "data.npz")


def test_files_that_are_no_npz(tmp_path):
    path = tmp_path / "data.npz"
    with pytest.raises(ValueError, match=r"data.npz is not a file"):
        arrays(path)
    path.write_text("x,y")
    with pytest.raises(ValueError, match=r"is not an .npz file, or is cut short"):
        arrays(path)
    with path.open("wb") as file:
        np.save(file, np.eye(3))
    with pytest.raises(ValueError, match=r"is not an .npz file, or is cut short"):
        arrays(path)
    np.savez(path, x=np.random.default_rng(0).random((50, 50)), y=np.arange(50))
    whole = path.read_bytes()
    for length in (len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"is not an .npz file, or is cut short"):
            arrays(path)
    damaged = bytearray(whole)
    damaged[5000] ^= 255
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="cannot be read, the array 'x' is damaged"):
        arrays(path)


def test_import_needs_no_extra():
    source = Path(_glyphs.__file__).parent
    for module in source.glob("*.py"):
        for line in module.read_text(encoding="utf-8").splitlines():
            assert not re.match(r"(from|import) (PIL|matplotlib|pyarrow)", line), module
