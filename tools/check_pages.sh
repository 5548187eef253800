#!/usr/bin/env bash
# Looks at the pages in a browser: make test-pages. Where Chromium is missing and can be installed,
# from Debian's packages or by playwright, it is; where it cannot, a sentence says so.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p build
there() {
    command -v chromium || command -v chromium-browser || command -v google-chrome ||
        "$PYTHON" -c '
import pathlib
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    assert pathlib.Path(playwright.chromium.executable_path).exists()'
}

if ! there >/dev/null 2>&1 && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    (apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium) \
        >build/pages.log 2>&1 || tail -n 3 build/pages.log
fi
if ! there >/dev/null 2>&1; then
    timeout 300 "$PYTHON" -m playwright install chromium >build/pages.log 2>&1 ||
        tail -n 3 build/pages.log
fi
if ! there >/dev/null 2>&1; then
    echo "The pages are NOT tested: there is no Chromium here, and it cannot be installed. On" \
        "Debian: apt install chromium"
    exit 0
fi
KINFOLD_TEST_PAGES=1 KERAS_BACKEND=torch "$PYTHON" -m pytest -m pages --durations=5 \
    tests/serving/test_page.py tests/training/test_report.py tests/test_site.py
