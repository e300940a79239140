"""A headless Chromium, and what a page did in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome


def executable(*names: str) -> str:
    """The first of the programs that is installed; the test is skipped where none is."""
    found = next((path for path in map(shutil.which, names) if path), None)
    if found is None:
        pytest.skip(f"needs {' or '.join(names)} (Debian: apt-get install chromium chromium-driver)")
    return found


@contextmanager
def chromium(*flags: str) -> Iterator[Chrome]:
    """Chromium with a log of its console and its requests; the test is skipped where it, or selenium, is not installed."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install 'vitdeploy[dev]'")
    options = webdriver.ChromeOptions()
    options.binary_location = executable("chromium", "chromium-browser", "google-chrome")
    for flag in ("--headless=new", "--no-sandbox", "--window-size=1200,1600", *flags):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=executable("chromedriver"))
    with webdriver.Chrome(options=options, service=service) as driver:
        yield driver


def view(browser: Chrome, width: int, height: int, scheme: str) -> None:
    """Show pages at a size in pixels, `light` or `dark`."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def log(browser: Chrome) -> list[str]:
    """What the console has shown since it was last asked for, as `LEVEL message`."""
    return [f"{entry['level']} {entry['message']}" for entry in browser.get_log("browser")]


def requests(browser: Chrome) -> list[str]:
    """The addresses that pages have asked for since this was last asked for, but for what is inside of the page."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"]
    return [url for url in urls if not url.startswith(("data:", "blob:"))]
