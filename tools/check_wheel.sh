#!/usr/bin/env bash
# What users install: builds the sdist and the wheel, looks into both, installs the wheel in an
# environment of its own and trains with it, away from this folder, and tries each extra alone
# (tools/check_extras.sh). make test-wheel
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
rm -rf "$VENV_WHEEL" build/dist build/wheel
"$PYTHON" -m venv "$VENV_WHEEL"
python=$root/$VENV_WHEEL/bin/python
pip() { "$python" -m pip install --quiet --disable-pip-version-check -c constraints.txt "$@"; }

pip hatchling
"$python" -m hatchling build -d build/dist
"$python" - build/dist/*.whl build/dist/*.tar.gz <<'END'
import sys, tarfile, zipfile
from pathlib import Path

wheel, sdist = sys.argv[1:]
there = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
source = {str(p.relative_to("src")) for p in Path("src").rglob("*") if p.is_file()}
source = {name for name in source if "__pycache__" not in name and not name.endswith(".pyc")}
assert there == source, f"in one of wheel and src/ alone: {sorted(there ^ source)}"
names = {name.split("/", 1)[-1] for name in tarfile.open(sdist).getnames()}
for name in ("README.md", "LICENSE", "pyproject.toml", "CHANGELOG.md", "tests/cases.py"):
    assert name in names, f"the sdist lacks {name}"
END
wheel=$(ls "$root"/build/dist/*.whl)
pip "$wheel[jax,train]"
mkdir -p build/wheel
cd build/wheel
export KERAS_BACKEND=jax
"$root/$VENV_WHEEL/bin/kinfold" --version
"$root/$VENV_WHEEL/bin/kinfold" train glyphs --out run --epochs 1 --steps-per-epoch 10 >train.log 2>&1 ||
    { tail -n 20 train.log; exit 1; }
for file in model.keras metrics.json report.html; do test -s "run/$file"; done
"$python" -c 'import kinfold; assert "site-packages" in kinfold.__file__, kinfold.__file__'
PYTHON=$(command -v "$PYTHON") "$root/tools/check_extras.sh" "$wheel" run
echo "The wheel holds what src/ holds, and trains: $(basename "$wheel")"
