"""The page in a browser: search, slider, classes, map; by keyboard, on a phone, in the dark."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from browser import SCREENS, assert_accessible, assert_fits, looks_at_pages, opened, started

from .conftest import EVIL

expect = pytest.importorskip("playwright.sync_api").expect
if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = looks_at_pages


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with started() as found:
        yield found


@pytest.fixture
def wrong() -> list[str]:
    """What went wrong in the page."""
    return []


@pytest.fixture(params=SCREENS)
def page(
    request: pytest.FixtureRequest,
    browser: "Browser",
    address: tuple[str, int],
    wrong: list[str],
) -> Iterator["Page"]:
    """The page as it has begun; nothing may go wrong in it, and nothing be asked of others."""
    asked = set()
    server = re.compile(r"^(blob:)?(\w+://[^/]*|data:).*", re.S)
    root = f"http://{address[0]}:{address[1]}"
    with opened(browser, request.param) as found:
        found.on("pageerror", lambda error: wrong.append(str(error)))
        found.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
        found.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        found.on("request", lambda one: asked.add(server.sub(r"\2", one.url)))
        found.goto(root)
        found.wait_for_selector("body[data-ready]")
        yield found
        assert_fits(found)
        colour = found.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (colour == "rgb(22, 22, 22)") == (request.param == "dark")
    assert wrong == []
    assert asked <= {root, "data:"}


def test_search_and_the_slider(page: "Page", photos: Path) -> None:
    page.set_input_files("#file", [str(photos / EVIL / "0.png"), str(photos / "class 2" / "1.png")])
    expect(page.locator(".result")).to_have_count(2)
    expect(page.locator(".result .card")).to_have_count(16)
    evil = page.locator(".result", has=page.get_by_role("heading", name="0.png"))
    expect(evil.locator(".verdict")).to_have_text(f"Known: {EVIL}")
    expect(evil.locator(".card").first).to_contain_text("distance 0.0000")
    slider = page.locator("#slider")
    before = [page.locator(one).inner_text() for one in ("#distance", "#far", "#frr")]
    slider.press("End")
    expect(page.locator("#far")).to_have_text("100.0%")
    few = page.locator(".card.away").count()
    slider.press("Home")
    expect(page.locator("#far")).to_have_text("0.0%")
    assert page.locator(".card.away").count() > few
    expect(page.locator(".card.away").first).to_contain_text("too far")
    assert "false accepts" in str(slider.get_attribute("aria-valuetext"))
    page.get_by_label("per pair").check()
    expect(page.locator("#threshold-words")).to_contain_text("pairs of two classes")
    page.get_by_label("per search").check()
    page.get_by_role("button", name="Back to the run's threshold").click()
    assert before == [page.locator(one).inner_text() for one in ("#distance", "#far", "#frr")]
    page.get_by_role("button", name="Clear the results").click()
    expect(page.locator(".result")).to_have_count(0)


def test_an_image_is_dropped(page: "Page", photos: Path) -> None:
    content = list((photos / "class 2" / "1.png").read_bytes())
    page.evaluate(
        """([content]) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(content)], "dropped.png", {type: "image/png"}));
          const drop = document.getElementById("drop");
          drop.dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true}));
        }""",
        [content],
    )
    expect(page.locator(".verdict")).to_have_text("Known: class 2")


def test_what_is_no_image_is_told(page: "Page", tmp_path: Path, wrong: list[str]) -> None:
    (tmp_path / "<b>no.png").write_text("text")
    page.set_input_files("#file", str(tmp_path / "<b>no.png"))
    alert = page.locator(".result").get_by_role("alert")
    expect(alert).to_contain_text("<b>no.png is no image of a format that is taken")
    assert len(wrong) == 1  # the browser itself notes an answer of 415
    wrong.clear()


def test_classes_and_an_item(page: "Page") -> None:
    page.get_by_role("link", name="Classes").click()
    expect(page.locator("#class-grid .card")).to_have_count(24)
    page.get_by_label("Find a class").fill("onerror")
    expect(page.locator("#class-grid .card")).to_have_count(1)
    page.locator("#class-grid .card").click()
    expect(page.get_by_role("heading", name=EVIL, exact=True)).to_be_visible()
    expect(page.locator("#member-grid .card")).to_have_count(6)
    page.locator("#member-grid .card").nth(2).click()
    expect(page.get_by_role("heading", name=f"{EVIL}/2.png")).to_be_visible()
    expect(page.locator("#item .grid .card")).to_have_count(12)
    assert page.evaluate("document.querySelectorAll('img[src=x]').length") == 0
    page.get_by_role("link", name="show on the map").click()
    expect(page.locator("#map-item h2")).to_have_text(EVIL)
    expect(page.locator("#map-neighbours .card")).to_have_count(9)


def test_the_map_by_mouse(page: "Page") -> None:
    page.get_by_role("link", name="Map").click()
    expect(page.locator("#map-words")).to_contain_text("144 items.")
    expect(page.locator("#map .point")).to_have_count(144)
    page.get_by_label("main directions").check()
    page.wait_for_timeout(500)
    page.locator("#map .point").nth(30).click(force=True)
    expect(page.locator("#map-neighbours .card")).to_have_count(9)
    name = page.locator("#map-item p a").inner_text()
    page.locator("#map-neighbours .card").first.click()
    expect(page.locator("#map-item p a")).not_to_have_text(name)


def test_by_keyboard_alone(page: "Page", photos: Path) -> None:
    def focused() -> str:
        return str(page.evaluate("document.activeElement.id || document.activeElement.textContent"))

    def tab_to(wanted: str) -> None:
        for _ in range(40):
            if focused() == wanted:
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"Tab does not reach {wanted}, but {focused()}")

    page.keyboard.press("Tab")
    assert focused() == "skip"
    page.keyboard.press("Enter")
    assert focused() == "main"
    tab_to("file")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    chooser.value.set_files(str(photos / "class 2" / "1.png"))
    expect(page.locator(".verdict")).to_have_text("Known: class 2")
    tab_to("slider")
    distance = page.locator("#distance").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("#distance").inner_text() > distance
    page.evaluate("document.activeElement.blur()")
    tab_to("Map")
    page.keyboard.press("Enter")
    expect(page.locator("#map .point")).to_have_count(144)
    expect(page.locator("#map-words")).to_contain_text("144 items.")
    tab_to("map")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#map-neighbours .card")).to_have_count(9)
    first = page.locator("#map-item p a").inner_text()
    for key in ("ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "ArrowUp"):
        page.keyboard.press(key)
    for key in ("+", "-", "0"):
        page.keyboard.press(key)
    expect(page.locator("#map-neighbours .card")).to_have_count(9)
    page.wait_for_timeout(300)
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.classList.contains('card')")
    chosen = page.locator("#map-item p a").inner_text()
    page.keyboard.press("Enter")
    expect(page.locator("#map-item p a")).not_to_have_text(chosen)
    assert first


def test_who_cannot_see_it_is_not_left_out(page: "Page", photos: Path) -> None:
    assert_accessible(page)
    page.set_input_files("#file", str(photos / "class 2" / "1.png"))
    expect(page.locator(".verdict")).to_have_text("Known: class 2")
    assert_accessible(page)
    page.get_by_role("link", name="Classes").click()
    expect(page.locator("#class-grid .card")).to_have_count(24)
    assert_accessible(page)
    page.locator("#class-grid .card").nth(3).click()
    expect(page.locator("#member-grid .card")).to_have_count(6)
    assert_accessible(page)
    page.locator("#member-grid .card").first.click()
    expect(page.locator("#item .grid .card")).to_have_count(12)
    assert_accessible(page)
    page.get_by_role("link", name="show on the map").click()
    expect(page.locator("#map-neighbours .card")).to_have_count(9)
    assert_accessible(page)
    page.evaluate("document.body.append(new Image())")  # without words
    with pytest.raises(AssertionError, match="alternative text"):
        assert_accessible(page)
