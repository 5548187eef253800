"""How the report writes numbers and names."""

from __future__ import annotations

import html
import unicodedata


def number(value: float | None) -> str:
    """Three decimals, or a dash where there is no value."""
    finite = value is not None and value - value == 0
    return f"{value:.3f}" if finite else "-"


def percent(value: float, digits: int = 0) -> str:
    """A percentage that reads 0% or 100% only where the value is exactly that."""
    for more in (digits, digits + 1):
        text = f"{100 * value:.{more}f}"
        if value in (0.0, 1.0) or float(text) not in (0.0, 100.0):
            return f"{text}%"
    least = 10.0**-more
    return f"over {100 - least:.{more}f}%" if value > 0.5 else f"under {least:.{more}f}%"


def count(n: int, noun: str) -> str:
    """A number of things: "1 class", "766 classes"."""
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{n:,} {noun if n == 1 else plural}"


def part_of(part: int, whole: int) -> str:
    """Reads "all 12", or "5 of 12"."""
    return f"all {whole:,}" if part == whole else f"{part:,} of {whole:,}"


def readable(name: str) -> str:
    """A name that can be seen: a mark gets a base, what has no shape gets its number."""
    if all(unicodedata.category(c)[0] in "CZ" for c in name):
        return " ".join(code_point(c) for c in name) or "(no name)"
    seen = "".join(_visible(c) for c in name)
    return "\N{DOTTED CIRCLE}" + seen if unicodedata.category(name[0])[0] == "M" else seen


def _visible(character: str) -> str:
    """A control character, or one that reorders text, as Python escapes it."""
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    # The joiners (200C, 200D) belong to words of several scripts and to emoji.
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    if hidden and code not in (0x200C, 0x200D):
        return character.encode("unicode_escape").decode()
    return character


def code_point(character: str) -> str:
    """Reads "U+00D5"."""
    return f"U+{ord(character):04X}"


def unicode_name(character: str) -> str:
    """Reads "LATIN CAPITAL LETTER O WITH TILDE"."""
    return unicodedata.name(character, "no Unicode name")


def described(name: str) -> str:
    """A class name in full: a single character also by its code point and Unicode name."""
    if len(name) != 1:
        return readable(name)
    if readable(name) == code_point(name):
        return f"{code_point(name)} {unicode_name(name)}"
    return f"{readable(name)} ({code_point(name)} {unicode_name(name)})"


def shortened(name: str, limit: int = 28) -> str:
    """A long file name without its middle: both its start and its ending tell files apart."""
    name = readable(name)
    return name if len(name) <= limit else f"{name[: limit // 2]}…{name[-(limit // 2 - 1) :]}"


def text(value: object) -> str:
    """Any value as HTML, with its control characters visible."""
    written = str(value)
    return html.escape("".join(c if c == "\n" else _visible(c) for c in written), quote=True)
