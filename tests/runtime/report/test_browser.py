"""The report in a real browser: it draws, sorts and answers the pointer, without an error and without a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runtime.report.formats import write
from tests.helpers.browser import chromium, log, requests, view
from tests.helpers.cells import cell, ratio, series
from vitnla.common.measures import LayerRow

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    layers = [
        LayerRow(
            block=block, linear=linear, rank=8, full_rank=16, macs=10, parameters=10, relative_error=0.1, retained_energy=0.9
        )
        for block in range(2)
        for linear in ("qkv", "fc1")
    ]
    extra = cell(
        "a bundle with a name so long that it has to take several lines-or-more", 400, 0.92,
        layers=layers, ratio=ratio("dense/ort/fp32/b1", 1.2), warnings=("variation is 3.1%, above 2.5%",),
        losses=[
            {
                "stage": "decomposition", "before": "dense", "after": "svd", "top1": 0.925, "lost_points": 0.9, "lost": 9, "gained": 4,
                "flips": 21, "flip_margin": None, "typical_margin": 0.9, "logit_error": 0.07,
            }
        ],
        export_accuracy={
            "split": "test", "fingerprint": "f", "images": 500, "dense_top1": 0.934, "top1": 0.925, "agreement": 0.98,
        },
        accuracy_images=500,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("report") / "report.html"
    write([*series(), extra, *series(batch=16), cell("broken", 1, 0, error="it crashed")], path, "html", "Browser test")
    return path


@pytest.fixture(scope="module")
def browser(page: Path) -> Iterator[Chrome]:
    with chromium("--disable-gpu") as driver:
        driver.get(page.as_uri())
        yield driver


def column(browser: Chrome, key: int) -> list[list[str]]:
    """The texts of a column, by group of rows."""
    script = """return [...document.querySelector("table.cells").tBodies].map(
        (body) => [...body.rows].filter((row) => row.cells.length > 1).map((row) => row.cells[arguments[0]].dataset.value))"""
    found: list[list[str]] = browser.execute_script(script, key)
    return found


def test_draws_every_plot_without_error_or_network(browser: Chrome, page: Path) -> None:
    drawn: list[list[Any]] = browser.execute_script(
        """return [...document.querySelectorAll(".plot")].map((plot) => [plot.querySelector("figcaption").textContent,
            plot.querySelectorAll(".main-svg").length, plot.querySelector(".chart").getBoundingClientRect().width,
            plot.querySelectorAll(".point, .violin, .hm image").length])"""
    )
    assert len(drawn) == 2 + 2 + 3 + 1 + 2
    assert all(surfaces and width > 300 and marks for _, surfaces, width, marks in drawn), drawn
    assert [entry for entry in log(browser) if entry.startswith("SEVERE")] == []
    assert requests(browser) == [page.as_uri()]


def test_table_fits_and_sorts_within_its_groups(browser: Chrome) -> None:
    from selenium.webdriver.common.by import By

    box = browser.find_element(By.CSS_SELECTOR, ".scroll")
    assert browser.execute_script("return arguments[0].scrollWidth <= arguments[0].clientWidth", box)
    buttons = browser.find_elements(By.CSS_SELECTOR, ".cells th button")
    rate = next(index for index, button in enumerate(buttons) if button.text == "Images/s")
    before = column(browser, rate)
    for reverse in (True, False):
        buttons[rate].click()
        assert column(browser, rate) == [sorted(group, key=float, reverse=reverse) for group in before]
    assert buttons[rate].find_element(By.XPATH, "..").get_attribute("aria-sort") == "ascending"
    assert [heading.text for heading in browser.find_elements(By.CSS_SELECTOR, ".group")] == ["batch 1", "batch 16"]


def test_points_answer_the_pointer(browser: Chrome) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.wait import WebDriverWait

    chart = browser.find_element(By.CSS_SELECTOR, ".chart")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'}); window.clicked = null;", chart)
    browser.execute_script("arguments[0].on('plotly_click', (event) => { window.clicked = event.points[0].x; })", chart)
    names = []
    for name in ("dense/ort/fp32/b1", "demo-svd-0.5/ort/fp32/b1"):
        point = browser.execute_script(
            """const index = arguments[0].data.findIndex((trace) => trace.name === arguments[1]);
            return arguments[0].querySelectorAll(".scatterlayer .trace")[index].querySelector(".point")""",
            chart, name,
        )  # fmt: skip
        # Plotly ignores pointers over its SVG marks: the drag layer above them takes the event, so the move is by position.
        place = browser.execute_script(
            "const b = arguments[0].getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]", point
        )
        actions = ActionChains(browser)
        actions.w3c_actions.pointer_action.move_to_location(round(place[0]), round(place[1]))
        actions.w3c_actions.pointer_action.click()
        actions.perform()
        shown = WebDriverWait(browser, 5).until(
            lambda driver: driver.execute_script("return document.querySelector('.hoverlayer').textContent")
        )
        names.append((name in shown, "images/s" in shown))
    assert names == [(True, True), (True, True)]
    assert browser.execute_script("return window.clicked") == pytest.approx(462)


def test_warnings_unfold(browser: Chrome) -> None:
    from selenium.webdriver.common.by import By

    (notice,) = browser.find_elements(By.CSS_SELECTOR, "details.notice-kind")
    entry = notice.find_element(By.TAG_NAME, "li")
    assert not entry.is_displayed()
    notice.find_element(By.TAG_NAME, "summary").click()
    assert entry.is_displayed()


_COVERED = """return [...document.querySelectorAll(".chart")].flatMap((chart) => {
    const labels = [...chart.querySelectorAll(".textpoint text")].filter((text) => text.style.visibility !== "hidden");
    const boxes = labels.map((text) => text.getBoundingClientRect()), edge = chart.getBoundingClientRect();
    return boxes.filter((box, i) => box.right > edge.right || boxes.slice(i + 1).some((other) =>
        box.left < other.right && other.left < box.right && box.top < other.bottom && other.top < box.bottom))})"""


def test_tables_of_steps_and_layers_unfold_and_sort(browser: Chrome) -> None:
    from selenium.webdriver.common.by import By

    for summary, first in (("What each step", "a bundle with"), ("The same in numbers", "0.fc1")):
        details = next(one for one in browser.find_elements(By.CSS_SELECTOR, "details.more") if summary in one.text)
        details.find_element(By.TAG_NAME, "summary").click()
        details.find_element(By.CSS_SELECTOR, "th button").click()
        assert details.find_element(By.CSS_SELECTOR, "tbody td").text.startswith(first)


def test_labels_cover_one_another_at_no_width(browser: Chrome) -> None:
    shown = "return [...document.querySelectorAll('.textpoint text')].filter((text) => text.style.visibility !== 'hidden').length"
    seen = []
    for width in (1200, 390, 1200):
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.execute_script(
            "document.querySelectorAll('.chart').forEach((chart) => Plotly.relayout(chart, { autosize: true }))"
        )
        assert browser.execute_script(_COVERED) == []
        seen.append(browser.execute_script(shown))
    assert seen[0] == seen[2] >= seen[1] > 0
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_shows_the_page_without_sideways_scrolling(browser: Chrome, scheme: str) -> None:
    from selenium.webdriver.support.wait import WebDriverWait

    view(browser, 390, 800, scheme)
    # The charts follow the width when the browser reports it.
    fits = "return innerWidth === 390 && document.documentElement.scrollWidth <= innerWidth"
    WebDriverWait(browser, 5).until(lambda driver: driver.execute_script(fits))
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}[scheme]
