"""Names of classes and files: as text that can be written anywhere, and as messages show them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from _kinfold_text import escaped, shown

_LONGEST = 80  # characters of a name in a message
_LISTED = 10  # names in a message, before only counting
_PARTS = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
_SURROGATES = re.compile("[\ud800-\udfff]")


def as_text(name: str) -> str:
    r"""A name that every encoder takes: bytes that are not UTF-8 become escapes such as `\xe9`."""
    return _SURROGATES.sub(lambda found: escaped(found[0]), name)


def as_class_names(names: Sequence[str], source: object) -> tuple[str, ...]:
    """The names as text, refused where two that differ become the same text."""
    texts: dict[str, str] = {}
    for name in names:
        if texts.setdefault(as_text(name), name) != name:
            raise ValueError(
                f"{shown(source)}: the names of two classes differ only in how bytes that are not "
                f"UTF-8 are written: {brief(name)}. Rename one of them."
            )
    return tuple(texts)


def brief(name: object) -> str:
    """As `shown`, with the middle of a long name left out."""
    text = shown(name)
    half = _LONGEST // 2
    return text if len(text) <= _LONGEST else f"{text[:half]}...{text[-half:]}"


def counted(what: str, entries: Sequence[str]) -> str:
    """`unreadable (12): a, b, ... and 2 more`, with ten entries at most."""
    return f"{what} ({len(entries)}): {listed(entries, _LISTED)}"


def listed(entries: Sequence[str], most: int = 12) -> str:
    """`a, b, ... and 2 more`, or `none`."""
    more = f" and {len(entries) - most} more" if len(entries) > most else ""
    return (", ".join(entries[:most]) or "none") + more


def either(names: Sequence[str]) -> str:
    """`a, b or c`."""
    return ", ".join(names[:-1]) + f" or {names[-1]}"


def part_named(name: object) -> str | None:
    """The part that a folder, an array or a cell names: train, validation, test or None."""
    return _PARTS.get(str(name).strip().lower())
