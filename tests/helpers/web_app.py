"""The web example, served and used as a visitor would: pages opened, files dropped, answers read."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

_STATE = """
const text = (id) => document.getElementById(id)?.textContent ?? "";
const bars = [...document.querySelectorAll("#answers li")].map((bar) => [
    bar.querySelector(".label").textContent, Number(bar.style.getPropertyValue("--share"))]);
return {caption: text("caption"), error: document.getElementById("error").hidden ? "" : text("error"), check: text("check"),
    running: text("running"), bars: bars.map(([label, share]) => ({label, share}))}
"""

# Functions of the page, with the modules that an app would import.
_FILE = "new File([await (await fetch(argument)).blob()], argument)"
_PIXELS = f"""
const {{ readPixels }} = await import("./picture.js");
const settings = await (await fetch("settings.json")).json();
const pixels = await readPixels({_FILE}, settings);
"""
_PREPARED = "const { prepare } = await import('./preprocess.mjs'); const { data, dims } = prepare(pixels, settings);"
_ANSWERS = """
const [{ Classifier }, { readPixels }] = await Promise.all([import("./classifier.js"), import("./picture.js")]);
const classifier = await Classifier.load();
const answers = [];
for (const name of argument) {
    const file = new File([await (await fetch(name)).blob()], name);
    answers.push([...(await classifier.classify(await readPixels(file, classifier.settings))).answers]);
}
return answers;
"""
_PASTE = """
const clipboardData = new DataTransfer();
clipboardData.items.add(new File([Uint8Array.from(arguments[0])], "pasted", {type: "image/png"}));
document.dispatchEvent(new ClipboardEvent("paste", {clipboardData, bubbles: true}));
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


def pasted(browser: Chrome, path: Path) -> Shown:
    """What the page says about an image that is pasted."""
    browser.execute_script(_PASTE, list(path.read_bytes()))
    return settled(browser, lambda page: page.caption == "pasted" and bool(page.bars or page.error))


def pixels(browser: Chrome, name: str) -> NDArray[np.int64]:
    """A file of the example as the page decodes it, [H, W, 3]."""
    found = _called(browser, f"{_PIXELS} return [[pixels.height, pixels.width, pixels.channels], [...pixels.data]]", name)
    return np.reshape(np.asarray(found[1], np.int64), found[0])


def prepared(browser: Chrome, name: str) -> NDArray[np.float64]:
    """A file of the example as the page feeds it to the model."""
    dims, data = _called(browser, f"{_PIXELS} {_PREPARED} return [dims, [...data]]", name)
    return np.reshape(np.asarray(data, np.float64), dims)


def answered(browser: Chrome, names: list[str]) -> NDArray[np.float32]:
    """All answers [N, classes] to files of the example."""
    return np.asarray(_called(browser, _ANSWERS, names), np.float32)


def _called(browser: Chrome, script: str, argument: object) -> Any:
    """What an asynchronous script returns in the page."""
    whole = (
        f"const done = arguments[1]; (async (argument) => {{{script}}})(arguments[0]).then(done, (error) => done(String(error)))"
    )
    return browser.execute_async_script(whole, argument)


def settled(browser: Chrome, done: Callable[[Shown], bool], seconds: float = 60) -> Shown:
    """What the page says once `done` holds."""
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(browser, seconds, poll_frequency=0.05).until(lambda driver: done(shown(driver)))
    return shown(browser)
