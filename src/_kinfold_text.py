"""Text and values: read values from text, and put values into words.

Nothing here imports Keras, so that the command line can use it before a backend is chosen.
"""

import difflib
import os
import types
from collections.abc import Iterable
from typing import Any, Union, get_args, get_origin

# What DATA may be, on the command line and for `kinfold.datasets.parts`.
DATA_FORMS = (
    "'glyphs' (characters in many typefaces, drawn on this machine); a folder that holds a folder "
    "of images for each class, or train/, val/ and test/ with such class folders; a .csv, .tsv or "
    ".parquet file that lists images, with the columns path and label, and split if you have one; "
    "a .tar file of WebDataset, or a folder of them; an .npz file with the arrays x and y, or "
    "x_train, y_train, x_test and y_test, or a folder of such arrays as .npy files; or a .parquet "
    "file, or a folder of them, with encoded images and a label, or with the columns embedding and "
    "label."
)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean triplet?" for the known name nearest to `name`, or "" if none is near.

    Upper case, hyphens and underscores are ignored, so "ArcFace" is near "arc-face".

    Example:

    >>> from _kinfold_text import did_you_mean
    >>> did_you_mean("ArcFace", ["circle", "arc-face"])
    ' Did you mean arc-face?'
    """
    plain = {_plain(one): one for one in known}
    near = difflib.get_close_matches(_plain(name), plain, n=1)
    return f" Did you mean {plain[near[0]]}?" if near else ""


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def shown(name: object) -> str:
    r"""A name for a message on one line: what does not print is escaped, `\x1b` or `\u202e`."""
    text = os.fsdecode(name) if isinstance(name, bytes | os.PathLike) else str(name)
    return "".join(c if c.isprintable() else escaped(c) for c in text) or "''"


def escaped(c: str) -> str:
    """A character as Python would write it in text."""
    code = ord(c)
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds a byte of a file name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return c.encode("unicode_escape").decode("ascii")


def printable(text: str) -> str:
    r"""Return `text` with escapes such as \x1b for what a terminal would act on or cannot show.

    Line breaks stay. The bytes of a file name that are not UTF-8 become escapes too.
    """
    return "".join(
        one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode()
        for one in text
    )


def parse(text: str, kind: Any, name: str) -> Any:
    """Read a value of the type `kind` from text.

    Args:
        text: the text; "none" is None, where the type allows it.
        kind: bool, int, float, str, Any (which is read as str), or a union of these and None.
        name: what the value is called, for the error.

    Raises:
        ValueError: the text is not of that type.

    Example:

    >>> from _kinfold_text import parse
    >>> parse("0.2", float | None, "margin"), parse("none", float | None, "margin")
    (0.2, None)
    """
    for one in _alternatives(kind):
        if one is type(None) and text.lower() == "none":
            return None
        if one is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if one in (int, float):
            try:
                return one(text)
            except ValueError:
                continue
        if one in (str, Any):
            return text
    raise ValueError(f"{name} must be {in_words(kind)}. Received: {text!r}.")


def is_of(value: Any, kind: Any) -> bool:
    """Whether a value is of a type; integers are also floats, and booleans are not numbers."""
    for one in _alternatives(kind):
        if one is Any:
            return True
        plain = get_origin(one) or one
        if isinstance(value, bool):
            if plain is bool:
                return True
        elif isinstance(value, plain) or (plain is float and isinstance(value, int)):
            return True
    return False


def _alternatives(kind: Any) -> tuple[Any, ...]:
    if get_origin(kind) in (Union, types.UnionType):
        # Text last, which any value is.
        return tuple(sorted(get_args(kind), key=lambda one: one in (str, Any)))
    return (kind,)


_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    type(None): "none",
}


def in_words(kind: Any, choices: tuple[str, ...] = ()) -> str:
    """Say what a value of a type is: "a number or none"; of text, which choices there are.

    Example:

    >>> from _kinfold_text import in_words
    >>> in_words(int | str, ("all",))
    'a whole number or all'
    """
    words = []
    for one in _alternatives(kind):
        if one is str and choices:
            words.append(f"one of {', '.join(choices)}" if len(choices) > 1 else choices[0])
        else:
            words.append(_WORDS.get(one, "names with values"))
    return " or ".join(sorted(words, key=lambda word: word == "none"))
