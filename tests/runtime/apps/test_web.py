"""`vitdeploy embed --target web`: the page, in a real browser, answers as the bundle does, and says what it cannot."""

from __future__ import annotations

import http.client
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageOps

import export.graph.files
from runtime.apps.pictures import png, reference_pictures
from runtime.apps.settings import settings_of
from runtime.apps.write import write_app
from runtime.bundle.schema import Bundle
from runtime.check.logits import relative_error
from tests.helpers.browser import chromium, log, requests, view
from tests.helpers.bundles import copy_bundle
from tests.helpers.exports import export_decomposition
from tests.helpers.images import BAD, GOOD, write_images
from tests.helpers.npm import npm_install
from tests.helpers.web_app import answered, dropped, opened, pasted, pixels, prepared, served, settled
from vitnla.data.dataset import Dataset
from vitnla.data.image_files import ImageFiles
from vitnla.data.preprocessing import Preprocessing
from vitnla.methods import Decomposition
from vitnla.sources.source_model import SourceModel

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's `ort/`, made once by its own `npm install`."""
    folder = tmp_path_factory.mktemp("npm")
    npm_install("web", ("package.json", "copy-runtime.mjs"), folder)
    return folder / "ort"


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with chromium("--disable-gpu") as driver:
        yield driver


@pytest.fixture(scope="module")
def int8_bundle(
    tiny_source: SourceModel, tiny_low_rank: Decomposition, tiny_data: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """The low-rank tiny model in int8, its weights in a file of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export.graph.files, "EXTERNAL_ABOVE", 1000)
        folder = tmp_path_factory.mktemp("exported") / "tiny-svd-int8"
        return export_decomposition(tiny_source, tiny_low_rank, tiny_data, folder, precision="int8")


def written(bundle: Bundle, ort: Path, app: Path) -> Path:
    write_app(bundle, "web", app)
    (app / "ort").symlink_to(ort)
    return app


@pytest.mark.parametrize("kind", ["tiny_bundle", "int8_bundle", "tiny_pixel_bundle"])
def test_the_page_answers_the_reference(
    kind: str, request: pytest.FixtureRequest, browser: Chrome, ort: Path, tmp_path: Path
) -> None:
    bundle: Bundle = request.getfixturevalue(kind)
    app = written(bundle, ort, tmp_path / "app")
    settings = settings_of(bundle)
    assert settings.external_data == (("model.onnx.data",) if kind == "int8_bundle" else ())
    names = []
    for index, picture in enumerate(reference_pictures(bundle, settings)):
        names.append(f"reference-{index}.png")
        (app / names[-1]).write_bytes(png(picture))
    _, expected = bundle.reference()
    log(browser), requests(browser)  # those of other tests
    with served(app) as url:
        assert opened(browser, url).check.startswith("ok: ")
        answers = answered(browser, names)
        assert relative_error(answers, expected) <= settings.tolerance
        for name, row in zip(names[:3], answers, strict=False):
            weights = row if settings.answers == "probabilities" else np.exp(row - row.max())
            wanted = dict(zip(settings.labels, weights / weights.sum(), strict=True))
            bars = dropped(browser, app / name).bars
            assert list(bars) == sorted(wanted, key=lambda label: -wanted[label])[:5]
            assert bars == pytest.approx({label: wanted[label] for label in bars}, rel=1e-4)
        assert log(browser) == []
        asked = requests(browser)
        assert any(address.endswith(".wasm") for address in asked)
        assert [address for address in asked if not address.startswith(url)] == []


def test_files_become_the_pixels_that_pillow_reads(tiny_bundle: Bundle, browser: Chrome, ort: Path, tmp_path: Path) -> None:
    app = written(tiny_bundle, ort, tmp_path / "app")
    write_images(app)
    with served(app) as url:
        opened(browser, url)
        for name, levels in (("photo.png", 0), ("alpha.png", 1), ("grey16.png", 1), ("rotated.jpg", 2), ("animated.gif", 0)):
            found = pixels(browser, name)
            image = ImageOps.exif_transpose(Image.open(app / name))
            if name == "grey16.png":
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            if image.has_transparency_data:
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
            wanted = np.asarray(image.convert("RGB")).astype(int)
            assert found.shape == wanted.shape, name
            assert np.abs(found - wanted).max() <= levels, name


def test_colour_is_prepared_as_vitdeploy_does(tiny_bundle: Bundle, browser: Chrome, ort: Path, tmp_path: Path) -> None:
    colours: dict[str, Any] = {"image_size": 8, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3), "interpolation": "bicubic"}
    bundle = copy_bundle(tiny_bundle, tmp_path / "bundle", preprocessing=colours)
    app = written(tiny_bundle, ort, tmp_path / "app")
    (app / "settings.json").write_text(settings_of(bundle).to_json())
    write_images(app)
    with served(app) as url:
        opened(browser, url)
        found = prepared(browser, "photo.png")
    expected = Preprocessing.model_validate(colours)(ImageFiles(app, ("photo.png",)))
    levels = np.abs(found - expected) * 255 * np.reshape(colours["std"], (1, 3, 1, 1))
    assert levels.max() <= 1e-3


def test_images_are_chosen_and_pasted_too(tiny_bundle: Bundle, browser: Chrome, ort: Path, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By

    app = written(tiny_bundle, ort, tmp_path / "app")
    write_images(tmp_path)
    with served(app) as url:
        opened(browser, url)
        wanted = dropped(browser, tmp_path / "photo.png").bars
        other = dropped(browser, tmp_path / "tall.jpg").bars
        browser.find_element(By.ID, "file").send_keys(str(tmp_path / "photo.png"))
        assert settled(browser, lambda page: page.caption == "photo.png" and bool(page.bars)).bars == wanted != other
        assert pasted(browser, tmp_path / "tall.jpg").bars == other


def test_odd_images_are_read_or_refused_in_a_line(tiny_bundle: Bundle, browser: Chrome, ort: Path, tmp_path: Path) -> None:
    app = written(tiny_bundle, ort, tmp_path / "app")
    write_images(tmp_path)
    with served(app) as url:
        opened(browser, url)
        read = {name: dropped(browser, tmp_path / name) for name in GOOD}
        assert [(name, page.error) for name, page in read.items() if page.error] == []
        same = pytest.approx(read["photo.png"].bars, abs=0.03)
        assert [read[name].bars for name in ("grey.png", "grey16.png", "rotated.jpg")] == [same] * 3
        assert read["alpha.png"].bars != pytest.approx(read["photo.png"].bars, abs=1e-3)  # the background shows
        refused = {name: dropped(browser, tmp_path / name) for name in BAD if name != "missing.png"}
    assert [page.bars for page in refused.values()] == [{}] * len(refused)
    assert refused["huge.png"].error == "huge.png: expected at most 100,000,000 pixels, got 20000 x 20000"
    for name in set(refused) - {"huge.png"}:
        assert refused[name].error.startswith(f"{name}: expected a complete image file, got: ")


def test_what_cannot_be_loaded_is_said_in_a_line(tiny_bundle: Bundle, browser: Chrome, ort: Path, tmp_path: Path) -> None:
    app = written(tiny_bundle, ort, tmp_path / "app")
    with served(app) as url:
        if browser.execute_async_script("navigator.gpu?.requestAdapter().then(arguments[0]) ?? arguments[0](null)") is None:
            page = opened(browser, f"{url}?provider=webgpu")
            assert "with webgpu: this browser offers no GPU to this page" in page.error
            assert page.bars == {}, "something else ran in its place"
        assert opened(browser, f"{url}?provider=cuda").error == "provider: expected wasm or webgpu, got cuda"
        (app / "expected.json").write_text('{"image": "sample.png", "label": "a", "answers": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]}')
        assert opened(browser, url).check.startswith("WRONG: ")
        whole = (app / "model.onnx").read_bytes()
        (app / "model.onnx").write_bytes(whole[:1000])
        assert opened(browser, url).error.startswith("onnxruntime-web cannot run the model with wasm: ")
        (app / "model.onnx").unlink()
        assert opened(browser, url).error == "model.onnx: expected a file, got HTTP 404 Not Found"
        (app / "model.onnx").write_bytes(whole)  # both are fetched at once: one thing missing at a time
        (app / "ort").unlink()
        assert "expected onnxruntime-web there" in opened(browser, url).error


def test_webgpu_is_used_where_it_is_chosen_and_what_it_leaves_to_webassembly_is_said(
    tiny_bundle: Bundle, int8_bundle: Bundle, ort: Path, tmp_path: Path
) -> None:
    with chromium("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader") as browser:
        for bundle, rest in ((tiny_bundle, ""), (int8_bundle, ", some operators on WebAssembly")):
            app = written(bundle, ort, tmp_path / bundle.name)
            with served(app) as url:
                page = opened(browser, f"{url}?provider=webgpu")
            if "offers no GPU" in page.error:
                pytest.skip("this Chromium has no software GPU")
            assert page.check.startswith("ok: ")
            assert re.fullmatch(rf"WebGPU \(.+\){rest}(, \d+ threads?)?", page.running)
        assert log(browser) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_shows_the_page_without_sideways_scrolling(
    scheme: str, tiny_bundle: Bundle, browser: Chrome, ort: Path, tmp_path: Path
) -> None:
    app = written(tiny_bundle, ort, tmp_path / "app")
    view(browser, 390, 844, scheme)
    with served(app) as url:
        assert opened(browser, url).bars
        assert browser.execute_script("return innerWidth === 390 && document.documentElement.scrollWidth <= innerWidth")
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}[scheme]


def test_the_server_hands_out_this_folder_only(tiny_bundle: Bundle, tmp_path: Path) -> None:
    if shutil.which("node") is None:
        pytest.skip("needs Node")
    write_app(tiny_bundle, "web", tmp_path / "app")
    (tmp_path / "secret.txt").write_text("secret")
    with served(tmp_path / "app") as url:
        connection = http.client.HTTPConnection(url.removeprefix("http://").rstrip("/"), timeout=10)
        found = {}
        for path in ("/", "/preprocess.mjs", "/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/none", "/%", "//"):
            connection.request("GET", path)
            response = connection.getresponse()
            found[path] = (response.status, response.getheader("Content-Type"))
            assert b"secret" not in response.read()
            assert response.getheader("Cross-Origin-Embedder-Policy") == "require-corp"
    assert found.pop("/") == (200, "text/html; charset=utf-8")
    assert found.pop("/preprocess.mjs") == (200, "text/javascript; charset=utf-8")
    assert {status for status, _ in found.values()} == {404}
