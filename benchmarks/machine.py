"""Where and with what a benchmark ran, and the file that says so."""

import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("kinfold", "keras", "numpy", "jax", "jaxlib", "torch", "tensorflow", "tensorflow-cpu")
PEERS = ("pytorch-metric-learning", "inf-cl", "triton")
DRAWING = ("matplotlib", "pillow")  # on which the pictures of the glyphs depend


def describe() -> dict[str, Any]:
    """Date, commit, versions and device."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "versions": _versions(),
        "device": {
            "cpu": _cpu(),
            "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
            "memory_gib": round(memory / 2**30, 1),
            "system": f"{platform.system()} {platform.machine()}",
        },
    }


def write(path: Path, record: dict[str, Any]) -> None:
    """Write JSON beside the file and put it in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".json.part")
    beside.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


def rows_in(path: Path) -> list[dict[str, Any]]:
    """The rows that an earlier run wrote."""
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []


def left(jobs: Iterable[dict[str, Any]], rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The jobs that have no row yet, each named as it begins."""
    for job in jobs:
        if not any(job.items() <= row.items() for row in rows):
            print(job, file=sys.stderr, flush=True)
            yield job


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in PACKAGES + PEERS + DRAWING:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _commit() -> dict[str, Any] | None:
    """Commit of the code that runs, and whether what it consists of differs from the commit."""
    code = ("src", "benchmarks", "pyproject.toml", ":!benchmarks/results")
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None
    return {"id": commit, "dirty": bool(_git("status", "--porcelain", "--", *code))}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
