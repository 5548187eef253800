"""Puts the pages of the site together in build/pages: python tools/site.py, before `mkdocs build`.

The pages are the files that the repository shows as they are. Here their links to one another are
rewritten, what they show is copied beside them, and a page is written for each part of the
reference.
"""

import ast
import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "build" / "pages"

# A file of the repository, and the page that it becomes.
FILES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "src/kinfold/streaming/README.md": "streaming.md",
    **{f"docs/{page.name}": page.name for page in sorted((ROOT / "docs").glob("*.md"))},
}

# A page of the reference, its heading, and what it documents.
REFERENCE = {
    "losses": ("Losses", "kinfold.losses", None),
    "models": (
        "Models, memory and layers",
        "kinfold",
        ["EmbeddingModel", "CrossBatchMemory", "MatryoshkaLoss", "layers", "encoders"],
    ),
    "batches": ("Batches and data", "kinfold", ["batches", "datasets"]),
    "metrics": ("Metrics and thresholds", "kinfold", ["metrics", "thresholds", "callbacks"]),
    "search": ("Search", "kinfold", ["Index", "load"]),
    "training": ("Streaming and distances", "kinfold", ["streaming", "distances"]),
}

# A table without a word above its first column: whoever hears it, hears this one.
HEADER = re.compile(r"^\| +(\|.*\n\|---)", re.M)
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)#\s]+)(#[^)\s]*)?(\))")


def main() -> None:
    shutil.rmtree(PAGES, ignore_errors=True)
    PAGES.mkdir(parents=True)
    for file, page in FILES.items():
        text = (ROOT / file).read_text("utf-8")
        text = HEADER.sub(r'| <span class="unseen">row</span> \1', text)
        (PAGES / page).write_text(linked(text, (ROOT / file).parent), "utf-8")
    for extra in (ROOT / "tools" / "site_theme").iterdir():
        shutil.copy(extra, PAGES)
    for name, (title, module, members) in REFERENCE.items():
        write_reference(PAGES / "reference" / f"{name}.md", title, module, members)


def linked(text: str, folder: Path) -> str:
    """The text of a page in `folder`, with its links as they are on the site."""

    def on_the_site(match: re.Match[str]) -> str:
        before, target, part, after = match.groups()
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        path = (folder / target).resolve().relative_to(ROOT)
        if str(path) in FILES:
            return f"{before}{FILES[str(path)]}{part or ''}{after}"
        if not (ROOT / path).is_file():
            raise SystemExit(f"There is no file {path}, to which a page links.")
        copied = PAGES / "files" / path
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, copied)
        return f"{before}files/{path}{after}"

    return LINK.sub(on_the_site, text)


def write_reference(page: Path, title: str, module: str, members: list[str] | None) -> None:
    """A page of what users import: classes and functions one after the other."""
    names = public(module)
    blocks = []
    for name in members or names:
        blocks += [names[name]] if name in names else public(f"{module}.{name}").values()
    page.parent.mkdir(parents=True, exist_ok=True)
    text = "\n\n".join([f"# {title}", *(f"::: {name}" for name in blocks)])
    page.write_text(text + "\n", "utf-8")


def public(module: str) -> dict[str, str]:
    """The classes and functions that a module is imported for, and where each of them stands."""
    path = ROOT / "src" / module.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found = {}
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and path.is_dir():
            for name in node.names:
                if name.asname == name.name:
                    found[name.name] = f"{node.module}.{name.name}"
    if path.is_dir():
        return {k: v for k, v in found.items() if not is_module(v)}
    of_file = (n for n in ast.parse(file.read_text("utf-8")).body if hasattr(n, "name"))
    return {n.name: f"{module}.{n.name}" for n in of_file if not n.name.startswith("_")}


def is_module(name: str) -> bool:
    path = ROOT / "src" / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


if __name__ == "__main__":
    main()
