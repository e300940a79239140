"""`vitdeploy embed`: the examples run, and answer as the bundle does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runtime.apps.settings import Resizing, settings_of
from runtime.apps.targets import TARGETS
from runtime.apps.write import write_app
from runtime.bundle.schema import Bundle
from tests.helpers.apps import answers, assert_answers_the_reference, run
from tests.helpers.bundles import copy_bundle
from tests.helpers.images import write_images
from vitnla.common.errors import InputError
from vitnla.data.image_files import ImageFiles
from vitnla.data.preprocessing import Preprocessing

GREY: dict[str, Any] = {"image_size": 8, "mean": (0.3,), "std": (0.35,)}
CROPPED = GREY | {"fit": "shortest", "resize_size": 11, "crop_rounding": "even", "interpolation": "bicubic"}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_images(folder)
    return folder


def test_the_folder_holds_all_that_its_readme_names(tiny_bundle: Bundle, tmp_path: Path) -> None:
    for name in TARGETS:
        app = write_app(tiny_bundle, name, tmp_path / name)
        assert set(app.files) == {"model.onnx", "settings.json", "expected.json", "sample.png", *TARGETS[name].files}
        readme = (tmp_path / name / "README.md").read_text()
        assert len(readme.splitlines()) <= 15
        assert "$" not in readme


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


def test_the_sample_shows_transparent_pixels_on_the_background(tiny_bundle: Bundle, tmp_path: Path) -> None:
    app = tmp_path / "app"
    write_app(tiny_bundle, "python", app)
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(app / "clear.png")
    Image.new("L", (8, 8), 255).save(app / "white.png")
    clear, white = answers(app, ["clear.png", "white.png"])
    np.testing.assert_allclose(clear, white, atol=1e-6)


def test_pixels_for_a_graph_that_resizes_are_stretched_to_what_it_takes(tiny_bundle: Bundle, tmp_path: Path) -> None:
    spec = tiny_bundle.manifest.input.model_copy(update={"dtype": "uint8", "shape": ("batch", 20, 12, 1)})
    settings = settings_of(copy_bundle(tiny_bundle, tmp_path / "bundle", input=spec))
    wanted = Resizing(fit="squash", to=(20, 12), crop=(20, 12), crop_rounding="down", interpolation="bilinear")
    assert settings.resizing == wanted


def test_classes_without_a_label_get_numbers(tiny_bundle: Bundle, tmp_path: Path) -> None:
    bundle = copy_bundle(tiny_bundle, tmp_path / "bundle", labels=())
    assert settings_of(bundle).labels[:2] == ("class 0", "class 1")
    assert write_app(bundle, "python", tmp_path / "app").expected.startswith("class ")


def test_a_tower_without_classes_gives_an_embedding(tiny_bundle: Bundle, tmp_path: Path) -> None:
    bundle = copy_bundle(tiny_bundle, tmp_path / "bundle", labels=tuple(f"feature {index}" for index in range(10)))
    written = write_app(bundle, "python", tmp_path / "app")
    assert written.expected == "embedding of 10 values"
    assert "ok" in run(tmp_path / "app").stdout
    said = run(tmp_path / "app", "sample.png").stdout
    assert "embedding of 10 values, of length" in said
    assert "%" not in said
    assert "feature " not in said


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
