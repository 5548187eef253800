#!/usr/bin/env bash
# Builds, checks and tries the R package: make test-r. Where R is missing and can be installed from
# Debian's packages, it is; where it cannot, a sentence says so, and the rest of the project stands.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p build
# The last two are what Debian's own Python lacks for reticulate and for an environment.
packages=(r-base-core r-cran-reticulate r-cran-testthat libpython3-dev python3-venv)
there() { Rscript -e 'for (p in c("reticulate", "testthat")) loadNamespace(p)' >/dev/null 2>&1; }

if ! there && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    (apt-get update -qq && apt-get install -y -qq --no-install-recommends "${packages[@]}") \
        >build/apt.log 2>&1 || tail -n 3 build/apt.log
fi
if ! there; then
    echo "The R package is NOT tested: R with reticulate and testthat is missing, and cannot be" \
        "installed here. On Debian: apt install ${packages[*]}"
    exit 0
fi

venv=${VENV_R:-.venv-r}
make --no-print-directory "$venv/.test" VENV="${venv%-r}" PYTHON="${PYTHON:-python3}"
RETICULATE_PYTHON="$(cd "$venv" && pwd)/bin/python"
export RETICULATE_PYTHON KERAS_BACKEND=torch
export LANG=C.UTF-8 TF_CPP_MIN_LOG_LEVEL=3

echo "== R: R CMD build and R CMD check --no-manual"
rm -rf build/r && mkdir -p build/r
(cd build/r && R CMD build ../../r && _R_CHECK_FORCE_SUGGESTS_=true R CMD check --no-manual kinfold_*.tar.gz)
if grep -E "^\* .*(ERROR|WARNING)$" build/r/kinfold.Rcheck/00check.log; then exit 1; fi

echo "== R: help pages as tools/help.R writes them"
mkdir build/r/man
(cd r && Rscript tools/help.R ../build/r/man)
for page in build/r/man/*.Rd; do diff "r/man/$(basename "$page")" "$page"; done

echo "== R: the example"
R_LIBS="$PWD/build/r/kinfold.Rcheck" Rscript r/inst/examples/glyphs.R | tail -n 1
