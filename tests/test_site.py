"""The site: it builds without a warning, fits every screen, and can be heard."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import SCREENS, assert_accessible, assert_fits, looks_at_pages, opened, started

pytestmark = looks_at_pages

ROOT = Path(__file__).parent.parent
SITE = ROOT / "build" / "site"
PAGES = ("index", "training", "losses", "reference/losses", "benchmarks", "sound")


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    pytest.importorskip("mkdocs")
    subprocess.run([sys.executable, "tools/site.py"], cwd=ROOT, check=True)
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet"],  # strict: a warning is an error
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert not built.stderr.strip()
    with started() as found:
        yield found


def test_every_page_of_the_repository_is_there(browser: object) -> None:
    for page in (ROOT / "docs").glob("*.md"):
        assert (SITE / f"{page.stem}.html").exists(), page.name
    reference = (SITE / "reference" / "losses.html").read_text("utf-8")
    from kinfold import losses

    names = [name for name in vars(losses) if name.endswith("Loss")]
    assert len(names) > 30
    for name in names:
        assert f'class="doc doc-object-name doc-class-name">{name}<' in reference, name


@pytest.mark.parametrize("screen", SCREENS)
def test_pages_fit_and_are_accessible(browser: object, screen: str) -> None:
    with opened(browser, screen) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        for name in PAGES:
            page.goto((SITE / f"{name}.html").as_uri())
            page.wait_for_selector("article h1")
            page.wait_for_timeout(300)  # the script that reaches what scrolls
            assert_fits(page)
            assert_accessible(page)
        assert all(url.startswith("file:") for url in asked), "a page asks another machine"
