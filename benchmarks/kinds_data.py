"""Six kinds of data, made here, in the forms that `kinfold train` takes."""

import importlib
import inspect
import pkgutil
import subprocess
import tempfile
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

WORDS = """
amber anchor apple arrow autumn badge bamboo banjo basket beacon berry bishop blanket bottle
bridge bronze bucket butter cabin cactus camel candle canyon carbon carpet castle cedar cello
chapel cherry circle citrus clover cobalt coffee comet copper coral cotton crater cricket crystal
dagger daisy desert diamond dolphin donkey dragon eagle echo elbow ember engine falcon feather
fiddle finger flame forest fossil fountain garden garlic giant ginger glacier goblet granite
guitar hammer harbour harvest hazel helmet honey island ivory jacket jasmine jungle kernel kettle
kitten ladder lantern lemon leopard lily lizard lobster magnet mango maple marble meadow melon
mirror monkey mountain muffin needle nickel nutmeg ocean olive onion orange orchid oyster paddle
palace panther paper parrot pebble pencil pepper piano pigeon pillow planet plum pocket pollen
pony poppy potato powder prism pumpkin purple puzzle quartz rabbit radish raven ribbon river robin
rocket saddle saffron salmon sandal sapphire satin scarlet shadow shelter silver skeleton spider
spinach squirrel stadium summer sunset tailor tiger timber tomato tornado trumpet tulip tunnel
turtle umbrella valley vanilla velvet violin walnut willow window winter yellow zebra
"""
PACKAGES = (
    "numpy",
    "scipy",
    "sklearn",
    "matplotlib",
    "keras",
    "PIL",
    "email",
    "concurrent",
    "json",
)
RATE, BANDS, FRAMES = 16000, 64, 64


def glyphs(folder: Path) -> str:
    """The characters of matplotlib's fonts."""
    return "glyphs"


def typefaces(folder: Path, fonts: Path) -> str:
    """A folder of images: three letters in a typeface, the class, 12 times in random colours."""
    from matplotlib.ft2font import FT2Font
    from PIL import Image, ImageDraw, ImageFont

    rng, out = np.random.default_rng(0), folder / "typefaces"
    letters = np.array(list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"))
    for path in sorted(fonts.rglob("*.[to]tf")):
        if not set(map(ord, letters)) <= set(FT2Font(str(path)).get_charmap()):
            continue  # such as signs of mathematics
        face = ImageFont.truetype(str(path), 28)
        (out / path.stem).mkdir(parents=True, exist_ok=True)
        for k in range(12):
            dark, light = rng.integers(0, 110, 3), rng.integers(150, 256, 3)
            ink, paper = (dark, light) if rng.random() < 0.5 else (light, dark)
            image = Image.new("RGB", (64, 64), tuple(int(v) for v in paper))
            text = "".join(rng.choice(letters, 3))
            fill = tuple(int(v) for v in ink)
            ImageDraw.Draw(image).text((32, 32), text, fill, face, anchor="mm")
            image.save(out / path.stem / f"{k:02}.png")
    return str(out)


def digits(folder: Path) -> str:
    """scikit-learn's handwritten digits, 8 x 8 pixels, ten classes."""
    from sklearn.datasets import load_digits

    found = load_digits()
    x = (found.images * 15.9375).astype(np.uint8)[..., np.newaxis]
    return _save(folder / "digits.npz", x, found.target)


def words(folder: Path) -> str:
    """Spectrograms of 178 words, each spoken by 12 voices of espeak-ng: decibels, 64 x 64."""
    rng, x, y = np.random.default_rng(0), [], []
    spoken = sorted(WORDS.split())
    with tempfile.TemporaryDirectory() as made:
        path = Path(made, "word.wav")
        for label, word in enumerate(spoken):
            for voice in VOICES:
                pitch, speed = rng.integers(20, 80), rng.integers(120, 210)
                command = ["espeak-ng", "-v", voice, "-p", str(pitch), "-s", str(speed)]
                subprocess.run([*command, "-w", str(path), word], check=True)
                x.append(_spectrogram(path, rng))
                y.append(label)
    return _save(folder / "words.npz", np.stack(x)[..., np.newaxis], np.array(y))


VOICES = [
    f"{accent}+{voice}"
    for accent in ("en-us", "en-gb", "en-gb-scotland")
    for voice in ("m1", "m3", "f2", "f4")
]


def _spectrogram(path: Path, rng: np.random.Generator) -> np.ndarray:
    with wave.open(str(path)) as file:
        rate = file.getframerate()
        sound = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype("float32")
    sound = np.interp(np.arange(0, len(sound), rate / RATE), np.arange(len(sound)), sound)
    sound = sound / 32768 + rng.normal(0, 0.003, len(sound))
    width, step = 512, max((len(sound) - 512) // (FRAMES - 1), 1)
    sound = np.pad(sound, (0, max(0, width + step * (FRAMES - 1) - len(sound))))
    frames = np.stack([sound[k * step : k * step + width] for k in range(FRAMES)])
    power = np.abs(np.fft.rfft(frames * np.hanning(width))[:, : BANDS * 3]) ** 2
    banded = power.reshape(FRAMES, BANDS, 3).mean(axis=2)
    return (10 * np.log10(banded + 1e-6)).T.astype("float32")


def texts(folder: Path) -> str:
    """Embeddings of the docstrings of Python packages, the class a module: TF-IDF and SVD, 128."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline

    by_module: dict[str, set[str]] = {}
    for module in _modules():
        for _, value in inspect.getmembers(module):
            said = inspect.getdoc(value) if callable(value) else None
            if said and len(said) > 200 and getattr(value, "__module__", "") == module.__name__:
                by_module.setdefault(module.__name__, set()).add(said)
    classes = [sorted(said)[:12] for _, said in sorted(by_module.items()) if len(said) >= 4]
    y = np.repeat(np.arange(len(classes)), [len(said) for said in classes])
    steps = TfidfVectorizer(sublinear_tf=True, min_df=2), TruncatedSVD(128, random_state=0)
    x = make_pipeline(*steps).fit_transform([text for said in classes for text in said])
    return _save(folder / "texts.npz", x.astype("float32"), y)


def _modules() -> Iterator[Any]:
    for name in PACKAGES:
        package = importlib.import_module(name)
        yield package
        for one in pkgutil.walk_packages(package.__path__, f"{name}.", onerror=lambda _: None):
            if any(
                part in one.name
                for part in ("test", "__main__", "backend", "_pytesttester", "report")
            ):
                continue
            try:
                yield importlib.import_module(one.name)
            except Exception:  # what needs a package that is not installed, or a display
                continue


def icons(folder: Path, font: Path) -> str:
    """Icons in eight noisy views each."""
    from benchmarks.icons import icons as drawn

    first, second = drawn(font)
    y = np.concatenate([first.y, second.y + len(first.names)])
    return _save(folder / "icons.npz", np.concatenate([first.x, second.x]), y)


def _save(path: Path, x: np.ndarray, y: np.ndarray) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, x=x, y=y.astype("int32"))
    return str(path)


def makers(fonts: Path, font: Path) -> dict[str, Callable[[Path], str]]:
    """What makes each kind of data in a folder, and returns what `kinfold train` is given."""
    return {
        "glyphs": glyphs,
        "typefaces": lambda folder: typefaces(folder, fonts),
        "digits": digits,
        "words": words,
        "texts": texts,
        "icons": lambda folder: icons(folder, font),
    }
