"""The web example, served and used as a visitor would: pages opened, files dropped, answers read."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

_STATE = """
const text = (id) => document.getElementById(id)?.textContent ?? "";
const bars = [...document.querySelectorAll("#answers li")].map((bar) => [
    bar.querySelector(".label").textContent, Number(bar.style.getPropertyValue("--share"))]);
return {caption: text("caption"), error: document.getElementById("error").hidden ? "" : text("error"), check: text("check"),
    running: text("running"), bars: bars.map(([label, share]) => ({label, share}))}
"""


@dataclass(frozen=True)
class Shown:
    """What the page says: the words of its lines, and label -> probability of its bars."""

    caption: str
    error: str
    check: str
    running: str
    bars: Mapping[str, float]


@contextmanager
def served(app: Path) -> Iterator[str]:
    """The address of an example while its own server runs."""
    with subprocess.Popen(["node", "serve.mjs", "0"], cwd=app, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.kill()


def shown(browser: Chrome) -> Shown:
    """What the page says now."""
    state: dict[str, Any] = browser.execute_script(_STATE)
    return Shown(**state | {"bars": {bar["label"]: bar["share"] for bar in state["bars"]}})


def opened(browser: Chrome, url: str, *, seconds: float = 60) -> Shown:
    """The page, opened, when it has checked the sample or said why it cannot."""
    browser.get(url)
    return settled(browser, lambda page: page.check not in ("", "…"), seconds)


def dropped(browser: Chrome, path: Path, *, seconds: float = 60) -> Shown:
    """What the page says about an image file that is dragged from the desktop onto it. Its name differs from the last one's."""
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.execute_cdp_cmd("Input.dispatchDragEvent", {"type": kind, "x": 200, "y": 300, "data": data})
    return settled(browser, lambda page: page.caption == path.name and bool(page.bars or page.error), seconds)


def settled(browser: Chrome, done: Callable[[Shown], bool], seconds: float = 60) -> Shown:
    """What the page says once `done` holds."""
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(browser, seconds, poll_frequency=0.05).until(lambda driver: done(shown(driver)))
    return shown(browser)
