"""`vitdeploy embed`: the examples run, and answer as the bundle does."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runtime.apps.pictures import png, reference_pictures
from runtime.apps.settings import Resizing, settings_of
from runtime.apps.targets import TARGETS, TEMPLATES
from runtime.apps.write import write_app
from runtime.bundle import Bundle
from tests.bundles import copy_bundle
from tests.images import BAD, GOOD, write_images
from vitnla.common.errors import InputError
from vitnla.data.image_files import ImageFiles
from vitnla.data.preprocessing import Preprocessing

GREY: dict[str, Any] = {"image_size": 8, "mean": (0.3,), "std": (0.35,)}
CROPPED = GREY | {"fit": "shortest", "resize_size": 11, "crop_rounding": "even", "interpolation": "bicubic"}


def run(folder: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """The example of a folder, as its README starts it."""
    start = [sys.executable, "-I", "classify.py"] if (folder / "classify.py").exists() else ["node", "classify.mjs"]
    done = subprocess.run([*start, *arguments], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    return done


def answers(folder: Path, names: list[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    lines = run(folder, "--json", *names).stdout.splitlines()
    return np.asarray([json.loads(line)["answers"] for line in lines], np.float32)


def assert_answers_the_reference(app: Path, bundle: Bundle) -> None:
    settings = settings_of(bundle)
    names = []
    for index, picture in enumerate(reference_pictures(bundle, settings)):
        names.append(f"reference-{index}.png")
        (app / names[-1]).write_bytes(png(picture))
    _, expected = bundle.reference()
    difference = np.abs(answers(app, names) - expected).max() / np.abs(expected).max()
    assert difference <= settings.tolerance
    assert "ok" in run(app).stdout


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_images(folder)
    return folder


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of the Node example, installed once."""
    if shutil.which("npm") is None:
        pytest.skip("needs Node and npm")
    folder = tmp_path_factory.mktemp("node")
    for name, source in TARGETS["node"].files.items():
        if name in ("package.json", ".npmrc"):
            shutil.copyfile(TEMPLATES / source, folder / name)
    done = subprocess.run(["npm", "install", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, text=True, timeout=240)
    if done.returncode:
        pytest.skip(f"npm install: {done.stderr.strip().splitlines()[-1]}")
    return folder / "node_modules"


def test_python_answers_the_reference(tiny_bundle: Bundle, tmp_path: Path) -> None:
    app = write_app(tiny_bundle, "python", tmp_path / "app")
    assert set(app.files) >= {"model.onnx", "settings.json", "expected.json", "sample.png", "classify.py", "README.md"}
    assert_answers_the_reference(tmp_path / "app", tiny_bundle)
    assert len((tmp_path / "app" / "README.md").read_text().splitlines()) <= 12


@pytest.mark.parametrize("preprocessing", [GREY, CROPPED])
def test_python_prepares_files_as_vitdeploy_does(
    preprocessing: dict[str, Any], tiny_bundle: Bundle, images: Path, tmp_path: Path
) -> None:
    bundle = copy_bundle(tiny_bundle, tmp_path / "bundle", preprocessing=preprocessing)
    write_app(bundle, "python", tmp_path / "app")
    names = ("photo.png", "tall.jpg", "grey.png")  # what both read alike
    prepared = Preprocessing.model_validate(preprocessing)(ImageFiles(images, names))
    code = """import json, sys; sys.path.insert(0, "."); from pathlib import Path; from classify import Classifier
classifier = Classifier()
print(json.dumps([classifier.prepare(classifier.read(Path(name)))[0].tolist() for name in sys.argv[1:]]))"""
    paths = [str(images / name) for name in names]
    done = subprocess.run([sys.executable, "-c", code, *paths], cwd=tmp_path / "app", capture_output=True, text=True, check=True)
    np.testing.assert_allclose(np.asarray(json.loads(done.stdout)), prepared, atol=1e-5)
    assert_answers_the_reference(tmp_path / "app", bundle)


def test_python_reads_what_it_can_and_refuses_the_rest_in_a_line_each(tiny_bundle: Bundle, images: Path, tmp_path: Path) -> None:
    write_app(tiny_bundle, "python", tmp_path / "app")
    check_odd_images(tmp_path / "app", images)


def check_odd_images(app: Path, images: Path) -> None:
    read = dict(zip(GOOD, answers(app, [str(images / name) for name in GOOD]), strict=True))
    scale = np.abs(read["photo.png"]).max()
    # CMYK is read by all, but its colours depend on the decoder: libvips has a profile, Pillow none.
    for name, like in (("grey.png", "photo.png"), ("grey16.png", "grey.png"), ("rotated.jpg", "photo.png")):
        assert np.abs(read[name] - read[like]).max() < 0.1 * scale, name
    assert np.abs(read["alpha.png"] - read["photo.png"]).max() > 1e-3 * scale  # the background shows
    refused = run(app, *(str(images / name) for name in BAD), code=2).stderr.splitlines()
    assert [line.split(": ")[1].rpartition("/")[2] for line in refused] == list(BAD)
    assert "expected at most 100,000,000 pixels, got 20000 x 20000" in refused[BAD.index("huge.png")]


def test_the_sample_shows_transparent_pixels_on_the_background(tiny_bundle: Bundle, tmp_path: Path) -> None:
    app = tmp_path / "app"
    write_app(tiny_bundle, "python", app)
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(app / "clear.png")
    Image.new("L", (8, 8), 255).save(app / "white.png")
    clear, white = answers(app, ["clear.png", "white.png"])
    np.testing.assert_allclose(clear, white, atol=1e-6)


@pytest.mark.slow
def test_node_answers_the_reference_and_reads_odd_images(
    tiny_bundle: Bundle, tiny_low_rank_bundle: Bundle, installed: Path, images: Path, tmp_path: Path
) -> None:
    for bundle in (tiny_bundle, tiny_low_rank_bundle):
        app = tmp_path / bundle.name
        write_app(bundle, "node", app)
        (app / "node_modules").symlink_to(installed)
        assert_answers_the_reference(app, bundle)
    check_odd_images(app, images)


@pytest.mark.slow
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("fit", ["square", "squash", "shortest"])
def test_node_prepares_files_as_vitdeploy_does(
    fit: str, interpolation: str, tiny_bundle: Bundle, installed: Path, images: Path, tmp_path: Path
) -> None:
    fields = GREY | {"fit": fit, "interpolation": interpolation, "resize_size": None if fit == "square" else 11}
    bundle = copy_bundle(tiny_bundle, tmp_path / "bundle", preprocessing=fields)
    app = tmp_path / "app"
    write_app(bundle, "node", app)
    (app / "node_modules").symlink_to(installed)
    code = """import sharp from "sharp"; import { readFileSync } from "node:fs"; import { prepare } from "./preprocess.mjs";
const { data, info } = await sharp(process.argv[2]).toColourspace("srgb").raw().toBuffer({ resolveWithObject: true });
const input = prepare({ data, ...info }, JSON.parse(readFileSync("settings.json")));
console.log(JSON.stringify(Array.from(input.data)));"""
    (app / "prepared.mjs").write_text(code)
    done = subprocess.run(
        ["node", "prepared.mjs", str(images / "photo.png")], cwd=app, capture_output=True, text=True, check=True
    )
    expected = Preprocessing.model_validate(fields)(ImageFiles(images, ("photo.png",)))
    level = 1 / (255 * 0.35)
    assert np.abs(np.asarray(json.loads(done.stdout)).reshape(expected.shape) - expected).max() <= 1.3 * level


def test_pixels_for_a_graph_that_resizes_are_stretched_to_what_it_takes(tiny_bundle: Bundle, tmp_path: Path) -> None:
    spec = tiny_bundle.manifest.input.model_copy(update={"dtype": "uint8", "shape": ("batch", 20, 12, 1)})
    settings = settings_of(copy_bundle(tiny_bundle, tmp_path / "bundle", input=spec))
    wanted = Resizing(fit="squash", to=(20, 12), crop=(20, 12), crop_rounding="down", interpolation="bilinear")
    assert settings.resizing == wanted


def test_classes_without_a_label_get_numbers(tiny_bundle: Bundle, tmp_path: Path) -> None:
    bundle = copy_bundle(tiny_bundle, tmp_path / "bundle", labels=())
    assert settings_of(bundle).labels[:2] == ("class 0", "class 1")
    assert write_app(bundle, "python", tmp_path / "app").expected.startswith("class ")


def test_refuses_what_it_cannot_write(tiny_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown target 'java'"):
        write_app(tiny_bundle, "java", tmp_path / "app")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(InputError, match="already exists"):
        write_app(tiny_bundle, "python", tmp_path / "taken")
    fixed = tiny_bundle.manifest.input.model_copy(update={"shape": (4, 1, 8, 8)})
    with pytest.raises(InputError, match="runs at batch 4 only"):
        write_app(copy_bundle(tiny_bundle, tmp_path / "fixed", input=fixed), "python", tmp_path / "app")
    wide = {"image_size": 8, "mean": (0.1,) * 4, "std": (0.1,) * 4}
    with pytest.raises(InputError, match="1 or 3 channels, got 4"):
        write_app(copy_bundle(tiny_bundle, tmp_path / "wide", preprocessing=wide), "python", tmp_path / "app")
    assert not (tmp_path / "app").exists()
