"""Which tests a change concerns, for `make changed`; CI runs them all.

Alone it prints the other targets of the Makefile that the change concerns.
"""

import ast
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What is not tested in a folder of its own name: where its tests lie.
ELSEWHERE = {
    "kinfold_serving": "serving", "kinfold_cli": "command_line", "kinfold_bundle": "serving",
    "docs": "readme", "README": "readme", "examples": "examples", "mkdocs": "site",
    "model": "fit", "remembering": "memory",
}  # fmt: skip
ALL = ("pyproject.toml", "constraints.txt", "tests/conftest.py", "src/kinfold/__init__.py")
TARGETS = {
    "test-pages": r"docs/|README|mkdocs|tools/site|src/kinfold_serving/|.*/report/",
    "test-r": r"r/|src/kinfold/losses/|tools/check_r|pyproject|constraints",
    "test-wheel": r"pyproject|constraints|tools/check_wheel|src/kinfold/__init__",
}


def changed_files() -> list[str]:
    """What differs from where this branch left main, with what is not committed."""
    base = _git("merge-base", "HEAD", "main") or _git("merge-base", "HEAD", "origin/main")
    names = _git("diff", "--name-only", *(base or ["HEAD"]))
    return sorted({*names, *_git("ls-files", "--others", "--exclude-standard")})


def _git(*arguments: str) -> list[str]:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.splitlines()


def concerned(changed: Iterable[str], apart: Iterable[str] = ()) -> list[str]:
    """The files for pytest: tests of the same room, tests that name what changed, its doctests.

    Args:
        changed: the files that differ.
        apart: folders whose tests concern a change of their own room alone, as they take long.
    """
    of_room_alone = tuple(f"tests/{folder}" for folder in apart)
    changed = list(changed)
    tests = {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")}
    if any(name in ALL for name in changed):
        return ["src", *sorted(tests)]
    chosen = {name for name in changed if name.endswith(".py") and name.startswith("src/")}
    chosen = {name for name in chosen if (ROOT / name).exists()}
    words = _words(changed)
    for test in tests:
        text = (ROOT / test).read_text("utf-8")
        if (
            test in changed
            or any(_is_of(test, room) for room in map(_room, changed))
            or (
                words
                and not test.startswith(of_room_alone)
                and re.search(rf"\b({'|'.join(words)})\b", text)
            )
        ):
            chosen.add(test)
    return sorted(chosen)


def _room(name: str) -> str:
    parts = Path(name).with_suffix("").parts
    if parts[:2] == ("src", "kinfold"):
        parts = parts[2:]
    elif parts[0] in ("src", "tests"):
        parts = parts[1:] if len(parts) > 1 else parts
    return ELSEWHERE.get(parts[0], "command_line" if parts[0].startswith("_kinfold") else parts[0])


def _is_of(test: str, room: str) -> bool:
    return test.startswith((f"tests/{room}/", f"tests/test_{room}"))


def _words(changed: Iterable[str]) -> list[str]:
    """The public names that a changed module defines, and the names of changed test helpers."""
    words = set()
    for name in changed:
        path = ROOT / name
        if path.suffix != ".py" or not path.exists() or path.name.startswith("test_"):
            continue
        if name.startswith("tests/"):
            words.add(path.stem)
        elif name.startswith("src/"):
            words |= {
                node.name
                for node in ast.parse(path.read_text("utf-8")).body
                if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name[0] != "_"
            }
    return sorted(words)


def targets_of(changed: Iterable[str]) -> list[str]:
    """The other targets of the Makefile that these files concern."""
    changed = list(changed)
    return [to for to, what in TARGETS.items() if any(re.match(what, name) for name in changed)]


if __name__ == "__main__":
    print(*targets_of(changed_files()))
