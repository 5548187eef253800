#!/usr/bin/env bash
# The tests of what is computed with other versions, on the backend named (jax, tensorflow, torch), in
# an environment of their own. PIN=oldest takes the oldest Keras and framework that pyproject.toml
# allows, PIN=nightly Keras's nightly build, and without it the newest of all. PYTHON is the interpreter:
# PYTHON=python3.13 make test-versions BACKEND=jax
set -euo pipefail
cd "$(dirname "$0")/.."
backend=$1
venv=.venv-versions
rm -rf "$venv"
"$PYTHON" -m venv "$venv"
python=$venv/bin/python
pip() { "$python" -m pip install --quiet --disable-pip-version-check "$@"; }

framework=$backend
if [ "$backend" = tensorflow ]; then framework=tensorflow-cpu; fi
versions=()
if [ "${PIN:-}" = oldest ]; then
    for name in keras "$backend"; do
        least=$(grep -oE "\"$name>=[0-9.]+\"" pyproject.toml | tr -d '">=' | sed "s/^$name//")
        versions+=("${name/#$backend/$framework}==$least.*")
    done
fi
pip -e '.[train]' "$framework" ${versions[@]+"${versions[@]}"} pytest hypothesis scipy grain faiss-cpu
if [ "${PIN:-}" = nightly ]; then
    "$python" -m pip uninstall --quiet --yes keras
    pip --pre keras-nightly
fi
"$python" --version
"$python" -m pip list --format=freeze | grep -iE '^(keras|keras-nightly|jax|torch|tensorflow_cpu|numpy)=='
files=$("$python" -c 'import sys; sys.path.insert(0, "tools"); sys.argv[1:] = ["core"]; import check; print(*check.chosen_files()[1:])')
KERAS_BACKEND=$backend "$python" -m pytest -m "not pages" $files
