"""Runs the examples that `vitdeploy embed` writes, as their READMEs start them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from runtime.apps.pictures import png, reference_pictures
from runtime.apps.settings import settings_of
from runtime.apps.targets import TARGETS, TEMPLATES
from runtime.bundle.schema import Bundle
from tests.helpers.images import BAD, GOOD

_ALONE = """import runpy, sys
for name in ("torch", "vitnla", "export", "runtime", "onnx", "pydantic", "scipy"):
    sys.modules[name] = None  # importing it fails, as where it is not installed
sys.path.insert(0, ".")
runpy.run_path("classify.py", run_name="__main__")"""


def run(folder: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """The example of a folder; the one in Python sees none of our packages, nor torch."""
    if (folder / "classify.py").exists():
        start = [sys.executable, "-I", "-c", _ALONE]
    elif (folder / "classify.mjs").exists():
        start = ["node", "classify.mjs"]
    else:
        start = [str(folder / "build" / "classify"), "--app", str(folder)]
    done = subprocess.run([*start, *arguments], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    return done


def answers(folder: Path, names: list[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """What the example answers for each image file."""
    lines = run(folder, "--json", *names).stdout.splitlines()
    return np.asarray([json.loads(line)["answers"] for line in lines], np.float32)


def assert_answers_the_reference(app: Path, bundle: Bundle) -> None:
    """The app's answers for the reference images are the bundle's, and its own check says ok."""
    settings = settings_of(bundle)
    names = []
    for index, picture in enumerate(reference_pictures(bundle, settings)):
        names.append(f"reference-{index}.png")
        (app / names[-1]).write_bytes(png(picture))
    _, expected = bundle.reference()
    difference = np.abs(answers(app, names) - expected).max() / np.abs(expected).max()
    assert difference <= settings.tolerance
    assert "ok" in run(app).stdout


def assert_reads_odd_images(app: Path, images: Path) -> None:
    """Every image of GOOD gets a sensible answer, every one of BAD a line that says what is wrong."""
    read = dict(zip(GOOD, answers(app, [str(images / name) for name in GOOD]), strict=True))
    scale = np.abs(read["photo.png"]).max()
    # CMYK is read by all, but its colours depend on the decoder: libvips has a profile, Pillow and stb_image none.
    for name, like in (("grey.png", "photo.png"), ("grey16.png", "grey.png"), ("rotated.jpg", "photo.png")):
        assert np.abs(read[name] - read[like]).max() < 0.1 * scale, name
    assert np.abs(read["alpha.png"] - read["photo.png"]).max() > 1e-3 * scale  # the background shows
    refused = run(app, *(str(images / name) for name in BAD), code=2).stderr.splitlines()
    assert [line.split(": ")[1].rpartition("/")[2] for line in refused] == list(BAD)
    assert "expected at most 100,000,000 pixels, got 20000 x 20000" in refused[BAD.index("huge.png")]


def compile_cpp(folder: Path, *programs: str) -> Path:
    """The C++ example, compiled with warnings as errors against the library of the `onnxruntime` wheel: its build folder.

    Skips the test where a compiler or a header is missing. CMake also looks in the environment's CMAKE_PREFIX_PATH: see
    scripts/cpp_headers.sh.

    Args:
        programs: C++ files of the folder to compile besides, each with a `main` of its own.
    """
    if shutil.which("cmake") is None or shutil.which("c++") is None:
        pytest.skip("needs CMake and a C++ compiler")
    for name, source in TARGETS["cpp"].files.items():
        shutil.copyfile(TEMPLATES / source, folder / name)
    with (folder / "CMakeLists.txt").open("a") as lists:
        for program in programs:
            name = Path(program).stem
            lists.write(
                f"add_executable({name} {program} images.cpp)\ntarget_include_directories({name} SYSTEM PRIVATE ${{JSON_INCLUDE}} ${{STB_INCLUDE}})\n"
            )
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    (folder / "libonnxruntime.so.1").symlink_to(library)  # the name that the library calls itself
    where = [f"-DONNXRUNTIME_LIB={folder / 'libonnxruntime.so.1'}", "-DCMAKE_CXX_FLAGS=-Wpedantic -Werror"]
    done = subprocess.run(["cmake", "-B", "build", *where], cwd=folder, capture_output=True, text=True, timeout=120)
    if "did not find" in done.stderr:
        pytest.skip(" ".join(done.stderr.partition("did not find:")[2].split()))
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        ["cmake", "--build", "build", "--parallel", "2"], cwd=folder, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "build"
