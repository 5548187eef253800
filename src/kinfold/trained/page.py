"""The page that `kinfold search --html` writes: each picture with what was found for it."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from _kinfold_decode import decode
from kinfold.datasets import shown
from kinfold.thresholds import Threshold
from kinfold.trained.matching import Match
from kinfold.training.report.images import as_uri

_SIDE = 160  # pixels of a picture

_CSS = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #fdfdfc; --soft: #6a6a6a;
  --line: #d9d9d6; --yes: #1a7f37; --no: #b35900; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececec; --paper: #171717; --soft: #a0a0a0;
  --line: #3a3a3a; --yes: #57c271; --no: #f0a04b; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
section { border-top: 1px solid var(--line); padding: 1.5rem 0; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
.row { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; width: 9.4rem; }
figure img { width: 100%; aspect-ratio: 1; object-fit: contain; background: #8881; }
figcaption { font-size: .85rem; overflow-wrap: anywhere; } .soft { color: var(--soft); }
.yes { color: var(--yes); } .no { color: var(--no); }
.query { border-right: 1px solid var(--line); padding-right: 1rem; }
"""


def render(
    paths: Sequence[Path], pixels: Sequence[Any], matches: Sequence[Match], threshold: Threshold
) -> str:
    """The whole page; names are escaped, and pictures are part of it.

    Args:
        paths: the files that were searched for.
        pixels: the pictures as the model saw them, uint8 [h, w, c].
        matches: what was found for each.
        threshold: what decided.
    """
    sections = "\n".join(
        _section(path, one, match) for path, one, match in zip(paths, pixels, matches, strict=True)
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Search results</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_CSS}</style></head>
<body><main><h1>Search results</h1>
<p class="soft">A picture is taken for a known class where its nearest item is no farther than
{threshold.distance:.4f}. At this distance {threshold.far:.2%} of pictures of unknown classes are
taken for a known one.</p>
{sections}
</main></body></html>
"""


def _section(path: Path, pixels: np.ndarray, match: Match) -> str:
    found = match.neighbours
    figures = [
        _figure(
            _picture(None if metadata is None else metadata.get("file")),
            f"{_text(label)}<br><span class='soft'>distance {distance:.4f}"
            f"{'' if distance <= match.threshold else ', too far'}<br>{_text(name)}</span>",
            _text(name),
        )
        for name, distance, label, metadata in zip(*found, strict=True)
        if name is not None
    ]
    verdict = (
        f"<span class='yes'>{_text(match.label)}</span>"
        if match.known
        else "<span class='no'>unknown</span>"
    )
    query = _figure(_encoded(pixels), "the picture", "the picture that was searched for", "query")
    return (
        f"<section><h2>{_text(shown(path))}: {verdict}</h2>"
        f"<div class='row'>{query}{''.join(figures)}</div></section>"
    )


def _figure(picture: str | None, caption: str, alt: str, kind: str = "item") -> str:
    image = f"<img src='{picture}' alt='{alt}'>" if picture else ""
    return f"<figure class='{kind}'>{image}<figcaption>{caption}</figcaption></figure>"


def _picture(file: str | None) -> str | None:
    if file is None:
        return None
    pixels = decode(Path(file), (_SIDE, _SIDE), 3)
    return None if isinstance(pixels, str) else _encoded(pixels)


def _encoded(pixels: np.ndarray) -> str:
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    return as_uri(image, lossy=False)


def _text(value: Any) -> str:
    return "no label" if value is None else html.escape(str(value))
