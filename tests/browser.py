"""A browser that tests look at pages in: this machine's Chromium, or the one of playwright.

`make test-pages` installs what it may and runs these tests. Elsewhere they are skipped where no
browser is.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
SCREENS = ("laptop", "phone", "dark")

looks_at_pages = [pytest.mark.pages, pytest.mark.once]


@contextmanager
def started() -> Iterator["Browser"]:
    """The browser, until it is closed."""
    if "KINFOLD_TEST_PAGES" not in os.environ:
        pytest.importorskip("axe_playwright_python")
    from playwright.sync_api import Error, sync_playwright

    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    sandbox = [] if hasattr(os, "geteuid") and os.geteuid() else ["--no-sandbox"]
    with sync_playwright() as playwright:
        try:
            found = playwright.chromium.launch(executable_path=path, args=sandbox)
        except Error:
            if "KINFOLD_TEST_PAGES" in os.environ:
                raise
            pytest.skip("no Chromium is installed")
        yield found
        found.close()


@contextmanager
def opened(browser: "Browser", screen: str) -> Iterator["Page"]:
    """An empty page on a laptop, a phone, or a laptop that is set to dark."""
    phone = screen == "phone"
    context = browser.new_context(
        viewport={"width": 390 if phone else 1280, "height": 844},
        color_scheme="dark" if screen == "dark" else "light",
        has_touch=phone,
    )
    context.set_default_timeout(20_000)
    yield context.new_page()
    context.close()


def assert_fits(page: "Page") -> None:
    """Nothing is wider than the screen."""
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def assert_accessible(page: "Page") -> None:
    """Whoever hears a page, or goes through it by keyboard, meets no fault that axe knows."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
