"""Every example of `vitdeploy embed` runs for real: on dense, decomposed int8 and preprocessing bundles, and on odd image files."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from runtime.apps.write import write_app
from runtime.bundle.schema import Bundle
from tests.helpers.apps import answers, assert_answers_the_reference, assert_reads_odd_images, compile_cpp, run
from tests.helpers.bundles import copy_bundle
from tests.helpers.images import ORIENTATION, write_images
from tests.helpers.npm import npm_install
from vitnla.data.image_files import ImageFiles
from vitnla.data.preprocessing import Preprocessing

GREY: dict[str, Any] = {"image_size": 8, "mean": (0.3,), "std": (0.35,)}
COLOUR: dict[str, Any] = {"image_size": 8, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)}
FILES = ("photo.png", "grey.png")
PREPARE_IN_NODE = """import sharp from "sharp"; import { readFileSync } from "node:fs"; import { prepare } from "./preprocess.mjs";
const settings = JSON.parse(readFileSync(process.argv[2]));
for (const file of process.argv.slice(3)) {
  const { data, info } = await sharp(file).toColourspace("srgb").raw().toBuffer({ resolveWithObject: true });
  console.log(JSON.stringify(Array.from(prepare({ data, ...info }, settings).data)));
}"""
PREPARE_IN_CPP = """#include <cstdio>
#include "images.hpp"
int main(int count, char** words) {
  const Settings settings = read_settings(words[1]);
  for (int i = 2; i < count; ++i) {
    const std::vector<float> input = preprocess::normalise(preprocess::levels(read_image(words[i], settings), settings), settings);
    std::puts(nlohmann::json(input).dump().c_str());
  }
}"""
NEEDS = {"node": "node_modules", "cpp": "build"}
node, cpp = (pytest.param(target, marks=pytest.mark.slow) for target in ("node", "cpp"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_images(folder)
    return folder


@pytest.fixture(scope="module")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("node")
    npm_install("node", ("package.json", ".npmrc"), folder)
    return folder / "node_modules"


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cpp")
    (folder / "prepared.cpp").write_text(PREPARE_IN_CPP)
    return compile_cpp(folder, "prepared.cpp")


Make = Callable[[Bundle, str], Path]


@pytest.fixture
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Writes the example of a target, with what it needs besides its files; that is made once, where a test asks for it."""

    def made(bundle: Bundle, target: str) -> Path:
        app = tmp_path / "app"
        write_app(bundle, target, app)
        if target in NEEDS:
            (app / NEEDS[target]).symlink_to(request.getfixturevalue(NEEDS[target]))
        return app

    return made


@pytest.mark.parametrize("target", ["python", node, cpp])
@pytest.mark.parametrize("fixture", ["tiny_bundle", "tiny_int8_bundle", "tiny_pixel_bundle"])
def test_answers_the_reference(fixture: str, target: str, make: Make, request: pytest.FixtureRequest) -> None:
    bundle: Bundle = request.getfixturevalue(fixture)
    app = make(bundle, target)
    assert_answers_the_reference(app, bundle)
    assert len((app / "README.md").read_text().splitlines()) <= 15


@pytest.mark.parametrize("target", ["python", node, cpp])
def test_reads_what_it_can_and_refuses_the_rest_in_a_line_each(
    target: str, tiny_bundle: Bundle, make: Make, images: Path
) -> None:
    assert_reads_odd_images(make(tiny_bundle, target), images)


@pytest.mark.parametrize("target", ["python", node, cpp])
def test_turns_pictures_as_cameras_say(target: str, tiny_bundle: Bundle, make: Make, images: Path) -> None:
    app, names = make(tiny_bundle, target), []
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        with Image.open(images / "photo.png") as photo:
            photo.save(app / f"{orientation}.jpg", exif=exif, quality=95)
        with Image.open(app / f"{orientation}.jpg") as photo:
            ImageOps.exif_transpose(photo).save(app / f"{orientation}.png")
        names += [f"{orientation}.jpg", f"{orientation}.png"]
    found = answers(app, names)
    # Decoders of JPEG differ by a level or two; pictures that are turned otherwise differ far more.
    np.testing.assert_allclose(found[0::2], found[1::2], atol=0.02 * np.abs(found).max())
    assert min(np.abs(found[2 * one] - found[0]).max() for one in range(1, 8)) > 0.1 * np.abs(found).max()


@pytest.mark.slow
@pytest.mark.parametrize("target", ["node", "cpp"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("fit", ["square", "squash", "shortest"])
def test_prepares_files_to_the_last_level(
    fit: str, interpolation: str, target: str, tiny_bundle: Bundle, make: Make, images: Path, tmp_path: Path
) -> None:
    given = GREY | {"fit": fit, "interpolation": interpolation, "crop_rounding": "even"}
    given["resize_size"] = None if fit == "square" else 11
    app = make(copy_bundle(tiny_bundle, tmp_path / "bundle", preprocessing=given), target)
    (app / "prepared.mjs").write_text(PREPARE_IN_NODE)
    start = ["node", "prepared.mjs"] if target == "node" else [str(app / "build" / "prepared")]
    files = [str(images / name) for name in FILES]
    settings = json.loads((app / "settings.json").read_text())
    for fields in (GREY, COLOUR):
        changed = settings | {"channels": len(fields["mean"]), "mean": fields["mean"], "std": fields["std"]}
        (app / "changed.json").write_text(json.dumps(changed))
        done = subprocess.run([*start, "changed.json", *files], cwd=app, capture_output=True, text=True, check=True)
        expected = Preprocessing.model_validate(given | fields)(ImageFiles(images, FILES))
        found = np.asarray([json.loads(line) for line in done.stdout.splitlines()]).reshape(expected.shape)
        np.testing.assert_allclose(found, expected, atol=1e-5)  # a grey level is at least 0.011


@pytest.mark.slow
def test_cpp_says_what_is_wrong_with_its_call(tiny_bundle: Bundle, make: Make) -> None:
    app = make(tiny_bundle, "cpp")
    assert run(app, "--jsn", code=2).stderr.startswith("usage: classify [--json]")
    (app / "settings.json").unlink()
    assert "settings.json: cannot be read" in run(app, code=2).stderr
